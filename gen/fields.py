"""The records that travel through the whole package: ``Grid``, ``Fields``, ``ParameterSpace``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError

RADIANS = {"deg": math.pi / 180, "arcmin": math.pi / 10800, "rad": 1.0}

FWHM = math.sqrt(8 * math.log(2))
"""Full width at half maximum of a Gaussian, over its standard deviation."""


@dataclass(frozen=True)
class Grid:
    """A regular grid of 2 or 3 axes.

    Args:
        shape: cells along each axis.
        box_size: side along each axis [``unit``]; one number means the same side on every axis.
        unit: ``"Mpc/h"`` for lengths, ``"deg"``, ``"arcmin"`` or ``"rad"`` for flat-sky angles.
        periodic: whether opposite faces touch (a simulation box) or not (a patch of sky).

    Wavenumbers are angular (k = 2 pi / wavelength), in h/Mpc for lengths; for angles they are
    multipoles (1/rad), whatever the unit of ``box_size``.
    """

    shape: tuple[int, ...]
    box_size: tuple[float, ...]
    unit: str
    periodic: bool

    def __init__(
        self, shape: Sequence[int], box_size: float | Sequence[float], unit: str, periodic: bool
    ) -> None:
        shape = tuple(int(n) for n in shape)
        sides = (box_size,) * len(shape) if isinstance(box_size, int | float) else tuple(box_size)
        if len(shape) not in (2, 3) or min(shape) < 2:
            raise InputError(f"grid shape must be 2 or 3 sizes of at least 2 cells, got {shape}")
        if len(sides) != len(shape) or not all(s > 0 and math.isfinite(s) for s in sides):
            raise InputError(f"box_size must be positive, one or {len(shape)} numbers, got {box_size}")
        if unit != "Mpc/h" and unit not in RADIANS:
            raise InputError(f"grid unit must be 'Mpc/h' or one of {sorted(RADIANS)}, got {unit!r}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "box_size", tuple(float(s) for s in sides))
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "periodic", bool(periodic))

    @property
    def dim(self) -> int:
        return len(self.shape)

    @property
    def n_cells(self) -> int:
        return math.prod(self.shape)

    @property
    def angular(self) -> bool:
        return self.unit in RADIANS

    @property
    def spacing(self) -> tuple[float, ...]:
        """Cell side along each axis [``unit``]."""
        return tuple(s / n for s, n in zip(self.box_size, self.shape, strict=True))

    @property
    def k_unit(self) -> str:
        return "multipole" if self.angular else "h/Mpc"

    @property
    def k_sides(self) -> tuple[float, ...]:
        """Sides in the unit whose inverse is the wavenumber's: radians or Mpc/h."""
        scale = RADIANS.get(self.unit, 1.0)
        return tuple(s * scale for s in self.box_size)

    @property
    def k_fundamental(self) -> float:
        """Smallest nonzero wavenumber, 2 pi / L of the longest side [``k_unit``]."""
        return 2 * math.pi / max(self.k_sides)

    @property
    def k_nyquist(self) -> float:
        """Smallest of the axes' Nyquist wavenumbers, pi / spacing [``k_unit``]."""
        return min(math.pi * n / s for n, s in zip(self.shape, self.k_sides, strict=True))

    def resized(self, shape: Sequence[int]) -> Grid:
        """The grid of the same spacing with another number of cells."""
        if len(shape) != self.dim:
            raise InputError(
                f"shape must have {self.dim} sizes like the grid {self.shape}, got {tuple(shape)}"
            )
        sides = [d * n for d, n in zip(self.spacing, shape, strict=True)]
        return Grid(shape, sides, self.unit, self.periodic)

    def wavenumber(self, *, half: bool = True) -> Tensor:
        """|k| on the (r)fftn lattice, ``(n, ..., n/2+1)`` or the full lattice [``k_unit``], float64."""
        k2 = torch.zeros((), dtype=torch.float64)
        for axis, (n, side) in enumerate(zip(self.shape, self.k_sides, strict=True)):
            last = half and axis == self.dim - 1
            freq = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, side / n, dtype=torch.float64)
            k2 = k2[..., None] + (2 * math.pi * freq) ** 2
        return k2.sqrt()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        return cls(**state)


def beam_sigma(grid: Grid, fwhm: float) -> float:
    """Standard deviation of a Gaussian beam in the unit that ``grid.wavenumber()`` is the inverse of.

    Args:
        fwhm: full width at half maximum [arcmin] on the sky, else [unit of the grid].
    """
    return fwhm * (RADIANS["arcmin"] if grid.angular else 1) / FWHM


def resolved(grid: Grid, fwhm: float) -> float:
    """The wavenumber at which a beam leaves a thousandth of the power [``k_unit``]."""
    return math.sqrt(math.log(1000)) / max(beam_sigma(grid, fwhm), 1e-30)


