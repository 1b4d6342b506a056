"""What the answers of a regressor to real and to generated fields come to: biases, errors, coverage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import chndtr

from evaluation.base import Measured
from evaluation.ks import Sides, permutation_p
from evaluation.resampling import Boxes, bootstrap_weights
from evaluation.response import differences_by_stratum

LEVELS = np.linspace(0, 1, 21)  # credibilities at which coverage is given


@dataclass(frozen=True, eq=False)
class Inference:
    """A regressor trained on one kind of fields and asked about the other, at parameters it has not seen.

    Arrays are ``(P,)``, one value a parameter, unless told; ``sigma`` is the root mean square error of the
    regressor that was trained on real fields and asked about real ones, and the unit of all biases.

    prior: scatter of the judged parameters, the ``sigma`` of a regressor that has learnt nothing.
    bias_on_samples: mean answer to samples less that to real fields of the same parameters, by the
        regressor trained on real fields: what an analysis calibrated on simulations would get wrong.
    bias_from_samples: mean answer to real fields of the regressor trained on samples, less that of the one
        trained on real fields: what an analysis calibrated on samples would get wrong.
    bias_p: probability of answers so far apart at any set of parameters under equal laws, by permutation of
        simulations.
    error_ratio: root mean square error on samples over that on real fields, same regressor.
    pull, pull_reference: root mean square of error over stated error: 1 where the errors are right.
    coverage, coverage_reference: ``(N,)`` the TARP values (Lemos et al. 2023, arXiv:2302.03026) of samples
        and of real fields under Gaussian posteriors of the regressor's errors: uniform in [0, 1] where these
        are right. ``coverage_p``: their KS test against each other, by permutation of simulations.
    samples_by_stratum, reference_by_stratum: ``(n_strata, P)`` mean answer less truth, over ``sigma``.
    """

    parameters: tuple[str, ...]
    sigma: np.ndarray
    prior: np.ndarray
    bias_on_samples: np.ndarray
    bias_on_samples_std: np.ndarray
    bias_from_samples: np.ndarray
    bias_from_samples_std: np.ndarray
    bias_p: float
    error_ratio: np.ndarray
    pull: np.ndarray
    pull_reference: np.ndarray
    coverage_p: float
    coverage: np.ndarray = field(repr=False)
    coverage_reference: np.ndarray = field(repr=False)
    samples_by_stratum: np.ndarray = field(repr=False)
    samples_by_stratum_std: np.ndarray = field(repr=False)
    reference_by_stratum: np.ndarray = field(repr=False)
    reference_by_stratum_std: np.ndarray = field(repr=False)

    @property
    def bias_by_stratum(self) -> np.ndarray:
        """``(n_strata, P)`` of ``bias_on_samples``."""
        return self.samples_by_stratum - self.reference_by_stratum

    @property
    def z(self) -> np.ndarray:
        """``(2, P)`` the two biases over their errors."""
        return np.stack(
            [
                self.bias_on_samples / self.bias_on_samples_std,
                self.bias_from_samples / self.bias_from_samples_std,
            ]
        )

    def covered(self) -> dict[str, np.ndarray]:
        """Share of truths inside the regions of every credibility, of real fields and of samples."""
        of = {"real": self.coverage_reference, "samples": self.coverage}
        return {"credibility": LEVELS, **{k: (v <= LEVELS[:, None]).mean(1) for k, v in of.items()}}

    def to_dict(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Answers:
    """What a regressor says of fields: ``given`` (N, P) with their ids, and the covariance of their errors.

    ``covariance`` is ``(N, P, P)``, or ``(P, P)`` where it is the same for all. Strata are 0 ... n-1.
    """

    given: Measured
    covariance: np.ndarray


def assess(
    real: Answers,
    made: Answers,
    taught: tuple[np.ndarray, np.ndarray],
    params: np.ndarray,
    names: tuple[str, ...],
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
    rng: np.random.Generator,
) -> Inference:
    """What the answers to real fields and to samples come to.

    Args:
        real, made: by regressors trained on real fields.
        taught: ``bias_from_samples`` and its error, in units of the parameters.
    """
    sides = (real, made)
    error = [s.given.vectors - params[s.given.stratum] for s in sides]
    square = [
        over_strata(e**2, s.given.stratum, len(params)).mean(0) for e, s in zip(error, sides, strict=True)
    ]
    sigma = np.sqrt(square[0])
    means, resampled = zip(
        *(_means(e, s.given, n_bootstrap, rng) for e, s in zip(error, sides, strict=True)), strict=True
    )
    points = rng.uniform(params.min(0), params.max(0), params.shape)
    covered = [
        _tarp(e, s.covariance, params[s.given.stratum], points[s.given.stratum])
        for e, s in zip(error, sides, strict=True)
    ]
    pulls = [
        np.sqrt(over_strata(e**2 / _variance(s), s.given.stratum, len(params)).mean(0))
        for e, s in zip(error, sides, strict=True)
    ]
    return Inference(
        parameters=names,
        sigma=sigma,
        prior=params.std(0),
        bias_on_samples=(means[1] - means[0]).mean(0) / sigma,
        bias_on_samples_std=np.hypot(*(r.mean(1).std(0) for r in resampled)) / sigma,
        bias_from_samples=taught[0] / sigma,
        bias_from_samples_std=taught[1] / sigma,
        bias_p=_apart(real.given, made.given, n_permutations, seed),
        error_ratio=np.sqrt(square[1]) / sigma,
        pull=pulls[1],
        pull_reference=pulls[0],
        coverage_p=_same_law(covered[0], covered[1], real.given, made.given, n_permutations, seed),
        coverage=covered[1],
        coverage_reference=covered[0],
        samples_by_stratum=means[1] / sigma,
        samples_by_stratum_std=resampled[1].std(0) / sigma,
        reference_by_stratum=means[0] / sigma,
        reference_by_stratum_std=resampled[0].std(0) / sigma,
    )


def _means(
    values: np.ndarray, of: Measured, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``(n_strata, P)`` means, and ``(n, n_strata, P)`` those of resampled boxes."""
    n_strata = int(of.stratum.max()) + 1
    boxes = Boxes.of(of.simulation, of.stratum, n_strata).single_box_strata_as_maps()
    return over_strata(values, of.stratum, n_strata), boxes.means(values, bootstrap_weights(boxes, n, rng))


