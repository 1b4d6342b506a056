"""Fields that fit an observation: a denoiser that also knows what was seen of the field, and how noisily."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from gen.diffusion.conjugate_gradients import conjugate_gradients
from gen.diffusion.solver import Denoiser

Observe = Callable[[Tensor], Tensor]
"""Of fields ``(B, ...)`` to data ``(B, ...)``, differentiable."""


def conditioned(
    denoise: Denoiser,
    observe: Observe,
    data: Tensor,
    variance: Tensor | float,
    covariance: Callable[[Tensor], Tensor] | None = None,
    iterations: int = 32,
    tolerance: float = 1e-4,
) -> Denoiser:
    """The denoiser of the posterior given ``data = observe(field) + noise``; solved, it gives its samples.

    Given a noised field x, the field has the mean D(x, sigma) and, by Tweedie's formula of second order, the
    covariance V = sigma^2 C J^T, with C that of the diffusion's unit noise and J = dD/dx. Taken as Gaussian
    with these two, and ``observe`` as its derivative A,

        D_posterior = D + V A^T (N + A V A^T)^-1 (data - observe(D)),

    which is exact of a Gaussian field that is seen linearly, whatever the mask or the noise (moment matching,
    Rozet et al. 2024, arXiv:2405.13712). The inverse is taken by conjugate gradients of products alone.

    Args:
        denoise: of the prior, differentiable in x.
        observe: a mask, a blur, a sum over cells, a physical map of scores, and the like.
        data: ``(B, ...)`` as ``observe`` gives it.
        variance: of the data's noise, a number or of the data's shape; infinite where nothing is seen is
            better said by a mask.
        covariance: multiplies by C; white noise without it.
        iterations: of conjugate gradients, at most.
        tolerance: of their residual, over the first.
    """

    def posterior(x: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            noised = x.detach().requires_grad_()
            field = denoise(noised, sigma)
            held = field.detach().requires_grad_()
            seen = observe(held)

        def back(v: Tensor) -> Tensor:
            """V A^T v."""
            (in_field,) = torch.autograd.grad(seen, held, v, retain_graph=True)
            (in_noised,) = torch.autograd.grad(field, noised, in_field, retain_graph=True)
            return sigma**2 * (in_noised if covariance is None else covariance(in_noised))

        def product(v: Tensor) -> Tensor:
            """(N + A V A^T) v."""
            forward = cast(Tensor, torch.autograd.functional.jvp(observe, held.detach(), back(v))[1])
            return variance * v + forward

        mismatch = (data - seen).detach()
        return field.detach() + back(conjugate_gradients(product, mismatch, iterations, tolerance))

    return posterior
