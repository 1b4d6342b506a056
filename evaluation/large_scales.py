"""Whether fields keep the large scales that they were made from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import FWHM, Grid, beam_sigma

REACH = 2.5
"""Standard deviations of a beam within an open edge that are not judged; beyond lie 0.6 % of its weight."""


def smoothed(grid: Grid, values: Tensor, fwhm: float) -> Tensor:
    """``(B, C, *shape)`` seen through a Gaussian beam; beyond an open edge lies a mirror image.

    Args:
        fwhm: full width at half maximum [arcmin] on the sky, else [unit of the grid].

    Raises:
        InputError: for a beam that is not positive or wider than the patch.
    """
    sigma = beam_sigma(grid, fwhm)
    if not 0 < sigma * FWHM < min(grid.k_sides):
        raise InputError(
            f"a beam must be narrower than the fields, {min(grid.box_size):g} {grid.unit}, "
            f"got {fwhm:g} {'arcmin' if grid.angular else grid.unit}"
        )
    axes = range(2, values.ndim)
    x = values.double()
    for axis, n, side in zip(axes, grid.shape, grid.k_sides, strict=True):
        if not grid.periodic:
            x = torch.cat([x, x.flip(axis)], dim=axis)
        full = x.shape[axis]
        k = 2 * math.pi * torch.fft.rfftfreq(full, side / n, dtype=torch.float64, device=x.device)
        beam = torch.exp(-((k * sigma) ** 2) / 2).reshape(-1, *[1] * (values.ndim - 1 - axis))
        x = torch.fft.irfft(torch.fft.rfft(x, dim=axis) * beam, n=full, dim=axis).narrow(axis, 0, n)
    return x


def judged(grid: Grid, fwhm: float) -> tuple[slice, ...]:
    """Cells ``REACH`` standard deviations of a beam or more within open edges; all cells of a periodic grid.

    Of a patch that has less than a quarter of a side left, that quarter in its middle: judged more strictly
    than can be kept, rather than not at all.
    """
    if grid.periodic:
        return (slice(None),) * grid.dim
    reach = REACH * beam_sigma(grid, fwhm)
    border = [
        min(math.ceil(reach * n / side), (n - math.ceil(n / 4)) // 2)
        for n, side in zip(grid.shape, grid.k_sides, strict=True)
    ]
    return tuple(slice(b, n - b) for b, n in zip(border, grid.shape, strict=True))


def large_scale_columns(grid: Grid, made: Tensor, true: Tensor, fwhm: float) -> Tensor:
    """``(N, 2 C)`` float64: mean squares of smoothed made - true where ``judged``, and of true less its mean.

    The true fields, smoothed as the made ones are, stand for what both were made from. Near an open edge they
    do not: the coarse field there saw the sky beyond the patch, which no one is given and a mirror image is
    not. A field that is held to its coarse one to the very edge differs there from the true one by half of
    what the two surroundings differ. So fields are smoothed whole, and compared where ``judged``; the scatter
    is that of the whole patch, for a small middle hardly has any.
    """
    a, b = (smoothed(grid, x, fwhm) for x in (made, true))
    wrong, size = (a - b)[(..., *judged(grid, fwhm))], b - b.mean(tuple(range(2, b.ndim)), keepdim=True)
    return torch.cat([x.flatten(2).square().mean(2) for x in (wrong, size)], dim=1)