def _variance(of: Answers) -> np.ndarray:
    """``(N, P)`` or ``(P,)`` of each answer."""
    return np.diagonal(of.covariance, axis1=-2, axis2=-1)


def _same_law(x: np.ndarray, y: np.ndarray, a: Measured, b: Measured, n: int, seed: int) -> float:
    """p of the KS test between values of the maps of two sets."""
    sides = Sides.of(
        Measured(x[:, None], a.simulation, a.stratum), Measured(y[:, None], b.simulation, b.stratum), n, seed
    )
    return float(permutation_p(sides.ks(sides.vectors))[0])


def _apart(a: Measured, b: Measured, n: int, seed: int) -> float:
    """p of the mean square over strata of differences of mean answers, in units of the answers' scatter."""
    within = a.vectors - over_strata(a.vectors, a.stratum, int(a.stratum.max()) + 1)[a.stratum]
    root = _root(np.atleast_2d(np.cov(within.T, bias=True)))
    white = [Measured(m.vectors @ root.T, m.simulation, m.stratum) for m in (a, b)]
    sides = Sides.of(white[0], white[1], n, seed)
    found = [(gaps**2).mean((0, 2)) for gaps in differences_by_stratum(sides)]
    return float(permutation_p(np.concatenate(found)[:, None])[0])


def over_strata(values: np.ndarray, stratum: np.ndarray, n_strata: int) -> np.ndarray:
    """``(n_strata, P)`` means."""
    out = np.zeros((n_strata, values.shape[1]))
    np.add.at(out, stratum, values)
    return out / np.bincount(stratum, minlength=n_strata)[:, None]


def _root(covariance: np.ndarray) -> np.ndarray:
    """``(..., P, P)`` what makes errors of unit variance of those of a covariance."""
    return np.linalg.inv(np.linalg.cholesky(covariance))


def _tarp(error: np.ndarray, covariance: np.ndarray, truth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``(N,)`` share of a posterior N(truth + error, covariance) that is nearer to a point than the truth.

    Distances are in units of the posterior, in which their squares follow a noncentral chi-squared law. The
    point is the same for real and generated fields of one set of parameters.
    """
    root = _root(covariance)
    reach, centre = (np.einsum("...ij,...j->...i", root, x) for x in (truth - points, truth + error - points))
    return chndtr((reach**2).sum(1), truth.shape[1], (centre**2).sum(1))
