"""The distribution of column densities: sums of a box along lines of sight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evaluation.base import on_grid
from evaluation.log_pdf import PER_DECADE, LogBins
from gen.errors import InputError
from gen.fields import Grid

EVERY_AXIS = (0, 1, 2)
LINE_OF_SIGHT = (2,)
"""Of boxes in redshift space: their last axis."""


def columns(grid: Grid, values: Tensor, axes: Sequence[int]) -> Tensor:
    """N = sum of x times the depth of a cell along each axis, ``(B, n)`` float64 [unit of field x of grid].

    Raises:
        InputError: for grids that are not 3D, or axes that they do not have.
    """
    if grid.dim != 3 or not axes or not set(axes) <= set(EVERY_AXIS):
        raise InputError(
            f"column densities are taken along axes among 0, 1 and 2 of a 3D grid, got {list(axes)} of "
            f"{grid.dim} axes"
        )
    x = on_grid(values, grid).double()
    return torch.cat([x.sum(a + 1).flatten(1) * grid.spacing[a] for a in axes], dim=1)


class ColumnDensity:
    """f(N): the share of sightlines per decade of column density N = int x dl [1/dex].

    The literature's f_HI(N) is this over N and over the path length of a sightline (Prochaska, Herbert-Fort &
    Wolfe 2005, astro-ph/0508361); ratios of two sets are the same. Every column of cells is one sightline.

    Args:
        grid: 3D grid.
        bins: logarithmic bins of N [unit of the field times that of the grid].
        axes: along which the box is projected; ``LINE_OF_SIGHT`` alone in redshift space.
    """

    label = r"$f(\log_{10} N)$ [dex$^{-1}$]"
    n_modes = None
    log = True

    def __init__(
        self, grid: Grid, bins: LogBins, axes: Sequence[int] = EVERY_AXIS, name: str = "column_density"
    ) -> None:
        self.grid, self.bins, self.axes, self.name = grid, bins, tuple(axes), name
        self.abscissa = bins.centres
        self.unit = "column"

    @classmethod
    def from_reference(
        cls,
        grid: Grid,
        values: Tensor,
        axes: Sequence[int] = EVERY_AXIS,
        per_decade: int = PER_DECADE,
        name: str = "column_density",
    ) -> ColumnDensity:
        """Bins of the reference's fields ``(N, 1, *shape)``."""
        bins = LogBins.of(columns(grid, values, axes).flatten().cpu().numpy(), per_decade)
        return cls(grid, bins, axes, name)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, n_bins)`` float64."""
        return self.bins.density(columns(self.grid, values, self.axes))
