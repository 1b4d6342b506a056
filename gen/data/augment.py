"""Augmentation by the symmetries that a statistically homogeneous, isotropic field really has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Fields, Grid
from gen.noise import sample_generator


@dataclass(frozen=True)
class Isometry:
    """One element of the square's or cube's group: permute the axes, then flip some of them.

    ``axes[j]`` is the old axis that becomes new axis j; ``flips[j]`` reverses new axis j. A vector
    field's components follow: new component j is old component ``axes[j]``, negated if flipped. So do Q and
    U on a plane: angles change sign in a mirror, and count from the other axis when both change places.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    def __matmul__(self, first: Isometry) -> Isometry:
        """The element that acts as ``first`` and then as this one."""
        axes = tuple(first.axes[a] for a in self.axes)
        flips = tuple(f ^ first.flips[a] for f, a in zip(self.flips, self.axes, strict=True))
        return Isometry(axes, flips)

    @property
    def inverse(self) -> Isometry:
        dim = len(self.axes)
        axes = tuple(self.axes.index(j) for j in range(dim))
        return Isometry(axes, tuple(self.flips[axes[j]] for j in range(dim)))

    def __call__(
        self,
        values: Tensor,
        vector_channels: Sequence[Sequence[int]] = (),
        spin_channels: Sequence[Sequence[int]] = (),
    ) -> Tensor:
        """Act on ``(..., C, *shape)``; the channels of x, y(, z) components, and of Q and U, are named."""
        dim = len(self.axes)
        lead = values.ndim - dim
        flipped = [lead + j for j in range(dim) if self.flips[j]]
        values = values.permute(*range(lead), *(lead + a for a in self.axes)).flip(flipped)
        if not vector_channels and not spin_channels:
            return values
        channel = lead - 1
        source = torch.arange(values.shape[channel])
        sign = torch.ones(values.shape[channel], dtype=values.dtype)
        for components in vector_channels:
            for j, c in enumerate(components):
                source[c] = components[self.axes[j]]
                sign[c] = -1.0 if self.flips[j] else 1.0
        for q, u in spin_channels:
            sign[q] = 1.0 if self.axes == (0, 1) else -1.0
            sign[u] = -1.0 if sum(self.flips) % 2 else 1.0
        values = values.index_select(channel, source.to(values.device))
        return values * sign.to(values.device).reshape(-1, *(1,) * dim)


