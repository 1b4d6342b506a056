"""From noise to a field along the probability-flow equation, with a denoiser for a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gen.diffusion.levels import Levels
from gen.errors import InputError

Denoiser = Callable[[Tensor, float], Tensor]
"""``D(x, sigma)``: the mean of the field whose noised version x = field + sigma n is seen."""


def solve(denoise: Denoiser, x: Tensor, ladder: Levels, order: int = 3) -> Tensor:
    """The field that the flow carries ``x = field + high * noise`` to; the last evaluation is taken as it is.

    With lambda = -ln sigma the flow dx/dsigma = (x - D) / sigma (Karras et al. 2022, arXiv:2206.00364) reads

        d(x / sigma) / dlambda = exp(lambda) D,

    and is integrated exactly for a D that is the polynomial through its last ``order`` values, evenly spaced
    or not: exponential Adams-Bashforth (Hochbruck & Ostermann 2010, Acta Numerica 19, 209). DPM-Solver++(2M)
    of Lu et al. 2022 (arXiv:2211.01095) is order 2 with one integral approximated. Order 1 is DDIM, and
    Euler's method along the straight lines of flow matching, see ``FlowLadder``. One evaluation a step;
    nothing is clipped.

    Args:
        denoise: of ``x (B, ...)`` and a level of noise.
        x: at the ladder's highest level.
        ladder: of levels, even in whatever variable.
        order: 1 to 4; the first steps, where D hardly varies, take what they have.

    Raises:
        InputError: for another order.
    """
    if not 1 <= order <= 4:
        raise InputError(f"the solver has orders 1 to 4, got {order}")
    sigmas = ladder.sigmas().tolist()
    past: list[Tensor] = []
    for i, (now, later) in enumerate(pairwise(sigmas)):
        past = [denoise(x, now), *past[: order - 1]]
        nodes = [math.log(now / sigmas[i - j]) for j in range(len(past))]
        x = (later / now) * x
        for weight, d in zip(_weights(nodes, math.log(now / later)), past, strict=True):
            x = x + weight * d
    return denoise(x, sigmas[-1])


def _weights(nodes: list[float], step: float) -> list[float]:
    """Of D at lambda + nodes, none positive: integrals of exp(l - h) L_j(l) over l = 0 to h = step.

    L_j are Lagrange's polynomials. By quadrature: the recurrence of the moments loses digits in small steps.
    """
    share, quadrature = _gauss()
    at = step * share
    weight = step * np.exp(at - step) * quadrature
    out = []
    for j, own in enumerate(nodes):
        basis = weight
        for i, other in enumerate(nodes):
            if i != j:
                basis = basis * ((at - other) / (own - other))
        out.append(float(basis.sum()))
    return out


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    """Twenty nodes and weights of Gauss and Legendre on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(20)
    return (x + 1) / 2, w / 2


def gaussian_bias(power: Tensor, ladder: Levels, order: int = 3) -> Tensor:
    """Relative error of the power that the solver gives to waves of ``power`` with their exact score.

    The denoiser of a Gaussian wave is the Wiener filter, ``D = P / (P + sigma^2) x``, so each wave is
    multiplied by a number and its power's error is known without a sample: float64, shaped as ``power``. Any
    ladder can be judged so.
    """
    power = power.double()
    start = torch.full_like(power, float(ladder.sigmas()[0]))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return power / (power + sigma**2) * x

    return solve(denoise, start, ladder, order).square() / power - 1
