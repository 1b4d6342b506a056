"""A particle-mesh N-body solver in torch: 2LPT start, FastPM kicks and drifts, CIC force.

It runs on CPU and GPU, a batch of realisations at once. Reference: Feng, Chu, Seljak & McDonald 2016
(arXiv:1603.00476).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.simulate.growth import Growth
from gen.simulate.initial import displacements, sum_of_squares, wavevector
from gen.simulate.mass_assignment import deposit, readout, window, wrap


class Snapshot(NamedTuple):
    """Particles at one scale factor: positions ``(B, 3, P)`` [mesh cells], momenta a^2 dx/dt [H0 cells]."""

    a: float
    positions: Tensor
    momenta: Tensor


def even_steps(count: int, start: float = 0.1, end: float = 1.0) -> tuple[float, ...]:
    """Scale factors at the ends of ``count`` equal steps from ``start``."""
    return tuple(float(a) for a in np.linspace(start, end, count + 1)[1:])


@dataclass(frozen=True)
class ParticleMesh:
    """n^3 particles in a periodic cube, evolved on a mesh of ``(mesh_factor n)^3`` cells.

    Args:
        n: particles along each axis.
        box_size: side [Mpc/h].
        Omega_m: matter density of flat LCDM.
        steps: rising scale factors, the ends of the steps.
        start: scale factor of the 2LPT start.
        mesh_factor: force cells per particle along an axis.
        sharpening: height h and reach r [cells] of a factor 1 + h D(a)^2 x^2 exp(-x^2), x = k r, on the
            force, D the growth factor.

    A mesh force is too soft below a few cells, and few steps blur halos, the more so the more structure
    there is. Dividing by the window of one CIC assignment and the sharpening give this back; the idea of
    a filter on the potential is that of Lanzieri, Lanusse & Starck 2022 (arXiv:2207.05509).

    Particles start half a cell off the mesh's nodes and the gradient is the four-point difference of the
    potential: on the nodes, with a gradient that jumps at the Nyquist wavenumber, the lattice of
    particles would pull itself until it has moved by a cell (up to 40 % at long waves).
    """

    n: int
    box_size: float
    Omega_m: float
    steps: tuple[float, ...]
    start: float = 0.1
    mesh_factor: int = 2
    sharpening: tuple[float, float] = (2.0, 0.85)

    def __post_init__(self) -> None:
        if self.n < 4 or self.n % 2:
            raise InputError(f"n must be an even number of particles a side, at least 4, got {self.n}")
        ends = (self.start, *self.steps)
        rising = all(b > a for a, b in pairwise(ends))
        if not self.steps or not rising or self.start < 0.01 or self.steps[-1] > 1.2:
            raise InputError(
                f"steps must rise from start = {self.start} (0.01 or more) to 1.2 at most, got {self.steps}"
            )

    @property
    def mesh(self) -> int:
        return self.n * self.mesh_factor

    @cached_property
    def growth(self) -> Growth:
        return Growth(self.Omega_m)

    def initial(self, modes: Tensor) -> Snapshot:
        """2LPT particles at ``start`` from modes ``(B, n, n, n/2+1)`` of the linear density at a = 1."""
        cell = self.box_size / self.mesh
        first, second = (d.flatten(2) / cell for d in displacements(modes, self.box_size))
        line = torch.arange(self.n, dtype=first.dtype, device=first.device) * self.mesh_factor + 0.5
        lattice = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).reshape(1, 3, -1)
        a, growth = self.start, self.growth
        x = lattice + float(growth.first(a)) * first + float(growth.second(a)) * second
        p = float(growth.first_momentum(a)) * first + float(growth.second_momentum(a)) * second
        return Snapshot(a, wrap(x, self.mesh), p)

    def force_kernels(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """K0 and K1; K0 + D^2 K1 turns modes of the count per cell into lap^-1 delta [cells^2]."""
        m = self.mesh
        k2 = sum_of_squares(wavevector(m, float(m), device))
        height, reach = self.sharpening
        x2 = k2 * reach**2
        kernel = -(self.mesh_factor**3) / k2.clamp(min=1e-30)
        kernel[0, 0, 0] = 0
        kernel = kernel / window(m, 3, device=device).to(kernel.dtype)
        return kernel, kernel * height * x2 * torch.exp(-x2)

    def force(self, positions: Tensor, a: float, kernels: tuple[Tensor, Tensor]) -> Tensor:
        """-grad lap^-1 delta at the particles, ``(B, 3, P)`` [cells]."""
        kernel = torch.add(*kernels, alpha=float(self.growth.first(a)) ** 2)
        return readout(self.acceleration(deposit(positions, self.mesh), kernel), positions)

    def acceleration(self, count: Tensor, kernel: Tensor) -> list[Tensor]:
        """Components of -grad lap^-1 delta on the mesh [cells], from particles per cell ``(B, M, M, M)``."""
        m = self.mesh
        potential = torch.fft.rfftn(count, dim=(1, 2, 3)) * kernel
        return [
            torch.fft.irfftn(
                potential * (-1j / 6 * (8 * torch.sin(k) - torch.sin(2 * k))), s=(m, m, m), dim=(1, 2, 3)
            )
            for k in wavevector(m, float(m), count.device, odd=True)
        ]

    def run(self, modes: Tensor, outputs: Sequence[float] | None = None) -> Iterator[Snapshot]:
        """Evolve by kick, drift, kick; give a snapshot at each of ``outputs``, by default every step's end.

        Between ends a snapshot lies on the drift of its step, with the momenta of the step's middle.
        """
        outputs = self.steps if outputs is None else sorted(outputs)
        if outputs[0] <= self.start or outputs[-1] > self.steps[-1]:
            raise InputError(
                f"outputs must lie in ({self.start}, {self.steps[-1]}], got {outputs[0]} to {outputs[-1]}"
            )
        growth = self.growth
        a, x, p = self.initial(modes)
        kernels = self.force_kernels(x.device)
        force = self.force(x, a, kernels)
        for end in self.steps:
            half = math.sqrt(a * end)
            p = p + 1.5 * self.Omega_m * growth.kick(a, half, a) * force
            for out in (out for out in outputs if a < out < end):
                yield Snapshot(out, wrap(x + growth.drift(a, out, half) * p, self.mesh), p)
            x = wrap(x + growth.drift(a, end, half) * p, self.mesh)
            force = self.force(x, end, kernels)
            p = p + 1.5 * self.Omega_m * growth.kick(half, end, end) * force
            a = end
            if end in outputs:
                yield Snapshot(end, x, p)
            if end >= outputs[-1]:
                return
