"""The only place that knows how many axes a field has: convolutions, pooling, modulation by parameters."""

from __future__ import annotations

from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gen.nets.periodic import wrap_pad

Padding = Literal["circular", "zeros"]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_AVERAGE = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}
_MAXIMUM = {2: functional.max_pool2d, 3: functional.max_pool3d}


class _PeriodicConv3d(nn.Conv3d):
    """The same as torch's, with a faster backward pass; see ``gen.nets.periodic``."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded = wrap_pad(input, (self.kernel_size[0] - 1) // 2)
        return functional.conv3d(padded, weight, bias, self.stride)


def conv(
    dim: int, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, padding: Padding = "circular"
) -> nn.Module:
    """An n-D convolution that keeps the size (divided by ``stride``); an even kernel needs an even stride."""
    width = (kernel - 1) // 2
    if dim == 3 and padding == "circular":
        return _PeriodicConv3d(n_in, n_out, kernel, stride, width, padding_mode=padding)
    return _CONV[dim](n_in, n_out, kernel, stride, width, padding_mode=padding)


def transposed_conv(dim: int, n_in: int, n_out: int, kernel: int = 5) -> nn.Module:
    """An n-D transposed convolution that doubles the size; zero padding only, as torch has no other."""
    return _TRANSPOSED[dim](n_in, n_out, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2)


def batch_norm(dim: int, n: int) -> nn.Module:
    """Batch normalisation of epsilon 1e-5 and momentum 0.1 (a TensorFlow decay of 0.9)."""
    return _BATCH_NORM[dim](n, eps=1e-5, momentum=0.1)


def average_pool(x: Tensor) -> Tensor:
    """Means over 2^dim cells."""
    return _AVERAGE[x.ndim - 2](x, 2)


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling, exactly shift-equivariant."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def coarsen_noise(noise: Tensor) -> Tensor:
    """White noise of unit variance on half the cells: means over 2^dim cells, of unit variance again."""
    return average_pool(noise) * 2 ** ((noise.ndim - 2) / 2)


def folded(x: Tensor, n: int) -> Tensor:
    """Cells in blocks of n along each axis as channels, ``(B, C n^dim, *(shape / n))``."""
    if n == 1:
        return x
    dim = x.ndim - 2
    split = x.reshape(*x.shape[:2], *(m for size in x.shape[2:] for m in (size // n, n)))
    inner = [3 + 2 * axis for axis in range(dim)]
    outer = [2 + 2 * axis for axis in range(dim)]
    return split.permute(0, 1, *inner, *outer).flatten(1, 1 + dim)


def unfolded(x: Tensor, n: int) -> Tensor:
    """The inverse of ``folded``."""
    if n == 1:
        return x
    dim = x.ndim - 2
    split = x.reshape(len(x), -1, *(n,) * dim, *x.shape[2:])
    order = [m for axis in range(dim) for m in (2 + dim + axis, 2 + axis)]
    return split.permute(0, 1, *order).reshape(len(x), -1, *(n * size for size in x.shape[2:]))


def linear_upsample(x: Tensor, factor: int, padding: Padding) -> Tensor:
    """Multilinear interpolation to the centres of ``factor`` times as many cells along each axis.

    Across the faces by periodicity if ``padding`` is circular, else constant beyond the outermost centres.
    """
    dim = x.ndim - 2
    mode = "circular" if padding == "circular" else "replicate"
    padded = functional.pad(x, (1, 1) * dim, mode=mode)
    fine = functional.interpolate(padded, scale_factor=float(factor), mode=_LINEAR[dim], align_corners=False)
    return fine[(..., *(slice(factor, -factor),) * dim)]


def local_maximum(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Maximum over pairs of neighbours along the given field axes (0 to dim-1), without padding."""
    return _largest(x, [2 if axis in axes else 1 for axis in range(x.ndim - 2)])


def near_maximum(x: Tensor) -> Tensor:
    """Maximum over each interior cell and all its neighbours, two cells smaller along every axis."""
    return _largest(x, [3] * (x.ndim - 2))


def _largest(x: Tensor, window: list[int]) -> Tensor:
    """Maximum over a window of cells, without padding; without gradients twenty times as fast, by axes."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _MAXIMUM[x.ndim - 2](x, window, stride=1)
    for axis, n in enumerate(window, start=2):
        cells = x.shape[axis] - n + 1
        shifted = [x.narrow(axis, i, cells) for i in range(n)]
        x = reduce(torch.maximum, shifted)
    return x


def to_channels(x: Tensor, like: Tensor) -> Tensor:
    """``(B, C)`` shaped to broadcast over the axes of ``like``."""
    return x.reshape(*x.shape, *(1,) * (like.ndim - 2))


class Modulation(nn.Module):
    """Scale and shift of every channel by the parameters, the identity at the start (FiLM).

    Perez et al. 2018, arXiv:1709.07871.
    """

    def __init__(self, n_params: int, n_channels: int, width: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(n_params, width), nn.SiLU(), nn.Linear(width, 2 * n_channels))
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        scale, shift = self.mlp(params).chunk(2, dim=1)
        return x * (1 + to_channels(scale, x)) + to_channels(shift, x)


class NoiseInjection(nn.Module):
    """Adds a field of noise to every channel, each with an amplitude that is learnt and starts at zero.

    Karras et al. 2019, arXiv:1812.04948.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.zeros(1, n_channels))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """``noise (B, 1, *shape)`` on the grid of ``x``."""
        return x + to_channels(self.amplitude, x) * noise


class ResidualBlock(nn.Module):
    """Two convolutions around a skip, modulated by the parameters, and perhaps fed noise, between them."""

    def __init__(
        self, dim: int, n_in: int, n_out: int, n_params: int, padding: Padding, *, noise: bool = False
    ) -> None:
        super().__init__()
        self.first = conv(dim, n_in, n_out, padding=padding)
        self.noise = NoiseInjection(n_out) if noise else None
        self.modulation = Modulation(n_params, n_out) if n_params else None
        self.second = conv(dim, n_out, n_out, padding=padding)
        self.skip = nn.Identity() if n_in == n_out else conv(dim, n_in, n_out, kernel=1)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, params: Tensor, noise: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.noise is not None and noise is not None:
            hidden = self.noise(hidden, noise)
        if self.modulation is not None:
            hidden = self.modulation(hidden, params)
        return self.skip(x) + self.second(self.activation(hidden))


def initialise_normal(module: nn.Module, std: float = 0.02) -> None:
    """Convolution and linear weights from N(0, std), biases 0 (Radford et al. 2015, arXiv:1511.06434)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
