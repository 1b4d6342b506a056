from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian
from scipy.special import ellipe

from evaluation.base import Statistic
from evaluation.power import PowerSpectrum
from evaluation.scattering import Scattering, directions
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True) -> Grid:
    return Grid(shape, [float(n) for n in shape], "Mpc/h", periodic)


def lognormal(shape: tuple[int, ...], n: int, seed: int, sigma: float = 1.0) -> torch.Tensor:
    return torch.tensor(np.exp(sigma * smooth_gaussian(shape, 1.5, n, seed)))[:, None]


def sampled_wavelet(shape: tuple[int, ...], direction: np.ndarray, j: int) -> np.ndarray:
    """The Morlet wavelet itself at every cell of a torus, by its formula in real space."""
    sigma, centre = 0.8 * 2**j, 3 * math.pi / 4 / 2**j * direction
    gauss, wave = np.zeros(shape), np.zeros(shape, complex)
    for turn in itertools.product((-2, -1, 0, 1, 2), repeat=len(shape)):
        x = np.stack([c + t * n for c, t, n in zip(np.indices(shape), turn, shape, strict=True)])
        g = np.exp(-(x**2).sum(0) / (2 * sigma**2)) / (2 * math.pi * sigma**2) ** (len(shape) / 2)
        gauss += g
        wave += g * np.exp(1j * np.tensordot(centre, x, 1))
    return wave - wave.sum() / gauss.sum() * gauss


def by_convolutions(x: np.ndarray, wavelets: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """S1 (J,) and S2 (J, J) of one map, wavelet by wavelet, every cell of every response kept."""

    def convolved(y: np.ndarray, psi: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.ifftn(np.fft.fftn(y) * np.fft.fftn(psi)))

    n = len(wavelets)
    first, second = np.zeros(n), np.zeros((n, n))
    for j1 in range(n):
        for psi in wavelets[j1]:
            inner = convolved(x, psi)
            first[j1] += inner.mean() / len(wavelets[j1])
            for j2 in range(j1 + 1, n):
                each = [convolved(inner, outer).mean() for outer in wavelets[j2]]
                second[j1, j2] += np.mean(each) / len(wavelets[j1])
    return first, second


def check_pull(found: np.ndarray, expected: np.ndarray | float) -> None:
    """Within 4 standard errors of the mean over maps: one in 16,000 numbers fails by chance."""
    pull = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
    assert np.abs(pull).max() < 4, pull


@pytest.mark.parametrize(("shape", "n"), [((64, 48), 4), ((32, 32), 8), ((20, 16, 18), 3), ((16, 16, 16), 7)])
def test_filters_are_morlets_of_zero_mean(shape, n):
    scattering = Scattering(grid_of(shape), n_orientations=n)
    for j in range(min(3, scattering.n_scales)):
        for psi, direction in zip(scattering.filters[j].numpy(), scattering.directions, strict=True):
            np.testing.assert_allclose(np.fft.fftn(sampled_wavelet(shape, direction, j)), psi, atol=1e-7)
            assert abs(psi.reshape(-1)[0]) < 1e-12


@pytest.mark.parametrize("shape", [(128, 128), (32, 32, 32)])
def test_the_bank_covers_its_band_and_gains_nothing(shape):
    # Littlewood-Paley sum, half of it for each of a pair of opposite wavelets
    grid = grid_of(shape)
    scattering = Scattering(grid)
    total = torch.zeros(shape, dtype=torch.float64)
    for bank in scattering.filters:
        full = torch.zeros(len(bank), *shape, dtype=torch.float64)
        index = np.ix_(*[np.fft.fftfreq(m, 1 / m).round().astype(int) for m in bank.shape[1:]])
        full[(slice(None), *index)] = bank
        opposite = full.flip(tuple(range(1, full.ndim))).roll((1,) * grid.dim, tuple(range(1, full.ndim)))
        total += (full.square() + opposite.square()).sum(0) / 2
    assert total.max() < 1
    k = grid.wavenumber(half=False)
    centre = 3 * math.pi / 4
    band = (k >= centre / 2 ** (scattering.n_scales - 1)) & (k <= centre)
    assert total[band].min() > (0.25 if grid.dim == 2 else 0.1)


def test_orientations_are_spread_and_turn_into_each_other():
    turn = {2: np.array([[0, -1], [1, 0]]), 3: np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])}
    for dim, n in ((2, 4), (2, 6), (3, 3), (3, 7), (3, 13)):
        unit = directions(dim, n)
        assert unit.shape == (n, dim)
        cosine = np.abs(unit @ unit.T)
        np.testing.assert_allclose(np.diag(cosine), 1)
        assert (cosine - np.eye(n)).max() < 0.95
        assert (np.abs(unit @ turn[dim].T @ unit.T).max(1) > 1 - 1e-12).all()


