"""Gaussian random fields of a known power spectrum: the fields with closed-form statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.noise import normal


def mode_power(grid: Grid, power: Callable[[Tensor], Tensor]) -> Tensor:
    """``power`` on the rfftn lattice, zero at k = 0, ``(n, ..., n/2+1)`` float64."""
    k = grid.wavenumber()
    out = torch.zeros_like(k)
    held = k > 0
    out[held] = torch.as_tensor(power(k[held]), dtype=k.dtype)
    if not torch.isfinite(out).all() or (out < 0).any():
        raise InputError(
            "a power spectrum must be finite and not negative at every wavenumber of the grid, "
            f"{grid.k_fundamental:.4g} and above [{grid.k_unit}]; extend its range or mend it"
        )
    return out


def gaussian_field(
    grid: Grid,
    power: Callable[[Tensor], Tensor],
    generators: Sequence[torch.Generator],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Periodic zero-mean Gaussian fields ``(B, 1, *grid.shape)`` with E|FFT(x)|^2 V / N^2 = P(k), 2D and 3D.

    Args:
        grid: N cells in the volume V; its own periodicity is not looked at.
        power: P(k) in ``k_unit^-dim``, of a tensor of wavenumbers k > 0 [``k_unit``].
        generators: one for each field.

    Raises:
        InputError: when the power is negative or not finite.
    """
    volume = torch.tensor(grid.k_sides, dtype=torch.float64).prod()
    amplitude = (mode_power(grid, power) * grid.n_cells / volume).sqrt()
    axes = tuple(range(1, grid.dim + 1))
    modes = torch.fft.rfftn(normal(generators, grid.shape).double(), dim=axes)
    return torch.fft.irfftn(modes * amplitude, s=grid.shape, dim=axes).to(dtype)[:, None]
