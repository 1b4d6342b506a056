from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.base import Measured, Sample, measure, strata_of
from evaluation.compare import Comparison, compare, compare_measured, correct, holm, pixel_ks
from evaluation.floor import Floor, rms
from evaluation.ks import Sides, ks_distances, permutation_p
from evaluation.pdf import Moments, PixelPDF
from evaluation.resampling import Boxes, bootstrap_weights, side_weights
from evaluation.variance import Components, Side
from gen.errors import InputError

N_BINS = 8


class Toy:
    """A statistic in name only: its vectors are drawn, not measured."""

    name, label, unit, n_modes, log = "toy", "toy", "1", None, False

    def __init__(self, n_bins: int = N_BINS) -> None:
        self.abscissa = np.arange(float(n_bins))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return values.flatten(1)[:, : len(self.abscissa)].double()


def draw(rng, boxes, maps, alike=0.0, strata=1, shift=0.0, spread=1.0, n_bins=N_BINS) -> Measured:
    """Normal vectors with correlated bins; maps of one box share the fraction ``alike`` of their variance.

    Strata differ in mean and in scatter by far more than the scatter itself.
    """
    mix = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(n_bins), np.arange(n_bins))))
    rows = []
    for s in range(strata):
        common = np.repeat(rng.normal(size=(boxes, n_bins)), maps, axis=0)
        own = rng.normal(size=(boxes * maps, n_bins))
        x = (math.sqrt(alike) * common + math.sqrt(1 - alike) * own) @ mix.T
        rows.append((10 + 5 * s) * (1 + 0.1 * (spread * x + shift)))
    stratum = np.repeat(np.arange(strata), boxes * maps)
    box = np.repeat(np.arange(strata * boxes), maps)
    return Measured(np.concatenate(rows), box, stratum)


def judged(a: Measured, b: Measured, seed: int = 0, n: int = 99) -> Comparison:
    return compare_measured(Toy(a.vectors.shape[1]), a, b, n_bootstrap=40, n_permutations=n, seed=seed)


# --- Kolmogorov and Smirnov -----------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_ks_distance_is_scipys(ties):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(37, 5)), rng.normal(0.3, 1.2, size=(61, 5))
    if ties:
        a, b = np.round(a), np.round(b)
        a[:, 4] = b[0, 4] = 0
        b[:, 4] = 0
    c = judged(Measured(a, np.arange(37), np.zeros(37)), Measured(b, np.arange(61), np.zeros(61)))
    for i in range(5):
        theirs = stats.ks_2samp(a[:, i], b[:, i])
        assert c.ks_D[i] == pytest.approx(theirs.statistic, abs=1e-6)
        assert c.ks_p_independent[i] == pytest.approx(theirs.pvalue, rel=1e-6)


def test_ks_p_of_independent_maps_is_the_exact_one():
    # every map its own box: permutation is the classical exact test
    rng = np.random.default_rng(2)
    a, b = draw(rng, 20, 1), draw(rng, 20, 1, shift=0.4)
    c = judged(a, b, n=4000)
    exact = [
        stats.ks_2samp(x, y, method="exact").pvalue for x, y in zip(a.vectors.T, b.vectors.T, strict=True)
    ]
    np.testing.assert_allclose(c.ks_p, exact, atol=4 * 0.5 / math.sqrt(4000))


def test_weights_of_sides_give_each_stratum_its_share():
    first = np.array([[1], [0], [0], [1], [0]], dtype=bool)
    stratum = np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(side_weights(first, stratum, 2)[:, 0], [0.5, -0.25, -0.25, 0.5, -0.5])


def test_strata_are_aligned_before_they_are_pooled():
    # a small shift at every cosmology drowns in the spread between cosmologies unless that is taken out
    rng = np.random.default_rng(3)
    a, b = (draw(rng, 4, 10, strata=6, shift=s) for s in (0.0, 1.0))
    raw = ks_distances(
        np.concatenate([a.vectors, b.vectors]), np.repeat([[1 / 240], [-1 / 240]], 240, axis=0)
    )
    c = judged(a, b)
    assert raw.max() < 0.2
    assert c.ks_D.min() > 0.3
    assert c.ks_p.max() <= 0.02


