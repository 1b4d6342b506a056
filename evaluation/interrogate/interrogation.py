"""All answers together, as one record, its headline and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.interrogate.asking import TRUTH
from evaluation.interrogate.collapse import Collapse
from evaluation.interrogate.coupling import Coupling
from evaluation.interrogate.saliency import Saliency
from evaluation.interrogate.symmetry import Symmetry
from evaluation.interrogate.transverse import Transverse
from evaluation.interrogate.universes import Universe
from evaluation.interrogate.waves import PlaneWaves
from evaluation.plain import plain
from gen.io.atomic import replacing

FORMAT = 1
Value = tuple[float, float | None]


@dataclass(frozen=True, eq=False)
class Interrogation:
    """What an emulator answered; ``universes`` holds the middle first."""

    waves: PlaneWaves
    coupling: Coupling
    transverse: Transverse
    collapse: Collapse
    saliency: Saliency
    universes: tuple[Universe, ...]
    symmetry: Symmetry

    @property
    def names(self) -> tuple[str, ...]:
        """Of the maps that were asked, the truth last."""
        return tuple(self.waves.asked)


@dataclass(frozen=True)
class Line:
    """One row of the headline: a number for each map, with an error where there is one."""

    question: str
    unit: str
    values: dict[str, Value]


@dataclass(frozen=True, eq=False)
class Answers:
    """All that is told of an interrogation: what goes into the two files, and the headline."""

    numbers: dict[str, Any]
    html: str
    headline: list[Line]


def headline(found: Interrogation) -> list[Line]:
    """The numbers that a reader wants first."""
    coupling, across, reach = found.coupling, found.transverse.transverse, found.saliency
    small = int(np.argmin(np.abs(coupling.amplitudes - 0.3)))
    sums = {name: float(x[:, small].mean()) for name, x in coupling.sum_wave.items()}
    shell = len(across.k) // 2
    broken = {name: float(np.nanmax(x)) for name, x in found.symmetry.broken.items()}
    return [
        *_accuracy(found),
        *_waves(found.waves),
        _line(f"two waves of A = {coupling.amplitudes[small]:g}: their sum wave over second order", "", sums),
        Line(
            f"transverse power of displacements at k = {across.k[shell]:.2g} h/Mpc, over the particle mesh's",
            "",
            _with_errors(across.ratio, across.ratio_error, shell),
        ),
        _ball(found.collapse),
        Line(
            "radius that holds half of the saliency beyond linear theory",
            "Mpc/h",
            _with_errors(reach.reach, reach.reach_error, 0),
        ),
        _line("largest of all equivariance errors, rms", "Mpc/h", broken),
    ]


def _waves(found: PlaneWaves) -> list[Line]:
    before = found.amplitudes < 1

    def percent(key: str, which: np.ndarray) -> dict[str, float]:
        return {name: 100 * float(getattr(x, key)[:, which].mean()) for name, x in found.asked.items()}

    unit = "% of the wave"
    return [
        _line(
            "plane waves before crossing: rms from the exact solution", unit, percent("from_exact", before)
        ),
        _line("plane waves after crossing: rms from the particle mesh", unit, percent("from_truth", ~before)),
        _line("plane waves before crossing: what symmetry forbids", unit, percent("leakage", before)),
    ]


def _ball(found: Collapse) -> Line:
    """The larger ball of linear density nearest to 1."""
    row = len(found.radius) - 1
    at = int(np.argmin(np.abs(found.density[row] - 1)))
    over = {name: 100 * (float(y[row, at] / found.exact[row, at]) - 1) for name, y in found.ratio.items()}
    density = found.density[row, at]
    return _line(f"ball of linear density {density:.2g}: radius over spherical collapse, less 1", "%", over)


def _accuracy(found: Interrogation) -> list[Line]:
    middle, *others = found.universes
    names = [name for name in found.names if name != TRUTH]
    kinds = {
        "random boxes, the middle universe": [middle],
        "random boxes, the others inside the trained range": [u for u in others if u.trained],
        "random boxes, outside of it": [u for u in others if not u.trained],
    }
    lines = []
    for what, universes in kinds.items():
        if not universes:
            continue
        values: dict[str, Value] = {
            name: (
                float(np.mean([u.errors[name].position for u in universes])),
                # boxes share their phases between universes: their errors do not average out
                float(np.mean([u.errors[name].position_error for u in universes])),
            )
            for name in names
        }
        lines.append(Line(f"{what}: mean position error", "Mpc/h", values))
    return lines


def _line(question: str, unit: str, values: Mapping[str, float]) -> Line:
    return Line(question, unit, {name: (x, None) for name, x in values.items()})


def _with_errors(
    values: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray], i: int
) -> dict[str, Value]:
    return {name: (float(x[i]), float(errors[name][i])) for name, x in values.items()}


def document(found: Interrogation, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    lines = [asdict(line) for line in headline(found)]
    return plain({"format": FORMAT, **about, "headline": lines, "answers": asdict(found)})


def write(out: Path, numbers: Mapping[str, Any], html: str) -> None:
    """``interrogation.json`` and ``index.html`` in a folder, both or neither."""
    text = json.dumps(numbers, indent=1, allow_nan=False)
    with (
        replacing(out / "interrogation.json", overwrite=True) as data,
        replacing(out / "index.html", overwrite=True) as readable,
    ):
        data.write_text(text + "\n", encoding="utf-8")
        readable.write_text(html, encoding="utf-8")
