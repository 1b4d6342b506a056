from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian
from scipy import integrate, ndimage, stats

from evaluation import gaussian
from evaluation.base import Sample, measure
from evaluation.moments import SmoothedMoments, Window, smoothing_window
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True) -> Grid:
    return Grid(shape, [float(n) for n in shape], "Mpc/h", periodic)


def kernel(grid: Grid, radius: float, window: Window) -> np.ndarray:
    """The window on the cells: what a field of one cell becomes."""
    return torch.fft.irfftn(smoothing_window(grid, radius, window), s=grid.shape).numpy()


def check_pull(found: np.ndarray, expected: float | np.ndarray) -> None:
    """Within 4 standard errors of the mean over maps: one in 16,000 numbers fails by chance."""
    pull = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
    assert np.abs(pull).max() < 4, pull


@pytest.mark.parametrize("dim", [2, 3])
def test_a_top_hat_is_the_mean_of_a_ball(dim):
    # the transform of the ball, by quadrature along one axis
    grid = grid_of((16,) * dim)
    radius = 3.0
    section = (lambda z: 2 * math.sqrt(radius**2 - z**2)) if dim == 2 else (lambda z: radius**2 - z**2)
    volume = integrate.quad(section, -radius, radius)[0]
    window = smoothing_window(grid, radius, "tophat").numpy().reshape(-1, 9)[0]
    for i, found in enumerate(window):
        k = i * grid.k_fundamental
        by_sum = integrate.quad(lambda z, k=k: section(z) * math.cos(k * z), -radius, radius)[0] / volume
        assert found == pytest.approx(by_sum, abs=1e-9)  # quad's own tolerance is 1.5e-8 of the integral
    near = smoothing_window(grid, 0.01 / grid.k_fundamental * 1.00001, "tophat").flatten()[1]
    assert near == pytest.approx(1 - 0.01**2 / (2 * (dim + 2)), abs=1e-8)


@pytest.mark.parametrize("window", ["tophat", "gaussian"])
@pytest.mark.parametrize("unit", ["Mpc/h", "deg"])
def test_waves_have_their_moments_exactly(window, unit):
    grid = Grid((48, 24), (12.0, 6.0), unit, periodic=True)
    theta = 2 * np.pi * 3 * np.arange(48)[:, None] / 48 * np.ones(24)
    a, b = 0.7, -0.4
    x = torch.tensor(np.stack([a * np.cos(theta), a * np.cos(theta) + b * np.cos(2 * theta)]))[:, None] + 5.0
    radii = np.array([0.5, 0.9, 1.7])
    found = SmoothedMoments(grid, radii, window)(x).numpy()
    assert found.shape == (2, 3, 3)
    k = 3 * 2 * math.pi / 12.0  # per unit of the grid, in which the radii are
    disc = {"gaussian": lambda y: np.exp(-(y**2) / 2), "tophat": lambda y: 2 * bessel(y) / y}[window]
    wa, wb = a * disc(k * radii), b * disc(2 * k * radii)
    np.testing.assert_allclose(found[0, 0], wa**2 / 2, rtol=1e-10)
    np.testing.assert_allclose(found[0, 1], 0, atol=1e-8)
    np.testing.assert_allclose(found[0, 2], 3 / 8 * 4 - 3, atol=1e-8)  # <cos^4>/<cos^2>^2 - 3 = -3/2
    np.testing.assert_allclose(found[1, 0], (wa**2 + wb**2) / 2, rtol=1e-10)
    np.testing.assert_allclose(found[1, 1], 0.75 * wa**2 * wb / found[1, 0] ** 1.5, rtol=1e-8)


def bessel(x: np.ndarray) -> np.ndarray:
    """J_1 by its integral."""
    t = np.linspace(0, np.pi, 4001)
    return np.array([integrate.trapezoid(np.cos(t - y * np.sin(t)), t) / np.pi for y in x])


@pytest.mark.parametrize(("shape", "n"), [((48, 48), 400), ((24, 24, 24), 80)])
def test_gaussian_fields_have_their_variance_and_no_more(shape, n):
    grid, size = grid_of(shape), 0.8
    x = torch.tensor(smooth_gaussian(shape, size, n, seed=1))[:, None]
    radii = np.array([1.0, 2.0, 3.5])
    found = SmoothedMoments(grid, radii)(x).numpy()
    k = grid.wavenumber(half=False)
    norm = math.prod(grid.box_size) / torch.exp(-((k * size) ** 2))[k > 0].sum()  # unit variance
    for i, radius in enumerate(radii):

        def power(k, radius=radius):
            x = (k * radius).numpy()
            w = 2 * bessel(x) / x if grid.dim == 2 else 3 * (np.sin(x) - x * np.cos(x)) / x**3
            return norm * torch.exp(-((k * size) ** 2)) * torch.from_numpy(w) ** 2

        xi = gaussian.correlation(grid, power)
        variance = xi.reshape(-1)[0]
        check_pull(found[:, 0, i], variance)
        rho = xi / variance
        error = np.sqrt([6 * (rho**3).mean(), 24 * (rho**4).mean()])
        pull = (found[:, 1:, i].mean(0) - [0.0, -6 * (rho**2).mean()]) / (error / math.sqrt(n))
        assert np.abs(pull).max() < 4, pull
        # n maps know a scatter to 1/sqrt(2 n); second order in rho^2 adds to it
        np.testing.assert_allclose(found[:, 1:, i].std(0) / error, 1, atol=4 / math.sqrt(2 * n) + 0.05)


