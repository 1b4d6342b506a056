"""Real against real: how far two sets of true maps differ, at the numbers and in the structure at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evaluation.ks import ks_distances
from evaluation.resampling import bootstrap_weights, drawn_weights, half_splits
from evaluation.variance import Components, Side

N_SPLITS = 200
N_DRAWS = 100


@dataclass(frozen=True, eq=False)
class Floor:
    """The reference against itself.

    Random halves of the boxes of every stratum differ by a variance ``split (n_strata, n_bins)``, in units of
    ``scale`` squared; true maps in the structure of the samples would differ from the reference by
    ``target``. Distances between halves are scaled by the root of the ratio.
    """

    scale: np.ndarray
    halves: np.ndarray  # (n_boxes, N_SPLITS) boolean
    reference: Side
    samples: Side
    seed: int
    split: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, reference: Side, samples: Side, scale: np.ndarray, seed: int) -> Floor:
        boxes = reference.boxes
        halves = half_splits(boxes, N_SPLITS, np.random.default_rng([seed, 2]))
        components = Components.of(reference, scale)
        split = np.zeros_like(scale)
        for s in range(boxes.n_strata):
            rows = boxes.box_stratum == s
            for label in (halves[rows], ~halves[rows]):
                n, squares = boxes.size[rows] @ label, boxes.size[rows] ** 2 @ label
                split[s] += components.between * (squares / n**2).mean() + components.within * (1 / n).mean()
        target = components.of_difference(boxes, samples.boxes)
        return cls(scale, halves, reference, samples, seed, split, target)

    @property
    def distance(self) -> float:
        """Root mean square over bins of the mean of z over strata, expected of true maps."""
        return math.sqrt(nanmean(self.target.mean(0)) / len(self.target))

    @property
    def conditional(self) -> float:
        """The same with the squares taken in each stratum."""
        return math.sqrt(nanmean(self.target.mean(0)))

    def split_distances(self) -> np.ndarray:
        """``(N_SPLITS,)`` distances of real halves, scaled to the samples' numbers; rms ``distance``."""
        first, second = self.halves.T.astype(float), (~self.halves).T.astype(float)
        z = (self.reference.means(first) - self.reference.means(second)) / self.scale
        return rms(z.mean(1)) * math.sqrt(nanmean(self.target.mean(0)) / nanmean(self.split.mean(0)))

    def ks(self, vectors: np.ndarray) -> np.ndarray:
        """``(n_bins,)`` mean KS D of real against real at the same numbers, from the reference's vectors.

        The reference's boxes resampled, against maps drawn from it in the number and boxes of the samples.
        (D of halves cannot be scaled: its size depends on how alike the maps of a box are.)
        """
        boxes = self.reference.boxes
        rng = np.random.default_rng([self.seed, 3])
        first = bootstrap_weights(boxes, N_DRAWS, rng)[:, boxes.box].T
        second = drawn_weights(boxes, self.samples.boxes, N_DRAWS, rng)
        gap = np.empty_like(first)
        for s in range(boxes.n_strata):
            rows = boxes.stratum == s
            gap[rows] = first[rows] / first[rows].sum(0) - second[rows] / second[rows].sum(0)
        z = (vectors - self.reference.centre[boxes.stratum]) / self.scale[boxes.stratum]
        return ks_distances(np.nan_to_num(z), gap / boxes.n_strata).mean(0).astype(float)


def nanmean(x: np.ndarray) -> float:
    """Mean over the bins that have a scatter; NaN, without a warning, if none has."""
    good = np.isfinite(x)
    return float(x[good].mean()) if good.any() else math.nan


def rms(z: np.ndarray) -> np.ndarray:
    """Root mean square over the last axis, of the bins that have a scatter."""
    good = np.isfinite(z)
    n = good.sum(-1)
    total = np.where(good, z, 0.0) ** 2
    return np.sqrt(total.sum(-1) / np.where(n > 0, n, np.nan))