# --- calibration: what true maps score --------------------------------------------------------------


STRUCTURES = [  # boxes, maps in each, how alike, strata, samples in each
    (8, 8, 0.3, 1, 64),  # boxes against as many independent maps
    (8, 8, 0.3, 1, 256),  # against four times as many
    (10, 6, 0.0, 1, 60),  # boxes whose maps are not alike
    (2, 8, 0.2, 6, 16),  # two boxes at each of six cosmologies
]


@pytest.mark.parametrize(("boxes", "maps", "alike", "strata", "samples"), STRUCTURES)
def test_true_maps_have_uniform_p_values(boxes, maps, alike, strata, samples):
    rng = np.random.default_rng(4)
    p, ks = [], []
    for t in range(400):
        a, b = draw(rng, boxes, maps, alike, strata), draw(rng, samples, 1, 0.0, strata)
        sides = Sides.of(a, b, 99, seed=t)
        weights, z = sides.weights(), sides.standardised()
        p.append(permutation_p(rms(weights.T @ z)[:, None])[0])
        if t < 100:
            ks.append(permutation_p(ks_distances(z, weights)))
    # binomial: 5 +- 1.1 % and 50 +- 2.5 % of 400; KS of few boxes is a little cautious
    assert 0.015 < np.mean(np.array(p) <= 0.05) < 0.09
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.09)
    assert np.mean(np.array(ks) <= 0.05) < 0.08
    assert np.mean(np.array(ks) <= 0.5) == pytest.approx(0.47, abs=0.1)


@pytest.mark.parametrize(("boxes", "maps", "alike", "strata", "samples"), STRUCTURES)
def test_true_maps_have_an_excess_of_one(boxes, maps, alike, strata, samples):
    rng = np.random.default_rng(5)
    found = []
    for t in range(70):
        c = judged(draw(rng, boxes, maps, alike, strata), draw(rng, samples, 1, 0.0, strata), seed=t)
        family = correct([c])[0].ks_p_family.min() <= 0.05
        found.append((c.excess**2, c.excess_conditional**2, c.ks_D.mean() / c.ks_floor.mean(), family))
    excess, conditional, ks, family = np.mean(found, axis=0)
    # 70 excesses of about 4 independent bins know their rms to 6 %; few boxes know their own floor to 10 %
    assert math.sqrt(excess) == pytest.approx(1, abs=0.18)
    assert math.sqrt(conditional) == pytest.approx(1, abs=0.18)
    assert ks == pytest.approx(1, abs=0.08)
    assert family < 0.16  # 5 +- 2.6 %


def test_maps_permuted_one_by_one_would_reject_the_truth():
    # the negative control of the test above: not told which maps share a box
    rng = np.random.default_rng(4)
    p = []
    for t in range(30):
        a, b = draw(rng, 8, 16, 0.6), draw(rng, 128, 1)
        blind = replace(a, simulation=np.arange(len(a)))
        p.append(judged(blind, b, seed=t).ks_p)
    assert np.mean(np.array(p) <= 0.05) > 0.2


def test_equal_boxes_on_both_sides():
    rng = np.random.default_rng(5)
    found = [judged(draw(rng, 16, 6, 0.4), draw(rng, 16, 6, 0.4), seed=t) for t in range(80)]
    assert math.sqrt(np.mean([c.excess**2 for c in found])) == pytest.approx(1, abs=0.15)
    assert np.mean([c.distance_p <= 0.05 for c in found]) < 0.12
    # as boxes come, the mean is noisier than that of independent maps, and the floor higher
    a = draw(rng, 8, 24, 0.5)
    assert judged(a, draw(rng, 8, 24, 0.5)).floor > 1.2 * judged(a, draw(rng, 192, 1)).floor


def test_the_interval_of_a_perfect_generator_is_where_it_scores():
    rng = np.random.default_rng(6)
    inside = []
    for t in range(100):
        c = judged(draw(rng, 12, 6, 0.3), draw(rng, 72, 1), seed=t)
        assert c.excess_null[0] < 1 < c.excess_null[1]
        inside.append(c.excess_null[0] <= c.excess <= c.excess_null[1])
    assert 0.5 < np.mean(inside) < 0.85  # 68 %


