"""Noise levels of a diffusion sampler: a ladder of sigma, even in its logarithm or in a flow's time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gen.errors import InputError

ABOVE, BELOW = 10.0, 0.1
"""Of the scatter of the strongest wave, where a ladder starts; of that of the weakest, where it ends."""


class Levels(Protocol):
    """What a solver asks of a ladder."""

    def sigmas(self) -> Tensor:
        """``(steps,)`` float64, falling."""
        ...


@dataclass(frozen=True)
class Ladder:
    """``steps`` evaluations of a denoiser from sigma ``high`` down to ``low``, even in ln sigma.

    A wave of power P is made while sigma passes sqrt(P). A ladder that starts below 10 sqrt(P_max) starts
    from too little, one that ends above 0.1 sqrt(P_min) leaves noise for signal or none at all, and one
    whose steps are even in another variable crosses some powers in leaps: schedules that are usual for
    pictures bias the power spectrum of cosmological fields by 4 to 60 % although their score is exact.

    In the time t of flow matching, see ``FlowLadder``, ln sigma is logit t: this ladder is even in logit t.

    Raises:
        InputError: for levels that do not fall, or fewer than two steps.
    """

    high: float = 1e3
    low: float = 1e-3
    steps: int = 64

    def __post_init__(self) -> None:
        _check(self.high, self.low, self.steps)

    @classmethod
    def of_power(cls, lowest: float, highest: float, steps: int = 32) -> Ladder:
        """For waves of powers ``lowest`` to ``highest`` (variance of a mode, cells of unit noise).

        Raises:
            InputError: for powers that are not positive, or the wrong way round.
        """
        if not 0 < lowest <= highest < math.inf:
            raise InputError(f"powers must be positive, lowest first, got {lowest:g} and {highest:g}")
        return cls(ABOVE * math.sqrt(highest), BELOW * math.sqrt(lowest), steps)

    def sigmas(self) -> Tensor:
        """``(steps,)`` float64, falling."""
        ends = math.log(self.high), math.log(self.low)
        return torch.linspace(*ends, self.steps, dtype=torch.float64).exp()


@dataclass(frozen=True)
class FlowLadder:
    """``steps`` evaluations from sigma ``high`` down to ``low``, even in the time t of flow matching.

    Flow matching (Lipman et al. 2023, arXiv:2210.02747; rectified flow, Liu et al. 2022, arXiv:2209.03003)
    goes from noise n to field x0 along x_t = (1 - t) x0 + t n, with the mean velocity v of n - x0 given x_t.
    Divided by 1 - t this is a field with noise sigma n at

        x = x_t / (1 - t) = x0 + sigma n,   sigma = t / (1 - t),   v = (x_t - D(x, sigma)) / t,

    and dx_t/dt = v is dx/dsigma = (x - D) / sigma: the equation of ``solve`` in other variables. Euler's step
    in t is, to the last digit, the solver's step of order 1. What is left of flow matching in a sampler is
    where the evaluations lie. Even in t, N of them are dense about sigma = 1 and leave what is below 1 / N
    and above N to a leap each. Waves of power 1e-2 and 1e2 are then off by 13 % at N = 64 and order 1; higher
    orders extrapolate over ever longer steps, which is worse below power 1, and when the ladder goes to the
    ends the error falls as N^-2 at best, whatever the order. Of a range of powers ``Ladder`` is better.

    Args:
        high, low: of sigma; t is 1 and 0 in their limits.
        shift: sigma = shift t / (1 - t), so that the dense part is about sigma = shift (Esser et al. 2024,
            arXiv:2403.03206); the same as a field in other units.

    Raises:
        InputError: for levels that do not fall, fewer than two steps, or a shift that is not positive.
    """

    high: float = 1e3
    low: float = 1e-3
    steps: int = 64
    shift: float = 1.0

    def __post_init__(self) -> None:
        _check(self.high, self.low, self.steps)
        if not 0 < self.shift < math.inf:
            raise InputError(f"the shift of a flow's time must be positive, got {self.shift:g}")

    def sigmas(self) -> Tensor:
        """``(steps,)`` float64, falling."""
        start, end = (sigma / (self.shift + sigma) for sigma in (self.high, self.low))
        time = torch.linspace(start, end, self.steps, dtype=torch.float64)
        return self.shift * time / (1 - time)


def _check(high: float, low: float, steps: int) -> None:
    if not (math.isfinite(high) and 0 < low < high):
        raise InputError(f"noise must fall from high to low > 0, got {high:g} to {low:g}")
    if steps < 2:
        raise InputError(f"a sampler needs 2 steps or more, got {steps}")
