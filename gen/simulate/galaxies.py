"""A source of sparse galaxy counts beside the matter density that they stand in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.displacement import density, positions
from gen.simulate.halos import CRITICAL_DENSITY, HOD, friends_of_friends
from gen.simulate.nbody_pairs import Layout, Pair, Run, check_box
from gen.simulate.theory import Cosmology

FEWEST = 10
"""Particles of the smallest halo."""


@dataclass(frozen=True)
class Galaxies:
    """Galaxies of a particle mesh's friends-of-friends halos, by a halo occupation distribution.

    Values: galaxies in each cell, whole numbers. Coarse: matter density 1 + delta of the same cells. Halos
    are groups of 10 particles or more, linked at 0.2 of their mean separation; a mesh's forces make fewer and
    wider ones than there are, so these are galaxies of a simple model, not of the universe.

    Args:
        log_M_min, sigma_log_M, log_M_0, log_M_1, alpha: as of ``gen.simulate.halos.HOD``.
        steps, mesh_factor, oversampling: as of ``gen.simulate.nbody_pairs.Density``.
    """

    log_M_min: float = 13.0
    sigma_log_M: float = 0.3
    log_M_0: float = 13.0
    log_M_1: float = 13.9
    alpha: float = 1.0
    steps: int = 12
    mesh_factor: int = 2
    oversampling: int = 2

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor, self.oversampling)
        if self.sigma_log_M <= 0 or self.alpha <= 0:
            raise InputError(
                f"sigma_log_M and alpha must be positive, got {self.sigma_log_M:g} and {self.alpha:g}"
            )

    def layout(self, grid: Grid) -> Layout:
        return Layout("galaxies", 1, (), 1, grid.shape)

    @property
    def hod(self) -> HOD:
        return HOD(self.log_M_min, self.sigma_log_M, self.log_M_0, self.log_M_1, self.alpha)

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        n, side = grid.shape[0], grid.box_size[0]
        moved = run.evolved(run.modes(n * self.oversampling)).displacement.cpu()
        x = positions(moved, side)[0].T.double().numpy()
        x = np.where(x >= side, 0.0, x)
        mass = self._particle_mass(cosmo, side**3 / len(x))
        halos = friends_of_friends(x, side, mass, fewest=FEWEST)
        galaxies = self.hod.galaxies(halos, x, np.random.default_rng([seed, 1]))
        cell = np.minimum((galaxies * (n / side)).astype(np.int64), n - 1)
        count = np.zeros((n, n, n), dtype=np.float32)
        np.add.at(count, tuple(cell.T), 1)
        return Pair(torch.from_numpy(count)[None, None], density(moved, side, n))

    def _particle_mass(self, cosmo: Cosmology, volume: float) -> float:
        """[Msun/h]; refuses one that leaves the halos of most galaxies unresolved."""
        mass = CRITICAL_DENSITY * cosmo.Omega_m * volume
        if 10**self.log_M_min < FEWEST * mass:
            raise InputError(
                f"halos of log_M_min {self.log_M_min:g} hold {10**self.log_M_min / mass:.2g} particles, "
                f"fewer than the {FEWEST} of the smallest that is found; raise log_M_min or oversampling"
            )
        return mass
