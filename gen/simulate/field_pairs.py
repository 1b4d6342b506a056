"""Sources of pairs for maps between fields of particles: back in time, between two times, to other matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.displacement import zeldovich
from gen.simulate.initial import sum_of_squares, wavevector
from gen.simulate.lattices import interpolated, lacking
from gen.simulate.nbody_pairs import (
    MOTION_UNIT,
    VECTORS,
    Layout,
    Pair,
    Run,
    check_box,
    check_halves,
    joined,
)
from gen.simulate.neutrinos import suppression
from gen.simulate.theory import Cosmology


@dataclass(frozen=True)
class Initial:
    """Where the particles of an evolved box came from.

    Values: Zel'dovich displacement [Mpc/h], linear theory at the same redshift; channels x, y, z. Coarse:
    the evolved displacement of the same particles.

    Args:
        steps, mesh_factor: as of ``gen.simulate.nbody_pairs.Displacement``.
    """

    steps: int = 12
    mesh_factor: int = 2

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor)

    def layout(self, grid: Grid) -> Layout:
        return Layout("Mpc/h", 3, VECTORS[:1], 3, grid.shape, VECTORS[:1])

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        modes = run.modes(grid.shape[0])
        first = zeldovich(modes, grid.box_size[0], run.growth, run.a)
        return Pair(first.displacement.cpu(), run.evolved(modes).displacement.cpu())


@dataclass(frozen=True)
class Intermediate:
    """A snapshot between two others of one run.

    Values: displacement [Mpc/h] of the particles at the simulation's redshift; channels x, y, z. Coarse:
    displacement and peculiar velocity [km/s] at ``z_early``, then at ``z_late``, 12 channels.

    Args:
        z_early, z_late: redshifts of the snapshots on both sides.
        steps: equal steps in scale factor from 0.1 to that of ``z_late``; the other two are steps' ends too.
        mesh_factor: as of ``gen.simulate.nbody_pairs.Displacement``.
    """

    z_early: float = 1.0
    z_late: float = 0.0
    steps: int = 12
    mesh_factor: int = 2

    @property
    def redshifts(self) -> tuple[float, float]:
        """Between which the wanted snapshot may lie."""
        return self.z_late, self.z_early

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor)
        if not 0 <= self.z_late < self.z_early <= 4:
            raise InputError(
                f"z_late must be 0 or more and below z_early, which is 4 at most, got {self.z_late:g} and "
                f"{self.z_early:g}"
            )

    def layout(self, grid: Grid) -> Layout:
        vectors = tuple((i, i + 1, i + 2) for i in (0, 3, 6, 9))
        return Layout("Mpc/h", 3, VECTORS[:1], 12, grid.shape, vectors)

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        if not self.z_late <= z <= self.z_early:
            raise InputError(
                f"an intermediate snapshot lies between the redshifts {self.z_late:g} and {self.z_early:g}, "
                f"got {z:g}"
            )
        run = Run(cosmo, self.z_late, grid, seed, device, self.steps, self.mesh_factor)
        wanted = [1 / (1 + at) for at in (self.z_early, z, self.z_late)]
        rising = sorted(set(wanted))
        found = dict(zip(rising, run.snapshots(run.modes(grid.shape[0]), rising), strict=True))
        early, middle, late = (found[a] for a in wanted)
        return Pair(middle.displacement.cpu(), torch.cat([joined(early), joined(late)], 1))


@dataclass(frozen=True)
class NeutrinoLike:
    """Two runs of the same phases, one from a linear power suppressed as massive neutrinos would.

    Values: displacement [Mpc/h] of the run with neutrinos of summed mass m_nu, channels x, y, z. Coarse: that
    of the massless run. Neutrino-like: only the initial power is changed (``gen.simulate.neutrinos``); both
    runs are then pure cold matter of the same Omega_m, and sigma_8 is the massless run's. The map from one to
    the other is the idea of Giusarma et al. 2019 (arXiv:1910.04255).

    Args:
        steps, mesh_factor: as of ``gen.simulate.nbody_pairs.Displacement``.
    """

    steps: int = 12
    mesh_factor: int = 2

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor)

    def layout(self, grid: Grid) -> Layout:
        return Layout("Mpc/h", 3, VECTORS[:1], 3, grid.shape, VECTORS[:1])

    def fields(
        self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu", m_nu: float = 0.0
    ) -> Pair:
        """One pair at the summed mass ``m_nu`` [eV]."""
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        massless = run.modes(grid.shape[0])
        k = sum_of_squares(wavevector(grid.shape[0], grid.box_size[0], massless.device)).sqrt()
        ratio = suppression(k, torch.tensor(cosmo.Omega_m), torch.tensor(m_nu), cosmo.h)
        both = (massless * ratio.sqrt(), massless)
        return Pair(*(run.evolved(modes).displacement.cpu() for modes in both))


@dataclass(frozen=True)
class Refinement:
    """A run, and all that it knew at the start beyond a run of half as many particles a side.

    Values: displacement [Mpc/h] and peculiar velocity [km/s], channels x, y, z, vx, vy, vz. Coarse: those of
    the coarse run of the same universe, interpolated to the fine particles, and the Zel'dovich displacement
    [Mpc/h] of the waves that it lacks, linear theory at the same redshift; 9 channels.

    Args:
        steps, mesh_factor: of both runs, as of ``gen.simulate.nbody_pairs.Displacement``.
    """

    steps: int = 12
    mesh_factor: int = 2

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor)
        check_halves(grid)

    def layout(self, grid: Grid) -> Layout:
        return Layout(MOTION_UNIT, 6, VECTORS, 9, grid.shape, (*VECTORS, (6, 7, 8)))

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        n, side = grid.shape[0], grid.box_size[0]
        modes = run.modes(n)
        known = interpolated(joined(run.evolved(run.modes(n // 2))), 2)
        rest = zeldovich(modes * lacking(grid.shape, 2, modes.device), side, run.growth, run.a)
        return Pair(joined(run.evolved(modes)), torch.cat([known, rest.displacement.cpu()], 1))


@dataclass(frozen=True)
class SuperResolutionSlab:
    """The mean density 1 + delta along the last axis of a slab of a box, at two resolutions.

    The two-dimensional sibling of ``gen.simulate.nbody_pairs.SuperResolution``: values on n^2 cells from a
    run of n^3 particles, coarse on (n/2)^2 from (n/2)^3 particles of the same universe, both of one slab.

    Args:
        depth: thickness of the slab in coarse cells.
        steps, mesh_factor, oversampling: as of ``gen.simulate.nbody_pairs.SuperResolution``.
    """

    depth: int = 4
    steps: int = 12
    mesh_factor: int = 2
    oversampling: int = 1

    def check(self, grid: Grid) -> None:
        if grid.dim != 2 or len(set(grid.shape)) > 1 or len(set(grid.box_size)) > 1:
            raise InputError(f"a slab is seen on a square grid of two axes, got {grid}")
        check_box(_cube(grid), self.steps, self.mesh_factor, self.oversampling)
        check_halves(grid)
        if not 1 <= self.depth <= grid.shape[0] // 2:
            raise InputError(
                f"depth must be 1 to {grid.shape[0] // 2} coarse cells, the box's side, got {self.depth}"
            )

    def layout(self, grid: Grid) -> Layout:
        return Layout(coarse_channels=1, coarse_shape=tuple(n // 2 for n in grid.shape))

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, _cube(grid), seed, device, self.steps, self.mesh_factor)
        n = grid.shape[0]
        fine, coarse = (run.density(m * self.oversampling, m) for m in (n, n // 2))
        return Pair(fine[..., : 2 * self.depth].mean(-1), coarse[..., : self.depth].mean(-1))


def _cube(grid: Grid) -> Grid:
    return Grid((grid.shape[0],) * 3, grid.box_size[0], grid.unit, grid.periodic)