# --- floor and errors, against what they stand for -------------------------------------------------


def test_floor_of_independent_maps_is_that_of_two_means():
    rng = np.random.default_rng(7)
    c = judged(draw(rng, 300, 1), draw(rng, 100, 1))
    assert c.floor == pytest.approx(math.sqrt(1 / 300 + 1 / 100), rel=1e-9)


def test_floor_is_the_rms_of_the_scaled_splits():
    rng = np.random.default_rng(8)
    for a, b in (
        (draw(rng, 9, 5, 0.4, strata=3), draw(rng, 45, 1, strata=3)),
        (draw(rng, 6, 4, 0.4), draw(rng, 6, 4, 0.4)),
    ):
        n_strata = len(np.unique(a.stratum))
        sides = [Side.of(m, m.stratum, n_strata) for m in (a, b)]
        floor = Floor.of(*sides, np.sqrt(sides[0].within()), 0)
        splits = floor.split_distances()
        assert math.sqrt((splits**2).mean()) == pytest.approx(floor.distance, rel=0.1)


def test_components_of_variance_are_recovered():
    rng = np.random.default_rng(9)
    side = Side.of(a := draw(rng, 3000, 4, alike=0.3), a.stratum, 1)
    components = Components.of(side, np.ones((1, N_BINS)))
    np.testing.assert_allclose(components.between, 0.3, rtol=0.12)
    np.testing.assert_allclose(components.within, 0.7, rtol=0.05)
    # means of sets of boxes scatter as the components say
    means = a.vectors.reshape(300, 10 * 4, N_BINS).mean(1)
    np.testing.assert_allclose(means.var(0), components.of_mean(np.full(10, 4)), rtol=0.35)


def test_scatter_of_maps_is_unbiased_though_they_come_in_boxes():
    rng = np.random.default_rng(10)
    found = []
    for _ in range(300):
        a = draw(rng, 3, 8, alike=0.5)
        found.append(Side.of(a, a.stratum, 1).variance()[0])
    np.testing.assert_allclose(np.mean(found, axis=0), 1, atol=0.1)  # plain variance: 0.85
    a = draw(rng, 50, 1)
    np.testing.assert_allclose(Side.of(a, a.stratum, 1).variance()[0], a.vectors.var(0, ddof=1))


def test_bootstrap_errors_are_the_scatter_between_universes():
    rng = np.random.default_rng(11)
    found = [judged(draw(rng, 2, 8, 0.3, strata=4), draw(rng, 16, 1, 0.0, 4), seed=t) for t in range(100)]
    for name in ("relative_error", "standard_error"):
        true = np.std([getattr(c, name) for c in found], axis=0)
        told = np.sqrt(np.mean([getattr(c, name + "_std") ** 2 for c in found], axis=0))
        assert np.mean(told / true) == pytest.approx(1, abs=0.12)


def test_bootstrap_of_two_boxes_has_the_right_variance():
    boxes = Boxes.of(np.array([0, 0, 1, 1]), np.zeros(4, dtype=int), 1)
    w = bootstrap_weights(boxes, 4000, np.random.default_rng(0))
    means = (w @ np.array([2 * 1.0, 2 * 3.0])) / (w @ boxes.size)
    assert means.var() == pytest.approx(np.var([1.0, 3.0], ddof=1) / 2, rel=0.05)


# --- what is wrong is seen -------------------------------------------------------------------------


def test_a_biased_generator_has_its_bias_and_its_distance():
    rng = np.random.default_rng(12)
    a, b = draw(rng, 24, 16, 0.2), draw(rng, 384, 1, shift=0.5)
    c = judged(a, b)
    np.testing.assert_allclose(c.relative_error, 0.05, atol=4 * c.relative_error_std.max())
    np.testing.assert_allclose(c.standard_error, 0.5, atol=4 * c.standard_error_std.max())
    np.testing.assert_allclose(c.scatter_ratio, 1, atol=4 * c.scatter_ratio_std.max())
    assert c.distance == pytest.approx(0.5, abs=0.15)
    assert c.excess == pytest.approx(c.distance / c.floor)
    assert c.excess_interval[0] < c.excess < c.excess_interval[1]
    assert c.excess > 4
    assert c.distance_p <= 0.01
    assert c.ks_p.max() <= 0.05
    assert correct([c])[0].ks_p_family.min() <= 0.01


