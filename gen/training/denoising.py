"""A diffusion emulator in training: one step is one batch at levels of noise drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gen.diffusion.levels import Ladder
from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields
from gen.noise import sample_generator
from gen.training.single import SingleTraining


@dataclass(frozen=True)
class Denoising:
    """Mean square error of a denoiser at levels even in ln sigma over the sampler's ladder.

    Vincent 2011 (Neural Computation 23, 1661): its minimum is the score of the noised law.
    """

    def levels(self, ladder: Ladder, share: Tensor) -> Tensor:
        """Levels of noise, ``(B,)`` float64, below which lie these shares ``(B,)`` of all, in [0, 1)."""
        low, high = math.log(ladder.low), math.log(ladder.high)
        return (low + (high - low) * share.double()).exp()


class DiffusionEmulator(Protocol):
    """What denoising asks of an emulator beside ``Emulator``'s own methods."""

    ladder: Ladder

    def loss(
        self,
        values: Tensor,
        params: Tensor,
        generators: Sequence[torch.Generator],
        sigma: Tensor,
        coarse: Tensor | None = None,
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


class LevelLaw(Protocol):
    """The law that a loss draws levels of noise from, by its quantiles."""

    def levels(self, ladder: Ladder, share: Tensor) -> Tensor: ...


class DenoisingTraining(SingleTraining):
    """A denoiser, by its error at levels of noise drawn at random.

    Levels of a batch are evenly spread over their law from one random start, which makes the loss of small
    batches less noisy (Kingma et al. 2021, arXiv:2107.00630).

    Raises:
        InputError: for an emulator without a denoiser.
    """

    who = "denoiser"

    def __init__(self, emulator: Emulator, loss: LevelLaw, *settings: Any, **more: Any) -> None:
        super().__init__(emulator, loss, *settings, **more)
        self.loss, self.diffusion = loss, check_diffusion(emulator)

    def terms(self, batch: Fields, rows: range) -> dict[str, Tensor]:
        """The loss of one batch, whose rows are these of all that the run sees."""
        noise = [sample_generator(self.seed, row, "latent") for row in rows]
        start = torch.rand((), generator=sample_generator(self.seed, rows.start, "level"))
        share = (start + torch.arange(len(rows)) / len(rows)) % 1
        sigma = self.loss.levels(self.diffusion.ladder, share).to(batch.params)
        return self.diffusion.loss(batch.values, batch.params, noise, sigma, batch.coarse)
