"""From noise to a field along the probability-flow equation, with a denoiser for a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gen.diffusion.levels import Ladder
from gen.errors import InputError

Denoiser = Callable[[Tensor, float], Tensor]
"""``D(x, sigma)``: the mean of the field whose noised version x = field + sigma n is seen."""


def solve(denoise: Denoiser, x: Tensor, ladder: Ladder, order: int = 3) -> Tensor:
    """The field that the flow carries ``x = field + high * noise`` to; the last evaluation is taken as it is.

    With lambda = -ln sigma the flow dx/dsigma = (x - D) / sigma (Karras et al. 2022, arXiv:2206.00364) reads

        d(x / sigma) / dlambda = exp(lambda) D,

    and is integrated exactly for a D that is the polynomial through its last ``order`` values: exponential
    Adams-Bashforth (Hochbruck & Ostermann 2010, Acta Numerica 19, 209). DPM-Solver++(2M) of Lu et al. 2022
    (arXiv:2211.01095) is order 2 with one integral approximated. One evaluation a step; nothing is clipped.

    Args:
        denoise: of ``x (B, ...)`` and a level of noise.
        x: at the ladder's highest level.
        order: 1 to 4; the first steps, where D hardly varies, take what they have.

    Raises:
        InputError: for another order.
    """
    if not 1 <= order <= 4:
        raise InputError(f"the solver has orders 1 to 4, got {order}")
    sigmas = ladder.sigmas().tolist()
    step = math.log(sigmas[0] / sigmas[1])
    past: list[Tensor] = []
    for now, later in pairwise(sigmas):
        past = [denoise(x, now), *past[: order - 1]]
        x = (later / now) * x
        for weight, d in zip(_weights(len(past), step), past, strict=True):
            x = x + weight * d
    return denoise(x, sigmas[-1])


def _weights(order: int, step: float) -> list[float]:
    """Of D at lambda, lambda - h, ...: integrals of exp(l - h) L_j(l) over a step l = 0 to h.

    L_j are Lagrange's polynomials. By quadrature: the recurrence of the moments loses digits in small steps.
    """
    nodes, quadrature = _gauss()
    weight = step * torch.exp(step * (nodes - 1)) * quadrature
    out = []
    for j in range(order):
        basis = torch.ones_like(nodes)
        for i in range(order):
            if i != j:
                basis = basis * (nodes + i) / (i - j)
        out.append(float((weight * basis).sum()))
    return out


def _gauss() -> tuple[Tensor, Tensor]:
    """Twenty nodes and weights of Gauss and Legendre on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(20)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


def gaussian_bias(power: Tensor, ladder: Ladder, order: int = 3) -> Tensor:
    """Relative error of the power that the solver gives to waves of ``power`` with their exact score.

    The denoiser of a Gaussian wave is the Wiener filter, ``D = P / (P + sigma^2) x``, so each wave is
    multiplied by a number and its power's error is known without a sample: float64, as ``power``.
    """
    power = power.double()
    start = torch.full_like(power, ladder.high)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return power / (power + sigma**2) * x

    return solve(denoise, start, ladder, order).square() / power - 1
