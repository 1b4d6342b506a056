"""The convolutional generator and critic of the DCGAN family, in 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gen.errors import InputError
from gen.nets.layers import (
    Modulation,
    Padding,
    batch_norm,
    conv,
    initialise_normal,
    transposed_conv,
    upsample,
)


class DCGANGenerator(nn.Module):
    """A vector to a field: a linear layer to a coarse grid, then one doubling per stage.

    Radford, Metz & Chintala 2015 (arXiv:1511.06434); with ``channels=(512, 256, 128, 64)``, kernel 5,
    transposed convolutions and tanh it is the generator of CosmoGAN (Mustafa et al. 2019, arXiv:1706.02390);
    with kernel 4 and two ``blocks``, that of HIGAN (Zamudio-Fernandez et al. 2019, arXiv:1904.12846).

    Args:
        shape: cells of the field; each side must divide by ``2^len(channels)``.
        upsampling: ``"transposed"`` as published, or ``"nearest"`` followed by a convolution, which is
            exactly equivariant on periodic grids.
        output: ``"tanh"`` as published, or ``"linear"``.
        blocks: convolutions of three cells, normalised, before the last doubling.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent_size: int,
        n_params: int,
        channels: Sequence[int] = (512, 256, 128, 64),
        kernel: int = 5,
        upsampling: Literal["transposed", "nearest"] = "transposed",
        output: Literal["tanh", "linear"] = "tanh",
        padding: Padding = "zeros",
        n_out: int = 1,
        blocks: int = 0,
    ) -> None:
        super().__init__()
        dim, factor = len(shape), 2 ** len(channels)
        if any(n % factor for n in shape):
            raise InputError(
                f"sides must divide by {factor} for {len(channels)} doublings, got {tuple(shape)}; "
                f"change the grid or the number of channels"
            )
        self.coarse = tuple(n // factor for n in shape)
        self.channels = tuple(channels)
        self.seed = nn.Linear(latent_size, channels[0] * math.prod(self.coarse))
        self.norms = nn.ModuleList([batch_norm(dim, n) for n in channels])
        self.modulations = nn.ModuleList([Modulation(n_params, n) for n in channels] if n_params else [])
        last = channels[-1]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv(dim, last, last, 3, padding=padding), batch_norm(dim, last))
            for _ in range(blocks)
        )
        outs = [*channels[1:], n_out]
        make = (
            transposed_conv
            if upsampling == "transposed"
            else lambda d, a, b, k: conv(d, a, b, k, padding=padding)
        )
        self.stages = nn.ModuleList([make(dim, a, b, kernel) for a, b in zip(channels, outs, strict=True)])
        self.nearest = upsampling == "nearest"
        self.last = nn.Tanh() if output == "tanh" else nn.Identity()
        initialise_normal(self.stages)
        initialise_normal(self.blocks)
        initialise_normal(self.seed)

    def forward(self, z: Tensor, params: Tensor) -> Tensor:
        x = self.seed(z).reshape(len(z), self.channels[0], *self.coarse)
        for i, (norm, stage) in enumerate(zip(self.norms, self.stages, strict=True)):
            x = norm(x)
            if i == len(self.stages) - 1:
                for block in self.blocks:
                    x = block(x)
            if len(self.modulations):
                x = self.modulations[i](x, params)
            x = torch.relu(x)
            x = stage(upsample(x) if self.nearest else x)
        return self.last(x)


class Critic(nn.Module):
    """A field to one unbounded score: strided convolutions, then a linear layer.

    It judges a field beside its parameters, which modulate every stage and stand beside the dense
    features; ``extra`` further numbers per field (a power spectrum, say) may be given to the last layers.

    Args:
        channels: of the stages, each of which halves the sides.
        norm: ``"batch"`` as in DCGAN (never with a gradient penalty), ``"spectral"``
            (Miyato et al. 2018, arXiv:1802.05957) or ``"none"``.
        blocks: convolutions of three cells behind the first stage, as HIGAN has two.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_params: int,
        n_in: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        kernel: int = 5,
        norm: Literal["batch", "spectral", "none"] = "none",
        padding: Padding = "zeros",
        extra: int = 0,
        hidden: int = 0,
        blocks: int = 0,
    ) -> None:
        super().__init__()
        dim, factor = len(shape), 2 ** len(channels)
        if any(n % factor for n in shape):
            raise InputError(
                f"sides must divide by {factor} for {len(channels)} halvings, got {tuple(shape)}"
            )
        ins = [n_in, *channels[:-1]]
        wrap = spectral_norm if norm == "spectral" else lambda module: module
        self.stages = nn.ModuleList(
            [conv(dim, a, b, kernel, stride=2, padding=padding) for a, b in zip(ins, channels, strict=True)]
        )
        self.norms = nn.ModuleList(
            [batch_norm(dim, n) if norm == "batch" and i else nn.Identity() for i, n in enumerate(channels)]
        )
        self.modulations = nn.ModuleList([Modulation(n_params, n) for n in channels] if n_params else [])
        self.activation = nn.LeakyReLU(0.2)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(dim, channels[0], channels[0], 3, padding=padding), self.activation)
            for _ in range(blocks)
        )
        n_features = channels[-1] * math.prod(n // factor for n in shape) + n_params + extra
        self.head: nn.Module = nn.Linear(n_features, 1)
        if hidden:
            self.head = nn.Sequential(nn.Linear(n_features, hidden), self.activation, nn.Linear(hidden, 1))
        initialise_normal(self.stages)
        initialise_normal(self.blocks)
        if norm == "spectral":
            self.stages = nn.ModuleList([wrap(stage) for stage in self.stages])
            for block in self.blocks:
                block[0] = wrap(block[0])  # pyright: ignore[reportIndexIssue]

    def forward(self, x: Tensor, params: Tensor, extra: Tensor | None = None) -> Tensor:
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = norm(stage(x))
            if len(self.modulations):
                x = self.modulations[i](x, params)
            x = self.activation(x)
            if i == 0:
                for block in self.blocks:
                    x = block(x)
        features = [x.flatten(1), params] + ([] if extra is None else [extra])
        return self.head(torch.cat(features, 1)).squeeze(1)
