"""A training run of seconds, for tests that kill, resume and parallelise it in processes of their own.

``python tests/tiny_run.py FOLDER [key=value ...]`` trains in FOLDER; ``resume=1`` goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.base import Emulator
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.training import base
from gen.training.adversarial import AdversarialTraining
from gen.training.base import TrainingRecipe, train
from gen.training.callbacks import AfterStep
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

GRID = Grid((8, 8), 8.0, "Mpc/h", True)
SPACE = ParameterSpace(("sigma_8",), (0.6,), (1.0,))


class Toy(Source):
    """White noise of standard deviation sigma_8: 8 values of it, 8 fields each."""

    def load(self) -> SimulationSet:
        g = torch.Generator().manual_seed(1)
        simulation = torch.arange(128) // 8
        params = torch.linspace(0.6, 1.0, 8)[simulation % 8, None]
        values = torch.randn(128, 1, 8, 8, generator=g) * params[..., None, None]
        split = np.where(simulation.numpy() < 8, "train", "validation")
        region = np.full(128, "interior")
        return SimulationSet(GRID, SPACE, values, params, simulation, split, region, "toy noise").check()


def emulator(grid: Grid, space: ParameterSpace) -> Emulator:
    return LatentGAN(
        grid, space, latent_size=4, working="physical", channels=(8,), kernel=3, critic_channels=(8,)
    )


def without_batch_norm(grid: Grid, space: ParameterSpace) -> Emulator:
    """Of which each field depends on its own row of the batch alone."""
    return CopulaGAN(grid, space, widths=(4, 8), summary_weight=0.0, critic_channels=(8,), critic_kernel=3)


def with_summaries(grid: Grid, space: ParameterSpace) -> Emulator:
    """With the gap between real fields and copula, which every start of a run measures anew."""
    return CopulaGAN(grid, space, widths=(4, 8), summary_weight=5.0, critic_channels=(8,), critic_kernel=3)


def recipe(**changes: object) -> TrainingRecipe:
    tiny = TrainingRecipe(
        name="tiny",
        data=FieldData(Toy(), batch_size=8),
        emulator=emulator,
        loss=WassersteinGP(n_critic=2),
        optimiser=Adam(rate=1e-3, schedule="cosine"),
        max_steps=24,
        ema_decay=0.9,
        accelerator="cpu",
        validate_every=10,
        validation_maps=16,
        save_every=4,
        log_every=2,
    )
    return replace(tiny, **changes)  # pyright: ignore[reportArgumentType]


class SignalAt(AfterStep):
    """Sends this process a signal after a step, before the state of that step can be saved."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def after_step(self, trainer: Trainer, module: AdversarialTraining) -> None:
        if module.step == self.step:
            os.kill(os.getpid(), self.number)


class Record(AfterStep):
    """Writes what this rank saw and has become: a file for each rank, after the last step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[list[float]] = []
        self.start: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Fields, batch_idx: int
    ) -> None:
        self.seen.append(batch.values[:, 0, 0, 0].tolist())

    def after_step(self, trainer: Trainer, module: AdversarialTraining) -> None:
        if module.step == module.max_steps:
            self.folder.mkdir(parents=True, exist_ok=True)
            content = {"seen": self.seen, "start": self.start, "state": module.state_dict()}
            torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


def main(arguments: list[str]) -> None:
    """Train; ``kill_at=N`` or ``term_at=N`` make the process signal itself after step N, ``record=1`` makes
    each rank write what it saw, ``net=NAME`` takes another network of this file."""
    options = dict(a.split("=") for a in arguments[1:])
    resume = options.pop("resume", "0") == "1"
    if options.pop("record", "0") == "1":
        _inject(Record(Path(arguments[0])))
    nets = {"emulator": globals()[options.pop("net")]} if "net" in options else {}
    for name, number in (("kill_at", signal.SIGKILL), ("term_at", signal.SIGTERM)):
        if name in options:
            _inject(SignalAt(int(options.pop(name)), number))
    torch.set_num_threads(1)
    try:
        train(recipe(**{k: int(v) for k, v in options.items()}, **nets), Path(arguments[0]), resume=resume)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


@dataclass(frozen=True)
class Ended:
    """How a process ended: minus the number of the signal that killed it, or its exit code."""

    code: int | None
    text: str


def forkserver() -> ForkServerContext:
    """Starts processes by forking one that has imported the package and done nothing else."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["gen.training.base", "gen.emulators.latent_gan"])
    return context


def run_apart(folder: Path, *options: str) -> Ended:
    """``main`` in a process of its own."""
    log = folder.with_suffix(".log")
    process = forkserver().Process(target=_logged, args=(log, [str(folder), *options]))
    process.start()
    process.join(timeout=120)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"the run in {folder} did not end")
    return Ended(process.exitcode, log.read_text())


def _logged(log: Path, arguments: list[str]) -> None:
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            main(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def _inject(callback: AfterStep) -> None:
    """Put a callback before all others of the run."""
    trainer = base.Trainer

    def with_callback(*, callbacks: list[Callback], **rest: Any) -> Trainer:
        return trainer(callbacks=[callback, *callbacks], **rest)

    base.Trainer = with_callback  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    main(sys.argv[1:])
