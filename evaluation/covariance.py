"""Do samples scatter and correlate as the reference does, at fixed parameters? Covariance of a statistic."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.base import Measured
from evaluation.hotelling import Pair, varying
from evaluation.ks import Sides, permutation_p
from evaluation.products import Products, Triangle, exchanged
from evaluation.resampling import Boxes
from evaluation.variance import Components, Side
from gen.errors import InputError

_N_EIGENVALUES = 200  # permutations whose eigenvalues are taken
_LEAST_FREE = 0.1  # 1 - r^2 below which a pair of bins weighs no more


@dataclass(frozen=True, eq=False)
class CovarianceComparison:
    """The covariance of samples against that of a reference: scatter and correlation apart.

    Arrays ``(p,)`` are over the (joined) bins; ``group (n_bins,)`` is the joined bin of each, -1 if constant.

    diagonal_ratio: variance of a map of the samples over that of the reference, with its error;
        ``diagonal_distance`` is the root mean square of its logarithm, ``diagonal_floor`` what two sets of
        true maps give, ``diagonal_p`` the chance of that distance under equal laws.
    off_diagonal_ratio: one factor between all correlation coefficients, r_samples = factor * r_reference,
        with its error: 0.75 for correlations that are 25 % low, 1 for the truth. NaN where the reference has
        none. ``off_diagonal_ratio_p`` is two-sided.
    off_diagonal_distance: root mean square of r_samples - r_reference over pairs (their Frobenius distance
        over sqrt(p (p - 1))), with its floor and p.
    eigenvalue_ratio: descending eigenvalues of C_reference^-1 C_samples; ``eigenvalue_null (2, p)`` is the
        16-84 % band under equal laws at these numbers, which is far from 1 for few boxes.
    """

    n_reference: int
    n_samples: int
    n_simulations_reference: int
    n_simulations_samples: int
    n_strata: int
    basis: str
    resampled: str  # "boxes", or "strata" where those hold fewer than three boxes
    group: np.ndarray

    reference_correlation: np.ndarray  # (p, p)
    samples_correlation: np.ndarray
    diagonal_ratio: np.ndarray
    diagonal_ratio_std: np.ndarray
    diagonal_distance: float
    diagonal_floor: float
    diagonal_p: float
    off_diagonal_ratio: float
    off_diagonal_ratio_std: float
    off_diagonal_ratio_p: float
    off_diagonal_distance: float
    off_diagonal_floor: float
    off_diagonal_p: float
    eigenvalue_ratio: np.ndarray
    eigenvalue_null: np.ndarray

    @property
    def diagonal_excess(self) -> float:
        return self.diagonal_distance / self.diagonal_floor

    @property
    def off_diagonal_excess(self) -> float:
        return self.off_diagonal_distance / self.off_diagonal_floor

    @property
    def off_diagonal_factor(self) -> str:
        """The factor of the off-diagonals and its error, in words."""
        if not math.isfinite(self.off_diagonal_ratio_std):
            return "factor lost in noise"
        return f"× {self.off_diagonal_ratio:.2f} ± {self.off_diagonal_ratio_std:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; numbers that are not finite become None."""
        found = asdict(self) | {
            "diagonal_excess": self.diagonal_excess,
            "off_diagonal_excess": self.off_diagonal_excess,
        }
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