def test_errors_that_cancel_between_cosmologies_show_in_the_conditional_excess():
    rng = np.random.default_rng(13)
    a = draw(rng, 12, 8, 0.2, strata=2)
    low, high = (draw(rng, 96, 1, strata=2, shift=s) for s in (-1.0, 1.0))
    b = Measured(np.where(low.stratum[:, None] == 0, low.vectors, high.vectors), low.simulation, low.stratum)
    c = judged(a, b)
    assert c.excess < 2.5
    assert c.excess_conditional > 4
    np.testing.assert_allclose(c.relative_error_by_stratum[0], -0.1, atol=0.06)
    np.testing.assert_allclose(c.relative_error_by_stratum[1], 0.1, atol=0.06)


def test_a_collapsed_generator_has_the_mean_and_no_scatter():
    rng = np.random.default_rng(14)
    c = judged(draw(rng, 16, 8, 0.2), draw(rng, 128, 1, spread=0.3))
    np.testing.assert_allclose(c.scatter_ratio, 0.3, atol=0.06)
    assert c.excess < 2
    assert c.ks_p.max() <= 0.05


# --- many tests ------------------------------------------------------------------------------------


def test_adjusted_p_values():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    np.testing.assert_allclose(holm(p), [0.04, 0.09, 0.09, 0.025, 0.5])
    rng = np.random.default_rng(15)
    a, b = draw(rng, 12, 4, 0.2), draw(rng, 48, 1, shift=0.3)
    first, second = judged(a, b), judged(replace(a, vectors=a.vectors**2), replace(b, vectors=b.vectors**2))
    one, two = correct([first, second])
    together = np.concatenate([first.ks_p, second.ks_p])
    assert one.n_tests == two.n_tests == 2 * N_BINS
    np.testing.assert_allclose(np.concatenate([one.ks_p_holm, two.ks_p_holm]), holm(together))
    np.testing.assert_allclose(
        np.concatenate([one.ks_p_bh, two.ks_p_bh]), stats.false_discovery_control(together)
    )
    # the second is the first under another name, so it adds tests but no chances
    np.testing.assert_allclose(one.ks_p_family, correct([first])[0].ks_p_family)
    assert (one.ks_p_family >= first.ks_p - 1e-9).all()


# --- form ------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers_and_json_holds_them():
    rng = np.random.default_rng(16)
    a, b = draw(rng, 6, 4, 0.2), draw(rng, 24, 1)
    a.vectors[:, 3] = b.vectors[:, 3] = 2.0  # a bin without scatter
    first, second = correct([judged(a, b)])[0].to_dict(), correct([judged(a, b)])[0].to_dict()
    assert first == second
    again = json.loads(json.dumps(first, allow_nan=False))
    assert again["standard_error"][3] is None
    assert again["ks_D"][3] == 0
    assert again["n_reference"] == 24
    assert again["n_simulations_reference"] == 6
    assert again["floor_basis"] == "simulations"
    assert "ks_null" not in again


def test_a_constant_bin_is_left_out_of_the_distance_but_not_of_ks():
    rng = np.random.default_rng(17)
    a, b = draw(rng, 10, 4), draw(rng, 40, 1)
    a.vectors[:, 0] = 5.0
    c, rest = judged(a, b), judged(replace(a, vectors=a.vectors[:, 1:]), replace(b, vectors=b.vectors[:, 1:]))
    assert c.distance == pytest.approx(rest.distance)
    assert c.ks_p[0] <= 0.02


def test_one_box_is_told_from_many():
    rng = np.random.default_rng(18)
    c = judged(draw(rng, 1, 30, 0.5), draw(rng, 30, 1))
    assert c.floor_basis == "maps"
    assert c.n_simulations_reference == 1
    np.testing.assert_array_equal(c.ks_p, 1)  # one real simulation cannot reject anything


