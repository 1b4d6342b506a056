"""Frechet distance of two sets of features, with the floor of finite sets and its limit for infinite ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.base import Measured
from evaluation.hotelling import check_vectors
from evaluation.ks import Sides, permutation_p, standardised
from evaluation.products import Products, Triangle, exchanged
from evaluation.resampling import Boxes, bootstrap_weights, common_strata, drawn_weights
from gen.errors import InputError

_PARTS = (1, 2, 3, 4)  # the sets are cut in so many for the limit of infinite ones
_N_FLOOR = 100
_N_CUTS = 8
_BATCH = 64


@dataclass(frozen=True)
class Frechet:
    """``distance`` d^2 between the Gaussians of two sets of p features, in units of their scatter squared.

    It is positive for finite sets of one law: ``floor`` is the mean for two sets of real maps, at these
    numbers and in these boxes, ``floor_interval`` its 16-84 % range, ``excess`` distance / floor.
    ``infinite`` is the limit of infinite sets, 0 under equal laws. ``std`` is the error of ``distance`` and
    of ``infinite`` alike, which differ by a bias only. ``p`` by exchanging boxes.
    """

    distance: float
    std: float
    floor: float
    floor_interval: tuple[float, float]
    excess: float
    infinite: float
    p: float
    n_features: int
    n_reference: int
    n_samples: int
    n_simulations_reference: int
    n_simulations_samples: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def frechet_distance(
    reference: Measured,
    samples: Measured,
    *,
    n_bootstrap: int = 100,
    n_permutations: int = 200,
    seed: int = 0,
) -> Frechet:
    r"""d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2) of features (Frechet 1957).

    Known from generated images (Heusel et al. 2017, arXiv:1706.08500), whose features mean nothing here: give
    scattering coefficients or another statistic. Features are less the mean of their stratum over its
    scatter, both of the two sets together; covariances are those at fixed parameters, of ``Products``. A set
    of n has a bias that goes as 1/n and depends on the law, so that d^2 ranks neither models nor set sizes;
    ``infinite`` is the intercept of a line in 1/n through d^2 of the whole sets and of halves, thirds and
    quarters of their boxes (Chong & Forsyth 2020, arXiv:1911.07023). The error is by resampling boxes; d^2 is
    of second order in the noise, which resampling adds once more, so with signal and noise s and e it finds
    <(s + e + e*)^2>, and twice the variance of the floor is taken off again;
    from ten boxes or fewer it comes out too large.

    Args:
        reference, samples: features ``(N, p)``, ``(M, p)`` of one statistic.

    Raises:
        InputError: for less than four boxes or 2 p maps on either side, other bins or other strata.
    """
    check_vectors(reference, samples)
    stratum_a, stratum_b, n_strata = common_strata(reference, samples)
    boxes = (
        Boxes.of(reference.simulation, stratum_a, n_strata).single_box_strata_as_maps(),
        Boxes.of(samples.simulation, stratum_b, n_strata).single_box_strata_as_maps(),
    )
    p = reference.vectors.shape[1]
    if min(b.n_boxes for b in boxes) < _PARTS[-1] or min(len(reference), len(samples)) < 2 * p:
        raise InputError(
            f"a Frechet distance of {p} features needs at least 4 simulations and {2 * p} maps on both "
            f"sides, got {len(reference)} and {len(samples)} maps in {boxes[0].n_boxes} and "
            f"{boxes[1].n_boxes} simulations; give more maps or fewer features"
        )
    first = np.arange(len(reference) + len(samples)) < len(reference)
    stratum = np.concatenate([stratum_a, stratum_b])
    z = standardised(np.concatenate([reference.vectors, samples.vectors]), stratum, n_strata, first)
    sides = Products.of_both((z[first], z[~first]), boxes)
    a, b = (_Features.of(x, s) for x, s in zip((z[first], z[~first]), sides, strict=True))

    rng = np.random.default_rng([seed, 5])
    distance = float(_frechet(*(s.moments(np.ones((1, s.boxes.n_boxes))) for s in (a, b)))[0])
    maps = drawn_weights(a.boxes, b.boxes, _N_FLOOR, rng)
    real = _frechet(a.moments(bootstrap_weights(a.boxes, _N_FLOOR, rng)), a.moments_of_maps(maps))
    drawn = [s.moments(bootstrap_weights(s.boxes, n_bootstrap, rng)) for s in (a, b)]
    resampled = _frechet(drawn[0], drawn[1])
    return Frechet(
        distance=distance,
        std=float(np.sqrt(max(resampled.var() - 2 * real.var(), real.var()))),
        floor=float(real.mean()),
        floor_interval=(float(np.quantile(real, 0.16)), float(np.quantile(real, 0.84))),
        excess=distance / float(real.mean()),
        infinite=_limit(a, b, distance, rng),
        p=_p(a, b, sides, n_permutations, seed),
        n_features=p,
        n_reference=len(reference),
        n_samples=len(samples),
        n_simulations_reference=boxes[0].n_boxes,
        n_simulations_samples=boxes[1].n_boxes,
    )


_Moments = tuple[np.ndarray, np.ndarray]  # means (R, p), covariances (R, p, p)


@dataclass(frozen=True, eq=False)
class _Features:
    """One side: ``(N, p + ...)`` features and their products, and the sums of both over boxes."""

    columns: np.ndarray
    boxes: Boxes
    total: np.ndarray
    triangle: Triangle

    @classmethod
    def of(cls, z: np.ndarray, products: Products) -> _Features:
        columns = products.measured(z).vectors
        return cls(columns, products.boxes, products.boxes.sums(columns), Triangle(z.shape[1]))

    def moments(self, weights: np.ndarray) -> _Moments:
        """Of boxes with weights ``(R, n_boxes)``; each stratum counts equally."""
        w = weights / self.boxes.maps[self.boxes.box_stratum]
        return _moments(w @ self.total / (w @ self.boxes.size)[:, None], self.triangle)

    def moments_of_maps(self, weights: np.ndarray) -> _Moments:
        """Of maps with weights ``(N, R)``."""
        w = weights.T / self.boxes.maps[self.boxes.stratum]
        return _moments(w @ self.columns / w.sum(1, keepdims=True), self.triangle)


def _moments(means: np.ndarray, triangle: Triangle) -> _Moments:
    return means[:, : triangle.p], triangle.square(means[:, triangle.p :])


def _frechet(a: _Moments, b: _Moments) -> np.ndarray:
    """``(R,)`` squared distances of Gaussians."""
    out = []
    for i in range(0, len(a[0]), _BATCH):
        (mean_a, c_a), (mean_b, c_b) = ([x[i : i + _BATCH] for x in side] for side in (a, b))
        values, vectors = np.linalg.eigh(c_a)
        root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :] @ vectors.swapaxes(1, 2)
        crossed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c_b @ root), 0)).sum(1)
        traces = np.trace(c_a, axis1=1, axis2=2) + np.trace(c_b, axis1=1, axis2=2)
        out.append(((mean_a - mean_b) ** 2).sum(1) + traces - 2 * crossed)
    return np.concatenate(out)


def _limit(a: _Features, b: _Features, distance: float, rng: np.random.Generator) -> float:
    """Intercept of d^2 against the number of parts that both sides are cut in."""
    mean = [distance]
    for k in _PARTS[1:]:
        cuts = [np.concatenate([_cut(s.boxes, k, rng) for _ in range(_N_CUTS)]) for s in (a, b)]
        mean.append(float(_frechet(a.moments(cuts[0]), b.moments(cuts[1])).mean()))
    return float(np.polyfit(_PARTS, mean, 1)[1])


def _cut(boxes: Boxes, k: int, rng: np.random.Generator) -> np.ndarray:
    """``(k, n_boxes)`` boolean, k parts of the boxes, the strata spread evenly."""
    order = np.lexsort((rng.random(boxes.n_boxes), boxes.box_stratum))
    part = np.empty(boxes.n_boxes, int)
    part[order] = np.arange(boxes.n_boxes) % k
    return part == np.arange(k)[:, None]


def _p(a: _Features, b: _Features, products: tuple[Products, Products], n: int, seed: int) -> float:
    p = a.triangle.p
    both = [s.measured(x.columns[:, :p]) for x, s in zip((a, b), products, strict=True)]
    sides = Sides.of(both[0], both[1], n, seed)
    means = [w @ sides.vectors[:, :p] for w in exchanged(sides)]
    covariances = [w @ sides.vectors[:, p:] for w in exchanged(sides, products)]
    found = _frechet(*((m, a.triangle.square(c)) for m, c in zip(means, covariances, strict=True)))
    return float(permutation_p(found[:, None])[0])
