"""Padding by the opposite faces of a periodic box, with a backward pass that is as cheap as the forward.

torch's own circular padding gives the same values, but its gradient in 3D takes longer than that of the
convolution behind it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def wrap_pad(x: Tensor, width: int) -> Tensor:
    """``(B, C, *shape)`` with ``width`` cells of the opposite face beyond each face."""
    return _Wrap.apply(x, width) if width else x  # pyright: ignore[reportReturnType]


def _wrapped(x: Tensor, width: int) -> Tensor:
    inner = x.shape[2:]
    padded = torch.empty(
        (*x.shape[:2], *(n + 2 * width for n in inner)),
        dtype=x.dtype,
        device=x.device,
        memory_format=_layout(x),
    )
    _inside(padded, width).copy_(x)
    for axis, n in enumerate(inner, start=2):
        padded.narrow(axis, 0, width).copy_(padded.narrow(axis, n, width))
        padded.narrow(axis, n + width, width).copy_(padded.narrow(axis, width, width))
    return padded


def _folded(x: Tensor, width: int) -> Tensor:
    """The adjoint: what lies in the padding is added to the cells that it came from."""
    x = x.clone()
    for axis in range(2, x.ndim):
        n = x.shape[axis] - 2 * width
        x.narrow(axis, n, width).add_(x.narrow(axis, 0, width))
        x.narrow(axis, width, width).add_(x.narrow(axis, n + width, width))
    return _inside(x, width).contiguous(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    """Channels last if ``x`` is, so that a convolution behind it need not bring it into that order again."""
    if x.ndim == 5 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format


def _inside(x: Tensor, width: int) -> Tensor:
    """Without ``width`` cells at each face, a view."""
    return x[(..., *(slice(width, -width),) * (x.ndim - 2))]


class _Linear(torch.autograd.Function):
    """A linear map of a field and a width, which is all that its derivatives know."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        del output
        ctx.width = inputs[1]


class _Wrap(_Linear):
    @staticmethod
    def forward(x: Tensor, width: int) -> Tensor:
        return _wrapped(x, width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Fold.apply(grads[0], ctx.width), None  # pyright: ignore[reportReturnType]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return wrap_pad(tangents[0], ctx.width)


class _Fold(_Linear):
    @staticmethod
    def forward(x: Tensor, width: int) -> Tensor:
        return _folded(x, width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Wrap.apply(grads[0], ctx.width), None  # pyright: ignore[reportReturnType]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Fold.apply(tangents[0], ctx.width)  # pyright: ignore[reportReturnType]
