"""The questions of ``evaluation.interrogate`` are put to a map between fields of particles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from evaluation.interrogate import collapse, coupling, saliency, symmetry, transverse, universes, waves
from evaluation.interrogate.asking import EMULATOR, UNTOLD, check_cube
from evaluation.interrogate.interrogation import Answers, Interrogation, document, headline
from evaluation.interrogate.page import page
from gen.commands.laboratory import Laboratory
from gen.commands.routes import SIGMA_8, redshift
from gen.emulators.displacement import Displacement
from gen.emulators.field_map import FieldMap
from gen.noise import sample_generator

FRAMES = 2
"""Boxes that are turned and shifted."""
PARTICLES = 3
"""Whose saliency is taken, in each of ``FRAMES`` boxes."""


def put(
    emulator: Displacement | FieldMap,
    params: Mapping[str, float],
    steps: int,
    boxes: int,
    seed: int,
    about: Mapping[str, Any],
) -> Answers:
    """All questions, around the universe of ``params``, with what a page says of them.

    Raises:
        InputError: for a grid that is no periodic cube, or a map that cannot be asked.
    """
    check_cube(emulator.grid)
    lab = Laboratory(emulator, params, steps)
    said = {"redshift": redshift(emulator, params), "asked": lab.route.said}
    with tqdm(total=_count(lab, boxes), unit=" displacements", disable=None) as bar:
        found = ask(replace(lab, bar=bar), boxes, seed)
    numbers = document(found, {**about, **said})
    return Answers(numbers, page(numbers, found), headline(found))


def ask(lab: Laboratory, boxes: int, seed: int) -> Interrogation:
    """All questions, the random ones over ``boxes`` boxes."""
    grid, maps = lab.emulator.grid, lab.maps()
    middle, here = _universe(lab, lab, 1.0, boxes, seed)
    psi = lab.boxes(seed, FRAMES)
    generator = sample_generator(seed, 0, "particles")
    particles = [
        tuple(row) for row in torch.randint(grid.shape[0], (PARTICLES, 3), generator=generator).tolist()
    ]
    return Interrogation(
        waves=waves.ask(maps, grid),
        coupling=coupling.ask(maps, grid, lab.second_growth),
        transverse=transverse.Transverse(
            *transverse.measure({k: v for k, v in here.items() if k != UNTOLD}, grid, seed),
            transverse.SHEAR,
            transverse.shear(maps, grid, lab.blind_to_shear),
        ),
        collapse=collapse.ask(maps, grid, lab.params["Omega_m"], lab.a),
        saliency=saliency.ask(maps, psi, particles, grid),
        universes=(middle, *(_universe(there, lab, a, boxes, seed)[0] for there, a in _others(lab))),
        symmetry=symmetry.ask(maps, psi, grid, lab.emulator.network.factor),
    )


def _universe(
    there: Laboratory, middle: Laboratory, amplitude: float, boxes: int, seed: int
) -> tuple[universes.Universe, Mapping[str, torch.Tensor]]:
    psi = there.boxes(seed, boxes)
    fields = {name: of(psi) for name, of in there.maps().items()}
    fields[UNTOLD] = fields[EMULATOR] if there is middle else middle.untold(there)(psi)
    params = {"sigma_8": SIGMA_8, **there.params}
    found = universes.judge(
        fields, there.density, there.emulator.grid, params, amplitude, trained=there.trained, seed=seed
    )
    return found, fields


def _others(lab: Laboratory) -> Iterator[tuple[Laboratory, float]]:
    """Universes of other densities and amplitudes, and A_s over the middle's."""
    for params, a in universes.around({"sigma_8": SIGMA_8, **lab.params}):
        yield replace(lab, params=params), a


def _count(lab: Laboratory, boxes: int) -> int:
    """Displacements that all maps are asked for."""
    grid, maps, factor = lab.emulator.grid, len(lab.names), lab.emulator.network.factor
    each = waves.count(grid) + coupling.count(grid) + collapse.count() + FRAMES * PARTICLES
    frames = FRAMES * (maps * symmetry.count(factor) + maps - 1) + maps
    others = len(universes.OMEGA_M) + len(universes.AMPLITUDE) - 2
    sheared = maps - 1 - sum(name in lab.names for name in lab.blind_to_shear)
    return maps * each + frames + sheared + boxes * (maps + (maps + 1) * others)
