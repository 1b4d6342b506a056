"""Coarse fields for ``cosmozoo apply``, checked against the emulator and left in their file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gen.emulators.base import Emulator
from gen.emulators.conditioning import Channels
from gen.errors import InputError
from gen.fields import Grid
from gen.io import FieldFile, Rows, open_fields
from gen.io.boxes import Box, open_npy


@dataclass(frozen=True, eq=False)
class CoarseBoxes:
    """``count`` coarse fields; ``params``: theirs, if the file has all that the emulator knows; ``shape``:
    cells of the fields to be made of them."""

    path: Path
    count: int
    shape: tuple[int, ...]
    params: Tensor | None
    field: Callable[[int], Channels]

    def stamp(self) -> list[object]:
        """What changes when the file does."""
        files = [self.path, *sorted(self.path.rglob("*"))] if self.path.is_dir() else [self.path]
        found = [file.stat() for file in files]
        return [str(self.path.resolve()), sum(s.st_size for s in found), max(s.st_mtime_ns for s in found)]


def coarse_boxes(emulator: Emulator, path: Path | None) -> CoarseBoxes | None:
    """The coarse fields of a file, or none for an emulator that takes none.

    Raises:
        InputError: if the emulator takes coarse fields and none are given, or the other way; for a box whose
            cells are not those that the emulator was made for.
    """
    takes = emulator.needs_coarse
    if path is None or not takes:
        if takes or path is not None:
            said = "makes fields from coarse ones; give" if takes else "takes no coarse fields; leave out"
            raise InputError(f"this {type(emulator).__name__} {said} --coarse")
        return None
    factor = getattr(emulator, "factor", 1)
    if path.suffix.lower() == ".npy":
        shape, params, field = _plain(path, emulator)
    else:
        file = open_fields(path)
        _check_cells(file.grid, emulator, factor, path)
        shape, params, field = tuple(file.values.shape), _params(file, emulator), _rows(file, path)
    cells = tuple(n * factor for n in shape[2:])
    return CoarseBoxes(path, shape[0], cells, params, field)


def _plain(path: Path, emulator: Emulator) -> tuple[tuple[int, ...], None, Callable[[int], Channels]]:
    """Values alone, whose cells are taken to be the right ones."""
    shape = open_npy(path).shape
    if len(shape) != emulator.grid.dim + 2 or 0 in shape:
        raise InputError(
            f"{path} must hold fields (N, channels, {emulator.grid.dim} sides), got shape {shape}"
        )
    return shape, None, lambda row: Box(path, row, (1, *shape[1:]))


def _rows(file: FieldFile, path: Path) -> Callable[[int], Channels]:
    values = file.values
    if isinstance(values, Rows):
        return lambda row: Box(path, row, (1, *values.row_shape))
    return lambda row: values[row : row + 1]


def _params(file: FieldFile, emulator: Emulator) -> Tensor | None:
    names = file.space.names
    if not set(emulator.space.names) <= set(names):
        return None
    return file.params[:, [names.index(name) for name in emulator.space.names]]


def _check_cells(grid: Grid, emulator: Emulator, factor: int, path: Path) -> None:
    own = emulator.grid
    if (grid.dim, grid.unit, grid.periodic) != (own.dim, own.unit, own.periodic):
        raise InputError(
            f"{path} is a {_kind(grid)}, the emulator is for a {_kind(own)}; give coarse fields of that kind"
        )
    wanted = [factor * d for d in own.spacing]
    if not all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(grid.spacing, wanted, strict=True)):
        raise InputError(
            f"{path} has cells of {_sides(grid.spacing)} {grid.unit}, the emulator takes coarse cells of "
            f"{_sides(wanted)} {grid.unit}; give a box of that resolution, of any size"
        )


def _kind(grid: Grid) -> str:
    return f"{'periodic' if grid.periodic else 'not periodic'} {grid.dim}D box in {grid.unit}"


def _sides(spacing: list[float] | tuple[float, ...]) -> str:
    return " x ".join(f"{d:.5g}" for d in spacing)
