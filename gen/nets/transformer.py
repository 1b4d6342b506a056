"""A small n-D diffusion transformer, modulated by parameters, that starts at zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gen.errors import InputError
from gen.nets.layers import Padding, folded, unfolded

SLOWEST = 100.0
"""Fastest rotary frequency, half a turn a token, over about the slowest."""


class Transformer(nn.Module):
    """Field-to-field network of patches that attend to each other (Peebles & Xie 2023, arXiv:2212.09748).

    Tokens are blocks of ``patch^dim`` cells. Parameters scale, shift and gate every block (adaLN-zero), so
    all blocks start as the identity, and the output starts at zero. Attention hears positions as differences
    alone (rotary phases; Su et al. 2021, arXiv:2104.09864), so one network takes any number of cells. On
    periodic grids the frequencies are rounded to whole turns around the box: then the network commutes
    with shifts by a patch, exactly, and a distance means the same in any box to that rounding.

    Every cell hears every other: there is no halo, the cost grows with the square of the number of tokens,
    and what a network makes of a larger box than it was trained in is no more than a hope.

    Args:
        dim: 2 or 3.
        n_in, n_out: channels in and out.
        n_params: conditioning parameters, expected in [-1, 1].
        width: channels of a token.
        depth: blocks of attention and MLP.
        heads: of attention; each has ``width / heads`` channels, an even number of at least ``2 dim``.
        patch: cells of a token along an axis, by which the sides must divide.
        padding: ``"circular"`` on periodic grids.

    Raises:
        InputError: for widths and heads that do not fit.
    """

    def __init__(
        self,
        dim: int,
        n_in: int,
        n_out: int,
        n_params: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int = 4,
        padding: Padding = "circular",
    ) -> None:
        super().__init__()
        if min(width, depth, heads, patch) < 1 or width % (2 * heads) or width < 2 * dim * heads:
            raise InputError(
                f"a transformer's width must be an even multiple of its heads, {2 * dim} or more a head in "
                f"{dim}D, and all sizes positive, got width {width}, depth {depth}, heads {heads} and "
                f"patch {patch}"
            )
        self.factor, self.patch, self.periodic = patch, patch, padding == "circular"
        self.head_width, cells = width // heads, patch**dim
        self.enter = nn.Linear(cells * n_in, width)
        self.condition = _Condition(n_params, width)
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(depth)])
        self.last = _Modulated(width, 2)
        self.leave = nn.Linear(width, cells * n_out)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """``(B, n_out, *shape)`` of ``(B, n_in, *shape)`` and ``(B, n_params)``.

        Raises:
            InputError: for sides that do not divide by the patch.
        """
        shape = tuple(x.shape[2:])
        if any(n % self.patch for n in shape):
            raise InputError(
                f"sides of a field must divide by the transformer's patch of {self.patch} cells, got {shape}"
            )
        tokens = folded(x, self.patch)
        lattice = tokens.shape[2:]
        angles = _angles(lattice, self.head_width, periodic=self.periodic).to(x.device)
        turn = angles.cos().to(x), angles.sin().to(x)
        condition = self.condition(params)
        h = self.enter(tokens.flatten(2).transpose(1, 2))
        for block in self.blocks:
            h = block(h, condition, turn)
        scale, shift = self.last(condition)
        h = self.leave(_normalised(h, scale, shift))
        return unfolded(h.transpose(1, 2).unflatten(2, lattice), self.patch)


class _Condition(nn.Module):
    """``(B, width)`` of parameters ``(B, P)``; one learned row for all where there are none."""

    def __init__(self, n_params: int, width: int) -> None:
        super().__init__()
        self.constant = None if n_params else nn.Parameter(torch.randn(width))
        self.mlp = nn.Sequential(nn.Linear(n_params, width), nn.SiLU()) if n_params else None

    def forward(self, params: Tensor) -> Tensor:
        if self.mlp is None:
            assert self.constant is not None
            return self.constant.expand(len(params), -1)
        return self.mlp(params)


class _Modulated(nn.Module):
    """``n`` tables ``(B, 1, width)`` of a condition, zero at the start."""

    def __init__(self, width: int, n: int) -> None:
        super().__init__()
        self.n = n
        self.linear = nn.Linear(width, n * width)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.linear(condition)[:, None].chunk(self.n, dim=2)


class _Block(nn.Module):
    """Attention and MLP, each of normalised tokens, scaled, shifted and gated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = _Modulated(width, 6)
        self.to_attention = nn.Linear(width, 3 * width, bias=False)
        self.from_attention = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, condition: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.modulation(condition)
        h = h + gate * self._attention(_normalised(h, scale, shift), turn)
        return h + gate_mlp * self.mlp(_normalised(h, scale_mlp, shift_mlp))

    def _attention(self, h: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Of tokens ``(B, T, width)``."""
        query, key, value = self.to_attention(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = (_turned(part, turn).to(value) for part in (query, key))  # as narrow as the value
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.from_attention(mixed.transpose(1, 2).flatten(2))


def _normalised(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Every token by itself to mean 0 and variance 1, then scaled and shifted."""
    return functional.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """``(B, heads, T, width)`` with pairs of channels turned by the angles of their token, ``(T, pairs)``."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _angles(lattice: Sequence[int], head_width: int, *, periodic: bool) -> Tensor:
    """Rotary angles ``(T, head_width / 2)`` of the tokens of a lattice, float64.

    Every axis turns its share of the pairs at frequencies ``pi SLOWEST^(-j/n)`` a token; on periodic grids,
    at the nearest whole number of turns around the box, at least one. Pairs left over do not turn.
    """
    pairs, dim = head_width // 2, len(lattice)
    share = pairs // dim
    frequency = math.pi * SLOWEST ** (-torch.arange(share, dtype=torch.float64) / share)
    parts = []
    for axis, n in enumerate(lattice):
        rate = (
            (frequency * n / (2 * math.pi)).round().clamp(min=1) * 2 * math.pi / n if periodic else frequency
        )
        shape = [1] * dim
        shape[axis] = n
        place = torch.arange(n, dtype=torch.float64).reshape(shape).expand(*lattice)
        parts.append(place.flatten()[:, None] * rate)
    tokens = len(parts[0])
    return torch.cat([*parts, torch.zeros(tokens, pairs - dim * share, dtype=torch.float64)], 1)
