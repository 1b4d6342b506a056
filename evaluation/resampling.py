"""Simulations as the unit of resampling: permutations, splits and bootstraps of whole boxes.

Maps cut from one box share its structures, so neither maps nor pixels are independent draws; maps of
different parameters do not have one law. Everything here therefore moves whole boxes, inside a stratum
(one set of parameters).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.base import Measured
from gen.errors import InputError


@dataclass(frozen=True, eq=False)
class Boxes:
    """How the N maps of one sample lie in boxes and strata.

    box: ``(N,)`` box of each map, 0 ... n_boxes-1; stratum: ``(N,)``, 0 ... n_strata-1;
    size, box_stratum: ``(n_boxes,)`` maps in each box and the stratum it belongs to.
    """

    box: np.ndarray
    stratum: np.ndarray
    size: np.ndarray
    box_stratum: np.ndarray
    n_strata: int

    @classmethod
    def of(cls, simulation: np.ndarray, stratum: np.ndarray, n_strata: int) -> Boxes:
        """A box is one simulation at one set of parameters."""
        _, simulation = np.unique(simulation, return_inverse=True)
        key = stratum * (simulation.max() + 1) + simulation.reshape(-1)
        _, first, box, size = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        return cls(box.reshape(-1), stratum, size, stratum[first], n_strata)

    @property
    def n_boxes(self) -> int:
        return len(self.size)

    @property
    def per_stratum(self) -> np.ndarray:
        """``(n_strata,)`` boxes in each."""
        return np.bincount(self.box_stratum, minlength=self.n_strata)

    @property
    def maps(self) -> np.ndarray:
        """``(n_strata,)`` maps in each."""
        return np.bincount(self.stratum, minlength=self.n_strata)

    def sums(self, vectors: np.ndarray) -> np.ndarray:
        """``(n_boxes, n_bins)`` sum over the maps of each box."""
        out = np.zeros((self.n_boxes, vectors.shape[1]))
        np.add.at(out, self.box, vectors)
        return out

    def means(self, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``(R, n_strata, n_bins)`` means of each stratum, its boxes weighted by ``(R, n_boxes)``."""
        total, size = self.sums(vectors), self.size.astype(float)
        out = np.empty((len(weights), self.n_strata, vectors.shape[1]))
        for s in range(self.n_strata):
            rows = self.box_stratum == s
            out[:, s] = (weights[:, rows] @ total[rows]) / (weights[:, rows] @ size[rows])[:, None]
        return out

    def single_box_strata_as_maps(self) -> Boxes:
        """Where a stratum has one box only, its scatter is taken from its maps: each becomes a box."""
        alone = (self.per_stratum == 1)[self.stratum]
        simulation = np.where(alone, self.n_boxes + np.arange(len(self.box)), self.box)
        return Boxes.of(simulation, self.stratum, self.n_strata) if alone.any() else self

    def grouped(self, size: np.ndarray) -> Boxes:
        """Single maps joined, in order, to boxes of about ``size[stratum]`` maps; others as they are.

        Independent maps stay independent in any grouping; a permutation then exchanges equal with equal.
        """
        simulation = self.box.copy()
        for s in range(self.n_strata):
            single = np.flatnonzero((self.stratum == s) & (self.size[self.box] == 1))
            n_groups = max(1, len(single) // max(1, int(size[s])))
            simulation[single] = self.n_boxes + (np.arange(len(single)) * n_groups) // max(1, len(single))
        return Boxes.of(simulation, self.stratum, self.n_strata)


def common_strata(a: Measured, b: Measured) -> tuple[np.ndarray, np.ndarray, int]:
    """Strata of both samples as 0 ... n-1; refuses strata that only one of them has."""
    names = np.unique(a.stratum)
    if not np.array_equal(names, np.unique(b.stratum)):
        raise InputError(
            f"reference and samples must cover the same sets of parameters, got {len(names)} and "
            f"{len(np.unique(b.stratum))} with {len(np.intersect1d(names, b.stratum))} in common; "
            "sample at the reference's parameters"
        )
    return np.searchsorted(names, a.stratum), np.searchsorted(names, b.stratum), len(names)


def permutations(a: Boxes, b: Boxes, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(N_a + N_b, n+1)`` boolean: which maps count as the first sample; column 0 is the truth.

    Boxes change sides inside their stratum, each side keeping its number of boxes.
    """
    label = np.concatenate([np.ones(a.n_boxes, bool), np.zeros(b.n_boxes, bool)])
    label = np.repeat(label[:, None], n + 1, axis=1)
    stratum = np.concatenate([a.box_stratum, b.box_stratum])
    for s in range(a.n_strata):
        rows = np.flatnonzero(stratum == s)
        label[rows, 1:] = rng.permuted(label[rows, 1:], axis=0)
    return label[np.concatenate([a.box, a.n_boxes + b.box])]


def half_splits(a: Boxes, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(n_boxes, n)`` boolean: random halves of the boxes of every stratum."""
    label = np.zeros((a.n_boxes, n), bool)
    for s in range(a.n_strata):
        rows = np.flatnonzero(a.box_stratum == s)
        half = np.arange(len(rows)) < len(rows) // 2
        label[rows] = rng.permuted(np.repeat(half[:, None], n, axis=1), axis=0)
    return label


def side_weights(first: np.ndarray, stratum: np.ndarray, n_strata: int) -> np.ndarray:
    """``(N, R)`` weights whose sum over maps is mean(first) - mean(others), each stratum counting equally."""
    weights = np.empty(first.shape)
    for s in range(n_strata):
        rows = stratum == s
        label = first[rows]
        n_first = label.sum(0)
        weights[rows] = np.where(label, 1 / n_first, -1 / (rows.sum() - n_first)) / n_strata
    return weights


def bootstrap_weights(a: Boxes, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(n, n_boxes)`` weights of mean 1 that resample boxes inside each stratum.

    S - 1 of S boxes are drawn with replacement and weigh S/(S-1): the variance of a mean then comes out
    without bias even for two boxes (Rao & Wu 1988).
    """
    weights = np.ones((n, a.n_boxes))
    for s in range(a.n_strata):
        rows = np.flatnonzero(a.box_stratum == s)
        m = len(rows)
        if m > 1:
            weights[:, rows] = rng.multinomial(m - 1, np.full(m, 1 / m), size=n) * (m / (m - 1))
    return weights


def drawn_weights(a: Boxes, like: Boxes, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(N_a, n)`` how often each map of ``a`` is drawn, if maps are taken in the structure of ``like``.

    Single maps are drawn one by one, boxes as a whole; of k boxes k (S-1)/S are drawn from the S there are,
    which makes up for drawing from few.
    """
    weights = np.zeros((len(a.box), n))
    for s in range(a.n_strata):
        maps, boxes = np.flatnonzero(a.stratum == s), np.flatnonzero(a.box_stratum == s)
        sizes = like.size[like.box_stratum == s]
        single, large = (sizes == 1).sum(), sizes[sizes > 1]
        weights[maps] = rng.multinomial(single, np.full(len(maps), 1 / len(maps)), size=n).T
        if len(large):
            times = max(1, round(len(large) * (1 - 1 / len(boxes))))
            drawn = np.zeros((a.n_boxes, n))
            drawn[boxes] = rng.multinomial(times, np.full(len(boxes), 1 / len(boxes)), size=n).T
            drawn *= large.sum() / times / a.size[:, None]
            weights[maps] += drawn[a.box[maps]]
    return weights
