"""Two-sample Kolmogorov-Smirnov tests whose p-values know which maps share a simulation."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import kolmogorov
from scipy.stats import ks_2samp

from evaluation.base import Measured, Sample, check_finite
from evaluation.resampling import Boxes, common_strata, permutations, side_weights


def ks_distances(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``(R, n_bins)`` largest gap of two cumulative distributions, for R ways of dividing N maps in two.

    vectors: ``(N, n_bins)``; weights: ``(N, R)``, positive for one side, negative for the other, each summing
    to 1 in size, as ``side_weights`` gives. Ties are stepped over together, so D is exact.
    """
    steps = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))
    out = np.empty((weights.shape[1], vectors.shape[1]), dtype=np.float32)
    for b, column in enumerate(np.ascontiguousarray(vectors.T)):
        order = np.argsort(column, kind="stable")
        gap = steps[torch.from_numpy(order)].cumsum(0)
        ordered = column[order]
        last = np.append(ordered[1:] != ordered[:-1], False)  # beyond the last one both are 1
        if last.any():
            gap = gap if last[:-1].all() else gap[torch.from_numpy(np.flatnonzero(last))]
            out[:, b] = gap.abs_().amax(0).numpy()
        else:
            out[:, b] = 0
    return out


def standardised(vectors: np.ndarray, stratum: np.ndarray, n_strata: int, first: np.ndarray) -> np.ndarray:
    """Values less the mean of their stratum, over its scatter, so that maps are compared and not parameters.

    Mean and scatter are of both sides together, each weighing as much as the other: no label enters.
    """
    out = np.zeros_like(vectors)
    for s in range(n_strata):
        rows = stratum == s
        x, label = vectors[rows], first[rows]
        weight = np.where(label, 0.5 / label.sum(), 0.5 / (~label).sum())[:, None]
        mean = (weight * x).sum(0)
        std = np.sqrt((weight * (x - mean) ** 2).sum(0))
        out[rows] = (x - mean) / np.where(std > 0, std, 1.0)
    return out


