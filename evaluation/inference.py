"""Parameters inferred from fields: do generated fields teach and answer what real ones do?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from evaluation.answers import Answers, Inference, assess, over_strata
from evaluation.base import Measured
from evaluation.resampling import Boxes, common_strata
from gen.errors import InputError

FEWEST_STRATA = 10  # sets of parameters: a regression over fewer cannot be tried on ones it has not seen


def regression(n_components: int) -> Pipeline:
    """Parameters as a quadratic polynomial of the leading principal components, ridge-regularised."""
    return make_pipeline(
        StandardScaler(),
        PCA(n_components, whiten=True, svd_solver="covariance_eigh"),
        PolynomialFeatures(2, include_bias=False),
        RidgeCV(np.logspace(-3, 4, 15)),
    )


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
    n_permutations: int = 1000,
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
    check_strata(params, names, n_strata)
    if not (np.isfinite(real.vectors).all() and np.isfinite(made.vectors).all()):
        raise InputError("vectors hold values that are not finite; leave out the bins where they do")
    rng = np.random.default_rng([seed, 1])
    split = folds(n_strata, n_folds, seed)
    from_real = Regressors(real, params, split, n_components)
    from_made = Regressors(made, params, split, n_components)

    answers = from_real.answers(real)
    taught = over_strata(from_made.answers(real) - answers, stratum_a, n_strata).mean(0)
    spread = [
        np.std(
            [over_strata(r.answers(real, rng), stratum_a, n_strata).mean(0) for _ in range(n_refits)],
            axis=0,
            ddof=1,
        )
        for r in (from_real, from_made)
    ]
    error = answers - params[stratum_a]
    covariance = np.atleast_2d(np.cov(error.T, bias=True))
    own, theirs = (
        Answers(Measured(x, m.simulation, m.stratum), covariance)
        for x, m in ((answers, real), (from_real.answers(made), made))
    )
    bias = taught, np.hypot(*spread)
    return assess(own, theirs, bias, params, names, n_bootstrap, n_permutations, seed, rng)


def folds(n_strata: int, n_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sets of parameters to train on and to ask about, each asked about once."""
    split = GroupKFold(min(n_folds, n_strata), shuffle=True, random_state=seed)
    return list(split.split(np.arange(n_strata), groups=np.arange(n_strata)))


def check_strata(params: np.ndarray, names: tuple[str, ...], n_strata: int) -> None:
    """Refuse sets of parameters that are too few to learn from, or that do not fit.

    Raises:
        InputError: for either.
    """
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
    constant = [name for name, width in zip(names, np.ptp(params, axis=0), strict=True) if not width > 0]
    if constant:
        raise InputError(
            f"{', '.join(constant)} cannot be inferred, for all sets of parameters have the same value; "
            "give a reference in which it varies"
        )


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
