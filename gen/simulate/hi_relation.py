"""Neutral hydrogen (HI) of halos: its mass by halo mass and redshift, and means over the mass function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gen.errors import InputError
from gen.simulate.theory import Cosmology, halo_bias, halo_mass_function

Array = NDArray[np.float64]
REDSHIFTS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
ALPHA = (0.24, 0.53, 0.60, 0.76, 0.79, 0.74)
M_0 = (4.3e10, 1.5e10, 1.3e10, 2.9e9, 1.4e9, 1.9e9)
M_MIN = (2.0e12, 6.0e11, 3.6e11, 6.7e10, 2.1e10, 2.0e10)
M_HARD = (1.5e10, 6.9e9, 3.1e9, 9.9e8, 3.9e8, 2.7e8)
"""The fits to friends-of-friends halos of TNG100 (Villaescusa-Navarro et al. 2018), masses [Msun/h]."""
HEAVIEST, NODES = 1e16, 1000
"""End of integrals over halo mass [Msun/h], and their nodes, even in ln M."""


@dataclass(frozen=True)
class HIRelation:
    """HI mass of a halo of mass M, all [Msun/h] (Villaescusa-Navarro et al. 2018, arXiv:1804.09180):

    M_HI = M_0 (M / M_min)^alpha exp(-(M_min / M)^0.35), and none below M_hard.

    The fits are of one simulation of one cosmology; other cosmologies take the same relation here.
    """

    alpha: float
    M_0: float
    M_min: float
    M_hard: float

    @classmethod
    def at(cls, z: float) -> HIRelation:
        """The published fits at whole redshifts; between them alpha and the masses' logarithms are linear.

        Raises:
            InputError: beyond redshifts 0 to 5.
        """
        if not REDSHIFTS[0] <= z <= REDSHIFTS[-1]:
            raise InputError(f"the HI of halos is known at redshifts 0 to {REDSHIFTS[-1]:g}, got {z:g}")
        masses = (math.exp(np.interp(z, REDSHIFTS, np.log(m))) for m in (M_0, M_MIN, M_HARD))
        return cls(float(np.interp(z, REDSHIFTS, ALPHA)), *masses)

    def __call__(self, mass: ArrayLike) -> Array:
        """M_HI of halos of ``mass`` > 0."""
        x = np.asarray(mass, dtype=np.float64) / self.M_min
        return np.where(x * self.M_min < self.M_hard, 0.0, self.M_0 * x**self.alpha * np.exp(-(x**-0.35)))


@dataclass(frozen=True)
class HIHalos:
    """The HI of halos between two masses, by the relation and the mass function of Sheth & Tormen (1999).

    Args:
        cosmo, z: of the universe.
        low, high: halo masses [Msun/h]; below M_hard there is no HI.
    """

    cosmo: Cosmology
    z: float
    low: float = 0.0
    high: float = HEAVIEST

    @property
    def relation(self) -> HIRelation:
        return HIRelation.at(self.z)

    def nodes(self) -> tuple[Array, Array]:
        """Masses [Msun/h] even in ln M, and dn/dlnM [(h/Mpc)^3] there; both empty without halos."""
        low = max(self.low, self.relation.M_hard)
        if low >= self.high:
            return np.empty(0), np.empty(0)
        mass = np.geomspace(low, self.high, NODES)
        return mass, halo_mass_function(self.cosmo, mass, 1 / (1 + self.z))

    def density(self) -> float:
        """Mean comoving density int dlnM dn/dlnM M_HI(M) [(Msun/h) / (Mpc/h)^3]."""
        mass, number = self.nodes()
        return float(np.trapezoid(number * self.relation(mass), np.log(mass)))

    def bias(self) -> float:
        """Mean linear bias, weighted by HI mass; 1 without halos."""
        mass, number = self.nodes()
        if not len(mass):
            return 1.0
        weight = number * self.relation(mass)
        bias = halo_bias(self.cosmo, mass, 1 / (1 + self.z))
        return float(np.trapezoid(weight * bias, np.log(mass)) / np.trapezoid(weight, np.log(mass)))

    def halos(self, volume: float, rng: np.random.Generator) -> Array:
        """Masses [Msun/h] of a Poisson sample of these halos in a ``volume`` [(Mpc/h)^3]."""
        mass, number = self.nodes()
        if not len(mass):
            return np.empty(0)
        steps = 0.5 * (number[1:] + number[:-1]) * np.diff(np.log(mass))
        below = np.concatenate([[0.0], np.cumsum(steps)])
        count = rng.poisson(below[-1] * volume)
        return np.exp(np.interp(rng.random(count) * below[-1], below, np.log(mass)))

    def drawn(self, volume: float, rng: np.random.Generator) -> Array:
        """HI masses [Msun/h] of such a sample."""
        return self.relation(self.halos(volume, rng))
