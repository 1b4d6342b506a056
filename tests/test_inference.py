"""Inference from samples: a planted bias comes back in units of the error, equal laws give none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from evaluation.base import Measured
from evaluation.inference import infer
from gen.errors import InputError

NAMES = ("Omega_m", "sigma_8")
STRATA, BINS = 40, 8
MIX = np.random.default_rng(7).normal(size=(2, BINS))


def parameters() -> np.ndarray:
    return np.random.default_rng(0).uniform((0.1, 0.6), (0.5, 1.0), (STRATA, 2))


def drawn(
    seed: int, n_boxes: int, per_box: int, shift: tuple[float, float] = (0, 0), noise: float = 1
) -> Measured:
    """A linear response to the parameters with noise, a third of its variance shared inside a box."""
    rng = np.random.default_rng(seed)
    n = STRATA * n_boxes * per_box
    stratum = np.repeat(np.arange(STRATA), n_boxes * per_box)
    box = np.arange(n) // per_box
    scatter = rng.normal(size=(n, BINS)) * (2 / 3) ** 0.5 + rng.normal(size=(n, BINS))[box] * (1 / 3) ** 0.5
    signal = (parameters()[stratum] + np.array(shift)) @ MIX
    return Measured(signal + 0.05 * noise * scatter, box, stratum)


def test_equal_laws_have_no_bias_and_uniform_coverage() -> None:
    z, found = [], None
    for i in range(8):
        found = infer(
            drawn(100 + i, 4, 3), drawn(200 + i, 12, 1), parameters(), NAMES, n_bootstrap=200, seed=i
        )
        z.append(found.z)
        assert found.error_ratio == pytest.approx(np.ones(2), abs=0.15)
    assert np.std(z) == pytest.approx(1, abs=0.4)  # 32 values, not all independent
    assert abs(np.mean(z)) < 0.5
    assert found is not None
    assert kstest(found.coverage, "uniform").statistic < 0.1
    assert found.coverage_p > 1e-3


def test_a_planted_shift_is_the_bias() -> None:
    found = infer(drawn(1, 4, 3), drawn(2, 12, 1, shift=(0.02, 0)), parameters(), NAMES)
    expected = 0.02 / found.sigma[0]
    assert found.bias_on_samples[0] == pytest.approx(expected, abs=4 * found.bias_on_samples_std[0])
    assert found.bias_from_samples[0] == pytest.approx(-expected, abs=0.15 * expected)
    assert abs(found.bias_on_samples[1]) < 4 * found.bias_on_samples_std[1]
    assert found.z[0, 0] > 8 and found.z[1, 0] < -8
    assert found.bias_by_stratum.shape == (STRATA, 2)
    assert found.bias_by_stratum.mean(0) == pytest.approx(found.bias_on_samples)


def test_samples_of_too_little_scatter_are_overconfident_no_more_than_they_are() -> None:
    found = infer(drawn(3, 4, 3), drawn(4, 12, 1, noise=0.5), parameters(), NAMES)
    assert found.error_ratio == pytest.approx([0.5, 0.5], abs=0.12)
    assert found.coverage_p < 0.005
    assert found.coverage.std() < found.coverage_reference.std()  # posteriors too wide for them
    assert abs(found.z[0]).max() < 4


def test_the_error_of_the_bias_counts_boxes_not_maps() -> None:
    """Sixteen equal maps a box are one: the error is that of the boxes alone."""
    few = drawn(5, 4, 1)
    same = few.select(np.repeat(np.arange(len(few)), 16))
    one, many = (infer(m, few, parameters(), NAMES, seed=1).bias_on_samples_std for m in (few, same))
    assert many == pytest.approx(one, rel=0.15)


def test_what_cannot_be_done_is_refused() -> None:
    a, b = drawn(6, 2, 2), drawn(7, 4, 1)
    with pytest.raises(InputError, match="10 sets of parameters"):
        infer(a.select(a.stratum < 5), b.select(b.stratum < 5), parameters()[:5], NAMES)
    with pytest.raises(InputError, match="params must have shape"):
        infer(a, b, parameters()[:, :1], NAMES)
    a.vectors[3, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        infer(a, b, parameters(), NAMES)
