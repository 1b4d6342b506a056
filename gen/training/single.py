"""An emulator in training by a loss of its own, without an adversary: one step is one batch."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from gen.emulators.base import Emulator
from gen.fields import Fields
from gen.training.optimisation import Adam, set_rate, update_average
from gen.training.stepping import Training


class SingleTraining(Training):
    """Step s moves an emulator down the gradient of ``terms`` of batch s.

    Args:
        emulator: already fitted; its parameters are trained in place.
        loss: what ``terms`` are of.
        optimiser: of the emulator.
        max_steps: batches in all.
        seed: of all randomness of the steps.
        ema_decay: of the moving average of the emulator's weights, ``average``; 0 for none.
        data_fingerprint: what the batches come from; a state is resumed with the same data only.
    """

    #: What is trained, for logs and errors.
    who: ClassVar[str] = "emulator"

    def __init__(
        self,
        emulator: Emulator,
        loss: object,
        optimiser: Adam,
        max_steps: int,
        seed: int = 0,
        ema_decay: float = 0.999,
        data_fingerprint: str = "",
    ) -> None:
        super().__init__(emulator, loss, optimiser, max_steps, seed, ema_decay, data_fingerprint, {})
        self._start_average()

    @abstractmethod
    def terms(self, batch: Fields, rows: range) -> dict[str, Tensor]:
        """The loss of one batch, whose rows are these of all that the run sees."""

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
        self._update(optimiser, terms, list(self.emulator.parameters()), self.who)
        update_average(self.average, self.emulator, self.ema_decay, self.step)
        self.step += 1

    def rehearse(self, batch: Fields) -> tuple[int, ...]:
        """The loss of a batch, for what it keeps in memory; the shape of one field."""
        self.terms(batch, range(len(batch.params)))
        return tuple(batch.values.shape)[1:]
