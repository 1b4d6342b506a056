"""Density grids of the Quijote simulations (Villaescusa-Navarro et al. 2020, arXiv:1909.05273)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.arrays import as_float32, existing, open_array
from gen.data.assemble import assemble
from gen.data.base import SimulationSet, Source
from gen.data.patches import cubes
from gen.data.tables import read_table
from gen.errors import InputError
from gen.fields import Grid

#: Order of the columns in the suite's Latin-hypercube table.
COLUMNS = ("Omega_m", "Omega_b", "h", "n_s", "sigma_8")
BOX_SIZE = 1000.0

_NAME = re.compile(r"df_m_(?P<cells>\d+)(_(?P<scheme>[A-Z]+))?_z=(?P<z>\d+(\.\d+)?)\.npy")


class QuijoteGrids(Source):
    """Matter density 1 + delta of one redshift, one sub-folder a realisation.

    ``folder/<i>/df_m_<cells>_<scheme>_z=<z>.npy`` belongs to row i of the table. Files that hold
    the contrast delta (mean 0) or any multiple of the density are brought to 1 + delta. The whole
    periodic box is 1 Gpc/h wide.

    Args:
        folder: of one set of realisations, e.g. the Latin hypercube's.
        name: of the grids' files, e.g. ``df_m_128_CIC_z=0.npy``.
        params: table of the cosmologies, columns Omega_m, Omega_b, h, n_s, sigma_8 unless its header names
            others; none for a set of one cosmology.
        parameters: those to condition on, default all columns.
        coarse: name of coarser grids of the same realisations, what the fields are to be made from.
        crop: cut each box into cubes of so many cells a side, which are no longer periodic.
        realisations: numbers of the sub-folders to read, default all.
        fractions, seed: of the split by realisation.

    Raises:
        InputError: for names without grid and redshift, missing files or rows, other shapes.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        params: str | Path | None = None,
        parameters: Sequence[str] | None = None,
        coarse: str | None = None,
        crop: int | None = None,
        realisations: Sequence[int] | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        self.folder, self.name, self.coarse, self.crop = Path(folder).expanduser(), name, coarse, crop
        self.params = None if params is None else Path(params).expanduser()
        self.parameters, self.realisations = parameters, realisations
        self.fractions, self.seed = fractions, seed
        self.cells, self.z = _parse(name)
        self.coarse_cells = 0 if coarse is None else _parse(coarse)[0]
        if coarse is not None and (self.coarse_cells >= self.cells or self.cells % self.coarse_cells):
            raise InputError(
                f"the coarse grid must have fewer cells and divide the {self.cells} of {name}, got {coarse}"
            )
        self.factor = self.cells // self.coarse_cells if coarse is not None else 1
        if crop is not None and crop % self.factor:
            raise InputError(f"crop must be whole coarse cells, multiples of {self.factor}, got {crop}")

    def prepare(self) -> None:
        for number in self._numbers():
            for name in filter(None, (self.name, self.coarse)):
                existing(self.folder / str(number) / name)

    def load(self) -> SimulationSet:
        numbers = self._numbers()
        names, rows = self._table(numbers)
        values = self._read(numbers, self.name, self.cells, self.crop)
        coarse, coarse_grid = None, None
        if self.coarse is not None:
            side = None if self.crop is None else self.crop // self.factor
            coarse = self._read(numbers, self.coarse, self.coarse_cells, side)
            coarse_grid = self._grid(coarse)
        per = len(values) // len(numbers)
        return assemble(
            f"Quijote {self.folder.name} z={self.z:g}",
            values,
            self._grid(values),
            np.repeat(numbers, per),
            np.repeat(rows, per, axis=0),
            names,
            self.fractions,
            self.seed,
            "1",
            coarse,
            coarse_grid,
        )

    def _grid(self, values: Tensor) -> Grid:
        share = 1.0 if self.crop is None else self.crop / self.cells
        return Grid(values.shape[2:], BOX_SIZE * share, "Mpc/h", periodic=self.crop is None)

    def _numbers(self) -> list[int]:
        if self.realisations is not None:
            return sorted(set(self.realisations))
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        numbers = sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())
        if not numbers:
            raise InputError(f"{self.folder} holds no folders 0, 1, 2, ... of realisations; correct the path")
        return numbers

    def _read(self, numbers: Sequence[int], name: str, cells: int, crop: int | None) -> Tensor:
        side = cells if crop is None else crop
        per = (cells // side) ** 3
        out = torch.empty(len(numbers) * per, 1, side, side, side)
        for i, number in enumerate(numbers):
            path = self.folder / str(number) / name
            box = open_array(path)
            if box.shape != (cells,) * 3:
                raise InputError(f"{path} must hold {cells}^3 cells as its name says, got {box.shape}")
            density = _density(as_float32(box, str(path)).numpy(), path)
            out[i * per : (i + 1) * per, 0] = torch.from_numpy(cubes(density, side, str(path)))
        return out

    def _table(self, numbers: Sequence[int]) -> tuple[list[str], np.ndarray]:
        if self.params is None:
            if self.parameters:
                raise InputError(f"parameters {', '.join(self.parameters)} need a table; give params")
            return [], np.empty((len(numbers), 0))
        table = read_table(self.params).named(COLUMNS)
        if numbers[-1] >= len(table):
            raise InputError(
                f"{self.params} has {len(table)} rows, but {self.folder} holds realisation {numbers[-1]}; "
                f"use the table of the same set"
            )
        names = list(table.names if self.parameters is None else self.parameters)
        return names, table.numbers(names)[numbers]


def _density(box: np.ndarray, path: Path) -> np.ndarray:
    """1 + delta of a contrast or of any multiple of the density."""
    low, mean = float(box.min()), float(box.mean(dtype=np.float64))
    if low >= 0 and mean > 0:
        return box / np.float32(mean)
    if low >= -1.001 and abs(mean) < 0.01:
        return box + np.float32(1)
    raise InputError(
        f"{path} holds neither a density nor a contrast: its least value is {low:.3g}, its mean {mean:.3g}; "
        f"give densities of 0 or more, or delta of mean 0"
    )


def _parse(name: str) -> tuple[int, float]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"{name} does not tell the number of cells and the redshift; expected "
            f"df_m_<cells>_<scheme>_z=<z>.npy, so keep the original name"
        )
    return int(match["cells"]), float(match["z"])
