"""HEALPix maps that an emulator is applied to: read with all that a file must say, and written alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from gen.data.beam_pairs import CONVENTIONS
from gen.data.fits import reading
from gen.data.healpix_table import read_healpix
from gen.errors import InputError
from gen.io.atomic import replacing

UNSEEN = np.float32(-1.6375e30)
STOKES = ("I_STOKES", "Q_STOKES", "U_STOKES")
_ROW = 1024


@dataclass(frozen=True, eq=False)
class SkyMap:
    """I, or I, Q and U, of a sky: ``values (C, 12 nside^2)`` float64, NaN where unseen, U in COSMO.

    Args:
        ordering: "RING" or "NESTED".
        unit: of all channels.
        coordinates: the header's COORDSYS, "" if it has none.
        convention: of U in the file, "COSMO" or "IAU", "" for I alone.
        columns: how many the file has; those beyond the channels are left alone.
    """

    values: np.ndarray
    ordering: str
    unit: str
    coordinates: str = ""
    convention: str = ""
    columns: int = 1

    @property
    def nside(self) -> int:
        return math.isqrt(self.values.shape[1] // 12)

    @property
    def seen(self) -> np.ndarray:
        """Pixels ``(npix,)`` in which all channels are known."""
        return np.asarray(np.isfinite(self.values).all(axis=0))

    @property
    def pixel(self) -> float:
        """Side of a pixel [arcmin]."""
        return math.degrees(math.sqrt(math.pi / 3)) * 60 / self.nside


def is_sky(path: Path) -> bool:
    """Whether a file is FITS with a HEALPix table; False for what cannot be read."""
    if not path.name.lower().endswith((".fits", ".fit", ".fits.gz")) or not path.is_file():
        return False
    try:
        return bool(_headers(path))
    except InputError:
        return False


def read_sky(path: Path, channels: int) -> SkyMap:
    """The first 1 (I) or 3 (I, Q, U) columns of a HEALPix FITS file.

    Raises:
        InputError: for too few columns, tables of several orderings, no ordering, no unit or several, values
            that are not finite, Q and U of no stated convention, and as ``read_healpix``.
    """
    headers = _headers(path)
    orderings = sorted({str(h["ORDERING"]).strip().upper()[:4] for h in headers})
    if len(orderings) > 1:
        raise InputError(
            f"{path} holds tables in {' and '.join(orderings)} order; reorder them to one, or give the map "
            "in a file of its own"
        )
    if orderings and orderings[0] not in ("RING", "NEST"):
        raise InputError(
            f"{path} has ORDERING = {headers[0]['ORDERING']}, which must be RING or NESTED; correct it"
        )
    columns = int(headers[0]["TFIELDS"]) if headers else 0
    if headers and columns < channels:
        raise InputError(
            f"{path} has {columns} column(s), but the emulator takes {channels}, I, Q and U; give a map of "
            "all three"
        )
    for i in range(1, channels + 1) if headers else ():
        if not str(headers[0].get(f"TUNIT{i}", "")).strip():
            raise InputError(
                f"{path} states no unit of its column {i}; set TUNIT{i} in the header, '1' if dimensionless"
            )
    table = read_healpix(path, range(channels), None, None)
    if table.strange:
        raise InputError(
            f"{path} has {table.strange} values that are not finite; mark unseen pixels by -1.6375e30 as "
            "HEALPix does, and mend the others"
        )
    if "," in table.unit:
        raise InputError(f"{path} has columns in {table.unit}; I, Q and U must be in one unit, convert them")
    convention = _convention(path, table.header) if channels == 3 else ""
    sky = table.sky
    if convention == "IAU":
        sky[2] = -sky[2]
    if not np.isfinite(sky).all(0).any():
        raise InputError(f"{path} has no pixel in which I, Q and U are all seen; give another map")
    coordinates = str(table.header.get("COORDSYS", "")).strip()
    return SkyMap(sky, table.ordering, table.unit, coordinates, convention, columns)


def write_sky(
    path: Path, sky: SkyMap, cards: Mapping[str, Any], told: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """A HEALPix FITS file in float32 of the map's own ordering, coordinates, unit and convention.

    Args:
        cards: header keywords, each a value or a value and its comment.
        told: JSON-able, as the keyword COSMOZOO.

    Raises:
        InputError: as ``gen.io.atomic.replacing``.
    """
    values = sky.values.astype(np.float32)
    if sky.convention == "IAU":
        values[2] = -values[2]
    values[~np.isfinite(values)] = UNSEEN
    row = math.gcd(_ROW, values.shape[1])
    columns = [
        fits.Column(name, f"{row}E", unit=sky.unit, array=v.reshape(-1, row))
        for name, v in zip(STOKES, values, strict=False)
    ]
    table = fits.BinTableHDU.from_columns(columns)
    header = table.header
    known = {
        "PIXTYPE": "HEALPIX",
        "ORDERING": sky.ordering,
        "NSIDE": sky.nside,
        "FIRSTPIX": 0,
        "LASTPIX": values.shape[1] - 1,
        "INDXSCHM": "IMPLICIT",
        "OBJECT": "FULLSKY",
        "BAD_DATA": float(UNSEEN),
        "COORDSYS": sky.coordinates or None,
        "POLCCONV": sky.convention or None,
    }
    for key, value in {**{k: v for k, v in known.items() if v is not None}, **cards}.items():
        header[key] = value
    header["COSMOZOO"] = json.dumps(told)
    with replacing(path, overwrite=overwrite) as staged:
        table.writeto(staged)


def _headers(path: Path) -> list[Any]:
    """Of the HEALPix tables in a file."""
    with reading(path), path.open("rb") as file, fits.open(file, memmap=False) as hdus:
        return [h.header for h in hdus if isinstance(h, fits.BinTableHDU) and "ORDERING" in h.header]


def _convention(path: Path, header: Mapping[str, Any]) -> str:
    told = str(header.get("POLCCONV", "")).strip().upper()
    if told not in CONVENTIONS:
        raise InputError(
            f"{path} has {f'POLCCONV = {told}' if told else 'no POLCCONV'}, so the sign of U is not known; "
            "set it in the header to COSMO (HEALPix, Planck) or IAU"
        )
    return told
