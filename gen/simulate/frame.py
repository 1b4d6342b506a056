"""The particle mesh seen from given trajectories: a few forces correct whatever proposed them.

With x = x_ref(a) + y and p = a^2 dx/dt = p_ref(a) + r (H0 = 1) the equations of motion are

    dy/da = r / (a^3 E),    dr/da = 3/2 Omega_m / (a^2 E) [F(x) - F_ref],    F = - grad lap^-1 delta,

with F_ref the force that would keep particles on the reference, dp_ref/da = 3/2 Omega_m / (a^2 E) F_ref. In a
perfect frame y and r stay zero; in any that starts where the particle mesh starts, steps of size h err by
O(h^2). Frames of 2LPT are COLA (Tassev, Zaldarriaga & Eisenstein 2013, arXiv:1301.0322), those of an emulator
COCA (Bartlett, Chiarenza, Doeser & Leclercq 2024, arXiv:2409.02154).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gen.errors import InputError
from gen.simulate.displacement import HUBBLE, Motion
from gen.simulate.growth import Growth
from gen.simulate.initial import displacements, divergence_modes
from gen.simulate.mass_assignment import deposit, readout, wrap
from gen.simulate.particle_mesh import ParticleMesh, even_steps


class Reference(NamedTuple):
    """Trajectories at one scale factor, each ``(B, 3, n, n, n)``: displacement [Mpc/h], momentum a^2 dx/dt
    [H0 Mpc/h] and the force -grad lap^-1 delta [Mpc/h] that would keep particles on them."""

    displacement: Tensor
    momentum: Tensor
    force: Tensor


Trajectories = Callable[[float], Reference]


@dataclass(frozen=True, eq=False)
class Perturbed:
    r"""2LPT, and what a proposal of the end adds to it, grown as the third order grows.

    x_ref(a) = q + D1 psi1 + D2 psi2 + w(a) U,  with U the proposed end less 2LPT's. Particles start on 2LPT,
    so w = w' = 0 there. A source that grows as D1^3 moves them, in an Einstein-de Sitter universe, by

    w ~ tau^3 - 9/5 tau + 4/5 tau^(-3/2),  tau = D1(a) / D1(start),  w(end) = 1.

    Measured on the particle mesh (four boxes of 32^3 particles, 4 Mpc/h apart, 12 steps; Omega_m 0.12 to
    0.48, sigma_8 0.65 to 0.95), its residual to 2LPT at a, projected on that at a = 1, is 0.78 to 1.15 of w
    at a = 0.55 and 1.0 to 1.06 at 0.85, with correlations of 0.68 to 0.77 and 0.97 to 0.99.

    Args:
        growth: of the cosmology.
        start, end: scale factors.
        first, second: psi1, psi2 at unit growth, ``(B, 3, n, n, n)`` [Mpc/h].
        residual: U, same shape [Mpc/h]; without it this is 2LPT.
    """

    growth: Growth
    start: float
    end: float
    first: Tensor
    second: Tensor
    residual: Tensor | None = None

    def __call__(self, a: float) -> Reference:
        growth = self.growth
        d1, d2 = float(growth.first(a)), float(growth.second(a))
        # dG1 = 3/2 Omega_m / (a^2 E) D1 da and dG2 = 3/2 Omega_m / (a^2 E) (D2 - D1^2) da, G = a^3 E dD/da.
        on_first = d1, float(growth.first_momentum(a)), d1
        on_second = d2, float(growth.second_momentum(a)), d2 - d1**2
        parts = [c * self.first + s * self.second for c, s in zip(on_first, on_second, strict=True)]
        if self.residual is not None:
            parts = [p + c * self.residual for p, c in zip(parts, self._third(a), strict=True)]
        return Reference(*parts)

    def _third(self, a: float) -> tuple[float, float, float]:
        """w, its momentum G1 dw/dD1, and its force D1 dw/dD1 + G1^2 / (3/2 Omega_m a) d2w/dD1^2."""
        growth = self.growth
        first, momentum = float(growth.first(a)), float(growth.first_momentum(a))
        unit = float(growth.first(self.start))
        tau, last = first / unit, float(growth.first(self.end)) / unit
        whole = _third_order(last)[0]
        w, slope, bend = (c / whole / unit**i for i, c in enumerate(_third_order(tau)))
        return w, momentum * slope, first * slope + momentum**2 / (1.5 * growth.Omega_m * a) * bend


def _third_order(tau: float) -> tuple[float, float, float]:
    """w before its normalisation, w' and w''."""
    return (
        tau**3 - 1.8 * tau + 0.8 * tau**-1.5,
        3 * tau**2 - 1.8 - 1.2 * tau**-2.5,
        6 * tau + 3 * tau**-3.5,
    )


def check_forces(n_forces: int) -> None:
    """Refuse to correct without a force.

    Raises:
        InputError: for fewer than one.
    """
    if n_forces < 1:
        raise InputError(f"a correction needs at least 1 force evaluation, got {n_forces}")


