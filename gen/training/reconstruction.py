"""An autoencoder in training: one step is one batch, encoded and decoded."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gen.emulators.autoencoder import Autoencoder
from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields
from gen.noise import sample_generator
from gen.training.single import SingleTraining


class Reconstruction:
    """Mean square error of decoded fields in cells and in waves, and the divergence of stochastic latents.

    Kingma & Welling 2014 (arXiv:1312.6114), of a likelihood that is Gaussian in the field's normal scores;
    the autoencoder has the weights.
    """

    # No dataclass: of two that have no fields a recipe's reader takes the first.
    def __repr__(self) -> str:
        return "Reconstruction()"


def check_autoencoder(emulator: Emulator) -> Autoencoder:
    """The emulator, if it is an autoencoder.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(emulator, Autoencoder):
        raise InputError(
            f"the emulator {type(emulator).__name__} does not encode fields; choose another loss, or the "
            "emulator Autoencoder"
        )
    return emulator


class ReconstructionTraining(SingleTraining):
    """An autoencoder, by what it loses of each batch.

    Raises:
        InputError: for an emulator that is none, or has no networks.
    """

    who = "autoencoder"

    def __init__(self, emulator: Emulator, loss: Reconstruction, *settings: Any, **more: Any) -> None:
        super().__init__(emulator, loss, *settings, **more)
        self.loss, self.autoencoder = loss, check_autoencoder(emulator)
        if self.autoencoder.coding.completed:
            raise InputError(
                "a CompletedAutoencoder learns against a critic; give it an adversarial loss, or none for a "
                "closed form"
            )

    def terms(self, batch: Fields, rows: range) -> dict[str, Tensor]:
        """The loss of one batch, whose rows are these of all that the run sees."""
        noise = [sample_generator(self.seed, row, "latent") for row in rows]
        return self.autoencoder.loss(batch.values, batch.params, noise)
