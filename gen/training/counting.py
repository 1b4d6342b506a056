"""Two-phase counts in training: their likelihood as the loss, and as what chooses the best emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.emulators.counts import GalaxyCounts, log_likelihood
from gen.errors import InputError
from gen.fields import Grid
from gen.training.fidelity import RegressionLoss
from gen.training.paired_validation import PairedValidation

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


@dataclass(frozen=True)
class TwoPhase(RegressionLoss):
    """Cross-entropy of the occupation, and Poisson likelihood without zero of the counts where there are any.

    ``occupation``: -ln P(occupied or not), mean over cells. ``number``: -ln P(count | occupied), mean over
    occupied cells. Each moves its own network only, so their weights do not matter. No class is given more
    weight than it has: probabilities that galaxies are drawn by must be right (Zhang et al. 2019,
    arXiv:1902.05965, weigh occupied cells 20 times and take the likelier class).
    """

    def terms(self, made: Tensor, true: Tensor, scale: Tensor, grid: Grid) -> dict[str, Tensor]:
        """``made``: logit p and ln lambda, ``(B, 2, *shape)``; ``true``: counts ``(B, 1, *shape)``."""
        del scale, grid
        if made.shape[1] != 2 or true.shape[1] != 1:
            raise InputError(
                f"TwoPhase needs the two laws of GalaxyCounts and one channel of counts, got {made.shape[1]} "
                f"and {true.shape[1]} channels"
            )
        first, second = log_likelihood(made, true)
        return {"occupation": -first.mean(), "number": -second.sum() / (true > 0).sum().clamp(min=1)}


class CountValidation(PairedValidation):
    """As ``PairedValidation`` of drawn galaxies, with a score that needs no drawing.

    ``score``: -ln P of the true counts over that of painting by density alone; 1 is no better. ``occupation``
    and ``number``: the same of each phase.

    Args:
        emulator: the one that is judged at every call, whatever it has become.
    """

    def __init__(self, reference: SimulationSet, n: int, emulator: GalaxyCounts) -> None:
        super().__init__(reference, n, emulator)
        self.emulator = emulator
        self.by_density = self._losses(start=True)

    def __call__(self, values: Tensor) -> dict[str, float]:
        result, made = super().__call__(values), self._losses(start=False)
        ratio = made / self.by_density.clamp(min=1e-30)
        score = made.sum() / self.by_density.sum()
        return {**result, "score": float(score), "occupation": float(ratio[0]), "number": float(ratio[1])}

    @torch.no_grad()
    def _losses(self, *, start: bool) -> Tensor:
        """Sums over cells of -ln P in each phase, ``(2,)``."""
        emulator = self.emulator
        total = torch.zeros(2, dtype=torch.float64)
        for rows in torch.arange(len(self)).split(16):
            given = (x[rows].to(emulator.device) for x in (self.coarse, self.params))
            laws = emulator.start_of(*given) if start else emulator.predict(*given)
            parts = log_likelihood(laws.float().cpu(), self.true[rows])
            total -= torch.stack([part.double().sum() for part in parts])
        return total
