"""n-D encoder and decoder of residual blocks between folded cells, which start at a transform of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from gen.errors import InputError
from gen.nets.layers import Padding, ResidualBlock, conv, folded, to_channels, unfolded


class BlockTransform(nn.Module):
    """The longest waves of each block of ``factor^dim`` cells, in units of their scatter.

    The basis is orthonormal: products of discrete cosine transforms (DCT-II), from the block's mean on. With
    as many channels as a block has cells nothing is lost; with fewer, ``inverse`` is that of least squares.

    Args:
        dim: 2 or 3.
        factor: cells along the side of a block.
        channels: waves that are kept.

    Raises:
        InputError: for more channels than cells.
    """

    basis: Tensor
    scale: Tensor

    def __init__(self, dim: int, factor: int, channels: int) -> None:
        super().__init__()
        if not 1 <= channels <= factor**dim:
            raise InputError(
                f"a block of {factor}^{dim} cells has 1 to {factor**dim} channels, got {channels}; take "
                "fewer, or larger blocks by another width"
            )
        self.factor = factor
        self.register_buffer("basis", cosine_basis(dim, factor)[:channels].float(), persistent=False)
        self.register_buffer("scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Measure the scatter of each channel in fields ``(B, 1, *shape)``; 0.001 of the largest at least."""
        waves = self(x) * to_channels(self.scale[None], x)
        scatter = waves.double().square().mean((0, *range(2, waves.ndim))).sqrt()
        self.scale.copy_(scatter.clamp(min=1e-3 * float(scatter.max())))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, *(shape / factor))`` of fields ``(B, 1, *shape)``."""
        with torch.autocast(x.device.type, enabled=False):
            waves = torch.einsum("cn,bn...->bc...", self.basis, folded(x.float(), self.factor))
            return waves / to_channels(self.scale[None], waves)

    def inverse(self, z: Tensor) -> Tensor:
        """``(B, 1, *shape)``."""
        return self._waves(z.float() * to_channels(self.scale[None], z))

    def adjoint(self, z: Tensor) -> Tensor:
        """The transform's transpose, ``(B, 1, *shape)``."""
        return self._waves(z.float() / to_channels(self.scale[None], z))

    def _waves(self, strength: Tensor) -> Tensor:
        with torch.autocast(strength.device.type, enabled=False):
            return unfolded(torch.einsum("cn,bc...->bn...", self.basis, strength), self.factor)


def cosine_basis(dim: int, n: int) -> Tensor:
    """Orthonormal waves of a block as rows ``(n^dim, n^dim)``, the longest first, float64."""
    cell = torch.arange(n, dtype=torch.float64) + 0.5
    wave = torch.arange(n, dtype=torch.float64)
    line = (math.pi / n * wave[:, None] * cell).cos() * math.sqrt(2 / n)
    line[0] = 1 / math.sqrt(n)
    rows = sorted(product(range(n), repeat=dim), key=lambda ks: (sum(k * k for k in ks), ks[::-1]))
    basis = []
    for ks in rows:
        block = torch.ones((), dtype=torch.float64)
        for k in ks:
            block = block[..., None] * line[k]
        basis.append(block.flatten())
    return torch.stack(basis)


class Encoder(nn.Module):
    """From cells to channels of blocks of ``2^levels`` cells a side; zero at the start.

    At each resolution a residual block, then 2^dim cells become channels (as in a space-to-channel
    autoencoder; Chen et al. 2024, arXiv:2410.10733). It is convolutions only, so it takes any number of
    blocks, and with circular padding it commutes with shifts by a block.

    Args:
        dim: 2 or 3.
        n_in, n_out: channels in and out.
        n_params: conditioning parameters, expected in [-1, 1].
        widths: channels at each resolution, finest first; one more than ``levels``.
        padding: ``"circular"`` on periodic grids.
    """

    def __init__(
        self, dim: int, n_in: int, n_out: int, n_params: int, widths: Sequence[int], padding: Padding
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.enter = conv(dim, n_in, widths[0], padding=padding)
        self.blocks = nn.ModuleList([ResidualBlock(dim, a, a, n_params, padding) for a in widths])
        self.fold = nn.ModuleList([conv(dim, 2**dim * a, b, kernel=1) for a, b in pairs])
        self.leave = _zero(conv(dim, widths[-1], n_out, padding=padding))
        _ordered(self, dim)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """``(B, n_out, *(shape / 2^levels))`` of ``(B, n_in, *shape)``."""
        x = self.blocks[0](self.enter(x), params)
        for fold, block in zip(self.fold, self.blocks[1:], strict=True):
            x = block(fold(folded(x, 2)), params)
        return self.leave(x)


class Decoder(nn.Module):
    """The way back of ``Encoder``, of the same arguments; zero at the start."""

    def __init__(
        self, dim: int, n_in: int, n_out: int, n_params: int, widths: Sequence[int], padding: Padding
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))[::-1]
        self.enter = conv(dim, n_in, widths[-1], padding=padding)
        self.blocks = nn.ModuleList([ResidualBlock(dim, a, a, n_params, padding) for a in widths[::-1]])
        self.unfold = nn.ModuleList([conv(dim, b, 2**dim * a, kernel=1) for a, b in pairs])
        self.leave = _zero(conv(dim, widths[0], n_out, padding=padding))
        _ordered(self, dim)

    def forward(self, z: Tensor, params: Tensor) -> Tensor:
        """``(B, n_out, *shape)`` of ``(B, n_in, *(shape / 2^levels))``."""
        x = self.blocks[0](self.enter(z), params)
        for unfold, block in zip(self.unfold, self.blocks[1:], strict=True):
            x = block(unfolded(unfold(x), 2), params)
        return self.leave(x)


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def _ordered(module: nn.Module, dim: int) -> None:
    """The order in memory that 3D convolutions are fastest in."""
    if dim == 3:
        module.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
