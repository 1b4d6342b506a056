"""The latent space of an emulator: independent numbers of unit variance, and mixtures that stay such."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gen.emulators.base import Emulator
from gen.errors import InputError

#: Weights of a - b + c (Radford, Metz & Chintala 2015, arXiv:1511.06434), with the variance kept at 1.
ARITHMETIC = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64) / math.sqrt(3)


class LatentSpace(Emulator):
    """An emulator whose fields are a function of N independent numbers of zero mean and unit variance.

    The numbers know nothing of the parameters: the same row at other parameters is the same noise.
    """

    @abstractmethod
    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """``(B, N)``, row i drawn from generator i alone."""

    @abstractmethod
    def from_white(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields ``(B, C, *shape)`` in physical units of ``(B, N)`` numbers at ``(B, P)`` parameters."""

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        return self.from_white(self.white_latent(generators, shape), params, shape)


def latent_space(emulator: Emulator) -> LatentSpace:
    """The emulator as a latent space.

    Raises:
        InputError: if its fields are made from something else.
    """
    if not isinstance(emulator, LatentSpace) or emulator.needs_coarse:
        raise InputError(
            f"{type(emulator).__name__} has no latent space of independent numbers to explore; "
            "take a checkpoint of a Copula, CopulaGAN or LatentGAN"
        )
    return emulator


def great_circle(steps: int) -> Tensor:
    r"""Weights ``(steps, 2)`` of a and b on the way from a to b: cos(pi t / 2), sin(pi t / 2), t = 0 ... 1.

    Spherical interpolation (White 2016, arXiv:1609.04468) with the angle between a and b at its expectation,
    90 degrees, from which that of two independent latents differs by about 1/sqrt(N). So every row has unit
    norm, and the mixture of two independent Gaussian latents is exactly as probable as a latent drawn
    afresh, for vectors and for fields of white noise alike. Of other laws it keeps mean and variance.
    """
    angle = torch.linspace(0, math.pi / 2, steps, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], 1)


def straight_line(steps: int) -> Tensor:
    """Weights ``(steps, 2)`` of a and b on the chord, 1 - t and t: half the variance in its middle."""
    t = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.stack([1 - t, t], 1)


def mixtures(weights: Tensor, latents: Tensor) -> Tensor:
    """``(S, N)`` from ``(S, n)`` weights of ``(n, N)`` latents."""
    return weights.to(latents) @ latents


def fields_of(emulator: Emulator, white: Tensor, params: Tensor) -> Tensor:
    """Fields ``(B, C, *grid.shape)``, on the CPU, of ``(B, N)`` numbers at ``(B, P)`` or ``(1, P)``.

    Raises:
        InputError: for an emulator without a latent space.
    """
    space, size = latent_space(emulator), emulator.micro_batch
    like = next((t for t in emulator.state_dict().values() if t.is_floating_point()), white)
    batches = zip(white.split(size), params.to(like).expand(len(white), -1).split(size), strict=True)
    with torch.no_grad():
        return torch.cat([space.from_white(numbers, rows).cpu() for numbers, rows in batches])
