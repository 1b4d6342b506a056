from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import linalg, stats
from test_compare import draw

from evaluation.base import Measured
from evaluation.covariance import compare_covariance
from evaluation.products import Products, Triangle
from evaluation.resampling import Boxes
from gen.errors import InputError

N_BINS = 8


def chain(correlation: float, n_bins: int = N_BINS) -> np.ndarray:
    """Correlation that falls as a power of the distance of two bins."""
    return correlation ** np.abs(np.subtract.outer(np.arange(n_bins), np.arange(n_bins)))


def normal(rng: np.random.Generator, n: int, covariance: np.ndarray) -> Measured:
    x = rng.normal(size=(n, len(covariance))) @ np.linalg.cholesky(covariance).T
    return Measured(x, np.arange(n), np.zeros(n, int))


def low(covariance: np.ndarray, factor: float = 0.75) -> np.ndarray:
    """The same with off-diagonals times ``factor``."""
    return factor * covariance + (1 - factor) * np.diag(np.diag(covariance))


def products(m: Measured) -> Products:
    stratum = np.unique(m.stratum, return_inverse=True)[1]
    return Products.of(m.vectors, Boxes.of(m.simulation, stratum, stratum.max() + 1), False)


# --- what is estimated ------------------------------------------------------------------------------


def test_a_factor_without_an_error_is_not_told():
    """Of 12 maps uncorrelated bins have no factor; those of correlation 0.9 have."""
    words = {}
    for name, truth in (("none", np.eye(4)), ("strong", chain(0.9, 4))):
        rng = np.random.default_rng(1)
        c = compare_covariance(normal(rng, 12, truth), normal(rng, 12, truth), n_permutations=9)
        words[name] = c.off_diagonal_factor
    assert words["none"] == "factor lost in noise"
    ratio, error = (float(x) for x in words["strong"].removeprefix("× ").split(" ± "))
    assert 0 < error < 0.3 and abs(ratio - 1) < 3 * error


def test_of_single_maps_it_is_the_usual_covariance():
    rng = np.random.default_rng(1)
    a, b = normal(rng, 60, chain(0.5)), normal(rng, 90, low(chain(0.5)))
    c = compare_covariance(a, b, n_permutations=9, n_bootstrap=20)
    c_a, c_b = np.cov(a.vectors.T), np.cov(b.vectors.T)
    np.testing.assert_allclose(c.reference_correlation, np.corrcoef(a.vectors.T), atol=1e-12)
    np.testing.assert_allclose(c.samples_correlation, np.corrcoef(b.vectors.T), atol=1e-12)
    np.testing.assert_allclose(c.diagonal_ratio, np.diag(c_b) / np.diag(c_a), rtol=1e-12)
    theirs = linalg.eigh(c_b, c_a, eigvals_only=True)
    np.testing.assert_allclose(c.eigenvalue_ratio, theirs[::-1], rtol=1e-10)


def test_products_are_half_the_differences_of_maps_of_different_boxes():
    rng = np.random.default_rng(2)
    x, box = rng.normal(size=(9, 3)), np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    pairs = [np.outer(u - v, u - v) / 2 for u, k in zip(x, box) for v, m in zip(x, box) if k != m]  # noqa: B905
    y = products(Measured(x, box, np.zeros(9, int))).y.mean(0)
    np.testing.assert_allclose(Triangle(3).square(y), np.mean(pairs, axis=0), atol=1e-12)


def test_covariance_of_maps_that_share_boxes_is_that_of_a_map():
    # the usual estimate misses 0.11 of it (the mean of 4 boxes has 1/8 of the variance)
    rng = np.random.default_rng(3)
    found, usual = [], []
    for _ in range(400):
        a = draw(rng, 4, 8, 0.5)
        found.append(Triangle(N_BINS).square(products(a).y.mean(0)))
        usual.append(np.cov(a.vectors.T))
    truth = chain(0.6)
    error = np.std(found, axis=0).max() / 20
    np.testing.assert_allclose(np.mean(found, axis=0), truth, atol=4 * error)
    assert np.diag(np.mean(usual, axis=0)).max() < 0.93


def test_strata_of_other_mean_and_amplitude_do_not_correlate_bins():
    rng = np.random.default_rng(4)
    a, b = (draw(rng, 200, 1, strata=5) for _ in range(2))
    c = compare_covariance(a, b, n_permutations=9, n_bootstrap=20)
    np.testing.assert_allclose(c.reference_correlation, chain(0.6), atol=4 / np.sqrt(1000))
    assert np.abs(np.corrcoef(a.vectors.T) - chain(0.6)).max() > 0.3  # strata pooled as they are


# --- calibration ------------------------------------------------------------------------------------

