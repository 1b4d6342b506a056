"""How probable fields are under a diffusion emulator, in their own units."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gen.diffusion.gaussian_noise import MatrixNoise, Noise, WaveNoise
from gen.diffusion.levels import Levels
from gen.diffusion.likelihood import Evidence, flow_log_likelihood, variational_bound
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.errors import InputError

CELLS = 10_000
"""Of an open field at most: its noise has a covariance matrix and no spectrum."""

Law = Callable[[Tensor, Tensor, Noise], Evidence]
"""Of y, params and the law of g."""


def log_likelihood(
    emulator: CopulaDiffusion,
    values: Tensor,
    params: Tensor,
    levels: Levels | None = None,
    probes: int | None = 4,
    seed: int = 0,
) -> Evidence:
    """ln p(values | params) [nats] of each field, by the flow that the emulator samples with.

    The density is with respect to the values in their unit; that of several observations is the sum. See
    ``gen.diffusion.likelihood.flow_log_likelihood`` for its errors and its arguments.

    Args:
        values: ``(B, 1, *grid.shape)``, physical units.
        params: ``(B, P)``.
        levels: the emulator's ladder by default.

    Raises:
        InputError: for fields on another grid, and for open ones of more than 10^4 cells.
    """
    levels = levels or emulator.ladder
    return _summed(
        emulator,
        values,
        params,
        lambda y, theta, noise: flow_log_likelihood(
            lambda x, sigma: emulator.denoised(x, sigma, theta), y, levels, noise, 1.0, probes, seed
        ),
    )


def likelihood_bound(
    emulator: CopulaDiffusion,
    values: Tensor,
    params: Tensor,
    levels: Levels | None = None,
    draws: int = 4,
    seed: int = 0,
) -> Evidence:
    """A lower bound on ``log_likelihood`` [nats], by the denoiser's errors alone.

    That of the copula, a network which has learned nothing, is the copula's density without error, so that
    the difference of two emulators' bounds says what the network has learned. See
    ``gen.diffusion.likelihood.variational_bound``.

    Raises:
        InputError: as ``log_likelihood``.
    """
    levels = levels or emulator.ladder
    return _summed(
        emulator,
        values,
        params,
        lambda y, theta, noise: variational_bound(
            lambda x, sigma: emulator.denoised(x, sigma, theta), y, levels, noise, 1.0, draws, seed
        ),
    )


def _summed(emulator: CopulaDiffusion, values: Tensor, params: Tensor, law: Law) -> Evidence:
    """The law of y at the values, and the change of units."""
    if emulator.needs_coarse:
        raise InputError(
            f"the density of fields given others is not known to {type(emulator).__name__}; give a "
            "CopulaDiffusion"
        )
    if values.shape[1:] != (1, *emulator.grid.shape):
        raise InputError(
            f"the density is that of fields of 1 channel and {emulator.grid.shape} cells, got "
            f"{tuple(values.shape[1:])}"
        )
    with torch.enable_grad():
        x = values.detach().clone().requires_grad_()
        scores = emulator.mended(x, params)
        (slope,) = torch.autograd.grad(scores.sum(), x)
    y, change = emulator.to_working(values, params), slope.double().log().flatten(1).sum(1)
    if emulator.filter is not None:
        change = change - emulator.filter.log_determinant(values.shape[2:], params)
    together = emulator.grid.periodic
    parts = [slice(None)] if together else [slice(i, i + 1) for i in range(len(y))]
    found = [law(y[part], params[part], noise_of(emulator, params[part])) for part in parts]
    nats, error = (torch.cat(column) for column in zip(*found, strict=True))
    return Evidence(nats + change, error)


def noise_of(emulator: CopulaDiffusion, params: Tensor) -> Noise:
    """The law of g at parameters ``(B, P)``; on open grids of one row.

    Raises:
        InputError: for open fields of more than 10^4 cells.
    """
    grid = emulator.grid
    if grid.periodic:
        return WaveNoise(emulator.copula.power(params)[:, None])
    n = math.prod(grid.shape)
    if n > CELLS:
        raise InputError(
            f"the density of an open field takes a matrix of all pairs of its cells, {CELLS} at most, "
            f"got {n}; cut smaller fields"
        )
    units = torch.eye(n, dtype=params.dtype, device=params.device).reshape(n, 1, *grid.shape)
    rows = [
        emulator.covariance(part, params.expand(len(part), -1)).flatten(1).double()
        for part in units.split(256)
    ]
    matrix = torch.cat(rows)
    return MatrixNoise((matrix + matrix.T) / 2 + 1e-6 * torch.eye(n, dtype=torch.float64))