def proposed(solver: ParticleMesh, zeldovich: Tensor, displacement: Tensor | None = None) -> Perturbed:
    """The frame of a displacement that was proposed for the solver's last step; without one, that of 2LPT.

    Args:
        solver: of the same universe.
        zeldovich: displacement ``(B, 3, n, n, n)`` [Mpc/h] of first order at the last step.
        displacement: what is proposed, the same shape [Mpc/h].

    Raises:
        InputError: for other shapes, a proposal that is not finite, or a Zel'dovich displacement that is no
            gradient of waves below Nyquist.
    """
    shape = (len(zeldovich), 3, *(solver.n,) * 3)
    for field in (zeldovich,) if displacement is None else (zeldovich, displacement):
        if tuple(field.shape) != shape:
            raise InputError(
                f"displacements of {solver.n}^3 particles must be {shape}, got {tuple(field.shape)}"
            )
    growth, end = solver.growth, solver.steps[-1]
    d1, d2 = float(growth.first(end)), float(growth.second(end))
    first, second = displacements(divergence_modes(zeldovich / d1, solver.box_size), solver.box_size)
    lost = (d1 * first - zeldovich).square().mean().sqrt() / zeldovich.square().mean().sqrt().clamp(min=1e-30)
    if not lost < 1e-3:
        raise InputError(
            f"a Zel'dovich displacement must be finite, a gradient, without mean or waves on the Nyquist "
            f"planes; {float(lost):.2g} of this one (rms) is not: take gen.simulate.displacement.zeldovich's"
        )
    if displacement is None:
        return Perturbed(growth, solver.start, end, first, second)
    if not displacement.isfinite().all():
        raise InputError("a proposed displacement must be finite; the emulator's is not")
    return Perturbed(growth, solver.start, end, first, second, displacement - d1 * first - d2 * second)


@dataclass(frozen=True, eq=False)
class MovingFrame:
    """Drift, kick, drift of what the particle mesh does beyond given trajectories.

    Args:
        solver: its force law, its start and its last step are taken; steps between are not.
        reference: trajectories that start as ``solver.initial`` does, such as ``proposed`` gives.
        damped: whether kicks know that particles in dense places turn back before a long step ends. A
            constant pull F moves an oscillator's momentum by F sin(omega h) / omega in h, so a kick K F is
            divided by 1 + (omega h)^2 / 6, with (omega h)^2 = K drift max(delta, 0) / 3, the mean over
            directions of the tide that delta at the particle holds. Steps of size h still err by O(h^2).
            COLA has none.

    A proposal of the end alone says little of how particles of halos came there, so one or two forces can
    leave a good proposal worse than it was: compare, and take more.
    """

    solver: ParticleMesh
    reference: Trajectories
    damped: bool = True

    @torch.no_grad()
    def run(self, n_forces: int) -> Motion:
        """Motion at the solver's last step, by ``n_forces`` equal steps in scale factor, one force in each.

        Raises:
            InputError: for fewer than one.
        """
        check_forces(n_forces)
        solver, growth = self.solver, self.solver.growth
        start, end = solver.start, solver.steps[-1]
        y = torch.zeros_like(self.reference(end).displacement)
        r = torch.zeros_like(y)
        kernels = solver.force_kernels(y.device)
        for low, high in pairwise((start, *even_steps(n_forces, start, end))):
            middle = (low + high) / 2
            y = y + growth.drift(low, middle, low) * r
            r = r + self._kick(y, low, middle, high, kernels)
            y = y + growth.drift(middle, high, high) * r
        last = self.reference(end)
        return Motion(last.displacement + y, (last.momentum + r) * (HUBBLE / end))

    def _kick(self, y: Tensor, low: float, a: float, high: float, kernels: tuple[Tensor, Tensor]) -> Tensor:
        """What a step from ``low`` to ``high`` adds to r by the force at ``a``."""
        solver, growth, at = self.solver, self.solver.growth, self.reference(a)
        factor = 1.5 * solver.Omega_m * growth.kick(low, high, a)
        force, delta = self._force(at.displacement + y, a, kernels)
        if not self.damped:
            return factor * (force - at.force)
        turned = factor * growth.drift(low, high, a) / 3 * delta.clamp(min=0)
        return factor * (force - at.force) / (1 + turned / 6)

    def _force(self, displacement: Tensor, a: float, kernels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """-grad lap^-1 delta [Mpc/h] and delta at displaced particles, 3 and 1 channels."""
        solver = self.solver
        cell = solver.box_size / solver.mesh
        line = torch.arange(solver.n, device=displacement.device) * solver.mesh_factor + 0.5
        lattice = torch.stack(torch.meshgrid(line, line, line, indexing="ij"))
        x = wrap((lattice + displacement / cell).flatten(2), solver.mesh)
        count = deposit(x, solver.mesh)
        kernel = torch.add(*kernels, alpha=float(solver.growth.first(a)) ** 2)
        found = readout([*solver.acceleration(count, kernel), count], x).reshape(
            -1, 4, *displacement.shape[2:]
        )
        return found[:, :3] * cell, found[:, 3:] * solver.mesh_factor**3 - 1
