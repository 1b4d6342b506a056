"""Flow matching is the same family: its lines, its bias on Gaussian waves, its loss as a law of levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.diffusion.levels import FlowLadder, Ladder
from gen.diffusion.solver import gaussian_bias, solve
from gen.emulators.base import Emulator
from gen.emulators.copula import Copula
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.training.denoising import DenoisingTraining
from gen.training.flow_matching import FlowMatching
from gen.training.optimisation import Adam

EIGHT_DECADES = torch.logspace(-4, 4, 33, dtype=torch.float64)
GRID = Grid((4, 4), 4.0, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m",), (0.2,), (0.4,))


# The ladder


def test_ladders_are_even_in_time_or_in_its_logit() -> None:
    def time(ladder: FlowLadder | Ladder) -> Tensor:
        sigmas = ladder.sigmas()
        return sigmas / (1 + sigmas)

    even = time(FlowLadder(100, 0.01, 9)).diff()
    assert torch.allclose(even, even.mean().expand(8), rtol=1e-12)
    logit = torch.logit(time(Ladder(100, 0.01, 9))).diff()
    assert torch.allclose(logit, logit.mean().expand(8), rtol=1e-12)
    shifted, plain = FlowLadder(30, 0.3, 9, shift=3), FlowLadder(10, 0.1, 9)
    assert torch.allclose(shifted.sigmas(), 3 * plain.sigmas(), rtol=1e-12)


def test_order_one_is_eulers_method_along_straight_lines() -> None:
    """For a denoiser that is no Wiener filter, from the definition of the velocity."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.tanh(x / (1 + sigma**2))

    ladder = FlowLadder(50, 0.02, 24)
    x = 50 * torch.linspace(-2, 2, 9, dtype=torch.float64)
    times = (ladder.sigmas() / (1 + ladder.sigmas())).tolist()
    on_line = (1 - times[0]) * x
    for t, later in pairwise(times):
        field = denoise(on_line / (1 - t), t / (1 - t))
        noise = (on_line - (1 - t) * field) / t
        on_line = on_line + (later - t) * (noise - field)
    last = denoise(on_line / (1 - times[-1]), times[-1] / (1 - times[-1]))
    assert torch.allclose(solve(denoise, x, ladder, 1), last, rtol=1e-11)


def test_even_steps_are_those_of_the_textbook() -> None:
    """Second order: phi_1 and phi_2 of exponential Adams-Bashforth, by their closed forms."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.tanh(x / (1 + sigma**2))

    ladder = Ladder(50, 0.02, 24)
    sigmas = ladder.sigmas().tolist()
    h = math.log(sigmas[0] / sigmas[1])
    start = 50 * torch.linspace(-2, 2, 9, dtype=torch.float64)
    one, two = 1 - math.exp(-h), (h - 1 + math.exp(-h)) / h
    x, before = start, None
    for sigma in sigmas[:-1]:
        now = denoise(x, sigma)
        x = math.exp(-h) * x + one * now + (0 if before is None else two * (now - before))
        before = now
    assert torch.allclose(solve(denoise, start, ladder, 2), denoise(x, sigmas[-1]), rtol=1e-11)


@pytest.mark.parametrize("steps", [32, 64])
def test_even_in_time_it_biases_what_even_in_logit_does_not(steps: int) -> None:
    """Eight decades of power with their exact score; the better order of flow matching is Euler's."""
    assert gaussian_bias(EIGHT_DECADES, Ladder(steps=steps)).abs().max() < 0.0105
    for order in (1, 2, 3, 4):
        assert gaussian_bias(EIGHT_DECADES, FlowLadder(steps=steps), order).abs().max() > 0.6


def leaps(power: float, ladder: FlowLadder, order: int) -> float:
    """The bias less that of the ladder's ends, which no number of steps mends."""
    ends = power / (power + ladder.low**2) * ladder.high**2 / (power + ladder.high**2) - 1
    return abs(float(gaussian_bias(torch.tensor([power]), ladder, order)) - ends)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_uneven_steps_converge_at_their_order(order: int) -> None:
    """Once they are small at both ends, of a wave that the first steps of low order hardly touch."""
    errors = [leaps(1e-2, FlowLadder(30, 1 / 30, steps), order) for steps in (257, 513)]
    assert math.log2(errors[0] / errors[1]) > order - 0.35


@pytest.mark.parametrize("order", [2, 3, 4])
def test_to_the_ends_no_order_helps(order: int) -> None:
    errors = [leaps(1.0, FlowLadder(1e6, 1e-6, steps), order) for steps in (257, 513)]
    assert 1.9 < math.log2(errors[0] / errors[1]) < 2.6


