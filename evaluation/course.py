"""A few numbers of each field along courses through a latent space, judged in the middle of the courses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Measured
from evaluation.hotelling import hotelling
from evaluation.pdf import Moments
from evaluation.power import PowerSpectrum
from gen.errors import InputError
from gen.fields import Grid

FEWEST = 8  # courses that Hotelling's test needs for five numbers
SIGNIFICANCE = 0.01  # of the words "consistent" and "differs"
APODISE = 0.25  # tapered part of the side of fields that are not periodic, as in the standard report


class FieldNumbers:
    """Standard deviation, skewness, and mean power in up to three bands of equal ratio, of each field.

    Args:
        grid: the grid of the fields, 2D or 3D. ``bands`` are (low, high) of each [grid.k_unit].
    """

    def __init__(self, grid: Grid) -> None:
        self.power = PowerSpectrum(grid, bins=3, apodise=None if grid.periodic else APODISE)
        self.bands = list(pairwise(self.power.edges.tolist()))
        self.unit = self.power.unit

    def __len__(self) -> int:
        return 2 + len(self.bands)

    def __call__(self, values: Tensor) -> np.ndarray:
        """``(B, C, *shape)`` -> ``(B, 2 + n_bands)`` float64, of the first channel."""
        first = values[:, :1]
        return torch.cat([Moments()(first)[:, 1:3], self.power(first)], 1).numpy()

    def to_list(self) -> list[dict[str, Any]]:
        """What each number is."""
        powers = [{"name": "power", "k": list(band), "k_unit": self.unit} for band in self.bands]
        return [{"name": "std"}, {"name": "skewness"}, *powers]


@dataclass(frozen=True, eq=False)
class Course:
    """Numbers ``(n_courses, steps, n)`` along courses, their middle compared with fields drawn afresh.

    ``shift (n,)`` is the middle's mean less that of the draws and ``error (n,)`` its standard error, both in
    units of the scatter of the draws; ``p`` is Hotelling's, of equal mean vectors.
    """

    values: np.ndarray
    shift: np.ndarray
    error: np.ndarray
    p: float

    @classmethod
    def of(cls, values: np.ndarray, draws: np.ndarray) -> Course:
        """From courses of an odd number of steps and independent draws ``(n_draws, n)``.

        Raises:
            InputError: for too few courses or draws, and for numbers that are not finite or do not vary.
        """
        if values.shape[1] % 2 == 0:
            raise InputError(f"a course needs an odd number of steps to have a middle, got {values.shape[1]}")
        middle = values[:, values.shape[1] // 2]
        p = hotelling(_independent(draws), _independent(middle)).p
        scatter = draws.std(0, ddof=1)
        error = np.hypot(standard_error(middle), standard_error(draws))
        return cls(values, (middle.mean(0) - draws.mean(0)) / scatter, error / scatter, p)

    @property
    def verdict(self) -> str:
        return "differs" if self.p < SIGNIFICANCE else "consistent at this n"

    def mean(self, i: int) -> np.ndarray:
        """Mean of number i and its error at every step, ``(2, steps)``."""
        v = self.values[:, :, i]
        return np.stack([v.mean(0), standard_error(v)])

    def to_dict(self) -> dict[str, Any]:
        middle = {"shift": self.shift.tolist(), "error": self.error.tolist(), "p": self.p}
        return {
            "mean": self.values.mean(0).tolist(),
            "std": self.values.std(0, ddof=1).tolist(),
            "middle": middle | {"verdict": self.verdict},
        }


def standard_error(x: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis."""
    return x.std(0, ddof=1) / len(x) ** 0.5


def _independent(vectors: np.ndarray) -> Measured:
    return Measured(vectors, np.arange(len(vectors)), np.zeros(len(vectors), dtype=np.int64))
