"""Other universes: what is left of an emulator's accuracy away from where it was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evaluation.interrogate.asking import SECOND_ORDER, TRUTH
from evaluation.paired import mean_length
from evaluation.pairs import PairedPower
from evaluation.power import PowerSpectrum
from gen.fields import Grid

OMEGA_M = (0.1, 0.2, 0.3, 0.4, 0.5)
AMPLITUDE = (0.2, 0.8, 1.0, 1.2, 1.8)
"""A_s over that of the middle; sigma_8 goes with its root (He et al. 2019, arXiv:1811.06533)."""


@dataclass(frozen=True, eq=False)
class Errors:
    """One map in one universe; means over boxes with standard errors.

    Args:
        position: mean distance of particles from the simulation's [Mpc/h].
        over_second: that over 2LPT's in the same boxes, ratio of means.
        transfer, stochasticity: T(k) and 1 - r^2(k) of the density, ``(n_bins,)``, bootstrap errors.
    """

    position: float
    position_error: float
    over_second: float
    over_second_error: float
    transfer: np.ndarray
    transfer_error: np.ndarray
    stochasticity: np.ndarray
    stochasticity_error: np.ndarray


@dataclass(frozen=True, eq=False)
class Universe:
    """What was found at one set of parameters.

    Args:
        params: by name; amplitude: A_s over the middle's.
        trained: whether the emulator's range of training holds it.
        displacement: mean length of the simulation's displacement [Mpc/h].
        k: of the shells [h/Mpc].
        errors: by map.
    """

    params: dict[str, float]
    amplitude: float
    trained: bool
    boxes: int
    displacement: float
    k: np.ndarray
    errors: dict[str, Errors]


def around(middle: Mapping[str, float]) -> Iterator[tuple[dict[str, float], float]]:
    """Parameters of the universes of ``OMEGA_M`` and ``AMPLITUDE`` but the middle, and A_s over its own."""
    for value in OMEGA_M:
        if value != middle["Omega_m"]:
            yield {**middle, "Omega_m": value}, 1.0
    for a in AMPLITUDE:
        if a != 1:
            yield {**middle, "sigma_8": middle["sigma_8"] * a**0.5}, a


def judge(
    fields: Mapping[str, Tensor],
    density: Callable[[Tensor], Tensor],
    grid: Grid,
    params: Mapping[str, float],
    amplitude: float,
    *,
    trained: bool,
    seed: int = 0,
) -> Universe:
    """Errors of displacements ``(B, 3, n, n, n)`` [Mpc/h] of B boxes, ``TRUTH`` and 2LPT among them.

    Args:
        fields: by map.
        density: 1 + delta ``(B, 1, n, n, n)`` of displaced particles.
        grid: periodic cube.
        params, amplitude, trained: of ``Universe``.
        seed: of the bootstrap.
    """
    truth = fields[TRUTH]
    spectrum = PowerSpectrum(grid)
    true_density = density(truth)
    true_power = spectrum(true_density).numpy()
    distance = {name: mean_length(x - truth) for name, x in fields.items()}
    errors = {}
    for name, x in fields.items():
        if name == TRUTH:
            continue
        made = density(x)
        pairs = PairedPower.of_boxes(
            spectrum(made).numpy(), true_power, spectrum.cross(made, true_density).numpy()
        )
        transfer, stochasticity = pairs.transfer(seed=seed), pairs.stochasticity(seed=seed)
        errors[name] = Errors(
            *_mean(distance[name]),
            *_ratio(distance[name], distance[SECOND_ORDER]),
            transfer.mean,
            transfer.std,
            stochasticity.mean,
            stochasticity.std,
        )
    return Universe(
        dict(params),
        amplitude,
        trained,
        len(truth),
        float(mean_length(truth).mean()),
        spectrum.abscissa,
        errors,
    )


def _mean(x: np.ndarray) -> tuple[float, float]:
    return float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5)


def _ratio(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Of means of pairs, its error by the linearised residuals."""
    ratio = a.mean() / b.mean()
    return float(ratio), float((a - ratio * b).std(ddof=1) / b.mean() / len(a) ** 0.5)
