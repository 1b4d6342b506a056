"""The one-point law of a field given the parameters, as a monotone map from a standard normal."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from gen.emulators.piecewise import through
from gen.emulators.regression import Polynomial
from gen.fields import ParameterSpace


class OnePointLaw(nn.Module, ABC):
    """``q(x; theta)``: the value whose cumulative probability is that of a normal score ``x``, and back.

    Both directions have gradients with respect to the field and the parameters.
    """

    n_nodes: int

    @abstractmethod
    def fit_fields(self, params: Tensor, fields: Sequence[Tensor]) -> None:
        """From fields ``(B, ...)`` at each of ``M`` cosmologies ``(M, P)``."""

    @abstractmethod
    def places(self, params: Tensor) -> Tensor:
        """Scores of the nodes between which q is interpolated, ``(B, n_nodes)``, increasing."""

    @abstractmethod
    def forward(self, x: Tensor, params: Tensor, places: Tensor | None = None) -> Tensor:
        """Values ``(B, ...)`` of normal scores ``(B, ...)`` at ``(B, P)`` parameters.

        Of fields whose scores are not normal, given where those of the nodes lie.
        """

    @abstractmethod
    def inverse(self, values: Tensor, params: Tensor, places: Tensor | None = None) -> Tensor:
        """Scores of values, the inverse of ``forward``."""

    @abstractmethod
    def scale(self, params: Tensor) -> Tensor:
        """Half the distance between the values at scores -1 and 1, ``(B,)``."""

    def variable(self, x: Tensor, params: Tensor) -> Tensor:
        """What a two-point function is taken of, at scores x: the values."""
        return self(x, params)

    def of_values(self, values: Tensor) -> Tensor:
        """What a two-point function is taken of, of fields: their values."""
        return values

    def hermite(self, params: Tensor, order: int = 24) -> Tensor:
        """Variance of the variable in each Hermite order 1..order, ``a_n^2`` ``(B, order)``, float64.

        For a Gaussian pair of correlation rho, the mapped pair has covariance ``sum_n a_n^2 rho^n``
        (Mehler's formula), with ``a_n = E[q(x) He_n(x)] / sqrt(n!)``.
        """
        x = torch.linspace(-7, 7, 2801, dtype=torch.float64)
        weight = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
        params = params.double()
        q = self.double_copy().variable(x.expand(len(params), -1), params)
        previous, current = torch.ones_like(x), x
        squares = []
        for n in range(1, order + 1):
            squares.append((q * current * weight).sum(-1) ** 2)
            previous, current = current, (x * current - math.sqrt(n) * previous) / math.sqrt(n + 1)
        return torch.stack(squares, -1)

    def double_copy(self) -> Self:
        """The same law in float64."""
        return copy.deepcopy(self).double()


class Marginal(OnePointLaw):
    r"""``q(x; theta)``: the value whose cumulative probability is that of a normal score ``x``.

    Piecewise linear between ``n_nodes`` equidistant scores in ``[-reach, reach]``, linear beyond. The
    logarithms of the steps are regressed on the parameters, so that q is increasing everywhere.
    """

    def __init__(
        self, space: ParameterSpace, n_nodes: int = 129, reach: float = 4.25, degree: int = 3
    ) -> None:
        super().__init__()
        self.n_nodes, self.reach = n_nodes, reach
        self.step = 2 * reach / (n_nodes - 1)
        self.shape = Polynomial(space, n_nodes, degree)

    def scores(self, like: Tensor) -> Tensor:
        """The nodes, ``(n_nodes,)``."""
        return torch.linspace(-self.reach, self.reach, self.n_nodes, dtype=like.dtype, device=like.device)

    def fit_fields(self, params: Tensor, fields: Sequence[Tensor]) -> None:
        scores = self.scores(torch.zeros((), dtype=torch.float64))
        self.fit(params, torch.stack([empirical_quantiles(field, scores) for field in fields]))

    def fit(self, params: Tensor, quantiles: Tensor) -> None:
        """From the quantiles ``(M, n_nodes)`` at the nodes for ``M`` cosmologies.

        Of few fields the outer steps scatter, and the mean of their logarithms is below that of their
        mean: each step is raised to have the right mean over the cosmologies (Duan 1983, JASA 78, 605).
        """
        steps = quantiles.double().diff(dim=-1)
        tiny = 1e-6 * steps.sum(-1, keepdim=True)
        log_steps = torch.maximum(steps, tiny).log()
        middle, span = quantiles.double()[:, self.n_nodes // 2, None], log_steps.exp().sum(-1, keepdim=True)
        # The middle is in units of the span as it is predicted. A field's own scatters with a few cells of a
        # long tail, and the mean of a ratio is not the ratio of means.
        for _ in range(2):
            self.shape.fit(params, torch.cat([middle / span, log_steps], -1))
            predicted = self.shape(params.to(self.shape.coefficients))[:, 1:].double().exp()
            smearing = log_steps.exp().mean(0) / predicted.mean(0)
            self.shape.coefficients[0, 1:] += smearing.log().to(self.shape.coefficients)
            span = (smearing * predicted).sum(-1, keepdim=True)

    def fit_boxes(self, params: Tensor, boxes: Sequence[Tensor], empty: float) -> None:
        """From one box at each row of parameters ``(M, P)``, prolonged beyond what it tells.

        Args:
            empty: the value of empty cells.
        """
        scores = self.scores(torch.zeros((), dtype=torch.float64))
        told = [_prolonged(empirical_quantiles(box, scores), scores, empty, box.numel()) for box in boxes]
        self.fit(params, torch.stack(told))

    def nodes(self, params: Tensor) -> Tensor:
        """q at the nodes, ``(B, n_nodes)``."""
        start, log_steps = self.shape(params).split([1, self.n_nodes - 1], -1)
        steps = log_steps.exp()
        climbed = torch.cat([torch.zeros_like(start), steps.cumsum(-1)], -1)
        return climbed - climbed[:, self.n_nodes // 2, None] + start * steps.sum(-1, keepdim=True)

    def _interpolate(self, low: Tensor, slope: Tensor, offset: Tensor, cell: Tensor) -> Tensor:
        batch, shape = cell.shape[0], cell.shape
        cell = cell.reshape(batch, -1)
        return low.gather(1, cell).reshape(shape) + slope.gather(1, cell).reshape(shape) * offset

    def places(self, params: Tensor) -> Tensor:
        return self.scores(params).expand(len(params), -1)

    def forward(self, x: Tensor, params: Tensor, places: Tensor | None = None) -> Tensor:
        nodes = self.nodes(params)
        if places is not None:
            return through(places, nodes, x)
        position = (x.detach() + self.reach) / self.step
        cell = position.floor().clamp(0, self.n_nodes - 2).long()
        offset = x - (cell * self.step - self.reach)
        return self._interpolate(nodes[:, :-1], nodes.diff(dim=-1) / self.step, offset, cell)

    def inverse(self, values: Tensor, params: Tensor, places: Tensor | None = None) -> Tensor:
        nodes = self.nodes(params)
        if places is not None:
            return through(nodes, places, values)
        flat = values.detach().reshape(len(values), -1).contiguous()
        cell = (torch.searchsorted(nodes.detach(), flat) - 1).clamp(0, self.n_nodes - 2)
        slope = self.step / nodes.diff(dim=-1)
        low = nodes[:, :-1].gather(1, cell).reshape(values.shape)
        score = (cell * self.step - self.reach).reshape(values.shape)
        return score + slope.gather(1, cell).reshape(values.shape) * (values - low)

    def scale(self, params: Tensor) -> Tensor:
        nodes, one = self.nodes(params), round(1 / self.step)
        middle = self.n_nodes // 2
        return (nodes[:, middle + one] - nodes[:, middle - one]) / 2


def empirical_quantiles(values: Tensor, scores: Tensor) -> Tensor:
    """Quantiles of all pixels of ``values`` at normal ``scores``, float64."""
    ordered = values.flatten().sort().values.double()
    rank = torch.special.ndtr(scores.double()) * len(ordered) - 0.5
    return at_rank(ordered, rank.clamp(0, len(ordered) - 1))


def at_rank(ordered: Tensor, rank: Tensor) -> Tensor:
    """Values between two of ``ordered``, at ranks of 0 to its length less 1."""
    low = rank.floor().long().clamp(max=len(ordered) - 2)
    return ordered[low] + (rank - low) * (ordered[low + 1] - ordered[low])


def _prolonged(quantiles: Tensor, scores: Tensor, empty: float, n_cells: int, over: float = 0.5) -> Tensor:
    """Quantiles of one box, prolonged beyond those that it can tell, at the slope over ``over`` of scores.

    It can tell none beyond which it has but three cells; and none of empty cells, which are many, all of one
    value. Prolonged, the map from scores to values has an inverse there, and as many cells lie below
    ``empty`` as are empty.
    """
    outermost = torch.special.ndtri(torch.tensor(1 - 3 / n_cells)).double()
    reach = max(1, round(over / float(scores[1] - scores[0])))
    n_empty = int((quantiles <= empty + 1e-6).sum())
    last = int((scores <= outermost).sum()) - 1
    first = min(max(n_empty, len(scores) - 1 - last), last - 1)
    inner, outer = min(first + reach, last), max(first, last - reach)
    low = (quantiles[inner] - quantiles[first]) / (scores[inner] - scores[first])
    high = (quantiles[last] - quantiles[outer]) / (scores[last] - scores[outer])
    # Between the last empty quantile and the first one above, the values begin to rise.
    start = (quantiles[first], scores[first])
    if n_empty == first > 0:
        start = (quantiles.new_tensor(empty), (scores[first - 1] + scores[first]) / 2)
    below = (start[0] + low * (scores - start[1])).clamp(max=float(quantiles[first]))
    above = quantiles[last] + high * (scores - scores[last])
    made = torch.where(scores > scores[last], above, quantiles)
    return torch.where(scores < scores[first], below, made)
