"""The parts of a training run as its recipe wants them: emulator, training module, validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from gen.data.base import SimulationSet
from gen.data.module import FieldData
from gen.emulators.base import Emulator
from gen.emulators.counts import GalaxyCounts
from gen.errors import InputError
from gen.training.adversarial import AdversarialTraining
from gen.training.counting import CountValidation
from gen.training.fidelity import RegressionLoss
from gen.training.paired_validation import PairedValidation
from gen.training.regression import RegressionTraining
from gen.training.stepping import Training
from gen.training.validation import Validation

if TYPE_CHECKING:
    from gen.training.base import TrainingRecipe


def build(
    recipe: TrainingRecipe, training_set: SimulationSet, fingerprint: str
) -> tuple[Emulator, AdversarialTraining | RegressionTraining | None]:
    """The fitted emulator, and what trains it if it is not a closed form."""
    with _seeded(recipe.seed):
        emulator = recipe.emulator(training_set.grid, training_set.space)
        if emulator.unit != training_set.unit:
            raise InputError(
                f"the fields of {training_set.name} have the unit {training_set.unit!r}, the emulator "
                f"{emulator.unit!r}; set the emulator's unit in the recipe"
            )
        emulator.fit(training_set)
        if recipe.loss is None:
            return emulator, None
        if isinstance(recipe.loss, RegressionLoss):
            return emulator, RegressionTraining(
                emulator, recipe.loss, recipe.optimiser, recipe.max_steps, recipe.seed, recipe.ema_decay,
                fingerprint,
            )  # fmt: skip
        return emulator, AdversarialTraining(
            emulator, recipe.loss, recipe.optimiser, recipe.max_steps, recipe.seed, recipe.r1,
            recipe.ema_decay, fingerprint,
        )  # fmt: skip


def validation_for(module: Training, reference: SimulationSet, n: int) -> Validation | PairedValidation:
    """Field by field where a field is determined, in law where it is drawn."""
    if isinstance(module.average, GalaxyCounts):
        return CountValidation(reference, n, module.average)
    if isinstance(module, RegressionTraining):
        return PairedValidation(reference, n, module.field_to_field)
    return Validation(reference, n)


def fingerprint_of(training_set: SimulationSet, data: FieldData) -> str:
    """What tells the data of one run from those of another."""
    digest = hashlib.sha256(training_set.params.numpy().tobytes())
    digest.update(training_set.simulation.numpy().tobytes())
    for fields in (training_set.values, training_set.coarse):
        if fields is not None:
            digest.update(fields[:: max(1, len(training_set) // 16)].contiguous().numpy().tobytes())
    return (
        f"{training_set.name}, {len(training_set)} fields, {digest.hexdigest()[:16]}, "
        f"batch_size {data.batch_size}, seed {data.seed}, augment {data.augment}"
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Initial weights from the seed, without a trace on the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
