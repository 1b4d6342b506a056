"""How a statistic answers to the parameters, in samples and in real fields."""

from __future__ import annotations

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
        ignores the parameter.
    p: probability of so large a difference of any derivative under equal laws, by permutation of simulations
        inside each set of parameters.
    """

    parameters: tuple[str, ...]
    middle: np.ndarray  # (P,)
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
    derive, middle = _derivative(params, names, n_strata)
    rng = np.random.default_rng([seed, 2])
    sides = []
    for m, stratum in ((reference, stratum_a), (samples, stratum_b)):
        boxes = Boxes.of(m.simulation, stratum, n_strata)
        weights = np.concatenate([np.ones((1, boxes.n_boxes)), bootstrap_weights(boxes, n_bootstrap, rng)])
        sides.append(np.einsum("ps,rsb->rpb", derive, boxes.means(m.vectors, weights)))
    real, made = sides
    error = np.sqrt(real[1:].var(0) + made[1:].var(0))
    weight = np.where(error > 0, 1 / np.where(error > 0, error, 1) ** 2, 0)
    slope = (weight * real * made).sum(2) / (weight * real**2).sum(2)
    return Response(
        parameters=names,
        middle=middle,
        reference=real[0],
        reference_std=real[1:].std(0),
        samples=made[0],
        samples_std=made[1:].std(0),
        slope=slope[0],
        slope_std=slope[1:].std(0),
        p=_probability(reference, samples, derive, error, n_permutations, seed),
        residual=np.divide(made[0] - real[0], error, out=np.zeros_like(error), where=error > 0),
    )


def _derivative(params: np.ndarray, names: tuple[str, ...], n_strata: int) -> tuple[np.ndarray, np.ndarray]:
    """``(P, n_strata)`` what makes derivatives at the middle of means at each set, and that middle."""
    n = len(names)
    if params.shape != (n_strata, n):
        raise InputError(f"params must have shape ({n_strata}, {n}), got {params.shape}")
    middle, scale = (params.max(0) + params.min(0)) / 2, np.ptp(params, axis=0) / 2
    x = (params - middle) / np.where(scale > 0, scale, 1)
    columns = [np.ones(n_strata), *x.T]
    pairs = [x[:, i] * x[:, j] for i, j in combinations_with_replacement(range(n), 2)]
    if n_strata >= len(columns) + len(pairs) + 2:
        columns += pairs
    design = np.stack(columns, axis=1)
    if n_strata < n + 2 or np.linalg.matrix_rank(design, tol=1e-6) < design.shape[1]:
        raise InputError(
            f"derivatives by {', '.join(names)} need at least {n + 2} sets of parameters that do not lie on "
            f"one line, got {n_strata}; give a reference with more"
        )
    return np.linalg.pinv(design)[1 : n + 1] / scale[:, None], middle


def _probability(
    reference: Measured, samples: Measured, derive: np.ndarray, error: np.ndarray, n: int, seed: int
) -> float:
    """Of the mean square of all differences of derivatives, each over its error."""
    sides = Sides.of(reference, samples, n, seed)
    weights = sides.weights() * sides.n_strata
    gaps = np.stack(
        [
            weights[rows].T @ sides.vectors[rows]
            for rows in (sides.stratum == s for s in range(sides.n_strata))
        ]
    )
    derivatives = np.einsum("ps,srb->rpb", derive, gaps)
    z = derivatives / np.where(error > 0, error, np.inf)
    return float(permutation_p((z**2).mean((1, 2))[:, None])[0])