def compare_covariance(
    reference: Measured,
    samples: Measured,
    *,
    n_bins: int | None = None,
    n_bootstrap: int = 1000,
    n_permutations: int = 1000,
    seed: int = 0,
) -> CovarianceComparison:
    r"""Compare covariances at fixed parameters, with simulations as the unit of every error and p-value.

    The covariance is that of one map, between boxes and within them:

        C = mean_s 1/2 <(x - y)(x - y)^T>,   x, y maps of different boxes of stratum s,

    unbiased though maps of one box are alike, and never indefinite. It is a mean over maps of products (for
    single maps n/(n-1) e e^T, e = x - mean), so the machinery of means serves: products are resampled by
    whole boxes for errors, exchanged by whole boxes for p-values (scatter on common units; correlations after
    each side is put on unit scatter), and their analysis of variance gives the floor, the root mean square
    distance of true maps in the structure of the samples. The factor of the off-diagonals is

        sum w r_a r_b / sum w (r_a^2 - var r_a),   w = (1 - r^2)^-2,

    a regression through the origin over all pairs of bins without the bias of noise in r_a.

    Args:
        reference, samples: of one statistic.
        n_bins: join neighbouring bins to so many; None: take them as they are.
        n_bootstrap, n_permutations, seed: of the resampling.

    Raises:
        InputError: for p + 2 independent boxes or fewer on either side.
    """
    pair = Pair.of(reference, samples, n_bins)
    pair.check_boxes()
    p = pair.reference.shape[1]
    if p < 2:
        raise InputError("a covariance needs at least 2 bins that have a scatter, got 1; join fewer")
    triangle = Triangle(p)
    a, b = Products.of_both((pair.reference, pair.samples), pair.boxes)
    side_a, side_b = (Side.of(s.measured(), s.boxes.stratum, s.boxes.n_strata) for s in (a, b))
    c_a, c_b = side_a.mean().mean(0), side_b.mean().mean(0)
    r_a, r_b = triangle.correlation(c_a), triangle.correlation(c_b)
    ratio = triangle.diagonal(c_b) / triangle.diagonal(c_a)

    own, target = _noise(triangle, a, c_a, b.boxes)
    weight = 1 / np.maximum(1 - (r_a**2 + r_b**2) / 2, _LEAST_FREE) ** 2
    rng = np.random.default_rng([seed, 4])
    boot_a, boot_b = (
        side.means(s.bootstrap_weights(n_bootstrap, rng)).mean(1) for side, s in ((side_a, a), (side_b, b))
    )
    boot_ratio = triangle.diagonal(boot_b) / np.maximum(triangle.diagonal(boot_a), 1e-12)
    # a resampled coefficient carries its noise once more than the coefficient itself
    boot_r_a, boot_r_b = triangle.correlation(boot_a), triangle.correlation(boot_b)
    null = _permuted(triangle, (a, c_a), (b, c_b), weight, n_permutations, seed)
    return CovarianceComparison(
        n_reference=len(reference),
        n_samples=len(samples),
        n_simulations_reference=pair.boxes[0].n_boxes,
        n_simulations_samples=pair.boxes[1].n_boxes,
        n_strata=pair.boxes[0].n_strata,
        basis=pair.basis,
        resampled="strata" if a.by_stratum else "boxes",
        group=pair.group,
        reference_correlation=_correlation(triangle, r_a),
        samples_correlation=_correlation(triangle, r_b),
        diagonal_ratio=ratio,
        diagonal_ratio_std=boot_ratio.std(0),
        diagonal_distance=float(_rms(_log(ratio))),
        diagonal_floor=float(np.sqrt(target[:p].mean())),
        diagonal_p=null.p[0],
        off_diagonal_ratio=float(_factor(r_a, r_b, own[p:], weight)),
        off_diagonal_ratio_std=_width(_factor(boot_r_a, boot_r_b, 2 * own[p:], weight)),
        off_diagonal_ratio_p=null.p[2],
        off_diagonal_distance=float(_rms(r_b - r_a)),
        off_diagonal_floor=float(np.sqrt(target[p:].mean())),
        off_diagonal_p=null.p[1],
        eigenvalue_ratio=_eigenvalues(triangle.square(c_a), triangle.square(c_b)),
        eigenvalue_null=null.eigenvalues,
    )


