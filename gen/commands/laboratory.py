"""Where an emulator of displacement stands beside 2LPT and the particle mesh, at one set of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.interrogate.asking import EMULATOR, FIRST_ORDER, SECOND_ORDER, TRUTH, Map
from gen.emulators.displacement import Displacement
from gen.emulators.perturbation import second_order
from gen.emulators.refinement import Refinement
from gen.errors import InputError
from gen.noise import sample_generator
from gen.simulate import displacement
from gen.simulate.growth import Growth
from gen.simulate.initial import at_cell_centres, divergence_modes, linear_modes, white_noise
from gen.simulate.lattices import interpolated, lacking, restricted
from gen.simulate.nbody_pairs import calibrated_mesh, joined
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.theory import Cosmology, linear_power

SIGMA_8 = 0.8
"""Where an emulator does not ask for it."""
AT_ONCE = 4


@dataclass(frozen=True)
class Laboratory:
    """Maps from Zel'dovich displacements ``(B, 3, n, n, n)`` [Mpc/h] to evolved ones, in one universe.

    Args:
        emulator: of displacements in a periodic cube; one that refines coarse runs is given the particle
            mesh's run of the long waves, and the short ones.
        params: its parameters by name.
        steps: of the particle mesh, as its training data were made.
        bar: told of every displacement that is answered.
    """

    emulator: Displacement | Refinement
    params: Mapping[str, float]
    steps: int = 12
    bar: tqdm | None = field(default=None, repr=False)

    @property
    def cosmology(self) -> Cosmology:
        return Cosmology(self.params["Omega_m"], self.params.get("sigma_8", SIGMA_8))

    @property
    def a(self) -> float:
        """Scale factor of the fields."""
        return 1 / (1 + self.params.get("z", self.emulator.redshift))

    @property
    def growth(self) -> Growth:
        return self.solver.growth

    @cached_property
    def solver(self) -> ParticleMesh:
        """The particle mesh, up to the time of the fields."""
        return self._mesh(self.emulator.grid.shape[0])

    def _mesh(self, n: int) -> ParticleMesh:
        steps = even_steps(self.steps, end=self.a)
        return calibrated_mesh(self.cosmology, n, self.emulator.grid.box_size[0], steps)

    @property
    def second_growth(self) -> float:
        """D2 / D1^2."""
        return float(self.growth.second(self.a) / self.growth.first(self.a) ** 2)

    @property
    def trained(self) -> bool:
        """Whether the emulator's range of training holds the parameters."""
        return bool(self.emulator.space.inside(self._table(1)).all())

    def maps(self) -> dict[str, Map]:
        """The emulator, 2LPT, the Zel'dovich approximation and the particle mesh."""
        return {
            EMULATOR: self._batched(self._emulated),
            SECOND_ORDER: self._batched(self._second_order),
            FIRST_ORDER: self._batched(lambda psi: psi),
            TRUTH: self._batched(self._simulated),
        }

    def boxes(self, seed: int, n: int) -> Tensor:
        """Zel'dovich displacements ``(n, 3, ...)`` of random boxes; the same phases in every universe."""
        cells, side = self.emulator.grid.shape[0], self.emulator.grid.box_size[0]
        noise = white_noise([sample_generator(seed, i, "interrogate") for i in range(n)], cells)
        cosmology = self.cosmology

        def power(k: Tensor) -> Tensor:
            return torch.from_numpy(linear_power(cosmology, k.double().numpy()))

        modes = at_cell_centres(linear_modes(noise, side, power))
        return displacement.zeldovich(modes, side, self.growth, self.a).displacement

    def density(self, psi: Tensor) -> Tensor:
        """1 + delta of displaced particles on a mesh of as many cells, ``(B, 1, n, n, n)``."""
        side, n = self.emulator.grid.box_size[0], psi.shape[-1]
        return torch.cat([displacement.density(x, side, n) for x in psi.split(AT_ONCE)])

    def _table(self, n: int) -> Tensor:
        row = torch.tensor([self.params[name] for name in self.emulator.space.names])
        return row.to(self.emulator.device).expand(n, -1)

    def _batched(self, of: Map) -> Map:
        def answer(psi: Tensor) -> Tensor:
            found = []
            with torch.set_grad_enabled(psi.requires_grad):
                for part in psi.split(AT_ONCE):
                    found.append(of(part.to(self.emulator.device)).cpu())
                    if self.bar is not None:
                        self.bar.update(len(part))
            return torch.cat(found)

        return answer

    def _emulated(self, psi: Tensor) -> Tensor:
        given = psi if isinstance(self.emulator, Displacement) else self._coarse_run(psi)
        return self.emulator.predict(given, self._table(len(psi)))[:, :3]

    def _coarse_run(self, psi: Tensor) -> Tensor:
        """What a refinement starts from: the run of the long waves, and the short waves."""
        assert isinstance(self.emulator, Refinement)
        factor, shape = self.emulator.factor, psi.shape[2:]
        drift = psi.mean((2, 3, 4), keepdim=True)  # which no density knows
        run = self._run(self._mesh(shape[0] // factor), restricted(psi, factor))
        known = joined(run._replace(displacement=run.displacement + drift)).to(psi)
        axes = (2, 3, 4)
        short = torch.fft.rfftn(psi, dim=axes) * lacking(shape, factor, psi.device)
        return torch.cat([interpolated(known, factor), torch.fft.irfftn(short, s=shape, dim=axes)], 1)

    def _second_order(self, psi: Tensor) -> Tensor:
        if isinstance(self.emulator, Displacement):
            return self.emulator.closed_form(psi, self._table(len(psi)))[:, :3]
        return psi + self.second_growth * second_order(psi, self.emulator.grid.spacing)

    def _simulated(self, psi: Tensor) -> Tensor:
        return self._run(self.solver, psi).displacement

    def _run(self, solver: ParticleMesh, psi: Tensor) -> displacement.Motion:
        (last,) = solver.run(self._linear(psi), solver.steps[-1:])
        return displacement.motion(solver, last)

    def _linear(self, psi: Tensor) -> Tensor:
        """Modes of the linear density at a = 1, delta_k = - i k . psi_k / D1."""
        return divergence_modes(psi, self.solver.box_size) / float(self.growth.first(self.a))


def untold(here: Laboratory, there: Laboratory) -> Map:
    """The emulator as if the universe of ``there`` were that of ``here``."""
    return there._batched(here._emulated)


def check_emulator(emulator: object, name: str) -> Displacement | Refinement:
    """Refuse what is not an emulator of displacements.

    Raises:
        InputError: for it.
    """
    if not isinstance(emulator, Displacement | Refinement):
        raise InputError(
            f"{name} is a {type(emulator).__name__}; interrogate asks emulators that turn Zel'dovich "
            "displacements into evolved ones, or coarse runs into fine ones, of the classes Displacement and "
            "Refinement of gen.emulators"
        )
    return emulator
