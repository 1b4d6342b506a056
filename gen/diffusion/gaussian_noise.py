"""The law of a diffusion's unit noise, as its likelihood needs it: draws, norm and determinant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gen.errors import InputError


class Noise(Protocol):
    """A Gaussian g of covariance C; fields are ``(B, C, *shape)``."""

    def coloured(self, white: Tensor) -> Tensor:
        """g of white noise, of the same shape."""
        ...

    def norm(self, x: Tensor) -> Tensor:
        """``(B,)`` x^T C^-1 x, float64."""
        ...

    def log_determinant(self, shape: Sequence[int]) -> Tensor:
        """ln |C| of a field ``(C, *shape)``, one for all or ``(B,)``, float64."""
        ...


class WhiteNoise:
    """C = 1."""

    def coloured(self, white: Tensor) -> Tensor:
        return white

    def norm(self, x: Tensor) -> Tensor:
        return x.double().square().flatten(1).sum(1)

    def log_determinant(self, shape: Sequence[int]) -> Tensor:
        del shape
        return torch.zeros((), dtype=torch.float64)


class WaveNoise:
    """Noise with a spectrum, on a periodic grid.

    Args:
        power: variance of a mode over that of white noise on the rfftn lattice of the field's grid, ``(...,
            n/2 + 1)`` for all fields, or ``(B, 1, ..., n/2 + 1)`` for each its own.

    Raises:
        InputError: for a power that is not positive: noise without a wave gives fields with it no density.
    """

    def __init__(self, power: Tensor) -> None:
        if not bool(((power > 0) & torch.isfinite(power)).all()):
            raise InputError(
                f"the noise's power must be positive and finite, got {float(power.min()):g} at the least; "
                "give waves that are not there a small one"
            )
        self.power = power.double()

    def coloured(self, white: Tensor) -> Tensor:
        axes, shape = tuple(range(2, white.ndim)), white.shape[2:]
        modes = torch.fft.rfftn(white, dim=axes) * self.power.sqrt().to(white)
        return torch.fft.irfftn(modes, s=shape, dim=axes)

    def norm(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfftn(x.double(), dim=tuple(range(2, x.ndim)), norm="ortho").abs().square()
        return (modes / self.power * _members(x.shape[-1]).to(x.device)).flatten(1).sum(1)

    def log_determinant(self, shape: Sequence[int]) -> Tensor:
        channels, dim = shape[0], len(shape) - 1
        logs = self.power.log() * _members(shape[-1]).to(self.power.device)
        return channels * logs.flatten(-dim).sum(-1).squeeze()


class MatrixNoise:
    """Noise of any covariance, such as an open grid's, for fields of some thousand numbers at most.

    Args:
        covariance: ``(N, N)`` of a field's numbers in order.

    Raises:
        InputError: for a matrix that is not positive definite.
    """

    def __init__(self, covariance: Tensor) -> None:
        factor, failed = torch.linalg.cholesky_ex(covariance.double())
        if bool(failed):
            raise InputError(
                f"the noise's covariance must be positive definite, got a matrix {tuple(covariance.shape)} "
                "that is not; add a small variance to its diagonal"
            )
        self.factor = factor

    def coloured(self, white: Tensor) -> Tensor:
        return (white.flatten(1) @ self.factor.to(white).T).reshape(white.shape)

    def norm(self, x: Tensor) -> Tensor:
        whitened = torch.linalg.solve_triangular(self.factor, x.double().flatten(1).T, upper=False)
        return whitened.square().sum(0)

    def log_determinant(self, shape: Sequence[int]) -> Tensor:
        del shape
        return 2 * self.factor.diagonal().log().sum()


def log_gaussian(x: Tensor, noise: Noise, variance: float) -> Tensor:
    """``(B,)`` ln of the density of a Gaussian field of covariance ``variance`` C, float64."""
    n = x[0].numel()
    constant = n * math.log(2 * math.pi * variance) + noise.log_determinant(x.shape[1:])
    return -0.5 * (constant + noise.norm(x) / variance)


def _members(n: int) -> Tensor:
    """How many modes of the full lattice each of the last axis of the half lattice stands for."""
    members = torch.full((n // 2 + 1,), 2.0, dtype=torch.float64)
    members[0] = 1
    if n % 2 == 0:
        members[-1] = 1
    return members
