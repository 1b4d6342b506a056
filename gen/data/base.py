"""Sets of simulated or observed fields, and the split that never cuts through a simulation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.noise import sample_generator

SPLITS = ("train", "validation", "test")
REGIONS = ("interior", "edge", "extrapolation")


@dataclass(frozen=True, eq=False)
class SimulationSet:
    """N fields, each with the simulation that it comes from.

    The simulation is the unit of independence: maps of one box share its initial conditions, so
    splits, bootstraps and permutations move whole simulations.

    Args:
        grid: the grid of every field.
        space: names and trained range of the P parameters.
        values: ``(N, C, *grid.shape)`` float32 in ``unit``; may be a memory-mapped array.
        params: ``(N, P)`` float32, physical units.
        simulation: ``(N,)`` int64, the simulation of each field.
        split: ``(N,)`` of "train", "validation", "test".
        region: ``(N,)`` of "interior", "edge", "extrapolation": where the parameters lie.
        name: what the set is, for people to read.
        unit: unit of the values.
        coarse: ``(N, Cc, *coarse_grid.shape)`` float32, what a field is to be made from: a low-resolution
            or an approximate run of the same box; or nothing.
        coarse_grid: its grid, of the same box.
        vector_channels, coarse_vector_channels: the channels that are x, y(, z) components of one vector.
        spin_channels: the pairs of channels that are Q and U, in values and in coarse alike.
        line_of_sight: the axis along which fields are seen in redshift space, and so like no other.
    """

    grid: Grid
    space: ParameterSpace
    values: Tensor
    params: Tensor
    simulation: Tensor
    split: np.ndarray
    region: np.ndarray
    name: str
    unit: str = "1"
    coarse: Tensor | None = None
    coarse_grid: Grid | None = None
    vector_channels: tuple[tuple[int, ...], ...] = ()
    coarse_vector_channels: tuple[tuple[int, ...], ...] = ()
    spin_channels: tuple[tuple[int, ...], ...] = ()
    line_of_sight: int | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 + self.grid.dim or tuple(self.values.shape[2:]) != self.grid.shape:
            raise InputError(
                f"{self.name}: values must have shape (N, C, {', '.join(map(str, self.grid.shape))}), "
                f"got {tuple(self.values.shape)}"
            )
        n = len(self.values)
        rows = {k: len(getattr(self, k)) for k in ("params", "simulation", "split", "region")}
        if set(rows.values()) != {n}:
            raise InputError(f"{self.name}: every column needs {n} rows like the values, got {rows}")
        if tuple(self.params.shape) != (n, len(self.space)):
            raise InputError(
                f"{self.name}: parameters must have shape ({n}, {len(self.space)}) for "
                f"{', '.join(self.space.names) or 'no names'}, got {tuple(self.params.shape)}"
            )
        self._check_coarse()

    def _check_coarse(self) -> None:
        if self.coarse is None and self.coarse_grid is None:
            return
        if self.coarse is None or self.coarse_grid is None:
            given = "coarse_grid" if self.coarse is None else "coarse"
            raise InputError(f"{self.name}: coarse and coarse_grid come together, got {given} alone")
        ours, theirs = ((g.box_size, g.unit, g.periodic) for g in (self.grid, self.coarse_grid))
        if ours != theirs:
            raise InputError(
                f"{self.name}: the coarse grid must cover the same box as the fields, (sides, unit, "
                f"periodic) = {ours}, got {theirs}"
            )
        shape = tuple(self.coarse.shape)
        if self.coarse.ndim != 2 + self.grid.dim or shape[2:] != self.coarse_grid.shape:
            want = ", ".join(map(str, self.coarse_grid.shape))
            raise InputError(f"{self.name}: coarse must have shape (N, Cc, {want}), got {shape}")
        if len(self.coarse) != len(self):
            raise InputError(
                f"{self.name}: coarse needs {len(self)} rows like the values, got {len(self.coarse)}"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_simulations(self) -> int:
        return len(self.simulation.unique())

    def rows(
        self,
        split: str | None = None,
        region: str | None = None,
        simulations: Collection[int] | None = None,
    ) -> Tensor:
        """Indices ``(n,)`` int64 of the fields that match all that is asked."""
        _known("split", split, SPLITS)
        _known("region", region, REGIONS)
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= self.split == split
        if region is not None:
            keep &= self.region == region
        if simulations is not None:
            keep &= np.isin(self.simulation.numpy(), np.fromiter(simulations, dtype=np.int64))
        return torch.from_numpy(np.flatnonzero(keep))

    def select(
        self,
        split: str | None = None,
        region: str | None = None,
        simulations: Collection[int] | None = None,
    ) -> Self:
        """The fields of a split, a region, or of named simulations; copies them into memory."""
        return self.take(self.rows(split, region, simulations))

    def take(self, rows: Tensor) -> Self:
        """The fields at these indices, in this order."""
        return replace(
            self,
            values=self.values[rows],
            params=self.params[rows],
            simulation=self.simulation[rows],
            split=self.split[rows.numpy()],
            region=self.region[rows.numpy()],
            coarse=None if self.coarse is None else self.coarse[rows],
        )

    def fields(self, rows: Tensor | slice = slice(None)) -> Fields:
        """All fields, or those at these indices."""
        coarse = None if self.coarse is None else self.coarse[rows]
        return Fields.of(self.values[rows], self.params[rows], coarse)

    def check(self) -> Self:
        """Return the set, or refuse it.

        Raises:
            InputError: for an empty set, a wrong type, a value that is not finite, an unknown split or
                region, a simulation that is in two splits or has two sets of parameters.
        """
        if not len(self):
            raise InputError(f"{self.name} holds no fields; at least one is needed")
        for what, tensor, dtype in (
            ("values", self.values, torch.float32),
            ("coarse", self.values if self.coarse is None else self.coarse, torch.float32),
            ("params", self.params, torch.float32),
            ("simulation", self.simulation, torch.int64),
        ):
            if tensor.dtype != dtype:
                raise InputError(f"{self.name}: {what} must be {dtype}, got {tensor.dtype}; convert it first")
        for part in ("split", "region"):
            for value in np.unique(getattr(self, part)):
                _known(f"{self.name}: {part}", str(value), SPLITS if part == "split" else REGIONS)
        self._check_finite()
        self._check_simulations()
        return self

    def _check_finite(self, chunk: int = 64) -> None:
        if not torch.isfinite(self.params).all():
            row = int((~torch.isfinite(self.params)).any(1).nonzero()[0, 0])
            raise InputError(
                f"{self.name}: the parameters of field {row} are not finite; mend or drop that row"
            )
        columns = {"field": self.values} | ({} if self.coarse is None else {"coarse field": self.coarse})
        for what, column in columns.items():
            for start in range(0, len(self), chunk):  # a memory-mapped set is never in memory at once
                bad = ~torch.isfinite(column[start : start + chunk])
                if bad.any():
                    row = start + int(bad.flatten(1).any(1).nonzero()[0, 0])
                    raise InputError(
                        f"{self.name}: {what} {row} holds {int(bad[row - start].sum())} values that are NaN "
                        f"or infinite; every value must be finite, so mask, crop or drop that field"
                    )

    def _check_simulations(self) -> None:
        ids, first, inverse = np.unique(self.simulation.numpy(), return_index=True, return_inverse=True)
        leaks = ids[_differs(self.split, first[inverse], inverse, len(ids))]
        if len(leaks):
            raise InputError(
                f"{self.name}: simulation {leaks[0]} is in more than one split ({len(leaks)} such); "
                f"all maps of a simulation belong in one, see split_by_simulation"
            )
        moved = ids[_differs(self.params.numpy(), first[inverse], inverse, len(ids))]
        if len(moved):
            raise InputError(
                f"{self.name}: simulation {moved[0]} has more than one set of parameters ({len(moved)} "
                "such); "
                f"give each its own simulation id"
            )


class Source(ABC):
    """Where fields come from: a composable part of a recipe."""

    def prepare(self) -> None:  # noqa: B027 (most sources have nothing to make)
        """Make or check what ``load`` will read; called by one process per machine."""

    @abstractmethod
    def load(self) -> SimulationSet:
        """Read or make the fields; the set has passed ``check``."""

    def rehearse(self) -> SimulationSet:
        """For a dry run: the fields, or where making them would take long, stand-ins of their kind."""
        return self.load()


def split_by_simulation(
    ids: Tensor | np.ndarray, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> np.ndarray:
    """Assign whole simulations to train, validation and test.

    Args:
        ids: ``(N,)`` simulation of each field, in any order.
        fractions: shares of the *simulations*, summing to 1; a share above zero gets at least one.
        seed: of the permutation of the sorted unique ids, so neither order nor repetition matters.

    Returns:
        ``(N,)`` array of "train", "validation", "test".

    Raises:
        InputError: for fractions that are not three shares of 1, or too few simulations.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(
            f"fractions must be three shares of train, validation, test that sum to 1, got {fractions}"
        )
    unique, inverse = np.unique(np.asarray(ids), return_inverse=True)
    if len(unique) < (shares > 0).sum():
        raise InputError(
            f"{len(unique)} simulation(s) cannot fill {(shares > 0).sum()} splits without a leak; give more "
            f"simulations, or put all in one split, e.g. fractions [0, 0, 1] for evaluation only"
        )
    counts = _shares_of(len(unique), shares)
    order = torch.randperm(len(unique), generator=sample_generator(seed, 0, "split")).numpy()
    names = np.empty(len(unique), dtype="<U10")
    names[order] = np.repeat(SPLITS, counts)
    return names[inverse.reshape(-1)]


