"""Gaussian fields of which some waves are given: the rest drawn from what the copula leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from gen.diffusion.conjugate_gradients import conjugate_gradients

if TYPE_CHECKING:
    from gen.emulators.copula import Copula
    from gen.nets.autoencoder import BlockTransform

ITERATIONS, TOLERANCE = 64, 1e-2
"""Of conjugate gradients; what they leave of the waves is taken over from z."""

Linear = Callable[[Tensor], Tensor]


def completed(
    copula: Copula, blocks: BlockTransform, z: Tensor, params: Tensor, white: Tensor, margin: int = 0
) -> Tensor:
    r"""Normal scores ``(B, 1, *(shape + 2 margin))`` with the waves z of blocks, drawn from the copula's law.

    With C the covariance of the copula's Gaussian field g, and T the transform of blocks,

        y = g + C T^t (T C T^t)^-1 (z - T g)

    has the waves z and, where these are those of a field of the copula, its law (Hoffman & Ribak 1991, ApJ
    380, L5). What of a field its waves z do not tell is thus not blurred but drawn, with the power that
    belongs there.

    Args:
        z: ``(B, channels, *(shape / factor))``; the result is differentiable in it.
        params: ``(B, P)``.
        white: of ``copula.white`` with the same margin, as rows ``(B, N)``; zeros for the mean of all fields.
        margin: cells around the field that are drawn too.
    """
    shape = [n * blocks.factor for n in z.shape[2:]]
    covariance = copula.covariance_at(params, [n + 2 * margin for n in shape])
    inner = (..., *(slice(margin, margin + n) for n in shape))
    around = [margin] * (2 * len(shape))

    def waves(y: Tensor) -> Tensor:
        return blocks(y[inner])

    def strewn(v: Tensor) -> Tensor:
        """C T^t v."""
        return covariance(pad(blocks.adjoint(v), around))

    def solved(r: Tensor) -> Tensor:
        return conjugate_gradients(lambda v: waves(strewn(v)), r, ITERATIONS, TOLERANCE)

    g = copula.gaussian(params, white, shape, margin)
    y = g + linear(z - waves(g), lambda r: strewn(solved(r)), lambda v: solved(waves(covariance(v))))
    return y + pad(blocks.inverse(z - waves(y)), around)


def linear(x: Tensor, forward: Linear, adjoint: Linear) -> Tensor:
    """``forward(x)``, whose derivatives of any order are made with ``adjoint`` and not through its steps."""
    return _Linear.apply(x, forward, adjoint)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Linear, adjoint: Linear) -> Tensor:
        ctx.maps = forward, adjoint
        return forward(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        forward, adjoint = ctx.maps
        return linear(gradient[0], adjoint, forward), None, None