def test_fields_are_measured_and_compared():
    values = torch.randn(48, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    params = torch.tensor([[0.3, 0.8], [0.2, 0.9]]).repeat_interleave(24, 0)
    reference = Sample(values, np.repeat(np.arange(12), 4), strata_of(params))
    samples = Sample(values + 0.5, reference.simulation, strata_of(params))
    c = compare(Moments(), reference, samples, n_bootstrap=50, n_permutations=99)
    assert c.n_strata == 2
    assert c.samples_mean[0] - c.reference_mean[0] == pytest.approx(0.5, abs=1e-6)
    assert c.excess > 3
    np.testing.assert_allclose(c.scatter_ratio, 1, rtol=1e-5)
    pdf = PixelPDF.from_reference(values, n_bins=7)
    both = measure([Moments(), pdf], reference, batch_size=5)
    np.testing.assert_array_equal(both["pdf"].vectors, measure([pdf], reference)["pdf"].vectors)


def test_strata_are_the_distinct_rows_of_parameters():
    params = np.array([[0.3, 0.8], [0.1, 0.8], [0.3, 0.8], [0.1, 0.7]])
    s = strata_of(params)
    assert s[0] == s[2]
    assert len(set(s)) == 3
    np.testing.assert_array_equal(strata_of(np.zeros((3, 0))), 0)


def test_bad_input_is_told():
    rng = np.random.default_rng(19)
    a = draw(rng, 4, 4, strata=2)
    with pytest.raises(InputError, match="sets of parameters"):
        judged(a, draw(rng, 16, 1, strata=1))
    with pytest.raises(InputError, match="bins of toy"):
        compare_measured(Toy(3), a, a)
    with pytest.raises(InputError, match="at least 2 maps"):
        judged(draw(rng, 1, 1, strata=2), draw(rng, 4, 1, strata=2))
    with pytest.raises(InputError, match="not finite"):
        measure([Moments()], Sample(torch.tensor([[[[1.0, math.nan]]]])))
    with pytest.raises(InputError, match="one id for each"):
        Sample(torch.zeros(3, 1, 4, 4), np.zeros(2))
    with pytest.raises(InputError, match="different names"):
        measure([Moments(), Moments()], Sample(torch.zeros(3, 1, 4, 4)))
    with pytest.raises(InputError, match="number of permutations"):
        correct([judged(a, a, n=20), judged(a, a, n=30)])


# --- pixels ----------------------------------------------------------------------------------------


def smooth_maps(n: int, seed: int) -> torch.Tensor:
    """Maps whose pixels are far from independent: 4 x 4 lognormal values, each repeated in 8 x 8 pixels."""
    x = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    noise = torch.randn(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed + 1000))
    return torch.exp(0.5 * x).repeat_interleave(8, 2).repeat_interleave(8, 3) + 0.01 * noise


def test_pixel_ks_is_scipys_on_pooled_pixels():
    a, b = smooth_maps(7, 1), smooth_maps(9, 2) * 1.1
    found = pixel_ks(Sample(a), Sample(b), n_permutations=50)
    theirs = stats.ks_2samp(a.flatten().numpy(), b.flatten().numpy(), method="asymp")
    assert pytest.approx(theirs.statistic, abs=1e-9) == found.D
    assert found.p_pooled == pytest.approx(theirs.pvalue, rel=0.05, abs=1e-12)
    assert (found.n_pixels_reference, found.n_pixels_samples) == (7 * 1024, 9 * 1024)


def test_pooled_pixels_reject_the_truth_and_permuted_maps_do_not():
    found = [
        pixel_ks(
            Sample(smooth_maps(20, 2 * t)), Sample(smooth_maps(20, 2 * t + 1)), n_permutations=99, seed=t
        )
        for t in range(40)
    ]
    assert np.mean([f.p_pooled <= 0.05 for f in found]) > 0.5
    assert np.mean([f.p <= 0.05 for f in found]) < 0.15
    assert np.mean([f.p <= 0.5 for f in found]) == pytest.approx(0.5, abs=0.25)
    shifted = pixel_ks(Sample(smooth_maps(20, 1)), Sample(smooth_maps(20, 2) + 0.4), n_permutations=99)
    assert shifted.p <= 0.02
    assert shifted.critical_D < shifted.D
