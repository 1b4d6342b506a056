from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from evaluation import gaussian
from gen.fields import Grid


def test_spectral_moments_approach_the_continuum():
    # P = exp(-k^2 R^2) in d dimensions: sigma_1^2/sigma_0^2 = d/(2R^2), sigma_2^2/sigma_0^2 = d(d+2)/(4R^4)
    for dim, side in ((2, 96), (3, 40)):
        grid, radius = Grid((side,) * dim, float(side), "Mpc/h", True), 3.0
        s = [gaussian.spectral_moment(grid, lambda k: torch.exp(-(k**2) * 9.0), j) for j in range(3)]
        lost = (2 * radius * math.sqrt(math.pi) / side) ** dim  # of the variance: the mean mode
        assert (s[1] / s[0]) ** 2 * (1 - lost) == pytest.approx(dim / (2 * radius**2), rel=1e-4)
        assert (s[2] / s[0]) ** 2 * (1 - lost) == pytest.approx(dim * (dim + 2) / (4 * radius**4), rel=1e-4)


def test_correlation_is_the_transform_of_the_power():
    # exp(-k^2 R^2) transforms to exp(-r^2 / 4R^2) / (4 pi R^2) in 2D, wrapped round and without its mean
    grid = Grid((64, 64), 64.0, "Mpc/h", True)
    xi = gaussian.correlation(grid, lambda k: torch.exp(-(k**2) * 4.0))
    r = np.arange(8.0)
    expected = np.exp(-(r**2) / 16) / (16 * math.pi) - 1 / 64**2
    np.testing.assert_allclose(xi[0, :8], expected, atol=1e-9)
    assert xi[0, 0] == pytest.approx(
        gaussian.spectral_moment(grid, lambda k: torch.exp(-(k**2) * 4.0), 0) ** 2
    )


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, -0.4])
def test_crossings_of_two_correlated_normals(rho):
    law = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
    for nu in (-1.0, 0.0, 0.8, 2.0):
        both_below, one_below = law.cdf([nu, nu]), stats.norm.cdf(nu)
        expected = 2 * (one_below - both_below)
        assert gaussian.crossing_fraction(np.array(nu), rho) == pytest.approx(expected, abs=2e-6)


def test_minkowski_curves_are_those_of_the_literature():
    # Schmalzing & Gorski (1998) in 2D with tau = sigma_1^2/2sigma_0^2: V1 = sqrt(tau)/8 e^-nu^2/2,
    # V2 = tau nu e^-nu^2/2 / (2 pi)^3/2; Hamilton, Gott & Weinberg (1986) genus curve in 3D: chi = -genus
    nu = np.linspace(-3, 3, 13)
    v0, v1, v2 = gaussian.minkowski(nu, 2, 2.0, 3.0)
    tau = 9 / 8
    np.testing.assert_allclose(v0, stats.norm.sf(nu), rtol=1e-12)
    np.testing.assert_allclose(v1, math.sqrt(tau) / 8 * np.exp(-(nu**2) / 2), rtol=1e-12)
    np.testing.assert_allclose(v2, tau * nu * np.exp(-(nu**2) / 2) / (2 * math.pi) ** 1.5, rtol=1e-12)
    *_, v3 = gaussian.minkowski(nu, 3, 2.0, 3.0)
    k2 = 9 / 4 / 3  # <k^2>/3
    np.testing.assert_allclose(
        v3, k2**1.5 * (nu**2 - 1) * np.exp(-(nu**2) / 2) / (2 * math.pi) ** 2, rtol=1e-12
    )


def test_surface_in_3d_is_rices_formula():
    # zero crossings of a line through the field: sigma_1/(sqrt 3 pi sigma_0); surface density is twice that
    _, v1, _, _ = gaussian.minkowski(np.zeros(1), 3, 1.0, 1.7)
    assert 6 * v1[0] == pytest.approx(2 * 1.7 / (math.sqrt(3) * math.pi), rel=1e-12)


def test_lattice_boundaries_approach_the_continuum():
    grid, nu = Grid((128, 128), 128.0, "Mpc/h", True), np.linspace(-2, 2, 5)

    def power(k):
        return torch.exp(-(k**2) * 100.0)

    sigma0, sigma1 = (gaussian.spectral_moment(grid, power, j) for j in (0, 1))
    lattice, smooth = gaussian.lattice_minkowski(grid, nu, power), gaussian.minkowski(nu, 2, sigma0, sigma1)
    np.testing.assert_allclose(lattice, smooth[:2], rtol=5e-3)


def test_peaks_of_all_heights_add_up():
    total = integrate.quad(lambda nu: float(gaussian.peak_density(np.array(nu), 1.0, 1.3, 2.9)), -9, 9)[0]
    assert total == pytest.approx(gaussian.peak_total(2, 1.3, 2.9), rel=1e-8)
    # BBKS give 0.016 per R*^3
    assert gaussian.peak_total(3, 1.0, math.sqrt(3)) == pytest.approx(0.016, abs=5e-4)


def test_pdf_and_scatter():
    x = np.linspace(-1, 1, 7)
    np.testing.assert_allclose(gaussian.pixel_pdf(x, 0.4), stats.norm.pdf(x, scale=0.4))
    # |delta_k|^2 of a mode is exponential with mean P; a shell of N modes averages N/2 independent ones
    draws = np.random.default_rng(0).exponential(3.0, size=(200_000, 4)).mean(1)
    assert draws.std() == pytest.approx(gaussian.power_scatter(np.array(3.0), np.array(8)), rel=0.01)
