"""Pairs of dust patches from simulations of magnetohydrodynamic turbulence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.arrays import as_float32, open_array
from gen.data.base import SPLITS, SimulationSet, Source
from gen.data.beam_pairs import CONVENTIONS, at_beams, check_pairs, existing_map, foregrounds_folder, pairs
from gen.errors import InputError

GUARD = 2.0
"""Rows left out between two splits of one map, over the coarse beam; no beam then sees both sides."""


class TurbulentDust(Source):
    """Pairs cut from simulated maps of dust emission in magnetohydrodynamic turbulence, 512^2, periodic.

    The maps of Regaldo-Saint Blancard et al. (pywph, BSD-3): intensities I_1 and I_2, and Q_1 and U_1 of the
    first. They have no unit, so they are divided by their mean intensity, and no angular scale: ``pixel``
    sets it. In their units sqrt(Q^2 + U^2) / I is 1.1 in the mean: Q and U are on a scale of their own, and
    their sign convention is not stated.

    Intensity is split by map: training and validation are bands of map 2, the test is map 1. **I, Q, U are
    one field**, so all splits are bands of map 1 and at best pseudo-independent: what is larger than a band
    is common to them. Between bands, and across the periodic edge, twice the coarse beam is left out.

    Args:
        patch: side of a patch in pixels.
        pixel: side of a pixel [arcmin].
        stokes: "I" or "IQU".
        fine_beam, coarse_beam: full widths at half maximum [arcmin] of values and coarse.
        coarse_factor: pixels of the patch along the side of a pixel of coarse.
        shares: of the rows, for train, validation and test; that of the test counts for I, Q, U only.
        step: pixels from one training patch to the next, by default a patch; the others never overlap.
        convention: of U in the files, "COSMO" (angles grow from rows to columns) or "IAU"; given as COSMO.
        folder: of the files, by default ``foregrounds`` of ``$COSMOZOO_DATA``, or of ``shared/data`` beside
            the repository.

    Raises:
        InputError: for maps that are not these, or bands that hold no patch.
    """

    def __init__(
        self,
        patch: int,
        pixel: float,
        stokes: str = "I",
        fine_beam: float = 12.0,
        coarse_beam: float = 80.0,
        coarse_factor: int = 1,
        shares: Sequence[float] = (0.5, 0.25, 0.25),
        step: int | None = None,
        convention: str = "COSMO",
        folder: str | Path | None = None,
    ) -> None:
        check_pairs(patch, fine_beam, coarse_beam, coarse_factor, 0.0)
        if stokes not in ("I", "IQU") or convention not in CONVENTIONS:
            raise InputError(
                f"stokes must be I or IQU, convention COSMO or IAU, got {stokes!r} and {convention!r}"
            )
        if len(shares) != 3 or min(shares) < 0 or not shares[0] or abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"shares must be three, of train, validation, test, sum 1, got {list(shares)}")
        if pixel <= 0 or (step is not None and step < 1):
            raise InputError(f"pixel must be above 0 arcmin and step 1 or more, got {pixel:g} and {step}")
        self.patch, self.pixel, self.stokes, self.convention = patch, float(pixel), stokes, convention
        self.fine_beam, self.coarse_beam, self.coarse_factor = fine_beam, coarse_beam, coarse_factor
        self.shares, self.step = tuple(shares), step or patch
        self.folder = foregrounds_folder(folder)

    @property
    def guard(self) -> int:
        """Rows between two splits."""
        return math.ceil(GUARD * self.coarse_beam / self.pixel)

    def prepare(self) -> None:
        for name in ("I_1", "Q_1", "U_1") if self.stokes == "IQU" else ("I_1", "I_2"):
            existing_map(self.folder / f"pywph_{name}.npy")

    def load(self) -> SimulationSet:
        self.prepare()
        patches: list[Tensor] = []
        splits: list[str] = []
        first = self._pair(1)
        if self.stokes == "IQU":
            bands = self._bands(first[0].shape[-1], self.shares)
            parts = [(split, first, band) for split, band in bands.items()]
        else:
            second, shares = self._pair(2), np.array(self.shares[:2]) / sum(self.shares[:2])
            bands = self._bands(second[0].shape[-1], shares.tolist())
            parts = [(split, second, band) for split, band in bands.items()]
            parts.append(("test", first, (0, first[0].shape[-1])))
        for split, pair, band in parts:
            patches.append(self._cut(torch.cat(pair), band, self.step if split == "train" else self.patch))
            splits.append(split)
        of = "one field (pseudo-independent bands)" if self.stokes == "IQU" else "two fields"
        return pairs(
            torch.cat(patches),
            np.repeat(np.arange(len(splits)), [len(p) for p in patches]),
            np.repeat(splits, [len(p) for p in patches]),
            self.patch * self.pixel / 60,
            self.coarse_factor,
            f"dust in magnetohydrodynamic turbulence, {of}",
            "1",
        )

    def _pair(self, number: int) -> tuple[Tensor, Tensor]:
        """Fine and coarse ``(C, n, n)`` of a map, over its mean intensity, U in the COSMO convention."""
        arrays = [open_array(self.folder / f"pywph_{s}_{number}.npy") for s in self.stokes]
        if len({a.shape for a in arrays}) != 1 or arrays[0].ndim != 2 or len(set(arrays[0].shape)) != 1:
            found = ", ".join(str(a.shape) for a in arrays)
            raise InputError(f"the pywph maps in {self.folder} must be squares of one size, got {found}")
        maps = as_float32(np.stack(arrays), str(self.folder))
        maps = maps / maps[0].double().mean().float()
        if self.stokes == "IQU" and self.convention == "IAU":
            maps[2] = -maps[2]
        return at_beams(maps, self.pixel, 0.0, self.fine_beam, self.coarse_beam)

    def _bands(self, n: int, shares: Sequence[float]) -> dict[str, tuple[int, int]]:
        """First row and number of rows of each split's band; half of the guard is cut off at either end."""
        ends = np.rint(np.cumsum([0.0, *shares]) * n).astype(int)
        half, bands = -(-self.guard // 2), {}
        for split, start, end in zip(SPLITS, ends, ends[1:], strict=False):
            if start == end:
                continue
            bands[split] = (int(start) + half, int(end - start) - 2 * half)
            if bands[split][1] < self.patch:
                raise InputError(
                    f"the {split} band has {end - start} rows, less {2 * half} of guard (twice the coarse "
                    f"beam), too few for a patch of {self.patch}; use smaller patches or pixels that are "
                    "larger on the sky, or other shares"
                )
        return bands

    def _cut(self, maps: Tensor, band: tuple[int, int], step: int) -> Tensor:
        """Patches ``(m, C, patch, patch)``; columns wrap round, as the map is periodic, unless cut short."""
        start, rows = band
        n = maps.shape[-1]
        wide = torch.cat([maps, maps[..., : self.patch]], -1)
        columns = range(0, n, step) if step < self.patch else range(0, n - self.patch + 1, self.patch)
        corners = [(r, c) for r in range(start, start + rows - self.patch + 1, step) for c in columns]
        return torch.stack([wide[:, r : r + self.patch, c : c + self.patch] for r, c in corners])
