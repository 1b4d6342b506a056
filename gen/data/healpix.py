"""HEALPix maps of the sky, cut into flat patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix

from gen.data.arrays import as_float32, existing
from gen.data.assemble import assemble
from gen.data.base import SimulationSet, Source
from gen.data.healpix_table import HealpixTable, read_healpix
from gen.errors import InputError
from gen.fields import Grid

_CANDIDATES = 32  # nside of the grid from which patch centres are taken


class HealpixPatches(Source):
    """Gnomonic patches of HEALPix maps of the full sky; all patches of one map count as one simulation.

    Patches do not overlap: their centres are a fixed, greedy choice. Values are interpolated bilinearly,
    rows run to the north and columns to the east at the centre, where the scale is exact (at a distance
    t from it the plane is stretched by 1/cos(t)^2). Patches that touch unseen pixels are left out.

    Only scalars: Q, U and shear have to be turned from the meridian to the patch's axes, see ``HealpixIQU``.

    Args:
        maps: FITS files (binary tables with NSIDE and ORDERING), or ``.npy`` arrays (12 nside^2,) or
            (columns, 12 nside^2).
        patch: side of a patch in pixels.
        size: side of a patch at its centre [deg], up to 30.
        columns: names or numbers of the map's columns; they become channels.
        ordering: "RING" or "NESTED"; by default from the header, needed for arrays.
        unit: unit of the values; by default the header's TUNIT.
        base_pixels: for want of independent maps, count each of the sky's 12 base pixels as a simulation
            and drop patches that cross their borders. Neighbouring ones still share large scales, so
            such splits are pseudo-independent.
        fractions, seed: of the split.

    Raises:
        InputError: for a map that is damaged, partial or polarised, or an ordering or unit that is missing
            or contradicts the header.
    """

    def __init__(
        self,
        maps: str | Path | Sequence[str | Path],
        patch: int,
        size: float,
        columns: Sequence[str | int] = (0,),
        ordering: str | None = None,
        unit: str | None = None,
        base_pixels: bool = False,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        if not 0 < size <= 30 or patch < 2:
            raise InputError(
                f"patches need a size in (0, 30] degrees and at least 2 pixels, got {size} and {patch}"
            )
        if ordering not in (None, "RING", "NESTED"):
            raise InputError(f"ordering must be RING or NESTED, got {ordering!r}")
        self.maps = [Path(m).expanduser() for m in ([maps] if isinstance(maps, str | Path) else maps)]
        self.patch, self.size, self.columns = patch, size, tuple(columns)
        self.ordering, self.unit, self.base_pixels = ordering, unit, base_pixels
        self.fractions, self.seed = fractions, seed

    def prepare(self) -> None:
        for path in self.maps:
            existing(path)

    def load(self) -> SimulationSet:
        directions = patch_directions(self.patch, self.size)
        base = base_pixel(directions)
        patches, ids, units = [], [], []
        for index, path in enumerate(self.maps):
            table = self._read(path)
            cut = _interpolate(table.sky, table.ordering, directions)
            good = np.isfinite(cut).all(axis=(1, 2, 3)) & (not self.base_pixels or base >= 0)
            patches.append(cut[good])
            ids.append(12 * index + base[good] if self.base_pixels else np.full(int(good.sum()), index))
            units.append(table.unit)
        if len(set(units)) != 1:
            raise InputError(f"maps of one set must agree in their unit, got {', '.join(units) or 'no maps'}")
        values = np.concatenate(patches)
        if not len(values):
            raise InputError(
                f"{self.maps[0]}: each of the {len(directions)} patches of {self.size:g} deg touches "
                "unseen pixels"
                f"{' or a border of base pixels' if self.base_pixels else ''}; use a smaller size"
            )
        pseudo = ", regions of one sky (pseudo-independent)" if self.base_pixels else ""
        return assemble(
            f"{len(values)} of {len(directions) * len(self.maps)} patches of {len(self.maps)} HEALPix "
            f"map(s){pseudo}",
            as_float32(values, str(self.maps[0])),
            Grid((self.patch, self.patch), self.size, "deg", periodic=False),
            np.concatenate(ids),
            np.empty((len(values), 0)),
            (),
            self.fractions,
            self.seed,
            units[0],
        )

    def _read(self, path: Path) -> HealpixTable:
        table = read_healpix(path, self.columns, self.ordering, self.unit)
        for name in table.names:
            if name.upper() in ("Q", "U") or name.upper().startswith(("Q_", "U_", "Q-", "U-")):
                raise InputError(
                    f"{path}: column {name!r} is polarisation, which HealpixIQU turns to a patch's axes; "
                    "choose a scalar here"
                )
        return table


def patch_directions(patch: int, size: float) -> np.ndarray:
    """Unit vectors ``(m, patch, patch, 3)`` of the pixel centres of m patches that do not overlap."""
    centres = patch_centres(size)
    offset = (np.arange(patch) - (patch - 1) / 2) * math.radians(size) / patch
    east = np.cross([0.0, 0.0, 1.0], centres)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    north = np.cross(centres, east)
    vectors = (
        centres[:, None, None]
        + offset[:, None, None] * north[:, None, None]
        + offset[None, :, None] * east[:, None, None]
    )
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def patch_centres(size: float) -> np.ndarray:
    """Centres ``(m, 3)`` of patches of that side [deg] that do not overlap, however they are turned."""
    return _spread(2 * math.atan(math.sqrt(2) * math.radians(size) / 2))


def _spread(separation: float) -> np.ndarray:
    """Unit vectors ``(m, 3)`` at least ``separation`` [rad] apart, chosen greedily from north to south."""
    grid = HEALPix(_CANDIDATES, order="ring")
    lon, lat = grid.healpix_to_lonlat(np.arange(12 * _CANDIDATES**2))
    candidates = _vectors(np.asarray(lon.to_value(u.rad)), np.asarray(lat.to_value(u.rad)))
    free = np.ones(len(candidates), dtype=bool)
    chosen = []
    while free.any():
        centre = candidates[int(np.argmax(free))]
        chosen.append(centre)
        free &= candidates @ centre <= math.cos(separation)
    return np.array(chosen)


def _interpolate(sky: np.ndarray, ordering: str, directions: np.ndarray) -> np.ndarray:
    """Values ``(m, C, n, n)`` of maps ``(C, npix)`` at unit vectors ``(m, n, n, 3)``."""
    grid = HEALPix(math.isqrt(sky.shape[1] // 12), order=ordering.lower())
    lon, lat = _lonlat(directions)
    pixels, weights = grid.bilinear_interpolation_weights(lon.ravel() * u.rad, lat.ravel() * u.rad)
    values = [(column[pixels] * weights).sum(axis=0).reshape(lon.shape) for column in sky]
    return np.stack(values, axis=1)


def base_pixel(directions: np.ndarray) -> np.ndarray:
    """The base pixel ``(m,)`` that holds all of a patch, or -1."""
    lon, lat = _lonlat(directions)
    base = np.asarray(HEALPix(1, order="nested").lonlat_to_healpix(lon * u.rad, lat * u.rad))
    base = base.reshape(len(directions), -1)
    return np.where((base == base[:, :1]).all(axis=1), base[:, 0], -1)


def _vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _lonlat(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude in [0, 2 pi) and latitude; astropy-healpix gives infinite weights for negative longitudes."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.arctan2(y, x) % (2 * np.pi), np.arcsin(np.clip(z, -1, 1))