def _noise(
    triangle: Triangle, reference: Products, c: np.ndarray, samples: Boxes
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of log variances and correlations of the reference, and of their difference to true maps.

    From what each map contributes, to first order: y_ii / c_ii and y_ij / s_i s_j - r_ij (y_ii + y_jj) / 2.
    """
    boxes = reference.boxes
    z = triangle.standardised(reference.y, c)
    i, j = triangle.pairs
    z[:, triangle.p :] -= triangle.correlation(c) * (z[:, i] + z[:, j]) / 2
    side = Side.of(Measured(z, boxes.box, boxes.stratum), boxes.stratum, boxes.n_strata)
    components = Components.of(side, np.ones_like(side.centre))
    factor = reference.inflation[:, None] ** 2 / boxes.n_strata
    sizes = [boxes.size[boxes.box_stratum == s] for s in range(boxes.n_strata)]
    own = np.maximum([components.of_mean(size) for size in sizes], 0)
    return (own * factor).mean(0), (components.of_difference(boxes, samples) * factor).mean(0)


def _correlation(triangle: Triangle, r: np.ndarray) -> np.ndarray:
    return triangle.square(np.concatenate([np.ones(triangle.p), r]))


def _factor(r_a: np.ndarray, r_b: np.ndarray, variance_a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Slope through the origin of r_b on r_a ``(..., n_pairs)``; NaN where r_a is noise only."""
    signal = (weight * (r_a**2 - variance_a)).sum(-1)
    return (weight * r_a * r_b).sum(-1) / np.where(signal > 0, signal, np.nan)


@dataclass(frozen=True, eq=False)
class _Null:
    p: tuple[float, float, float]  # diagonal, off-diagonal, one factor of the off-diagonal
    eigenvalues: np.ndarray


def _permuted(
    triangle: Triangle,
    a: tuple[Products, np.ndarray],
    b: tuple[Products, np.ndarray],
    weight: np.ndarray,
    n: int,
    seed: int,
) -> _Null:
    """The three distances after exchanging boxes, and the eigenvalue ratios of what comes out."""
    # scatter on common units, correlations with each side on its own unit scatter
    both = [s.measured(triangle.standardised(s.y, c)) for s, c in (a, b)]
    sides = Sides.of(both[0], both[1], n, seed)
    k = sides.vectors.shape[1] // 2
    standardised, raw = sides.vectors[:, :k], sides.vectors[:, k:]
    first, second = exchanged(sides, (a[0], b[0]))
    variance_a, variance_b = triangle.diagonal(first @ raw), triangle.diagonal(second @ raw)
    r_a, r_b = triangle.correlation(first @ standardised), triangle.correlation(second @ standardised)
    along = weight * (r_a[0] + r_b[0])
    distances = [
        _rms(_log(variance_b / np.maximum(variance_a, 1e-12))),
        _rms(r_b - r_a),
        np.abs((r_b - r_a) @ along),
    ]
    diagonal, off_diagonal, factor = permutation_p(np.stack(distances, axis=1)).tolist()
    c_a, c_b = (triangle.square(w[1 : 1 + _N_EIGENVALUES] @ raw) for w in exchanged(sides))
    values = _eigenvalues(triangle.square(a[1]), c_b, c_a)
    return _Null((diagonal, off_diagonal, factor), np.quantile(values, (0.16, 0.84), axis=0))


def _eigenvalues(basis: np.ndarray, c_b: np.ndarray, c_a: np.ndarray | None = None) -> np.ndarray:
    """``(..., rank)`` descending eigenvalues of C_a^-1 C_b in the directions in which ``basis`` varies."""
    directions = varying(basis)
    c_b = directions.T @ c_b @ directions
    if c_a is not None:
        root = np.linalg.inv(np.linalg.cholesky(directions.T @ c_a @ directions))
        c_b = root @ c_b @ root.swapaxes(-1, -2)
    return np.linalg.eigvalsh(c_b)[..., ::-1]


def _width(x: np.ndarray) -> float:
    """Half the 16-84 % range, for ratios with long tails; NaN if a tenth of them is undefined."""
    low, high = np.quantile(x[np.isfinite(x)], (0.16, 0.84)) if np.isfinite(x).mean() > 0.9 else (0, math.nan)
    return float(high - low) / 2


def _log(ratio: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(ratio, 1e-12))


def _rms(x: np.ndarray) -> np.ndarray:
    return np.sqrt((x**2).mean(-1))
