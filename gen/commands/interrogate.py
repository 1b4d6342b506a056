"""``cosmozoo interrogate``: questions with known answers to a map from fields to fields, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gen
from evaluation.interrogate.interrogation import Line, write
from gen.checkpoint import load
from gen.checkpoint_folder import read_config
from gen.commands import density_questions, displacement_questions
from gen.commands.laboratory import check_emulator
from gen.commands.routes import SIGMA_8
from gen.emulators.base import Emulator
from gen.emulators.counts import GalaxyCounts
from gen.emulators.super_resolution import SuperResolution
from gen.errors import InputError
from gen.sampling import checked_device, parse_params

MIDDLE = {"Omega_m": 0.3, "sigma_8": SIGMA_8, "z": 0.0, "m_nu": 0.3}
"""Of universes, where the trained range holds it; else the middle of the range."""


def interrogate(options: argparse.Namespace) -> int:
    loaded = load(options.checkpoint)
    of_densities = isinstance(loaded, SuperResolution | GalaxyCounts)
    emulator = loaded if of_densities else check_emulator(loaded, str(options.checkpoint))
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
    about = _about(options, emulator, params)
    asked = params, options.steps, options.boxes, options.seed, about
    if isinstance(emulator, SuperResolution | GalaxyCounts):
        answers = density_questions.put(emulator, *asked)
    else:
        answers = displacement_questions.put(emulator, *asked)
    write(options.out, answers.numbers, answers.html)
    for line in told(answers.headline):
        print(line)
    print(f"the page is {options.out / 'index.html'}, its numbers are {options.out / 'interrogation.json'}")
    return 0


def _params(text: str | None, emulator: Emulator) -> dict[str, float]:
    """The middle universe by name."""
    space = emulator.space
    unknown = [name for name in space.names if name not in MIDDLE]
    if unknown:
        raise InputError(
            f"interrogate knows universes of {', '.join(MIDDLE)}, this emulator also asks for "
            f"{', '.join(unknown)}"
        )
    if "Omega_m" not in space.names:
        raise InputError(
            f"interrogate changes Omega_m, this emulator asks for {', '.join(space.names) or 'nothing'}"
        )
    ends = list(zip(space.names, space.low, space.high, strict=True))
    usual = {n: MIDDLE[n] if low <= MIDDLE[n] <= high else (low + high) / 2 for n, low, high in ends}
    table = space.table(usual) if text is None else parse_params(text, space)
    if len(table) != 1:
        raise InputError(f"questions are asked around one set of parameters, got {len(table)} rows; give one")
    if not space.inside(table).all():
        told = ", ".join(
            f"{name} = {x:g} of [{low:g}, {high:g}]"
            for (name, low, high), x in zip(ends, table[0].tolist(), strict=True)
        )
        raise InputError(
            f"the middle universe is outside the trained range: {told}; give another by --params"
        )
    return dict(zip(space.names, table[0].tolist(), strict=True))


def _about(options: argparse.Namespace, emulator: Emulator, params: Mapping[str, float]) -> dict[str, Any]:
    config = read_config(options.checkpoint)
    space = emulator.space
    return {
        "checkpoint": options.checkpoint.resolve().name,
        "grid": emulator.grid.to_dict(),
        "params": dict(params),
        "trained": {n: [a, b] for n, a, b in zip(space.names, space.low, space.high, strict=True)},
        "boxes": options.boxes,
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


def told(headline: Sequence[Line]) -> Iterator[str]:
    """The headline on the terminal."""
    for line in headline:
        shown = ", ".join(
            f"{name} {value:.3g}" + (f" ± {error:.2g}" if error else "")
            for name, (value, error) in line.values.items()
            if value == value
        )
        yield f"{line.question}{f' [{line.unit}]' if line.unit else ''}: {shown}"
