"""Two-sample Kolmogorov-Smirnov tests whose p-values know which maps share a simulation."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import kolmogorov
from scipy.stats import ks_2samp

from evaluation.base import Measured, Sample, check_finite, few, reference_pixels
from evaluation.resampling import Boxes, common_strata, permutations, side_weights
from gen.io.rows import Values

_WAYS = 256  # divisions at once, for the sake of memory


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
    stratum. Distances are taken at every pixel if there are no more than 2^16, else on ``n_levels``
    quantiles. A surplus of samples over the reference's maps of a stratum is left out of ``p``.
    """
    pixels = np.concatenate([reference_pixels(few(s.values), 1 << 22) for s in (reference, samples)])
    levels = pixel_levels(pixels, len(pixels) if len(pixels) <= 1 << 16 else n_levels)
    a, b = (Measured(pixel_cdf(s.values, levels), s.simulation, s.stratum) for s in (reference, samples))
    return pixel_ks_measured(
        a, b, math.prod(reference.values.shape[2:]), n_permutations=n_permutations, seed=seed
    )


def pixel_ks_measured(
    reference: Measured, samples: Measured, n_pixels: int, *, n_permutations: int = 1000, seed: int = 0
) -> PixelKS:
    """The same from ``pixel_cdf`` of the maps of both, each of ``n_pixels`` pixels."""
    n, m = n_pixels * len(reference), n_pixels * len(samples)
    gap = reference.vectors.mean(0, dtype=float) - samples.vectors.mean(0, dtype=float)
    distance = float(np.abs(gap).max())
    sides = Sides.of(reference, samples, n_permutations, seed)
    null = np.abs(sides.differences(sides.vectors)).max(1, keepdims=True)
    return PixelKS(
        D=distance,
        p_pooled=float(kolmogorov(math.sqrt(n * m / (n + m)) * distance)),
        p=float(permutation_p(null)[0]),
        n_pixels_reference=n,
        n_pixels_samples=m,
        critical_D=float(np.quantile(null[1:], 0.95)),
    )


def pixel_levels(pixels: np.ndarray, n_levels: int = 1024) -> torch.Tensor:
    """``n_levels`` of the ordered pixels, evenly spaced, and the last one."""
    ordered = np.sort(pixels)
    return torch.from_numpy(np.unique(np.append(ordered[:: max(1, len(ordered) // n_levels)], ordered[-1])))


def pixel_cdf(values: Values, levels: torch.Tensor) -> np.ndarray:
    """``(N, n_levels)`` share of each map's pixels at or below every level, float32."""
    n_bins = len(levels) + 1
    out = np.empty((len(values), len(levels)), dtype=np.float32)
    for start in range(0, len(values), 64):
        part = values[start : start + 64]
        check_finite(part)
        part = part.flatten(1).cpu()
        index = torch.bucketize(part, levels.to(part.dtype)) + torch.arange(len(part))[:, None] * n_bins
        counts = torch.bincount(index.reshape(-1), minlength=len(part) * n_bins).reshape(len(part), -1)
        out[start : start + 64] = (counts.cumsum(1)[:, :-1].double() / part.shape[1]).numpy()
    return out


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
        keep = np.arange(len(b)) if surplus else no_surplus(boxes_b, boxes_a.maps)
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

    def weights(self, ways: slice = slice(None)) -> np.ndarray:
        """``(N, R)`` of all divisions or some; see ``side_weights``."""
        return side_weights(self.first[:, ways], self.stratum, self.n_strata)

    def differences(self, values: np.ndarray) -> np.ndarray:
        """``(n + 1, n_bins)`` mean of the first side less the other's, every stratum counting equally."""
        values, ways = values.astype(float), range(0, self.first.shape[1], _WAYS)
        return np.concatenate([self.weights(slice(i, i + _WAYS)).T @ values for i in ways])

    def ks(self, values: np.ndarray, n: int | None = None) -> np.ndarray:
        """``(n + 1, n_bins)`` KS distance of the two sides, for the truth and the first n permutations."""
        end = self.first.shape[1] if n is None else min(n + 1, self.first.shape[1])
        ways = (slice(i, min(i + _WAYS, end)) for i in range(0, end, _WAYS))
        return np.concatenate([ks_distances(values, self.weights(some)) for some in ways])


def no_surplus(boxes: Boxes, allowed: np.ndarray) -> np.ndarray:
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
