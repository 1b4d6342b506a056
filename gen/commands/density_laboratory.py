"""Where an emulator of densities stands beside its baselines and simulations, at one set of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.interrogate.asking import EMULATOR, TRUTH, Map
from evaluation.interrogate.densities import BY_DENSITY, GAUSSIAN, INTERPOLATION
from evaluation.interrogate.density_waves import DensityMap
from gen.commands.mesh_run import KEPT, MeshRun
from gen.commands.routes import SIGMA_8
from gen.emulators.counts import GalaxyCounts, drawn
from gen.emulators.super_resolution import SuperResolution
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.displacement import density
from gen.simulate.field_pairs import SuperResolutionSlab
from gen.simulate.galaxies import Galaxies
from gen.simulate.lattices import restricted
from gen.simulate.nbody_pairs import Pair
from gen.simulate.nbody_pairs import SuperResolution as TwoRuns
from gen.simulate.theory import Cosmology

AT_ONCE = 4
DRAWINGS = 4
"""Noises over which a stochastic map's answer to a wave is averaged."""


class PairSource(Protocol):
    """A source of ``gen.simulate`` with a coarse field."""

    def check(self, grid: Grid) -> None: ...

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair: ...


class Family(ABC):
    """What answers to densities, and what is the truth: an emulator with its baselines."""

    @property
    def factor(self) -> int:
        """Cells of the fields along a side of a given cell."""
        return 1

    @abstractmethod
    def source(self, steps: int) -> PairSource:
        """Of the truth and of what is given."""

    @abstractmethod
    def drawings(self, params: Tensor) -> dict[str, Map]:
        """Fields ``(B, 1, *shape)`` of all that they are made from, ``inputs`` of the emulator."""

    @abstractmethod
    def means(self, params: Tensor) -> dict[str, Map]:
        """What is differentiated of the same: fields, or the law that they are drawn from."""


@dataclass(frozen=True)
class FinerRun(Family):
    """Super-resolution, beside interpolation and a Gaussian completion of the missing modes."""

    emulator: SuperResolution

    @property
    def factor(self) -> int:
        return self.emulator.factor

    def source(self, steps: int) -> PairSource:
        if self.factor != 2:
            raise InputError(
                f"interrogate simulates runs of twice as many particles a side, this emulator's factor is "
                f"{self.factor}"
            )
        return TwoRuns(steps=steps) if self.emulator.grid.dim == 3 else SuperResolutionSlab(steps=steps)

    def drawings(self, params: Tensor) -> dict[str, Map]:
        def rows(x: Tensor) -> Tensor:
            return params.expand(len(x), -1)

        net = self.emulator
        return {
            EMULATOR: lambda x: net.finish(x, rows(x)),
            GAUSSIAN: lambda x: net.to_physical(x[:, :1], rows(x)),
            INTERPOLATION: lambda x: net.to_physical(x[:, 1:2], rows(x)),
        }

    def means(self, params: Tensor) -> dict[str, Map]:
        return self.drawings(params)


@dataclass(frozen=True)
class Galaxy(Family):
    """Galaxy counts, beside those drawn by the density of their own cell alone."""

    emulator: GalaxyCounts

    def source(self, steps: int) -> PairSource:
        return Galaxies(steps=steps)

    def drawings(self, params: Tensor) -> dict[str, Map]:
        net = self.emulator

        def by_density(x: Tensor) -> Tensor:
            return drawn(net.start_of(x[:, :1], params.expand(len(x), -1)), x[:, 1:])

        return {EMULATOR: lambda x: net.finish(x, params.expand(len(x), -1)), BY_DENSITY: by_density}

    def means(self, params: Tensor) -> dict[str, Map]:
        net = self.emulator
        return {
            EMULATOR: lambda x: net.expected(net.predict(x[:, :1], params.expand(len(x), -1))),
            BY_DENSITY: lambda x: net.expected(net.start_of(x[:, :1], params.expand(len(x), -1))),
        }


