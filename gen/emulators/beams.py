"""Gaussian beams on a lattice: smoothing by them, and what undoes it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid, beam_sigma


def widening(grid: Grid, fine: float, coarse: float) -> float:
    """Full width at half maximum of the beam that makes the coarse one out of the fine one.

    Raises:
        InputError: unless 0 <= fine < coarse.
    """
    if not 0 <= fine < coarse:
        raise InputError(
            f"the fine beam must be narrower than the coarse one, got {fine:g} and {coarse:g} "
            f"{'arcmin' if grid.angular else grid.unit}"
        )
    return math.sqrt(coarse**2 - fine**2)


def beam(grid: Grid, fwhm: float) -> Tensor:
    """Transfer function ``exp(- k^2 sigma^2 / 2)`` on the rfftn lattice, float64."""
    return torch.exp(-0.5 * (grid.wavenumber() * beam_sigma(grid, fwhm)) ** 2)


def filtered(x: Tensor, transfer: Tensor) -> Tensor:
    """``x (..., *shape)`` with its modes multiplied by a transfer function on the rfftn lattice, float32."""
    dim = transfer.ndim
    axes, shape = tuple(range(-dim, 0)), x.shape[-dim:]
    modes = torch.fft.rfftn(x.float(), dim=axes) * transfer.to(x.device).float()
    return torch.fft.irfftn(modes, s=shape, dim=axes)


def undoing(transfer: Tensor, steps: int, last: float = 0.04) -> Iterator[Tensor]:
    """Filters that undo a beam B step by step, for waves ever shorter.

    Each is ``B^3 / (B^2 + floor^2)^2``: 1/B where B is well above the floor, and soon nothing below. Floors
    fall from 1 to ``last``: what longer waves leave at a window's edge would else be raised twenty times.
    """
    for i in range(steps):
        floor = last ** (i / max(1, steps - 1))
        yield transfer**3 / (transfer.square() + floor**2).square()
