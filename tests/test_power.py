from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import power_by_sums, smooth_gaussian

from evaluation import gaussian
from evaluation.power import PowerSpectrum, shell_edges, taper
from gen.errors import InputError
from gen.fields import Grid


def white(n: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(n, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((12, 12), (3.0, 3.0)), ((11, 8), (2.0, 5.0)), ((8, 9), (4.0, 4.0)), ((6, 5, 8), (1.0, 2.0, 3.0))],
)
def test_every_mode_of_the_full_lattice_is_counted_once(shape, sides):
    # odd and even sides: the planes that the real transform keeps single differ
    grid = Grid(shape, sides, "Mpc/h", periodic=True)
    spectrum = PowerSpectrum(grid)
    x = white(1, shape, 1)
    power, count = power_by_sums(x[0, 0].numpy(), sides, spectrum.edges)
    np.testing.assert_allclose(spectrum(x)[0].numpy(), power, rtol=1e-10)
    np.testing.assert_array_equal(spectrum.n_modes, count)


@pytest.mark.parametrize("unit", ["deg", "arcmin", "Mpc/h"])
def test_plane_wave_has_the_power_of_its_amplitude(unit):
    grid = Grid((32, 32), 2.0, unit, periodic=True)
    spectrum = PowerSpectrum(grid)
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    wave = 0.3 * np.cos(2 * np.pi * (3 * x + 4 * y) / 32 + 0.7)
    found = spectrum(torch.tensor(wave)[None, None])[0].numpy()
    side = {"deg": math.pi / 180, "arcmin": math.pi / 10800, "Mpc/h": 1.0}[unit] * 2.0
    shell = int(np.argmin(np.abs(spectrum.abscissa - 5 * 2 * math.pi / side)))
    # two modes of |F|^2 = (A N / 2)^2 among those of shell 5
    assert found[shell] == pytest.approx(2 * 0.3**2 / 4 * side**2 / spectrum.n_modes[shell], rel=1e-10)
    assert np.abs(np.delete(found, shell)).max() < 1e-25 * found[shell] + 1e-30
    assert spectrum.edges[shell] < 5 * 2 * math.pi / side < spectrum.edges[shell + 1]


def test_shells_reach_from_the_fundamental_mode_to_nyquist():
    grid = Grid((64, 64), 100.0, "Mpc/h", periodic=True)
    spectrum = PowerSpectrum(grid)
    assert len(spectrum.abscissa) == 32
    assert spectrum.n_modes[0] == 8  # k_f (4 modes) and sqrt 2 k_f (4 modes)
    assert spectrum.abscissa[0] == pytest.approx(grid.k_fundamental * (1 + math.sqrt(2)) / 2)
    assert spectrum.edges[-1] == pytest.approx(grid.k_nyquist)
    assert (np.diff(shell_edges(grid, 10)) > 0).all()
    assert len(shell_edges(grid, 10)) <= 11


def test_shells_end_where_told():
    """Those that reach beyond k_max are left out, the others are what they were."""
    grid = Grid((48, 32), (6.0, 4.0), "deg", periodic=False)
    x = white(3, grid.shape, 5)
    for apodise in (None, 0.25):
        full = PowerSpectrum(grid, apodise=apodise)
        for k_max, n in ((9.6 * grid.k_fundamental, 9), (1.5 * grid.k_fundamental, 1), (math.inf, 24)):
            spectrum = PowerSpectrum(grid, apodise=apodise, k_max=k_max)
            assert len(spectrum.abscissa) == n and spectrum.edges[-1] <= k_max
            np.testing.assert_allclose(spectrum(x), full(x)[:, :n], rtol=1e-12)
            np.testing.assert_array_equal(spectrum.n_modes, full.n_modes[:n])


def test_powerbox_agrees():
    powerbox = pytest.importorskip("powerbox")
    for shape in ((48, 48), (20, 20, 20)):
        grid = Grid(shape, 30.0, "Mpc/h", periodic=True)
        spectrum = PowerSpectrum(grid)
        x = torch.tensor(smooth_gaussian(shape, 0.7, 1, seed=2))[:, None] + 5.0
        theirs = powerbox.get_power(
            x[0, 0].numpy(), grid.box_size, bins=spectrum.edges, dimensionless=False, nthreads=1
        )
        np.testing.assert_allclose(spectrum(x)[0].numpy(), theirs.power, rtol=1e-10)
        np.testing.assert_allclose(spectrum.abscissa, theirs.bin_avg, rtol=1e-10)
        # single precision, with the field's mean in the way
        np.testing.assert_allclose(spectrum(x.float())[0].numpy(), theirs.power, rtol=2e-5)


def test_gaussian_fields_have_their_power_and_its_scatter():
    grid = Grid((32, 32), 50.0, "Mpc/h", periodic=True)
    spectrum = PowerSpectrum(grid)
    n = 400
    cells = grid.spacing[0]
    x = torch.tensor(smooth_gaussian((32, 32), 0.8, n, seed=3))[:, None]
    found = spectrum(x).numpy()
    k = grid.wavenumber(half=False).numpy()
    shape_of_k = np.exp(-((k * 0.8 * cells) ** 2)) * (k > 0)
    norm = math.prod(grid.box_size) / shape_of_k.sum()  # unit variance
    expected = np.array(
        [
            norm * shape_of_k[(k >= a) & (k < b)].mean()
            for a, b in zip(spectrum.edges[:-1], spectrum.edges[1:], strict=True)
        ]
    )
    scatter = gaussian.power_scatter(expected, spectrum.n_modes)
    pull = (found.mean(0) - expected) / (scatter / math.sqrt(n))
    assert np.abs(pull).max() < 4
    # modes inside a shell differ a little in power, which adds under 2 % to the scatter
    np.testing.assert_allclose(found.std(0) / scatter, 1, atol=0.15)


