"""Field-to-field emulators in a report: their fields for the reference's own coarse fields, and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.paired import Motion, Pairing
from gen.checkpoint import load
from gen.commands.correction import followed
from gen.data.base import SimulationSet
from gen.emulators.base import Emulator
from gen.emulators.coarse_diffusion import CoarseDiffusion
from gen.emulators.counts import GalaxyCounts
from gen.emulators.displacement import Displacement
from gen.emulators.polarised_scales import PolarisedSmallScales
from gen.emulators.refinement import Refinement
from gen.emulators.super_resolution import SuperResolution
from gen.emulators.wide_beam import FromWideBeam
from gen.errors import InputError
from gen.io import FieldFile
from gen.nets.layers import linear_upsample
from gen.noise import sample_generator
from gen.sampling import describe_sampling
from gen.simulate.displacement import density

SECOND_ORDER, FIRST_ORDER, CLOSED_FORM = "2LPT", "Zel'dovich", "closed form"
MISSING_MODES, INTERPOLATED = "Gaussian missing modes", "interpolated"
COARSE_RUN = "coarse run"
MODULATED, PRACTICE, LARGE_SCALES = "modulated copula", "Gaussian power law", "large scales alone"
AS_INTENSITY = "Q and U as intensity"
RANDOM = (SuperResolution, CoarseDiffusion, GalaxyCounts, Refinement, FromWideBeam)
"""Emulators whose fields differ from seed to seed for one coarse field."""
Completing = SuperResolution | CoarseDiffusion | Refinement
"""Emulators that start from the Gaussian completion of what they are given."""
BATCH = 16


@dataclass(frozen=True, eq=False)
class Paired:
    """What a report of field-to-field emulators judges; the fields of displacements are densities."""

    samples: dict[str, FieldFile]
    reference: FieldFile
    pairing: Pairing
    baseline: str


def is_paired(folders: Sequence[Path]) -> bool:
    """Whether the checkpoints are field-to-field emulators.

    Raises:
        InputError: if only some of them are.
    """
    asks = {str(folder): load(folder).needs_coarse for folder in folders}
    if len(set(asks.values())) > 1:
        field, others = ([name for name, asked in asks.items() if asked is kind] for kind in (True, False))
        raise InputError(
            f"{', '.join(field)} needs coarse fields and {', '.join(others)} does not; report them apart"
        )
    return any(asks.values())


def check_pairs(test: SimulationSet | None) -> SimulationSet:
    """The test set, if its fields come with coarse ones.

    Raises:
        InputError: if they do not.
    """
    if test is None or test.coarse is None:
        raise InputError(
            "a field-to-field emulator is judged on pairs of coarse and true fields; give the data recipe it "
            "was made for by --data"
        )
    return test


def paired(
    folders: Sequence[Path], test: SimulationSet | None, seed: int, n_forces: int | None = None
) -> Paired:
    """One field of every emulator for every coarse field of the test set.

    Args:
        n_forces: also corrects every emulator, and 2LPT, by so many forces (``gen.commands.correction``).

    Raises:
        InputError: for data without coarse fields, or of another grid or other parameters.
    """
    test = check_pairs(test)
    assert test.coarse is not None
    made: dict[str, Tensor] = {}
    twins: dict[str, Tensor] = {}
    told = {}
    for folder in folders:
        emulator = load(folder)
        if (emulator.grid, emulator.space.names) != (test.grid, test.space.names):
            raise InputError(
                f"{folder} is for {', '.join(emulator.space.names)} on {emulator.grid}, the data are for "
                f"{', '.join(test.space.names)} on {test.grid}; give the data it was made for by --data"
            )
        name = folder.resolve().name
        told[name] = describe_sampling(emulator, folder, test.params.double(), 1, seed)
        given = _given(emulator, test)
        made[name] = _made(emulator, test, given, seed, name)
        if isinstance(emulator, RANDOM):
            twins[name] = _made(emulator, test, given, seed + 1, name)
        if isinstance(emulator, Refinement):
            own = with_own_waves(name)
            told[own] = told[name] | {"waves": "those of the true fields"}
            made[own] = _made(emulator, test, test.coarse, seed, own)
        if n_forces is not None:
            own = with_forces(name, n_forces)
            told[own] = told[name] | {"force_evaluations": n_forces}
            made[own] = _followed(emulator, test, made[name], n_forces, own)
    first = load(folders[0])
    closed = _baselines(first, test, seed)
    made |= closed
    if isinstance(first, Completing):
        twins[MISSING_MODES] = _completed(first, test, seed + 1)
    if n_forces is not None:
        own = with_forces(SECOND_ORDER, n_forces)
        made[own] = _followed(first, test, None, n_forces, own)
    displaced = tuple(range(test.grid.dim)) in test.vector_channels
    file = FieldFile(
        _field(test.values, test, displaced),
        test.params.double(),
        test.simulation.numpy(),
        np.asarray(test.region),
        test.grid,
        test.space,
        {"field": "matter density" if displaced else test.name, "units": "1" if displaced else test.unit},
    )
    samples = {
        name: FieldFile(
            _field(values, test, displaced), file.params, None, None, file.grid, file.space,
            {**file.attributes, **told.get(name, {})},
        )
        for name, values in made.items()
    }  # fmt: skip
    motions = _motions(test, made) if displaced else []
    twins = {name: _field(values, test, displaced) for name, values in twins.items()}
    return Paired(samples, file, Pairing(motions, twins), next(iter(closed)))


def _given(emulator: Emulator, test: SimulationSet) -> Tensor:
    """What the emulator is to make fields from: of a coarse run and the waves that it lacks, the run."""
    assert test.coarse is not None
    return emulator.run_of(test.coarse) if isinstance(emulator, Refinement) else test.coarse


def _made(emulator: Emulator, test: SimulationSet, given: Tensor, seed: int, name: str) -> Tensor:
    parts = []
    with tqdm(total=len(test), unit=" fields", desc=name, disable=None) as bar:
        stream = emulator.stream(test.params.double(), 1, seed, given, extrapolate=True)
        for part in stream:
            parts.append(part.values)
            bar.update(len(part.values))
    return torch.cat(parts)


def with_forces(name: str, n_forces: int) -> str:
    """How a set is called once it is corrected."""
    return f"{name} + {n_forces} force{'s' if n_forces > 1 else ''}"


def with_own_waves(name: str) -> str:
    """How a set is called whose short waves are the true fields' own."""
    return f"{name} with own waves"


