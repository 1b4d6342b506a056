"""Monotone maps, piecewise linear between nodes."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-5
"""Step between nodes."""


def increasing(x: Tensor) -> Tensor:
    """``(B, n)`` raised where it does not rise by ``LEAST`` from node to node."""
    least = LEAST * torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    return (x - least).cummax(-1).values + least


def through(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Piecewise linear ``(B, ...)`` through the points of ``(B, n)``, prolonged beyond the ends."""
    flat = at.reshape(len(at), -1)
    cell = (
        torch.searchsorted(x.detach().contiguous(), flat.detach().contiguous())
        .sub_(1)
        .clamp_(0, x.shape[1] - 2)
    )
    slope = y.diff(dim=-1) / x.diff(dim=-1)
    made = (y[:, :-1] - slope * x[:, :-1]).gather(1, cell) + slope.gather(1, cell) * flat
    return made.reshape(at.shape)
