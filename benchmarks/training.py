"""The training step against a bare torch loop of the same mathematics, step by step in turns.

``python benchmarks/training.py [--steps 60] [--batch 16] [--side 64]``, on one thread.

Ours is the whole of ``gen.training`` between two validations: Lightning, seeds for each row, guards,
progress bar and logs. The bare loop has what the game needs: batch, latent, losses, backward, Adam, moving
average. Both train their own copy of one emulator on the same batches; after each of our steps the bare loop
does its own, so that a busy machine slows both alike; the times are CPU times.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning import LightningModule, Trainer

from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.copula_gan import CopulaGAN
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.training import base
from gen.training.adversarial import AdversarialTraining
from gen.training.callbacks import AfterStep, Progress, StepLog
from gen.training.logs import Logs
from gen.training.losses import NonSaturating, WassersteinGP
from gen.training.optimisation import Adam

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


class Lognormal(Source):
    """White lognormal fields: the time of a step does not depend on what they show."""

    def __init__(self, side: int) -> None:
        self.grid = Grid((side, side), 3.5, "deg", False)

    def load(self) -> SimulationSet:
        n, g = 512, torch.Generator().manual_seed(0)
        simulation = torch.arange(n) // 16
        theta = torch.rand(n // 16, 2, generator=g)[simulation] * 0.4 + torch.tensor([0.1, 0.6])
        values = theta[:, 1, None, None, None] * torch.randn(n, 1, *self.grid.shape, generator=g).exp()
        split = np.where(simulation.numpy() < 28, "train", "validation")
        region = np.full(n, "interior")
        return SimulationSet(self.grid, SPACE, values, theta, simulation, split, region, "lognormal").check()


class Bare:
    """The adversarial game as one would write it in a notebook, with a penalty or without."""

    def __init__(self, emulator: CopulaGAN, data: FieldData, n_critic: int, weight: float) -> None:
        self.emulator, self.critic = emulator, emulator.make_critic()
        self.average = copy.deepcopy(emulator)
        self.for_generator = torch.optim.Adam(emulator.parameters(), 1e-4, (0.5, 0.9), fused=True)
        self.for_critic = torch.optim.Adam(self.critic.parameters(), 1e-4, (0.5, 0.9), fused=True)
        self.batches = iter(data.train_dataloader())
        self.step, self.n_critic, self.weight = 0, n_critic, weight

    def __call__(self) -> None:
        values, params, _ = next(self.batches)
        n = len(values)
        noise = [sample_generator(0, self.step * n + i) for i in range(n)]
        moves = (self.step + 1) % self.n_critic == 0
        with torch.no_grad():
            real = self.emulator.to_working(values, params)
            latent = self.emulator.draw_latent(params, noise)
        with torch.set_grad_enabled(moves):
            fake = self.emulator.decode(latent, params)
        self.for_critic.zero_grad()
        score_real, score_fake = self.critic(real, params), self.critic(fake.detach(), params)
        if self.weight:
            u = torch.rand(n, 1, 1, 1)
            middle = torch.lerp(fake.detach(), real, u).requires_grad_(True)
            (slope,) = torch.autograd.grad(self.critic(middle, params).sum(), middle, create_graph=True)
            penalty = self.weight * (slope.flatten(1).norm(dim=1) - 1).square().mean()
            loss = score_fake.mean() - score_real.mean() + penalty
        else:
            softplus = torch.nn.functional.softplus
            loss = softplus(-score_real).mean() + softplus(score_fake).mean()
        loss.backward()
        self.for_critic.step()
        if moves:
            self.move_generator(fake, latent, params)
        self.step += 1

    def move_generator(self, fake: torch.Tensor, latent: torch.Tensor, params: torch.Tensor) -> None:
        self.critic.requires_grad_(False)
        self.for_generator.zero_grad()
        score = self.critic(fake, params)
        loss = -score.mean() if self.weight else torch.nn.functional.softplus(-score).mean()
        for term in self.emulator.regularisation(fake, latent, params).values():
            loss = loss + term
        loss.backward()
        self.for_generator.step()
        self.critic.requires_grad_(True)
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.emulator.parameters(), strict=True):
                mean.lerp_(value, 0.001)


class InTurns(AfterStep):
    """Times our step, from the end of one to the end of the next, then the bare one."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.mark = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mark = time.process_time()

    def after_step(self, trainer: Trainer, module: AdversarialTraining) -> None:
        middle = time.process_time()
        self.bare()
        end = time.process_time()
        self.ours.append(middle - self.mark)
        self.theirs.append(end - middle)
        self.mark = time.process_time()


def measure(loss: WassersteinGP | NonSaturating, side: int, batch: int, steps: int) -> None:
    source = Lognormal(side)
    data, other = FieldData(source, batch), FieldData(source, batch)
    emulator = CopulaGAN(source.grid, SPACE)
    emulator.fit(data.training_set)
    weight = loss.weight if isinstance(loss, WassersteinGP) else 0.0
    bare = Bare(copy.deepcopy(emulator), other, loss.n_critic, weight)
    module = AdversarialTraining(emulator, loss, Adam(1e-4, betas=(0.5, 0.9)), steps)
    turns = InTurns(bare)
    with tempfile.TemporaryDirectory() as folder, base._quiet():
        logs = Logs(Path(folder), 0)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=steps,
            callbacks=[Progress(), StepLog(logs, 50), turns],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=base._Batches(data, module))
        logs.close()
    report(loss, np.array(turns.ours), np.array(turns.theirs))


def report(loss: WassersteinGP | NonSaturating, ours: np.ndarray, theirs: np.ndarray) -> None:
    """The first two cycles of ``n_critic`` steps warm both up; whole cycles are compared after that."""
    n = loss.n_critic
    last = len(ours) // n * n
    ours, theirs = (times[2 * n : last].reshape(-1, n).sum(1) / n for times in (ours, theirs))
    overhead = 100 * (ours / theirs - 1)
    low, middle, high = np.percentile(overhead, [16, 50, 84])
    print(
        f"{loss}: ours {1e3 * ours.mean():.1f} ms a step, bare {1e3 * theirs.mean():.1f} ms; overhead "
        f"{100 * (ours.sum() / theirs.sum() - 1):+.1f} % in all, median of {len(overhead)} cycles "
        f"{middle:+.1f} % (16-84 %: {low:+.1f} to {high:+.1f} %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.side}^2 cells, batch {options.batch}, 1 thread, torch {torch.__version__}")
    for loss in (NonSaturating(), WassersteinGP(n_critic=5)):
        measure(loss, options.side, options.batch, options.steps)


if __name__ == "__main__":
    main()