def test_ladders_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="must fall from high to low > 0, got 1 to 2"):
        FlowLadder(1, 2)
    with pytest.raises(InputError, match="2 steps or more, got 1"):
        FlowLadder(steps=1)
    with pytest.raises(InputError, match="shift of a flow's time must be positive, got 0"):
        FlowLadder(shift=0)


# The loss


LADDER = Ladder(20.0, 0.02, 20)


@pytest.mark.parametrize("logit_normal", [None, (0.0, 1.0), (-0.8, 0.6)])
def test_levels_give_the_velocitys_error_of_any_denoiser(logit_normal: tuple[float, float] | None) -> None:
    """Up to one constant, of Wiener filters D = a(sigma) x of a wave of power P for right and wrong powers.

    The error of the velocity is integrated over the law of t from its definition; that of U is the mean over
    the levels.
    """
    power = 0.3
    logit = torch.linspace(math.log(LADDER.low), math.log(LADDER.high), 40001, dtype=torch.float64)
    t = logit.sigmoid()
    law = t * (1 - t)  # of logit t, for t uniform
    if logit_normal is not None:
        mean, std = logit_normal
        law = torch.exp(-0.5 * ((logit - mean) / std).square())
    share = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    levels = FlowMatching(logit_normal).levels(LADDER, share)

    def velocity(assumed: float) -> float:
        sigma = t / (1 - t)
        a = assumed / (assumed + sigma.square())
        field, noise = (1 - t - a) / t + 1, (t - a * sigma) / t - 1  # of (x_t - D) / t - (n - x0)
        return float(torch.trapezoid(law * (field.square() * power + noise.square()), logit))

    def network(assumed: float) -> float:
        a = assumed / (assumed + levels.square())
        denoised = (1 - a).square() * power + (a * levels).square()
        return float(((1 + levels.square()) / levels.square() * denoised).mean())

    ratios = [velocity(assumed) / network(assumed) for assumed in (0.1, power, 1.5)]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-4)
    if logit_normal is None:
        angles = [math.atan(s) for s in (LADDER.low, LADDER.high)]
        assert ratios[0] == pytest.approx(angles[1] - angles[0], rel=1e-4)


def test_levels_are_on_the_ladder_and_rise_with_their_share() -> None:
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 1e-7])
    for law in (FlowMatching(), FlowMatching((0.5, 1.2))):
        levels = law.levels(LADDER, share)
        assert (levels.diff() > 0).all()
        assert float(levels[0]) == pytest.approx(LADDER.low, rel=1e-6)
        assert float(levels[-1]) == pytest.approx(LADDER.high, rel=1e-2)


def test_laws_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"must be at least 0.05, got 0;"):
        FlowMatching((0.0, 0.0))
    with pytest.raises(InputError, match=r"hardly ever between -3.91 and 3, the emulator's ladder"):
        FlowMatching((9.0, 1.0)).levels(LADDER, torch.zeros(1))


class Toy(Emulator):
    """Says what levels it was asked for; its one weight should be what the loss says."""

    def __init__(self) -> None:
        super().__init__(GRID, SPACE)
        self.ladder, self.weight = LADDER, torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def generate(self, params: Tensor, *others: Any, **more: Any) -> Tensor:
        return params.new_zeros(len(params), 1, 4, 4)

    def to_config(self) -> dict[str, Any]:
        return self._base_config()

    def loss(
        self,
        values: Tensor,
        params: Tensor,
        generators: Sequence[torch.Generator],
        sigma: Tensor,
        coarse: Tensor | None = None,
        mirrored: float = 0.0,
    ) -> dict[str, Tensor]:
        self.seen.append(sigma)
        return {"cells": ((self.weight - 1) * values[:, 0, 0, 0]).square().mean()}


def test_a_batch_is_spread_evenly_over_the_angle() -> None:
    """Each of 8 rows has its own eighth of the angles; other rows of the run have other levels."""
    toy = Toy()
    training = DenoisingTraining(toy, FlowMatching(), Adam(), 10, seed=3)
    batch = Fields.of(torch.ones(8, 1, 4, 4), torch.full((8, 1), 0.3))
    for rows in (range(8), range(8, 16), range(8)):
        sum(training.terms(batch, rows).values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    first, second, again = toy.seen
    ends = math.atan(LADDER.low), math.atan(LADDER.high)
    share = ((first.double().atan() - ends[0]) / (ends[1] - ends[0])).sort().values
    assert torch.allclose(share.diff(), torch.full((7,), 0.125, dtype=torch.float64), atol=1e-5)
    assert torch.equal(first, again) and not torch.allclose(first, second)
    assert toy.weight.grad is not None and float(toy.weight.grad) == pytest.approx(-6)
    with pytest.raises(InputError, match="Copula has no denoiser"):
        DenoisingTraining(Copula(GRID, SPACE), FlowMatching(), Adam(), 10)