@pytest.mark.parametrize(
    ("shape", "mode"), [((64, 64), (9, 4)), ((64, 64), (3, -2)), ((16, 16, 16), (3, 1, -2))]
)
def test_a_wave_has_the_transform_of_the_wavelet_at_its_wavenumber(shape, mode):
    grid = grid_of(shape)
    amplitude, phase = 1.7, 0.3
    theta = 2 * np.pi * sum(m * c / n for m, c, n in zip(mode, np.indices(shape), shape, strict=True)) + phase
    scattering = Scattering(grid)
    x = torch.tensor(amplitude * np.cos(theta))[None, None]
    found = scattering(x)[0].numpy()
    largest = 0.0
    for j, bank in enumerate(scattering.filters):
        step = shape[0] // bank.shape[1]
        at = theta[(slice(None, None, step),) * grid.dim]
        # A/2 |psi(k) exp(i theta) + psi(-k) exp(-i theta)|
        a, b = (
            bank[(slice(None), *(s * m for m in mode))].numpy().reshape(-1, *[1] * grid.dim) for s in (1, -1)
        )
        each = amplitude / 2 * np.sqrt(a**2 + b**2 + 2 * a * b * np.cos(2 * at))
        # what a crop of the band leaves out is below 1e-12
        assert found[j] == pytest.approx(each.mean(), rel=1e-10, abs=1e-10)
        largest = max(largest, each.mean((*range(1, grid.dim + 1),)).max())
    assert 0.25 * amplitude < largest < 0.5 * amplitude
    if grid.dim == 2:
        # the modulus of a wave is flat: hardly a second order, against 0.3 and more of noise
        noise = scattering(torch.randn(20, 1, *shape, generator=torch.Generator().manual_seed(1)))
        best = int(np.argmax(found[: scattering.n_scales]))
        after = [i + scattering.n_scales for i, (j, _) in enumerate(scattering.pairs) if j == best]
        assert (found[after] < 0.3 * noise.mean(0).numpy()[after]).all()


@pytest.mark.parametrize(("shape", "n"), [((64, 64), 300), ((24, 24, 24), 60)])
def test_a_gaussian_field_has_the_mean_modulus_of_its_law(shape, n):
    # z = x * psi is complex Gaussian; sd a, b of its parts: E|z| = sqrt(2/pi) a E(1 - b^2/a^2), for a = b
    # the sqrt(pi)/2 sigma of a circular one
    grid, radius = grid_of(shape), 1.2
    x = torch.tensor(smooth_gaussian(shape, radius, n, seed=2))[:, None]
    scattering = Scattering(grid)
    found = scattering(x)[:, : scattering.n_scales].numpy()
    power = torch.exp(-(grid.wavenumber(half=False) ** 2) * radius**2).numpy()
    power[(0,) * grid.dim] = 0
    power /= power.sum()
    expected, circular = np.zeros(scattering.n_scales), np.zeros(scattering.n_scales)
    for j in range(scattering.n_scales):
        for direction in scattering.directions:
            psi = np.fft.fftn(sampled_wavelet(shape, direction, j)).real
            opposite = np.roll(np.flip(psi), (1,) * grid.dim, tuple(range(grid.dim)))
            sigma2, tau = (power * psi**2).sum(), (power * psi * opposite).sum()
            a2, b2 = max(sigma2 + tau, sigma2 - tau) / 2, min(sigma2 + tau, sigma2 - tau) / 2
            expected[j] += math.sqrt(2 / math.pi * a2) * ellipe(1 - b2 / a2) / len(scattering.directions)
            circular[j] += math.sqrt(math.pi * sigma2) / 2 / len(scattering.directions)
    check_pull(found, expected)
    np.testing.assert_allclose(circular, expected, rtol=0.02)


@pytest.mark.parametrize(("shape", "n_scales"), [((48, 40), 3), ((64, 64), 4), ((16, 16, 18), 2)])
def test_every_response_one_by_one(shape, n_scales):
    x = lognormal(shape, 2, seed=3)
    scattering = Scattering(grid_of(shape), n_scales)
    assert isinstance(scattering, Statistic)
    found = scattering(x).numpy()
    assert found.shape == (2, len(scattering.abscissa))
    wavelets = [[sampled_wavelet(shape, n, j) for n in scattering.directions] for j in range(n_scales)]
    for row, field in zip(found, x[:, 0].numpy(), strict=True):
        first, second = by_convolutions(field, wavelets)
        ratio = np.array([second[j1, j2] / first[j1] for j1, j2 in scattering.pairs])
        # the coarsest of four scales is sampled at every second cell
        rtol = 1e-6 if n_scales < 4 else 3e-3
        np.testing.assert_allclose(row, np.concatenate([first, ratio]), rtol=rtol)


