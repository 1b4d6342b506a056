"""Samples of one law and of two, on which every test of two samples is tried, and what chance allows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from test_compare import N_BINS, draw

from evaluation.base import Measured

PValue = Callable[[Measured, Measured, int], float]  # of reference, samples, seed
Structure = tuple[int, int, float, int, int]  # boxes, maps in each, how alike, strata, samples in each


def chance(n: int, level: float = 0.05) -> float:
    """The share of n p-values of equal laws below ``level`` that 4 binomial errors allow."""
    return level + 4 * math.sqrt(level * (1 - level) / n)


def under_equal_laws(
    p_value: PValue, structure: Structure, n: int, steps: float, seed: int, n_bins: int = N_BINS
) -> np.ndarray:
    """``(n,)`` p-values, each spread evenly over its step of 1 / ``steps``, which makes them continuous."""
    boxes, maps, alike, strata, samples = structure
    rng = np.random.default_rng(seed)
    found = []
    for t in range(n):
        a = draw(rng, boxes, maps, alike, strata, n_bins=n_bins)
        b = draw(rng, samples, 1, 0.0, strata, n_bins=n_bins)
        found.append(p_value(a, b, t) - rng.random() / steps)
    return np.array(found)


def of_pooled_boxes(p_value: PValue, n: int, seed: int) -> np.ndarray:
    """``(n,)`` p-values where 64 maps of 8 boxes are given out as independent: too small."""
    rng = np.random.default_rng(seed)
    found = []
    for t in range(n):
        a, b = draw(rng, 8, 8, 0.6), draw(rng, 64, 1)
        found.append(p_value(Measured(a.vectors, np.arange(64), a.stratum), b, t))
    return np.array(found)


def other_laws(seed: int) -> tuple[Measured, Measured, list[Measured]]:
    """A reference, samples of its law, and samples moved, wider, and without correlations, 512 of each."""
    rng = np.random.default_rng(seed)
    reference, equal = draw(rng, 512, 1), draw(rng, 512, 1)
    shuffled = Measured(rng.permuted(equal.vectors, axis=0), equal.simulation, equal.stratum)
    return reference, equal, [draw(rng, 512, 1, shift=0.3), draw(rng, 512, 1, spread=1.25), shuffled]
