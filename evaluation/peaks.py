"""Local maxima and minima, counted by height."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Part, reference_pixels, single_channel
from gen.errors import InputError
from gen.fields import Grid

_GROUP_CELLS = 1 << 16  # cells handled at once: they stay in cache


def highest_neighbour(x: Tensor, periodic: bool) -> Tensor:
    """Largest of the 3^d - 1 neighbours of every cell of ``(B, *shape)``; +inf beyond an open grid's edge."""
    around = torch.full_like(x, -torch.inf)  # without the cell itself
    block = x  # with it
    for axis in range(1, x.ndim):
        up, down = torch.roll(block, 1, axis), torch.roll(block, -1, axis)
        if not periodic:
            up.select(axis, 0).fill_(torch.inf)
            down.select(axis, -1).fill_(torch.inf)
        sides = torch.maximum(up, down, out=up)  # fresh memory costs more than the arithmetic
        # neighbours off this axis are the earlier ones, here and moved by one
        torch.maximum(around, sides, out=around)
        block = torch.maximum(block, sides, out=down)
    return around


class Peaks:
    """Counts of peaks and of minima by height; ``counts()`` gives the two as statistics.

    A peak is a cell above all of its 8 (2D) or 26 (3D) neighbours; on a grid that is not periodic the
    outermost cells cannot be one. Minima are the peaks of the field's negative. Counts are per map and bin;
    the outermost bins are open.

    Args:
        grid: the grid of the fields.
        peak_edges, minimum_edges: ``(n_bins-1,)`` increasing inner edges of the heights, in the field's unit.
        mean, std: of the reference; the abscissa is nu = (height - mean) / std at the middle of a bin.
    """

    def __init__(
        self,
        grid: Grid,
        peak_edges: Sequence[float] | np.ndarray,
        minimum_edges: Sequence[float] | np.ndarray,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        self.grid = grid
        self.edges = tuple(np.asarray(e, dtype=np.float64) for e in (peak_edges, minimum_edges))
        self.mean, self.std = mean, std
        for e in self.edges:
            if e.ndim != 1 or len(e) < 2 or not (np.diff(e) > 0).all() or len(e) != len(self.edges[0]):
                raise InputError(
                    "edges of peaks and minima must be two increasing lists of equal length of at least 2, "
                    f"got {[e.tolist() for e in self.edges]}"
                )

    @classmethod
    def from_reference(cls, grid: Grid, values: Tensor, n_bins: int = 12) -> Peaks:
        """Edges at equal shares of the reference's own peaks and minima: every bin is filled alike.

        Minima of one lowest value, such as empty cells of a density, have the first bin for themselves.
        """
        field = single_channel(values, grid.dim)
        pixels = reference_pixels(values)
        edges = []
        for sign in (1, -1):
            heights = [x[x > highest_neighbour(x, grid.periodic)] for x in (sign * field).split(64)]
            found = sign * torch.cat(heights).double().cpu().numpy()
            if len(found) < 10 * n_bins:
                raise InputError(
                    f"the reference has only {len(found)} {'peaks' if sign > 0 else 'minima'}; {n_bins} bins "
                    f"need at least {10 * n_bins}: give more maps or fewer bins, or, for counts, thresholds "
                    "without peaks such as recipes/reports/counts.yaml"
                )
            edges.append(_edges(found, n_bins))
        return cls(grid, edges[0], edges[1], float(pixels.mean()), float(pixels.std()))

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, 2, n_bins)`` float64: peaks, minima."""
        x = single_channel(values, self.grid.dim).detach()
        return torch.cat([self._count(y) for y in x.split(max(1, _GROUP_CELLS // self.grid.n_cells))])

    def _count(self, x: Tensor) -> Tensor:
        out = []
        n_bins = len(self.edges[0]) + 1
        heights = x.reshape(-1)
        for sign, edges in zip((1, -1), self.edges, strict=True):
            y = sign * x
            cell = (y > highest_neighbour(y, self.grid.periodic)).view(-1).nonzero()[:, 0]
            index = torch.bucketize(heights[cell], torch.from_numpy(edges).to(x), right=True)
            index += cell // math.prod(x.shape[1:]) * n_bins
            out.append(torch.bincount(index, minlength=len(x) * n_bins).reshape(len(x), n_bins))
        return torch.stack(out, dim=1).double()

    def counts(self) -> tuple[Part, Part]:
        """The statistics "peaks" and "minima", which share one pass in ``measure``."""
        middle = [np.concatenate([e[:1], (e[:-1] + e[1:]) / 2, e[-1:]]) for e in self.edges]
        nu = [(m - self.mean) / self.std for m in middle]
        return (
            Part(self, 0, "peaks", "peaks per map", nu[0], "sigma"),
            Part(self, 1, "minima", "minima per map", nu[1], "sigma"),
        )


def _edges(heights: np.ndarray, n_bins: int) -> np.ndarray:
    """``(n_bins-1,)`` at equal shares; above a lowest value that is shared by too many, of the rest."""
    edges = np.quantile(heights, np.linspace(0, 1, n_bins + 1)[1:-1])
    lowest = heights.min()
    rest = heights[heights > lowest]
    if edges[0] > lowest or not len(rest):
        return edges
    inner = np.quantile(rest, np.linspace(0, 1, n_bins)[1:-1])
    return np.concatenate([[(lowest + rest.min()) / 2], inner])
