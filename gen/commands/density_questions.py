"""The questions of ``evaluation.interrogate.densities`` are put to a map between densities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.interrogate import density_ball, density_saliency, density_symmetry, density_waves, universes
from evaluation.interrogate.asking import EMULATOR, UNTOLD
from evaluation.interrogate.densities import DensityInterrogation, Waves, document, headline
from evaluation.interrogate.density_page import page
from evaluation.interrogate.density_universes import DensityUniverse, judge
from evaluation.interrogate.interrogation import Answers
from gen.commands.density_laboratory import DRAWINGS, DensityLaboratory
from gen.commands.routes import SIGMA_8
from gen.emulators.counts import GalaxyCounts
from gen.emulators.super_resolution import SuperResolution
from gen.errors import InputError
from gen.noise import sample_generator

CELLS = 6
"""Whose saliency is taken, in each of ``LISTENED`` boxes."""
LISTENED = 2


def put(
    emulator: SuperResolution | GalaxyCounts,
    params: Mapping[str, float],
    steps: int,
    boxes: int,
    seed: int,
    about: Mapping[str, Any],
) -> Answers:
    """All questions, around the universe of ``params``, with what a page says of them.

    Raises:
        InputError: for a grid or a factor that cannot be simulated.
    """
    lab = DensityLaboratory(emulator, params, steps)
    said = {
        "redshift": lab.redshift,
        "kind": "galaxies" if isinstance(emulator, GalaxyCounts) else "finer run",
        "given_shape": list(lab.coarse.shape),
        "drawings": DRAWINGS,
    }
    provenance = {**about["provenance"], "truth": str(lab.source)}
    with tqdm(total=_count(lab, boxes), unit=" simulations", disable=None) as bar:
        found = ask(replace(lab, bar=bar), boxes, seed)
    numbers = document(found, {**about, **said, "provenance": provenance})
    return Answers(numbers, page(numbers, found), headline(found))


@torch.no_grad()
def ask(lab: DensityLaboratory, boxes: int, seed: int) -> DensityInterrogation:
    """All questions, the random ones over ``boxes`` boxes."""
    given, truth = lab.pairs(seed, boxes)
    maps = {name: lab.batched(of) for name, of in lab.drawings().items()}
    cells = torch.randint(
        lab.grid.shape[0], (CELLS, lab.grid.dim), generator=sample_generator(seed, 0, "cells")
    )
    with torch.enable_grad():
        saliency = density_saliency.ask(
            lab.means(seed), given[:LISTENED], cells.tolist(), lab.grid, lab.coarse
        )
    return DensityInterrogation(
        symmetry=density_symmetry.ask(maps, lab.inputs(given, seed), truth, lab.emulator.network.factor),
        saliency=saliency,
        waves=_waves(lab, seed) if _has_waves(lab) else None,
        universes=(_universe(lab, lab, given, truth, 1.0, seed), *_others(lab, boxes, seed)),
    )


def _others(lab: DensityLaboratory, boxes: int, seed: int) -> Iterator[DensityUniverse]:
    """Those other universes that can be simulated: halos of light particles alone are resolved."""
    for params, a in universes.around({"sigma_8": SIGMA_8, **lab.params}):
        there = replace(lab, params=params)
        try:
            given, truth = there.pairs(seed, boxes)
        except InputError:
            continue
        yield _universe(there, lab, given, truth, a, seed)


def _has_waves(lab: DensityLaboratory) -> bool:
    """Halos of plane waves are no halos, and waves in space have no slab."""
    return isinstance(lab.emulator, SuperResolution) and lab.grid.dim == 3


def _waves(lab: DensityLaboratory, seed: int) -> Waves:
    maps, grid, coarse = lab.wave_maps(seed), lab.grid, lab.coarse
    a = 1 / (1 + lab.redshift)
    return Waves(
        density_waves.ask(maps, grid, coarse),
        density_waves.cross(maps, grid, coarse),
        density_ball.ask(maps, lab.density, grid, coarse, lab.params["Omega_m"], a),
    )


def _universe(
    there: DensityLaboratory,
    middle: DensityLaboratory,
    given: Tensor,
    truth: Tensor,
    amplitude: float,
    seed: int,
) -> DensityUniverse:
    fields = there.answers(given, seed)
    fields[UNTOLD] = fields[EMULATOR] if there is middle else middle.answers(given, seed)[EMULATOR]
    params = {"sigma_8": SIGMA_8, **there.params}
    # where the given field ends, or in the middle of what there is
    split = there.grid.k_nyquist / max(2, there.family.factor)
    return judge(fields, truth, there.grid, split, params, amplitude, trained=there.trained, seed=seed)


def _count(lab: DensityLaboratory, boxes: int) -> int:
    """Simulations that are run, coarse ones beside fine ones not counted."""
    waves = density_waves.count(lab.coarse) + density_ball.count() if _has_waves(lab) else 0
    return waves + boxes * (len(universes.OMEGA_M) + len(universes.AMPLITUDE) - 1)
