"""A small n-D U-Net, modulated by parameters, that starts at zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gen.errors import InputError
from gen.nets.layers import (
    Padding,
    ResidualBlock,
    average_pool,
    coarsen_noise,
    conv,
    folded,
    unfolded,
    upsample,
)


class UNet(nn.Module):
    """Field-to-field network of ``levels`` resolutions; its last convolution starts at zero.

    Args:
        dim: 2 or 3.
        n_in, n_out: channels in and out.
        n_params: conditioning parameters, expected in [-1, 1].
        widths: channels at each resolution, finest first. The sides must divide by ``2^(len(widths)-1)``.
        padding: ``"circular"`` on periodic grids.
        noise: take white noise at every resolution, see ``NoiseInjection``.
        patch: cells along an axis that the network takes together, as channels: it is then several times as
            fast, and of the coarser grid it sees all the cells. Takes no noise.
    """

    def __init__(
        self,
        dim: int,
        n_in: int,
        n_out: int,
        n_params: int,
        widths: Sequence[int] = (24, 48, 96),
        padding: Padding = "circular",
        *,
        noise: bool = False,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if noise and patch > 1:
            raise InputError(f"a network of patches of {patch} takes no noise at every resolution")
        self.factor, self.patch = patch * 2 ** (len(widths) - 1), patch
        cells = patch**dim

        def block(n_in: int, n_out: int) -> ResidualBlock:
            return ResidualBlock(dim, n_in, n_out, n_params, padding, noise=noise)

        self.enter = conv(dim, cells * n_in, widths[0], padding=padding)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([block(a, a) for a, _ in pairs])
        self.widen = nn.ModuleList([conv(dim, a, b, kernel=1) for a, b in pairs])
        self.middle = block(widths[-1], widths[-1])
        self.narrow = nn.ModuleList([conv(dim, b, a, kernel=1) for a, b in pairs])
        self.up = nn.ModuleList([block(2 * a, a) for a, _ in pairs])
        self.leave = conv(dim, widths[0], cells * n_out, padding=padding)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)
        if dim == 3:  # the order that convolutions are fastest in; outputs inherit it
            self.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]

    @property
    def halo(self) -> int:
        """How many cells beyond its faces, along any axis, a block of cells hears.

        The block's faces lie at multiples of ``factor``; a cell in its midst hears less far.
        """
        block = 2  # two convolutions of three cells
        cell = 0 - 1 - block  # the lowest cell heard, from the last convolution backwards
        for _ in self.down:
            cell = cell // 2 - block
        for _ in self.down:
            cell = 2 * cell - block
        return -(cell - 1) * self.patch

    def forward(self, x: Tensor, params: Tensor, noise: Tensor | None = None) -> Tensor:
        """``(B, n_out, *shape)`` of ``(B, n_in, *shape)``.

        Args:
            noise: white noise of unit variance ``(B, len(widths), *shape)``, one channel a resolution,
                brought there by means over its cells; if the network takes any.
        """
        level = self._noise_of_levels(noise)
        x = self.enter(folded(x, self.patch))
        skips = []
        for i, (block, widen) in enumerate(zip(self.down, self.widen, strict=True)):
            x = block(x, params, level[i])
            skips.append(x)
            x = widen(average_pool(x))
        x = self.middle(x, params, level[-1])
        ascent = list(enumerate(zip(self.up, self.narrow, skips, strict=True)))
        for i, (block, narrow, skip) in reversed(ascent):
            x = block(torch.cat([upsample(narrow(x)), skip], 1), params, level[i])
        return unfolded(self.leave(x), self.patch)

    def _noise_of_levels(self, noise: Tensor | None) -> list[Tensor | None]:
        """Each resolution's own channel, on its own grid."""
        n = len(self.down) + 1
        if noise is None:
            return [None] * n
        levels: list[Tensor | None] = []
        for i in range(n):
            levels.append(noise[:, i : i + 1])
            noise = coarsen_noise(noise) if i < n - 1 else noise
        return levels
