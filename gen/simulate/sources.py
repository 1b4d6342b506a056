"""What turns a cosmology and a seed into the convergence maps of one simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.initial import linear_modes, white_noise
from gen.simulate.lensing import LightCone
from gen.simulate.lognormal import lognormal_convergence
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.theory import Cosmology, linear_power


class Source(Protocol):
    """A way to simulate; calls with different seeds are independent."""

    def maps(self, cosmo: Cosmology, grid: Grid, seed: int, n_maps: int, device: str = "cpu") -> Tensor:
        """``n_maps`` fields ``(n_maps, 1, *grid.shape)``, float32, on the CPU."""
        ...


SHARPENING = (3.1, 0.85)
"""Of the force: height over sigma_8^2 and reach [cells], fitted once to halofit for 2 Mpc/h and 12 steps.

Omega_m, sigma_8 from (0.12, 0.62) to (0.45, 0.65) and (0.22, 0.9), a = 0.5, 0.7 and 1, k = 0.25 to 1.6 h/Mpc:
P(k) of four boxes is then 0.86 to 1.15 of halofit's, and 0.91 to 1.04 at (0.3, 0.8).
"""


@dataclass(frozen=True)
class NBody:
    """Born-summed convergence of one particle-mesh box; its maps share the box and are not independent.

    Args:
        particles: along each axis.
        box_size: side [Mpc/h].
        steps: equal steps in scale factor from 0.1 to 1.
        plane_mesh: cells along a lensing plane's side.
        z_source: redshift of the sources.
    """

    particles: int = 64
    box_size: float = 128.0
    steps: int = 12
    plane_mesh: int = 256
    z_source: float = 1.0

    def maps(self, cosmo: Cosmology, grid: Grid, seed: int, n_maps: int, device: str = "cpu") -> Tensor:
        height, reach = SHARPENING
        solver = ParticleMesh(
            self.particles,
            self.box_size,
            cosmo.Omega_m,
            even_steps(self.steps),
            sharpening=(height * cosmo.sigma_8**2, reach),
        )
        cutoff = 2 * math.pi * self.particles / self.box_size  # the lattice that the particles started from
        cone = LightCone(cosmo, self.box_size, grid, self.z_source, self.plane_mesh, cutoff)
        slabs = cone.slabs()
        views = torch.rand(len(slabs), 1, n_maps, 5, generator=sample_generator(seed, 0, "views"))
        by_scale_factor = {slab.a: (slab, view) for slab, view in zip(slabs, views, strict=True)}

        def power(k: Tensor) -> Tensor:
            return torch.from_numpy(linear_power(cosmo, k.double().numpy()))

        noise = white_noise([sample_generator(seed, 0, "initial")], self.particles).to(device)
        modes = linear_modes(noise, self.box_size, power)
        kappa = torch.zeros(1, n_maps, *grid.shape, device=device)
        for snapshot in solver.run(modes, list(by_scale_factor)):
            slab, view = by_scale_factor[snapshot.a]
            kappa += cone.project(slab, snapshot.positions, solver.mesh, view.to(device))
        return kappa[0, :, None].cpu()


@dataclass(frozen=True)
class Lognormal:
    """Lognormal convergence of the theory's power and a cosmology-dependent shift; maps are independent."""

    z_source: float = 1.0

    def maps(self, cosmo: Cosmology, grid: Grid, seed: int, n_maps: int, device: str = "cpu") -> Tensor:
        generators = [sample_generator(seed, i, "lognormal") for i in range(n_maps)]
        return lognormal_convergence(cosmo, grid, self.z_source, generators)
