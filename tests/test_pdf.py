from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.gaussian import pixel_pdf
from evaluation.pdf import Moments, PixelPDF
from gen.errors import InputError


def noise(n: int, side: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pdf_is_numpys_histogram_of_each_map():
    x = noise(4, 32, 1)
    pdf = PixelPDF(np.sort(np.random.default_rng(0).normal(size=12)))
    found = pdf(x).numpy()
    for row, field in zip(found, x, strict=True):
        counts = np.histogram(field.numpy(), pdf.edges)[0]
        np.testing.assert_allclose(row, counts / (32**2 * np.diff(pdf.edges)), rtol=1e-12)


def test_gaussian_pixels_have_the_gaussian_density():
    x = 0.3 * noise(200, 64, 2)
    pdf = PixelPDF.from_reference(x, n_bins=30)
    found = pdf(x).numpy()
    # averaged over the bin, not at its middle
    cdf = stats.norm.cdf(pdf.edges, scale=0.3)
    expected = np.diff(cdf) / np.diff(pdf.edges)
    pull = (found.mean(0) - expected) / (found.std(0) / math.sqrt(200))
    assert np.abs(pull).max() < 4
    np.testing.assert_allclose(expected, pixel_pdf(pdf.abscissa, 0.3), rtol=0.03)
    assert (found * np.diff(pdf.edges)).sum(1).mean() == pytest.approx(0.999, abs=2e-4)


def test_edges_come_from_the_reference_alone():
    reference = noise(20, 32, 3)
    pdf = PixelPDF.from_reference(reference, n_bins=10, tail=0.01)
    low, high = np.quantile(reference.numpy(), (0.01, 0.99))
    np.testing.assert_allclose(pdf.edges, np.linspace(low, high, 11))
    np.testing.assert_array_equal(pdf(reference + 50).numpy(), 0)  # outside, not clipped into the last bin


def test_moments_are_scipys():
    x = torch.exp(noise(6, 24, 4)) + 3
    found = Moments()(x).numpy()
    flat = x.flatten(1).numpy()
    np.testing.assert_allclose(found[:, 0], flat.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], flat.std(1), rtol=1e-12)
    np.testing.assert_allclose(found[:, 2], stats.skew(flat, axis=1), rtol=1e-10)
    np.testing.assert_allclose(found[:, 3], stats.kurtosis(flat, axis=1), rtol=1e-10)


def test_a_constant_map_has_no_shape():
    np.testing.assert_array_equal(Moments()(torch.full((2, 1, 8, 8), 7.0)).numpy(), [[7, 0, 0, 0]] * 2)


def test_small_numbers_in_single_precision_keep_their_moments():
    x = noise(3, 64, 5)
    kappa = Moments()((1e-3 * x).float()).numpy()
    plain = Moments()(x).numpy()
    np.testing.assert_allclose(kappa[:, 1], 1e-3 * plain[:, 1], rtol=1e-6)
    np.testing.assert_allclose(kappa[:, 2:], plain[:, 2:], atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: PixelPDF([0.0]),
        lambda: PixelPDF([1.0, 0.0]),
        lambda: PixelPDF.from_reference(torch.zeros(3, 1, 8, 8)),
        lambda: PixelPDF.from_reference(torch.zeros(0, 1, 8, 8)),
        lambda: PixelPDF([0.0, 1.0])(torch.zeros(3, 2, 8, 8)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()
