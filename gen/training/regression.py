"""A deterministic emulator in training: one step is one batch of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields, Grid
from gen.training.fidelity import RegressionLoss
from gen.training.optimisation import Adam, set_rate, update_average
from gen.training.stepping import Training


class FieldToField(Protocol):
    """What regression asks of an emulator beside ``Emulator``'s own methods."""

    grid: Grid
    #: How far the closed form is from the truth, root mean square of each channel.
    output_scale: Tensor

    def predict(self, coarse: Tensor, params: Tensor) -> Tensor: ...
    def closed_form(self, coarse: Tensor, params: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


def check_field_to_field(emulator: Emulator) -> FieldToField:
    """The emulator, if it can be trained by regression.

    Raises:
        InputError: if it cannot.
    """
    if not all(callable(getattr(emulator, name, None)) for name in ("predict", "closed_form")):
        raise InputError(
            f"the emulator {type(emulator).__name__} does not map one field to another; choose an "
            f"adversarial loss, or an emulator such as Displacement"
        )
    return cast(FieldToField, emulator)


class RegressionTraining(Training):
    """Step s moves a field-to-field emulator down the gradient of the loss on batch s.

    Args:
        emulator: already fitted; its parameters are trained in place.
        loss: of made against true fields.
        optimiser: of the emulator.
        max_steps: batches in all.
        seed: of dropout, if there is any.
        ema_decay: of the moving average of the emulator's weights, ``average``; 0 for none.
        data_fingerprint: what the batches come from; a state is resumed with the same data only.

    Raises:
        InputError: for an emulator that does not map one field to another.
    """

    def __init__(
        self,
        emulator: Emulator,
        loss: RegressionLoss,
        optimiser: Adam,
        max_steps: int,
        seed: int = 0,
        ema_decay: float = 0.999,
        data_fingerprint: str = "",
    ) -> None:
        super().__init__(emulator, loss, optimiser, max_steps, seed, ema_decay, data_fingerprint, {})
        self.loss = loss
        self.field_to_field = check_field_to_field(emulator)
        self._start_average()

    def configure_optimizers(self) -> Optimizer:
        return self.optimiser.build(self.emulator.parameters(), self.optimiser.rate)

    def training_step(self, batch: Fields, batch_idx: int) -> None:
        del batch_idx  # restarts with the process; self.step does not
        self._seed_step(self._rows(len(batch.params)))
        optimiser = cast(Optimizer, self.optimizers(use_pl_optimizer=False))
        set_rate(optimiser, self.optimiser.rate * self.optimiser.factor(self.step, self.max_steps))
        terms = self.terms(batch)
        self.scalars["loss"] = torch.stack([term.detach() for term in terms.values()]).sum()
        self._update(optimiser, terms, list(self.emulator.parameters()), "emulator")
        update_average(self.average, self.emulator, self.ema_decay, self.step)
        self.step += 1

    def rehearse(self, batch: Fields) -> tuple[int, ...]:
        """The loss of a batch, for what it keeps in memory; the shape of one field."""
        self.terms(batch)
        return tuple(batch.values.shape)[1:]

    def terms(self, batch: Fields) -> dict[str, Tensor]:
        """The loss of one batch, in full precision whatever the network's."""
        emulator = self.field_to_field
        made = emulator.predict(batch.coarse, batch.params)
        with torch.autocast(made.device.type, enabled=False):
            return self.loss.terms(made.float(), batch.values, emulator.output_scale, emulator.grid)