class Symmetries:
    """The symmetries of fields on a grid, and their random use as augmentation.

    Flips and axis exchanges (8 elements in 2D, 48 in 3D) always; translations by whole cells only if
    the grid is periodic. On a patch of sky a translation would join edges that do not meet.

    Args:
        grid: of the fields.
        vector_channels: groups of ``dim`` channels that are one vector, e.g. ``[[0, 1, 2]]`` for a
            displacement.
        coarse_vector_channels: the same for the coarse fields.
        spin_channels: pairs of channels Q, U (or the two of shear), of maps and of coarse ones alike.
        axes: the axes along which the field is homogeneous and among which it is isotropic, default
            all; leave out that of a light cone.
        line_of_sight: an axis that may be flipped and moved along but is like no other, as of redshift space.

    Raises:
        InputError: for axes or channels that do not exist.
    """

    def __init__(
        self,
        grid: Grid,
        vector_channels: Sequence[Sequence[int]] = (),
        axes: Sequence[int] | None = None,
        coarse_vector_channels: Sequence[Sequence[int]] = (),
        spin_channels: Sequence[Sequence[int]] = (),
        line_of_sight: int | None = None,
    ) -> None:
        self.grid, self.line_of_sight = grid, line_of_sight
        self.axes = tuple(range(grid.dim)) if axes is None else tuple(axes)
        if not set(self.axes) <= set(range(grid.dim)):
            raise InputError(f"isotropic axes must be among 0 to {grid.dim - 1}, got {list(self.axes)}")
        if line_of_sight is not None and line_of_sight not in range(grid.dim):
            raise InputError(f"the line of sight must be an axis, 0 to {grid.dim - 1}, got {line_of_sight}")
        self.vector_channels = tuple(tuple(group) for group in vector_channels)
        self.coarse_vector_channels = tuple(tuple(group) for group in coarse_vector_channels)
        for group in self.vector_channels + self.coarse_vector_channels:
            if len(set(group)) != grid.dim or min(group) < 0:
                raise InputError(f"a vector needs {grid.dim} different channels, got {list(group)}")
        self.spin_channels = tuple(tuple(pair) for pair in spin_channels)
        for pair in self.spin_channels:
            if grid.dim != 2 or len(set(pair)) != 2 or min(pair) < 0:
                raise InputError(f"Q and U are two channels of a map, got {list(pair)} in {grid.dim}D")
        self.isometries = self._isometries()

    def _isometries(self) -> tuple[Isometry, ...]:
        dim, cells = self.grid.dim, tuple(zip(self.grid.shape, self.grid.spacing, strict=True))
        alike = set(self.axes) - {self.line_of_sight}
        moved = [
            p
            for p in permutations(range(dim))
            if all(cells[a] == cells[j] and (a == j or {a, j} <= alike) for j, a in enumerate(p))
        ]
        flips = product(*((False, True) if j in self.axes else (False,) for j in range(dim)))
        return tuple(Isometry(p, f) for p, f in product(moved, list(flips)))

    def __call__(
        self, fields: Fields, seed: int, step: int, share: slice = slice(None), n: int = 0
    ) -> Fields:
        """Move each field of a batch by its own random symmetry.

        The draws are a pure function of ``(seed, step)`` and the row's place in the global batch of
        ``n`` rows (default the batch given), of which this batch is ``share``: neither history nor
        the number of ranks matters. Coarse channels move along, by whole coarse cells.
        """
        which, shifts = self._draw(n or len(fields.values), seed, step, self._stride(fields.coarse))
        which, shifts = which[share], shifts[share]
        values = self._move(fields.values, which, shifts, self.vector_channels)
        coarse = fields.coarse
        if coarse.shape[1]:
            factor = torch.tensor([a // b for a, b in zip(self.grid.shape, coarse.shape[2:], strict=True)])
            coarse = self._move(coarse, which, shifts // factor, self.coarse_vector_channels)
        return Fields(values, fields.params, coarse)

    def _stride(self, coarse: Tensor) -> Tensor:
        """Cells of the smallest translation: one, or one coarse cell."""
        if not coarse.shape[1]:
            return torch.ones(self.grid.dim, dtype=torch.int64)
        stride = [math.lcm(a, b) // b for a, b in zip(self.grid.shape, coarse.shape[2:], strict=True)]
        if any(s * b != a for s, a, b in zip(stride, self.grid.shape, coarse.shape[2:], strict=True)):
            raise InputError(
                f"the grid {self.grid.shape} must be a whole multiple of the coarse grid, got "
                f"{tuple(coarse.shape[2:])}"
            )
        return torch.tensor(stride)

    def _draw(self, n: int, seed: int, step: int, stride: Tensor) -> tuple[Tensor, Tensor]:
        generator = sample_generator(seed, step, "augment")
        which = torch.randint(len(self.isometries), (n,), generator=generator)
        if not self.grid.periodic:
            return which, torch.zeros(n, self.grid.dim, dtype=torch.int64)
        moves = [
            size // int(s) if axis in self.axes else 1
            for axis, (size, s) in enumerate(zip(self.grid.shape, stride, strict=True))
        ]
        columns = [
            s * torch.randint(m, (n,), generator=generator) for m, s in zip(moves, stride, strict=True)
        ]
        return which, torch.stack(columns, dim=1)

    def _move(self, x: Tensor, which: Tensor, shifts: Tensor, vectors: Sequence[Sequence[int]]) -> Tensor:
        dims = tuple(range(-self.grid.dim, 0))
        rows = []
        for row, element, shift in zip(x, which.tolist(), shifts.tolist(), strict=True):
            moved = self.isometries[element](row, vectors, self.spin_channels)
            rows.append(torch.roll(moved, shift, dims) if any(shift) else moved)
        return torch.stack(rows)
