"""Spherical voids: non-overlapping balls that are empty enough, largest first, counted by radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from evaluation.base import Part, on_grid, reference_pixels
from evaluation.moments import interior
from gen.errors import InputError
from gen.fields import Grid

_GROUP_CELLS = 1 << 18
_SLACK = 1e-6  # relative, of single precision: balls that touch do not overlap
_NONE = torch.iinfo(torch.int64).max


def steps_within(grid: Grid, radius: float) -> list[Tensor]:
    """Steps along each axis that stay within ``radius``; on a periodic grid each cell is reached once."""
    steps = []
    for n, d in zip(grid.shape, grid.spacing, strict=True):
        reach = int(radius / d * (1 + _SLACK))
        low, high = (-(n // 2), (n - 1) // 2) if grid.periodic and 2 * reach + 1 > n else (-reach, reach)
        steps.append(torch.arange(low, high + 1))
    return steps


def distance_from_centre(grid: Grid, steps: list[Tensor]) -> Tensor:
    """Length of all combinations of steps [unit of the grid], float64."""
    square = torch.zeros((), dtype=torch.float64)
    for s, d in zip(steps, grid.spacing, strict=True):
        square = square[..., None] + (s * d) ** 2
    return square.sqrt()


def ball(grid: Grid, radius: float) -> Tensor:
    """``(n, dim)`` steps to the cells whose centres lie within ``radius`` of a cell's."""
    steps = steps_within(grid, radius)
    inside = distance_from_centre(grid, steps) <= radius * (1 + _SLACK)
    return torch.cartesian_prod(*steps)[inside.flatten()]


def void_radii(grid: Grid, n: int = 12) -> np.ndarray:
    """``n`` radii of equal ratio from two cells to a quarter of the shortest side [unit of the grid]."""
    return np.geomspace(2 * max(grid.spacing), min(grid.box_size) / 4, n)


@dataclass(frozen=True, eq=False)
class Voids:
    """Voids of a batch of maps.

    map_index: ``(n,)`` the map; centre: ``(n, dim)`` its cell; rung: ``(n,)`` index into the ladder of radii.
    """

    map_index: Tensor
    centre: Tensor
    rung: Tensor


