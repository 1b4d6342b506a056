"""What was seen of a field, read from files and checked against an emulator's grid."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.emulators.beams import beam, filtered
from gen.emulators.mirror import Mirror
from gen.errors import InputError
from gen.fields import Grid
from gen.io import FieldFile, Values, open_fields
from gen.io.boxes import open_npy

SAME = 1e-4
"""Relative difference of sides within which two grids are one."""


@dataclass(frozen=True, eq=False)
class Observation:
    """Data ``mean over cells (beam * field) + noise``, where seen.

    A field that is not periodic is continued beyond its edges as in a mirror for the beam's sake; mask what
    lies within the beam of them if that matters.

    Args:
        grid: of the field.
        values: ``(*shape / mean_of)``, finite where seen.
        noise: its standard deviation, of the same shape, positive where seen.
        seen: boolean, of the same shape.
        fwhm: of a Gaussian beam [arcmin on the sky, else unit of the grid], 0 for none.
        mean_of: cells along each side that an observed cell is the mean of.
    """

    grid: Grid
    values: Tensor
    noise: Tensor
    seen: Tensor
    fwhm: float = 0.0
    mean_of: int = 1

    def __call__(self, fields: Tensor) -> Tensor:
        """``(B, n_seen)`` of fields ``(B, 1, *grid.shape)``, without noise."""
        blurred = self._blurred(fields)[:, 0]
        for axis in range(1, blurred.ndim):
            blurred = blurred.unflatten(axis, (-1, self.mean_of)).mean(axis + 1)
        return blurred[:, self.seen]

    def _blurred(self, fields: Tensor) -> Tensor:
        if not self.fwhm:
            return fields
        mirror, transfer = self._beam
        return mirror.cut(filtered(mirror.extended(fields), transfer), fields.shape[2:])

    @cached_property
    def _beam(self) -> tuple[Mirror, Tensor]:
        mirror = Mirror.of_beam(self.grid, self.fwhm, 1)
        return mirror, beam(self.grid.resized(mirror.worked(self.grid.shape)), self.fwhm)

    @property
    def data(self) -> Tensor:
        """``(1, n_seen)``."""
        return self.values[self.seen][None]

    @property
    def variance(self) -> Tensor:
        """Of the data's noise, ``(1, n_seen)``."""
        return self.noise[self.seen].square()[None]

    def to(self, device: torch.device) -> Observation:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("values", "noise", "seen")}
        return replace(self, **moved)


def observation(
    grid: Grid, observed: Tensor, noise: str, mask: Path | None, fwhm: float, mean_of: int
) -> Observation:
    """The observed field ``(*shape)`` as an observation of a field on ``grid``.

    Args:
        noise: a number, or the name of a file of the observed field's shape.
        mask: file of the same shape, 1 where seen.

    Raises:
        InputError: for noise that is not positive, a mask that is not of 0 and 1 or hides all, values that
            are not finite where seen, and a beam that is no width.
    """
    if not (math.isfinite(fwhm) and fwhm >= 0):
        raise InputError(f"--smooth must be the width of a beam, 0 or more, got {fwhm:g}")
    coarse = observed_grid(grid, mean_of)
    seen = torch.ones(coarse.shape, dtype=torch.bool)
    if mask is not None:
        marks = read_field(mask, coarse, None, "the mask").field
        if not bool(((marks == 0) | (marks == 1)).all()):
            other = marks[(marks != 0) & (marks != 1)].flatten()[0]
            raise InputError(f"{mask} must hold 1 where a cell was seen and 0 elsewhere, got {other:g}")
        seen = marks == 1
        if not bool(seen.any()):
            raise InputError(f"{mask} says that no cell was seen; give 1 where one was")
    if not bool(observed[seen].isfinite().all()):
        n = int((~observed[seen].isfinite()).sum())
        raise InputError(f"the observed field is not finite in {n} seen cells; give 0 there in a --mask")
    scatter = _noise(noise, coarse)
    if not bool(((scatter[seen] > 0) & scatter[seen].isfinite()).all()):
        wrong = scatter[seen][~((scatter[seen] > 0) & scatter[seen].isfinite())][0]
        raise InputError(
            f"--noise must be positive in every seen cell, got {wrong:g}; for data without noise say how "
            "closely they are to be met"
        )
    return Observation(grid, observed.nan_to_num(), scatter, seen, fwhm, mean_of)


