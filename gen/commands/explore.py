"""``cosmozoo explore``: a sheet of an emulator's latent space, with numbers that say what the eye cannot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gen
from evaluation import plots
from evaluation.course import FEWEST, Course, FieldNumbers, standard_error
from gen.checkpoint import load
from gen.checkpoint_folder import read_config
from gen.commands.latent_walk import Explored, Sweep, Walk
from gen.emulators.base import Emulator
from gen.emulators.latent import ARITHMETIC, latent_space
from gen.errors import InputError
from gen.io.atomic import replacing
from gen.sampling import checked_device, parse_params

HEADINGS = (
    r"Interpolation over the sphere, from $a$ to $b$:  $\cos(\pi t/2)\,a + \sin(\pi t/2)\,b$",
    r"Arithmetic of latents;  $r$: correlation with the field on the right (of a linear map $\pm 0.58$)",
    "One parameter from low to high, the same latent",
)

MOST_PAIRS, MOST_STEPS = 24, 33  # on one sheet
SUM = ("$a$", "$b$", "$c$", r"$(a-b+c)/\sqrt{3}$")


def explore(options: argparse.Namespace) -> int:
    picture, numbers = _files(options.out, overwrite=options.overwrite)
    _check_counts(options.pairs, options.steps, options.paths)
    emulator = load(options.checkpoint).to(checked_device(options.device))
    latent_space(emulator)
    params = _one_row(options.params, emulator)
    emulator.space.check(params, extrapolate=options.extrapolate)
    walk = Walk(emulator, params, options.seed, FieldNumbers(emulator.grid))
    found = Explored.of(walk, options.paths, options.steps, (options.pairs, max(1, (options.steps + 1) // 5)))
    sheet = _sheet(found, emulator, _title(options, walk))
    document = _provenance(options, walk) | found.to_dict()
    with replacing(numbers, overwrite=options.overwrite) as staged:
        staged.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with replacing(picture, overwrite=options.overwrite) as staged:
        staged.write_bytes(plots.latent_sheet(sheet))
    for line in told(found):
        print(line)
    print(f"the sheet is {picture}, its numbers are {numbers}")
    return 0


def _files(out: Path, *, overwrite: bool) -> tuple[Path, Path]:
    """The picture and the numbers beside it, refused before any work is done."""
    if out.suffix.lower() != ".png":
        raise InputError(f"the name of the sheet must end in .png, got {out}")
    files = out, out.with_suffix(".json")
    for file in files:
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists already; give --overwrite to replace it, or another name")
    return files


def _check_counts(pairs: int, steps: int, paths: int) -> None:
    if not 1 <= pairs <= MOST_PAIRS:
        raise InputError(f"--pairs must be 1 to {MOST_PAIRS} paths to draw, got {pairs}")
    if not 3 <= steps <= MOST_STEPS or steps % 2 == 0:
        raise InputError(
            f"--steps must be odd, so that a path has a middle, and 3 to {MOST_STEPS}, got {steps}"
        )
    least = max(pairs, FEWEST)
    if paths < least:
        raise InputError(f"--paths must be at least {least} to draw {pairs} and to judge, got {paths}")


def _one_row(text: str | None, emulator: Emulator) -> Tensor:
    """Parameters ``(1, P)``; the middle of the trained range if none are given."""
    if text is None:
        return emulator.space.restore(torch.zeros(1, len(emulator.space), dtype=torch.float64))
    table = parse_params(text, emulator.space)
    if len(table) != 1:
        raise InputError(f"a sheet is made at one set of parameters, got {len(table)} rows; give one")
    return table


def _values(walk: Walk) -> dict[str, float]:
    return dict(zip(walk.emulator.space.names, walk.params[0].tolist(), strict=True))


def _provenance(options: argparse.Namespace, walk: Walk) -> dict[str, Any]:
    config = read_config(options.checkpoint)
    return {
        "checkpoint": options.checkpoint.resolve().name,
        "checkpoint_sha256": config["sha256"],
        "class": config["class"],
        "version": gen.__version__,
        "field": walk.emulator.field,
        "units": walk.emulator.unit,
        "params": _values(walk),
        "extrapolated": not bool(walk.emulator.space.inside(walk.params).all()),
        "seed": walk.seed,
        "latent_size": walk.latents(0, 1).shape[1],
    }


def _title(options: argparse.Namespace, walk: Walk) -> str:
    at = ", ".join(f"{plots.math_name(name)} = {value:g}" for name, value in _values(walk).items())
    parts = [plots.text(options.checkpoint.resolve().name), at, f"seed {options.seed}"]
    return "   ".join(part for part in parts if part)


def _labels(numbers: FieldNumbers) -> list[tuple[str, str]]:
    """Name and symbol of each number, in math text."""
    k, power = (r"$\ell$", r"$C_\ell$") if numbers.unit == "multipole" else ("$k$", "$P$")
    bands = [(f"{power}, {k} {_band(band)}", power) for band in numbers.bands]
    return [(r"std $\sigma$", r"$\sigma$"), ("skewness $S$", "$S$"), *bands]


def _band(band: tuple[float, float]) -> str:
    return " to ".join(f"{k:.0f}" if k >= 10 else f"{k:.2g}" for k in band)


def _sheet(found: Explored, emulator: Emulator, title: str) -> plots.Sheet:
    shown = found.paths.planes
    unit = "" if emulator.unit in ("", "1") else f" [{emulator.unit}]"
    steps = [f"$t$ = {t:.3g}" for t in np.linspace(0, 1, len(shown[0]))]
    return plots.Sheet(
        title=title,
        headings=(*HEADINGS, f"Along {len(found.circle.values)} paths", "Middle $-$ draws [scatter]"),
        paths=[
            plots.Row(
                rf"${2 * i} \to {2 * i + 1}$", list(planes), steps if i == 0 else (), plots.row_colour(i)
            )
            for i, planes in enumerate(shown)
        ],
        tracks=[_track(found, i, *label) for i, label in enumerate(_labels(found.numbers))],
        verdicts=(f"${_p(found.circle)}$", f"${_p(found.line)}$"),
        sums=[_sums(found)],
        sweeps=[_swept(sweep, _labels(found.numbers)) for sweep in found.sweeps],
        scale=plots.Scale.of(np.concatenate([*shown, *found.sums.planes])),
        bar=plots.text(emulator.field + unit),
    )


def _track(found: Explored, i: int, name: str, symbol: str) -> plots.Track:
    """The standard deviation and the powers over the mean of fresh draws, the skewness as it is."""
    draws = found.sums.draws[:, i]
    unit = 1.0 if i == 1 else draws.mean()
    circle, line = found.circle, found.line
    return plots.Track(
        name,
        symbol if i == 1 else rf"{symbol} / mean",
        (draws.mean() / unit, draws.std(ddof=1) / unit),
        circle.values[: len(found.paths.planes), :, i] / unit,
        circle.mean(i) / unit,
        line.mean(i) / unit,
        (_shift(circle.shift[i], circle.error[i]), _shift(line.shift[i], line.error[i])),
    )


def _shift(value: float, error: float) -> str:
    return f"{value:+.2f} ± {error:.2f}".replace("-", "−")


def _p(course: Course) -> str:
    return f"p = {course.p:.2g}" if course.p >= 1e-4 else "p < 0.0001"


def _sums(found: Explored) -> plots.Row:
    """The sums side by side in one row."""
    planes: list[np.ndarray | None] = []
    captions: list[str] = []
    for four, r in zip(found.sums.planes, found.sums.correlation, strict=False):
        gap = [None] if planes else []
        planes += [*gap, *four]
        named = [f"{name}   $r = {value:+.2f}$" for name, value in zip(SUM, r, strict=False)]
        captions += [*("" for _ in gap), *named, SUM[3]]
    return plots.Row("", planes, captions)


def _swept(sweep: Sweep, labels: list[tuple[str, str]]) -> plots.Sweep:
    name = plots.math_name(sweep.name)
    row = plots.Row(name, list(sweep.planes), [f"{value:.3g}" for value in sweep.values])
    over = sweep.numbers / sweep.numbers[len(sweep.values) // 2]
    ratios = {label: over[:, i] for i, (label, _) in enumerate(labels) if i != 1}
    return plots.Sweep(row, sweep.values, ratios, name)


def told(found: Explored) -> Iterator[str]:
    """The numbers on the terminal."""
    circle, line, n = found.circle, found.line, len(found.circle.values)
    symbol = "C_l, l" if found.numbers.unit == "multipole" else "P, k"
    names = ["std", "skewness", *(f"{symbol} {_band(band)}" for band in found.numbers.bands)]
    yield f"middle of {n} paths less {len(found.sums.draws)} fresh draws, means in scatters of one field:"
    yield f"{'':20}{'great circle':>16}{'straight line':>18}"
    for i, name in enumerate(names):
        yield f"{name:20}" + "".join(
            f"{_shift(course.shift[i], course.error[i]):>{width}}"
            for course, width in ((circle, 16), (line, 18))
        )
    for name, course in (("great circles", circle), ("straight lines", line)):
        yield f"{name}: {course.verdict} ({_p(course)})"
    r, error = found.sums.correlation.mean(0), standard_error(found.sums.correlation)
    said = ", ".join(f"{x:+.3f} ± {e:.3f} with {k}" for x, e, k in zip(r, error, "abc", strict=True))
    yield f"field of (a - b + c)/sqrt(3): correlation {said}; of a linear map ±{ARITHMETIC[0]:.3f}"
    common, error = found.sums.unrelated.mean(), standard_error(found.sums.unrelated)
    yield f"fields of unrelated latents: correlation {common:+.3f} ± {error:.3f}"
