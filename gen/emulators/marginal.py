"""The one-point law of a field given the parameters, as a monotone map from a standard normal."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gen.emulators.regression import Polynomial
from gen.fields import ParameterSpace


class Marginal(nn.Module):
    r"""``q(x; theta)``: the value whose cumulative probability is that of a normal score ``x``.

    Piecewise linear between ``n_nodes`` equidistant scores in ``[-reach, reach]``, linear beyond. The
    logarithms of the steps are regressed on the parameters, so that q is increasing everywhere. Both
    directions have gradients with respect to the field and the parameters.

    Args:
        logarithmic: be piecewise linear in ln q instead, for positive fields that span decades.
    """

    def __init__(
        self,
        space: ParameterSpace,
        n_nodes: int = 129,
        reach: float = 4.25,
        degree: int = 3,
        *,
        logarithmic: bool = False,
    ) -> None:
        super().__init__()
        self.n_nodes, self.reach, self.logarithmic = n_nodes, reach, logarithmic
        self.step = 2 * reach / (n_nodes - 1)
        #: Where the steps start from: the median, or of logarithms where the mass is.
        self.anchor = round(((2 if logarithmic else 0) + reach) / self.step)
        self.shape = Polynomial(space, n_nodes, degree)

    def scores(self, like: Tensor) -> Tensor:
        """The nodes, ``(n_nodes,)``."""
        return torch.linspace(-self.reach, self.reach, self.n_nodes, dtype=like.dtype, device=like.device)

    def fit(self, params: Tensor, quantiles: Tensor) -> None:
        """From the quantiles ``(M, n_nodes)`` at the nodes for ``M`` cosmologies.

        Of few fields the outer steps scatter, and the mean of their logarithms is below that of their
        mean: each step is raised to have the right mean over the cosmologies (Duan 1983, JASA 78, 605).
        """
        quantiles = quantiles.log() if self.logarithmic else quantiles
        steps = quantiles.double().diff(dim=-1)
        tiny = 1e-6 * steps.sum(-1, keepdim=True)
        log_steps = torch.maximum(steps, tiny).log()
        scale = log_steps.exp().sum(-1, keepdim=True)
        start = quantiles.double()[:, self.anchor, None] / (1 if self.logarithmic else scale)
        self.shape.fit(params, torch.cat([start, log_steps], -1))
        predicted = self.shape(params.to(self.shape.coefficients))[:, 1:].double().exp()
        smearing = log_steps.exp().mean(0).log() - predicted.mean(0).log()
        self.shape.coefficients[0, 1:] += smearing.to(self.shape.coefficients)

    @torch.no_grad()
    def fit_tails(self, params: Tensor, members: Sequence[Tensor], reach: float) -> None:
        """Beyond ``reach``, the steps that the fields of all cosmologies have together.

        What cells are above the law's own value at ``reach`` is pooled, as if the tail did not depend on the
        parameters; one field of each cosmology ends where all together still tell the law. A tail that is
        prolonged instead makes a few cells, and with them the power of such a field, too large at random.

        Args:
            params: ``(M, P)`` of the cosmologies.
            members: the values of each, taken as ``fit`` takes them.
        """
        params = params.to(self.shape.coefficients)
        nodes, scores = self.nodes(params), self.scores(params).double()
        last = int((scores <= reach + 1e-6).sum()) - 1
        first = self.n_nodes - 1 - last
        outer = torch.special.ndtr(-scores[last:])
        for sign, node, place in ((1, last, slice(1 + last, self.n_nodes)), (-1, first, slice(1, 1 + first))):
            ends = zip(members, nodes[:, node], strict=True)
            beyond = torch.cat([(sign * (m.flatten().double() - end)).clamp(min=0) for m, end in ends])
            height = beyond.topk(int(outer[0] * len(beyond)) + 2).values
            rank = (outer * len(beyond) - 0.5).clamp(0, len(height) - 2)
            low = rank.floor().long()
            steps = (height[low] + (rank - low) * (height[low + 1] - height[low])).diff()
            steps = steps.clamp(min=1e-3 * float(height[0]) + 1e-12).log().to(self.shape.coefficients)
            self.shape.coefficients[:, place] = 0
            self.shape.coefficients[0, place] = steps if sign > 0 else steps.flip(0)
        shape = self.shape(params)
        shape[:, 0] = nodes[:, self.anchor] / (1 if self.logarithmic else shape[:, 1:].exp().sum(1))
        self.shape.fit(params, shape)

    def nodes(self, params: Tensor) -> Tensor:
        """q at the nodes, or its logarithm, ``(B, n_nodes)``."""
        start, log_steps = self.shape(params).split([1, self.n_nodes - 1], -1)
        steps = log_steps.exp()
        climbed = torch.cat([torch.zeros_like(start), steps.cumsum(-1)], -1)
        scale = 1 if self.logarithmic else steps.sum(-1, keepdim=True)
        return climbed - climbed[:, self.anchor, None] + start * scale

    def _interpolate(self, low: Tensor, slope: Tensor, offset: Tensor, cell: Tensor) -> Tensor:
        batch, shape = cell.shape[0], cell.shape
        cell = cell.reshape(batch, -1)
        return low.gather(1, cell).reshape(shape) + slope.gather(1, cell).reshape(shape) * offset

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Values ``(B, ...)`` of normal scores ``(B, ...)`` at ``(B, P)`` parameters."""
        nodes = self.nodes(params)
        position = (x.detach() + self.reach) / self.step
        cell = position.floor().clamp(0, self.n_nodes - 2).long()
        offset = x - (cell * self.step - self.reach)
        made = self._interpolate(nodes[:, :-1], nodes.diff(dim=-1) / self.step, offset, cell)
        return made.exp() if self.logarithmic else made

    def inverse(self, values: Tensor, params: Tensor) -> Tensor:
        """Normal scores of values, the inverse of ``forward``."""
        nodes = self.nodes(params)
        values = values.log() if self.logarithmic else values
        flat = values.detach().reshape(len(values), -1).contiguous()
        cell = (torch.searchsorted(nodes.detach(), flat) - 1).clamp(0, self.n_nodes - 2)
        slope = self.step / nodes.diff(dim=-1)
        low = nodes[:, :-1].gather(1, cell).reshape(values.shape)
        score = (cell * self.step - self.reach).reshape(values.shape)
        return score + slope.gather(1, cell).reshape(values.shape) * (values - low)

    def scale(self, params: Tensor) -> Tensor:
        """Half the distance between the values at scores -1 and 1, ``(B,)``."""
        nodes, one = self.nodes(params), round(1 / self.step)
        middle = self.n_nodes // 2
        high, low = nodes[:, middle + one], nodes[:, middle - one]
        return (high.exp() - low.exp()) / 2 if self.logarithmic else (high - low) / 2

    def hermite(self, params: Tensor, order: int = 24) -> Tensor:
        """Variance of q, or of ln q, in each Hermite order 1..order, ``a_n^2`` ``(B, order)``, float64.

        For a Gaussian pair of correlation rho, the mapped pair has covariance ``sum_n a_n^2 rho^n``
        (Mehler's formula), with ``a_n = E[q(x) He_n(x)] / sqrt(n!)``.
        """
        x = torch.linspace(-7, 7, 2801, dtype=torch.float64)
        weight = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
        params = params.double()
        q = self.double_copy()(x.expand(len(params), -1), params)
        q = q.log() if self.logarithmic else q
        previous, current = torch.ones_like(x), x
        squares = []
        for n in range(1, order + 1):
            squares.append((q * current * weight).sum(-1) ** 2)
            previous, current = current, (x * current - math.sqrt(n) * previous) / math.sqrt(n + 1)
        return torch.stack(squares, -1)

    def double_copy(self) -> Marginal:
        """The same law in float64."""
        return copy.deepcopy(self).double()


def empirical_quantiles(values: Tensor, scores: Tensor) -> Tensor:
    """Quantiles of all pixels of ``values`` at normal ``scores``, float64."""
    ordered = values.flatten().sort().values.double()
    rank = torch.special.ndtr(scores.double()) * len(ordered) - 0.5
    rank = rank.clamp(0, len(ordered) - 1)
    low = rank.floor().long().clamp(max=len(ordered) - 2)
    return ordered[low] + (rank - low) * (ordered[low + 1] - ordered[low])