@dataclass(frozen=True)
class DensityLaboratory:
    """An emulator of densities, its baselines and its truth in one universe.

    Args:
        emulator: that is given a density of the same box.
        params: its parameters by name.
        steps: of the particle mesh, as its training data were made.
        bar: told of every simulation.
    """

    emulator: SuperResolution | GalaxyCounts
    params: Mapping[str, float]
    steps: int = 12
    bar: tqdm | None = field(default=None, repr=False)

    @cached_property
    def family(self) -> Family:
        return (
            FinerRun(self.emulator) if isinstance(self.emulator, SuperResolution) else Galaxy(self.emulator)
        )

    @cached_property
    def source(self) -> PairSource:
        """Of pairs; checked for the grid.

        Raises:
            InputError: for a grid that it cannot simulate.
        """
        found = self.family.source(self.steps)
        found.check(self.emulator.grid)
        return found

    @property
    def grid(self) -> Grid:
        return self.emulator.grid

    @property
    def coarse(self) -> Grid:
        """Of the given field."""
        grid, factor = self.grid, self.family.factor
        return Grid([n // factor for n in grid.shape], grid.box_size, grid.unit, grid.periodic)

    @property
    def cosmology(self) -> Cosmology:
        return Cosmology(self.params["Omega_m"], self.params.get("sigma_8", SIGMA_8))

    @property
    def redshift(self) -> float:
        """Of the fields; 0 where the emulator does not ask for it."""
        return self.params.get("z", 0.0)

    @property
    def trained(self) -> bool:
        """Whether the emulator's range of training holds the parameters."""
        return bool(self.emulator.space.inside(self.table).all())

    @property
    def table(self) -> Tensor:
        """The parameters, ``(1, P)``."""
        row = torch.tensor([self.params[name] for name in self.emulator.space.names])
        return row.to(self.emulator.device)[None]

    def pairs(self, seed: int, n: int) -> tuple[Tensor, Tensor]:
        """Given fields and the truth of random boxes; the same phases in every universe."""
        found = []
        for i in range(n):
            own = int(torch.randint(2**62, (1,), generator=sample_generator(seed, i, "interrogate")))
            found.append(self.source.fields(self.cosmology, self.redshift, self.grid, own))
            self._count(1)
        return torch.cat([pair.coarse for pair in found if pair.coarse is not None]), torch.cat(
            [pair.values for pair in found]
        )

    def inputs(self, given: Tensor, seed: int) -> Tensor:
        """All that fields are made from, ``(B, C, *shape)``, differentiable in what is given."""
        noise = [sample_generator(seed, i, "interrogate noise") for i in range(len(given))]
        params = self.table.expand(len(given), -1)
        channels = self.emulator.inputs(params, noise, given.to(self.emulator.device), self.grid.shape)
        return torch.stack(list(channels), 1)

    def answers(self, given: Tensor, seed: int) -> dict[str, Tensor]:
        """Fields ``(B, 1, *shape)`` of all maps, one drawing for each box."""
        inputs = self.inputs(given, seed)
        return {name: self.batched(of)(inputs) for name, of in self.drawings().items()}

    def drawings(self) -> dict[str, Map]:
        """Fields of ``inputs``."""
        return self.family.drawings(self.table)

    def means(self, seed: int) -> dict[str, Map]:
        """What is differentiated by given fields ``(1, 1, *coarse shape)``, at one noise."""

        def composed(of: Map) -> Map:
            return lambda given: of(self.inputs(given, seed))

        return {name: composed(of) for name, of in self.family.means(self.table).items()}

    def batched(self, of: Map) -> Map:
        """A few at a time, on the emulator's device, the answer on the CPU."""
        return lambda x: torch.cat([of(part.to(self.emulator.device)).cpu() for part in x.split(AT_ONCE)])

    def wave_maps(self, seed: int) -> dict[str, DensityMap]:
        """Densities of Zel'dovich displacements: of all maps, given the coarse run's, and of the fine run."""
        maps: dict[str, DensityMap] = {}
        for name in self.drawings():
            maps[name] = lambda psi, name=name: self._drawn(psi, name, seed)
        return {**maps, TRUTH: lambda psi: self._simulated(self._fine, psi)}

    def density(self, psi: Tensor) -> Tensor:
        """1 + delta of displaced particles, ``(B, 1, n, n, n)``."""
        return density(psi, self.grid.box_size[0], psi.shape[-1])

    def _drawn(self, psi: Tensor, name: str, seed: int) -> Tensor:
        given = self._simulated(self._coarse, restricted(psi, self.family.factor))
        inputs = self.inputs(given.repeat_interleave(DRAWINGS, 0), seed)
        made = self.batched(self.drawings()[name])(inputs)[:, 0]
        return made.unflatten(0, (len(psi), DRAWINGS))

    def _simulated(self, run: MeshRun, psi: Tensor) -> Tensor:
        found = [self.density(run.displacement(part)) for part in psi.split(AT_ONCE)]
        if run is self._fine:
            self._count(len(psi))
        return torch.cat(found)

    @cached_property
    def _fine(self) -> MeshRun:
        return self._run(self.grid.shape[0], 0)

    @cached_property
    def _coarse(self) -> MeshRun:
        return self._run(self.coarse.shape[0], KEPT)

    def _run(self, n: int, keep: int) -> MeshRun:
        a = 1 / (1 + self.redshift)
        return MeshRun(self.cosmology, n, self.grid.box_size[0], a, (a,), self.steps, keep)

    def _count(self, n: int) -> None:
        if self.bar is not None:
            self.bar.update(n)
