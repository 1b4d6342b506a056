"""Reading HEALPix maps of the full sky: one sentence for what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits

from gen.data.arrays import open_array
from gen.data.fits import agreed_unit, reading
from gen.errors import InputError

_BLANK = -1.6e30  # HEALPix marks unseen pixels by -1.6375e30


class HealpixTable(NamedTuple):
    """Columns ``sky (C, 12 nside^2)`` float64 with NaN for unseen pixels, and what the file says of them.

    ``names`` are the columns' own, "" for arrays; ``unit`` joins those that differ; arrays have no header;
    ``strange``: how many values were not finite in the file itself, where nothing is marked so as unseen.
    """

    sky: np.ndarray
    names: tuple[str, ...]
    ordering: str
    unit: str
    header: Mapping[str, Any]
    strange: int


def read_healpix(
    path: Path, columns: Sequence[str | int], ordering: str | None, unit: str | None
) -> HealpixTable:
    """Columns of a FITS binary table with NSIDE and ORDERING, or rows of a ``.npy`` array.

    Args:
        columns: names or numbers; numbers for arrays.
        ordering, unit: needed where the file does not say, else they must agree with it.

    Raises:
        InputError: for a map that is damaged, partial, lacks a column, or contradicts what is given.
    """
    header: Mapping[str, Any] = {}
    if path.suffix == ".npy":
        array = np.atleast_2d(open_array(path))
        told, found_unit, names = ordering, agreed_unit(path, None, unit), ("",) * len(columns)
        chosen = [array[_number(path, c, len(array))] for c in columns]
    else:
        chosen, names, told, found_unit, header = _read_fits(path, columns, unit)
        told = told or ordering
    if told is None:
        raise InputError(f"{path} does not say its ordering; give ordering, RING or NESTED")
    if ordering not in (None, told):
        raise InputError(f"{path} is in {told} order, but ordering is {ordering}; leave it out")
    sky = np.stack(chosen).astype(np.float64)
    nside = math.isqrt(sky.shape[1] // 12)
    if 12 * nside**2 != sky.shape[1] or nside & (nside - 1):
        raise InputError(
            f"{path} has {sky.shape[1]} pixels, not 12 nside^2 with nside a power of 2; use a full map"
        )
    strange = int((~np.isfinite(sky)).sum())
    sky[sky < _BLANK] = np.nan
    for name, column in zip(names, sky, strict=True):
        if not np.isfinite(column).any():
            which = f"column {name!r}" if name else "a column"
            raise InputError(f"{path}: all pixels of {which} are unseen; give another map or column")
    return HealpixTable(sky, names, told, found_unit, header, strange)


def _number(path: Path, column: str | int, n: int) -> int:
    if not isinstance(column, int) or not 0 <= column < n:
        raise InputError(f"{path}: columns must be numbers from 0 to {n - 1}, got {column!r}")
    return column


def _read_fits(
    path: Path, columns: Sequence[str | int], given_unit: str | None
) -> tuple[list[np.ndarray], tuple[str, ...], str | None, str, Mapping[str, Any]]:
    with reading(path), path.open("rb") as file, fits.open(file, memmap=False) as hdus:
        tables = (h for h in hdus if isinstance(h, fits.BinTableHDU) and {"ORDERING", "NSIDE"} & {*h.header})
        table = next(tables, None)
        if table is None:
            raise InputError(
                f"{path} holds no HEALPix table (with ORDERING and NSIDE); for images use FitsImages"
            )
        return _columns(path, table, columns, given_unit)


def _columns(
    path: Path, table: Any, columns: Sequence[str | int], given_unit: str | None
) -> tuple[list[np.ndarray], tuple[str, ...], str | None, str, Mapping[str, Any]]:
    header, names = table.header, list(table.columns.names)
    if str(header.get("INDXSCHM", "IMPLICIT")).strip().upper() == "EXPLICIT":
        raise InputError(
            f"{path} covers a part of the sky (INDXSCHM = EXPLICIT); fill it into a full map first"
        )
    chosen, found, units = [], [], []
    for column in columns:
        name = names[_number(path, column, len(names))] if isinstance(column, int) else column
        if name not in names:
            raise InputError(f"{path}: column {name!r} is missing, it holds {', '.join(names)}")
        chosen.append(np.asarray(table.data[name]).ravel())
        found.append(name)
        units.append(agreed_unit(path, table.columns[name].unit, given_unit))
    if len({len(c) for c in chosen}) != 1 or len(chosen[0]) != 12 * int(header.get("NSIDE", 0)) ** 2:
        raise InputError(
            f"{path}: NSIDE = {header.get('NSIDE')} does not fit columns of {len(chosen[0])} pixels"
        )
    joined = ", ".join(dict.fromkeys(units))
    return chosen, tuple(found), _ordering(path, header.get("ORDERING")), joined, dict(header)


def _ordering(path: Path, told: object) -> str | None:
    """What the header says, if anything."""
    if told is None:
        return None
    name = str(told).strip().upper()
    if name not in ("RING", "NEST", "NESTED"):
        raise InputError(f"{path} has ORDERING = {name}, which must be RING or NESTED; correct the header")
    return "RING" if name == "RING" else "NESTED"
