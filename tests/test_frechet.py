from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import linalg, stats
from test_compare import draw
from two_laws import chance, of_pooled_boxes, other_laws, under_equal_laws

from evaluation.base import Measured
from evaluation.frechet import Frechet, frechet_distance
from gen.errors import InputError


def measured(x: np.ndarray) -> Measured:
    return Measured(x, np.arange(len(x)), np.zeros(len(x), int))


def definition(x: np.ndarray, y: np.ndarray) -> float:
    c, d = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(c @ d)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c + d - 2 * root.real))


def standardised(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = np.concatenate([x, y])
    return (x - both.mean(0)) / both.std(0), (y - both.mean(0)) / both.std(0)


def quick(a: Measured, b: Measured, n: int = 1, seed: int = 0) -> Frechet:
    return frechet_distance(a, b, n_bootstrap=20, n_permutations=n, seed=seed)


def test_is_its_definition_in_units_of_scatter():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 4)) * [1, 1, 9, 1], rng.normal(0.3, 1.5, size=(80, 4)) * [1, 1, 9, 1]
    found = quick(measured(x), measured(y))
    assert found.distance == pytest.approx(definition(*standardised(x, y)), rel=1e-10)


def test_one_feature_is_the_closed_form():
    # (mu - nu)^2 + (sigma - tau)^2
    rng = np.random.default_rng(2)
    x, y = standardised(rng.normal(size=(50, 1)), rng.normal(1, 2, size=(50, 1)))
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert quick(measured(x), measured(y)).distance == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("structure", [(8, 8, 0.3, 1, 64), (100, 1, 0.0, 1, 100)])
def test_p_is_uniform_and_the_excess_is_one_under_equal_laws(structure):
    found: list[Frechet] = []

    def p_value(a: Measured, b: Measured, seed: int) -> float:
        found.append(quick(a, b, 99, seed))
        return found[-1].p

    n = 200
    p = under_equal_laws(p_value, structure, n, 100, seed=3)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(p < 0.05) < chance(n)
    distance, floor, infinite, std = np.array([(c.distance, c.floor, c.infinite, c.std) for c in found]).T
    # S boxes know their scatter to the order 1 / S, and the limit leaves terms of that order beside 4 errors
    of_boxes = distance.mean() / structure[0]
    assert abs((distance - floor).mean()) < 4 * (distance - floor).std() / math.sqrt(n) + of_boxes
    assert abs(infinite.mean()) < 4 * infinite.std() / math.sqrt(n) + of_boxes
    # n draws know their scatter to this share, by their kurtosis
    error = math.sqrt((stats.kurtosis(infinite) + 2) / (4 * n))
    # the error taken is the larger of v and 3 v - 2 v, v the true variance, the latter with the noise of
    # 20 bootstraps, 3 v sqrt(2 / 19): v (1 + 3 sqrt(2 / 19) / sqrt(2 pi)). Of few boxes up to twice too large
    most = math.sqrt(1 + 3 * math.sqrt(2 / 19 / (2 * math.pi))) if structure[0] > 10 else 2
    assert 1 - 4 * error < std.mean() / infinite.std() < most * (1 + 4 * error)


def bias(n: int, p: int) -> float:
    """<d^2> of two sets of n normal vectors of one law, to the order 1/n: of means, then of covariances."""
    return 2 * p / n + p * (p + 1) / (2 * n)


def test_the_limit_does_not_depend_on_n_and_the_distance_does():
    rng = np.random.default_rng(4)
    # means differ by 0.25 in each of 12 bins, in units of a scatter that holds half of it
    truth = 12 * 0.25**2 / (1 + 0.25**2 / 4)
    for n, repeats in ((100, 4), (1600, 1)):
        found = [
            quick(measured(rng.normal(size=(n, 12))), measured(rng.normal(0.25, 1.0, size=(n, 12))))
            for _ in range(repeats)
        ]
        error = math.sqrt(np.mean([c.std**2 for c in found]) / repeats)
        assert np.mean([c.infinite for c in found]) == pytest.approx(truth, abs=4 * error)
        # the next order of the bias is smaller by p / n
        next_order = bias(n, 12) * 12 / n
        assert np.mean([c.distance for c in found]) == pytest.approx(
            truth + bias(n, 12), abs=4 * error + next_order
        )
        # the scatter of 100 bootstraps of the floor is at most that of the distance
        assert np.mean([c.floor for c in found]) == pytest.approx(
            bias(n, 12), abs=4 * error / math.sqrt(100) + next_order
        )


def test_a_lost_feature_and_a_lost_correlation_are_found():
    reference, equal, (moved, wider, shuffled) = other_laws(seed=5)
    found = frechet_distance(reference, equal)
    assert found.p > 0.01
    assert found.infinite == pytest.approx(0, abs=4 * found.std)
    # in units of the scatter of both: of the means, of the spread, and of the eigenvalues of the correlation
    eigenvalues = np.linalg.eigvalsh(0.6 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8))))
    for other, truth in (
        (moved, 8 * 0.3**2 / (1 + 0.3**2 / 4)),
        (wider, 8 * 0.25**2 / ((1 + 1.25**2) / 2)),
        (shuffled, ((np.sqrt(eigenvalues) - 1) ** 2).sum()),
    ):
        found = frechet_distance(reference, other)
        assert found.p == pytest.approx(1 / 201)  # the smallest of 200 permutations
        assert found.infinite == pytest.approx(truth, abs=4 * found.std)


def test_maps_pooled_out_of_their_boxes_reject_the_truth():
    p = of_pooled_boxes(lambda a, b, seed: quick(a, b, 49, seed).p, 60, seed=6)
    assert np.mean(p <= 0.05) > chance(60)


def test_too_few_maps_are_refused():
    rng = np.random.default_rng(7)
    with pytest.raises(InputError, match="needs at least 4 simulations and 16 maps"):
        frechet_distance(draw(rng, 12, 1), draw(rng, 12, 1))
    with pytest.raises(InputError, match="needs at least 4 simulations"):
        frechet_distance(draw(rng, 3, 10), draw(rng, 30, 1))
