"""The parts of a training run as its recipe wants them: emulator, training module, validation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gen import checkpoint
from gen.data.base import SimulationSet
from gen.data.module import FieldData
from gen.emulators.autoencoder import Autoencoder
from gen.emulators.base import Emulator
from gen.emulators.counts import GalaxyCounts
from gen.emulators.latent_diffusion import LatentDiffusion
from gen.errors import InputError
from gen.training.adversarial import AdversarialTraining
from gen.training.counting import CountValidation
from gen.training.denoising import Denoising, DenoisingTraining
from gen.training.fidelity import RegressionLoss
from gen.training.flow_matching import FlowMatching
from gen.training.gate import ReconstructionValidation
from gen.training.paired_validation import PairedValidation
from gen.training.reconstruction import Reconstruction, ReconstructionTraining, check_autoencoder
from gen.training.regression import RegressionTraining
from gen.training.single import SingleTraining
from gen.training.stepping import Training
from gen.training.validation import Validation

if TYPE_CHECKING:
    from gen.training.base import TrainingRecipe


def build(
    recipe: TrainingRecipe, training_set: SimulationSet, fingerprint: str, *, dry_run: bool = False
) -> tuple[Emulator, AdversarialTraining | SingleTraining | None]:
    """The fitted emulator, and what trains it if it is not a closed form.

    A latent diffusion gets its autoencoder, and must pass the gate; in a dry run the closed form stands in.
    """
    with _seeded(recipe.seed):
        emulator = recipe.emulator(training_set.grid, training_set.space)
        if emulator.unit != training_set.unit:
            raise InputError(
                f"the fields of {training_set.name} have the unit {training_set.unit!r}, the emulator "
                f"{emulator.unit!r}; set the emulator's unit in the recipe"
            )
        if recipe.autoencoder is not None and not dry_run:
            _take_autoencoder(emulator, recipe.autoencoder)
        if recipe.start is None:
            emulator.fit(training_set)
        else:
            take_over(emulator, recipe.start, training_set, measured=recipe.autoencoder is None)
        if isinstance(emulator, LatentDiffusion) and not dry_run:
            recipe.gate.check(emulator.autoencoder, recipe.data.simulations.select(split="validation"))
        if recipe.loss is None:
            return emulator, None
        settings = (recipe.optimiser, recipe.max_steps, recipe.seed, recipe.ema_decay, fingerprint)
        if isinstance(recipe.loss, RegressionLoss):
            return emulator, RegressionTraining(emulator, recipe.loss, *settings)
        if isinstance(recipe.loss, Denoising | FlowMatching):
            return emulator, DenoisingTraining(emulator, recipe.loss, *settings)
        if isinstance(recipe.loss, Reconstruction):
            return emulator, ReconstructionTraining(emulator, recipe.loss, *settings)
        return emulator, AdversarialTraining(
            emulator, recipe.loss, recipe.optimiser, recipe.max_steps, recipe.seed, recipe.r1,
            recipe.ema_decay, fingerprint,
        )  # fmt: skip


def take_over(emulator: Emulator, folder: Path, data: SimulationSet, *, measured: bool = True) -> None:
    """Give ``emulator`` the weights and measured scales of a checkpoint.

    Scales that are not asked for, or are those of another grid, are measured from ``data`` instead.

    Raises:
        InputError: if the checkpoint is of another class or other arguments; grids and the ranges of
            parameters may differ.
    """
    trained = checkpoint.load(folder)
    if type(trained) is not type(emulator):
        raise InputError(
            f"start is {folder}, a {type(trained).__name__}, but the recipe trains a "
            f"{type(emulator).__name__}; give a checkpoint of the same class"
        )
    there, here = trained.to_config(), emulator.to_config()
    for key in here.keys() - {"grid", "space"}:
        if there.get(key) != here[key]:
            raise InputError(
                f"start is {folder}, made with {key} = {there.get(key)!r}, but the recipe has {here[key]!r}; "
                "give the emulator the checkpoint's arguments"
            )
    if trained.space.names != emulator.space.names:
        raise InputError(
            f"start is {folder}, of the parameters {list(trained.space.names)}, but the data have "
            f"{list(emulator.space.names)}; give a checkpoint of these"
        )
    theirs, ours = trained.state_dict(), emulator.state_dict()
    unfit = {name for name in ours if theirs[name].shape != ours[name].shape}
    weights = {name: theirs[name] for name, p in emulator.named_parameters() if p.requires_grad}
    if unfit & weights.keys():
        raise InputError(
            f"start is {folder}, for {trained.grid}, but the data are on {emulator.grid}, where its weights "
            "do not fit; give a checkpoint of this grid"
        )
    if measured and not unfit:
        emulator.load_state_dict(theirs)
    else:
        emulator.fit(data)
        emulator.load_state_dict(emulator.state_dict() | weights)


def _take_autoencoder(emulator: Emulator, folder: Path) -> None:
    if not isinstance(emulator, LatentDiffusion):
        raise InputError(
            f"autoencoder is {folder}, but the recipe trains a {type(emulator).__name__}, which has none; "
            "leave it out, or train a LatentDiffusion"
        )
    emulator.take(check_autoencoder(checkpoint.load(folder)))


def validation_for(module: Training, reference: SimulationSet, n: int) -> Validation | PairedValidation:
    """Field by field where a field is determined or given, in law where it is drawn."""
    if isinstance(module.average, GalaxyCounts):
        return CountValidation(reference, n, module.average)
    if isinstance(module.average, Autoencoder):
        return ReconstructionValidation(reference, n, module.average)
    if isinstance(module, RegressionTraining):
        return PairedValidation(reference, n, module.field_to_field)
    return Validation(reference, n, k_max=getattr(module.average, "k_max", math.inf))


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
