"""Shifted-lognormal convergence: the theory's power spectrum and about the right skewness, in milliseconds.

kappa = lambda (exp(g - var(g) / 2) - 1) with g Gaussian and xi_g = ln(1 + xi_kappa / lambda^2)
(Hilbert, Hartlap & Schneider 2011, arXiv:1105.3980; Xavier, Abdalla & Joachimi 2016, arXiv:1602.08503).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.gaussian import gaussian_field, mode_power
from gen.simulate.theory import (
    Cosmology,
    comoving_distance,
    convergence_power,
    lensing_weight,
)


def empty_beam(cosmo: Cosmology, z_source: float) -> float:
    """int W(chi) dchi, the convergence's lowest value with its sign changed: an empty line of sight."""
    source = float(comoving_distance(cosmo, 1 / (1 + z_source)))
    chi = (np.arange(256) + 0.5) / 256 * source
    return float(lensing_weight(cosmo, chi, source).mean() * source)


def shift(cosmo: Cosmology, z_source: float) -> float:
    """The lognormal's lambda, -min(kappa).

    Hilbert et al. fitted 0.008 z + 0.029 z^2 - 0.0079 z^3 + 0.00065 z^4 to the Millennium simulation
    (Omega_m = 0.25, sigma_8 = 0.9). It is carried to other cosmologies in proportion to the empty beam:
    the lognormal's skewness is <kappa^3> / <kappa^2>^2 = 3 / lambda, and at tree level this ratio
    depends on Omega_m through the lensing weight but not on sigma_8.
    """
    z = z_source
    millennium = Cosmology(Omega_m=0.25, sigma_8=0.9, Omega_b=0.045, h=0.73, n_s=1.0)
    fitted = 0.008 * z + 0.029 * z**2 - 0.0079 * z**3 + 0.00065 * z**4
    return fitted * empty_beam(cosmo, z_source) / empty_beam(millennium, z_source)


def pixel_window(grid: Grid) -> Tensor:
    """Fourier transform of the mean over a pixel, prod sinc(k_i d_i / 2), on the rfftn lattice, float64."""
    out = torch.ones((), dtype=torch.float64)
    for axis, n in enumerate(grid.shape):
        last = axis == grid.dim - 1
        freq = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, dtype=torch.float64)
        out = out[..., None] * torch.sinc(freq)
    return out


def lognormal_convergence(
    cosmo: Cosmology, grid: Grid, z_source: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """Independent convergence maps ``(B, 1, *grid.shape)``, means over pixels, one for each generator.

    They are cut from periodic maps of twice the side, so a grid that is not periodic shows no wrap.
    """
    if grid.dim != 2 or not grid.angular:
        raise InputError(f"a convergence map needs a 2-D grid in degrees, got {grid}")
    whole = grid if grid.periodic else grid.resized([2 * n for n in grid.shape])
    ell = np.geomspace(0.5 * whole.k_fundamental, 2 * whole.k_nyquist, 96)
    table = torch.from_numpy(np.log(convergence_power(cosmo, ell, z_source, nodes=128)))
    log_ell = torch.from_numpy(np.log(ell))

    def power(k: Tensor) -> Tensor:
        return _interpolate(k.log(), log_ell, table).exp()

    lam = shift(cosmo, z_source)
    density = whole.n_cells / (whole.k_sides[0] * whole.k_sides[1])
    target = mode_power(whole, power) * pixel_window(whole) ** 2
    xi = torch.log1p(torch.fft.irfft2(target * density, s=whole.shape) / lam**2)
    # Where no lognormal has the power that is asked for, the Gaussian's would be negative.
    spectrum = (torch.fft.rfft2(xi).real / density).clamp(min=0)
    g = gaussian_field(whole, lambda k: spectrum[whole.wavenumber() > 0], generators, torch.float64)
    variance = g.new_tensor(_variance(spectrum, whole))
    kappa = lam * torch.expm1(g - variance / 2)
    return kappa[..., : grid.shape[0], : grid.shape[1]].float().contiguous()


def _variance(spectrum: Tensor, grid: Grid) -> float:
    """Variance of a field with this power on the rfftn lattice, without its mode k = 0."""
    held = torch.where(grid.wavenumber() > 0, spectrum, 0.0)
    volume = grid.k_sides[0] * grid.k_sides[1]
    return float(torch.fft.irfft2(held, s=grid.shape)[0, 0]) * grid.n_cells / volume


def _interpolate(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    right = torch.searchsorted(nodes, x.contiguous()).clamp(1, len(nodes) - 1)
    share = (x - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
