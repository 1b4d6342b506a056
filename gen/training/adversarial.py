"""The adversarial pair in training: one step is one batch for the critic, some of them for both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields
from gen.noise import sample_generator
from gen.training.losses import R1, AdversarialLoss, Critic
from gen.training.optimisation import Adam, set_rate, update_average
from gen.training.stepping import Training, TrainingStopped

__all__ = ["AdversarialEmulator", "AdversarialTraining", "TrainingStopped", "check_adversarial"]


class AdversarialEmulator(Protocol):
    """What adversarial training asks of an emulator beside ``Emulator``'s own methods.

    If it has ``needs_coarse``, the batch's coarse fields are given to ``draw_latent``, whose result then
    carries them on, and to the critic, as the argument ``coarse``. If it ``reconstructs``, ``draw_latent``
    alone gets the batch's own fields so.
    """

    def to_working(self, values: Tensor, params: Tensor) -> Tensor: ...
    def draw_latent(
        self, params: Tensor, generators: Sequence[torch.Generator], **given: Tensor
    ) -> Tensor: ...
    def decode(self, latent: Tensor, params: Tensor) -> Tensor: ...
    def make_critic(self) -> nn.Module: ...
    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> Mapping[str, Tensor]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


def check_adversarial(emulator: Emulator) -> None:
    """Refuse an emulator that no adversarial loss can train."""
    methods = ("to_working", "draw_latent", "decode", "make_critic", "regularisation")
    if not all(callable(getattr(emulator, name, None)) for name in methods):
        raise InputError(
            f"the emulator {type(emulator).__name__} has no generator to train against a critic; "
            f"leave out the loss, or choose an adversarial emulator such as LatentGAN"
        )


class AdversarialTraining(Training):
    """Generator and critic in turn, by manual optimisation (Goodfellow et al. 2014, arXiv:1406.2661).

    Step s trains the critic on batch s; where ``loss.generator_updates`` rises the generator follows on the
    same noise. All randomness is a function of ``(seed, step, row of the global batch)``, so a resumed run is
    the uninterrupted one. The step count is this module's own: Lightning counts optimiser steps.

    Args:
        emulator: already fitted; its parameters are trained in place.
        loss: of the pair.
        optimiser: of both networks.
        max_steps: batches in all.
        seed: of latents, label flips, interpolations and dropout.
        r1: lazy slope penalty on real fields, beside whatever the loss brings.
        ema_decay: of the moving average of the emulator's weights, ``average``; 0 for none.
        data_fingerprint: what the batches come from; a state is resumed with the same data only.

    Raises:
        InputError: for an emulator without a generator, or batch normalisation under a per-sample penalty.
    """

    def __init__(
        self,
        emulator: Emulator,
        loss: AdversarialLoss,
        optimiser: Adam,
        max_steps: int,
        seed: int = 0,
        r1: R1 | None = None,
        ema_decay: float = 0.999,
        data_fingerprint: str = "",
    ) -> None:
        super().__init__(
            emulator, loss, optimiser, max_steps, seed, ema_decay, data_fingerprint, {"r1": repr(r1)}
        )
        check_adversarial(emulator)
        self.critic = self.generator.make_critic()
        self.loss, self.r1 = loss, r1
        self._start_average()
        norms = any(isinstance(m, _BatchNorm) for m in self.critic.modules())
        if norms and (loss.per_sample or r1 is not None):
            raise InputError(
                "a gradient penalty needs a critic that scores each field by itself, "
                "got batch normalisation; set critic_norm to 'none' or 'spectral'"
            )

    @property
    def generator(self) -> AdversarialEmulator:
        return cast(AdversarialEmulator, self.emulator)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        a = self.optimiser
        return [
            a.build(self.emulator.parameters(), a.rate),
            a.build(self.critic.parameters(), a.critic_rate or a.rate),
        ], []

    def moves_generator(self, step: int) -> bool:
        return self.loss.generator_updates(step + 1) > self.loss.generator_updates(step)

    def training_step(self, batch: Fields, batch_idx: int) -> None:
        del batch_idx  # restarts with the process; self.step does not
        rows = self._rows(len(batch.params))
        self._seed_step(rows)
        for_generator, for_critic = cast(list[Optimizer], self.optimizers(use_pl_optimizer=False))
        self._set_rates(for_generator, for_critic)
        moves = self.moves_generator(self.step)
        noise = [sample_generator(self.seed, row, "latent") for row in rows]
        critic = self._critic(batch)
        with torch.no_grad():
            latent = self._latent(batch, noise)
            real = self.generator.to_working(batch.values, batch.params).float()
        with torch.set_grad_enabled(moves):
            fake = self.generator.decode(latent, batch.params).float()
        self._train_critic(for_critic, critic, real, fake.detach(), batch.params)
        if moves:
            self._train_generator(for_generator, critic, fake, latent, batch.params)
            updates = self.loss.generator_updates(self.step)
            update_average(self.average, self.emulator, self.ema_decay, updates)
        self.step += 1

    def rehearse(self, batch: Fields) -> tuple[int, ...]:
        """The generator's loss on a batch, for what it keeps in memory; the shape of one field."""
        noise = [sample_generator(0, i, "plan") for i in range(len(batch.params))]
        fake = self.generator.decode(self._latent(batch, noise), batch.params)
        self._critic(batch)(fake, batch.params)
        return tuple(fake.shape)[1:]

    def _latent(self, batch: Fields, noise: Sequence[torch.Generator]) -> Tensor:
        given = {}
        if self.emulator.needs_coarse or self.emulator.reconstructs:
            given["coarse"] = batch.values if self.emulator.reconstructs else batch.coarse
        return self.generator.draw_latent(batch.params, noise, **given)

    def _critic(self, batch: Fields) -> Critic:
        return partial(self.critic, coarse=batch.coarse) if self.emulator.needs_coarse else self.critic

    def _set_rates(self, for_generator: Optimizer, for_critic: Optimizer) -> None:
        factor = self.optimiser.factor(self.step, self.max_steps)
        set_rate(for_generator, self.optimiser.rate * factor)
        set_rate(for_critic, (self.optimiser.critic_rate or self.optimiser.rate) * factor)

    def _train_critic(
        self, optimiser: Optimizer, critic: Critic, real: Tensor, fake: Tensor, params: Tensor
    ) -> None:
        scores_real = critic(real, params).float()
        scores_fake = critic(fake, params).float()
        labelled = (scores_fake, scores_real) if self._flips_labels() else (scores_real, scores_fake)
        terms = {"critic": self.loss.critic(*labelled)}
        penalty = self.loss.penalty(critic, real, fake, params, self._uniform(len(real)))
        if penalty is not None:
            terms["penalty"] = penalty
        if self.r1 is not None and self.r1.due(self.step):
            terms["r1"] = self.r1.penalty(critic, real, params)
        self._update(optimiser, terms, list(self.critic.parameters()), "critic")
        self.scalars["score_real"] = scores_real.detach().mean()
        self.scalars["score_fake"] = scores_fake.detach().mean()

    def _train_generator(
        self, optimiser: Optimizer, critic: Critic, fake: Tensor, latent: Tensor, params: Tensor
    ) -> None:
        frozen = [p for p in self.critic.parameters() if p.requires_grad]
        for p in frozen:
            p.requires_grad_(False)
        terms = {"generator": self.loss.generator(critic(fake, params).float())}
        terms.update(self.generator.regularisation(fake, latent, params))
        self._update(optimiser, terms, list(self.emulator.parameters()), "generator")
        for p in frozen:
            p.requires_grad_(True)

    def _uniform(self, n: int) -> Tensor:
        """This rank's share ``(n,)`` of one random number in [0, 1) for each row of the global batch."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        draw = torch.rand(n * world_size, generator=sample_generator(self.seed, self.step, "between"))
        return draw[rank * n : (rank + 1) * n]

    def _flips_labels(self) -> bool:
        if self.loss.label_flip == 0:
            return False
        draw = torch.rand((), generator=sample_generator(self.seed, self.step, "flip"))
        return bool(draw < self.loss.label_flip)