def classical_p(vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
    """``(n_bins,)`` p as if all maps were independent (scipy's two-sample test), as the literature has it."""
    with (
        warnings.catch_warnings()
    ):  # where the exact sum overflows it falls back to the limit law, as it should
        warnings.filterwarnings("ignore", message="ks_2samp: Exact calculation unsuccessful")
        return np.array([ks_2samp(x[first], x[~first])[1] for x in vectors.T], dtype=np.float64)


@dataclass(frozen=True)
class PixelKS:
    """The seed papers' pixel test: pooled-pixel KS, with its invalid p and a valid one beside it."""

    D: float
    p_pooled: float  # as published: pixels as if independent; rejects true nulls far too often
    p: float  # of the same D, by resampling simulations
    n_pixels_reference: int
    n_pixels_samples: int
    critical_D: float  # 95th percentile of D under equal laws

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def pixel_ks(
    reference: Sample, samples: Sample, *, n_permutations: int = 1000, seed: int = 0, n_levels: int = 1024
) -> PixelKS:
    """Two-sample KS of the pooled pixels (Mustafa et al. 2019, arXiv:1706.02390), with two p-values.

    ``p_pooled`` takes pixels for independent, as published. ``p`` exchanges whole boxes inside each
    stratum; its distances are taken on ``n_levels`` quantiles of all pixels. If the
    samples hold more maps of a stratum than the reference, the surplus is left out of ``p``.
    """
    check_finite(reference.values)
    check_finite(samples.values)
    x, y = (np.sort(v.values.reshape(-1).cpu().numpy()) for v in (reference, samples))
    both = np.sort(
        np.concatenate([v[:: max(1, len(v) >> 21)] for v in (x, y)])
    )  # every pixel below 2^22 of them
    gap = np.searchsorted(x, both, side="right") / len(x) - np.searchsorted(y, both, side="right") / len(y)
    distance = float(np.abs(gap).max())
    n = len(x) * len(y) / (len(x) + len(y))
    grid = torch.from_numpy(np.unique(both[:: max(1, len(both) // n_levels)]))

    a, b = (Measured(pixel_cdf(s.values, grid), s.simulation, s.stratum) for s in (reference, samples))
    sides = Sides.of(a, b, n_permutations, seed)
    null = np.abs(sides.weights().T @ sides.vectors).max(1, keepdims=True)
    return PixelKS(
        D=distance,
        p_pooled=float(kolmogorov(np.sqrt(n) * distance)),
        p=float(permutation_p(null)[0]),
        n_pixels_reference=len(x),
        n_pixels_samples=len(y),
        critical_D=float(np.quantile(null[1:], 0.95)),
    )


def pixel_cdf(values: torch.Tensor, grid: torch.Tensor) -> np.ndarray:
    """``(N, n_levels)`` share of each map's pixels at or below every level."""
    flat = values.flatten(1)
    index = torch.bucketize(flat.cpu(), grid.to(flat.dtype)) + torch.arange(len(flat))[:, None] * (
        len(grid) + 1
    )
    counts = torch.bincount(index.reshape(-1), minlength=len(flat) * (len(grid) + 1)).reshape(len(flat), -1)
    return (counts.cumsum(1)[:, :-1].double() / flat.shape[1]).numpy()


@dataclass(frozen=True, eq=False)
class Sides:
    """Two samples laid on one pile, and the ways to divide it again: ``first (N, n+1)``, column 0 the truth.

    Under equal laws of single maps, exchanging boxes is exact if both samples come in like boxes. Samples
    of independent maps are grouped to the reference's box size, so that each side is as large in
    every permutation: the variance of a mean difference is then right though the boxes' correlation
    is not exchanged (Romano 1990), provided that the sides are equal. A surplus of samples is left out.
    """

    vectors: np.ndarray
    first: np.ndarray
    stratum: np.ndarray
    n_strata: int

    @classmethod
    def of(cls, a: Measured, b: Measured, n: int, seed: int, *, surplus: bool = False) -> Sides:
        stratum_a, stratum_b, n_strata = common_strata(a, b)
        boxes_a = Boxes.of(a.simulation, stratum_a, n_strata)
        boxes_b = Boxes.of(b.simulation, stratum_b, n_strata)
        keep = np.arange(len(b)) if surplus else _no_surplus(boxes_b, boxes_a.maps)
        boxes_b = Boxes.of(boxes_b.box[keep], stratum_b[keep], n_strata)
        boxes_b = boxes_b.grouped(np.rint(boxes_a.maps / boxes_a.per_stratum).astype(int))
        return cls(
            np.concatenate([a.vectors, b.vectors[keep]]),
            permutations(boxes_a, boxes_b, n, np.random.default_rng([seed, 0])),
            np.concatenate([stratum_a, stratum_b[keep]]),
            n_strata,
        )

    def standardised(self) -> np.ndarray:
        return standardised(self.vectors, self.stratum, self.n_strata, self.first[:, 0])

    def weights(self) -> np.ndarray:
        return side_weights(self.first, self.stratum, self.n_strata)


def _no_surplus(boxes: Boxes, allowed: np.ndarray) -> np.ndarray:
    """Indices of maps: whole boxes in order until a stratum has as many maps as allowed; at least one box."""
    keep = np.zeros(boxes.n_boxes, bool)
    for s in range(boxes.n_strata):
        rows = np.flatnonzero(boxes.box_stratum == s)
        keep[rows] = np.cumsum(boxes.size[rows]) <= allowed[s]
        keep[rows[0]] = True
    return np.flatnonzero(keep[boxes.box])


def permutation_p(null: np.ndarray) -> np.ndarray:
    """``(n_bins,)`` share of rows at least as large as row 0, itself included: (1 + #)/(1 + n)."""
    return (null >= null[0] * (1 - 1e-5)).mean(0)
