"""The adversarial pair in training: one step is one batch for the critic, every n-th one for both."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields
from gen.noise import sample_generator
from gen.training.losses import R1, AdversarialLoss
from gen.training.optimisation import Adam, gradient_norm, set_rate, update_average


class TrainingStopped(InputError):
    """A run that cannot go on; the message is one sentence with the reason and a remedy."""


class AdversarialEmulator(Protocol):
    """What adversarial training asks of an emulator beside ``Emulator``'s own methods."""

    def to_working(self, values: Tensor, params: Tensor) -> Tensor: ...
    def draw_latent(self, params: Tensor, generators: Sequence[torch.Generator]) -> Tensor: ...
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


class AdversarialTraining(LightningModule):
    """Generator and critic in turn, by manual optimisation (Goodfellow et al. 2014, arXiv:1406.2661).

    Step s trains the critic on batch s; if ``(s + 1) % n_critic == 0`` the generator follows on the same
    noise. All randomness is a function of ``(seed, step, row of the global batch)``, so a resumed run is
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
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), got {ema_decay}")
        check_adversarial(emulator)
        self.automatic_optimization = False
        self.emulator = emulator
        self.critic = self.generator.make_critic()
        self.average = copy.deepcopy(emulator).requires_grad_(False)
        self.loss, self.optimiser, self.r1 = loss, optimiser, r1
        self.max_steps, self.seed, self.ema_decay = max_steps, seed, ema_decay
        self.step = 0
        self.settings = {
            "data": data_fingerprint,
            "emulator": f"{type(emulator).__name__} {json.dumps(emulator.to_config(), sort_keys=True)}",
            "loss": repr(loss),
            "optimiser": repr(optimiser),
            "r1": repr(r1),
            "ema_decay": repr(ema_decay),
            "seed": repr(seed),
            # The schedule knows how long the run is; without one a run may be prolonged.
            "max_steps": "any" if optimiser.schedule == "constant" else repr(max_steps),
        }
        #: Scalars of the latest update of either network, for logs.
        self.scalars: dict[str, Tensor] = {}
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
        return (step + 1) % self.loss.n_critic == 0

    def training_step(self, batch: Fields, batch_idx: int) -> None:
        del batch_idx  # restarts with the process; self.step does not
        rows = self._rows(len(batch.params))
        self._seed_step(rows)
        for_generator, for_critic = cast(list[Optimizer], self.optimizers(use_pl_optimizer=False))
        self._set_rates(for_generator, for_critic)
        moves = self.moves_generator(self.step)
        noise = [sample_generator(self.seed, row, "latent") for row in rows]
        with torch.no_grad():
            latent = self.generator.draw_latent(batch.params, noise)
            real = self.generator.to_working(batch.values, batch.params).float()
        with torch.set_grad_enabled(moves):
            fake = self.generator.decode(latent, batch.params).float()
        self._train_critic(for_critic, real, fake.detach(), batch.params)
        if moves:
            self._train_generator(for_generator, fake, latent, batch.params)
            update_average(self.average, self.emulator, self.ema_decay, self.step // self.loss.n_critic)
        self.step += 1

    def _rows(self, n: int) -> range:
        """This rank's rows of the global batch, counted over the whole run."""
        first = (self.step * self.trainer.world_size + self.trainer.global_rank) * n
        return range(first, first + n)

    def _seed_step(self, rows: range) -> None:
        """Seed what draws from the global stream, such as dropout."""
        digest = hashlib.sha256(f"cosmozoo/step/{self.seed}/{rows.start}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))

    def _set_rates(self, for_generator: Optimizer, for_critic: Optimizer) -> None:
        factor = self.optimiser.factor(self.step, self.max_steps)
        set_rate(for_generator, self.optimiser.rate * factor)
        set_rate(for_critic, (self.optimiser.critic_rate or self.optimiser.rate) * factor)

    def _train_critic(self, optimiser: Optimizer, real: Tensor, fake: Tensor, params: Tensor) -> None:
        scores_real = self.critic(real, params).float()
        scores_fake = self.critic(fake, params).float()
        labelled = (scores_fake, scores_real) if self._flips_labels() else (scores_real, scores_fake)
        terms = {"critic": self.loss.critic(*labelled)}
        penalty = self.loss.penalty(self.critic, real, fake, params, self._uniform(len(real)))
        if penalty is not None:
            terms["penalty"] = penalty
        if self.r1 is not None and self.r1.due(self.step):
            terms["r1"] = self.r1.penalty(self.critic, real, params)
        self._update(optimiser, terms, list(self.critic.parameters()), "critic")
        self.scalars["score_real"] = scores_real.detach().mean()
        self.scalars["score_fake"] = scores_fake.detach().mean()

    def _train_generator(self, optimiser: Optimizer, fake: Tensor, latent: Tensor, params: Tensor) -> None:
        frozen = [p for p in self.critic.parameters() if p.requires_grad]
        for p in frozen:
            p.requires_grad_(False)
        terms = {"generator": self.loss.generator(self.critic(fake, params).float())}
        terms.update(self.generator.regularisation(fake, latent, params))
        self._update(optimiser, terms, list(self.emulator.parameters()), "generator")
        for p in frozen:
            p.requires_grad_(True)

    def _update(
        self, optimiser: Optimizer, terms: Mapping[str, Tensor], parameters: list[nn.Parameter], who: str
    ) -> None:
        """One optimiser step on the sum of the terms; none if anything is not finite."""
        optimiser.zero_grad()
        total = torch.stack(list(terms.values())).sum()
        self.manual_backward(total)
        norm = gradient_norm(parameters, self.optimiser.clip)
        self.scalars.update({name: term.detach() for name, term in terms.items()})
        self.scalars[f"{who}_gradient"] = norm.detach()
        self._check_finite(torch.isfinite(total.detach()) & torch.isfinite(norm), who)
        optimiser.step()

    def _check_finite(self, finite: Tensor, who: str) -> None:
        # All ranks must agree, or one would wait for the other for ever.
        if self.trainer.strategy.reduce_boolean_decision(bool(finite), all=True):
            return
        raise TrainingStopped(
            f"training stopped at step {self.step}: the {who}'s loss or gradient is not finite; the last "
            f"good weights are kept, start anew with a smaller step size, gradient clipping or full precision"
        )

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["step"] = self.step
        checkpoint["settings"] = self.settings

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, was in checkpoint["settings"].items():
            if was != self.settings[name]:
                raise InputError(
                    f"the run cannot be resumed with another {name}: it began with {was}, the recipe now "
                    f"gives {self.settings[name]}; restore it, or start a new run in another folder"
                )
        self.step = int(checkpoint["step"])
