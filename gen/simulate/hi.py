"""A source of boxes of neutral hydrogen (HI) after reionisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.displacement import Motion, density, deposited, motion, positions, readout
from gen.simulate.halos import CRITICAL_DENSITY, friends_of_friends
from gen.simulate.hi_relation import HIHalos, HIRelation
from gen.simulate.nbody_pairs import Layout, Pair, Run, calibrated_mesh, check_box
from gen.simulate.painting import scattered, shared, smoothed
from gen.simulate.photoionised import photoionised_share
from gen.simulate.redshift_space import redshift_space
from gen.simulate.theory import Cosmology

Array = NDArray[np.float64]
UNIT = "(Msun/h)/(Mpc/h)^3"
FEWEST = 10
"""Particles of the smallest halo that is looked for."""
LEAST = 0.05
"""Share of the HI that must lie in halos of so many particles."""
START = 0.02
"""Scale factor of the 2LPT start. At 0.1 half of the halos of 10 to 20 particles are missing at z = 5."""
REACH = 0.5
"""Of the Gaussian that smooths the density which smaller halos follow [Mpc/h].

In 20 Mpc/h, 64^3 particles, their bias at k = 0.3 to 0.6 h/Mpc is 2.28 where 2.25 was meant (z = 5), 1.24 for
1.42 (z = 3) and 0.82 for 1.11 (z = 2), as none of them stand inside groups. With 1 Mpc/h it is 2.14 at z = 5.
"""


@dataclass(frozen=True)
class HI:
    """Comoving HI mass density [(Msun/h)/(Mpc/h)^3] of a particle mesh, painted on its particles.

    - Halos are friends-of-friends groups of 10 particles or more, linked at 0.2 of their mean separation,
      of ``corrected`` mass. Each has the HI of ``HIRelation``, in equal parts on its particles: no HI
      profile, as halos are no larger than a cell or two.
    - Halos of fewer particles are drawn, a Poisson sample of Sheth & Tormen's mass function. Each stands on
      a particle outside the groups, taken with odds (1 + delta_R)^(b - 1), delta_R the density smoothed by
      a Gaussian of 0.5 Mpc/h and b the HI-weighted mean of these halos' linear bias, so that on larger scales
      they go as matter's density to the power b.
    - Gas outside the groups is photoionised, see ``gen.simulate.photoionised``.

    What is left out: gas that parts from matter (pressure, feedback), scatter of HI at a halo's mass, a
    relation that depends on cosmology, and long waves, as the box's mean density is that of the universe.

    At (0.3, 0.8) two boxes of 20 Mpc/h and 64^3 particles hold 1.03 of the relation's mean HI at z = 2, 3 and
    5, and its bias at k = 0.3 to 0.6 h/Mpc is 1.91, 2.21 and 2.77, where the halos' is 1.82, 2.21 and 2.83.

    In redshift space particles move by v / (a H) along the last axis, with the same seed from the same
    places; then no symmetry turns that axis into another, and the set names it as its line of sight.

    Args:
        redshift_space: 1 for redshift space, 0 for real space.
        log_rate: log10 of the photoionisation rate [1/s], see ``neutral_fraction``.
        steps: of the mesh, even in the square root of the scale factor from 0.02 on.
        mesh_factor: force cells per particle along an axis.
        oversampling: particles along each side of a cell.
    """

    redshift_space: int = 0
    log_rate: float = -12.0
    steps: int = 20
    mesh_factor: int = 2
    oversampling: int = 2

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor, self.oversampling)
        if self.steps < 1 or self.redshift_space not in (0, 1) or not -20 < self.log_rate < 0:
            raise InputError(
                "HI needs 1 step or more, redshift_space 0 or 1 and log_rate in -20 to 0, got "
                f"{self.steps}, {self.redshift_space} and {self.log_rate:g}"
            )

    def layout(self, grid: Grid) -> Layout:
        del grid
        return Layout(UNIT, line_of_sight=2 if self.redshift_space else None)

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        return Pair(self.painted(cosmo, z, grid, seed, device)[0], None)

    def painted(
        self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """HI density, and the displacement [Mpc/h] of the particles as it is seen."""
        n, side = grid.shape[0], grid.box_size[0]
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        moved = self.evolved(run, n * self.oversampling)
        mass = self.masses(cosmo, z, moved, side, n, np.random.default_rng([seed, 2]))
        seen = redshift_space(moved, run.growth, run.a) if self.redshift_space else moved.displacement
        hi = deposited(torch.from_numpy(mass), seen.double(), side, n)
        return (hi * (n / side) ** 3).float(), seen

    def masses(
        self, cosmo: Cosmology, z: float, moved: Motion, side: float, cells: int, rng: np.random.Generator
    ) -> Array:
        """HI mass [Msun/h] of each particle ``(1, 1, n, n, n)`` in a box of ``side`` [Mpc/h].

        Args:
            cells: along an axis, of the densities that are looked at.

        Raises:
            InputError: for particles so heavy that less than 5 % of the HI is in halos that they resolve.
        """
        shape = (1, 1, *moved.displacement.shape[2:])
        particle = self._particle_mass(cosmo, z, side**3 / math.prod(shape))
        x = positions(moved.displacement, side)[0].T.double().numpy()
        halos = friends_of_friends(np.where(x >= side, 0.0, x), side, particle, fewest=FEWEST)
        outside = halos.halo < 0
        matter = density(moved.displacement, side, cells)
        both = torch.cat([matter, smoothed(matter, side, REACH)], 1)
        local, wide = readout(both, moved.displacement, side).double().flatten(2)[0].clamp(min=0).numpy()
        smaller = HIHalos(cosmo, z, high=float(corrected(FEWEST)) * particle)
        odds = np.where(outside, wide ** (smaller.bias() - 1), 0.0)
        gas = particle * photoionised_share(cosmo, z, local, 10**self.log_rate)
        found = shared(HIRelation.at(z)(corrected(halos.mass / particle) * particle), halos)
        drawn = scattered(smaller.drawn(side**3, rng), odds, rng)
        return (found + drawn + np.where(outside, gas, 0.0)).reshape(shape)

    def evolved(self, run: Run, particles: int) -> Motion:
        """Motion of so many particles a side, from an early start; on the CPU."""
        steps = np.linspace(START**0.5, run.a**0.5, self.steps + 1)[1:] ** 2
        ends = tuple(float(a) for a in steps)
        solver = calibrated_mesh(run.cosmo, particles, run.box_size, ends, self.mesh_factor, START)
        (snapshot,) = solver.run(run.modes(particles), ends[-1:])
        return Motion(*(part.cpu() for part in motion(solver, snapshot)))

    def _particle_mass(self, cosmo: Cosmology, z: float, volume: float) -> float:
        """[Msun/h] of a particle for each ``volume``."""
        particle = CRITICAL_DENSITY * cosmo.Omega_m * volume
        smallest = float(corrected(FEWEST)) * particle
        whole, held = (HIHalos(cosmo, z, low).density() for low in (0.0, smallest))
        if held < LEAST * whole:
            raise InputError(
                f"at Omega_m = {cosmo.Omega_m:g}, sigma_8 = {cosmo.sigma_8:g}, z = {z:g} halos of {FEWEST} "
                f"particles of {particle:.2g} Msun/h or more hold {held / whole:.1%} of the HI, less than "
                f"{LEAST:.0%}; take a smaller box or raise oversampling"
            )
        return particle


@dataclass(frozen=True)
class HIInMatter(HI):
    """The same beside the matter that it is painted on.

    Coarse: matter density 1 + delta of the same particles on the same cells, by cloud-in-cell, in the same
    space.
    """

    def layout(self, grid: Grid) -> Layout:
        return replace(super().layout(grid), coarse_channels=1, coarse_shape=grid.shape)

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        hi, seen = self.painted(cosmo, z, grid, seed, device)
        return Pair(hi, density(seen, grid.box_size[0], grid.shape[0]).float())


def corrected(particles: ArrayLike) -> Array:
    """N (1 - N^-0.6) of groups of N particles, which chance links make too large.

    Warren et al. 2006 (astro-ph/0506395). With it the mesh has 0.86 to 1.2 of Sheth & Tormen's halos at
    z = 2 to 5, from 10 particles of 2.5e9 Msun/h on (20 Mpc/h, three boxes each); without it 1.25 to 1.7
    at 10 to 20 particles.
    """
    count = np.asarray(particles, dtype=np.float64)
    return count * (1 - count**-0.6)
