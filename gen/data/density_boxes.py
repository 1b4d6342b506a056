"""Mass density of simulated boxes as HDF5 grids, whole or cut into cubes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import torch

from gen.data import mass_units
from gen.data.arrays import as_float32, existing, refuse_web_page
from gen.data.assemble import check_fields
from gen.data.base import SPLITS, SimulationSet, Source, split_by_simulation
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

SMALLEST, LARGEST = 1.0, 1e4
"""Sides of boxes that can be meant [Mpc/h]."""
Place = tuple[tuple[int, ...], int]
"""A cube: its place along each axis, counted in cubes, and its split's in ``SPLITS``."""


class DensityBoxes(Source):
    """Comoving mass density [(Msun/h)/(Mpc/h)^3], one 3D dataset a file, such as the HI of IllustrisTNG.

    Files are simulations of one cosmology, and are split as such. Of a single box a corner is held out
    instead (as in HIGAN, Zamudio-Fernandez et al. 2019, arXiv:1904.12846): cubes inside [0, corner)^3 are
    for test, those in one half as wide at the box's other end for validation, all others for training. Parts
    of one box touch and share its long waves, so such a test says nothing about sample variance.

    Args:
        paths: a file, or several of equal boxes.
        dataset: the grid's name; may be left out where a file holds one 3D dataset only.
        unit: of the values, comoving: a density, or mass in each cell, see ``gen.data.mass_units``;
            default attribute ``units`` of the dataset.
        box_size: side [Mpc/h]; default attribute ``BoxSize`` of dataset, file or group ``Header``.
        length_unit: of that attribute; kpc/h in IllustrisTNG's files.
        h: for units without it; default attribute ``HubbleParam``, found as ``BoxSize``.
        crop: cut into cubes of so many cells a side, which are no longer periodic.
        corner: cells a side of the held-out corner, of a whole number of cubes.
        at_most: cubes of each file and split, evenly spaced among all; default all.
        fractions, seed: of the split by file, where no corner is held out.

    Raises:
        InputError: for what is missing, damaged, negative, or does not fit.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        dataset: str | None = None,
        unit: str | None = None,
        box_size: float | None = None,
        length_unit: str = "kpc/h",
        h: float | None = None,
        crop: int | None = None,
        corner: int | None = None,
        at_most: int | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        given = [paths] if isinstance(paths, str | Path) else paths
        self.paths = [Path(path).expanduser() for path in given]
        if not self.paths or (at_most is not None and at_most < 1) or (corner is not None and crop is None):
            raise InputError("DensityBoxes needs a file or more, at_most of 1 or more, and crop with corner")
        self.dataset, self.unit, self.box_size, self.length_unit = dataset, unit, box_size, length_unit
        self.h, self.crop, self.corner, self.at_most = h, crop, corner, at_most
        self.fractions, self.seed = fractions, seed

    def prepare(self) -> None:
        for path in self.paths:
            existing(path)

    def load(self) -> SimulationSet:
        boxes = [self._read(path) for path in self.paths]
        sides = {(size, values.shape[1:]) for values, _, size in boxes}
        if len(sides) > 1:
            raise InputError(f"boxes must be of one size and number of cells, got {sorted(sides)}")
        ((size, shape),) = sides
        parts = [part for _, part, _ in boxes]
        simulation = np.concatenate([3 * i + part for i, part in enumerate(parts)])
        split = np.array(SPLITS)[np.concatenate(parts)]
        if self.corner is None:
            split = split_by_simulation(torch.from_numpy(simulation), self.fractions, self.seed)
        values = torch.from_numpy(np.concatenate([values for values, _, _ in boxes]))[:, None]
        data = SimulationSet(
            Grid(shape, size, "Mpc/h", periodic=self.crop is None),
            ParameterSpace((), (), ()),
            values,
            torch.zeros(len(values), 0),
            torch.from_numpy(simulation),
            split,
            np.full(len(values), "interior", dtype="<U13"),
            self.paths[0].name,
            mass_units.DENSITY,
        ).check()
        check_fields(data)
        return data

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray, float]:
        """Cubes ``(m, n, n, n)``, their parts ``(m,)`` as places in ``SPLITS``, and their side [Mpc/h]."""
        with _opened(path) as file:
            grid = _grid(file, self.dataset, path)
            cells = grid.shape[0]
            side, factor = self._units(file, grid, path)
            crop = cells if self.crop is None else self.crop
            places = self._places(cells, crop, path)
            values = np.empty((len(places), crop, crop, crop), dtype=np.float32)
            for row, (place, _) in enumerate(places):
                cut = grid[tuple(slice(i * crop, (i + 1) * crop) for i in place)]
                values[row] = as_float32(
                    np.asarray(cut, dtype=np.float64) * factor, f"{path}: dataset {grid.name!r}"
                ).numpy()
        if values.min() < 0:
            raise InputError(
                f"{path} holds negative values down to {values.min():.3g}, but a mass density has none; "
                "give 1 + delta or another field to Hdf5File"
            )
        return values, np.array([part for _, part in places]), side * crop / cells

    def _units(self, file: h5py.File, grid: h5py.Dataset, path: Path) -> tuple[float, float]:
        """Side of the box [Mpc/h], and one unit of the values in (Msun/h)/(Mpc/h)^3."""
        h = _attribute(file, grid, "HubbleParam", path) if self.h is None else self.h
        side = self.box_size
        if side is None:
            found = _attribute(file, grid, "BoxSize", path)
            if found is None:
                raise InputError(f"{path} has no attribute 'BoxSize'; give box_size in Mpc/h")
            side = found * mass_units.length(self.length_unit, h, str(path))
        if not SMALLEST <= side <= LARGEST:
            raise InputError(
                f"{path}: a box {side:g} Mpc/h wide cannot be meant; give box_size in Mpc/h, or the "
                f"length_unit of its attribute BoxSize, {self.length_unit} here"
            )
        unit = grid.attrs.get("units") if self.unit is None else self.unit
        if unit is None:
            raise InputError(f"{path}: dataset {grid.name!r} has no attribute 'units'; give unit")
        unit = unit.decode() if isinstance(unit, bytes) else str(unit)
        return side, mass_units.density(unit, h, (side / grid.shape[0]) ** 3, str(path))

    def _places(self, cells: int, crop: int, path: Path) -> list[Place]:
        """All cubes that are to be read."""
        if crop < 2 or cells % crop:
            raise InputError(f"{path} has {cells} cells a side, no whole number of cubes of {crop}")
        count = cells // crop
        test = 0 if self.corner is None else self.corner // crop
        if self.corner is not None and (self.corner % crop or not 0 < test < count):
            raise InputError(
                f"corner must be a multiple of crop = {crop} below the {cells} cells of {path}, "
                f"got {self.corner}"
            )
        found: tuple[list[Place], ...] = ([], [], [])
        for place in product(range(count), repeat=3):
            part = 2 if max(place) < test else 1 if min(place) >= count - test // 2 else 0
            found[part].append((place, part))
        return [place for part in found for place in self._spaced(part)]

    def _spaced(self, places: list[Place]) -> list[Place]:
        if self.at_most is None or len(places) <= self.at_most:
            return places
        return [places[int(i)] for i in np.linspace(0, len(places) - 1, self.at_most)]


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    refuse_web_page(existing(path))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # damaged bytes reach the HDF5 library, which may raise anything
        reason = "truncated" if "truncated" in str(error) else "damaged or not HDF5"
        raise InputError(f"{path} is {reason}; copy or download it again") from None


def _grid(file: h5py.File, name: str | None, path: Path) -> h5py.Dataset:
    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda key, item: found.update({key: item} if isinstance(item, h5py.Dataset) else {}))
    boxes = [key for key, item in found.items() if item.ndim == 3]
    wanted = boxes[0] if name is None and len(boxes) == 1 else (name or "").strip("/")
    if wanted not in found:
        which = "the 3D dataset must be named" if name is None else f"dataset {name!r} is missing"
        if not boxes:
            which = "a 3D dataset is needed"
        held = ", ".join(f"{key} {item.shape}" for key, item in list(found.items())[:20]) or "no dataset"
        mend = "give dataset" if boxes else "give another file"
        raise InputError(f"{path}: {which}, it holds {held}; {mend}")
    grid = found[wanted]
    if grid.ndim != 3 or len(set(grid.shape)) != 1 or grid.shape[0] < 2:
        raise InputError(f"{path}: dataset {wanted!r} must be a cube of cells (n, n, n), got {grid.shape}")
    if grid.dtype.kind not in "fiu":
        raise InputError(f"{path}: dataset {wanted!r} must hold numbers, got {grid.dtype}; give dataset")
    return grid


def _attribute(file: h5py.File, grid: h5py.Dataset, name: str, path: Path) -> float | None:
    """A number among the attributes of the dataset, the file, or its group ``Header``."""
    places: list[h5py.Dataset | h5py.Group] = [grid, file]
    header = file.get("Header")
    if isinstance(header, h5py.Group):
        places.append(header)
    for place in places:
        if name in place.attrs:
            value = np.asarray(place.attrs[name], dtype=np.float64)
            if value.size != 1 or not math.isfinite(value.item()) or value.item() <= 0:
                raise InputError(f"{path}: attribute {name!r} must be one positive number, got {value}")
            return value.item()
    return None
