"""The particle mesh of one universe, started from Zel'dovich displacements, with its latest answers kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gen.simulate.displacement import HUBBLE, motion
from gen.simulate.initial import divergence_modes
from gen.simulate.nbody_pairs import calibrated_mesh
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.theory import Cosmology

KEPT = 16
"""Calls whose answers are kept where several maps that are asked the same start from one run."""


@dataclass(frozen=True)
class MeshRun:
    """Motion of ``n^3`` particles from their Zel'dovich displacements at scale factor ``a``.

    Args:
        cosmology: of the run; its sigma_8 sets the force's sharpening.
        n: particles a side.
        box_size: side of the periodic cube [Mpc/h].
        a: scale factor of the displacements that the run is started from.
        times: rising scale factors of the answers.
        steps: equal steps in scale factor to the last of them; the others are ends of steps too.
        keep: calls without gradients whose answers are kept.
    """

    cosmology: Cosmology
    n: int
    box_size: float
    a: float
    times: tuple[float, ...]
    steps: int
    keep: int = 0
    kept: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict, repr=False, compare=False)

    @cached_property
    def solver(self) -> ParticleMesh:
        ends = tuple(sorted({*even_steps(self.steps, end=self.times[-1]), *self.times}))
        return calibrated_mesh(self.cosmology, self.n, self.box_size, ends)

    def __call__(self, psi: Tensor) -> Tensor:
        """Displacement [Mpc/h] and velocity [km/s], ``(B, T, 6, n, n, n)``, of ``(B, 3, n, n, n)``.

        A run starts from a density, so that neither curl nor drift of psi reaches it.
        """
        if not self.keep or (psi.requires_grad and torch.is_grad_enabled()):
            return self._run(psi)
        key = hashlib.sha256(psi.detach().cpu().contiguous().numpy().tobytes()).digest()
        if key not in self.kept:
            self.kept[key] = self._run(psi)
            if len(self.kept) > self.keep:
                self.kept.popitem(last=False)
        return self.kept[key]

    def drifting(self, psi: Tensor) -> Tensor:
        """As a call, and the uniform drift of psi beside it, which grows as linear theory tells."""
        growth, drift = self.solver.growth, psi.mean((2, 3, 4)) / float(self.solver.growth.first(self.a))
        motions = [(float(growth.first(a)), HUBBLE * float(growth.first_momentum(a)) / a) for a in self.times]
        rows = torch.stack([torch.cat([d * drift, v * drift], 1) for d, v in motions], 1)
        return self(psi) + rows[..., None, None, None]

    def displacement(self, psi: Tensor) -> Tensor:
        """Displacement at ``a``, one of ``times``, ``(B, 3, n, n, n)``."""
        return self(psi)[:, self.times.index(self.a), :3]

    def _run(self, psi: Tensor) -> Tensor:
        linear = divergence_modes(psi, self.box_size) / float(self.solver.growth.first(self.a))
        found = [motion(self.solver, snapshot) for snapshot in self.solver.run(linear, self.times)]
        return torch.stack([torch.cat([m.displacement, m.velocity], 1) for m in found], 1)