class VoidSizes:
    """Voids of each map by radius; ``counts()`` gives the size function and the cumulative count.

    The field is averaged over balls of a ladder of radii, from the largest down. At each radius R the cells
    whose average is below the threshold become centres of voids, the lowest first, unless the ball would
    overlap one found before: |c - c'| >= R + R' always (Banerjee & Dalal 2016, arXiv:1606.06167). A void's
    radius is thus the largest of the ladder at which it is empty enough, and the size function counts those
    from R up to the next radius. In 2D the balls are discs. A ball holds the cells whose centres lie within
    R; on a grid that is not periodic it lies wholly inside.

    HIGAN (Zamudio-Fernandez et al. 2019, arXiv:1904.12846) counts delta < -0.7 at 25 radii in [0.1, 2] Mpc/h.

    Args:
        grid: the grid of the fields, 2D or 3D.
        threshold: the average of a void is below it [unit of the field]; -0.7 for a density contrast.
        radii: increasing ladder [unit of the grid], from a cell to half the shortest side; None: those of
            ``void_radii``.
    """

    def __init__(
        self, grid: Grid, threshold: float = -0.7, radii: Sequence[float] | np.ndarray | None = None
    ) -> None:
        self.grid = grid
        self.threshold = float(threshold)
        self.radii = void_radii(grid) if radii is None else np.asarray(radii, dtype=np.float64)
        if self.radii.ndim != 1 or not len(self.radii) or not (np.diff(self.radii) > 0).all():
            raise InputError(f"radii of voids must be one increasing list, got {self.radii.tolist()}")
        cell, half = max(grid.spacing), min(grid.box_size) / 2
        if self.radii[0] < cell or self.radii[-1] > half:
            raise InputError(
                f"radii of voids may be from one cell to half the shortest side, {cell:g} to {half:g} "
                f"{grid.unit}, got {self.radii[0]:g} to {self.radii[-1]:g}"
            )
        if not math.isfinite(threshold):
            raise InputError(f"the threshold of voids must be a finite number, got {threshold}")
        self._windows = [self._window(r) for r in self.radii]
        self._inside = [interior(grid, r) for r in self.radii]

    @classmethod
    def from_reference(
        cls, grid: Grid, values: Tensor, nu: float = -0.5, radii: Sequence[float] | np.ndarray | None = None
    ) -> VoidSizes:
        """Threshold at the quantile of the reference's pixels that a normal law reaches at nu sigma.

        For fields that are not density contrasts, such as a convergence; a skewed law has its voids as well.
        """
        return cls(grid, float(np.quantile(reference_pixels(values), ndtr(nu))), radii)

    @classmethod
    def of_density(
        cls,
        grid: Grid,
        values: Tensor,
        delta: float = -0.7,
        radii: Sequence[float] | np.ndarray | None = None,
    ) -> VoidSizes:
        """Threshold (1 + delta) times the mean of a reference of densities, such as of neutral hydrogen.

        Raises:
            InputError: for a reference with negative values, which is no density.
        """
        pixels = reference_pixels(values)
        if pixels.min() < 0 or not pixels.any():
            raise InputError(
                f"voids below a share of the mean need a density, and the reference holds {pixels.min():g}; "
                "take voids, whose threshold is a quantile"
            )
        return cls(grid, (1 + delta) * float(pixels.mean()), radii)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, 2, n_radii)`` float64: voids of each radius, and of that or more."""
        voids, n = self.find(values), len(self.radii)
        count = torch.bincount(voids.map_index * n + voids.rung, minlength=len(values) * n)
        count = count.reshape(len(values), n).double()
        return torch.stack([count, count.flip(1).cumsum(1).flip(1)], dim=1)

    def counts(self) -> tuple[Part, Part]:
        """Statistics "void_sizes", of radius R, and "void_count", of R or more: its first bin has all."""
        unit = self.grid.unit
        return (
            Part(self, 0, "void_sizes", "voids per map", self.radii, unit),
            Part(self, 1, "void_count", r"voids per map above $R$", self.radii, unit),
        )

    def find(self, values: Tensor) -> Voids:
        """The voids of ``(B, 1, *shape)`` fields."""
        x = on_grid(values, self.grid)
        x = x if x.dtype == torch.float64 else x.float()
        size = max(1, _GROUP_CELLS // self.grid.n_cells)
        found = [self._find(group) for group in x.split(size)]
        return Voids(
            torch.cat([i * size + v.map_index for i, v in enumerate(found)]),
            torch.cat([v.centre for v in found]),
            torch.cat([v.rung for v in found]),
        )

    def _window(self, radius: float) -> Tensor:
        """Transform of the ball on the half lattice, 1 at k = 0: real, for the ball is symmetric."""
        steps = ball(self.grid, radius) % torch.tensor(self.grid.shape)
        cells = torch.zeros(self.grid.shape, dtype=torch.float64)
        cells[tuple(steps.T)] = 1 / len(steps)
        return torch.fft.rfftn(cells).real

    def _find(self, x: Tensor) -> Voids:
        axes = tuple(range(1, x.ndim))
        mean = x.mean(axes, keepdim=True)
        modes = torch.fft.rfftn(x - mean, dim=axes)
        room = torch.full_like(x, torch.inf)  # from each cell to the surface of the nearest void
        cells, rungs = [torch.zeros(0, dtype=torch.int64, device=x.device)], []
        for rung in reversed(range(len(self.radii))):
            average = torch.fft.irfftn(modes * self._windows[rung].to(x), s=self.grid.shape, dim=axes) + mean
            inside = (slice(None), *self._inside[rung])
            empty = torch.zeros_like(x, dtype=torch.bool)
            empty[inside] = average[inside] < self.threshold
            empty &= room >= self.radii[rung] * (1 - _SLACK)
            cell = empty.view(-1).nonzero()[:, 0]
            if len(cell):
                cells += self._lowest_first(average.view(-1)[cell], cell, room, float(self.radii[rung]))
            rungs += [rung] * (sum(map(len, cells)) - len(rungs))
        map_index, *centre = torch.unravel_index(torch.cat(cells), x.shape)
        return Voids(
            map_index, torch.stack(centre, dim=1), torch.tensor(rungs, dtype=torch.int64).to(map_index)
        )

    def _lowest_first(self, average: Tensor, cell: Tensor, room: Tensor, radius: float) -> list[Tensor]:
        """Centres of balls of one radius that do not overlap, as if taken one by one in ascending order.

        A cell that is the lowest of its own block and of all blocks around is sure of its turn, for blocks
        are so wide that balls two blocks apart cannot overlap: all such cells are taken at once, in rounds.
        ``cell``: ``(n,)`` candidates as indices into the whole batch; ``room`` is brought up to date.
        """
        shape = self.grid.shape
        widths = [max(1, math.ceil(2 * radius / d * (1 - _SLACK)) - 1) for d in self.grid.spacing]
        blocks = (len(room), *(max(1, n // w) for n, w in zip(shape, widths, strict=True)))
        block = torch.zeros((), dtype=torch.int64, device=cell.device)
        for n, m in zip(room.shape, blocks, strict=True):
            block = block[..., None] * m + torch.arange(n, device=cell.device) * m // n
        block = block.view(-1)[cell]
        # equal averages take turns by their place, in which batches and single maps agree
        order = _ordered(average) + cell
        steps = steps_within(self.grid, 2 * radius)
        away = (distance_from_centre(self.grid, steps) - radius).to(room)
        found = []
        while len(cell):
            lowest = torch.full((math.prod(blocks),), _NONE, device=cell.device)
            lowest = lowest.scatter_reduce_(0, block, order, "amin").reshape(blocks)
            for axis in range(1, len(blocks)):
                beside = torch.minimum(lowest.roll(1, axis), lowest.roll(-1, axis))
                lowest = torch.minimum(lowest, beside)
            found.append(cell[order == lowest.view(-1)[block]])
            self._occupy(room, found[-1], steps, away)
            free = (room.view(-1)[cell] >= radius * (1 - _SLACK)).nonzero()[:, 0]
            order, cell, block = order[free], cell[free], block[free]
        return found

    def _occupy(self, room: Tensor, centre: Tensor, steps: list[Tensor], away: Tensor) -> None:
        """Bring ``room`` up to date around new voids: ``away`` from their surfaces at ``steps`` from centres.

        Steps reach to twice their radius, which is as far as it matters to voids that are no larger.
        """
        index, *coordinates = torch.unravel_index(centre, room.shape)
        for c, step, n in zip(coordinates, steps, self.grid.shape, strict=True):
            at = c[:, None] + step.to(c.device)
            # what falls outside is laid on the face, where the shorter distance of its own step wins
            at = at % n if self.grid.periodic else at.clamp(0, n - 1)
            index = index[..., None] * n + at.reshape(len(at), *[1] * (index.ndim - 1), -1)
        room.view(-1).scatter_reduce_(0, index.reshape(-1), away.expand(index.shape).reshape(-1), "amin")


def _ordered(x: Tensor) -> Tensor:
    """Integers in the order of single-precision numbers, times 2^32: room below to break ties."""
    bits = x.float().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long() << 32
