"""``train``: from a recipe to a run folder with a checkpoint of the zoo."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gen import checkpoint
from gen.checkpoint_folder import read_config
from gen.data.base import SimulationSet
from gen.data.module import FieldData, TrainingBatches
from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.io.atomic import write_text
from gen.training.best import load_best
from gen.training.building import build, fingerprint_of, validation_for
from gen.training.callbacks import Progress, States, StepLog, Validate
from gen.training.card import card
from gen.training.checkpoint_io import AtomicCheckpointIO, newest_valid, states
from gen.training.denoising import Denoising
from gen.training.fidelity import RegressionLoss
from gen.training.flow_matching import FlowMatching
from gen.training.gate import Gate
from gen.training.guards import Guard
from gen.training.logs import Logs
from gen.training.losses import R1, AdversarialLoss
from gen.training.optimisation import Adam
from gen.training.plan import plan
from gen.training.reconstruction import Reconstruction
from gen.training.stepping import Training

PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class TrainingRecipe:
    """All that is chosen for one training run.

    Args:
        name: of the run and its checkpoint.
        data: fields and batches.
        emulator: the class with all its arguments but grid and parameter space, which the data set.
        start: a checkpoint of the same emulator whose weights and measured scales training goes on from, on
            these data or on others; on another grid its weights, where the scales do not fit, and with an
            ``autoencoder``, whose scales they would replace. Fresh weights and scales by default.
        autoencoder: of a latent diffusion, a checkpoint of the same coding; its closed form by default.
        gate: what that autoencoder may lose of the validation fields, before any training.
        loss: of the adversarial pair, of a denoiser, of an autoencoder, or of a deterministic emulator
            against the true fields; none for an emulator that is fitted in closed form.
        optimiser: of all networks.
        r1: slope penalty on real fields, with any adversarial loss.
        max_steps: batches in all; of an adversarial pair each trains the critic, and
            the generator too where ``loss.generator_updates`` rises.
        seed: of initial weights, latents and all else but batch order and augmentation, which are the data's.
        ema_decay: of the moving average of the generator's weights, which is what is judged and shipped.
        precision: "32", or "bf16" for mixed precision.
        accelerator, devices: where to train; more than one device trains in parallel on shares of the batch,
            to the same outcome but for rounding and batch normalisation, which sees one share.
        validate_every, validation_maps: steps between validations, and fields generated at each.
        save_every: steps between resume states, of which the newest two are kept.
        log_every: steps between rows of the log.
        guard: what stops a lost run.
    """

    name: str
    data: FieldData
    emulator: Callable[[Grid, ParameterSpace], Emulator]
    start: Path | None = None
    autoencoder: Path | None = None
    gate: Gate = field(default_factory=Gate)
    loss: AdversarialLoss | Denoising | FlowMatching | Reconstruction | RegressionLoss | None = None
    optimiser: Adam = field(default_factory=Adam)
    r1: R1 | None = None
    max_steps: int = 10_000
    seed: int = 0
    ema_decay: float = 0.999
    precision: Literal["32", "bf16"] = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    validate_every: int = 500
    validation_maps: int = 256
    save_every: int = 200
    log_every: int = 50
    guard: Guard = field(default_factory=Guard)

    def __post_init__(self) -> None:
        for name in ("max_steps", "devices", "validate_every", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def train(
    recipe: TrainingRecipe,
    out: str | Path,
    *,
    resume: bool = False,
    dry_run: bool = False,
    resolved: str | None = None,
) -> Path:
    """Train an emulator and save it in the format of the zoo.

    The folder ``out`` gets ``recipe.yaml`` (if ``resolved`` is given), ``resume/`` (states), ``best/``,
    ``samples/`` (sheets), ``training.csv``, ``validation.csv``, ``tensorboard/``, and at the end
    ``checkpoint/`` with the best averaged weights.

    Args:
        resume: go on from the newest whole state; the outcome is the uninterrupted run's, bit for bit on
            one machine with the same number of threads. Without any state the run starts at step 0.
        dry_run: build all, print shapes, parameter counts and memory; simulate and write nothing.
        resolved: the recipe as text, all defaults filled in.

    Returns:
        ``out``. If a signal has stopped the run before its last step, there is no ``checkpoint/`` in it.

    Raises:
        InputError: for a recipe that does not fit together or a folder that already holds a run.
        TrainingStopped: when a loss is not finite or the generator collapses or diverges.
    """
    folder = Path(out)
    if dry_run:
        recipe.data.rehearse()
    else:
        _check_folder(folder, resume=resume)
    data = recipe.data.simulations
    training_set = recipe.data.training_set
    fingerprint = fingerprint_of(training_set, recipe.data)
    emulator, module = build(recipe, training_set, fingerprint, dry_run=dry_run)
    if dry_run:
        print(plan(recipe.name, data, emulator, module, recipe.data.batch_size // recipe.devices))
        return folder
    if resolved is not None and _leads():
        write_text(folder / "recipe.yaml", resolved)
    record: dict[str, Any] = {}
    if module is not None:
        reached = _optimise(recipe, module, folder, resume=resume)
        if reached < recipe.max_steps:
            return folder
        record = load_best(folder, emulator)
        emulator.eval().calibrate(training_set)
    if _leads():
        start = "" if recipe.start is None else _told(recipe.start)
        text = card(recipe.name, data, emulator, module, record, start)
        provenance = {"recipe": recipe.name, "seed": recipe.seed, "data": fingerprint}
        if recipe.autoencoder is not None:
            provenance["autoencoder"] = _told(recipe.autoencoder)
        provenance |= {"training_params": _points(training_set), "validation": record, "start": start}
        checkpoint.save(emulator.cpu().eval(), folder / "checkpoint", text, provenance=provenance)
    return folder


def _told(folder: Path) -> str:
    """Which checkpoint a run took something from."""
    return f"{folder.name}, sha256 {read_config(folder)['sha256'][:12]}"


def _points(data: SimulationSet, at_most: int = 1024) -> list[list[float]]:
    """The distinct sets of parameters, for the map of them on the report's page."""
    return torch.unique(data.params, dim=0)[:at_most].tolist() if len(data.space) else []


