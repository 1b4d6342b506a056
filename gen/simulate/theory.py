"""Linear and nonlinear theory of the matter field, by pyccl (Chisari et al. 2019, arXiv:1812.05995).

The transfer function is Eisenstein & Hu 1998 (astro-ph/9709112) with baryon wiggles, normalised to
sigma_8, and the nonlinear correction is halofit (Takahashi et al. 2012, arXiv:1208.2701). The same
linear spectrum seeds the simulations, so a comparison of the two tests the solver, not the transfer
function. Radiation is left out (flat LCDM), as in the particle mesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyccl
from numpy.typing import ArrayLike, NDArray

from gen.errors import InputError

Array = NDArray[np.float64]
HUBBLE_DISTANCE = 2997.92458
"""c / H0 [Mpc/h]."""


@dataclass(frozen=True)
class Cosmology:
    """A flat LCDM universe: matter and baryon density, sigma_8, Hubble constant / 100, spectral index."""

    Omega_m: float
    sigma_8: float
    Omega_b: float = 0.049
    h: float = 0.6711
    n_s: float = 0.9624

    def __post_init__(self) -> None:
        ranges = {"Omega_m": (0.06, 1.0), "sigma_8": (0.1, 2.0), "h": (0.3, 1.2), "n_s": (0.5, 1.5)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"{name} must lie in [{low}, {high}], got {value}")
        if not 0 < self.Omega_b < self.Omega_m:
            raise InputError(
                f"Omega_b must lie between 0 and Omega_m = {self.Omega_m}, got {self.Omega_b}; raise Omega_m"
            )

    def expansion(self, a: ArrayLike) -> Array:
        """H(a) / H0."""
        a = np.asarray(a, dtype=np.float64)
        return np.sqrt(self.Omega_m / a**3 + 1 - self.Omega_m)


@lru_cache(maxsize=64)
def _ccl(cosmo: Cosmology) -> pyccl.Cosmology:
    return pyccl.Cosmology(
        Omega_c=cosmo.Omega_m - cosmo.Omega_b,
        Omega_b=cosmo.Omega_b,
        h=cosmo.h,
        n_s=cosmo.n_s,
        sigma8=cosmo.sigma_8,
        Omega_g=0.0,
        Neff=0.0,
        transfer_function="eisenstein_hu",
        matter_power_spectrum="halofit",
    )


def linear_power(cosmo: Cosmology, k: ArrayLike, a: float = 1.0) -> Array:
    """Linear matter power [(Mpc/h)^3] at wavenumber ``k`` > 0 [h/Mpc] and scale factor ``a``."""
    k = np.asarray(k, dtype=np.float64)
    power = pyccl.linear_matter_power(_ccl(cosmo), k.ravel() * cosmo.h, a) * cosmo.h**3
    return np.asarray(power).reshape(k.shape)


def nonlinear_power(cosmo: Cosmology, k: ArrayLike, a: float = 1.0) -> Array:
    """Halofit matter power [(Mpc/h)^3] at wavenumber ``k`` > 0 [h/Mpc] and scale factor ``a``."""
    k = np.asarray(k, dtype=np.float64)
    power = pyccl.nonlin_matter_power(_ccl(cosmo), k.ravel() * cosmo.h, a) * cosmo.h**3
    return np.asarray(power).reshape(k.shape)


def halo_mass_function(cosmo: Cosmology, mass: ArrayLike, a: float = 1.0) -> Array:
    """Number dn/dlnM [(h/Mpc)^3] of friends-of-friends halos of ``mass`` [Msun/h].

    Sheth & Tormen 1999 (astro-ph/9901122).
    """
    mass = np.asarray(mass, dtype=np.float64)
    number = pyccl.halos.MassFuncSheth99(mass_def="fof")(_ccl(cosmo), mass.ravel() / cosmo.h, a)
    return np.asarray(number).reshape(mass.shape) / (cosmo.h**3 * math.log(10))


def halo_bias(cosmo: Cosmology, mass: ArrayLike, a: float = 1.0) -> Array:
    """Linear bias of the same halos of ``mass`` [Msun/h] (Sheth & Tormen 1999)."""
    mass = np.asarray(mass, dtype=np.float64)
    bias = pyccl.halos.HaloBiasSheth99(mass_def="fof")(_ccl(cosmo), mass.ravel() / cosmo.h, a)
    return np.asarray(bias).reshape(mass.shape)


def growth(cosmo: Cosmology, a: ArrayLike) -> Array:
    """Linear growth factor, 1 at a = 1."""
    a = np.asarray(a, dtype=np.float64)
    return np.asarray(pyccl.growth_factor(_ccl(cosmo), a.ravel())).reshape(a.shape)


def comoving_distance(cosmo: Cosmology, a: ArrayLike) -> Array:
    """Comoving radial distance [Mpc/h] to scale factor ``a``."""
    a = np.asarray(a, dtype=np.float64)
    return np.asarray(pyccl.comoving_radial_distance(_ccl(cosmo), a.ravel())).reshape(a.shape) * cosmo.h


def scale_factor(cosmo: Cosmology, distance: ArrayLike) -> Array:
    """Scale factor at comoving radial distance [Mpc/h]; the inverse of ``comoving_distance``."""
    distance = np.asarray(distance, dtype=np.float64)
    a = pyccl.scale_factor_of_chi(_ccl(cosmo), distance.ravel() / cosmo.h)
    return np.asarray(a).reshape(distance.shape)


def lensing_weight(cosmo: Cosmology, distance: ArrayLike, source_distance: float) -> Array:
    """W(chi) = 3/2 Omega_m (H0/c)^2 chi (chi_s - chi) / (chi_s a) [h/Mpc], so kappa = int W delta dchi."""
    chi = np.asarray(distance, dtype=np.float64)
    weight = 1.5 * cosmo.Omega_m / HUBBLE_DISTANCE**2 * chi * (1 - chi / source_distance)
    return np.where(chi < source_distance, weight / scale_factor(cosmo, chi), 0.0)


def convergence_power(
    cosmo: Cosmology,
    ell: ArrayLike,
    z_source: float = 1.0,
    k_range: Sequence[float] = (0.0, math.inf),
    nodes: int = 512,
) -> Array:
    """Limber convergence power of sources at one redshift,

    C_l = int dchi W(chi)^2 / chi^2 P_nl((l + 1/2) / chi, a(chi)),

    optionally with only the wavenumbers ``k_range`` [h/Mpc] that a simulation holds. Agrees with
    pyccl's own Limber integral to 0.5 % without a cut (tested).
    """
    ell = np.asarray(ell, dtype=np.float64)
    source = float(comoving_distance(cosmo, 1 / (1 + z_source)))
    edges = np.linspace(0.0, source, nodes + 1)
    chi, width = 0.5 * (edges[1:] + edges[:-1]), source / nodes
    kernel = lensing_weight(cosmo, chi, source) ** 2 / chi**2 * width
    total = np.zeros(ell.shape)
    for x, a, weight in zip(chi, scale_factor(cosmo, chi), kernel, strict=True):
        k = (ell + 0.5) / x
        held = (k >= k_range[0]) & (k <= k_range[1])
        total += np.where(held, weight * nonlinear_power(cosmo, k, float(a)), 0.0)
    return total
