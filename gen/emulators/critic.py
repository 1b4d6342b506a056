"""What a critic sees of a field, and the views of a field that its judgement and its loss share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gen.emulators.marginal import OnePointLaw
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic
from gen.nets.summaries import Summaries


class FieldCritic(nn.Module):
    """A critic of working-space fields that may also see their linear-space tail and power spectra."""

    def __init__(
        self,
        space: ParameterSpace,
        critic: Critic,
        marginal: OnePointLaw | None,
        spectra: Summaries | None,
        *,
        tail: bool,
    ) -> None:
        super().__init__()
        self.space, self.critic, self.tail = space, critic, tail
        # Fitted parts of the emulator, not trained here: kept out of the critic's own state.
        self.fitted = (marginal, spectra)

    def forward(self, y: Tensor, params: Tensor) -> Tensor:
        """Scores ``(B,)`` of ``(B, C, *shape)`` fields at ``(B, P)`` physical parameters."""
        marginal, spectra = self.fitted
        linear = y if marginal is None else linear_view(marginal, y, params)
        # Peaks that the normal score compresses stand out here, bounded (ExaGAN's multi-channel rescaling).
        views = torch.cat([y, torch.tanh(linear / 5)], 1) if self.tail else y
        extra = None if spectra is None else spectra.spectra(y, linear)
        return self.critic(views, self.space.normalise(params), extra)


def field_critic(
    grid: Grid,
    space: ParameterSpace,
    marginal: OnePointLaw,
    spectra: Summaries | None,
    arguments: Mapping[str, Any],
    norm: Literal["batch", "spectral", "none"] = "none",
) -> FieldCritic:
    """A fresh critic of normal scores, of the ``critic_`` arguments of an emulator."""
    a = arguments
    extra = 0 if spectra is None else spectra.n_spectra
    padding = "circular" if grid.periodic else "zeros"
    critic = Critic(
        grid.shape, len(space), 1 + a["critic_tail"], a["critic_channels"], a["critic_kernel"], norm, padding,
        extra, hidden=64 if extra else 0,
    )  # fmt: skip
    return FieldCritic(space, critic, marginal, spectra, tail=a["critic_tail"])


def views(marginal: OnePointLaw, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """A field of scores, and the same in linear space."""
    return y, linear_view(marginal, y, params)


def linear_view(marginal: OnePointLaw, y: Tensor, params: Tensor) -> Tensor:
    """The physical field in units of its own one-sigma scale at the parameters."""
    scale = marginal.scale(params)
    return marginal(y, params) / scale.reshape(-1, *(1,) * (y.ndim - 1))


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Pairs of tensors joined along the batch."""
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)
