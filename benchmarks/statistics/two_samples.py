"""Tests of two sets of vectors, permutations included, for which a peer must permute as well."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import permutation_test_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.statistics import table
from benchmarks.statistics.fields import cube, smooth
from benchmarks.statistics.table import Case, Peer, optional
from evaluation.anderson_darling import anderson_darling
from evaluation.base import Measured, Sample
from evaluation.energy import energy_distance
from evaluation.ks import Sides, pixel_ks
from evaluation.two_sample import summary_c2st


def draw(n: int, n_bins: int) -> tuple[Measured, Measured]:
    """Normal vectors, the second with a wider scatter, each its own simulation."""
    x, y = np.random.default_rng(0).normal(size=(2, n, n_bins))
    a, b = (Measured(v, np.arange(n), np.zeros(n, int)) for v in (x, 1.2 * y))
    return a, b


def size(n: int, n_bins: int, permutations: int) -> str:
    bins = "1 bin" if n_bins == 1 else f"{n_bins} bins"
    return f"2 x {n} vectors of {bins}, {permutations} permutations"


def kolmogorov_smirnov(n: int, n_bins: int, permutations: int) -> Case:
    a, b = draw(n, n_bins)

    def ours() -> np.ndarray:
        sides = Sides.of(a, b, permutations, 0)
        return sides.ks(sides.vectors)

    def distances(first: np.ndarray, both: np.ndarray) -> list[float]:
        return [stats.ks_2samp(x[first], x[~first], method="asymp").statistic for x in both.T]

    def scipy() -> np.ndarray:
        sides = Sides.of(a, b, permutations, 0)
        return np.array([distances(first, sides.vectors) for first in sides.first.T])

    same = Peer("scipy.stats.ks_2samp, each permutation", scipy, 1, lambda: (ours(), scipy()))
    return Case("Kolmogorov-Smirnov", size(n, n_bins, permutations), ours, 1, [same])


def pixels(n: int, maps: int, permutations: int) -> Case:
    """Of which the peer knows the distance alone; ours takes it on 1,024 levels."""
    grid = cube(n, 2)
    x = smooth(grid, 2 * maps)
    a, b = Sample(x[:maps]), Sample(1.1 * x[maps:])

    def ours() -> float:
        return pixel_ks(a, b, n_permutations=permutations).D

    def scipy() -> float:
        return stats.ks_2samp(x[:maps].reshape(-1), 1.1 * x[maps:].reshape(-1), method="asymp").statistic

    peer = Peer(
        "scipy.stats.ks_2samp of every pixel, no permutations", scipy, 1, lambda: ([ours()], [scipy()])
    )
    fields = f"2 x {table.size(grid.shape, maps)}, {permutations} permutations"
    return Case("pixel Kolmogorov-Smirnov", fields, ours, 1, [peer])


def anderson(n: int, n_bins: int, permutations: int) -> Case:
    a, b = draw(n, n_bins)

    def ours() -> np.ndarray:
        return anderson_darling(a, b, n_permutations=permutations).A2

    def scipy() -> np.ndarray:
        how = stats.PermutationMethod(n_resamples=permutations, rng=np.random.default_rng(0))
        pairs = zip(a.vectors.T, b.vectors.T, strict=True)
        return np.array([stats.anderson_ksamp(p, variant="right", method=how).statistic for p in pairs])

    def same() -> tuple[np.ndarray, np.ndarray]:
        # theirs is (A2 - 1) / sigma, sigma one number for given n
        found, theirs = ours(), scipy()
        return found - 1, theirs * (found[0] - 1) / theirs[0]

    peer = Peer("scipy.stats.anderson_ksamp", scipy, 1, same)
    return Case("Anderson-Darling", size(n, n_bins, permutations), ours, 1, [peer])


def energy(n: int, n_bins: int, permutations: int) -> Case:
    a, b = draw(n, n_bins)
    both = np.concatenate([a.vectors, b.vectors])
    x, y = ((m.vectors - both.mean(0)) / both.std(0) for m in (a, b))

    def ours() -> float:
        return energy_distance(a, b, n_permutations=permutations).distance

    peers = []
    if n_bins == 1:

        def scipy() -> float:
            test = stats.permutation_test(
                (x[:, 0], y[:, 0]),
                stats.energy_distance,
                n_resamples=permutations,
                vectorized=False,
                alternative="greater",
                rng=np.random.default_rng(0),
            )
            return test.statistic**2  # scipy's is the root

        peers.append(
            Peer("scipy.stats.energy_distance, permutation_test", scipy, 1, lambda: ([ours()], [scipy()]))
        )
    dcor = optional("dcor.homogeneity")

    def by_dcor() -> float:
        found = dcor.energy_test(x, y, num_resamples=permutations, random_state=0)  # pyright: ignore
        return found.statistic * 2 / n  # E n m / (n + m)

    name = "dcor.homogeneity.energy_test"
    peers.append(Peer(name, by_dcor, 1, lambda: ([ours()], [by_dcor()])) if dcor else Peer(name, None))
    return Case("energy distance", size(n, n_bins, permutations), ours, 1, peers)


def classifier(n: int, n_bins: int, permutations: int) -> Case:
    """The peer is trained anew for every permutation, as a right p needs."""
    a, b = draw(n, n_bins)
    vectors = np.concatenate([a.vectors, b.vectors])
    label = np.repeat([0, 1], n)

    def sklearn() -> float:
        kernels = Nystroem(gamma=0.5 / n_bins, n_components=200, random_state=0)
        chain = make_pipeline(StandardScaler(), kernels, StandardScaler(), RidgeClassifier(0.2 * 1.6 * n))
        score = permutation_test_score(
            chain, vectors, label, cv=5, n_permutations=permutations, scoring="roc_auc", random_state=0
        )
        return float(score[0])

    def ours() -> float:
        return summary_c2st(a, b, n_permutations=permutations).auc

    peer = Peer("sklearn permutation_test_score, ridge on kernels", sklearn, 1)
    return Case("C2ST on vectors", size(n, n_bins, permutations), ours, 1, [peer])
