"""The only place that knows how many axes a field has: convolutions, pooling, modulation by parameters."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Padding = Literal["circular", "zeros"]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_AVERAGE = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
_MAXIMUM = {2: functional.max_pool2d, 3: functional.max_pool3d}


def conv(
    dim: int, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, padding: Padding = "circular"
) -> nn.Module:
    """An n-D convolution that keeps the size (divided by ``stride``)."""
    return _CONV[dim](n_in, n_out, kernel, stride, kernel // 2, padding_mode=padding)


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


def local_maximum(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Maximum over pairs of neighbours along the given field axes (0 to dim-1), without padding."""
    window = [2 if axis in axes else 1 for axis in range(x.ndim - 2)]
    return _MAXIMUM[x.ndim - 2](x, window, stride=1)


def near_maximum(x: Tensor) -> Tensor:
    """Maximum over each interior cell and all its neighbours, two cells smaller along every axis."""
    return _MAXIMUM[x.ndim - 2](x, 3, stride=1)


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


class ResidualBlock(nn.Module):
    """Two convolutions around a skip, modulated by the parameters between them."""

    def __init__(self, dim: int, n_in: int, n_out: int, n_params: int, padding: Padding) -> None:
        super().__init__()
        self.first = conv(dim, n_in, n_out, padding=padding)
        self.modulation = Modulation(n_params, n_out) if n_params else None
        self.second = conv(dim, n_out, n_out, padding=padding)
        self.skip = nn.Identity() if n_in == n_out else conv(dim, n_in, n_out, kernel=1)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        hidden = self.first(x)
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
