"""Whether fields keep the large scales that they were made from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import FWHM, RADIANS, Grid


def smoothed(grid: Grid, values: Tensor, fwhm: float) -> Tensor:
    """``(B, C, *shape)`` seen through a Gaussian beam; beyond an open edge lies a mirror image.

    Args:
        fwhm: full width at half maximum [arcmin] on the sky, else [unit of the grid].

    Raises:
        InputError: for a beam that is not positive or wider than the patch.
    """
    width = fwhm * RADIANS["arcmin"] / RADIANS[grid.unit] if grid.angular else fwhm
    if not 0 < width < min(grid.box_size):
        raise InputError(
            f"a beam must be narrower than the fields, {min(grid.box_size):g} {grid.unit}, got {width:g}"
        )
    axes = range(2, values.ndim)
    x = values.double()
    for axis, n, side in zip(axes, grid.shape, grid.box_size, strict=True):
        if not grid.periodic:
            x = torch.cat([x, x.flip(axis)], dim=axis)
        full = x.shape[axis]
        k = 2 * math.pi * torch.fft.rfftfreq(full, side / n, dtype=torch.float64, device=x.device)
        beam = torch.exp(-((k * width / FWHM) ** 2) / 2).reshape(-1, *[1] * (values.ndim - 1 - axis))
        x = torch.fft.irfft(torch.fft.rfft(x, dim=axis) * beam, n=full, dim=axis).narrow(axis, 0, n)
    return x


def large_scale_columns(grid: Grid, made: Tensor, true: Tensor, fwhm: float) -> Tensor:
    """``(N, 2 C)`` float64: of each field the mean square of smoothed made - true, and of true less its mean.

    The true fields, smoothed as the made ones are, stand for what both were made from: a comparison with the
    coarse fields themselves would see the edges of open patches, whose surroundings no one is given.
    """
    a, b = (smoothed(grid, x, fwhm).flatten(2) for x in (made, true))
    return torch.cat([(a - b).square().mean(2), (b - b.mean(2, keepdim=True)).square().mean(2)], dim=1)
