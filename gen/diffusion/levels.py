"""Noise levels of a diffusion sampler: a ladder of sigma, even in its logarithm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gen.errors import InputError

ABOVE, BELOW = 10.0, 0.1
"""Of the scatter of the strongest wave, where a ladder starts; of that of the weakest, where it ends."""


@dataclass(frozen=True)
class Ladder:
    """``steps`` evaluations of a denoiser from sigma ``high`` down to ``low``, even in ln sigma.

    A wave of power P is made while sigma passes sqrt(P). A ladder that starts below 10 sqrt(P_max) starts
    from too little, one that ends above 0.1 sqrt(P_min) leaves noise for signal or none at all, and one
    whose steps are even in another variable crosses some powers in leaps: schedules that are usual for
    pictures bias the power spectrum of cosmological fields by 4 to 60 % although their score is exact.

    Raises:
        InputError: for levels that do not fall, or fewer than two steps.
    """

    high: float = 1e3
    low: float = 1e-3
    steps: int = 64

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and 0 < self.low < self.high):
            raise InputError(f"noise must fall from high to low > 0, got {self.high:g} to {self.low:g}")
        if self.steps < 2:
            raise InputError(f"a sampler needs 2 steps or more, got {self.steps}")

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