def _followed(
    emulator: Emulator, test: SimulationSet, proposal: Tensor | None, n_forces: int, name: str
) -> Tensor:
    """Of a proposal, or of 2LPT."""
    assert isinstance(emulator, Displacement) and test.coarse is not None
    parts = []
    with tqdm(total=len(test), unit=" fields", desc=name, disable=None) as bar:
        for rows in torch.arange(len(test)).split(BATCH):
            end = None if proposal is None else proposal[rows]
            given = test.coarse[rows].float(), test.params[rows].float()
            parts.append(followed(emulator, *given, n_forces, end))
            bar.update(len(rows))
    return torch.cat(parts)


@torch.no_grad()
def _baselines(emulator: Emulator, test: SimulationSet, seed: int) -> dict[str, Tensor]:
    """What the emulator starts from, the best first."""
    if isinstance(emulator, Displacement):
        return {
            SECOND_ORDER: _batched(emulator.closed_form, test),
            FIRST_ORDER: _batched(emulator.first_order, test),
        }
    if isinstance(emulator, SuperResolution):
        return {
            MISSING_MODES: _completed(emulator, test, seed),
            INTERPOLATED: _batched(
                lambda coarse, _: linear_upsample(coarse, emulator.factor, "circular"), test
            ),
        }
    if isinstance(emulator, Refinement):
        return {
            MISSING_MODES: _completed(emulator, test, seed),
            COARSE_RUN: _batched(lambda coarse, _: emulator.run_of(coarse), test),
        }
    if isinstance(emulator, CoarseDiffusion):
        return {MISSING_MODES: _completed(emulator, test, seed)}
    if isinstance(emulator, FromWideBeam):
        shared = {AS_INTENSITY: emulator.as_intensity} if isinstance(emulator, PolarisedSmallScales) else {}
        ways = {MODULATED: emulator.closed_form, **shared, PRACTICE: emulator.practice}
        return {
            **{name: _batched(way, test) for name, way in ways.items()},
            LARGE_SCALES: _batched(lambda coarse, _: coarse, test),
        }
    closed_form = getattr(emulator, "closed_form", None)
    if closed_form is None:
        raise InputError(f"{type(emulator).__name__} has no closed form to be compared with")
    return {CLOSED_FORM: _batched(closed_form, test)}


@torch.no_grad()
def _completed(emulator: Completing, test: SimulationSet, seed: int) -> Tensor:
    """The coarse fields with Gaussian missing modes."""
    generators = iter([sample_generator(seed, i) for i in range(len(test))])

    def completed(coarse: Tensor, params: Tensor) -> Tensor:
        mine = [next(generators) for _ in coarse]
        if isinstance(emulator, Refinement):
            given = emulator.completed(params, mine, emulator.run_of(coarse))
            return emulator.closed_form(given, params)
        return emulator.completed(params, mine, coarse)

    return _batched(completed, test)


def _batched(make: Callable[[Tensor, Tensor], Tensor], test: SimulationSet) -> Tensor:
    """``make`` of the coarse fields and parameters."""
    assert test.coarse is not None
    parts = zip(test.coarse.float().split(BATCH), test.params.float().split(BATCH), strict=True)
    return torch.cat([make(*part) for part in parts])


def _field(values: Tensor, test: SimulationSet, displaced: bool) -> Tensor:
    """The scalar field that statistics are taken of: the density of displaced particles."""
    if not displaced:
        return values
    grid = test.grid
    parts = values[:, : grid.dim].float().split(BATCH)
    return torch.cat([density(part, grid.box_size[0], grid.shape[0]) for part in parts])


def _motions(test: SimulationSet, made: dict[str, Tensor]) -> list[Motion]:
    dim = test.grid.dim
    found = [("position", "Mpc/h", slice(0, dim)), ("velocity", "km/s", slice(dim, 2 * dim))]
    return [
        Motion(name, unit, test.values[:, c], {s: values[:, c] for s, values in made.items()})
        for name, unit, c in found
        if test.values.shape[1] >= c.stop and all(v.shape[1] >= c.stop for v in made.values())
    ]
