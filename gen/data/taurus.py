"""Pairs of patches of observed dust, to test emulators with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from gen.data.arrays import as_float32
from gen.data.base import SimulationSet, Source
from gen.data.beam_pairs import (
    BORDER,
    CONVENTIONS,
    at_beams,
    check_pairs,
    existing_map,
    foregrounds_folder,
    pairs,
)
from gen.data.fits import agreed_pixel, read_image
from gen.data.patches import tiles
from gen.errors import InputError
from gen.simulate.beam import binned


class TaurusDust(Source):
    """Pairs cut from the observed dust of the Taurus region: a test of emulators, never for training.

    Planck's Q and U at 10 arcmin and log10 of the column density at 5 arcmin, 558^2 pixels of 1.72 arcmin,
    TAN projection in Galactic coordinates (Soler, magnetar, BSD-3). Rows run to the north, columns to the
    west. The files state neither unit nor convention of U. I is the column density over 1e21 (of the unit
    that the logarithm is of, cm^-2 by the file's name). All patches are one simulation of the test split.

    Args:
        patch: side of a patch in pixels.
        unit: of the values, for files that state none; of several channels name them all.
        stokes: "I" (the column), "QU" or "IQU".
        fine_beam, coarse_beam: full widths at half maximum [arcmin], not below the files' own.
        coarse_factor: pixels of the patch along the side of a pixel of coarse.
        bin: pixels of the file along the side of a pixel of the patch.
        convention: of U in the file, "COSMO" or "IAU"; given as COSMO.
        folder: as of ``TurbulentDust``.

    Raises:
        InputError: for files that are not these, or beams narrower than theirs.
    """

    FILES = (("I", "5_logNH", 5.0), ("Q", "10_Q", 10.0), ("U", "10_U", 10.0))

    def __init__(
        self,
        patch: int,
        unit: str,
        stokes: str = "I",
        fine_beam: float = 12.0,
        coarse_beam: float = 80.0,
        coarse_factor: int = 1,
        bin: int = 1,
        convention: str = "COSMO",
        folder: str | Path | None = None,
    ) -> None:
        if stokes not in ("I", "QU", "IQU") or convention not in CONVENTIONS:
            raise InputError(
                f"stokes must be I, QU or IQU, convention COSMO or IAU, got {stokes!r} and {convention!r}"
            )
        if not unit.strip() or bin < 1:
            raise InputError(f"the files state no unit, so one must be given, and bin 1 or more, got {bin}")
        own = max(beam for s, _, beam in self.FILES if s in stokes)
        check_pairs(patch, fine_beam, coarse_beam, coarse_factor, own)
        self.patch, self.unit, self.stokes, self.bin = patch, unit, stokes, bin
        self.fine_beam, self.coarse_beam, self.coarse_factor = fine_beam, coarse_beam, coarse_factor
        self.convention, self.folder = convention, foregrounds_folder(folder)

    def _files(self) -> list[tuple[str, Path, float]]:
        """Channel, file and own beam [arcmin] of what is asked for."""
        at = self.folder
        return [
            (s, at / f"magnetar_Taurusfwhm{name}map.fits", beam)
            for s, name, beam in self.FILES
            if s in self.stokes
        ]

    def prepare(self) -> None:
        for _, path, _ in self._files():
            existing_map(path)

    def load(self) -> SimulationSet:
        self.prepare()
        channels, pixel = [], 0.0
        for stokes, path, own in self._files():
            data, told, said = read_image(path)
            if said and said.lower() != self.unit.lower():
                raise InputError(f"{path} is in {said}, but unit is {self.unit}; give the unit that it has")
            pixel = 60 * agreed_pixel(path, told, None)
            picture = as_float32(data[:1], str(path))
            if stokes == "I":
                picture = 10 ** (picture - 21)
            if stokes == "U" and self.convention == "IAU":
                picture = -picture
            pair = at_beams(picture, pixel, own, self.fine_beam, self.coarse_beam, self._border(pixel))
            channels.append(torch.cat(pair))
        if len({c.shape for c in channels}) != 1:
            raise InputError(f"the Taurus files in {self.folder} differ in size; copy them again")
        maps = torch.cat([torch.stack([c[k] for c in channels]) for k in (0, 1)])
        side = maps.shape[-1] // self.bin * self.bin
        maps = binned(maps[:, :side, :side], self.bin)
        patches = torch.from_numpy(
            tiles(maps.numpy(), self.patch, "Taurus within its border", drop_blank=False)
        )
        return pairs(
            patches,
            np.zeros(len(patches), dtype=np.int64),
            np.full(len(patches), "test"),
            self.patch * self.bin * pixel / 60,
            self.coarse_factor,
            "dust of the Taurus region, observed",
            self.unit,
        )

    def _border(self, pixel: float) -> int:
        return math.ceil(BORDER * self.coarse_beam / pixel)
