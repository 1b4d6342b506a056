"""The fields that all are timed on."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.fields import Grid


def cube(n: int, dim: int) -> Grid:
    """A periodic grid of unit cells."""
    return Grid((n,) * dim, float(n), "Mpc/h", periodic=True)


def white(grid: Grid, n: int, channels: int = 1) -> Tensor:
    """Gaussian white noise ``(n, channels, *shape)`` in single precision, as fields are kept."""
    return torch.randn(n, channels, *grid.shape, generator=torch.Generator().manual_seed(0))


def smooth(grid: Grid, n: int, radius: float = 2.0) -> Tensor:
    """Gaussian fields of unit variance smoothed over ``radius`` cells, as maps of structure are."""
    axes = tuple(range(2, grid.dim + 2))
    kernel = torch.exp(-((grid.wavenumber() * radius * grid.spacing[0]) ** 2) / 2).float()
    x = torch.fft.irfftn(torch.fft.rfftn(white(grid, n), dim=axes) * kernel, s=grid.shape, dim=axes)
    return x / x.std()


def lognormal(grid: Grid, n: int, sigma: float = 1.5) -> Tensor:
    """Density contrasts with peaks and voids."""
    return torch.exp(sigma * smooth(grid, n) - sigma**2 / 2) - 1
