"""What all training modules share: steps counted by themselves, seeds, finite updates, resume states."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.training.optimisation import Adam, gradient_norm


class TrainingStopped(InputError):
    """A run that cannot go on; the message is one sentence with the reason and a remedy."""


class Training(LightningModule):
    """An emulator in training by manual optimisation, with a moving average of its weights.

    All randomness is a function of ``(seed, step, row of the global batch)``, so a resumed run is the
    uninterrupted one. The step count is this module's own: Lightning counts optimiser steps.

    Args:
        emulator: already fitted; its parameters are trained in place.
        loss: what is minimised.
        optimiser: of all that is trained.
        max_steps: batches in all.
        seed: of all randomness of the steps.
        ema_decay: of the moving average of the emulator's weights, ``average``; 0 for none.
        data_fingerprint: what the batches come from; a state is resumed with the same data only.
        more_settings: what else must be the same when a state is resumed.
    """

    average: Emulator

    def __init__(
        self,
        emulator: Emulator,
        loss: object,
        optimiser: Adam,
        max_steps: int,
        seed: int,
        ema_decay: float,
        data_fingerprint: str,
        more_settings: Mapping[str, str],
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), got {ema_decay}")
        self.automatic_optimization = False
        self.emulator = emulator
        self.optimiser = optimiser
        self.max_steps, self.seed, self.ema_decay = max_steps, seed, ema_decay
        self.step = 0
        self.settings = {
            "data": data_fingerprint,
            "emulator": f"{type(emulator).__name__} {json.dumps(emulator.to_config(), sort_keys=True)}",
            "loss": repr(loss),
            "optimiser": repr(optimiser),
            **more_settings,
            "ema_decay": repr(ema_decay),
            "seed": repr(seed),
            # The schedule knows how long the run is; without one a run may be prolonged.
            "max_steps": "any" if optimiser.schedule == "constant" else repr(max_steps),
        }
        #: Scalars of the latest update of each network, for logs.
        self.scalars: dict[str, Tensor] = {}

    def _start_average(self) -> None:
        """A copy of the emulator; the last thing that a constructor makes."""
        self.average = copy.deepcopy(self.emulator).requires_grad_(False)

    def _rows(self, n: int) -> range:
        """This rank's rows of the global batch, counted over the whole run."""
        first = (self.step * self.trainer.world_size + self.trainer.global_rank) * n
        return range(first, first + n)

    def _seed_step(self, rows: range) -> None:
        """Seed what draws from the global stream, such as dropout."""
        digest = hashlib.sha256(f"cosmozoo/step/{self.seed}/{rows.start}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))

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
