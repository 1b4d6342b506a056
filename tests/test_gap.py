"""The summary gap: zero for the right law, positive and with the right gradient for a wrong one."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.emulators.gap import SummaryGap
from gen.fields import Grid, ParameterSpace
from gen.nets.summaries import Summaries
from gen.noise import normal, sample_generator

GRID = Grid((16, 16), 50.0, "Mpc/h", True)
SPACE = ParameterSpace(("a",), (1.0,), (2.0,))


def correlated(n: int, seed: int) -> Tensor:
    """Gaussian fields of unit variance and a red spectrum."""
    white = normal([sample_generator(seed, i) for i in range(n)], GRID.shape)
    filtered = torch.fft.irfft2(
        torch.fft.rfft2(white) * torch.exp(-GRID.wavenumber() / 2).float(), s=GRID.shape
    )
    return (filtered / filtered.std())[:, None]


def truth(g: Tensor, params: Tensor) -> Tensor:
    """A law whose distance from g depends on the parameter: amplitude a, and a quadratic term."""
    a = params[:, :, None, None]
    return a * g + 0.2 * (a - 1) * (g.square() - 1)


def fitted() -> tuple[SummaryGap, Tensor]:
    gap = SummaryGap(Summaries(GRID), SPACE)
    params = 1 + torch.arange(1024)[:, None].remainder(16) / 15
    g, other = correlated(1024, 0), correlated(1024, 1)
    real = truth(other, params)
    gap.fit((real, real.exp()), (g, g.exp()), params)
    return gap, params


def loss(gap: SummaryGap, y: Tensor, g: Tensor, params: Tensor) -> Tensor:
    return gap((y, y.exp()), (g, g.exp()), params)


def test_the_true_law_has_far_less_loss_than_the_copula_or_an_average_law() -> None:
    gap, params = fitted()
    g = correlated(1024, 2)
    right = loss(gap, truth(g, params), g, params)
    unconditional = loss(gap, truth(g, torch.full_like(params, 1.5)), g, params)
    copula = loss(gap, g, g, params)
    assert abs(right) < 0.05 * unconditional, "the right amplitude at every parameter, not on average"
    assert unconditional < copula


def test_gradient_moves_an_amplitude_towards_the_truth() -> None:
    gap, params = fitted()
    g = correlated(512, 3)
    for start, sign in ((0.8, -1), (1.25, 1)):
        amplitude = torch.tensor(start, requires_grad=True)
        loss(gap, amplitude * truth(g, params[:512]), g, params[:512]).backward()
        assert amplitude.grad is not None
        assert amplitude.grad.sign() == sign


def test_no_gradient_reaches_the_copula_field() -> None:
    gap, params = fitted()
    g = correlated(8, 4).requires_grad_(True)
    y = correlated(8, 5).requires_grad_(True)
    loss(gap, y, g, params[:8]).backward()
    assert y.grad is not None and y.grad.abs().max() > 0
    assert g.grad is None
