"""Errors and floors of the report against what repeated draws show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from evaluation.base import Measured
from evaluation.compare import compare_measured
from evaluation.ks import pixel_cdf
from evaluation.literature import ks_distance, ks_probability, literature_tests
from evaluation.residuals import Residual, power_error, residual, simulation_means, standard_error


class Curve:
    """A statistic that was measured elsewhere."""

    label, unit, n_modes, log = "x", "multipole", None, True

    def __init__(self, name: str, bins: int) -> None:
        self.name, self.abscissa = name, np.arange(1.0, bins + 1)

    def __call__(self, values):
        raise NotImplementedError


def drawn(rng, boxes: int, per_box: int, bins: int, shift: float = 0.0) -> Measured:
    """Mean 10, 1 between boxes, 2 inside a box."""
    box = np.repeat(rng.standard_normal((boxes, bins)), per_box, axis=0)
    x = 10 + shift + box + 2 * rng.standard_normal((boxes * per_box, bins))
    return Measured(x, np.repeat(np.arange(boxes), per_box), np.zeros(boxes * per_box, int))


def compared(name: str, a: Measured, b: Measured):
    return compare_measured(Curve(name, a.vectors.shape[1]), a, b, n_bootstrap=50, n_permutations=50, seed=0)


def test_means_and_errors_take_boxes_as_units():
    rng = np.random.default_rng(0)
    m = drawn(rng, 12, 4, 3)
    assert simulation_means(m) == pytest.approx(m.vectors.reshape(12, 4, 3).mean(1))
    many = [drawn(rng, 12, 4, 50) for _ in range(20)]
    seen = np.std([x.vectors.mean(0) for x in many], axis=0).mean()
    told = np.mean([standard_error(x) for x in many])
    assert told == pytest.approx(seen, rel=0.08)
    assert told == pytest.approx(np.sqrt((1 + 4 / 4) / 12), rel=0.04)


@pytest.mark.parametrize(("boxes", "per_box"), [(12, 4), (48, 1)])
def test_the_floor_is_the_scatter_of_true_samples(boxes, per_box):
    rng = np.random.default_rng(1)
    seen, told, errors = [], [], []
    for _ in range(60):
        a, b = drawn(rng, 12, 4, 20), drawn(rng, boxes, per_box, 20)
        r = residual(compared("power", a, b), a, b)
        seen.append(r.values)
        told.append(r.floor)
        errors.append(r.std)
    assert np.mean(told) == pytest.approx(np.std(seen), rel=0.06)
    assert np.mean(errors) == pytest.approx(np.std(seen), rel=0.06)


def test_ratios_and_peaks_have_their_own_scale():
    rng = np.random.default_rng(2)
    a, b = drawn(rng, 8, 4, 5), drawn(rng, 8, 4, 5, shift=1.0)
    means = a.vectors.mean(0), b.vectors.mean(0)
    ratio = residual(compared("power", a, b), a, b)
    assert ratio.of == "mean" and ratio.values == pytest.approx(100 * (means[1] / means[0] - 1))
    peak = residual(compared("V2", a, b), a, b)
    assert peak.of == "peak" and peak.values == pytest.approx(
        100 * (means[1] - means[0]) / np.abs(means[0]).max()
    )
    assert peak.low == pytest.approx(np.quantile(a.vectors, 0.16, axis=0))


def test_an_empty_bin_has_no_ratio():
    rng = np.random.default_rng(3)
    a, b = drawn(rng, 8, 4, 3), drawn(rng, 8, 4, 3)
    a.vectors[:, 1] = b.vectors[:, 1] = 0
    r = residual(compared("pdf", a, b), a, b)
    assert np.isnan(r.values[1]) and np.isfinite(r.values[[0, 2]]).all()
    assert r.worst() in (0, 2)


def test_the_worst_bin_is_the_largest_clear_one():
    values, std = np.array([1.0, -9.0, 30.0, np.nan, 2.0]), np.array([0.1, 1.0, 20.0, 1.0, 0.0])
    r = Residual(values, std, std, *(std,) * 4, of="mean")
    assert r.worst() == 1, "30 +- 20 is not clear, 1 +- 0.1 is small"
    faint = Residual(values, 20 * std, std, *(std,) * 4, of="mean")
    assert faint.worst() == 0, "nothing is clear: the most significant"


def test_the_power_error_is_of_the_bins_up_to_k_max_and_its_floor_of_true_samples():
    rng = np.random.default_rng(4)
    largest, floor = [], []
    for i in range(40):
        a, b = drawn(rng, 12, 4, 10), drawn(rng, 12, 4, 10)
        c = compared("power", a, b)
        e = power_error(c, residual(c, a, b), a, k_max=6.0, n_splits=60, seed=i)
        assert e.n_bins == 6 and e.at <= 6
        assert e.largest == pytest.approx(np.abs(c.relative_error[:6]).max())
        largest.append(e.largest)
        floor.append(e.floor)
    assert np.mean(floor) == pytest.approx(np.median(largest), rel=0.15)
    a, b = drawn(rng, 12, 4, 10), drawn(rng, 12, 4, 10, shift=3.0)
    c = compared("power", a, b)
    e = power_error(c, residual(c, a, b), a, k_max=6.0, n_splits=60, seed=0)
    assert e.signed > 0.2 and 0 < e.surely < e.largest


def test_ks_distance_and_probability_are_scipys():
    rng = np.random.default_rng(5)
    for n, m in ((50, 50), (60, 90)):
        a, b = rng.standard_normal((n, 8)), 1.1 * rng.standard_normal((m, 8))
        a[:, :3], b[:, :3] = a[:, :3].round(1), b[:, :3].round(1)  # ties
        exact = [ks_2samp(x, y, method="exact") for x, y in zip(a.T, b.T, strict=True)]
        assert ks_distance(a, b) == pytest.approx([e.statistic for e in exact], abs=1e-12)
        if n == m:
            p = ks_probability(ks_distance(a, b), n, m)
            assert p == pytest.approx([e.pvalue for e in exact], abs=0.006)


def test_the_seeds_tests_stand_beside_real_against_real():
    """Boxes that share structure make the classical p too small for real against real as well."""
    rng = np.random.default_rng(6)
    names = ("power", "V0", "V1", "V2")
    real, made, off = ({s: drawn(rng, *shape, 100, shift) for s in names}
                       for shape, shift in (((24, 8), 0), ((192, 1), 0), ((192, 1), 1.5)))  # fmt: skip
    levels = torch.linspace(-6, 6, 1001)
    white = [torch.from_numpy(rng.standard_normal((192, 1, 8, 8)) + s) for s in (0, 0, 0.2)]
    pixels = [Measured(pixel_cdf(x, levels), real["power"].simulation, np.zeros(192)) for x in white]
    same = literature_tests(pixels[0], pixels[1], 64, real, made, n_splits=8)
    assert same.n_maps == 96 and same.fourier.n == 100 and same.minkowski.n == 300
    assert same.fourier.real_above_05 < 85, "halves of real boxes are rejected more often than 5 %"
    assert same.fourier.above_05 > same.fourier.real_above_05 - 5
    different = literature_tests(pixels[0], pixels[2], 64, real, off, n_splits=8)
    assert different.fourier.above_05 < 20
    assert different.pixel_D > 2 * different.real_pixel_D
    assert different.pixel_D == pytest.approx(0.08, abs=0.015), "2 Phi(0.1) - 1"
    assert different.pixel_p < 1e-6
