"""The law of an autoencoder's latents to second order: mean, scatter, and power of and between channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gen.emulators.copula import taper
from gen.emulators.torus import times
from gen.fields import Grid
from gen.nets.layers import to_channels

LEAST = 1e-9
"""Smallest power of a mixture of channels at a wave, over the largest of all."""


class LatentLaw(nn.Module):
    r"""Standardised latents as a stationary Gaussian field of C channels.

    At each wave the channels have a matrix of cross-power P(k), of which the diagonal is the power of each.
    Fields are ``g(k) = P(k)^(1/2) w(k)`` of white noise w, each channel of unit variance. Waves of a field
    that is folded into channels lie in several of them, so that without the cross-power a field of the
    latents' law would not have that of the field. On a grid that is not periodic the law is that of lags, as
    ``Copula`` measures them, and fields are cut out of a torus of twice the side.

    Args:
        grid: of the latents.
        channels: C.
    """

    mean: Tensor
    scale: Tensor
    root: Tensor

    def __init__(self, grid: Grid, channels: int) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        torus = self.torus(grid.shape)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        #: P^(1/2) with its imaginary part, (C, C, *half lattice of the torus, 2); white at first.
        self.register_buffer("root", torch.zeros(channels, channels, *_half(torus), 2))
        self.root[range(channels), range(channels), ..., 0] = 1

    def torus(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Cells of the torus that latents of ``shape`` are cut out of."""
        more = (0,) * len(shape) if self.grid.periodic else self.grid.shape
        return tuple(n + m for n, m in zip(shape, more, strict=True))

    @property
    def power(self) -> Tensor:
        """Of each standardised channel on the torus' half lattice, ``(C, *half)``; its mean is 1."""
        return self.root.square().sum((1, -1))

    def coloured(self, y: Tensor, *, inverse: bool = False) -> Tensor:
        """Each wave of each channel ``(B, C, *shape)`` times the root of its power, or over it."""

        def amplitude(lattice: Sequence[int]) -> Tensor:
            power = self._root_on(lattice).abs().square().sum(1)
            for axis in range(1, power.ndim - 1):  # cosines know no direction
                power = (power + power.flip(axis).roll(1, axis)) / 2
            root = power.clamp(min=LEAST * float(power.max())).sqrt()[None]
            return 1 / root if inverse else root

        return times(self.grid, y, amplitude)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Measure it from latents ``(N, C, *grid.shape)`` of the training set."""
        axes = (0, *range(2, latents.ndim))
        z = latents.double()
        self.mean.copy_(z.mean(axes))
        self.scale.copy_(z.std(axes).clamp(min=1e-12))
        torus = self.torus(self.grid.shape)
        lags = _lags(self.standardised(latents), torus)
        if not self.grid.periodic:
            lags = lags * taper(self.grid).to(lags)
        self.root.copy_(torch.view_as_real(_root(lags)))

    def standardised(self, latents: Tensor) -> Tensor:
        """Of mean 0 and variance 1 in each channel."""
        return (latents - to_channels(self.mean[None], latents)) / to_channels(self.scale[None], latents)

    def restored(self, y: Tensor) -> Tensor:
        """The inverse of ``standardised``."""
        return y * to_channels(self.scale[None], y) + to_channels(self.mean[None], y)

    def gaussian(self, white: Tensor, shape: Sequence[int]) -> Tensor:
        """g ``(B, C, *shape)`` of white noise on its torus, as rows ``(B, N)``."""
        torus = self.torus(shape)
        modes = torch.fft.rfftn(white.reshape(len(white), self.channels, *torus), s=torus)
        g = torch.fft.irfftn(torch.einsum("cd...,bd...->bc...", self._root_on(torus), modes), s=torus)
        return g[(..., *(slice(0, n) for n in shape))]

    def covariance(self, y: Tensor) -> Tensor:
        """The covariance of ``gaussian`` times fields ``(B, C, *shape)``."""
        shape = y.shape[2:]
        torus = self.torus(shape)
        root = self._root_on(torus)
        modes = torch.fft.rfftn(y, s=torus, dim=tuple(range(2, y.ndim)))
        for factor in (root.conj().transpose(0, 1), root):
            modes = torch.einsum("cd...,bd...->bc...", factor, modes)
        whole = torch.fft.irfftn(modes, s=torus, dim=tuple(range(2, y.ndim)))
        return whole[(..., *(slice(0, n) for n in shape))]

    def _root_on(self, torus: Sequence[int]) -> Tensor:
        """P^(1/2) ``(C, C, *half)``, complex; on another torus, that of the same lags."""
        root, own = torch.view_as_complex(self.root), self.torus(self.grid.shape)
        if tuple(torus) == own:
            return root
        power = torch.einsum("cd...,ed...->ce...", root, root.conj()).to(torch.complex128)
        lags = torch.fft.irfftn(power, s=own, dim=tuple(range(2, power.ndim)))
        for axis, n in enumerate(torus, start=2):
            lags = _resized(lags, axis, n)
        return _root(lags).to(root)


def _half(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2 + 1)


def _lags(y: Tensor, torus: Sequence[int]) -> Tensor:
    """Unbiased ``<y_c(x + r) y_d(x)>`` at the lags r of a torus, ``(C, C, *torus)``, float64."""
    axes, shape = tuple(range(2, y.ndim)), y.shape[2:]
    channels = y.shape[1]
    total = torch.zeros(channels, channels, *_half(torus), dtype=torch.complex128, device=y.device)
    for part in y.split(64):
        modes = torch.fft.rfftn(part.double(), s=tuple(torus), dim=axes)
        total += torch.einsum("nc...,nd...->cd...", modes, modes.conj())
    seen = torch.fft.rfftn(torch.ones(tuple(shape), dtype=torch.float64), s=tuple(torus)).abs().square()
    pairs = torch.fft.irfftn(seen, s=tuple(torus)).round().clamp(min=1).to(y.device)
    return torch.fft.irfftn(total / len(y), s=tuple(torus), dim=axes) / pairs


def _root(lags: Tensor) -> Tensor:
    """Hermitian roots of the power of lags ``(C, C, *torus)``, scaled to unit variance of each channel."""
    shape = lags.shape[2:]
    power = torch.fft.rfftn(lags, dim=tuple(range(2, lags.ndim))).movedim((0, 1), (-2, -1))
    values, vectors = torch.linalg.eigh((power + power.mH) / 2)
    values = values.clamp(min=LEAST * float(values.max()))
    root = (vectors * values.sqrt()[..., None, :]) @ vectors.mH
    own = root.abs().square().sum(-1).movedim(-1, 0)
    members = torch.full((own.shape[-1],), 2.0, dtype=own.dtype, device=own.device)
    members[0] = 1
    if shape[-1] % 2 == 0:
        members[-1] = 1
    variance = (own * members).flatten(1).sum(1) / shape.numel()
    return (root / variance.sqrt()[:, None]).movedim((-2, -1), (0, 1)).to(torch.complex64)


def _resized(lags: Tensor, axis: int, n: int) -> Tensor:
    """Lags of a torus of n cells along an axis: further ones are 0, or left out."""
    have = lags.shape[axis]
    if have == n:
        return lags
    near = min(have, n)
    ahead, behind = (near + 1) // 2, near // 2
    gap = list(lags.shape)
    gap[axis] = n - ahead - behind
    parts = [lags.narrow(axis, 0, ahead), lags.new_zeros(gap)]
    return torch.cat([*parts, lags.narrow(axis, have - behind, behind)], axis)
