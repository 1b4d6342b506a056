"""How far the mean of samples lies from the reference's, in per cent, beside real against real."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.base import Measured
from evaluation.compare import Comparison

RATIOS = (
    "power",
    "smoothed_variance",
    "bispectrum_squeezed",
    "pdf",
    "peaks",
    "minima",
    "bispectrum",
    "scattering",
    "log_pdf",
    "EE",
    "BB",
    "pdf_P",
    "polarisation_fraction",
    "polarisation_angle",
    "angle_dispersion",
    "column_density",
    "column_density_los",
)  # every bin is filled: judged bin by bin; others by their own peak


@dataclass(frozen=True, eq=False)
class Residual:
    """(mean_samples - mean_reference) / scale, in per cent, ``(n_bins,)``.

    The scale is the reference's mean of the bin for ``RATIOS``, and the largest of the curve for statistics
    that cross zero or vanish (the Minkowski functionals).

    Args:
        std: its standard error, simulations as the independent units of both sides.
        floor: standard deviation of the residual of the reference against as many other true maps as there
            are samples, independent ones if the samples claim to be.
        of: what it is a percentage of: the reference's "mean" of the bin, or the "peak" of its curve.
    """

    values: np.ndarray
    std: np.ndarray
    floor: np.ndarray
    low: np.ndarray  # 16 % of the reference maps, in the statistic's own unit
    high: np.ndarray  # 84 %
    reference_error: np.ndarray  # standard errors of the two means, in that unit
    samples_error: np.ndarray
    of: str

    def worst(self) -> int:
        """The bin of the largest residual among those beyond three errors, or the most significant one."""
        size = np.nan_to_num(np.abs(self.values))
        significance = np.divide(size, self.std, out=np.zeros_like(size), where=self.std > 0)
        clear = significance >= min(3.0, significance.max())
        return int(np.where(clear, size, -1.0).argmax())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def residual(c: Comparison, reference: Measured, samples: Measured) -> Residual:
    """The residual of a comparison of what was measured."""
    ratio = c.name in RATIOS
    largest = np.abs(c.reference_mean).max()
    scale = np.abs(c.reference_mean) if ratio else np.full_like(c.reference_mean, largest)
    percent = np.divide(100.0, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    error_reference, error_samples = standard_error(reference), standard_error(samples)
    low, high = np.quantile(reference.vectors, (0.16, 0.84), axis=0)
    return Residual(
        values=percent * (c.samples_mean - c.reference_mean),
        std=percent * np.hypot(error_reference, error_samples),
        floor=percent * np.hypot(error_reference, _true_error(c, error_reference)),
        low=low,
        high=high,
        reference_error=error_reference,
        samples_error=error_samples,
        of="mean" if ratio else "peak",
    )


def _true_error(c: Comparison, error_reference: np.ndarray) -> np.ndarray:
    """Standard error of the mean of as many true maps: single ones, or in boxes like the reference's."""
    if c.n_simulations_samples == c.n_samples:
        return c.reference_std / np.sqrt(c.n_samples)
    return error_reference * np.sqrt(c.n_simulations_reference / c.n_simulations_samples)


def simulation_means(m: Measured) -> np.ndarray:
    """``(n_simulations, n_bins)`` mean over the maps of each simulation."""
    ids, index, counts = np.unique(m.simulation, return_inverse=True, return_counts=True)
    sums = np.zeros((len(ids), m.vectors.shape[1]))
    np.add.at(sums, index.reshape(-1), m.vectors)
    return sums / counts[:, None]


def standard_error(m: Measured) -> np.ndarray:
    """``(n_bins,)`` standard error of the mean, from the scatter of the simulations' means."""
    means = simulation_means(m)
    return means.std(axis=0, ddof=1) / np.sqrt(len(means))


@dataclass(frozen=True)
class PowerError:
    """The mean power's relative error over the bins with k <= k_max.

    Args:
        largest: of |error|, its standard error ``largest_std``, and ``at`` which k.
        mean: of |error| over the bins.
        surely: the largest error that some bin has for sure, max(|error| - 2 standard errors, 0).
        std: the largest standard error of any bin.
        floor: median of ``largest`` for real against real, in the samples' numbers.
        std: the largest standard error of any bin.
    """

    largest: float
    largest_std: float
    signed: float
    at: float
    mean: float
    floor: float
    std: float
    surely: float
    k_max: float
    n_bins: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def power_error(
    c: Comparison, r: Residual, reference: Measured, k_max: float, n_splits: int, seed: int
) -> PowerError:
    """Errors as fractions. The bins are judged by the wavenumber of their middle."""
    judged = c.abscissa <= k_max * (1 + 1e-9)
    if not judged.any():
        judged = np.arange(len(c.abscissa)) == 0
    error = np.abs(r.values[judged]) / 100
    worst = int(error.argmax())
    halves = _half_differences(reference, n_splits, seed)[:, judged] * r.floor[judged] / 100
    return PowerError(
        largest=float(error[worst]),
        largest_std=float(r.std[judged][worst] / 100),
        signed=float(r.values[judged][worst] / 100),
        at=float(c.abscissa[judged][worst]),
        mean=float(error.mean()),
        floor=float(np.median(np.abs(halves).max(axis=1))),
        std=float(r.std[judged].max() / 100),
        surely=float(max((error - r.std[judged] / 50).max(), 0.0)),
        k_max=float(k_max),
        n_bins=int(judged.sum()),
    )


def _half_differences(reference: Measured, n_splits: int, seed: int) -> np.ndarray:
    """``(n_splits, n_bins)`` real minus real, of random halves of the simulations, in units of its scatter.

    Halves of h and n - h simulations differ with the variance s^2 (1/h + 1/(n - h)).
    """
    means = simulation_means(reference)
    rng = np.random.default_rng(seed)
    n, half = len(means), len(means) // 2
    found = np.empty((n_splits, means.shape[1]))
    for i in range(n_splits):
        order = rng.permutation(n)
        found[i] = means[order[:half]].mean(0) - means[order[half:]].mean(0)
    return found / (means.std(axis=0, ddof=1) * np.sqrt(1 / half + 1 / (n - half)))