def region_of(space: ParameterSpace, params: Tensor, edge: float = 0.8) -> np.ndarray:
    """Where ``(N, P)`` parameters lie in the trained range.

    "extrapolation" outside it, "edge" if any normalised parameter exceeds ``edge`` in size, else
    "interior".
    """
    if not len(space):
        return np.full(len(params), "interior", dtype="<U13")
    near_edge = (space.normalise(params.double()).abs() > edge).any(-1)
    region = np.where(near_edge.numpy(), "edge", "interior").astype("<U13")
    region[~space.inside(params.double()).numpy()] = "extrapolation"
    return region


def _shares_of(n: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers summing to ``n``, nearest to ``n * shares``, at least one for a share above zero."""
    counts = np.where(shares > 0, np.maximum(np.floor(n * shares + 0.5), 1), 0).astype(int)
    while counts.sum() != n:
        gap = counts - n * shares
        step = 1 if counts.sum() < n else -1
        able = (shares > 0) & ((step > 0) | (counts > 1))
        counts[np.argmin(np.where(able, step * gap, np.inf))] += step
    return counts


def _known(what: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InputError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")


def _differs(column: np.ndarray, first: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
    """Which of ``n`` groups hold a row that is not the group's first row."""
    unequal = column != column[first]
    if unequal.ndim > 1:
        unequal = unequal.any(axis=1)
    return np.bincount(group.reshape(-1), weights=unequal, minlength=n) > 0
