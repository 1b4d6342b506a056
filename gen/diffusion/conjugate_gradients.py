"""Solutions of linear equations of which only products are known, each row of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Linear = Callable[[Tensor], Tensor]
"""Of rows ``(B, ...)``, symmetric and positive in each."""


def conjugate_gradients(
    product: Linear, right: Tensor, iterations: int, tolerance: float, precondition: Linear | None = None
) -> Tensor:
    """x with ``product(x) = right`` (Hestenes & Stiefel 1952).

    Args:
        iterations: at most.
        tolerance: of the residual's norm over that of ``right``, under the preconditioner.
        precondition: an approximate inverse of ``product``.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))

    def improved(r: Tensor) -> Tensor:
        return r if precondition is None else precondition(r)

    x, residual = torch.zeros_like(right), right
    direction = improved(residual)
    size = dot(residual, direction)
    enough = tolerance**2 * size
    for _ in range(iterations):
        if bool((size <= enough).all()):
            break
        image = product(direction)
        step = torch.where(size > enough, size / dot(direction, image).clamp(min=1e-300), 0)
        x, residual = x + step * direction, residual - step * image
        nearer = improved(residual)
        new = dot(residual, nearer)
        direction = nearer + new / size.clamp(min=1e-300) * direction
        size = new
    return x
