"""The seed papers' own tests, in their own terms, with real against real beside them.

CosmoGAN (Mustafa et al. 2019, arXiv:1706.02390) gave two-sample Kolmogorov-Smirnov p-values of the pixels,
of the power in every Fourier mode and of every Minkowski functional at every threshold. Those p-values take
pixels and maps as independent, so alone they say little; here they stand beside those of two halves of the
reference, made of whole simulations, at the same numbers of maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import kolmogorov

from evaluation.base import Measured
from evaluation.overlap import overlap

N_OVERLAPS = 4  # splits
MINKOWSKI = ("V0", "V1", "V2", "V3", "V0_P", "V1_P", "V2_P")


def ks_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(n_bins,)`` KS distance of the columns of ``(n, n_bins)`` and ``(m, n_bins)``, ties allowed."""
    both = np.concatenate([a, b])
    order = np.argsort(both, axis=0, kind="stable")
    ordered = np.take_along_axis(both, order, axis=0)
    step = np.where(order < len(a), 1 / len(a), -1 / len(b))
    gap = np.abs(np.cumsum(step, axis=0))
    last_of_tie = np.ones_like(gap, dtype=bool)
    last_of_tie[:-1] = ordered[1:] != ordered[:-1]
    return np.where(last_of_tie, gap, 0).max(axis=0)


def ks_probability(distance: np.ndarray, n: int, m: int) -> np.ndarray:
    """The classical p-value of the distance for n and m independent draws: Kolmogorov's limit.

    For n = m, where ties of the distance make it discrete, the limit lies closer to the exact p than its
    usual
    corrections: within 0.006 for n >= 50.
    """
    return kolmogorov(np.sqrt(n * m / (n + m)) * np.asarray(distance))


@dataclass(frozen=True)
class ModeCounts:
    """Of ``n`` modes or thresholds, how many have p > 0.05 and p > 0.995, averaged over the splits.

    For equal laws and independent maps 95 % and 0.5 % of them do.
    """

    n: int
    above_05: float
    above_995: float
    real_above_05: float
    real_above_995: float


@dataclass(frozen=True)
class LiteratureTests:
    """The seeds' table for one set of samples at one cosmology; ``real_`` is real against real.

    ``overlap`` is ForSE's: the area that the distributions of a Minkowski functional over maps share, in the
    mean over thresholds and functionals, and over the splits; None where there are no functionals.
    """

    n_maps: int
    pixel_D: float
    pixel_p: float
    real_pixel_D: float
    real_pixel_p: float
    fourier: ModeCounts
    minkowski: ModeCounts
    overlap: float | None
    real_overlap: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def literature_tests(
    reference: Measured,
    samples: Measured,
    n_pixels: int,
    measured_reference: Mapping[str, Measured],
    measured_samples: Mapping[str, Measured],
    *,
    n_splits: int = 20,
    seed: int = 0,
) -> LiteratureTests:
    """One half of the reference against the other half, and against as many maps of the samples.

    ``reference`` and ``samples`` are ``pixel_cdf`` of the maps, each of ``n_pixels`` pixels.
    """
    rng = np.random.default_rng(seed)
    splits = [_split(reference.simulation, len(samples), rng) for _ in range(n_splits)]
    first, second, drawn = splits[0]
    n = len(first)
    real = reference.vectors[first]
    real_D, real_p = _pooled(real, reference.vectors[second], n_pixels)
    D, p = _pooled(real, samples.vectors[drawn], n_pixels)
    functionals = [name for name in MINKOWSKI if name in measured_reference]
    shared = _overlaps(functionals, measured_reference, measured_samples, splits[:N_OVERLAPS])
    return LiteratureTests(
        n_maps=n,
        pixel_D=D,
        pixel_p=p,
        real_pixel_D=real_D,
        real_pixel_p=real_p,
        fourier=_count(["power"], measured_reference, measured_samples, splits),
        minkowski=_count(functionals, measured_reference, measured_samples, splits),
        overlap=shared[0],
        real_overlap=shared[1],
    )


Split = tuple[np.ndarray, np.ndarray, np.ndarray]


def _split(simulation: np.ndarray, n_samples: int, rng: np.random.Generator) -> Split:
    """Rows of two halves of the reference by simulation, and of as many samples."""
    ids = rng.permutation(np.unique(simulation))
    first = np.flatnonzero(np.isin(simulation, ids[: len(ids) // 2]))
    second = np.flatnonzero(~np.isin(simulation, ids[: len(ids) // 2]))
    n = min(len(first), len(second), n_samples)
    return rng.permutation(first)[:n], rng.permutation(second)[:n], rng.permutation(n_samples)[:n]


def _count(
    names: list[str], reference: Mapping[str, Measured], samples: Mapping[str, Measured], splits: list[Split]
) -> ModeCounts:
    if not names:
        return ModeCounts(0, 0.0, 0.0, 0.0, 0.0)
    real = np.concatenate([reference[name].vectors for name in names], axis=1)
    made = np.concatenate([samples[name].vectors for name in names], axis=1)
    counts = np.zeros(4)
    for first, second, drawn in splits:
        n = len(first)
        p = ks_probability(ks_distance(real[first], made[drawn]), n, n)
        null = ks_probability(ks_distance(real[first], real[second]), n, n)
        counts += [(p > 0.05).sum(), (p > 0.995).sum(), (null > 0.05).sum(), (null > 0.995).sum()]
    return ModeCounts(real.shape[1], *(float(c) for c in counts / len(splits)))


def _overlaps(
    names: list[str], reference: Mapping[str, Measured], samples: Mapping[str, Measured], splits: list[Split]
) -> tuple[float | None, float | None]:
    """Of samples with one half of the reference, and of the other half with it, at the same numbers."""
    if not names:
        return None, None
    real = np.concatenate([reference[name].vectors for name in names], axis=1)
    made = np.concatenate([samples[name].vectors for name in names], axis=1)
    found = [
        (overlap(real[first], made[drawn]).mean(), overlap(real[first], real[second]).mean())
        for first, second, drawn in splits
    ]
    mine, null = np.mean(found, axis=0)
    return float(mine), float(null)


def _pooled(a: np.ndarray, b: np.ndarray, n_pixels: int) -> tuple[float, float]:
    """Distance and classical p of two sets of pixels, as if pixels were independent (they are not)."""
    distance = np.abs(a.mean(0, dtype=float) - b.mean(0, dtype=float)).max()
    return float(distance), float(ks_probability(distance, n_pixels * len(a), n_pixels * len(b)))
