"""Flow matching in training: the velocity's error, as a denoiser's at levels of noise of another law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gen.diffusion.levels import FlowLadder, Ladder
from gen.errors import InputError

NODES = 8193
"""Of the table that logit-normal levels are read from."""


@dataclass(frozen=True)
class FlowMatching:
    r"""Mean square error of the velocity n - x0 on the lines x_t = (1 - t) x0 + t n from field to noise.

    Lipman et al. 2023 (arXiv:2210.02747); rectified flow of Liu et al. 2022 (arXiv:2209.03003). With
    sigma = t / (1 - t) and x = x_t / (1 - t) a denoiser D(x, sigma) has the velocity (x_t - D) / t, whose
    error is that of D over t. The emulator's own loss is the error of U in

        D = x / s^2 + sigma / s U,   s^2 = 1 + sigma^2,

    for fields of unit scatter: a level at which that is E_U has a velocity that is off by

        E_v = E_D / t^2 = ((1 + sigma) / sigma)^2 sigma^2 / (1 + sigma^2) E_U = (1 + sech(ln sigma)) E_U,

    so a weight and a law of t are together a law of ln sigma = logit t. With dt = t (1 - t) d ln sigma it is

        t uniform:       (1 + sech l) sigma / (1 + sigma)^2 = sech(l) / 2,   l = ln sigma,
        logit t normal:  (1 + sech l) N(l; mean, std^2)            (Esser et al. 2024, arXiv:2403.03206).

    The first is that the angle arctan sigma is uniform: few levels are far from 1. Levels are drawn from
    these laws within the emulator's ladder and all count alike, which has the expected gradient of the
    velocity's error up to one constant (pi / 2 for the first law, over all levels) and, having no weights,
    the lesser scatter. The loss stays 1 where nothing is learned.

    Args:
        logit_normal: mean and standard deviation of logit t; uniform in t without.

    Raises:
        InputError: for a standard deviation below 0.05.
    """

    logit_normal: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.logit_normal is not None and not 0.05 <= self.logit_normal[1] < math.inf:
            raise InputError(
                f"the standard deviation of logit t must be at least 0.05, got {self.logit_normal[1]:g}; for "
                "a single level train at that level"
            )

    @property
    def mirrored(self) -> float:
        """No noise is seen with both signs."""
        return 0.0

    def levels(self, ladder: Ladder | FlowLadder, share: Tensor) -> Tensor:
        """Levels of noise, ``(B,)`` float64, below which lie these shares ``(B,)`` of all, in [0, 1).

        Raises:
            InputError: for a law with next to nothing on the ladder.
        """
        share = share.double()
        if self.logit_normal is None:
            low, high = math.atan(ladder.low), math.atan(ladder.high)
            return (low + (high - low) * share).tan()
        nodes = torch.linspace(math.log(ladder.low), math.log(ladder.high), NODES, dtype=torch.float64)
        below = self._below(nodes, *self.logit_normal)
        return torch.from_numpy(np.interp(share.numpy(), below.numpy(), nodes.numpy())).exp()

    def _below(self, nodes: Tensor, mean: float, std: float) -> Tensor:
        """The share of all that lies below each node, by trapezia."""
        normal = torch.exp(-0.5 * ((nodes - mean) / std).square()) / (std * math.sqrt(2 * math.pi))
        within = torch.cumulative_trapezoid(normal * (1 + 1 / nodes.cosh()), nodes)
        if not float(within[-1]) > 0.05:
            raise InputError(
                f"logit t of mean {mean:g} and standard deviation {std:g} is hardly ever between "
                f"{float(nodes[0]):.3g} and {float(nodes[-1]):.3g}, the emulator's ladder; change either"
            )
        return torch.cat([torch.zeros(1, dtype=torch.float64), within / within[-1]])
