"""Sources of three-dimensional fields: displacements, densities, and runs of two resolutions.

One simulation gives one field of the whole periodic box, at one redshift, and where there is one, the
coarse field that it is to be made from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.displacement import Motion, density, motion, second_order, zeldovich
from gen.simulate.growth import Growth
from gen.simulate.initial import at_cell_centres, linear_modes, white_noise
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.sources import SHARPENING
from gen.simulate.theory import Cosmology, linear_power

VECTORS = ((0, 1, 2), (3, 4, 5))
MOTION_UNIT = "Mpc/h and km/s"
HEIGHTS = {2.0: SHARPENING[0], 4.0: 1.0, 8.0: 0.0}
"""Of the force's sharpening over sigma_8^2, by the particles' spacing [Mpc/h], two mesh cells a particle.

4 Mpc/h: 32^3 particles in 128 Mpc/h, 12 steps, four pairs of boxes of opposite phases, z = 0, k = 0.2 to
0.79 h/Mpc, shot noise left in: P(k) over halofit's is 1.02 to 1.06 at (Omega_m, sigma_8) = (0.3, 0.8),
0.91 to 1.0 at (0.2, 0.95), 0.97 to 1.11 at (0.45, 0.65) and 1.03 to 1.10 at (0.15, 0.7); 3.1 would give
1.2. At z = 0.5 and 1 it is 1.0 to 1.17 at the first two, up to 1.26 at the third. Particles end 0.67
Mpc/h in the mean from those of the same waves run with 8 times as many; with 0 and 3.1 it is 0.69, 0.70.
8 Mpc/h: P(k) is 1.0 to 1.2 of halofit's without any. Below 2 Mpc/h nothing is calibrated.
"""


class Pair(NamedTuple):
    """One simulation: ``values`` (1, C, *shape) and perhaps ``coarse`` (1, Cc, *coarse shape), on the CPU."""

    values: Tensor
    coarse: Tensor | None


@dataclass(frozen=True)
class Layout:
    """What the channels of a source are; ``coarse_channels`` is 0 where nothing is coarse."""

    unit: str = "1"
    channels: int = 1
    vector_channels: tuple[tuple[int, ...], ...] = ()
    coarse_channels: int = 0
    coarse_shape: tuple[int, ...] = ()
    coarse_vector_channels: tuple[tuple[int, ...], ...] = ()
    spin_channels: tuple[tuple[int, ...], ...] = ()
    line_of_sight: int | None = None


@dataclass(frozen=True)
class Displacement:
    """Motion of particles, and what the Zel'dovich approximation says of it.

    Values: displacement [Mpc/h] and peculiar velocity [km/s] of the particles of a particle mesh, one in
    each cell of the grid (channels x, y, z, vx, vy, vz). Coarse: the Zel'dovich displacement at the same
    redshift; the Zel'dovich velocity is proportional to it, a H f.

    Args:
        steps: equal steps in scale factor, from 0.1 to that of the redshift; 0 takes 2LPT for the truth.
        mesh_factor: force cells per particle along an axis.
    """

    steps: int = 12
    mesh_factor: int = 2

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor)

    def layout(self, grid: Grid) -> Layout:
        return Layout(MOTION_UNIT, 6, VECTORS, 3, grid.shape, VECTORS[:1])

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        modes = run.modes(grid.shape[0])
        first = zeldovich(modes, grid.box_size[0], run.growth, run.a)
        return Pair(joined(run.evolved(modes)), first.displacement.cpu())


@dataclass(frozen=True)
class Density:
    """Matter density 1 + delta of a particle mesh by cloud-in-cell, and nothing coarse.

    Args:
        steps, mesh_factor: as of ``Displacement``.
        oversampling: particles along each side of a cell. With one, cells of voids may hold exactly 0.
    """

    steps: int = 12
    mesh_factor: int = 2
    oversampling: int = 1

    def check(self, grid: Grid) -> None:
        check_box(grid, self.steps, self.mesh_factor, self.oversampling)

    def layout(self, grid: Grid) -> Layout:
        del grid
        return Layout()

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        n = grid.shape[0]
        return Pair(run.density(n * self.oversampling, n), None)


@dataclass(frozen=True)
class SuperResolution:
    """Two runs of one universe, with 8 times fewer particles in the coarse one.

    Both share the modes that both hold, sampled at the centres of their own cells, so that coarse cell i
    covers cells 2 i and 2 i + 1. The coarse run lacks the shorter waves and resolves less of the force.

    Args:
        field: "density" (1 + delta, by cloud-in-cell on the own grid) or "displacement" (and velocity,
            6 channels, as of ``Displacement``).
        steps, mesh_factor: of both runs, as of ``Displacement``.
        oversampling: particles along each side of a cell, in both runs; 1 for displacements.
    """

    field: str = "density"
    steps: int = 12
    mesh_factor: int = 2
    oversampling: int = 1

    def check(self, grid: Grid) -> None:
        if self.field not in ("density", "displacement"):
            raise InputError(f"field must be density or displacement, got {self.field!r}")
        if self.field == "displacement" and self.oversampling != 1:
            raise InputError(
                f"displacements have one particle in a cell, so oversampling must be 1, got "
                f"{self.oversampling}"
            )
        check_box(grid, self.steps, self.mesh_factor, self.oversampling)
        check_halves(grid)

    def layout(self, grid: Grid) -> Layout:
        half = tuple(n // 2 for n in grid.shape)
        if self.field == "density":
            return Layout(coarse_channels=1, coarse_shape=half)
        return Layout(MOTION_UNIT, 6, VECTORS, 6, half, VECTORS)

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        run = Run(cosmo, z, grid, seed, device, self.steps, self.mesh_factor)
        fine, coarse = grid.shape[0], grid.shape[0] // 2
        if self.field == "density":
            return Pair(*(run.density(n * self.oversampling, n) for n in (fine, coarse)))
        return Pair(*(joined(run.evolved(run.modes(n))) for n in (fine, coarse)))


class Run:
    """One universe at one redshift, at whatever resolution."""

    def __init__(
        self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str, steps: int, mesh_factor: int
    ) -> None:
        self.cosmo, self.a, self.box_size = cosmo, 1 / (1 + z), grid.box_size[0]
        self.seed, self.device, self.steps, self.mesh_factor = seed, device, steps, mesh_factor
        self.growth = Growth(cosmo.Omega_m)

    def modes(self, n: int) -> Tensor:
        """Of the linear density at a = 1 at the centres of n^3 cells."""

        def power(k: Tensor) -> Tensor:
            return torch.from_numpy(linear_power(self.cosmo, k.double().numpy()))

        noise = white_noise([sample_generator(self.seed, 0, "initial")], n).to(self.device)
        return at_cell_centres(linear_modes(noise, self.box_size, power))

    def evolved(self, modes: Tensor) -> Motion:
        return self.snapshots(modes, [self.a])[0]

    def snapshots(self, modes: Tensor, scale_factors: Sequence[float]) -> list[Motion]:
        """Motion at each of the rising scale factors, which are ends of steps beside the even ones."""
        if not self.steps:
            return [second_order(modes, self.box_size, self.growth, a) for a in scale_factors]
        steps = tuple(sorted({*even_steps(self.steps, end=scale_factors[-1]), *scale_factors}))
        solver = calibrated_mesh(self.cosmo, modes.shape[1], self.box_size, steps, self.mesh_factor)
        return [motion(solver, snapshot) for snapshot in solver.run(modes, scale_factors)]

    def density(self, particles: int, mesh: int) -> Tensor:
        moved = self.evolved(self.modes(particles)).displacement
        return density(moved, self.box_size, mesh).cpu()


def check_halves(grid: Grid) -> None:
    """Refuse a grid that a run of half as many cells a side does not fit.

    Raises:
        InputError: for it.
    """
    if grid.shape[0] % 4 or grid.shape[0] < 8:
        raise InputError(
            f"the grid of a super-resolution set needs 8 cells or more a side, a multiple of 4, got "
            f"{grid.shape[0]}"
        )


def calibrated_mesh(
    cosmo: Cosmology,
    n: int,
    box_size: float,
    steps: Sequence[float],
    mesh_factor: int = 2,
    start: float = 0.1,
) -> ParticleMesh:
    """The particle mesh of ``n^3`` particles whose force is sharpened as ``HEIGHTS`` says."""
    sharpening = sharpening_height(box_size / n) * cosmo.sigma_8**2, SHARPENING[1]
    return ParticleMesh(n, box_size, cosmo.Omega_m, tuple(steps), start, mesh_factor, sharpening)


def sharpening_height(spacing: float) -> float:
    """Height over sigma_8^2 of the force's sharpening, between those of ``HEIGHTS`` by ln of the spacing."""
    return float(np.interp(math.log(spacing), np.log(list(HEIGHTS)), list(HEIGHTS.values())))


def joined(moved: Motion) -> Tensor:
    """Displacement and velocity as channels of one field, on the CPU."""
    return torch.cat([moved.displacement, moved.velocity], 1).cpu()


def check_box(grid: Grid, steps: int, mesh_factor: int, oversampling: int = 1) -> None:
    """Refuse what no particle mesh can be run on.

    Raises:
        InputError: for a grid that is no periodic cube in Mpc/h, and for numbers out of range.
    """
    cube = grid.dim == 3 and len(set(grid.shape)) == len(set(grid.box_size)) == 1
    if not cube or not grid.periodic or grid.unit != "Mpc/h" or grid.shape[0] % 2 or grid.shape[0] < 4:
        raise InputError(
            f"an N-body box needs a periodic cubic grid in Mpc/h with an even number of cells, at least 4, "
            f"got {grid}"
        )
    if steps < 0 or not 1 <= mesh_factor <= 4 or not 1 <= oversampling <= 4:
        raise InputError(
            f"steps must be 0 or more, mesh_factor and oversampling 1 to 4, got {steps}, {mesh_factor} and "
            f"{oversampling}"
        )