@pytest.mark.parametrize("apodise", [None, "hann", 0.2])
def test_white_noise_is_flat_whatever_the_taper(apodise):
    grid = Grid((40, 32), (40.0, 32.0), "Mpc/h", periodic=False)
    spectrum = PowerSpectrum(grid, apodise=apodise)
    n = 3000
    found = spectrum(white(n, (40, 32), 4) + 100.0).numpy()
    # a full taper couples the two lowest shells to the mean that is subtracted; the others are unbiased
    shells = slice(2, None)
    pull = (found.mean(0) - 1.0) / (found.std(0) / math.sqrt(n))
    assert np.abs(pull[shells]).max() < 4
    # 3000 maps know a scatter to 1.3 % (more for few modes), here of correlated modes
    np.testing.assert_allclose(found.std(0)[shells], np.sqrt(2 / spectrum.n_modes[shells]), rtol=0.06)


def test_a_taper_is_needed_where_the_map_does_not_wrap():
    # a steep spectrum cut from a larger sky: without a taper the edges leak power to all shells
    n, big, small = 24, 192, 64
    k = Grid((big, big), float(big), "Mpc/h", True).wavenumber(half=False).numpy()
    amplitude = np.where(k > 0, np.where(k > 0, k, 1.0) ** -2.5, 0)  # P ~ k^-5
    noise = np.random.default_rng(5).normal(size=(n, big, big))
    sky = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
    cut = torch.tensor(sky[:, :small, :small].copy())[:, None]
    grid = Grid((small, small), float(small), "Mpc/h", periodic=False)
    shells = slice(9, 28)
    truth = PowerSpectrum(grid).abscissa[shells] ** -5
    tapered = PowerSpectrum(grid, apodise="hann")(cut).mean(0).numpy()[shells] / truth
    plain = PowerSpectrum(grid)(cut).mean(0).numpy()[shells] / truth
    assert np.abs(tapered - 1).max() < 0.25
    assert plain.min() > 3


def test_taper_ends_smoothly_and_loses_no_cell():
    grid = Grid((16, 10), (1.0, 1.0), "Mpc/h", periodic=False)
    hann = taper(grid, "hann").numpy()
    rows = np.sin(np.pi * (np.arange(16) + 0.5) / 16) ** 2
    columns = np.sin(np.pi * (np.arange(10) + 0.5) / 10) ** 2
    np.testing.assert_allclose(hann, np.outer(rows, columns), atol=1e-15)
    np.testing.assert_array_equal(taper(grid, None).numpy(), np.ones((16, 10)))
    part = taper(Grid((40, 40), 1.0, "Mpc/h", False), 0.5).numpy()
    np.testing.assert_array_equal(part[10:30, 10:30], 1.0)
    assert part[0, 20] < 0.01


def test_coherence_of_self_opposite_and_strangers():
    grid = Grid((32, 32), 10.0, "Mpc/h", periodic=True)
    spectrum = PowerSpectrum(grid)
    a, b = white(300, (32, 32), 6), white(300, (32, 32), 7)
    np.testing.assert_allclose(spectrum.coherence(a, a), 1, rtol=1e-12)
    np.testing.assert_allclose(spectrum.coherence(a, -a), -1, rtol=1e-12)
    r = spectrum.coherence(a, b).numpy()
    # real parts average over n/2 independent modes; the modulus of each mode first would give pi/4
    assert np.abs(r.mean(0) / (r.std(0) / math.sqrt(300))).max() < 4
    np.testing.assert_allclose(r.std(0)[2:], np.sqrt(1 / spectrum.n_modes[2:]), rtol=0.15)
    mixed = spectrum.coherence(a, 0.6 * a + 0.8 * b).mean(0).numpy()
    np.testing.assert_allclose(mixed[3:], 0.6, atol=0.03)
    np.testing.assert_allclose(spectrum.cross(a, a), spectrum(a), rtol=1e-12)


def test_an_offset_and_the_batch_change_nothing():
    grid = Grid((24, 24), 5.0, "Mpc/h", periodic=False)
    x = white(5, (24, 24), 8)
    for apodise in (None, "hann"):
        spectrum = PowerSpectrum(grid, apodise=apodise)
        np.testing.assert_allclose(spectrum(x + 1e3), spectrum(x), rtol=1e-8)
        np.testing.assert_allclose(spectrum(x)[3:4], spectrum(x[3:4]), rtol=1e-14)


@pytest.mark.parametrize(
    "bad",
    [
        lambda g: PowerSpectrum(g, bins=0),
        lambda g: PowerSpectrum(g, k_max=1.4 * g.k_fundamental),
        lambda g: PowerSpectrum(g, k_max=math.nan),
        lambda g: PowerSpectrum(g, apodise=1.5),
        lambda g: PowerSpectrum(g, apodise="hamming"),  # type: ignore[arg-type]
        lambda g: PowerSpectrum(g)(torch.zeros(1, 1, 9, 9)),
        lambda g: PowerSpectrum(g)(torch.zeros(1, 2, 8, 8)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad(Grid((8, 8), 1.0, "Mpc/h", periodic=True))
