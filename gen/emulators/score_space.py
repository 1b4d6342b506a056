"""Emulators that sample normal scores of fields, and what makes fields of these."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from gen.emulators.latent import LatentSpace
from gen.emulators.power_filter import PowerFilter
from gen.emulators.score_law import ScoreLaw
from gen.fields import Grid, ParameterSpace

if TYPE_CHECKING:
    from gen.emulators.copula import Copula


class ScoreSpace(LatentSpace):
    """Scores y through a filter of their power, a law of what they are instead of normal, and the marginal.

    Filter and law are measured once the emulator is trained (``gen.emulators.calibration``), if at all.
    """

    def __init__(self, grid: Grid, space: ParameterSpace, field: str, unit: str) -> None:
        super().__init__(grid, space, field, unit)
        self.filter: PowerFilter | None = None
        self.score_law: ScoreLaw | None = None

    @property
    @abstractmethod
    def closed_form(self) -> Copula:
        """The law of normal scores and their spectrum that fields are made of."""

    def finished(self, scores: Tensor, params: Tensor) -> Tensor:
        """Fields in physical units of scores as they are sampled."""
        scores = scores if self.filter is None else self.filter(scores, params)
        return self.closed_form.marginal(scores, params, self._places(params))

    def mended(self, values: Tensor, params: Tensor) -> Tensor:
        """Scores of fields before they were finished, but for the filter."""
        return self.closed_form.marginal.inverse(values, params, self._places(params))

    def sampled(self, values: Tensor, params: Tensor) -> Tensor:
        """The inverse of ``finished``."""
        scores = self.mended(values, params)
        return scores if self.filter is None else self.filter(scores, params, inverse=True)

    def _places(self, params: Tensor) -> Tensor | None:
        return None if self.score_law is None else self.score_law.places(self.closed_form.marginal, params)