class Fields(NamedTuple):
    """Fields in physical units with their parameters: a batch, a sample, the content of a file.

    values: ``(B, C, *shape)``; params: ``(B, P)``; coarse: ``(B, Cc, *coarse_shape)``.
    What is absent has zero channels.
    """

    values: Tensor
    params: Tensor
    coarse: Tensor

    @classmethod
    def of(cls, values: Tensor, params: Tensor | None = None, coarse: Tensor | None = None) -> Fields:
        """Fill in what is absent with zero columns and zero channels."""
        n = values.shape[0]
        params = values.new_zeros((n, 0)) if params is None else params
        coarse = values.new_zeros((n, 0, *values.shape[2:])) if coarse is None else coarse
        if params.shape[0] != n or coarse.shape[0] != n:
            raise InputError(
                f"values, params and coarse need equal rows, got {n}, {params.shape[0]}, {coarse.shape[0]}"
            )
        return cls(values, params, coarse)


@dataclass(frozen=True)
class ParameterSpace:
    """Names and ranges of the parameters that condition a field.

    ``low`` and ``high`` bound the region seen in training; ``normalise`` maps it to [-1, 1].
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[str, ...]

    def __init__(
        self,
        names: Sequence[str],
        low: Sequence[float],
        high: Sequence[float],
        units: Sequence[str] | None = None,
    ) -> None:
        units = ("",) * len(names) if units is None else tuple(units)
        if not len(names) == len(low) == len(high) == len(units):
            raise InputError(
                f"a parameter space needs as many names, low, high and units, "
                f"got {len(names)}, {len(low)}, {len(high)}, {len(units)}"
            )
        if len(set(names)) != len(names):
            raise InputError(f"parameter names must differ, got {list(names)}")
        for name, a, b in zip(names, low, high, strict=True):
            if not (math.isfinite(a) and math.isfinite(b) and a < b):
                raise InputError(f"parameter {name} needs finite low < high, got [{a}, {b}]")
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "low", tuple(float(a) for a in low))
        object.__setattr__(self, "high", tuple(float(b) for b in high))
        object.__setattr__(self, "units", units)

    def __len__(self) -> int:
        return len(self.names)

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.low), like.new_tensor(self.high)

    def normalise(self, params: Tensor) -> Tensor:
        """Map ``(..., P)`` physical parameters to [-1, 1] inside the range."""
        low, high = self._ends(params)
        return 2 * (params - low) / (high - low) - 1

    def restore(self, unit: Tensor) -> Tensor:
        """The inverse of ``normalise``."""
        low, high = self._ends(unit)
        return low + (unit + 1) * (high - low) / 2

    def inside(self, params: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Which rows of ``(..., P)`` lie in the range, boolean ``(...)``."""
        low, high = self._ends(params)
        slack = tolerance * (high - low)
        return ((params >= low - slack) & (params <= high + slack)).all(-1)

    def check(self, params: Tensor, *, extrapolate: bool = False) -> None:
        """Refuse ``(N, P)`` parameters that are not finite or, unless told, outside the range."""
        if params.ndim != 2 or params.shape[1] != len(self):
            raise InputError(
                f"parameters must be a table (N, {len(self)}) of {', '.join(self.names) or 'nothing'}, "
                f"got shape {tuple(params.shape)}"
            )
        for i, name in enumerate(self.names):
            column = params[:, i]
            if not torch.isfinite(column).all():
                raise InputError(f"parameter {name} holds a value that is not finite; give numbers only")
            a, b = self.low[i], self.high[i]
            slack = 1e-6 * (b - a)
            outside = (column < a - slack) | (column > b + slack)
            if not extrapolate and outside.any():
                raise InputError(
                    f"parameter {name} = {column[outside][0].item():g} is outside the trained range "
                    f"[{a:g}, {b:g}]; choose a value inside, or allow extrapolation with --extrapolate"
                )

    def table(self, params: Mapping[str, float | Sequence[float]] | Tensor | np.ndarray) -> Tensor:
        """A ``(N, P)`` float64 table from columns by name (scalars broadcast) or from an array."""
        if not isinstance(params, Mapping):
            table = torch.as_tensor(params, dtype=torch.float64)
            return table if table.ndim == 2 else table.reshape(-1, len(self))
        unknown, missing = set(params) - set(self.names), set(self.names) - set(params)
        if unknown or missing:
            raise InputError(
                f"parameters must be {', '.join(self.names) or 'none'}, got {', '.join(params) or 'none'}"
            )
        if not self.names:
            return torch.zeros(1, 0, dtype=torch.float64)
        columns = [np.atleast_1d(np.asarray(params[name], dtype=np.float64)) for name in self.names]
        return torch.as_tensor(np.stack(np.broadcast_arrays(*columns), axis=-1))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        return cls(**state)
