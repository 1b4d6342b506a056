"""The law of a network's scores, measured after training so that fields of them have the one-point law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.special import ndtr, ndtri

from gen.emulators.marginal import OnePointLaw, at_rank, empirical_quantiles
from gen.emulators.piecewise import increasing, through
from gen.emulators.regression import Polynomial

if TYPE_CHECKING:
    from gen.emulators.copula import Copula

FEWEST = 5
"""Cells that must lie beyond a quantile for it to be known."""


class ScoreLaw(nn.Module):
    """Where the nodes of a one-point law lie among scores that ought to be normal and are not quite.

    A network that is trained for morphology moves the one-point law of its scores by some per cent, which
    over decades of density is what shows first. The law is monotone, so that level sets, all that there is of
    morphology, stay as they are. Nothing moves before ``fit``.

    Args:
        copula: whose law the fields are to have.
    """

    later: ClassVar[Mapping[str, float]] = {"shift.coefficients": 0.0}

    def __init__(self, copula: Copula) -> None:
        super().__init__()
        self.shift = Polynomial(copula.space, copula.marginal.n_nodes, copula.degree, copula.knots)

    def places(self, law: OnePointLaw, params: Tensor) -> Tensor:
        """Scores ``(B, n_nodes)`` of the law's nodes, increasing."""
        return increasing(law.places(params) + self.shift(params))

    @torch.no_grad()
    def fit(
        self,
        law: OnePointLaw,
        params: Tensor,
        scores: Sequence[Tensor],
        normal: Sequence[Tensor] | None = None,
    ) -> None:
        """From scores ``(B, ...)`` made at each of ``M`` cosmologies ``(M, P)``.

        Args:
            normal: scores that are normal, of the closed form and the same noise, if there are: they share
                most of their scatter with those that are made.
        """
        wanted = law.places(params.to(self.shift.coefficients)).double()
        expected = wanted if normal is None else map(_quantiles, normal, wanted)
        shift = [_quantiles(y, x) - q for y, x, q in zip(scores, wanted, expected, strict=True)]
        self.shift.fit(params, torch.stack(shift))
        # Fields of one law scatter, and the mean of their quantiles lies inside those of their mixture.
        place = self.places(law, params.to(self.shift.coefficients)).double()
        laws = zip(scores, place, wanted, strict=True)
        mended = [through(here[None], there[None], y.double().reshape(1, -1))[0] for y, here, there in laws]
        told = float(ndtri(torch.tensor(1 - FEWEST / sum(map(len, mended)), dtype=torch.float64)))
        grid = torch.linspace(-min(told, 4), min(told, 4), 257, dtype=torch.float64)
        aim = grid if normal is None else empirical_quantiles(torch.cat([*normal]), grid)
        seen = empirical_quantiles(torch.cat(mended), grid) - aim
        missing = through(grid[None], seen[None], wanted[None].clamp(grid[0], grid[-1]))[0]
        self.shift.coefficients[0] += missing.mean(0).to(self.shift.coefficients)


def _quantiles(values: Tensor, scores: Tensor) -> Tensor:
    """Quantiles at normal scores; beyond what the values tell, their distance to the scores stays."""
    ordered = values.flatten().sort().values.double()
    rank = ndtr(scores) * len(ordered) - 0.5
    told = ((rank >= FEWEST - 1) & (rank <= len(ordered) - FEWEST)).nonzero().flatten()
    nearest = torch.arange(len(scores)).clamp(int(told[0]), int(told[-1]))
    return scores + (at_rank(ordered, rank[nearest]) - scores[nearest])
