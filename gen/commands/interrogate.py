"""``cosmozoo interrogate``: questions with known answers to an emulator of displacements, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

import gen
from evaluation.interrogate import collapse, coupling, saliency, symmetry, transverse, universes, waves
from evaluation.interrogate.asking import EMULATOR, UNTOLD, check_cube
from evaluation.interrogate.interrogation import Interrogation, document, headline, write
from evaluation.interrogate.page import page
from gen.checkpoint import load
from gen.checkpoint_folder import read_config
from gen.commands.laboratory import SIGMA_8, Laboratory, check_emulator, untold
from gen.emulators.displacement import Displacement
from gen.emulators.refinement import Refinement
from gen.errors import InputError
from gen.noise import sample_generator
from gen.sampling import checked_device, parse_params

MIDDLE = {"Omega_m": 0.3, "sigma_8": SIGMA_8, "z": 0.0}
FRAMES = 2
"""Boxes that are turned and shifted."""
PARTICLES = 3
"""Whose saliency is taken, in each of ``FRAMES`` boxes."""


def interrogate(options: argparse.Namespace) -> int:
    emulator = check_emulator(load(options.checkpoint), str(options.checkpoint))
    check_cube(emulator.grid)
    params = _params(options.params, emulator)
    if options.boxes < 2 or options.steps < 1 or options.seed < 0:
        raise InputError(
            f"--boxes must be at least 2 to have errors, --steps at least 1 and --seed not negative, got "
            f"{options.boxes}, {options.steps} and {options.seed}"
        )
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out} is a file; give a folder for the page with -o")
    emulator.to(checked_device(options.device)).requires_grad_(False)
    emulator.eval()
    with tqdm(total=_count(emulator, options.boxes), unit=" displacements", disable=None) as bar:
        found = ask(Laboratory(emulator, params, options.steps, bar), options.boxes, options.seed)
    numbers = document(found, _about(options, emulator, params))
    write(options.out, numbers, page(numbers, found))
    for line in told(found):
        print(line)
    print(f"the page is {options.out / 'index.html'}, its numbers are {options.out / 'interrogation.json'}")
    return 0


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
            transverse.shear(maps, grid),
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
    fields[UNTOLD] = fields[EMULATOR] if there is middle else untold(middle, there)(psi)
    params = {"sigma_8": SIGMA_8, **there.params}
    found = universes.judge(
        fields, there.density, there.emulator.grid, params, amplitude, trained=there.trained, seed=seed
    )
    return found, fields


def _others(lab: Laboratory) -> Iterator[tuple[Laboratory, float]]:
    """Universes of other densities and amplitudes, and A_s over the middle's."""
    sigma_8 = lab.cosmology.sigma_8
    for value in universes.OMEGA_M:
        if value != lab.params["Omega_m"]:
            yield replace(lab, params={**lab.params, "Omega_m": value}), 1.0
    for a in universes.AMPLITUDE:
        if a != 1:
            yield replace(lab, params={**lab.params, "sigma_8": sigma_8 * a**0.5}), a


def _params(text: str | None, emulator: Displacement | Refinement) -> dict[str, float]:
    """The middle universe by name."""
    names = emulator.space.names
    unknown = [name for name in names if name not in MIDDLE]
    if unknown:
        raise InputError(
            f"interrogate knows universes of {', '.join(MIDDLE)}, this emulator also asks for "
            f"{', '.join(unknown)}"
        )
    space = emulator.space
    table = space.table({name: MIDDLE[name] for name in names}) if text is None else parse_params(text, space)
    if len(table) != 1:
        raise InputError(f"questions are asked around one set of parameters, got {len(table)} rows; give one")
    if not space.inside(table).all():
        ends = zip(names, table[0].tolist(), space.low, space.high, strict=True)
        told = ", ".join(f"{name} = {x:g} of [{a:g}, {b:g}]" for name, x, a, b in ends)
        raise InputError(
            f"the middle universe is outside the trained range: {told}; give another by --params"
        )
    return dict(zip(names, table[0].tolist(), strict=True))


def _count(emulator: Displacement | Refinement, boxes: int) -> int:
    """Displacements that all maps are asked for."""
    grid = emulator.grid
    each = waves.count(grid) + coupling.count(grid) + collapse.count() + FRAMES * PARTICLES
    frames = FRAMES * (4 * symmetry.count(emulator.network.factor) + 3) + 4
    others = len(universes.OMEGA_M) + len(universes.AMPLITUDE) - 2
    return 4 * each + frames + 3 + boxes * (4 + 5 * others)


def _about(
    options: argparse.Namespace, emulator: Displacement | Refinement, params: Mapping[str, float]
) -> dict[str, Any]:
    config = read_config(options.checkpoint)
    space = emulator.space
    return {
        "checkpoint": options.checkpoint.resolve().name,
        "grid": emulator.grid.to_dict(),
        "params": dict(params),
        "redshift": params.get("z", emulator.redshift),
        "trained": {n: [a, b] for n, a, b in zip(space.names, space.low, space.high, strict=True)},
        "boxes": options.boxes,
        "coarse_factor": emulator.factor if isinstance(emulator, Refinement) else None,
        "provenance": {
            "version": gen.__version__,
            "class": config["class"],
            "sha256": config["sha256"],
            "weights": config.get("n_parameters"),
            "recipe": config.get("provenance", {}).get("recipe"),
            "seed": options.seed,
            "particle mesh": f"{options.steps} steps, 2 mesh cells a particle along an axis",
        },
    }


def told(found: Interrogation) -> Iterator[str]:
    """The headline on the terminal."""
    for line in headline(found):
        shown = ", ".join(
            f"{name} {value:.3g}" + (f" ± {error:.2g}" if error else "")
            for name, (value, error) in line.values.items()
            if value == value
        )
        yield f"{line.question}{f' [{line.unit}]' if line.unit else ''}: {shown}"