def observed_grid(grid: Grid, mean_of: int) -> Grid:
    """The grid of block means over ``mean_of`` cells along each side."""
    if mean_of < 1 or any(n % mean_of or n // mean_of < 2 for n in grid.shape):
        raise InputError(
            f"--mean_of must divide the emulator's {_cells(grid.shape)} cells and leave 2 or more a side, "
            f"got {mean_of}"
        )
    return Grid([n // mean_of for n in grid.shape], grid.box_size, grid.unit, grid.periodic)


def _noise(text: str, grid: Grid) -> Tensor:
    try:
        return torch.full(grid.shape, float(text))
    except ValueError:
        if not Path(text).exists():
            raise InputError(f"--noise must be a number or a file, got {text!r}") from None
        return read_field(Path(text), grid, None, "the noise").field


@dataclass(frozen=True, eq=False)
class OneField:
    """``field (*shape)`` of a file, and that file with its row, where it tells of more than values."""

    field: Tensor
    file: FieldFile | None = None
    row: int = 0


def read_field(path: Path, grid: Grid, row: int | None, what: str) -> OneField:
    """One field of a file, which must be on ``grid``.

    Args:
        row: which one, of a file that holds several.
        what: it is, for messages.

    Raises:
        InputError: if there is none, or several and no ``row``, or it is on another grid.
    """
    values, file = _read(path, grid)
    shape = tuple(values.shape)
    lead, cells = shape[: len(shape) - grid.dim], shape[len(shape) - grid.dim :]
    if len(lead) > 2 or cells != grid.shape or (len(lead) == 2 and lead[1] != 1):
        raise InputError(
            f"{what} must be one field of {_cells(grid.shape)} cells, {path} holds {_cells(shape)}"
        )
    if file is not None and not _same(file.grid, grid):
        raise InputError(f"{what} must be on {_said(grid)}, {path} is on {_said(file.grid)}")
    n = math.prod(lead)
    if n != 1 and row is None:
        raise InputError(f"{path} holds {n} fields; choose one by --row")
    at = 0 if n == 1 else row or 0
    if not 0 <= at < n:
        raise InputError(f"--row must be 0 to {n - 1} of the {n} fields of {path}, got {row}")
    one = values[at : at + 1] if lead else values[:]
    field = one.float() if isinstance(one, Tensor) else torch.from_numpy(one.astype(np.float32))
    return OneField(field.reshape(grid.shape), file, at)


def _read(path: Path, grid: Grid) -> tuple[np.ndarray | Values, FieldFile | None]:
    """The array of a file, and the file if it is one of fields; FITS may be an image of whatever origin."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _npy(path), None
    try:
        file = open_fields(path)
    except InputError:
        if suffix != ".fits" or not path.is_file():
            raise
        from gen.data.fits import read_image

        image = read_image(path)[0]
        return image[0] if grid.dim == 2 and len(image) == 1 else image, None
    return file.values, file


def _npy(path: Path) -> np.ndarray:
    """The array of a ``.npy``; truth values, which masks may be of, as 0 and 1."""
    with suppress(OSError, ValueError, EOFError):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype == np.bool_:
            return array.astype(np.float32)
    return open_npy(path)


def _same(one: Grid, other: Grid) -> bool:
    sides = zip(one.box_size, other.box_size, strict=False)
    kinds = [(g.dim, g.unit, g.periodic) for g in (one, other)]
    return kinds[0] == kinds[1] and all(math.isclose(a, b, rel_tol=SAME) for a, b in sides)


def _cells(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _said(grid: Grid) -> str:
    sides = " x ".join(f"{side:g}" for side in grid.box_size)
    return f"a {'periodic' if grid.periodic else 'not periodic'} grid of {sides} {grid.unit}"
