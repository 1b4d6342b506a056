"""Routes from a Zel'dovich displacement to an evolved one that lead through an emulator, one for each family.

Questions are Zel'dovich displacements psi ``(B, 3, n, n, n)`` [Mpc/h] at the redshift of the emulated fields.
An emulator that is given other fields is given what a particle mesh makes of psi, and its answer is brought
to an evolved displacement too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from gen.commands.mesh_run import KEPT, MeshRun
from gen.emulators.closed_forms import Hermite, NeutrinoFilter, SecondOrderInverse
from gen.emulators.displacement import Displacement
from gen.emulators.field_map import FieldMap
from gen.emulators.perturbation import wavevector
from gen.emulators.refinement import Refinement
from gen.errors import InputError
from gen.simulate.lattices import interpolated, lacking, restricted
from gen.simulate.neutrinos import suppression
from gen.simulate.theory import Cosmology

SIGMA_8 = 0.8
"""Where an emulator does not ask for it."""


@dataclass(frozen=True)
class Route(ABC):
    """How an emulator is asked. ``run``: the particle mesh at full resolution, whose answer is the truth."""

    run: MeshRun
    #: Whether all of psi reaches the emulator, or only its density and its mean.
    whole: ClassVar[bool] = False

    @abstractmethod
    def given(self, psi: Tensor) -> Tensor:
        """What the emulator is given of psi, on its own lattice."""

    def answer(self, made: Tensor) -> Tensor:
        """The evolved displacement of what the emulator made."""
        return made[:, :3]

    def own(self, psi: Tensor) -> Tensor:
        """psi of this universe, of that of the same phases in one of cold matter alone."""
        return psi

    @property
    @abstractmethod
    def said(self) -> str:
        """What is asked of it, in one sentence for the page."""


@dataclass(frozen=True)
class Straight(Route):
    """An emulator of displacements is given psi."""

    whole = True

    def given(self, psi: Tensor) -> Tensor:
        return psi

    @property
    def said(self) -> str:
        return "It turns Zel’dovich displacements into evolved ones."


@dataclass(frozen=True)
class LongWaves(Route):
    """A refinement is given the run of the long waves ``coarse``, and the short waves."""

    coarse: MeshRun

    def given(self, psi: Tensor) -> Tensor:
        shape, axes, factor = psi.shape[2:], (2, 3, 4), self.run.n // self.coarse.n
        known = self.coarse.drifting(restricted(psi, factor))[:, 0].to(psi)
        short = torch.fft.rfftn(psi, dim=axes) * lacking(shape, factor, psi.device)
        return torch.cat([interpolated(known, factor), torch.fft.irfftn(short, s=shape, dim=axes)], 1)

    @property
    def said(self) -> str:
        return (
            "It turns Zel’dovich displacements into evolved ones, given the particle mesh’s run of the long "
            f"waves with {self.run.n // self.coarse.n} times fewer particles a side, and the short waves."
        )


@dataclass(frozen=True)
class Between(Route):
    """An interpolation in time is given the first and the last snapshot of the run."""

    def given(self, psi: Tensor) -> Tensor:
        moved = self.run.drifting(psi)
        return torch.cat([moved[:, 0], moved[:, -1]], 1)

    @property
    def said(self) -> str:
        early, late = (1 / a - 1 for a in (self.run.times[0], self.run.times[-1]))
        return (
            f"It makes the snapshot between two: the particle mesh runs every question to redshift {early:g} "
            f"and {late:g}, both snapshots are given to it, displacement and velocity, and its answer is "
            "held against the same run’s snapshot between them."
        )


@dataclass(frozen=True)
class Neutrinos(Route):
    """A map to a universe with massive neutrinos is given the run of the massless one of the same phases."""

    Omega_m: float
    m_nu: float
    h: float

    def given(self, psi: Tensor) -> Tensor:
        return self.run.drifting(self._filtered(psi, -0.5))[:, 0, :3]

    def own(self, psi: Tensor) -> Tensor:
        return self._filtered(psi, 0.5)

    def _filtered(self, psi: Tensor, power: float) -> Tensor:
        shape, spacing = psi.shape[2:], (self.run.box_size / self.run.n,) * 3
        waves = torch.broadcast_tensors(*wavevector(shape, spacing, psi, odd=False))
        k = torch.stack(waves).square().sum(0).sqrt()
        omega, mass = torch.tensor([self.Omega_m, self.m_nu]).to(psi).unbind()
        ratio = suppression(k, omega, mass, self.h) ** power
        modes = torch.fft.rfftn(psi, dim=(2, 3, 4)) * ratio
        return torch.fft.irfftn(modes, s=shape, dim=(2, 3, 4))

    @property
    def said(self) -> str:
        return (
            "It turns a run without massive neutrinos into one with them: their linear filter is taken off "
            "every question, the particle mesh’s run of that is given to it, and its answer is held against "
            "the mesh’s run of the question itself."
        )


@dataclass(frozen=True)
class RoundTrip(Route):
    """A map back in time is given the run, and the mesh runs what it infers once more."""

    def given(self, psi: Tensor) -> Tensor:
        return self.run.drifting(psi)[:, 0, :3]

    def answer(self, made: Tensor) -> Tensor:
        return self.run.drifting(made)[:, 0, :3]

    @property
    def said(self) -> str:
        return (
            "It goes back in time, and what was asked is the round trip: from the particle mesh’s run of "
            "every question it infers the initial conditions, the mesh runs these once more, and that run is "
            "held against the first."
        )


def redshift(emulator: Displacement | FieldMap, params: Mapping[str, float]) -> float:
    """Of the fields that it makes."""
    of = emulator if isinstance(emulator, Displacement) else emulator.formula
    return params["z"] if "z" in params else getattr(of, "redshift", 0.0)


def route(emulator: Displacement | FieldMap, params: Mapping[str, float], steps: int) -> Route:
    """The route through an emulator in a periodic cube, in the universe of ``params``.

    Raises:
        InputError: for a map whose route is not known.
    """
    cosmology = Cosmology(params["Omega_m"], params.get("sigma_8", SIGMA_8))
    n, side = emulator.grid.shape[0], emulator.grid.box_size[0]
    a = 1 / (1 + redshift(emulator, params))

    def run(particles: int, *others: float) -> MeshRun:
        return MeshRun(cosmology, particles, side, a, tuple(sorted({a, *others})), steps, KEPT)

    if isinstance(emulator, Displacement):
        return Straight(replace(run(n), keep=0))
    if isinstance(emulator, Refinement):
        return LongWaves(run(n), run(n // emulator.factor))
    match emulator.formula:
        case Hermite(z_early=early, z_late=late):
            return Between(run(n, 1 / (1 + early), 1 / (1 + late)))
        case NeutrinoFilter(h=h):
            return Neutrinos(run(n), params["Omega_m"], params["m_nu"], h)
        case SecondOrderInverse():
            return RoundTrip(run(n))
        case other:
            raise InputError(
                f"interrogate knows no way to ask a FieldMap that starts from {type(other).__name__}; give "
                "one that starts from Hermite, NeutrinoFilter or SecondOrderInverse, or a Refinement"
            )