@pytest.mark.parametrize("shape", [(64, 64), (20, 20, 20)])
@pytest.mark.parametrize("window", ["tophat", "gaussian"])
def test_cells_of_lognormal_law_have_its_cumulants(shape, window):
    # sums of independent cells with weights w have cumulants kappa_n sum w^n
    grid, s, n = grid_of(shape), 0.5, 300
    noise = np.random.default_rng(2).normal(size=(n, 1, *shape))
    x = torch.tensor(np.exp(s * noise - s**2 / 2) - 1)
    e = math.exp(s**2)
    k2, k3 = e - 1, (e + 2) * (e - 1) ** 2
    k4 = (e**4 + 2 * e**3 + 3 * e**2 - 6) * k2**2
    radii = np.array([1e-4, 1.2, 2.0])
    found = SmoothedMoments(grid, radii, window)(x).numpy()
    for i, radius in enumerate(radii):
        w = kernel(grid, radius, window)
        w = w - w.mean()  # the map's own mean is taken off
        variance, skewness, kurtosis = found[:, :, i].T
        check_pull(variance, k2 * (w**2).sum())
        # moments before the ratio, whose mean over small maps is biased
        check_pull(skewness * variance**1.5, k3 * (w**3).sum())
        check_pull((kurtosis + 3) * variance**2, k4 * (w**4).sum() + 3 * (k2 * (w**2).sum()) ** 2)
        expected = k3 * (w**3).sum() / (k2 * (w**2).sum()) ** 1.5
        assert skewness.mean() == pytest.approx(expected, rel=0.05)
        assert abs(expected / math.sqrt(variance.mean()) / expected - 1) > 0.5  # S_3 would not pass


def test_scipy_agrees_on_a_gaussian_window():
    grid = grid_of((40, 32))
    x = torch.tensor(np.random.default_rng(3).gamma(1.0, size=(3, 1, 40, 32)))
    found = SmoothedMoments(grid, [2.5], "gaussian")(x)[..., 0].numpy()
    for row, field in zip(found, x[:, 0].numpy(), strict=True):
        smooth = ndimage.gaussian_filter(field, 2.5, mode="wrap", truncate=7).reshape(-1)
        expected = smooth.var(), stats.skew(smooth), stats.kurtosis(smooth)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", ["tophat", "gaussian"])
def test_a_patch_counts_only_what_does_not_wrap(window):
    # a patch of a larger box, against the box smoothed before it was cut
    big, n = 96, 48
    noise = smooth_gaussian((big, big), 1.5, 6, seed=4)
    field = torch.tensor(np.exp(noise))[:, None]
    cut = field[..., :n, :n] + 10 * torch.linspace(0, 1, n)[:, None]  # the ends do not fit together
    radius = 5.0
    patch = SmoothedMoments(grid_of((n, n), False), [radius], window)(cut)[..., 0].numpy()
    reach = radius if window == "tophat" else 3 * radius
    keep = slice(math.ceil(reach - 0.5), n - math.ceil(reach - 0.5))
    smooth = torch.fft.irfft2(
        torch.fft.rfft2(field) * smoothing_window(grid_of((big, big)), radius, window), s=(big, big)
    )[:, 0, :n, :n].numpy()
    smooth = smooth + 10 * np.linspace(0, 1, n)[:, None]
    expected = [(s.var(), stats.skew(s), stats.kurtosis(s)) for s in smooth[:, keep, keep].reshape(6, -1)]
    # what leaks through the faces, the top-hat's ringing and the Gaussian beyond 3 R, is below 0.5 %
    np.testing.assert_allclose(patch, expected, rtol=0.006, atol=0.006)
    wrapped = SmoothedMoments(grid_of((n, n), True), [radius], window)(cut)[..., 0].numpy()
    assert np.abs(wrapped / expected - 1)[:, 0].min() > 0.04


def test_parts_share_a_pass_and_single_precision_is_enough():
    grid = grid_of((32, 32))
    x = torch.tensor(np.random.default_rng(5).lognormal(size=(70, 1, 32, 32)))
    moments = SmoothedMoments(grid, [1.0, 3.0])
    measured = measure(moments.moments(), Sample(x.float() + 100), batch_size=32)
    exact = moments(x).numpy()
    for i, part in enumerate(moments.moments()):
        # an offset of 100 sigma costs two digits of single precision
        np.testing.assert_allclose(measured[part.name].vectors, exact[:, i], rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(moments(-x)[:, 1], -exact[:, 1], rtol=1e-10)
    np.testing.assert_allclose(
        moments(3 * x) / torch.tensor(exact), [[[9.0] * 2, [1.0] * 2, [1.0] * 2]] * 70, rtol=1e-9
    )
    np.testing.assert_array_equal(moments(torch.ones(1, 1, 32, 32)), 0)
    np.testing.assert_allclose(moments(x.roll((5, 9), (2, 3))), exact, rtol=1e-9)
    # of a field of 1e11 the fourth power is beyond single precision: its moments are not
    expected = moments(x.float()) * torch.tensor([2.0**72, 1, 1], dtype=torch.float64)[:, None]
    assert torch.equal(moments(2.0**36 * x.float()), expected)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: SmoothedMoments(grid_of((8, 8)), []),
        lambda: SmoothedMoments(grid_of((8, 8)), [2.0, 1.0]),
        lambda: SmoothedMoments(grid_of((8, 8)), [0.0, 1.0]),
        lambda: SmoothedMoments(grid_of((8, 8)), [5.0]),
        lambda: SmoothedMoments(grid_of((8, 8)), [1.0], "box"),  # type: ignore[arg-type]
        lambda: SmoothedMoments(grid_of((8, 8), False), [2.0], "gaussian"),
        lambda: SmoothedMoments(grid_of((8, 8)), [1.0])(torch.zeros(1, 1, 9, 9)),
        lambda: SmoothedMoments(grid_of((8, 8)), [1.0])(torch.zeros(1, 2, 8, 8)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()
