"""Parameters inferred from fields: do generated fields teach and answer what real ones do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from evaluation.base import Measured
from evaluation.ks import Sides, ks_distances, permutation_p
from evaluation.resampling import Boxes, bootstrap_weights, common_strata
from gen.errors import InputError

FEWEST_STRATA = 10  # sets of parameters: a regression over fewer cannot be tried on ones it has not seen


def regression(n_components: int) -> Pipeline:
    """Parameters as a quadratic polynomial of the leading principal components, ridge-regularised."""
    return make_pipeline(
        StandardScaler(),
        PCA(n_components, whiten=True, svd_solver="full"),
        PolynomialFeatures(2, include_bias=False),
        RidgeCV(np.logspace(-3, 4, 15)),
    )


@dataclass(frozen=True, eq=False)
class Inference:
    """A regressor trained on one kind of fields and asked about the other, at parameters it has not seen.

    All arrays are ``(P,)``, one value a parameter, in units of ``sigma``, the root mean square error of the
    regressor that was trained on real fields and asked about real ones.

    bias_on_samples: mean answer to samples less that to real fields of the same parameters, by the
        regressor trained on real fields: what an analysis calibrated on simulations would get wrong.
    bias_from_samples: mean answer to real fields of the regressor trained on samples, less that of the one
        trained on real fields: what an analysis calibrated on samples would get wrong.
    error_ratio: root mean square error on samples over that on real fields, same regressor.
    coverage, coverage_reference: the TARP values (Lemos et al. 2023, arXiv:2302.03026) of samples and of real
        fields under Gaussian posteriors of the regressor's measured errors: uniform in [0, 1] where these are
        right. ``coverage_p``: their KS test against each other, by permutation of simulations.
    """

    parameters: tuple[str, ...]
    sigma: np.ndarray
    bias_on_samples: np.ndarray
    bias_on_samples_std: np.ndarray
    bias_from_samples: np.ndarray
    bias_from_samples_std: np.ndarray
    error_ratio: np.ndarray
    coverage_p: float
    coverage: np.ndarray = field(repr=False)
    coverage_reference: np.ndarray = field(repr=False)
    bias_by_stratum: np.ndarray = field(repr=False)  # (n_strata, P) of bias_on_samples

    @property
    def z(self) -> np.ndarray:
        """``(2, P)`` the two biases over their errors."""
        return np.stack(
            [
                self.bias_on_samples / self.bias_on_samples_std,
                self.bias_from_samples / self.bias_from_samples_std,
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def infer(
    reference: Measured,
    samples: Measured,
    params: np.ndarray,
    names: tuple[str, ...],
    *,
    n_components: int = 12,
    n_folds: int = 5,
    n_bootstrap: int = 500,
    n_refits: int = 20,
    seed: int = 0,
) -> Inference:
    """Cross-validated by sets of parameters: what is asked about was never trained on, nor its parameters.

    The error of ``bias_from_samples`` is that of regressors refitted on resampled simulations of either kind.

    Args:
        reference, samples: vectors of the same statistics at the same sets of parameters (strata).
        params: ``(n_strata, P)`` the parameters, in the order of the sorted strata.
        names: of the parameters.

    Raises:
        InputError: for fewer than ``FEWEST_STRATA`` sets of parameters, or vectors that are not finite.
    """
    stratum_a, stratum_b, n_strata = common_strata(reference, samples)
    real = Measured(reference.vectors, reference.simulation, stratum_a)
    made = Measured(samples.vectors, samples.simulation, stratum_b)
    _check(real, made, params, names, n_strata)
    rng = np.random.default_rng([seed, 1])
    folds = GroupKFold(min(n_folds, n_strata), shuffle=True, random_state=seed)
    split = list(folds.split(params, groups=np.arange(n_strata)))
    from_real = Regressors(real, params, split, n_components)
    from_made = Regressors(made, params, split, n_components)

    answers = from_real.answers(real)
    own, theirs = answers - params[stratum_a], from_real.answers(made) - params[stratum_b]
    sigma = np.sqrt(_over_strata(own**2, stratum_a, n_strata).mean(0))
    taught = _over_strata(from_made.answers(real) - answers, stratum_a, n_strata).mean(0)
    spread = [
        np.std(
            [_over_strata(r.answers(real, rng), stratum_a, n_strata).mean(0) for _ in range(n_refits)],
            axis=0,
            ddof=1,
        )
        for r in (from_real, from_made)
    ]
    error = [_bootstrap_error(r, m, n_bootstrap, rng) for r, m in ((own, real), (theirs, made))]
    gap = _over_strata(theirs, stratum_b, n_strata) - _over_strata(own, stratum_a, n_strata)
    covariance = np.cov(own.T, bias=True).reshape(len(names), len(names))
    points = rng.uniform(params.min(0), params.max(0), (n_strata, len(names)))
    covered = [
        _tarp(r, covariance, params[m.stratum], points[m.stratum], rng)
        for r, m in ((own, real), (theirs, made))
    ]
    return Inference(
        parameters=names,
        sigma=sigma,
        bias_on_samples=gap.mean(0) / sigma,
        bias_on_samples_std=np.hypot(*error) / sigma,
        bias_from_samples=taught / sigma,
        bias_from_samples_std=np.hypot(*spread) / sigma,
        error_ratio=np.sqrt(_over_strata(theirs**2, stratum_b, n_strata).mean(0)) / sigma,
        coverage_p=_same_law(covered[0], covered[1], real, made, seed),
        coverage=covered[1],
        coverage_reference=covered[0],
        bias_by_stratum=gap / sigma,
    )


def _check(real: Measured, made: Measured, params: np.ndarray, names: tuple[str, ...], n_strata: int) -> None:
    if n_strata < FEWEST_STRATA:
        raise InputError(
            f"inference needs fields at {FEWEST_STRATA} sets of parameters or more, got {n_strata}; "
            "give a reference that covers the parameter space"
        )
    if params.shape != (n_strata, len(names)):
        raise InputError(
            f"params must have shape ({n_strata}, {len(names)}), one row a set of parameters, "
            f"got {params.shape}"
        )
    if not (np.isfinite(real.vectors).all() and np.isfinite(made.vectors).all()):
        raise InputError("vectors hold values that are not finite; leave out the bins where they do")


class Regressors:
    """One regressor a fold of the sets of parameters, trained on all the others; strata are 0 ... n-1."""

    def __init__(
        self,
        training: Measured,
        params: np.ndarray,
        folds: Sequence[tuple[np.ndarray, np.ndarray]],
        n_components: int,
    ) -> None:
        self.training, self.params, self.folds = training, params, folds
        self.n_components = min(n_components, training.vectors.shape[1])
        self.boxes = Boxes.of(training.simulation, training.stratum, len(params))

    def answers(self, asked: Measured, rng: np.random.Generator | None = None) -> np.ndarray:
        """``(len(asked), P)`` answers, each by the regressor that did not see its parameters.

        With ``rng`` the regressors are trained on boxes drawn with replacement inside each stratum.
        """
        out = np.zeros((len(asked), self.params.shape[1]))
        count = np.ones(len(self.training), int) if rng is None else self._drawn(rng)
        for train, test in self.folds:
            rows = np.repeat(np.arange(len(count)), count * np.isin(self.training.stratum, train))
            learnt = regression(min(self.n_components, len(rows) - 1))
            learnt.fit(self.training.vectors[rows], self.params[self.training.stratum[rows]])
            where = np.isin(asked.stratum, test)
            out[where] = learnt.predict(asked.vectors[where])
        return out

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        drawn = np.zeros(self.boxes.n_boxes, int)
        for s in range(self.boxes.n_strata):
            rows = np.flatnonzero(self.boxes.box_stratum == s)
            drawn[rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
        return drawn[self.boxes.box]


def _bootstrap_error(values: np.ndarray, of: Measured, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(P,)`` standard error of the mean over strata, from resampled boxes."""
    boxes = Boxes.of(of.simulation, of.stratum, int(of.stratum.max()) + 1)
    weights = bootstrap_weights(boxes, n, rng)
    return boxes.means(values, weights).mean(1).std(0)


