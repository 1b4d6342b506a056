"""A small n-D U-Net, modulated by parameters, that starts at zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gen.nets.layers import Padding, ResidualBlock, average_pool, conv, upsample


class UNet(nn.Module):
    """Field-to-field network of ``levels`` resolutions; its last convolution starts at zero.

    Args:
        dim: 2 or 3.
        n_in, n_out: channels in and out.
        n_params: conditioning parameters, expected in [-1, 1].
        widths: channels at each resolution, finest first. The sides must divide by ``2^(len(widths)-1)``.
        padding: ``"circular"`` on periodic grids.
    """

    def __init__(
        self,
        dim: int,
        n_in: int,
        n_out: int,
        n_params: int,
        widths: Sequence[int] = (24, 48, 96),
        padding: Padding = "circular",
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        self.enter = conv(dim, n_in, widths[0], padding=padding)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([ResidualBlock(dim, a, a, n_params, padding) for a, _ in pairs])
        self.widen = nn.ModuleList([conv(dim, a, b, kernel=1) for a, b in pairs])
        self.middle = ResidualBlock(dim, widths[-1], widths[-1], n_params, padding)
        self.narrow = nn.ModuleList([conv(dim, b, a, kernel=1) for a, b in pairs])
        self.up = nn.ModuleList([ResidualBlock(dim, 2 * a, a, n_params, padding) for a, _ in pairs])
        self.leave = conv(dim, widths[0], n_out, padding=padding)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        x = self.enter(x)
        skips = []
        for block, widen in zip(self.down, self.widen, strict=True):
            x = block(x, params)
            skips.append(x)
            x = widen(average_pool(x))
        x = self.middle(x, params)
        for block, narrow, skip in reversed(list(zip(self.up, self.narrow, skips, strict=True))):
            x = block(torch.cat([upsample(narrow(x)), skip], 1), params)
        return self.leave(x)
