"""Solutions of linear equations of which only products are known, each row of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """x with ``product(x) = right``, for a symmetric and positive product (Hestenes & Stiefel 1952).

    Args:
        product: of rows ``(B, ...)``.
        iterations: at most.
        tolerance: of the residual's norm over that of ``right``.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))

    x, residual = torch.zeros_like(right), right
    direction, size = residual, dot(residual, residual)
    enough = tolerance**2 * size
    for _ in range(iterations):
        if bool((size <= enough).all()):
            break
        image = product(direction)
        step = torch.where(size > enough, size / dot(direction, image).clamp(min=1e-300), 0)
        x, residual = x + step * direction, residual - step * image
        new = dot(residual, residual)
        direction = residual + new / size.clamp(min=1e-300) * direction
        size = new
    return x
