"""HEALPix maps of I, Q, U, cut into pairs of flat patches at a fine and at a coarse beam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gen.data.arrays import existing
from gen.data.base import SimulationSet, Source, split_by_simulation
from gen.data.beam_pairs import BORDER, CONVENTIONS, at_beams, check_pairs, pairs
from gen.data.healpix import base_pixel, patch_centres
from gen.data.healpix_table import read_healpix
from gen.data.sky_frames import TangentPlane
from gen.data.sky_patches import cut
from gen.errors import InputError

SYSTEMS = {"G": ("G", "GAL", "GALACTIC"), "C": ("C", "Q", "EQUATORIAL", "CELESTIAL", "ICRS", "FK5")}
SYSTEMS |= {"E": ("E", "ECLIPTIC")}


class HealpixIQU(Source):
    """Gnomonic patches of HEALPix maps of I, or of I, Q and U in each patch's own frame, COSMO convention.

    Patches do not overlap, rows run to the north and columns to the west. They are cut with a border of 1.5
    coarse beams and smoothed in their plane, whose stretch (``TangentPlane``) the beams share: 6 % at the
    corners of 20 degrees. Patches that touch unseen pixels, border included, are left out. All patches of
    one map count as one simulation.

    Args:
        maps: FITS files (binary tables with NSIDE and ORDERING) or ``.npy`` arrays (columns, 12 nside^2).
        own_beam: full width at half maximum [arcmin] of the beam of the maps.
        fine_beam, coarse_beam: those of values and of coarse, not below it.
        patch, size: side of a patch in pixels, and at its centre in degrees, up to 24.
        columns: names or numbers: of I, or of I, Q and U.
        polarisation: files of the second and third column, one for each map, if they are not in its own.
        coarse_factor: pixels of the patch along the side of a pixel of coarse.
        ordering: "RING" or "NESTED", needed for arrays; by default the header's.
        unit: of all columns; by default the header's TUNIT.
        convention: of U in the files, "COSMO" or "IAU"; by default the header's POLCCONV.
        coordinates: that the maps are in, "G", "C" or "E"; a header's COORDSYS must agree.
        positive: refuse patches whose intensity is not positive, as a logarithm needs it.
        base_pixels: as of ``HealpixPatches``: for want of independent maps, split by base pixels of the sky.
        fractions, seed: of the split.

    Raises:
        InputError: for a map that is damaged or partial, or says nothing, or something else, of its ordering,
            unit, convention or coordinates.
    """

    def __init__(
        self,
        maps: str | Path | Sequence[str | Path],
        own_beam: float,
        fine_beam: float = 12.0,
        coarse_beam: float = 80.0,
        patch: int = 320,
        size: float = 20.0,
        columns: Sequence[str | int] = (0, 1, 2),
        polarisation: str | Path | Sequence[str | Path] | None = None,
        coarse_factor: int = 1,
        ordering: str | None = None,
        unit: str | None = None,
        convention: str | None = None,
        coordinates: str = "G",
        positive: bool = False,
        base_pixels: bool = False,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        check_pairs(patch, fine_beam, coarse_beam, coarse_factor, own_beam)
        if not 0 < size <= 24 or len(columns) not in (1, 3):
            raise InputError(
                "patches need a size in (0, 24] degrees, and columns one, I, or three, I, Q and U, got "
                f"{size:g} and {len(columns)}"
            )
        if ordering not in (None, "RING", "NESTED") or convention not in (None, *CONVENTIONS):
            raise InputError(
                f"ordering must be RING or NESTED and convention COSMO or IAU, got {ordering!r} and "
                f"{convention!r}"
            )
        if coordinates not in SYSTEMS:
            raise InputError(f"coordinates must be one of {', '.join(SYSTEMS)}, got {coordinates!r}")
        self.maps = _paths(maps)
        self.polarisation = self.maps if polarisation is None else _paths(polarisation)
        if not self.maps or len(self.polarisation) != len(self.maps):
            raise InputError(
                f"each map needs one file of polarisation, got {len(self.maps)} maps and "
                f"{len(self.polarisation)}"
            )
        self.own_beam, self.fine_beam, self.coarse_beam = own_beam, fine_beam, coarse_beam
        self.patch, self.size, self.columns, self.coarse_factor = patch, size, tuple(columns), coarse_factor
        self.ordering, self.unit, self.convention = ordering, unit, convention
        self.coordinates, self.positive, self.base_pixels = coordinates, positive, base_pixels
        self.fractions, self.seed = fractions, seed

    def prepare(self) -> None:
        for path in {*self.maps, *self.polarisation}:
            existing(path)

    def load(self) -> SimulationSet:
        planes = [TangentPlane(tuple(c), self.patch, self.size) for c in patch_centres(self.size).tolist()]
        patches, ids, units = [], [], []
        for index in range(len(self.maps)):
            sky, ordering, unit = self.sky(index)
            units.append(unit)
            for plane in tqdm(planes, desc=self.maps[index].name, unit="patch"):
                home = index
                if self.base_pixels:
                    base = int(base_pixel(plane.directions()[None])[0])
                    home = 12 * index + base if base >= 0 else -1
                both = self._pair(sky, ordering, plane) if home >= 0 else None
                if both is not None:
                    patches.append(both)
                    ids.append(home)
        if not patches:
            raise InputError(
                f"{self.maps[0]}: each of the {len(planes)} patches of {self.size:g} deg, or its border, "
                f"touches unseen pixels{' or a border of base pixels' if self.base_pixels else ''}; use a "
                "smaller size"
            )
        if len(set(units)) != 1:
            raise InputError(f"maps of one set must agree in their unit, got {', '.join(units)}")
        pseudo = ", regions of one sky (pseudo-independent)" if self.base_pixels else ""
        return pairs(
            torch.stack(patches),
            np.array(ids),
            split_by_simulation(np.array(ids), self.fractions, self.seed),
            self.size,
            self.coarse_factor,
            f"{len(patches)} of {len(planes) * len(self.maps)} patches of {len(self.maps)} HEALPix "
            f"map(s){pseudo}",
            units[0],
        )

    def sky(self, index: int) -> tuple[np.ndarray, str, str]:
        """A map ``(C, npix)``, NaN for unseen pixels, U in the COSMO convention; its ordering and unit."""
        path, other = self.maps[index], self.polarisation[index]
        parts = [(path, self.columns)] if path == other or len(self.columns) == 1 else []
        parts = parts or [(path, self.columns[:1]), (other, self.columns[1:])]
        tables = [read_healpix(p, columns, self.ordering, self.unit) for p, columns in parts]
        for (p, _), table in zip(parts, tables, strict=True):
            self._check_coordinates(p, table.header)
            if "," in table.unit and self.unit is None:
                raise InputError(f"{p} has columns in {table.unit}; I, Q and U must be in one unit")
        first, last = tables[0], tables[-1]
        for what, a, b in (
            ("order", first.ordering, last.ordering),
            ("pixels", first.sky.shape[1], last.sky.shape[1]),
            ("unit", first.unit, last.unit),
        ):
            if a != b:
                raise InputError(
                    f"{path} and {other} differ in their {what}, {a} and {b}; convert one of them"
                )
        sky = np.concatenate([table.sky for table in tables])
        if len(sky) == 3 and self._convention(other, last.header) == "IAU":
            sky[2] = -sky[2]
        return sky, first.ordering, first.unit

    def _pair(self, sky: np.ndarray, ordering: str, plane: TangentPlane) -> torch.Tensor | None:
        """Fine and coarse channels ``(2 C, n, n)``, or nothing where pixels are unseen."""
        pixel = 60 * self.size / self.patch
        border = math.ceil(BORDER * self.coarse_beam / pixel)
        wide = cut(sky, ordering, plane.widened(border))
        if not np.isfinite(wide).all():
            return None
        both = at_beams(
            torch.from_numpy(wide), pixel, self.own_beam, self.fine_beam, self.coarse_beam, border
        )
        if self.positive and min(float(x[0].min()) for x in both) <= 0:
            lowest = min(float(x[0].min()) for x in both)
            raise InputError(
                f"a patch of {self.maps[0].name} has an intensity of {lowest:.3g}, which has no logarithm; "
                "set the map's zero level, mask those pixels, or leave positive out and compose without one"
            )
        return torch.cat(both)

    def _check_coordinates(self, path: Path, header: Mapping[str, Any]) -> None:
        told = str(header.get("COORDSYS", "")).strip().upper()
        if told and told not in SYSTEMS[self.coordinates]:
            raise InputError(
                f"{path} has COORDSYS = {told}, but coordinates is {self.coordinates}; rotate the map, or "
                "give the coordinates that it is in"
            )

    def _convention(self, path: Path, header: Mapping[str, Any]) -> str:
        told = str(header.get("POLCCONV", "")).strip().upper()
        if told not in ("", *CONVENTIONS):
            raise InputError(f"{path} has POLCCONV = {told}, which must be COSMO or IAU; correct the header")
        if not told and self.convention is None:
            raise InputError(
                f"{path} has no POLCCONV, so the sign of U is not known; give convention, COSMO (HEALPix, "
                "Planck) or IAU"
            )
        if told and self.convention not in (None, told):
            raise InputError(
                f"{path} has POLCCONV = {told}, but convention is {self.convention}; leave it out"
            )
        return told or str(self.convention)


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(p).expanduser() for p in ([given] if isinstance(given, str | Path) else given)]
