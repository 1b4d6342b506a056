"""A diffusion emulator in training: one step is one batch at levels of noise drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gen.diffusion.levels import Ladder
from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields
from gen.noise import sample_generator
from gen.training.optimisation import Adam, set_rate, update_average
from gen.training.stepping import Training


@dataclass(frozen=True)
class Denoising:
    """Mean square error of a denoiser at levels even in ln sigma over the sampler's ladder.

    Vincent 2011 (Neural Computation 23, 1661): its minimum is the score of the noised law.
    """


class DiffusionEmulator(Protocol):
    """What denoising asks of an emulator beside ``Emulator``'s own methods."""

    ladder: Ladder

    def loss(
        self, values: Tensor, params: Tensor, generators: Sequence[torch.Generator], sigma: Tensor
    ) -> dict[str, Tensor]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


def check_diffusion(emulator: Emulator) -> DiffusionEmulator:
    """The emulator, if it can be trained by denoising.

    Raises:
        InputError: if it cannot.
    """
    if not (callable(getattr(emulator, "loss", None)) and hasattr(emulator, "ladder")):
        raise InputError(
            f"the emulator {type(emulator).__name__} has no denoiser; choose another loss, or an emulator "
            "such as CopulaDiffusion"
        )
    return cast(DiffusionEmulator, emulator)


class DenoisingTraining(Training):
    """Step s moves a denoiser down the gradient of its error on batch s.

    Levels of a batch are evenly spread over ln sigma from one random start, which makes the loss of small
    batches less noisy (Kingma et al. 2021, arXiv:2107.00630).

    Args:
        emulator: already fitted; its parameters are trained in place.
        loss: what marks the recipe's choice.
        optimiser: of the emulator.
        max_steps: batches in all.
        seed: of noise, levels and dropout.
        ema_decay: of the moving average of the emulator's weights, ``average``; 0 for none.
        data_fingerprint: what the batches come from; a state is resumed with the same data only.

    Raises:
        InputError: for an emulator without a denoiser.
    """

    def __init__(
        self,
        emulator: Emulator,
        loss: Denoising,
        optimiser: Adam,
        max_steps: int,
        seed: int = 0,
        ema_decay: float = 0.999,
        data_fingerprint: str = "",
    ) -> None:
        super().__init__(emulator, loss, optimiser, max_steps, seed, ema_decay, data_fingerprint, {})
        self.loss = loss
        self.diffusion = check_diffusion(emulator)
        self._start_average()

    def configure_optimizers(self) -> Optimizer:
        return self.optimiser.build(self.emulator.parameters(), self.optimiser.rate)

    def training_step(self, batch: Fields, batch_idx: int) -> None:
        del batch_idx  # restarts with the process; self.step does not
        rows = self._rows(len(batch.params))
        self._seed_step(rows)
        optimiser = cast(Optimizer, self.optimizers(use_pl_optimizer=False))
        set_rate(optimiser, self.optimiser.rate * self.optimiser.factor(self.step, self.max_steps))
        terms = self.terms(batch, rows)
        self.scalars["loss"] = torch.stack([term.detach() for term in terms.values()]).sum()
        self._update(optimiser, terms, list(self.emulator.parameters()), "denoiser")
        update_average(self.average, self.emulator, self.ema_decay, self.step)
        self.step += 1

    def rehearse(self, batch: Fields) -> tuple[int, ...]:
        """The loss of a batch, for what it keeps in memory; the shape of one field."""
        self.terms(batch, range(len(batch.params)))
        return tuple(batch.values.shape)[1:]

    def terms(self, batch: Fields, rows: range) -> dict[str, Tensor]:
        """The loss of one batch, whose rows are these of all that the run sees."""
        noise = [sample_generator(self.seed, row, "latent") for row in rows]
        start = torch.rand((), generator=sample_generator(self.seed, rows.start, "level"))
        share = (start + torch.arange(len(rows)) / len(rows)) % 1
        ladder = self.diffusion.ladder
        ends = math.log(ladder.low), math.log(ladder.high)
        sigma = (ends[0] + (ends[1] - ends[0]) * share).exp().to(batch.params)
        return self.diffusion.loss(batch.values, batch.params, noise, sigma)
