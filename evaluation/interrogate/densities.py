"""The interrogation of a map between densities, as one record, with its headline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.interrogate.asking import TRUTH
from evaluation.interrogate.density_ball import DensityBall
from evaluation.interrogate.density_saliency import DensitySaliency
from evaluation.interrogate.density_symmetry import DensitySymmetry
from evaluation.interrogate.density_universes import DensityUniverse
from evaluation.interrogate.density_waves import DensityCoupling, DensityWaves
from evaluation.interrogate.interrogation import FORMAT, Line, Value
from evaluation.plain import plain

GAUSSIAN, INTERPOLATION, BY_DENSITY = "Gaussian modes", "interpolation", "density alone"
"""What stands beside an emulator of a finer run, and beside one of galaxies."""


@dataclass(frozen=True, eq=False)
class Waves:
    """The questions that have particle-mesh runs of waves for their truth."""

    single: DensityWaves
    crossed: DensityCoupling
    ball: DensityBall


@dataclass(frozen=True, eq=False)
class DensityInterrogation:
    """What an emulator answered; ``universes`` holds the middle first, ``waves`` is None if not asked."""

    symmetry: DensitySymmetry
    saliency: DensitySaliency
    waves: Waves | None
    universes: tuple[DensityUniverse, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the maps that were asked, the truth last if it is one of them."""
        return (*self.symmetry.error, *((TRUTH,) if self.waves is not None else ()))


def headline(found: DensityInterrogation) -> list[Line]:
    """The numbers that a reader wants first."""
    reach = found.saliency
    broken: dict[str, Value] = {name: (float(x.max()), None) for name, x in found.symmetry.broken.items()}
    return [
        *_accuracy(found),
        *(_waves(found.waves) if found.waves is not None else ()),
        *(
            Line(
                f"radius that holds {share} of the saliency",
                "Mpc/h",
                {name: (float(x[i]), float(reach.reach_error[name][i])) for name, x in reach.reach.items()},
            )
            for i, share in enumerate(("half", "90 %"))
        ),
        Line("largest of all equivariance errors, over the rms error", "", broken),
    ]


def _accuracy(found: DensityInterrogation) -> list[Line]:
    middle, *others = found.universes
    names = list(found.symmetry.error)
    lines = []
    for i, band in enumerate(("long", "short")):
        for key, what in (("transfer", "amplitudes over the truth's, T"), ("coherence", "phases, r")):
            values: dict[str, Value] = {
                name: (
                    float(getattr(middle.errors[name], key)[i]),
                    float(getattr(middle.errors[name], f"{key}_error")[i]),
                )
                for name in names
            }
            lines.append(Line(f"random boxes, the middle universe, {band} waves: {what}", "", values))
    for what, rows in (
        ("inside the trained range", [u for u in others if u.trained]),
        ("outside of it", [u for u in others if not u.trained]),
    ):
        if rows:
            worst: dict[str, Value] = {
                name: (100 * float(max(abs(u.errors[name].transfer[1] - 1) for u in rows)), None)
                for name in names
            }
            lines.append(Line(f"the other universes {what}, short waves: largest |T - 1|", "%", worst))
    return lines


def _waves(found: Waves) -> list[Line]:
    single, crossed, ball = found.single, found.crossed, found.ball
    at = int(np.argmin(np.abs(single.amplitudes - 0.5)))
    both = int(np.argmin(np.abs(crossed.amplitudes - 0.5)))

    def harmonic(h: int) -> dict[str, Value]:
        return {name: (float(np.nanmean(x[:, at, h])), None) for name, x in single.ratio.items()}

    row = len(ball.radius) - 1
    top = int(np.argmin(np.abs(ball.density[row] - 1)))
    centre: dict[str, Value] = {
        name: (float(x[row, top] / ball.exact[row, top]), float(ball.central_error[name][row, top]) or None)
        for name, x in ball.central.items()
    }
    return [
        Line("plane waves of A = 0.5: the wave over the particle mesh's", "", harmonic(0)),
        Line("plane waves of A = 0.5: the first harmonic over the particle mesh's", "", harmonic(1)),
        Line(
            "two waves of A = 0.5: their sum wave over the particle mesh's",
            "",
            {name: (float(x[:, both].mean()), None) for name, x in crossed.sum_wave.items()},
        ),
        Line(
            f"ball of linear density {ball.density[row, top]:.2g}: central density over spherical collapse",
            "",
            centre,
        ),
    ]


def document(found: DensityInterrogation, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    lines = [asdict(line) for line in headline(found)]
    return plain({"format": FORMAT, **about, "headline": lines, "answers": asdict(found)})