def _optimise(recipe: TrainingRecipe, module: Training, folder: Path, *, resume: bool) -> int:
    """Run the steps that are left; the step reached."""
    state = newest_valid(folder / "resume") if resume else None
    start = int(state.stem.removeprefix("step_")) if state else 0
    if start >= recipe.max_steps:
        return start
    reference = recipe.data.simulations.select(split="validation")
    validation = validation_for(module, reference, recipe.validation_maps)
    real = reference.values[validation.example_rows]
    lead = _leads()
    if lead and start == 0:
        shutil.rmtree(folder / "best", ignore_errors=True)  # of a run that left no state to go on from
    logs = Logs(folder, start) if lead else None
    progress, saver = Progress(), States(folder / "resume", recipe.save_every)
    validate = Validate(validation, real, folder, recipe.validate_every, recipe.guard, logs, progress)
    log = StepLog(logs, recipe.log_every)
    with _quiet():
        trainer = _trainer(recipe, [progress, log, validate, saver], folder)
        saver.listen()
        try:
            trainer.fit(module, datamodule=_Batches(recipe.data, module), ckpt_path=state, weights_only=True)
        except SIGTERMException:
            pass  # the step is finished and the state saved
        finally:
            saver.release()
            progress.close()
            if logs is not None:
                logs.close()
    if module.step < recipe.max_steps and lead:
        print(
            f"{saver.requested} stopped the run after step {module.step}; it goes on from there when resumed"
        )
    return module.step


def _trainer(recipe: TrainingRecipe, callbacks: list[Callback], folder: Path) -> Trainer:
    """Lightning's loop, without what this package does itself."""
    return Trainer(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        strategy=_strategy(recipe),
        precision=PRECISION[recipe.precision],
        max_epochs=-1,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


class _Batches(LightningDataModule):
    """Training batches from the step on at which the run stands; validation is not Lightning's here."""

    def __init__(self, data: FieldData, module: Training) -> None:
        super().__init__()
        self.data, self.module = data, module

    def train_dataloader(self) -> TrainingBatches:
        self.data.trainer = self.trainer
        self.data.first_batch = self.module.step
        return self.data.train_dataloader()


def _strategy(recipe: TrainingRecipe) -> Strategy | str:
    if recipe.devices == 1:
        return "auto"
    if recipe.data.batch_size % recipe.devices:
        raise InputError(
            f"batch_size is shared out over the devices, so it must be a multiple of {recipe.devices}, "
            f"got {recipe.data.batch_size}"
        )
    cpu = recipe.accelerator == "cpu" or not torch.cuda.is_available()
    # Each of the two networks is unused while the other one learns.
    return DDPStrategy(find_unused_parameters=True, process_group_backend="gloo" if cpu else "nccl")


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to write over a run. Ranks other than 0 come when rank 0 has begun to write."""
    if not _leads():
        return
    begun = bool(states(folder / "resume")) or any(
        (folder / name).exists() for name in ("best", "checkpoint")
    )
    if begun and not resume:
        raise InputError(
            f"the folder {folder} already holds a run; give --resume to go on with it, or another folder"
        )


def _leads() -> bool:
    """Whether this process is rank 0, also before a trainer exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advertisements, and its use of a torch interface that will go."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec.. is deprecated")
            yield
    finally:
        logger.setLevel(level)
