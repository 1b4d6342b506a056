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
    r"""Mean square error of a denoiser at levels of noise drawn over the sampler's ladder.

    Vincent 2011 (Neural Computation 23, 1661): its minimum is the score of the noised law.

    Nearly all of the error is what nobody can know, and its gradient hides what can be learned. Two ways to
    see more, neither of which moves the minimum:

    - levels about where fields differ from noise, as Karras et al. 2022 (arXiv:2206.00364) draw them. The
      copula's noise has the field's own power, so that this is near sigma = 0.6, for all waves.
    - each field with a noise g and with -g. At low levels ``g dU(y + sigma g)`` is mostly ``g dU(y)``, which
      cancels. Of the diffusion of convergence the gradient's variance, for as many evaluations, falls to 0.08
      at sigma = 0.15, 0.3 at 0.3, 0.65 at 0.6 and 0.94 at 1; above it rises, to 1.3 at 1.5.

    Args:
        centre, spread: levels are lognormal about ``centre``, of this scatter in ln sigma, cut at the ends of
            the ladder; without a centre they are even in ln sigma.
        mirrored: the level below which each field is seen with noise of both signs, for half the weight.

    Raises:
        InputError: for levels or a scatter that are not positive.
    """

    centre: float | None = None
    spread: float = 1.1
    mirrored: float = 0.0

    def __post_init__(self) -> None:
        if not (self.centre is None or self.centre > 0) or not (self.spread > 0 and self.mirrored >= 0):
            raise InputError(
                "levels of noise need a centre and a spread above 0 and mirrored of 0 or more, got "
                f"centre {self.centre}, spread {self.spread}, mirrored {self.mirrored}"
            )

    def levels(self, ladder: Ladder, share: Tensor) -> Tensor:
        """Levels of noise, ``(B,)`` float64, below which lie these shares ``(B,)`` of all, in [0, 1)."""
        low, high = math.log(ladder.low), math.log(ladder.high)
        if self.centre is None:
            return (low + (high - low) * share.double()).exp()
        middle = math.log(self.centre)
        ends = torch.tensor([low - middle, high - middle], dtype=torch.float64) / self.spread
        first, last = torch.special.ndtr(ends)
        normal = torch.special.ndtri(first + (last - first) * share.double())
        return (middle + self.spread * normal).exp().clamp(ladder.low, ladder.high)


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
        mirrored: float = 0.0,
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
    """The law that a loss draws levels of noise from, by its quantiles, and below which it mirrors noise."""

    @property
    def mirrored(self) -> float: ...
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
        return self.diffusion.loss(batch.values, batch.params, noise, sigma, batch.coarse, self.loss.mirrored)
