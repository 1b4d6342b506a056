from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian

from evaluation.base import Sample, measure
from evaluation.pairs import PairedPower, PairedSpectra, measure_pairs
from evaluation.power import PowerSpectrum
from gen.errors import InputError
from gen.fields import Grid

GRIDS = [
    Grid((32, 32), 10.0, "Mpc/h", periodic=True),
    Grid((24, 36), (2.0, 3.0), "deg", periodic=False),
    Grid((16, 16, 16), 10.0, "Mpc/h", periodic=True),
]


def white(n: int, grid: Grid, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, *grid.shape, generator=generator, dtype=torch.float64)


def spectrum_of(grid: Grid) -> PowerSpectrum:
    return PowerSpectrum(grid, apodise=None if grid.periodic else 0.2)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.3, -2.5])
def test_a_scaled_field_has_its_scale_and_its_sign(grid, factor):
    x = white(20, grid, 1) + 3.0
    paired = PairedSpectra(spectrum_of(grid))(torch.cat([factor * x, x], dim=1))
    curves = measure_pairs(spectrum_of(grid), factor * x, Sample(x), batch_size=7)
    for r, t, s in (
        paired.unbind(1),
        (curves.coherence().mean, curves.transfer().mean, curves.stochasticity().mean),
    ):
        np.testing.assert_allclose(r, math.copysign(1, factor), rtol=1e-12)
        np.testing.assert_allclose(t, abs(factor), rtol=1e-12)
        np.testing.assert_allclose(s, 0, atol=1e-12)
    # the same in every resampling
    np.testing.assert_allclose(curves.transfer().std, 0, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_independent_fields_share_nothing(grid):
    n = 300
    spectrum = spectrum_of(grid)
    x, y = white(n, grid, 2), 2 * white(n, grid, 3)
    found = measure_pairs(spectrum, y, Sample(x))
    error = 1 / np.sqrt(spectrum.n_modes * n)  # of r, and of ln T
    shells = slice(None) if grid.periodic else slice(2, None)  # where n_modes holds for a taper
    pull = found.coherence().mean[shells] / error[shells]
    # the modulus of each mode before the average would give pi/4
    assert np.abs(pull).max() < 4
    assert (found.stochasticity().mean > 1 - 16 * error**2)[shells].all()
    assert np.abs((found.transfer().mean / 2 - 1) / error)[shells].max() < 4
    # the bootstrap of 300 maps knows an error to 4 %, that of 1000 draws to 2 %
    np.testing.assert_allclose(found.coherence().std[shells] / error[shells], 1, atol=0.25)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_mixture_has_its_closed_form(grid):
    # s = a t + b u with P_u = c P_t: r = a / sqrt(a^2 + b^2 c), T = sqrt(a^2 + b^2 c)
    n, a, b, c = 400, 0.8, -0.5, 2.25
    x, y = white(n, grid, 4), math.sqrt(c) * white(n, grid, 5)
    spectrum = spectrum_of(grid)
    found = measure_pairs(spectrum, a * x + b * y, Sample(x))
    total = math.sqrt(a**2 + b**2 * c)
    r = a / total
    for curve, expected in (
        (found.coherence(), r),
        (found.transfer(), total),
        (found.stochasticity(), 1 - r**2),
    ):
        pull = (curve.mean - expected) / curve.std
        assert np.abs(pull).max() < 4.5  # a bootstrap error of 400 maps is itself uncertain
        assert (curve.low < curve.mean).all()
        assert (curve.mean < curve.high).all()
    # error of a correlation of M independent pairs of numbers: (1 - r^2)/sqrt(M)
    shells = slice(None) if grid.periodic else slice(2, None)
    error = (1 - r**2) / np.sqrt(spectrum.n_modes * n)
    np.testing.assert_allclose((found.coherence().std / error)[shells], 1, atol=0.25)
    # a filter of the truth alone leaves r at 1 whatever T is
    f = torch.fft.rfftn(x, dim=tuple(range(2, x.ndim))) * torch.exp(-grid.wavenumber() / grid.k_nyquist)
    smooth = torch.fft.irfftn(f, s=grid.shape, dim=tuple(range(2, x.ndim)))
    if grid.periodic:
        filtered = measure_pairs(spectrum, smooth, Sample(x))
        assert filtered.coherence().mean.min() > 0.995  # the filter varies a little inside a shell
        shape = np.exp(-spectrum.abscissa / grid.k_nyquist)
        np.testing.assert_allclose(filtered.transfer().mean, shape, rtol=0.02)


def test_simulations_are_resampled_not_maps():
    # 12 boxes of 20 equal maps: the error is that of 12, not of 240
    grid = GRIDS[0]
    spectrum = PowerSpectrum(grid, bins=6)
    x, y = white(12, grid, 6), white(12, grid, 7)
    boxes = np.repeat(np.arange(12), 20)
    copies = Sample(x.repeat_interleave(20, 0), boxes)
    many = measure_pairs(spectrum, (x + y).repeat_interleave(20, 0), copies).coherence()
    few = measure_pairs(spectrum, x + y, Sample(x)).coherence()
    np.testing.assert_allclose(many.mean, few.mean, rtol=1e-12)
    np.testing.assert_allclose(many.std, few.std, rtol=0.15)  # two bootstraps of 1000 draws
    naive = measure_pairs(spectrum, (x + y).repeat_interleave(20, 0), Sample(copies.values)).coherence()
    assert (naive.std < 0.4 * few.std).all()


def test_strata_count_equally_whatever_their_power():
    grid = GRIDS[0]
    x, y = white(40, grid, 8), white(40, grid, 9)
    stratum = np.repeat([3, 7], [10, 30])
    scale = torch.tensor(np.where(stratum == 3, 100.0, 1.0))[:, None, None, None]
    mix = torch.tensor(np.where(stratum == 3, 0.0, 1.0))[:, None, None, None]
    found = measure_pairs(
        PowerSpectrum(grid, bins=4), scale * (x + mix * y), Sample(scale * x, stratum=stratum)
    )
    # r = 1 in one and 1/sqrt 2 in the other
    np.testing.assert_allclose(found.coherence().mean[1:], (1 + math.sqrt(0.5)) / 2, atol=0.03)
    assert isinstance(found, PairedPower)


def test_pairs_are_statistics_of_two_channels():
    grid = GRIDS[0]
    spectrum = PowerSpectrum(grid, bins=5)
    a = torch.tensor(smooth_gaussian(grid.shape, 1.0, 9, seed=10))[:, None]
    b = torch.tensor(smooth_gaussian(grid.shape, 1.0, 9, seed=11))[:, None]
    pairs = torch.cat([a, 0.6 * a + 0.8 * b], dim=1)
    parts = PairedSpectra(spectrum).statistics()
    measured = measure(parts, Sample(pairs.float()), batch_size=4)
    assert [p.name for p in parts] == ["coherence", "transfer", "stochasticity"]
    r = spectrum.coherence(a, pairs[:, 1:]).numpy()
    np.testing.assert_allclose(measured["coherence"].vectors, r, atol=1e-5)
    np.testing.assert_allclose(measured["stochasticity"].vectors, 1 - r**2, atol=1e-5)
    ratio = (spectrum(a) / spectrum(pairs[:, 1:])).sqrt().numpy()
    np.testing.assert_allclose(measured["transfer"].vectors, ratio, rtol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        lambda s: PairedSpectra(s)(torch.zeros(4, 1, 32, 32)),
        lambda s: measure_pairs(s, torch.zeros(3, 1, 32, 32), Sample(torch.zeros(4, 1, 32, 32))),
        lambda s: measure_pairs(s, torch.full((4, 1, 32, 32), math.nan), Sample(torch.zeros(4, 1, 32, 32))),
        lambda s: measure_pairs(s, torch.zeros(1, 1, 32, 32), Sample(torch.zeros(1, 1, 32, 32))),
        lambda s: measure_pairs(s, torch.zeros(4, 1, 8, 8), Sample(torch.zeros(4, 1, 8, 8))),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad(PowerSpectrum(GRIDS[0]))
