"""What a statistic is, and what it measures: ``Statistic``, ``Sample``, ``Measured``, ``measure``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.io.rows import Rows, Values, selected

LARGEST_IN_MEMORY = 1 << 28
"""Bytes of fields of one set that are held at once, where all of them are needed together."""


@runtime_checkable
class Statistic(Protocol):
    """One field -> one vector.

    Attributes:
        name: short identifier, unique in a report (``"power"``, ``"V1"``).
        label: what the vector is, in math text for an axis.
        abscissa: ``(n_bins,)`` what the vector is a function of [``unit``].
        unit: unit of the abscissa.
        n_modes: ``(n_bins,)`` modes in each bin where the notion exists, else None.
        log: whether both axes of a plot are logarithmic.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def abscissa(self) -> np.ndarray: ...
    @property
    def unit(self) -> str: ...
    @property
    def n_modes(self) -> np.ndarray | None: ...
    @property
    def log(self) -> bool: ...

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` fields -> ``(B, n_bins)`` float64."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """One row of a measurement that yields several vectors at once (V0, V1, V2 from one pass).

    ``joint`` maps ``(B, 1, *shape)`` to ``(B, n_parts, n_bins)``; ``measure`` runs it once for all its parts.
    """

    joint: Callable[[Tensor], Tensor]
    index: int
    name: str
    label: str
    abscissa: np.ndarray
    unit: str
    n_modes: np.ndarray | None = None
    log: bool = False

    def __call__(self, values: Tensor) -> Tensor:
        return self.joint(values)[:, self.index]


@dataclass(frozen=True, eq=False)
class Sample:
    """Fields to be judged, with what they share.

    Args:
        values: ``(N, C, *shape)`` fields in physical units, in memory or in a file; most of what judges them
            takes one channel.
        simulation: ``(N,)`` the simulation (box) that each map was cut from, unique over the whole sample;
            None: every map is independent, which is what a generator claims of its own.
        stratum: ``(N,)`` the set of parameters (cosmology) of each map; None: all share one. Boxes are
            resampled inside a stratum, never across, for maps of different cosmologies do not have one law.
    """

    values: Values
    simulation: np.ndarray
    stratum: np.ndarray

    def __init__(
        self,
        values: Values | np.ndarray,
        simulation: np.ndarray | Tensor | None = None,
        stratum: np.ndarray | Tensor | None = None,
    ) -> None:
        values = values if isinstance(values, Rows) else torch.as_tensor(values)
        n = values.shape[0]
        simulation = np.arange(n) if simulation is None else np.asarray(simulation)
        stratum = np.zeros(n, dtype=np.int64) if stratum is None else np.asarray(stratum)
        for name, ids in (("simulation", simulation), ("stratum", stratum)):
            if ids.shape != (n,):
                raise InputError(f"{name} must hold one id for each of the {n} maps, got shape {ids.shape}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "simulation", simulation)
        object.__setattr__(self, "stratum", stratum)

    def __len__(self) -> int:
        return self.values.shape[0]

    def first_channel(self) -> Sample:
        """The same of the first channel alone, in memory if there are more."""
        values = self.values if self.values.shape[1] == 1 else self.values[:][:, :1]
        return Sample(values, self.simulation, self.stratum)

    def select(self, mask: np.ndarray) -> Sample:
        """The maps at a boolean mask or at indices."""
        return Sample(selected(self.values, mask), self.simulation[mask], self.stratum[mask])


def strata_of(params: Tensor | np.ndarray) -> np.ndarray:
    """``(N,)`` a number for each distinct row of an ``(N, P)`` parameter table, the stratum of ``Sample``."""
    rows = np.ascontiguousarray(np.asarray(params, dtype=np.float64).astype(np.float32))
    if rows.shape[1] == 0:
        return np.zeros(rows.shape[0], dtype=np.int64)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True, eq=False)
class Measured:
    """A statistic of every map of a sample: ``vectors (N, n_bins)`` float64, with the sample's ids."""

    vectors: np.ndarray
    simulation: np.ndarray
    stratum: np.ndarray

    def __len__(self) -> int:
        return self.vectors.shape[0]

    def select(self, mask: np.ndarray) -> Measured:
        """The maps at a boolean mask or at indices."""
        return Measured(self.vectors[mask], self.simulation[mask], self.stratum[mask])


def measure(statistics: Sequence[Statistic], sample: Sample, *, batch_size: int = 64) -> dict[str, Measured]:
    """Every statistic of every map, by name; ``Part``s of one joint measurement share its one pass."""
    rows: dict[str, list[Tensor]] = {s.name: [] for s in statistics}
    if len(rows) != len(statistics):
        raise InputError(f"statistics must have different names, got {[s.name for s in statistics]}")
    for start in range(0, len(sample), batch_size):
        values = sample.values[start : start + batch_size]
        check_finite(values)
        joint: dict[int, Tensor] = {}
        for s in statistics:
            if isinstance(s, Part):
                key = id(s.joint)
                if key not in joint:
                    joint[key] = s.joint(values)
                rows[s.name].append(joint[key][:, s.index])
            else:
                rows[s.name].append(s(values))
    return {
        name: Measured(torch.cat(parts).double().cpu().numpy(), sample.simulation, sample.stratum)
        for name, parts in rows.items()
    }


def single_channel(values: Tensor, dim: int | None = None) -> Tensor:
    """``(B, *shape)`` from ``(B, 1, *shape)``; refuses other layouts."""
    if values.ndim < 3 or values.shape[1] != 1 or (dim is not None and values.ndim != dim + 2):
        raise InputError(
            f"a statistic takes fields of shape (B, 1, *grid shape), got {tuple(values.shape)}; "
            "select one channel with values[:, c:c+1]"
        )
    return values[:, 0]


def on_grid(values: Tensor, grid: Grid) -> Tensor:
    """``(B, *shape)`` from ``(B, 1, *shape)``; refuses other layouts and other grids."""
    field = single_channel(values, grid.dim)
    if tuple(field.shape[1:]) != grid.shape:
        raise InputError(f"fields must have the grid's shape {grid.shape}, got {tuple(field.shape[1:])}")
    return field


def levelled(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x (B, ...)``, each row over a power of two that brings it to 1 at most, and those ``(B,)`` float64.

    Nothing is rounded, and products of three and four values stay in the range of single precision, which
    ends at 3e38: densities of 1e11 in the unit that they come in would leave it.
    """
    exponent = torch.frexp(x.abs().flatten(1).amax(1)).exponent.clamp(-126, 126)
    level = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent)
    return x * (1 / level).to(x.real).reshape(-1, *[1] * (x.ndim - 1)), level


def check_finite(values: Tensor) -> None:
    """Refuse fields that hold NaN or infinity."""
    good = torch.isfinite(values).flatten(1).all(1)
    if not good.all():
        bad = (~good).nonzero().flatten()
        raise InputError(
            f"{len(bad)} of {len(good)} fields hold values that are not finite, the first is number "
            f"{bad[0].item()}; leave them out or make them anew"
        )


def few(values: Values, at_most: int = LARGEST_IN_MEMORY // 2) -> Tensor:
    """All fields, or where they would fill more than ``at_most`` bytes evenly spaced ones."""
    n = max(1, at_most // (4 * math.prod(values.shape[1:])))
    return values[:] if len(values) <= n else values[np.arange(n) * len(values) // n]


def reference_pixels(values: Tensor, at_most: int = 1 << 22) -> np.ndarray:
    """The pixels of a reference as one float64 list, evenly thinned where there are very many."""
    flat = torch.as_tensor(values).reshape(-1)
    if flat.numel() == 0:
        raise InputError("the reference holds no fields; give at least one")
    check_finite(values)
    # an odd stride visits all columns of maps whose sides are powers of two
    stride = max(1, flat.numel() // at_most) | 1 if flat.numel() > at_most else 1
    return flat[::stride].double().cpu().numpy()
