"""Closed forms for Gaussian random fields: what every statistic must give where the answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import erfc, ndtr, owens_t
from torch import Tensor

from evaluation.excursion import crofton_weights, pairs, rank
from gen.errors import InputError
from gen.fields import Grid

BALL = (1.0, 2.0, math.pi, 4 * math.pi / 3)  # volume of the unit ball in 0 to 3 dimensions


def lattice_power(grid: Grid, power: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Variance of each mode over V, P(k)/V on the full lattice, the mean mode left out; ``grid.shape``."""
    k = grid.wavenumber(half=False)
    inside = k > 0
    p = torch.zeros_like(k)
    p[inside] = power(k[inside]).double()
    return (p / math.prod(grid.k_sides)).numpy()


def spectral_moment(grid: Grid, power: Callable[[Tensor], Tensor], order: int) -> float:
    """sigma_j with sigma_j^2 = (1/V) sum_k P(k) k^(2j) over the modes of the grid [field unit * k_unit^j]."""
    k = grid.wavenumber(half=False).numpy()
    return math.sqrt(float((lattice_power(grid, power) * k ** (2 * order)).sum()))


def correlation(grid: Grid, power: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Two-point correlation xi(lag) on the periodic lattice, ``grid.shape``; xi(0) is the variance."""
    return np.fft.fftn(lattice_power(grid, power)).real


def pixel_pdf(x: np.ndarray, sigma: float) -> np.ndarray:
    """N(0, sigma^2) density."""
    return np.exp(-((np.asarray(x) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def power_scatter(power: np.ndarray, n_modes: np.ndarray) -> np.ndarray:
    """Standard deviation of a bin of |delta_k|^2, P sqrt(2/N_k), with N_k modes counting k and -k both."""
    return np.asarray(power) * np.sqrt(2 / np.asarray(n_modes))


def minkowski(nu: np.ndarray, dim: int, sigma0: float, sigma1: float) -> np.ndarray:
    """Densities V0 ... Vd of {x >= nu sigma0} for an isotropic field, ``(dim+1, T)``.

    V_k = (2 pi)^(-(k+1)/2) omega_d / (omega_(d-k) omega_k) lambda^k exp(-nu^2/2) He_(k-1)(nu),
    lambda = sigma1 / (sqrt(d) sigma0), V_0 = erfc(nu/sqrt 2)/2 (Tomita 1986; Schmalzing & Buchert 1997,
    astro-ph/9702130). The unit is the inverse of length in which sigma1 is given.
    """
    nu = np.asarray(nu, dtype=np.float64)
    scale = sigma1 / (math.sqrt(dim) * sigma0)
    hermite = (np.ones_like(nu), nu, nu**2 - 1)
    rows = [erfc(nu / math.sqrt(2)) / 2]
    for k in range(1, dim + 1):
        amplitude = BALL[dim] / (BALL[dim - k] * BALL[k]) * (2 * math.pi) ** (-(k + 1) / 2) * scale**k
        rows.append(amplitude * np.exp(-(nu**2) / 2) * hermite[k - 1])
    return np.stack(rows)


def crossing_fraction(nu: np.ndarray, rho: float | np.ndarray) -> np.ndarray:
    """Probability that two unit normals of correlation rho lie on different sides of nu: 4 T(nu, a).

    T is Owen's function, a = sqrt((1-rho)/(1+rho)) (Owen 1956).
    """
    return 4 * owens_t(np.asarray(nu), np.sqrt((1 - rho) / (1 + rho)))


def lattice_minkowski(grid: Grid, nu: np.ndarray, power: Callable[[Tensor], Tensor]) -> np.ndarray:
    """V0 and V1 that ``evaluation.minkowski`` has to give on this grid, pixels and all, ``(2, T)``.

    Exact at any smoothing: V1 is a sum of crossings of neighbour pairs, each of a known correlation.
    """
    spacing = grid.spacing[0]
    if max(grid.spacing) > spacing * (1 + 1e-6):
        raise InputError(f"Minkowski functionals need cubic cells, got spacing {grid.spacing}")
    xi = correlation(grid, power)
    weights = crofton_weights(grid.dim)
    total = np.zeros(np.shape(nu))
    for a, b in pairs(grid.dim):
        lag = tuple(q - p for p, q in zip(a, b, strict=True))
        total += weights[rank((a, b)) - 1] * crossing_fraction(nu, xi[lag] / xi[(0,) * grid.dim])
    norm = 4 if grid.dim == 2 else 6
    return np.stack([ndtr(-np.asarray(nu)), total / norm / spacing])


def peak_density(nu: np.ndarray, sigma0: float, sigma1: float, sigma2: float) -> np.ndarray:
    """Maxima of a 2D field per area and unit nu = height/sigma0 (Bond & Efstathiou 1987, eq. A1.9).

    Integrates to sigma2^2 / (8 pi sqrt 3 sigma1^2).
    """
    nu = np.asarray(nu, dtype=np.float64)
    gamma = sigma1**2 / (sigma0 * sigma2)
    theta2 = 2 * (sigma1 / sigma2) ** 2
    x, one = gamma * nu, 1 - gamma**2
    low = 3 - 2 * gamma**2
    shape = (
        (x**2 - gamma**2) * ndtr(x / math.sqrt(one))
        + x * one * np.exp(-(x**2) / (2 * one)) / math.sqrt(2 * math.pi * one)
        + np.exp(-(x**2) / low) / math.sqrt(low) * ndtr(x / math.sqrt(one * low))
    )
    return np.exp(-(nu**2) / 2) * shape / ((2 * math.pi) ** 1.5 * theta2)


def peak_total(dim: int, sigma1: float, sigma2: float) -> float:
    """Maxima per volume of any height (2D: Bond & Efstathiou 1987; 3D: Bardeen et al. 1986, eq. 4.11b)."""
    if dim == 2:
        return (sigma2 / sigma1) ** 2 / (8 * math.pi * math.sqrt(3))
    constant = (29 - 6 * math.sqrt(6)) / (5**1.5 * 2 * (2 * math.pi) ** 2)
    return constant * (sigma2 / (math.sqrt(3) * sigma1)) ** 3
