"""What the copula gets wrong, as a loss: the gap between summaries of real fields and of the copula's."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from gen.emulators.regression import Polynomial
from gen.fields import ParameterSpace
from gen.nets.polarised_summaries import PolarisedSummaries
from gen.nets.summaries import Summaries

S = TypeVar("S", Summaries, PolarisedSummaries)


class SummaryGap(nn.Module, Generic[S]):
    r"""Conditional moments of the summaries, matched with the copula field as a control variate.

    With s(y) the standardised summaries of a field (``gen.nets.summaries``), g the copula field that a
    generated field y was made from and D(theta) the gap ``E[s(real)] - E[s(g)]`` regressed over the training
    simulations, a generator has the right means at every cosmology if and only if

    ``E[ phi(theta) (s(y) - s(g) - D(theta)) ] = 0`` for all functions phi.

    Pairing y with its own g removes most of the scatter between fields, so that a batch of 32 sees biases
    far below one field's scatter, and using the simulations' means rather than a batch of real fields
    removes the rest. The second moments are treated alike. The loss is the mean square over summaries and
    over phi up to second order in the parameters, estimated without bias from two halves of the batch.
    """

    phi_weights: Tensor
    summaries: S

    def __init__(self, summaries: S, space: ParameterSpace, degree: int = 3) -> None:
        super().__init__()
        self.summaries = summaries
        n = self.summaries.n_outputs
        self.centre = Polynomial(space, n, degree)
        self.first = Polynomial(space, n, degree)
        self.second = Polynomial(space, n, degree)
        weights = [math.sqrt(3.0) ** len(m) for m in self.centre.monomials if len(m) <= 2]
        self.register_buffer("phi_weights", torch.tensor(weights), persistent=False)

    @torch.no_grad()
    def fit(self, real: tuple[Tensor, Tensor], copula: tuple[Tensor, Tensor], params: Tensor) -> None:
        """Measure the gap from ``(scores, linear fields)`` of both kinds at the same parameters."""
        self.summaries.fit(*real)
        ours, theirs = (self._all(*fields) for fields in (real, copula))
        self.centre.fit(params, ours)
        ours, theirs = ours - self.centre(params), theirs - self.centre(params)
        self.first.fit(params, ours - theirs)
        self.second.fit(params, _square(ours) - _square(theirs))

    def _all(self, y: Tensor, linear: Tensor) -> Tensor:
        parts = zip(y.split(32), linear.split(32), strict=True)
        return torch.cat([self.summaries(*part) for part in parts])

    def forward(self, made: tuple[Tensor, Tensor], copula: tuple[Tensor, Tensor], params: Tensor) -> Tensor:
        """The loss of generated fields made from these copula fields, each ``(scores, linear)``."""
        centre = self.centre(params)
        s = self.summaries(*made) - centre
        with torch.no_grad():
            s0 = self.summaries(*copula) - centre
            first, second = self.first(params), self.second(params)
            phi = self.centre.features(params)[:, : len(self.phi_weights)] * self.phi_weights
        residuals = torch.cat([s - s0 - first, 0.5 * (_square(s) - _square(s0) - second)], 1)
        moments = torch.einsum("bm,bf->bmf", phi, residuals)
        one, other = moments.chunk(2)
        return (one.mean(0) * other.mean(0)).sum(0).mean()


def _square(s: Tensor) -> Tensor:
    """Squares, bounded: beyond a few sigma they say nothing that the mean does not."""
    return s.clamp(-4, 4).square()
