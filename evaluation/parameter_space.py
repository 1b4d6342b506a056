"""Errors over the space of parameters: at which cosmologies are samples wrong, and how far from training?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.base import Measured
from evaluation.compare import scatter_scale
from evaluation.floor import Floor, rms
from evaluation.power import PowerSpectrum
from evaluation.resampling import Boxes
from evaluation.residuals import standard_error
from evaluation.variance import Side
from gen.fields import Grid

EXCESS = ("pdf", "peaks", "V2")
Limits = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class CosmologyError:
    """What is wrong at one set of parameters.

    power_error: largest |P_samples / P_real - 1| of the judged bins, with its standard error.
    excess: by statistic, the distance to real maps in units of real against real.
    distance: to the nearest training cosmology, in units of the parameters' range; None if not known.
    """

    params: tuple[float, ...]
    power_error: float
    power_error_std: float
    excess: Mapping[str, float]
    distance: float | None


def cosmology_errors(
    real: Mapping[str, Measured],
    made: Mapping[str, Measured],
    params: np.ndarray,
    grid: Grid,
    training_params: np.ndarray | None,
    limits: Limits | None,
    k_max: float,
    seed: int = 0,
) -> list[CosmologyError]:
    """Errors at every set of parameters by itself.

    Args:
        real, made: statistics by name, "power" among them; each set of parameters may have bins of its own.
        params: ``(n_strata, P)`` in the order of the sorted strata.
        training_params: ``(n, P)``, if known; limits: lowest and highest parameters, the unit of distances,
            by default those of ``training_params``.
        k_max: end of the judged power spectrum, in units of the Nyquist wavenumber.
    """
    strata = np.unique(real["power"].stratum)
    distance = distances(params, training_params, limits)
    n_bins = real["power"].vectors.shape[1]
    k = PowerSpectrum(grid).abscissa[:n_bins]  # fewer where a beam ends them
    judged = k <= k_max * grid.k_nyquist * (1 + 1e-9)
    judged = judged if len(k) == n_bins and judged.any() else slice(None)
    found = []
    for i, s in enumerate(strata):
        here = {
            key: (real[key].select(real[key].stratum == s), made[key].select(made[key].stratum == s))
            for key in ("power", *EXCESS)
            if key in real and key in made
        }
        error, std = _power_error(*here["power"], judged)
        excess = {key: _excess(*pair, seed) for key, pair in here.items() if key in EXCESS}
        found.append(CosmologyError(tuple(map(float, params[i])), error, std, excess, distance[i]))
    return found


def distances(
    params: np.ndarray,
    training_params: np.ndarray | None,
    limits: Limits | None,
) -> list[float | None]:
    """Of every row to the nearest training cosmology, sqrt(sum ((t - t') / range)^2)."""
    if training_params is None or not len(training_params) or not params.shape[1]:
        return [None] * len(params)
    low, high = limits if limits is not None else (training_params.min(0), training_params.max(0))
    span = np.asarray(high, float) - np.asarray(low, float)
    apart = (params[:, None] - training_params[None]) / np.where(span > 0, span, 1.0)
    return [float(x) for x in np.sqrt((apart**2).sum(2)).min(1)]


def _power_error(real: Measured, made: Measured, judged: np.ndarray | slice) -> tuple[float, float]:
    mean = real.vectors.mean(0)[judged]
    error = np.abs(made.vectors.mean(0)[judged] / mean - 1)
    std = np.hypot(_error_of_mean(real), _error_of_mean(made))[judged] / np.abs(mean)
    worst = int(error.argmax())
    return float(error[worst]), float(std[worst])


def _error_of_mean(m: Measured) -> np.ndarray:
    boxes = Boxes.of(m.simulation, np.zeros(len(m), int), 1).single_box_strata_as_maps()
    return standard_error(Measured(m.vectors, boxes.box, m.stratum))


def _excess(real: Measured, made: Measured, seed: int) -> float:
    """As of ``compare``."""
    a, b = (Side.of(m, np.zeros(len(m), int), 1) for m in (real, made))
    with np.errstate(divide="ignore", invalid="ignore"):  # bins without scatter are left out
        floor = Floor.of(a, b, scatter_scale(a), seed)
        return float(rms((b.mean() - a.mean())[0] / floor.scale[0])) / floor.distance