# boxes, maps in each, how alike, strata, independent samples in each, bins
STRUCTURES = [
    (100, 1, 0.0, 1, 100, 8),
    (16, 8, 0.4, 1, 128, 8),
    (8, 8, 0.3, 4, 64, 6),
    (2, 8, 0.2, 12, 16, 6),
]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_p_values_are_uniform_and_excess_is_one_under_equal_laws(structure):
    boxes, maps, alike, strata, samples, p = structure
    rng = np.random.default_rng(5)
    found, excess, pull = [], [], []
    for t in range(250):
        a = draw(rng, boxes, maps, alike, strata, n_bins=p)
        b = draw(rng, samples, 1, 0.0, strata, n_bins=p)
        c = compare_covariance(a, b, n_permutations=99, n_bootstrap=40, seed=t)
        found.append((c.diagonal_p, c.off_diagonal_p, c.off_diagonal_ratio_p))
        excess.append((c.diagonal_excess**2, c.off_diagonal_excess**2))
        pull.append((c.off_diagonal_ratio - 1) / c.off_diagonal_ratio_std)
    for column in np.transpose(found):
        smeared = column - rng.random(len(column)) / 100  # p comes in hundredths
        assert stats.kstest(smeared, "uniform").pvalue > 0.01
    # 250 excesses^2 of a few independent bins are known to 5 %; few boxes know their own floor to 10 %
    np.testing.assert_allclose(np.sqrt(np.mean(excess, axis=0)), 1, atol=0.15)
    # 250 pulls: their scatter is known to 4 %, and 40 bootstraps scatter each error by 11 %
    assert np.std(pull) == pytest.approx(1, abs=0.2)
    assert np.mean(pull) == pytest.approx(0, abs=0.35)


def test_maps_pooled_out_of_their_boxes_reject_the_truth():
    rng = np.random.default_rng(6)
    found = []
    for t in range(100):
        a, b = draw(rng, 10, 20, 0.6), draw(rng, 200, 1)
        pooled = Measured(a.vectors, np.arange(len(a)), a.stratum)
        c = compare_covariance(pooled, b, n_permutations=49, n_bootstrap=4, seed=t)
        found.append((c.diagonal_p, c.off_diagonal_p))
    assert np.mean(np.array(found) <= 0.05, axis=0).min() > 0.2  # nominal 5 +- 2 %


# --- power ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [0.6, 0.3])
def test_off_diagonals_a_quarter_low_are_measured_and_flagged(correlation):
    rng = np.random.default_rng(7)
    truth = chain(correlation, 20)
    c = compare_covariance(normal(rng, 512, truth), normal(rng, 512, low(truth)), n_bootstrap=400)
    assert c.off_diagonal_ratio == pytest.approx(0.75, abs=3 * c.off_diagonal_ratio_std)
    assert c.off_diagonal_ratio_std < 0.08
    assert c.off_diagonal_ratio_p < 0.005
    assert c.diagonal_p > 0.01
    if correlation == 0.6:
        assert c.off_diagonal_p < 0.01
        assert c.off_diagonal_excess > 1.2
        assert c.eigenvalue_ratio[0] > c.eigenvalue_null[1, 0]


def test_scatter_a_tenth_low_leaves_the_correlations_alone():
    rng = np.random.default_rng(8)
    c = compare_covariance(normal(rng, 512, chain(0.6)), normal(rng, 512, 0.81 * chain(0.6)))
    assert c.diagonal_p < 0.01
    assert c.off_diagonal_p > 0.01
    np.testing.assert_allclose(c.diagonal_ratio, 0.81, atol=4 * c.diagonal_ratio_std.max())
    # var(log) of a ratio of two variances of 512 normal numbers: 4/511; an error of few bootstraps to 10 %
    np.testing.assert_allclose(c.diagonal_ratio_std / c.diagonal_ratio, np.sqrt(4 / 511), rtol=0.25)


def test_the_slope_has_no_bias_from_noise_in_the_reference():
    # naively the mean slope would be sum r^2 / (sum r^2 + pairs / n) = 0.6 of the truth
    rng = np.random.default_rng(9)
    truth = chain(0.3, 12)
    found = [
        compare_covariance(normal(rng, 80, truth), normal(rng, 80, truth), n_permutations=1, n_bootstrap=2)
        for _ in range(100)
    ]
    slope = np.array([c.off_diagonal_ratio for c in found])
    assert np.median(slope) == pytest.approx(1, abs=4 * 1.25 * slope.std() / np.sqrt(100))
    naive = [(c.reference_correlation * c.samples_correlation).sum() - 12 for c in found] / np.array(
        [(c.reference_correlation**2).sum() - 12 for c in found]
    )
    assert np.median(naive) < 0.75


# --- what is refused --------------------------------------------------------------------------------


def test_too_few_boxes_are_refused_and_joined_bins_are_not():
    rng = np.random.default_rng(10)
    a, b = draw(rng, 9, 30, 0.3), draw(rng, 270, 1)
    with pytest.raises(InputError, match=r"8 bins need more than 10 .* boxes, got 9 of the reference"):
        compare_covariance(a, b)
    c = compare_covariance(a, b, n_bins=4, n_permutations=19, n_bootstrap=20)
    assert c.reference_correlation.shape == (4, 4)
    np.testing.assert_array_equal(c.group, [0, 0, 1, 1, 2, 2, 3, 3])
    with pytest.raises(InputError, match="at least 2 bins"):
        compare_covariance(a, b, n_bins=1)


def test_what_does_not_scatter_is_left_out_and_collapse_is_seen():
    rng = np.random.default_rng(11)
    a, b = normal(rng, 100, chain(0.5, 4)), normal(rng, 100, chain(0.5, 4))
    a.vectors[:, 0] = b.vectors[:, 0] = 1.0
    b.vectors[:, 1] = 2.0
    c = compare_covariance(a, b, n_permutations=99, n_bootstrap=50)
    np.testing.assert_array_equal(c.group, [-1, 0, 1, 2])
    assert c.diagonal_ratio[0] == pytest.approx(0, abs=1e-12)
    assert c.diagonal_p == 0.01
    json.dumps(c.to_dict(), allow_nan=False)
