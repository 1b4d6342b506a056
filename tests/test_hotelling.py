from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from test_compare import draw
from two_laws import chance, under_equal_laws

from evaluation.base import Measured
from evaluation.hotelling import Pair, hotelling
from gen.errors import InputError

# boxes, maps in each, how alike, strata, independent samples in each, bins
STRUCTURES = [
    (50, 1, 0.0, 1, 50, 20),  # few maps for the bins
    (20, 8, 0.3, 1, 160, 8),  # boxes of maps that are alike, against independent maps
    (4, 8, 0.3, 6, 32, 6),  # four boxes at each of six cosmologies
    (1, 20, 0.0, 10, 20, 8),  # one box at each of ten, its maps independent
]


def measured(vectors: np.ndarray, simulation: np.ndarray | None = None) -> Measured:
    n = len(vectors)
    return Measured(vectors, np.arange(n) if simulation is None else simulation, np.zeros(n, int))


def chi_squared(a: Measured, b: Measured) -> float:
    """The naive test: covariances taken for known, maps for independent."""
    d = b.vectors.mean(0) - a.vectors.mean(0)
    v = np.cov(a.vectors.T) / len(a) + np.cov(b.vectors.T) / len(b)
    return float(stats.chi2.sf(d @ np.linalg.solve(v, d), len(d)))


def test_one_bin_is_welchs_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(12, 1)), rng.normal(0.5, 3.0, size=(30, 1))
    found, theirs = hotelling(measured(a), measured(b)), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue[0], rel=1e-10)
    assert pytest.approx(theirs.statistic[0] ** 2, rel=1e-10) == found.T2
    assert found.df_2 == pytest.approx(theirs.df[0], rel=1e-10)


def test_invariant_under_any_linear_map_of_the_bins():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(40, 5)), rng.normal(0.2, 1.5, size=(60, 5))
    turn = rng.normal(size=(5, 5))
    one, two = (hotelling(measured(a @ m), measured(b @ m)) for m in (np.eye(5), turn))
    assert pytest.approx(one.F, rel=1e-8) == two.F
    assert two.p == pytest.approx(one.p, rel=1e-8)


def test_boxes_are_observations():
    # three equal maps in each box say no more than one
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(20, 4)), rng.normal(size=(25, 4))
    thrice = [measured(np.repeat(x, 3, axis=0), np.repeat(np.arange(len(x)), 3)) for x in (a, b)]
    once = hotelling(measured(a), measured(b))
    assert pytest.approx(once.F, rel=1e-10) == hotelling(*thrice).F
    assert hotelling(*thrice).df_2 == pytest.approx(once.df_2, rel=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_p_is_uniform_under_equal_means(structure):
    *rest, p = structure
    found = under_equal_laws(lambda a, b, _: hotelling(a, b).p, tuple(rest), 400, math.inf, 4, n_bins=p)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(found < 0.05) < chance(400)


@pytest.mark.parametrize("structure", STRUCTURES[:2])
def test_a_naive_chi_squared_rejects_the_truth(structure):
    *rest, p = structure
    found = under_equal_laws(lambda a, b, _: chi_squared(a, b), tuple(rest), 200, math.inf, 5, n_bins=p)
    assert np.mean(found < 0.05) > chance(200)


def test_a_shift_is_found_and_measured():
    rng = np.random.default_rng(6)
    a, b = draw(rng, 64, 4, 0.3, 2), draw(rng, 256, 1, 0.0, 2, shift=0.4)
    found = hotelling(a, b)
    assert found.p < 1e-4  # a single bin is 5 errors away
    np.testing.assert_allclose(found.difference, 0.4, atol=4 * found.difference_std.max())
    # two strata of 64 boxes, variance of a mean box (0.3 + 0.7/4), against 256 maps
    std = math.sqrt((0.475 / 64 + 1 / 256) / 2)
    np.testing.assert_allclose(found.difference_std, std, rtol=4 / math.sqrt(2 * 126))


def test_bins_that_add_up_to_one_are_one_fewer():
    rng = np.random.default_rng(7)
    counts = [rng.multinomial(1000, [0.1, 0.2, 0.3, 0.4], size=n) / 1000.0 for n in (60, 80)]
    whole, fewer = (hotelling(*(measured(c[:, k]) for c in counts)) for k in (slice(4), slice(3)))
    assert whole.df_1 == fewer.df_1 == 3
    assert whole.p == pytest.approx(fewer.p, rel=1e-6)


def test_joined_bins_are_means_in_units_of_scatter():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(50, 6)) * [1, 100, 1, 1, 0, 5]
    pair = Pair.of(measured(x), measured(x + 1e-3), n_bins=2)
    np.testing.assert_array_equal(pair.group, [0, 0, 0, 1, -1, 1])
    kept = x[:, [0, 1, 2]] / x[:, [0, 1, 2]].std(0, ddof=1)
    np.testing.assert_allclose(pair.reference[:, 0], (kept - kept.mean(0)).mean(1), atol=1e-9)


def test_too_few_boxes_are_refused():
    rng = np.random.default_rng(9)
    a, b = draw(rng, 8, 50, 0.3), draw(rng, 400, 1)
    with pytest.raises(InputError, match=r"8 bins need .* got 8 of the reference .* n_bins=5 or less"):
        hotelling(a, b)
    assert hotelling(a, b, n_bins=5).df_1 == 5
    with pytest.raises(InputError, match="not finite"):
        hotelling(measured(np.full((20, 2), np.nan)), measured(np.zeros((20, 2))))
    with pytest.raises(InputError, match="same bins"):
        hotelling(a, measured(np.zeros((20, 2))))
