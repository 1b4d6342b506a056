"""Lagrangian displacement fields and the Eulerian fields of the particles that they move.

Particle i of n along an axis starts at q = (i + 1/2) L/n, the centre of its cell, and stands at
x = q + psi(q). Fields of any mesh have their values at the centres of its cells, (j + 1/2) L/m, so that
flips and quarter turns of the box carry displacements and densities alike. Velocities are peculiar,
v = a dx/dt [km/s], with x comoving [Mpc/h], t cosmic time and H0 = 100 km/s / (Mpc/h). In linear theory
v = a H f D psi1, f = dln D/dln a.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gen.errors import InputError
from gen.simulate.growth import Growth
from gen.simulate.initial import displacements
from gen.simulate.mass_assignment import deposit
from gen.simulate.mass_assignment import readout as at_particles
from gen.simulate.particle_mesh import ParticleMesh, Snapshot

HUBBLE = 100.0
"""H0 [km/s / (Mpc/h)]."""


class Motion(NamedTuple):
    """What particles did: displacement [Mpc/h] and peculiar velocity [km/s], each ``(B, 3, n, n, n)``."""

    displacement: Tensor
    velocity: Tensor


def lagrangian(n: int, box_size: float, device: torch.device | None = None) -> Tensor:
    """Where the particles start, q = (i + 1/2) L/n, ``(3, n, n, n)`` [Mpc/h]."""
    line = (torch.arange(n, device=device) + 0.5) * (box_size / n)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"))


def positions(displacement: Tensor, box_size: float) -> Tensor:
    """x = q + psi in [0, L), ``(B, 3, n^3)`` [Mpc/h], of displacements ``(B, 3, n, n, n)`` [Mpc/h].

    Raises:
        InputError: for another shape.
    """
    _check(displacement)
    moved = lagrangian(displacement.shape[-1], box_size, displacement.device) + displacement
    return torch.remainder(moved.flatten(2), box_size)


def from_positions(positions: Tensor, box_size: float) -> Tensor:
    """Displacements ``(B, 3, n, n, n)`` of particles at ``(B, 3, n^3)`` [Mpc/h], to the nearest image.

    Particle number (i n + j) n + k is the one that started in cell i, j, k.

    Raises:
        InputError: for a number that is no cube, or particles in another order. Out of order they stand
            L / sqrt(12) = 0.29 L from their cells along an axis, so more than 0.2 L is refused.
    """
    shape = tuple(positions.shape)
    n = round(shape[-1] ** (1 / 3))
    if len(shape) != 3 or shape[1] != 3 or n**3 != shape[2]:
        raise InputError(f"particles of a lattice must have positions (B, 3, n^3), got {shape}")
    moved = _from_cells(positions, n, box_size)
    worst = moved.square().mean((2, 3, 4)).sqrt().max().item()
    if not worst <= 0.2 * box_size:
        raise InputError(
            f"particles are out of order: along an axis they stand {worst:.3g} Mpc/h (rms) from their cells "
            f"of a lattice in a box of {box_size:g} Mpc/h; sort them by their ids"
        )
    return moved


def density(displacement: Tensor, box_size: float, mesh: int) -> Tensor:
    """1 + delta of the displaced particles, ``(B, 1, m, m, m)``, by cloud-in-cell; its mean is 1.

    Gradients reach the displacement: the weights are linear in the position along each axis.

    Args:
        displacement: ``(B, 3, n, n, n)`` [Mpc/h].
        box_size: side of the periodic cube [Mpc/h].
        mesh: m, cells along an axis.

    Raises:
        InputError: for another shape.
    """
    n = displacement.shape[-1]
    count = deposit(_on_mesh(displacement, box_size, mesh), mesh)
    return count[:, None] * (mesh / n) ** 3


def deposited(weights: Tensor, displacement: Tensor, box_size: float, mesh: int) -> Tensor:
    """Sum of weights ``(B, 1, n, n, n)`` of the displaced particles in each cell, ``(B, 1, m, m, m)``.

    By cloud-in-cell; the total is conserved. Other arguments are those of ``density``.

    Raises:
        InputError: for another shape.
    """
    return deposit(_on_mesh(displacement, box_size, mesh), mesh, weights.flatten(1))[:, None]


def readout(fields: Tensor, displacement: Tensor, box_size: float) -> Tensor:
    """Fields ``(B, C, m, m, m)`` at the displaced particles, ``(B, C, n, n, n)``, by cloud-in-cell.

    Raises:
        InputError: for another shape.
    """
    found = at_particles(list(fields.unbind(1)), _on_mesh(displacement, box_size, fields.shape[-1]))
    return found.reshape(*found.shape[:2], *displacement.shape[2:])


def zeldovich(modes: Tensor, box_size: float, growth: Growth, a: float) -> Motion:
    """First-order motion at scale factor a: psi = D1 psi1, v = a H f1 D1 psi1 (Zel'dovich 1970).

    Args:
        modes: ``(B, n, n, n/2+1)`` of the linear density contrast at a = 1, torch.fft.rfftn convention.
        box_size: side [Mpc/h].
        growth: of the cosmology.
        a: scale factor, up to 1.2.
    """
    first, _ = displacements(modes, box_size)
    return Motion(float(growth.first(a)) * first, _speed(float(growth.first_momentum(a)), a) * first)


def second_order(modes: Tensor, box_size: float, growth: Growth, a: float) -> Motion:
    """2LPT motion, psi = D1 psi1 + D2 psi2 and its velocity (Bouchet et al. 1995, astro-ph/9406013).

    Arguments are those of ``zeldovich``.
    """
    first, second = displacements(modes, box_size)
    return Motion(
        float(growth.first(a)) * first + float(growth.second(a)) * second,
        _speed(float(growth.first_momentum(a)), a) * first
        + _speed(float(growth.second_momentum(a)), a) * second,
    )


def motion(solver: ParticleMesh, snapshot: Snapshot) -> Motion:
    """Displacement and velocity of the particle mesh's particles.

    They start half a mesh cell off the mesh's nodes, at (m i + 1/2) cells, m cells a particle; that they
    are taken to start at the centres of the lattice's cells moves the whole box, by less than a cell.
    Momenta are p = a^2 dx/dt [H0 cells], so v = p/a times H0 times the cell. Between the ends of steps
    positions and momenta are of different times; take ``outputs`` among the steps' ends. Displacements are
    to the nearest image: waves that move particles by more than half the box are beyond it.
    """
    n, cell = solver.n, solver.box_size / solver.mesh
    spacing = solver.box_size / n
    x = snapshot.positions * cell + (spacing - cell) / 2
    velocity = snapshot.momenta * (HUBBLE * cell / snapshot.a)
    return Motion(_from_cells(x, n, solver.box_size), velocity.unflatten(2, (n, n, n)))


def _speed(momentum: float, a: float) -> float:
    """Velocity [km/s] of a displacement whose momentum a^2 dx/dt is given per H0."""
    return HUBBLE * momentum / a


def _from_cells(positions: Tensor, n: int, box_size: float) -> Tensor:
    """How far particles ``(B, 3, n^3)`` are from their cells, to the nearest image, ``(B, 3, n, n, n)``."""
    start = lagrangian(n, box_size, positions.device)
    return _nearest(positions.unflatten(2, (n, n, n)) - start, box_size)


def _nearest(x: Tensor, box_size: float) -> Tensor:
    """Into [-L/2, L/2)."""
    return torch.remainder(x + box_size / 2, box_size) - box_size / 2


def _on_mesh(displacement: Tensor, box_size: float, mesh: int) -> Tensor:
    """Particles in units of the mesh's cells, a cell's centre carrying its index, ``(B, 3, P)``."""
    x = torch.remainder(positions(displacement, box_size) * (mesh / box_size) - 0.5, mesh)
    return torch.where(x >= mesh, 0.0, x)  # a tiny negative number rounds to exactly ``mesh``


def _check(displacement: Tensor) -> None:
    shape = tuple(displacement.shape)
    if len(shape) != 5 or shape[1] != 3 or len(set(shape[2:])) != 1:
        raise InputError(f"a displacement must have shape (B, 3, n, n, n), got {shape}")
