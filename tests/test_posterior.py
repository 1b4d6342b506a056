"""Samples that fit an observation have the mean and the covariance of the exact Wiener posterior."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gen.diffusion.levels import Ladder
from gen.diffusion.posterior import conditioned
from gen.diffusion.solver import solve

N = 64
LADDER = Ladder(30, 0.003, 48)
POWER = 1 / (1 + (torch.fft.fftfreq(N, 1 / N, dtype=torch.float64).abs() / 4) ** 2) ** 1.5


def filtered(x: Tensor, transfer: Tensor) -> Tensor:
    return torch.fft.ifft(torch.fft.fft(x) * transfer).real


def matrix(operator: Callable[[Tensor], Tensor]) -> Tensor:
    """Columns are what the operator makes of unit vectors."""
    return operator(torch.eye(N, dtype=torch.float64)).T


MASK = torch.arange(N) % 3 == 0
OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "inpainting": lambda x: x[:, MASK],
    "denoising": lambda x: x,
    "super-resolution": lambda x: x.unflatten(1, (-1, 4)).mean(2),
    "deblurring": lambda x: filtered(x, torch.exp(-((torch.fft.fftfreq(N, 1 / N) / 6) ** 2))),
}


@pytest.mark.parametrize(("name", "coloured"), [*((name, True) for name in OPERATORS), ("inpainting", False)])
def test_samples_have_the_exact_wiener_posterior(name: str, coloured: bool) -> None:
    observe, noise = OPERATORS[name], 0.1
    prior = matrix(lambda x: filtered(x, POWER))
    seen = matrix(observe)
    generator = torch.Generator().manual_seed(1)

    def draw(n: int) -> Tensor:
        return torch.randn(n, N, generator=generator, dtype=torch.float64)

    truth = filtered(draw(1), POWER.sqrt())
    clean = observe(truth)
    data = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    gain = prior @ seen.T @ torch.linalg.inv(seen @ prior @ seen.T + noise**2 * torch.eye(len(seen)))
    mean, covariance = (gain @ data[0]), prior - gain @ seen @ prior

    spectrum = POWER if coloured else torch.ones(N, dtype=torch.float64)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return filtered(x, POWER / (POWER + sigma**2 * spectrum))

    n = 400
    posterior = conditioned(
        denoise, observe, data.expand(n, -1), noise**2, lambda v: filtered(v, spectrum), N, 1e-8
    )
    start = filtered(draw(n), (POWER + LADDER.high**2 * spectrum).sqrt())
    made = solve(posterior, start, LADDER)
    scatter = covariance.diagonal().sqrt()
    # of n samples the mean scatters by 1 / sqrt(n) of a standard deviation, the variance by sqrt(2 / n)
    assert ((made.mean(0) - mean) / scatter).square().mean().sqrt() < 1.6 / math.sqrt(n) + 0.01
    found = torch.cov(made.T)
    assert float(found.trace() / covariance.trace()) == pytest.approx(1, abs=0.05)
    off = torch.linalg.matrix_norm(found - covariance) / torch.linalg.matrix_norm(covariance)
    floor = math.sqrt((covariance.trace() ** 2 / torch.linalg.matrix_norm(covariance) ** 2 + 1) / n)
    assert float(off) < 1.3 * floor + 0.02


def test_of_a_wrong_level_of_noise_the_scatter_is_wrong() -> None:
    """The same check fails if the data are said to be three times as noisy as they are."""
    observe, generator = OPERATORS["denoising"], torch.Generator().manual_seed(2)
    data = torch.zeros(400, N, dtype=torch.float64)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return filtered(x, POWER / (POWER + sigma**2))

    start = LADDER.high * torch.randn(400, N, generator=generator, dtype=torch.float64)
    made = solve(conditioned(denoise, observe, data, 0.3**2, None, N, 1e-8), start, LADDER)
    exact = 1 / (1 / POWER + 1 / 0.1**2)
    assert float(torch.fft.fft(made, norm="ortho").abs().square().mean() / exact.mean()) > 1.5