def _same_law(x: np.ndarray, y: np.ndarray, a: Measured, b: Measured, seed: int) -> float:
    """p of the KS test between values of the maps of two sets."""
    sides = Sides.of(
        Measured(x[:, None], a.simulation, a.stratum),
        Measured(y[:, None], b.simulation, b.stratum),
        1000,
        seed,
    )
    return float(permutation_p(ks_distances(sides.vectors, sides.weights()))[0])


def _over_strata(values: np.ndarray, stratum: np.ndarray, n_strata: int) -> np.ndarray:
    """``(n_strata, P)`` means."""
    out = np.zeros((n_strata, values.shape[1]))
    np.add.at(out, stratum, values)
    return out / np.bincount(stratum, minlength=n_strata)[:, None]


def _tarp(
    residuals: np.ndarray,
    covariance: np.ndarray,
    truth: np.ndarray,
    points: np.ndarray,
    rng: np.random.Generator,
    n_draws: int = 400,
) -> np.ndarray:
    """``(N,)`` share of a posterior N(answer, covariance) that is nearer to a random point than the truth.

    Distances are in units of the posterior. The point is the same for real and generated fields of one set
    of parameters.
    """
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    to_truth = np.linalg.norm((truth - points) @ root.T, axis=1)
    centre = (truth + residuals - points) @ root.T
    draws = rng.standard_normal((n_draws, 1, len(covariance)))
    return (np.linalg.norm(centre + draws, axis=2) < to_truth).mean(0)
