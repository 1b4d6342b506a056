"""How a statistic answers to the parameters, in samples and in real fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from evaluation.base import Measured
from evaluation.ks import Sides, permutation_p
from evaluation.resampling import Boxes, bootstrap_weights, common_strata
from gen.errors import InputError


@dataclass(frozen=True, eq=False)
class Response:
    """d statistic / d parameter at the middle of the judged parameters, ``(P, n_bins)`` unless told.

    reference, samples: the derivatives, with bootstrap errors over simulations (``_std``).
    slope: ``(P,)`` the samples' derivative as a multiple of the reference's, over all bins, each weighted by
        the inverse square of its error: 1 of an emulator that answers as the simulations do, 0 of one that
        ignores the parameter. It is sum w r m / sum w (r^2 - var r), which the noise of the reference's
        derivative r does not draw to zero; NaN where that derivative is all noise.
    p: probability of so large a difference of any derivative under equal laws, by permutation of simulations
        inside each set of parameters.
    level: ``(n_bins,)`` the reference's statistic at ``middle``.
    """

    parameters: tuple[str, ...]
    middle: np.ndarray  # (P,)
    level: np.ndarray
    reference: np.ndarray
    reference_std: np.ndarray
    samples: np.ndarray
    samples_std: np.ndarray
    slope: np.ndarray
    slope_std: np.ndarray
    p: float
    residual: np.ndarray = field(repr=False)  # (samples - reference) over its error

    def to_dict(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def response(
    reference: Measured,
    samples: Measured,
    params: np.ndarray,
    names: tuple[str, ...],
    *,
    n_bootstrap: int = 500,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Response:
    """Derivatives from a quadratic polynomial in the parameters, fitted to the means at each of their sets.

    Where there are too few sets for a quadratic it is linear, the same for both sides.

    Args:
        reference, samples: vectors at the same sets of parameters (strata).
        params: ``(n_strata, P)`` in the order of the sorted strata.

    Raises:
        InputError: for fewer than P + 2 sets of parameters, or sets that lie on a line.
    """
    stratum_a, stratum_b, n_strata = common_strata(reference, samples)
    fit, middle = _polynomial(params, names, n_strata)
    rng = np.random.default_rng([seed, 2])
    sides = []
    for m, stratum in ((reference, stratum_a), (samples, stratum_b)):
        boxes = Boxes.of(m.simulation, stratum, n_strata).single_box_strata_as_maps()
        weights = np.concatenate([np.ones((1, boxes.n_boxes)), bootstrap_weights(boxes, n_bootstrap, rng)])
        sides.append(np.einsum("ps,rsb->rpb", fit, boxes.means(m.vectors, weights)))
    level = sides[0][0, 0]
    real, made = (side[:, 1:] for side in sides)
    noise = real[1:].var(0)
    error = np.sqrt(noise + made[1:].var(0))
    weight = np.where(error > 0, 1 / np.where(error > 0, error, 1) ** 2, 0)
    return Response(
        parameters=names,
        middle=middle,
        level=level,
        reference=real[0],
        reference_std=np.sqrt(noise),
        samples=made[0],
        samples_std=made[1:].std(0),
        slope=_slope(real[0], made[0], noise, weight),
        # a resampled derivative carries its noise once more than the derivative itself
        slope_std=half_width(_slope(real[1:], made[1:], 2 * noise, weight)),
        p=_probability(reference, samples, fit[1:], error, n_permutations, seed),
        residual=np.divide(made[0] - real[0], error, out=np.zeros_like(error), where=error > 0),
    )


def _slope(real: np.ndarray, made: np.ndarray, noise: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``(..., P)`` regression through the origin of ``made`` on ``real (..., P, n_bins)``."""
    signal = (weight * (real**2 - noise)).sum(-1)
    return (weight * real * made).sum(-1) / np.where(signal > 0, signal, np.nan)


def half_width(x: np.ndarray) -> np.ndarray:
    """Half the 16-84 % range over the first axis: an error without the tails; NaN if a tenth is undefined."""
    defined = np.isfinite(x).mean(0) > 0.9
    low, high = np.nanquantile(np.where(defined, x, 0.0), (0.16, 0.84), axis=0)
    return np.where(defined, (high - low) / 2, np.nan)


def _polynomial(params: np.ndarray, names: tuple[str, ...], n_strata: int) -> tuple[np.ndarray, np.ndarray]:
    """``(1 + P, n_strata)`` what makes value and derivatives at the middle of means at each set, and it."""
    n = len(names)
    if params.shape != (n_strata, n):
        raise InputError(f"params must have shape ({n_strata}, {n}), got {params.shape}")
    middle, scale = (params.max(0) + params.min(0)) / 2, np.ptp(params, axis=0) / 2
    x = (params - middle) / np.where(scale > 0, scale, 1)
    design = np.column_stack([np.ones(n_strata), x])
    quadratic = design
    for i, j in combinations_with_replacement(range(n), 2):  # no cross terms of a set that has none
        wider = np.column_stack([quadratic, x[:, i] * x[:, j]])
        quadratic = wider if _rank(wider) > _rank(quadratic) else quadratic
    if n_strata < n + 2 or _rank(design) < n + 1:
        raise InputError(
            f"derivatives by {', '.join(names) or 'no parameter'} need at least {n + 2} sets of parameters "
            f"that do not lie on one line, got {n_strata}; give a reference with more"
        )
    design = quadratic if n_strata >= quadratic.shape[1] + 2 else design
    return np.linalg.pinv(design)[: n + 1] / np.append(1.0, scale)[:, None], middle


def _rank(design: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(design, tol=1e-6))


def _probability(
    reference: Measured, samples: Measured, derive: np.ndarray, error: np.ndarray, n: int, seed: int
) -> float:
    """Of the mean square of all differences of derivatives, each over its error."""
    sides = Sides.of(reference, samples, n, seed)
    scale = np.where(error > 0, error, np.inf)
    moved = [np.einsum("ps,srb->rpb", derive, gaps) / scale for gaps in differences_by_stratum(sides)]
    return float(permutation_p((np.concatenate(moved) ** 2).mean((1, 2))[:, None])[0])


def differences_by_stratum(sides: Sides, at_once: int = 256) -> Iterator[np.ndarray]:
    """``(n_strata, R, n_bins)`` mean of the first side less that of the other, for the divisions in turn."""
    rows = [sides.stratum == s for s in range(sides.n_strata)]
    for start in range(0, sides.first.shape[1], at_once):
        weights = sides.weights(slice(start, start + at_once)) * sides.n_strata
        yield np.stack([weights[r].T @ sides.vectors[r] for r in rows])
