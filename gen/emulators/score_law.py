"""The law of a network's scores, measured after training so that fields of them have the one-point law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.special import ndtr

from gen.emulators.log_marginal import LogMarginal, increasing, through
from gen.emulators.marginal import at_rank, empirical_quantiles
from gen.emulators.regression import Polynomial
from gen.fields import ParameterSpace


class ScoreLaw(nn.Module):
    """Where the nodes of a ``LogMarginal`` lie among scores that ought to be normal and are not quite.

    A network that is trained for morphology moves the one-point law of its scores by some per cent, which
    over decades of density is what shows first. The law is monotone, so that level sets, all that there is of
    morphology, stay as they are. Nothing moves before ``fit``.

    Args:
        law: that the fields are to have.
    """

    def __init__(
        self, law: LogMarginal, space: ParameterSpace, degree: int, knots: Mapping[str, Sequence[float]]
    ) -> None:
        super().__init__()
        self.shift = Polynomial(space, law.n_nodes, degree, knots)

    def places(self, law: LogMarginal, params: Tensor) -> Tensor:
        """Scores ``(B, n_nodes)`` of the law's nodes, increasing."""
        return increasing(law.places(params) + self.shift(params))

    @torch.no_grad()
    def fit(self, law: LogMarginal, params: Tensor, scores: Sequence[Tensor]) -> None:
        """From scores ``(B, ...)`` made at each of ``M`` cosmologies ``(M, P)``."""
        wanted = law.places(params.to(self.shift.coefficients)).double()
        shift = torch.stack([_quantiles(y, x) - x for y, x in zip(scores, wanted, strict=True)])
        self.shift.fit(params, shift)
        # Fields of one law scatter, and the mean of their quantiles lies inside those of their mixture.
        place = self.places(law, params.to(self.shift.coefficients)).double()
        laws = zip(scores, place, wanted, strict=True)
        normal = [through(here[None], there[None], y.double().reshape(1, -1))[0] for y, here, there in laws]
        grid = torch.linspace(-4, 4, 257, dtype=torch.float64)
        seen = empirical_quantiles(torch.cat(normal), grid) - grid
        missing = through(grid[None], seen[None], wanted[None])[0]
        self.shift.coefficients[0] += missing.mean(0).to(self.shift.coefficients)


def _quantiles(values: Tensor, scores: Tensor) -> Tensor:
    """Quantiles at normal scores; beyond what the values tell, their distance to the scores stays."""
    ordered = values.flatten().sort().values.double()
    rank = ndtr(scores) * len(ordered) - 0.5
    told = ((rank >= 4) & (rank <= len(ordered) - 5)).nonzero().flatten()
    nearest = torch.arange(len(scores)).clamp(int(told[0]), int(told[-1]))
    return scores + (at_rank(ordered, rank[nearest]) - scores[nearest])