@pytest.mark.parametrize("shape", [(64, 64), (20, 20, 20)])
def test_a_map_moved_turned_or_mirrored_is_the_same(shape):
    x = lognormal(shape, 3, seed=4)
    scattering = Scattering(grid_of(shape))
    found = scattering(x)
    axes = tuple(range(2, x.ndim))
    for y in (x.roll((2, 6), (2, 3)), x.rot90(1, (2, 3)), x.flip(2).roll(1, 2), x.rot90(3, axes[-2:])):
        # a turned lattice starts at another corner: move it back by one cell
        for back in itertools.product((0, 1), repeat=len(axes)):
            if torch.allclose(scattering(y.roll(back, axes)), found, rtol=1e-10):
                break
        else:
            raise AssertionError("differs")
    # by one cell: what is sampled at every second or fourth cell is so at others
    scatter = found.std(0).where(found.std(0) > 0, 1.0)
    assert ((scattering(x.roll(1, 2)) - found).abs() / scatter).max() < 0.05


def test_scale_offset_precision_and_the_batch_change_nothing():
    x = lognormal((64, 64), 40, seed=5)
    scattering = Scattering(grid_of((64, 64)))
    found = scattering(x)
    np.testing.assert_allclose(scattering(x[39:]), found[39:], rtol=1e-12)
    np.testing.assert_allclose(scattering(x + 1e3), found, rtol=1e-8)
    scaled = scattering(3 * x)
    np.testing.assert_allclose(scaled[:, :4], 3 * found[:, :4], rtol=1e-12)
    np.testing.assert_allclose(scaled[:, 4:], found[:, 4:], rtol=1e-12)
    np.testing.assert_allclose(scattering(x.float()), found, rtol=1e-5)
    np.testing.assert_array_equal(scattering(torch.full((1, 1, 64, 64), 7.0)), 0)
    np.testing.assert_allclose(scattering.wavelengths, 8 / 3 * 2.0 ** np.arange(4))


def twin(x: torch.Tensor, seed: int) -> torch.Tensor:
    """The same modulus of every mode, phases of white noise."""
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=x.shape))
    return torch.tensor(
        np.fft.irfft2(np.abs(np.fft.rfft2(x.numpy())) * noise / np.abs(noise), s=x.shape[-2:])
    )


def test_a_twin_of_random_phases_is_told_by_the_second_order():
    grid, n = grid_of((64, 64)), 100
    scattering, spectrum = Scattering(grid), PowerSpectrum(grid)
    peaks, plain = (
        lognormal((64, 64), n, seed=6),
        torch.tensor(smooth_gaussian((64, 64), 1.5, n, seed=7))[:, None],
    )
    for x, told in ((peaks, True), (plain, False)):
        y = twin(x, seed=8)
        np.testing.assert_allclose(spectrum(y), spectrum(x), rtol=1e-9)
        a, b = scattering(x).numpy(), scattering(y).numpy()
        pull = (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / n)
        if told:
            assert np.abs(pull[scattering.n_scales :]).max() > 20
            assert np.abs(pull[: scattering.n_scales]).max() > 10  # peaks are sparse: S1 is lower
        else:
            assert np.abs(pull).max() < 4


def test_a_patch_counts_only_what_does_not_wrap():
    # the same cells of the box it was cut from
    big, n = lognormal((128, 128), 8, seed=9), 72
    cut = big[..., :n, :n]
    patch = Scattering(grid_of((n, n), False))
    assert patch.n_scales == 3
    found = patch(cut).numpy()
    wrapped = Scattering(grid_of((n, n)), 3)(cut).numpy()
    whole = Scattering(grid_of((128, 128)), 3)
    for j in range(3):
        margin = math.ceil(3 * 0.8 * 2**j)
        keep = (..., slice(margin, n - margin), slice(margin, n - margin))
        modes = torch.fft.fftn(big, dim=(2, 3)) * whole.filters[j]
        expected = torch.fft.ifftn(modes, dim=(2, 3)).abs()[keep].mean((1, 2, 3)).numpy()
        # beyond 3 widths there is 0.3 % of a wavelet, seen by the cells next to the margin only
        np.testing.assert_allclose(found[:, j], expected, rtol=2e-3)
        assert np.abs(wrapped[:, j] / expected - 1).max() > 0.02


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Scattering(grid_of((64, 64)), n_scales=5),
        lambda: Scattering(grid_of((64, 64)), n_scales=0),
        lambda: Scattering(grid_of((64, 64), False), n_scales=4),
        lambda: Scattering(grid_of((4, 4))),
        lambda: Scattering(grid_of((64, 64)), n_orientations=3),
        lambda: Scattering(grid_of((16, 16, 16)), n_orientations=4),
        lambda: Scattering(Grid((16, 16), (1.0, 2.0), "Mpc/h", True)),
        lambda: Scattering(grid_of((16, 16)))(torch.zeros(1, 1, 17, 17)),
        lambda: Scattering(grid_of((16, 16)))(torch.zeros(1, 2, 16, 16)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()
