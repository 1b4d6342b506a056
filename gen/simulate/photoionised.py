"""The trace of neutral hydrogen in intergalactic gas that a radiation field keeps ionised."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gen.simulate.theory import Cosmology

Array = NDArray[np.float64]
HYDROGEN = 0.76
"""Mass fraction in baryons."""
ATOMS = 1.1224e-5 * HYDROGEN
"""Hydrogen nuclei of baryons of today's critical density [h^2 / cm^3]."""
ELECTRONS = 1.08
"""For each hydrogen nucleus, with helium ionised once."""
RECOMBINATION = 4.2e-13
"""Case A, at 10^4 K [cm^3 / s]; it falls as T^-0.7."""
TEMPERATURE, SLOPE = 1e4, 0.5
"""T = 10^4 K (1 + delta)^0.5."""


def neutral_fraction(cosmo: Cosmology, z: float, density: ArrayLike, rate: float) -> Array:
    """x of photoionisation equilibrium, x Gamma = alpha(T) n_e (1 - x), n_e = 1.08 n_H (1 - x).

    Small x goes as (1 + delta)^0.65, HI density as (1 + delta)^1.65: the fluctuating Gunn-Peterson
    approximation (Hui & Gnedin 1997, astro-ph/9612232). No collisions, no self-shielding.

    Args:
        density: 1 + delta of the gas, taken to be that of matter.
        rate: Gamma [1/s] of each hydrogen atom, about 1e-12 at z = 2 to 5 (Becker & Bolton 2013,
            arXiv:1307.2259).
    """
    density = np.asarray(density, dtype=np.float64)
    atoms = ATOMS * cosmo.Omega_b * cosmo.h**2 * (1 + z) ** 3 * density
    alpha = RECOMBINATION * (TEMPERATURE / 1e4 * np.maximum(density, 1e-6) ** SLOPE) ** -0.7
    ratio = alpha * ELECTRONS * atoms / rate
    return 2 * ratio / (1 + 2 * ratio + np.sqrt(1 + 4 * ratio))


def photoionised_share(cosmo: Cosmology, z: float, density: ArrayLike, rate: float) -> Array:
    """HI mass of gas over the mass of all matter with it, X Omega_b / Omega_m x; see ``neutral_fraction``."""
    share = HYDROGEN * cosmo.Omega_b / cosmo.Omega_m
    return share * neutral_fraction(cosmo, z, density, rate)
