"""Where an emulator of displacements stands beside 2LPT and the particle mesh, at one set of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.interrogate.asking import CLOSED_FORM, EMULATOR, FIRST_ORDER, SECOND_ORDER, TRUTH, Map
from gen.commands.routes import SIGMA_8, Route, redshift, route
from gen.emulators.displacement import Displacement
from gen.emulators.field_map import FieldMap
from gen.emulators.perturbation import second_order
from gen.errors import InputError
from gen.noise import sample_generator
from gen.simulate import displacement
from gen.simulate.growth import Growth
from gen.simulate.initial import at_cell_centres, linear_modes, white_noise
from gen.simulate.particle_mesh import ParticleMesh
from gen.simulate.theory import Cosmology, linear_power

AT_ONCE = 4


@dataclass(frozen=True)
class Laboratory:
    """Maps from Zel'dovich displacements ``(B, 3, n, n, n)`` [Mpc/h] to evolved ones, in one universe.

    Args:
        emulator: of displacements in a periodic cube; one that is given other fields than Zel'dovich
            displacements is asked by its route (``gen.commands.routes``).
        params: its parameters by name.
        steps: of the particle mesh, as its training data were made.
        bar: told of every displacement that is answered.
    """

    emulator: Displacement | FieldMap
    params: Mapping[str, float]
    steps: int = 12
    bar: tqdm | None = field(default=None, repr=False)

    @property
    def cosmology(self) -> Cosmology:
        return Cosmology(self.params["Omega_m"], self.params.get("sigma_8", SIGMA_8))

    @property
    def a(self) -> float:
        """Scale factor of the fields."""
        return 1 / (1 + redshift(self.emulator, self.params))

    @property
    def growth(self) -> Growth:
        return self.solver.growth

    @cached_property
    def route(self) -> Route:
        """How the emulator is asked."""
        return route(self.emulator, self.params, self.steps)

    @property
    def solver(self) -> ParticleMesh:
        """The particle mesh, up to the time of the fields or of the last that the emulator is given."""
        return self.route.run.solver

    @property
    def second_growth(self) -> float:
        """D2 / D1^2."""
        return float(self.growth.second(self.a) / self.growth.first(self.a) ** 2)

    @property
    def trained(self) -> bool:
        """Whether the emulator's range of training holds the parameters."""
        return bool(self.emulator.space.inside(self._table(1)).all())

    @property
    def names(self) -> tuple[str, ...]:
        """Of the maps."""
        closed = (CLOSED_FORM,) if isinstance(self.emulator, FieldMap) else ()
        return (EMULATOR, *closed, SECOND_ORDER, FIRST_ORDER, TRUTH)

    def maps(self) -> dict[str, Map]:
        """The emulator, its closed form, 2LPT, the Zel'dovich approximation and the particle mesh.

        The closed form of a ``Displacement`` is 2LPT, so it is not named twice.
        """
        all_maps: dict[str, Map] = {
            EMULATOR: lambda psi: self.emulated(psi, self),
            CLOSED_FORM: self._closed_form,
            SECOND_ORDER: self._second_order,
            FIRST_ORDER: lambda psi: psi,
            TRUTH: self.route.run.displacement,
        }
        return {name: self._batched(all_maps[name]) for name in self.names}

    @property
    def blind_to_shear(self) -> tuple[str, ...]:
        """Maps that start from a run, and so from a density."""
        return () if self.route.whole else (EMULATOR, CLOSED_FORM)

    def boxes(self, seed: int, n: int) -> Tensor:
        """Zel'dovich displacements ``(n, 3, ...)`` of random boxes; the same phases in every universe."""
        cells, side = self.emulator.grid.shape[0], self.emulator.grid.box_size[0]
        noise = white_noise([sample_generator(seed, i, "interrogate") for i in range(n)], cells)
        cosmology = self.cosmology

        def power(k: Tensor) -> Tensor:
            return torch.from_numpy(linear_power(cosmology, k.double().numpy()))

        modes = at_cell_centres(linear_modes(noise, side, power))
        return self.route.own(displacement.zeldovich(modes, side, self.growth, self.a).displacement)

    def density(self, psi: Tensor) -> Tensor:
        """1 + delta of displaced particles on a mesh of as many cells, ``(B, 1, n, n, n)``."""
        side, n = self.emulator.grid.box_size[0], psi.shape[-1]
        return torch.cat([displacement.density(x, side, n) for x in psi.split(AT_ONCE)])

    def untold(self, there: Laboratory) -> Map:
        """The emulator in the universe of ``there``, told that it is in this one."""
        return there._batched(lambda psi: there.emulated(psi, self))

    def emulated(self, psi: Tensor, told: Laboratory) -> Tensor:
        """The emulator's answer at the parameters of ``told``."""
        given = self.route.given(psi)
        return self.route.answer(self.emulator.predict(given, told._table(len(psi))))

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

    def _closed_form(self, psi: Tensor) -> Tensor:
        return self.route.answer(self.emulator.closed_form(self.route.given(psi), self._table(len(psi))))

    def _second_order(self, psi: Tensor) -> Tensor:
        if isinstance(self.emulator, Displacement):
            return self.emulator.closed_form(psi, self._table(len(psi)))[:, :3]
        return psi + self.second_growth * second_order(psi, self.emulator.grid.spacing)


def check_emulator(emulator: object, name: str) -> Displacement | FieldMap:
    """Refuse what is no map between fields of particles.

    Raises:
        InputError: for it.
    """
    if not isinstance(emulator, Displacement | FieldMap):
        raise InputError(
            f"{name} is a {type(emulator).__name__}; interrogate asks maps from fields to fields, of the "
            "classes Displacement, Refinement, FieldMap, SuperResolution and GalaxyCounts of gen.emulators"
        )
    return emulator
