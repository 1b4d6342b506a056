from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, stats
from test_compare import draw

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
    boxes, maps, alike, strata, samples = structure
    rng = np.random.default_rng(3)
    p, found = [], []
    for t in range(200):
        a, b = draw(rng, boxes, maps, alike, strata), draw(rng, samples, 1, 0.0, strata)
        c = quick(a, b, 99, t)
        p.append(c.p - rng.random() / 100)
        found.append((c.distance, c.floor, c.infinite, c.std))
    # eight boxes make p a little cautious
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) < 0.05) < 0.05 + 3 * 0.0154
    distance, floor, infinite, std = np.mean(found, axis=0)
    # a floor of eight boxes is low by about a fifth of the boxes' own share
    assert distance / floor == pytest.approx(1, abs=0.2)
    assert abs(infinite) < distance / 3
    # errors from 20 bootstraps; those of eight boxes are too large
    assert 0.65 < std / np.std(found, axis=0)[2] < (1.35 if boxes > 8 else 1.8)


def test_the_limit_does_not_depend_on_n_and_the_distance_does():
    rng = np.random.default_rng(4)
    found = []
    for n in (100, 100, 100, 100, 1600):
        x, y = rng.normal(size=(n, 12)), rng.normal(0.25, 1.0, size=(n, 12))
        found.append(quick(measured(x), measured(y)))
    # means differ by 0.25 in each of 12 bins, in units of a scatter that holds half of it
    truth = 12 * 0.25**2 / (1 + 0.25**2 / 4)
    small = found[:4]
    assert min(c.distance for c in small) > 1.5 * truth
    assert min(c.floor for c in small) > 0.5 * truth
    std = np.sqrt(np.mean([c.std**2 for c in small]))
    assert np.mean([c.infinite for c in small]) == pytest.approx(truth, abs=3 * std / 2)
    assert found[4].infinite == pytest.approx(truth, abs=3 * found[4].std)
    assert found[4].std < std / 2


def test_a_lost_feature_and_a_lost_correlation_are_found():
    rng = np.random.default_rng(5)
    a, b = draw(rng, 512, 1), draw(rng, 512, 1)
    equal = frechet_distance(a, b)
    assert equal.p > 0.01
    assert equal.infinite == pytest.approx(0, abs=3 * equal.std)
    shuffled = Measured(rng.permuted(b.vectors, axis=0), b.simulation, b.stratum)
    for other in (shuffled, draw(rng, 512, 1, spread=0.8), draw(rng, 512, 1, shift=0.3)):
        found = frechet_distance(a, other)
        assert found.p < 0.01
        assert found.excess > 2
        assert found.infinite > 3 * found.std


def test_maps_pooled_out_of_their_boxes_reject_the_truth():
    rng = np.random.default_rng(6)
    p = []
    for t in range(60):
        a, b = draw(rng, 8, 8, 0.4), draw(rng, 64, 1)
        p.append(quick(Measured(a.vectors, np.arange(64), a.stratum), b, 49, t).p)
    assert np.mean(np.array(p) <= 0.05) > 0.2  # nominal 5 +- 3 %


def test_too_few_maps_are_refused():
    rng = np.random.default_rng(7)
    with pytest.raises(InputError, match="needs at least 4 simulations and 16 maps"):
        frechet_distance(draw(rng, 12, 1), draw(rng, 12, 1))
    with pytest.raises(InputError, match="needs at least 4 simulations"):
        frechet_distance(draw(rng, 3, 10), draw(rng, 30, 1))
