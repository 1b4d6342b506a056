"""A deterministic emulator in training: one step is one batch of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields, Grid
from gen.training.fidelity import RegressionLoss
from gen.training.single import SingleTraining


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


class RegressionTraining(SingleTraining):
    """A field-to-field emulator, by the loss of what it makes against the true fields.

    Raises:
        InputError: for an emulator that does not map one field to another.
    """

    def __init__(self, emulator: Emulator, loss: RegressionLoss, *settings: Any, **more: Any) -> None:
        super().__init__(emulator, loss, *settings, **more)
        self.loss, self.field_to_field = loss, check_field_to_field(emulator)

    def terms(self, batch: Fields, rows: range) -> dict[str, Tensor]:
        """The loss of one batch, in full precision whatever the network's."""
        del rows  # nothing is drawn
        emulator = self.field_to_field
        made = emulator.predict(batch.coarse, batch.params)
        with torch.autocast(made.device.type, enabled=False):
            return self.loss.terms(made.float(), batch.values, emulator.output_scale, emulator.grid)
