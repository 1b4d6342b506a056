"""How probable fields are under a diffusion model: its density along the flow, and a bound on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gen.diffusion.gaussian_noise import Noise, WhiteNoise, log_gaussian
from gen.diffusion.levels import Levels
from gen.diffusion.solver import Denoiser
from gen.errors import InputError
from gen.noise import normal, sample_generator


class Evidence(NamedTuple):
    """``nats (B,)``: ln p of each field; ``error (B,)``: the standard error of it. Both float64."""

    nats: Tensor
    error: Tensor


def flow_log_likelihood(
    denoise: Denoiser,
    fields: Tensor,
    levels: Levels,
    noise: Noise | None = None,
    scatter: float = 1.0,
    probes: int | None = 4,
    seed: int = 0,
) -> Evidence:
    r"""ln of the density of fields under the flow that ``solve`` follows from noise to fields.

    Along dx/d ln sigma = x - D the density changes by the flow's divergence (Chen et al. 2018,
    arXiv:1806.07366; Song et al. 2021, arXiv:2011.13456), whatever the noise's covariance:

        ln p(x_low) = ln p(x_high) + integral of (N - tr dD/dx) d ln sigma,

    by Runge and Kutta's method of fourth order between levels, which is off by some 0.03 h^4 nats a wave, h
    being the step in ln sigma (of a Gaussian field; 1e-4 at h = 0.24). At the highest level the field is
    taken as Gaussian of covariance (scatter^2 + high^2) C. The density is that of fields with the noise of
    the lowest level on them, read at the field without: it differs from the field's own by the blur.

    The trace is the mean over ``probes`` of v^T dD/dx v with random signs v (Hutchinson 1989), new ones at
    every evaluation, so that their errors average along the path; nothing comes back to the path from them.

    Args:
        denoise: differentiable in x, each row from itself alone.
        fields: ``(B, C, *shape)`` as the denoiser knows them; for others add ln |dx/dfield|.
        levels: of ``solve``, or finer: the density is exact as far as they are.
        noise: its law; white without.
        scatter: of fields, in units of the noise; of weight only where it is not far below the highest level.
        probes: at least 2; none for the exact trace, at the cost of N of them.
        seed: of the probes; row i has its own, whatever the others.

    Returns:
        Nats, and what the probes scatter them by; 0 for the exact trace.

    Raises:
        InputError: for fewer than 2 probes.
    """
    if probes is not None and probes < 2:
        raise InputError(
            f"the trace needs 2 probes or more to know its error, got {probes}; or none, for all"
        )
    noise = noise or WhiteNoise()
    generators = [sample_generator(seed, i, "probe") for i in range(len(fields))]
    rising = levels.sigmas().flip(0).tolist()
    n, x = fields[0].numel(), fields.detach()
    trace = torch.zeros(len(fields), probes or 1, dtype=torch.float64, device=fields.device)
    for now, later in pairwise(rising):
        step, middle = math.log(later / now), math.sqrt(now * later)
        slopes: list[Tensor] = []
        for sigma, reach, weight in ((now, 0.0, 1), (middle, 0.5, 2), (middle, 0.5, 2), (later, 1.0, 1)):
            point = x + reach * step * slopes[-1] if slopes else x
            d, share = _with_trace(denoise, point, sigma, probes, generators)
            slopes.append(point - d)
            trace += step * weight / 6 * share
        x = x + step / 6 * (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3])
    ends = log_gaussian(x, noise, scatter**2 + rising[-1] ** 2) + n * math.log(rising[-1] / rising[0])
    return Evidence(ends - trace.mean(1), _standard_error(trace))


def _with_trace(
    denoise: Denoiser, x: Tensor, sigma: float, probes: int | None, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """D, and v^T dD/dx v ``(B, probes)`` of random signs v, or the trace itself ``(B, 1)``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        d = denoise(x, sigma)

    def through(v: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(d, x, v, retain_graph=True)
        return back

    if probes is None:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for cell in range(x[0].numel()):
            v = torch.zeros_like(x).flatten(1)
            v[:, cell] = 1
            total += through(v.reshape(x.shape)).flatten(1)[:, cell]
        return d.detach(), total[:, None]
    signs = torch.stack([torch.randint(2, (probes, *x.shape[1:]), generator=g) for g in generators], 1)
    found = [(v * through(v)).flatten(1).double().sum(1) for v in (2 * signs - 1).to(x)]
    return d.detach(), torch.stack(found, 1)


@torch.no_grad()
def variational_bound(
    denoise: Denoiser,
    fields: Tensor,
    levels: Levels,
    noise: Noise | None = None,
    scatter: float = 1.0,
    draws: int = 4,
    seed: int = 0,
) -> Evidence:
    r"""A lower bound on ln of the density of fields, from the denoiser's error (Kingma et al. 2021).

    Of z = x + sigma g the steps from the highest level to the lowest and to x form a latent-variable model,
    whose bound in the limit of fine steps (arXiv:2107.00630, eq. 11, of signal over noise 1 / sigma^2) is

        ln p(x) >= - KL(z_high given x, prior) + E ln p(x | z_low)
                   - integral of E |x - D|^2 / sigma^2 d ln sigma

    with |e|^2 = e^T C^-1 e. The prior of z_high is Gaussian of covariance (s^2 + high^2) C, s the scatter; x
    given z_low has the mean D and the covariance w C, 1 / w = 1 / s^2 + 1 / low^2. For the denoiser of a
    Gaussian field of covariance s^2 C, D_0 = s^2 / (s^2 + sigma^2) z, all three terms are closed forms and
    their sum is the field's log density, so what is drawn are differences to it, at the same z:

        ln p(x) >= ln N(x; 0, s^2 C) - integral of E (|x - D|^2 - |x - D_0|^2) / sigma^2 d ln sigma
                   - E (|x - D|^2 - |x - D_0|^2) / 2 w  at the lowest level.

    The bound is met by the exact denoiser if the levels go from far above the scatter of all waves to far
    below it. A wave of power P in units of the noise's loses about (low^2 / P)^2 / 4 nats and
    (P / high^2)^2 / 4, less where P is near s^2.

    Args:
        denoise: each row from itself alone.
        fields: ``(B, C, *shape)`` as the denoiser knows them; for others add ln |dx/dfield|.
        levels: the first and the last count, and how many: one draw has a level in each of as many equal
            shares of ln sigma.
        noise: its law; white without.
        scatter: of fields, in units of the noise.
        draws: at least 2; each costs as many evaluations as there are levels, and one.
        seed: of the noise; row i has its own, whatever the others.

    Returns:
        Nats, and the standard error of their mean over draws.

    Raises:
        InputError: for fewer than 2 draws.
    """
    if draws < 2:
        raise InputError(f"the bound needs 2 draws or more to know its error, got {draws}")
    noise = noise or WhiteNoise()
    sigmas = levels.sigmas()
    high, low, steps = float(sigmas[0]), float(sigmas[-1]), len(sigmas)
    span = math.log(high / low)
    generators = [sample_generator(seed, i, "bound") for i in range(len(fields))]
    starts = sample_generator(seed, 0, "level")

    def excess(sigma: float) -> Tensor:
        """|x - D|^2 - |x - D_0|^2 ``(B,)`` of one noised version of each field."""
        z = fields + sigma * noise.coloured(normal(generators, fields.shape[1:]).to(fields))
        gaussian = scatter**2 / (scatter**2 + sigma**2) * z
        return noise.norm(fields - denoise(z, sigma)) - noise.norm(fields - gaussian)

    found = []
    for _ in range(draws):
        start = float(torch.rand((), generator=starts))
        loss = 0.5 * (1 / scatter**2 + 1 / low**2) * excess(low)
        for i in range(steps):
            sigma = low * math.exp(span * (i + start) / steps)
            loss = loss + span / steps / sigma**2 * excess(sigma)
        found.append(loss)
    losses = torch.stack(found, 1)
    return Evidence(log_gaussian(fields, noise, scatter**2) - losses.mean(1), _standard_error(losses))


def _standard_error(draws: Tensor) -> Tensor:
    """``(B,)`` of the mean over columns."""
    if draws.shape[1] == 1:
        return torch.zeros_like(draws[:, 0])
    return draws.std(1) / math.sqrt(draws.shape[1])
