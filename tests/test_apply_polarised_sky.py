"""Small scales of I, Q and U of a sky, near a pole, where frames of neighbours turn against each other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_healpix_iqu import sky_of_e, vectors_of
from test_polarised_scales import dust, emulator

from gen.checkpoint import save
from gen.cli import main
from gen.commands import apply_sky
from gen.data.sky_blend import Blend
from gen.data.sky_frames import TangentPlane
from gen.data.sky_map import SkyMap, read_sky, write_sky
from gen.data.sky_patches import cut
from gen.emulators.beams import beam, filtered
from gen.fields import Grid

NSIDE, RADIUS = 256, 7.0
CENTRE = np.array([math.cos(1.3), 0.0, math.sin(1.3)])


class Kept(Blend):
    """A blend that remembers itself."""

    last: Kept

    def map(self) -> np.ndarray:
        Kept.last = self
        return super().map()


def polarised() -> np.ndarray:
    """Bumps of 2.5 degrees, positive, a tenth of it polarised by E waves; NaN beyond a disc."""
    v = vectors_of(NSIDE)
    seen = v @ CENTRE > math.cos(math.radians(RADIUS))
    waves = sky_of_e(v[seen], 3000, 2.5)
    waves /= waves.std(1, keepdims=True)
    sky = np.full((3, len(v)), np.nan)
    total = 100 * np.exp(0.4 * waves[0])
    sky[:, seen] = np.stack([total, 0.1 * total * waves[1], 0.1 * total * waves[2]])
    return sky


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted checkpoint, a coarse sky, and the sky that the command makes of it."""
    folder = tmp_path_factory.mktemp("polarised")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gen.emulators.polarised_scales.ROUNDS", 1)
        made = emulator(summary_weight=0.0)
        made.fit(dust(12, 1))
        save(made.eval(), folder / "toy", "# toy\n")
        write_sky(folder / "coarse.fits", SkyMap(polarised(), "RING", "uK_RJ", "G", "IAU"), {}, {})
        patch.setattr(apply_sky, "Blend", Kept)
        command = f"apply {folder}/toy --coarse {folder}/coarse.fits --params slope=-3,lam=3,f_M=0.5 --seed 1"
        assert main([*command.split(), "--processes", "1", "-o", str(folder / "fine.fits")]) == 0
    return folder


def test_neighbours_make_nearly_the_same_q_and_u(folder: Path) -> None:
    """Had each its small scales in a frame of its own, their agreement near a pole would be lost."""
    assert Kept.last.agreement().min() > 0.6


def test_large_scales_are_kept_and_small_ones_added(folder: Path) -> None:
    """In a patch that is none of the cover's, deep inside, I, Q and U under the wide beam."""
    coarse_sky, made = (read_sky(folder / name, 3) for name in ("coarse.fits", "fine.fits"))
    assert made.convention == coarse_sky.convention == "IAU"
    plane = TangentPlane((float(CENTRE[0]), float(CENTRE[1]), float(CENTRE[2])), 72, 9.0)
    fine, coarse = (torch.from_numpy(cut(s.values, "RING", plane))[None] for s in (made, coarse_sky))
    wide = filtered(fine, beam(Grid((72, 72), 9.0, "deg", periodic=False), emulator().widening))
    deep = (..., slice(22, -22), slice(22, -22))
    scatter = coarse[deep].std((-2, -1))
    off = (wide - coarse)[deep].square().mean((-2, -1)).sqrt() / scatter
    assert float(off.max()) < 0.03
    assert float(((fine - coarse)[deep].std((-2, -1)) / scatter).min()) > 0.05
