from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from test_compare import STRUCTURES, draw

from evaluation.anderson_darling import anderson_darling
from evaluation.base import Measured
from evaluation.energy import energy_distance
from gen.errors import InputError


def measured(x: np.ndarray) -> Measured:
    return Measured(x.reshape(len(x), -1), np.arange(len(x)), np.zeros(len(x), int))


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
    boxes, maps, alike, strata, samples = structure
    rng = np.random.default_rng(3)
    found = []
    for t in range(250):
        a, b = draw(rng, boxes, maps, alike, strata), draw(rng, samples, 1, 0.0, strata)
        found.append(energy_distance(a, b, n_permutations=99, seed=t).p - rng.random() / 100)
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_maps_pooled_out_of_their_boxes_reject_the_truth():
    rng = np.random.default_rng(4)
    found = []
    for t in range(100):
        a, b = draw(rng, 8, 8, 0.6), draw(rng, 64, 1)
        pooled = Measured(a.vectors, np.arange(len(a)), a.stratum)
        energy = energy_distance(pooled, b, n_permutations=49, seed=t).p
        found.append((energy, anderson_darling(pooled, b, n_permutations=49, seed=t).p[0]))
    assert np.mean(np.array(found) <= 0.05, axis=0).min() > 0.2  # nominal 5 +- 2 %


def test_energy_sees_shift_scatter_and_correlation():
    rng = np.random.default_rng(5)
    a, other = draw(rng, 512, 1), draw(rng, 512, 1)
    shuffled = Measured(rng.permuted(other.vectors, axis=0), other.simulation, other.stratum)
    for b in (draw(rng, 512, 1, shift=0.25), draw(rng, 512, 1, spread=1.25), shuffled):
        found = energy_distance(a, b, n_permutations=200)
        assert found.p < 0.01
        assert found.excess > 2
    assert energy_distance(a, other, n_permutations=200).excess < 2


# --- Anderson and Darling -------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_anderson_darling_is_scipys(ties):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(30, 5)), rng.normal(0.3, 1.4, size=(30, 5))
    if ties:
        x, y = np.round(x), np.round(y)
    found = anderson_darling(measured(x), measured(y), n_permutations=0).A2
    resampled = stats.PermutationMethod(n_resamples=9, rng=rng)
    theirs = [stats.anderson_ksamp([x[:, i], y[:, i]], variant="right", method=resampled) for i in range(5)]
    # theirs is (A2 - 1) / sigma, sigma a number of n and m near to the root of 2 (pi^2 - 9) / 3
    sigma = (found - 1) / [t.statistic for t in theirs]
    np.testing.assert_allclose(sigma, sigma[0], rtol=1e-9)
    assert sigma[0] == pytest.approx(math.sqrt(2 * (math.pi**2 - 9) / 3), rel=0.05)


@pytest.mark.parametrize("structure", STRUCTURES[:2])
def test_anderson_darling_p_is_uniform_under_equal_laws(structure):
    boxes, maps, alike, strata, samples = structure
    rng = np.random.default_rng(7)
    found = []
    for t in range(250):
        a, b = draw(rng, boxes, maps, alike, strata), draw(rng, samples, 1, 0.0, strata)
        found.append(anderson_darling(a, b, n_permutations=99, seed=t).p[3] - rng.random() / 100)
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_tails_weigh_more_than_in_kolmogorov_smirnov():
    # 5 % of the maps moved far out on one side
    rng = np.random.default_rng(8)
    found = []
    for t in range(40):
        x, y = rng.normal(size=(2, 512, 1))
        y[:26] = 3 + rng.exponential(size=(26, 1))
        p = anderson_darling(measured(x), measured(y), n_permutations=99, seed=t).p[0]
        found.append((p, stats.ks_2samp(x[:, 0], y[:, 0])[1]))
    here, there = np.mean(np.array(found) <= 0.05, axis=0)
    assert here > 0.4 > 1.5 * there


def test_what_cannot_be_compared_is_refused():
    for test in (energy_distance, anderson_darling):
        with pytest.raises(InputError, match="same bins"):
            test(measured(np.zeros((9, 2))), measured(np.zeros((9, 3))))
        with pytest.raises(InputError, match="not finite"):
            test(measured(np.zeros((9, 2))), measured(np.full((9, 2), np.inf)))
