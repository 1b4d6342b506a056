from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from test_compare import STRUCTURES
from two_laws import chance, of_pooled_boxes, other_laws, under_equal_laws

from evaluation.anderson_darling import anderson_darling
from evaluation.base import Measured
from evaluation.energy import energy_distance
from gen.errors import InputError


def measured(x: np.ndarray) -> Measured:
    return Measured(x.reshape(len(x), -1), np.arange(len(x)), np.zeros(len(x), int))


def energy_p(a: Measured, b: Measured, seed: int) -> float:
    return energy_distance(a, b, n_permutations=99, seed=seed).p


def anderson_darling_p(a: Measured, b: Measured, seed: int) -> float:
    return float(anderson_darling(a, b, n_permutations=99, seed=seed).p[3])


# --- energy distance ----------------------------------------------------------------------------------


def test_of_one_bin_it_is_the_square_of_scipys():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=40), rng.normal(0.5, 1.5, size=40)
    scale = np.concatenate([x, y]).std()
    found = energy_distance(measured(x), measured(y), n_permutations=0)
    assert found.distance == pytest.approx(stats.energy_distance(x, y) ** 2 / scale, rel=1e-12)


def test_of_many_bins_it_is_the_sum_over_all_pairs():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(15, 3)), rng.normal(0.5, 1.5, size=(15, 3))
    both = np.concatenate([x, y])
    x, y = ((v - both.mean(0)) / both.std(0) for v in (x, y))
    across, in_x, in_y = (
        np.mean([np.linalg.norm(u - v) for u in a for v in b]) for a, b in ((x, y), (x, x), (y, y))
    )
    found = energy_distance(measured(x), measured(y), n_permutations=0)
    assert found.distance == pytest.approx(2 * across - in_x - in_y, rel=1e-10)
    assert found.coefficient == pytest.approx(1 - (in_x + in_y) / (2 * across), rel=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_energy_p_is_uniform_under_equal_laws(structure):
    p = under_equal_laws(energy_p, structure, 250, 100, seed=3)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_maps_pooled_out_of_their_boxes_reject_the_truth():
    for p_value in (energy_p, anderson_darling_p):
        assert np.mean(of_pooled_boxes(p_value, 100, seed=4) <= 0.05) > chance(100)


def test_energy_sees_shift_scatter_and_correlation():
    reference, equal, others = other_laws(seed=5)
    for b in others:
        assert energy_distance(reference, b, n_permutations=200).p == pytest.approx(1 / 201)  # the smallest
    assert energy_distance(reference, equal, n_permutations=200).p > 0.01


# --- Anderson and Darling -------------------------------------------------------------------------------


def sigma(n: int, m: int) -> float:
    """Standard deviation of A^2 under equal laws without ties (Scholz & Stephens 1987, for two samples)."""
    total = n + m
    inverse, h = 1 / n + 1 / m, sum(1 / i for i in range(1, total))
    g = sum(1 / ((total - i) * j) for i in range(1, total - 1) for j in range(i + 1, total))
    terms = (
        (4 * g - 6) + (10 - 6 * g) * inverse,
        (2 * g - 4) * 4 + 16 * h + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6,
        (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * inverse + 4 * h,
        (2 * h + 6) * 4 - 8 * h,
    )
    variance = sum(c * total ** (3 - i) for i, c in enumerate(terms))
    return math.sqrt(variance / ((total - 1) * (total - 2) * (total - 3)))


@pytest.mark.parametrize("ties", [False, True])
def test_anderson_darling_is_scipys(ties):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(30, 5)), rng.normal(0.3, 1.4, size=(30, 5))
    if ties:
        x, y = np.round(x), np.round(y)
    found = anderson_darling(measured(x), measured(y), n_permutations=0).A2
    resampled = stats.PermutationMethod(n_resamples=9, rng=rng)
    theirs = [stats.anderson_ksamp([x[:, i], y[:, i]], variant="right", method=resampled) for i in range(5)]
    np.testing.assert_allclose((found - 1) / sigma(30, 30), [t.statistic for t in theirs], rtol=1e-9)


@pytest.mark.parametrize("structure", STRUCTURES[:2])
def test_anderson_darling_p_is_uniform_under_equal_laws(structure):
    p = under_equal_laws(anderson_darling_p, structure, 250, 100, seed=7)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_tails_weigh_more_than_in_kolmogorov_smirnov():
    # 5 % of the maps moved far out on one side
    rng = np.random.default_rng(8)
    here, there = np.zeros((2, 100), bool)
    for t in range(100):
        x, y = rng.normal(size=(2, 512, 1))
        y[:26] = 3 + rng.exponential(size=(26, 1))
        here[t] = anderson_darling(measured(x), measured(y), n_permutations=99, seed=t).p[0] <= 0.05
        there[t] = stats.ks_2samp(x[:, 0], y[:, 0])[1] <= 0.05
    only_here, only_there = int((here & ~there).sum()), int((there & ~here).sum())
    # where they disagree, either would be the one with even chances (McNemar's test)
    assert stats.binomtest(only_here, only_here + only_there, alternative="greater").pvalue < 1e-4


def test_what_cannot_be_compared_is_refused():
    for test in (energy_distance, anderson_darling):
        with pytest.raises(InputError, match="same bins"):
            test(measured(np.zeros((9, 2))), measured(np.zeros((9, 3))))
        with pytest.raises(InputError, match="not finite"):
            test(measured(np.zeros((9, 2))), measured(np.full((9, 2), np.inf)))
