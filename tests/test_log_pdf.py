"""Densities over many decades: against the normal law of their logarithm, none lost, decade by decade."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.base import Measured
from evaluation.compare import compare_measured
from evaluation.decades import by_decade
from evaluation.joint import pooled
from evaluation.log_pdf import LogBins, LogPDF
from evaluation.residuals import residual
from gen.errors import InputError


def lognormal(n: int, seed: int, sigma: float = 3.0) -> torch.Tensor:
    """Cells independent, log10 x normal with ``sigma`` ln 10 dex: many decades."""
    g = torch.randn(n, 1, 16, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.exp(sigma * g)


def test_lognormal_cells_have_the_normal_density_of_their_logarithm():
    x = lognormal(60, 1)
    pdf = LogPDF.from_reference(x)
    found = pdf(x).numpy()
    cdf = stats.norm.cdf(np.log(pdf.bins.edges), scale=3.0)
    cdf[0], cdf[-1] = 0, 1  # the ends are open
    expected = np.diff(cdf) * pdf.bins.per_decade
    pull = (found.mean(0) - expected) / np.sqrt(expected * pdf.bins.per_decade / (60 * 16**3))
    assert np.abs(pull).max() < 4.5
    assert np.ptp(pdf.bins.decades) + 1 >= 8, "seven decades from one side of 3.3 sigma, and more"
    np.testing.assert_allclose(found.sum(1) / pdf.bins.per_decade, 1, rtol=1e-12)


def test_no_value_is_lost_and_zeros_have_a_bin_of_their_own():
    x = lognormal(4, 2).float()
    x[:, :, :4] = 0  # a quarter
    pdf = LogPDF.from_reference(x)
    found = pdf(x).numpy()
    np.testing.assert_allclose(found[:, 0], 0.25)
    np.testing.assert_allclose(found[:, 1:].sum(1) / pdf.bins.per_decade, 0.75, rtol=1e-12)
    beyond = torch.cat([1e6 * x, 1e-15 * x])
    np.testing.assert_allclose(pdf(beyond)[:, 1:].sum(1) / pdf.bins.per_decade, 0.75, rtol=1e-12)
    assert pdf.abscissa[0] == pytest.approx(pdf.abscissa[1] / 10) and pdf.bins.decades[0] == -1
    # of a reference without zeros they lie in the lowest bin
    whole = LogPDF.from_reference(lognormal(4, 2))
    np.testing.assert_allclose(whole(x).sum(1) / whole.bins.per_decade, 1, rtol=1e-12)


def test_a_change_of_unit_moves_the_bins_and_nothing_else():
    x = lognormal(3, 3)
    a, b = LogPDF.from_reference(x), LogPDF.from_reference(1e9 * x)
    np.testing.assert_allclose(b.abscissa, 1e9 * a.abscissa)
    np.testing.assert_allclose(a(x), b(1e9 * x))


def test_only_the_decades_that_are_wrong_do_not_hold():
    """The lowest three decades of every second map thinned by a third: all above them stand."""
    real, made = lognormal(80, 4), lognormal(80, 5)
    pdf = LogPDF.from_reference(real)
    edge = float(pdf.bins.edges[3 * pdf.bins.per_decade])
    low = (made < edge) & (torch.rand(made.shape, generator=torch.Generator().manual_seed(1)) < 0.3)
    made[low] = edge * 30  # they go to the decade above the next
    a, b = (Measured(pdf(x).numpy(), np.arange(80), np.zeros(80, int)) for x in (real, made))
    c = compare_measured(pdf, a, b, n_bootstrap=50, n_permutations=50)
    found = by_decade(pdf.bins, c, residual(c, a, b), 2.0)
    n = len(found.excess)
    assert len(found.low) == n and math.log10(found.low[0] / found.low[-1]) == pytest.approx(n - 1)
    holds = [x is not None and x <= 2 for x in found.excess]
    assert not any(holds[-3:]) and all(holds[: n - 5]), found
    assert found.n_within == sum(holds)


def test_a_perfect_emulator_has_excess_one_in_every_decade():
    """rms over many pairs; few cells of the highest decade scatter by more than a Gaussian."""
    pdf = LogPDF.from_reference(lognormal(20, 6))
    squares = []
    for seed in range(30):
        rows = [
            Measured(pdf(lognormal(12, 100 + 2 * seed + i)).numpy(), np.arange(12), np.zeros(12, int))
            for i in range(2)
        ]
        c = compare_measured(pdf, *rows, n_bootstrap=50, n_permutations=50)
        excess = by_decade(pdf.bins, c, residual(c, *rows), 2.0).excess
        squares.append([np.nan if x is None else x**2 for x in excess])
    rms = np.sqrt(np.nanmean(squares, axis=0))
    assert np.abs(rms[1:-1] - 1).max() < 0.35 and rms[1:-1].mean() == pytest.approx(1, abs=0.12)


def test_nothing_positive_is_refused():
    with pytest.raises(InputError, match="need positive values"):
        LogBins.of(np.zeros(9))


def test_cosmologies_of_different_decades_are_pooled_over_the_highest_ones() -> None:
    wide, narrow = (np.arange(3 * n, dtype=float).reshape(3, n) for n in (8, 4))
    both = pooled([Measured(x, np.arange(3), np.zeros(3, dtype=int)) for x in (wide, narrow)])
    assert np.array_equal(both.vectors, np.concatenate([wide[:, -4:], narrow]))
    assert len(np.unique(both.simulation)) == 6
