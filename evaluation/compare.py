"""Samples against a reference, in units of what the reference differs from itself.

All of it works on vectors: a statistic of every map. In each stratum (set of parameters) s and bin b:

    z_sb = (mean_samples - mean_reference) / scale,    scale^2 = map-to-map variance of the reference,
    distance d = sqrt(mean_b (mean_s z_sb)^2),         floor = what d would be for maps from the truth,
    excess = d / floor.

Floor. Let the reference hold boxes i of m_i maps (N together), sigma_b^2 be the variance between boxes and
sigma_w^2 that of maps inside one (one-way analysis of variance, pooled over strata, in units of scale). The
mean of any set of true maps then has variance sigma_b^2 H + sigma_w^2 / N with H = sum_i (m_i/N)^2, and two
such sets differ by the sum of both. A random half of the boxes against the other half differs by v_split,
the reference against samples of the structure that they claim (independent maps: H = 1/N) by v_target, so

    floor^2 = mean_splits d_split^2 * (v_target / v_split) = mean_b v_target / n_strata.

Real boxes against real boxes at the same n is the case in which the samples come in boxes as well; of a
generator whose maps are independent more is asked, since its mean is less noisy. A perfect generator has
<excess^2> = 1 in either case. A floor from few boxes is itself uncertain and makes excess read high: on toys
its rms is 1.05 to 1.10 for 8 boxes in all and 1.05 or less for 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from evaluation.base import Measured, Sample, Statistic, measure
from evaluation.floor import Floor, nanmean, rms
from evaluation.ks import PixelKS, Sides, classical_p, permutation_p, pixel_ks
from evaluation.resampling import bootstrap_weights, common_strata
from evaluation.variance import Components, Side
from gen.errors import InputError

__all__ = ["Comparison", "PixelKS", "compare", "compare_measured", "correct", "pixel_ks"]

_MOST_KS = 2000  # permutations of the KS tests, whose family-wise p from the largest of all needs no more
_SHRINK = 1e-3  # share of the mean variance over strata added to each, so that constant bins cannot dominate


@dataclass(frozen=True, eq=False)
class Comparison:
    """One statistic of samples against a reference. Arrays are ``(n_bins,)`` unless told."""

    name: str
    label: str
    abscissa: np.ndarray
    unit: str
    n_modes: np.ndarray | None
    log: bool

    n_reference: int  # maps
    n_samples: int
    n_simulations_reference: int  # independent boxes
    n_simulations_samples: int
    n_strata: int  # sets of parameters
    floor_basis: (
        str  # "simulations", or "maps" where a stratum has a single box: then floor and errors are too small
    )

    reference_mean: np.ndarray  # each stratum counts equally
    reference_std: np.ndarray  # map-to-map scatter at fixed parameters
    samples_mean: np.ndarray
    samples_std: np.ndarray

    ks_D: np.ndarray  # two-sample KS over maps, one value per map
    ks_p: np.ndarray  # by permutation of simulations
    ks_p_independent: np.ndarray  # classical p, as if all maps were independent (the literature's)
    ks_floor: np.ndarray  # expected D of real against real at the same numbers
    ks_critical: np.ndarray  # 95th percentile of D under equal laws

    relative_error: np.ndarray  # (samples - reference) / |reference|
    relative_error_std: np.ndarray  # bootstrap over simulations, both sides
    relative_error_by_stratum: np.ndarray  # (n_strata, n_bins)
    standard_error: np.ndarray  # (samples - reference) / map-to-map scatter: mean over strata of z
    standard_error_std: np.ndarray
    scatter_ratio: np.ndarray  # samples_std / reference_std
    scatter_ratio_std: np.ndarray

    distance: float
    floor: float
    excess: float  # distance / floor
    excess_interval: tuple[float, float]  # 16-84 % of excess, from resampling simulations
    excess_null: tuple[float, float]  # 16-84 % of what a perfect generator would score
    distance_p: float  # probability of this distance or more under equal laws, by permutation
    excess_conditional: float  # the same with the squares taken at each stratum before averaging over strata

    n_tests: int  # of this statistic, or of all those that ``correct`` was given
    ks_null: np.ndarray = field(repr=False)  # (permutations+1, n_bins) D by permutation; not exported
    ks_p_family: np.ndarray | None = None  # set by ``correct``: family-wise over all bins and statistics
    ks_p_holm: np.ndarray | None = None
    ks_p_bh: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: arrays become lists, numbers that are not finite become None."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "ks_null"}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def compare(
    statistic: Statistic,
    reference: Sample,
    samples: Sample,
    *,
    n_bootstrap: int = 1000,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Measure both samples and compare them."""
    a, b = (measure([statistic], s)[statistic.name] for s in (reference, samples))
    return compare_measured(
        statistic, a, b, n_bootstrap=n_bootstrap, n_permutations=n_permutations, seed=seed
    )


def compare_measured(
    statistic: Statistic,
    reference: Measured,
    samples: Measured,
    *,
    n_bootstrap: int = 1000,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare what ``measure`` has measured: the way to judge many models against one reference.

    The same seed permutes alike for every statistic of the same maps, as ``correct`` needs.
    """
    for name, sample in (("reference", reference), ("samples", samples)):
        if len(sample) < 2 or sample.vectors.shape[1:] != np.shape(statistic.abscissa):
            raise InputError(
                f"{name} must hold at least 2 vectors of {len(statistic.abscissa)} bins of {statistic.name}, "
                f"got shape {sample.vectors.shape}"
            )
    stratum_a, stratum_b, n_strata = common_strata(reference, samples)
    a, b = Side.of(reference, stratum_a, n_strata), Side.of(samples, stratum_b, n_strata)
    with np.errstate(divide="ignore", invalid="ignore"):  # bins without scatter become NaN and are left out
        floor = Floor.of(a, b, scatter_scale(a), seed)
        return Comparison(
            name=statistic.name,
            label=statistic.label,
            abscissa=np.asarray(statistic.abscissa),
            unit=statistic.unit,
            n_modes=statistic.n_modes,
            log=statistic.log,
            n_reference=len(reference),
            n_samples=len(samples),
            n_simulations_reference=a.given.n_boxes,
            n_simulations_samples=b.given.n_boxes,
            n_strata=n_strata,
            floor_basis="simulations" if a.boxes is a.given else "maps",
            reference_mean=a.mean().mean(0),
            reference_std=np.sqrt(a.variance().mean(0)),
            samples_mean=b.mean().mean(0),
            samples_std=np.sqrt(b.variance().mean(0)),
            ks_floor=floor.ks(reference.vectors),
            n_tests=len(statistic.abscissa),
            **_kolmogorov(reference, samples, n_permutations, seed),
            **_errors(a, b, floor, n_bootstrap, seed),
        )


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Fill in p-values adjusted over all bins of all statistics, and their number.

    ``ks_p_holm`` (Holm 1979) and ``ks_p_bh`` (Benjamini & Hochberg 1995) adjust ``ks_p``, whose smallest
    value is 1/(n_permutations+1): with many tests Holm cannot then reject. ``ks_p_family`` controls the same
    family-wise rate without that limit, from the joint permutations: the share in which the largest of all
    D / <D> reaches this one (Westfall & Young 1993). It needs comparisons of the same maps, same seed.
    """
    if not comparisons:
        return []
    nulls = [c.ks_null for c in comparisons]
    if len({n.shape[0] for n in nulls}) > 1:
        raise InputError("comparisons to correct together need the same number of permutations")
    p = np.concatenate([c.ks_p for c in comparisons])
    null = np.concatenate(nulls, axis=1)
    null = null / np.maximum(null.mean(0), 1e-12)
    largest = np.sort(null.max(1))
    reached = len(largest) - np.searchsorted(largest, null[0] * (1 - 1e-5), side="left")
    family = reached / len(largest)
    ends = np.cumsum([len(c.ks_p) for c in comparisons])[:-1]
    columns = (np.split(x, ends) for x in (family, holm(p), false_discovery_control(p)))
    return [
        replace(c, ks_p_family=f, ks_p_holm=h, ks_p_bh=q, n_tests=len(p))
        for c, f, h, q in zip(comparisons, *columns, strict=True)
    ]


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for the chance of one false rejection among all (Holm 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1.0)
    return out


def combined(p: Iterable[float]) -> float:
    """The Cauchy combination of p-values that may depend on each other (Liu & Xie 2020, arXiv:1808.09011).

    The mean of tan((1/2 - p) pi) has nearly Cauchy's law in its tail whatever the dependence, where Holm's
    correction rejects the less the more the tests agree. A p above 0.99 counts as 0.99: one large p shall
    not hide a small one (Fang et al. 2023, arXiv:2103.12985).
    """
    q = np.clip(np.fromiter(p, float), 1e-15, 0.99)
    return float(0.5 - np.arctan(np.tan((0.5 - q) * np.pi).mean()) / np.pi)


def scatter_scale(a: Side) -> np.ndarray:
    """``(n_strata, n_bins)`` map-to-map scatter of the reference; NaN where it has none at all.

    The scatter inside boxes of each stratum, times a factor for the boxes' differences that all strata share:
    the few boxes of one stratum would otherwise set the unit in which their own differences are measured.
    """
    within = a.within()
    if len(within) > 1:
        within = within + _SHRINK * within.mean(0)
    within = np.sqrt(np.where(within > 0, within, np.nan))
    components = Components.of(a, within)
    return within * np.sqrt(components.within + np.maximum(components.between, 0))


def _errors(a: Side, b: Side, floor: Floor, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Effect sizes, distance and excess with their errors."""
    rng = np.random.default_rng([seed, 1])
    z = (b.mean() - a.mean()) / floor.scale
    distance = float(rms(z.mean(0)))
    weights_a, weights_b = (bootstrap_weights(s.boxes, n_bootstrap, rng) for s in (a, b))
    means_a, means_b = a.means(weights_a), b.means(weights_b)
    boot_z = ((means_b - means_a) / floor.scale).mean(1)
    # a resampled distance carries the noise of the means once more than the distance itself does
    boot_d = np.sqrt(np.maximum(rms(boot_z) ** 2 - nanmean(boot_z.var(0)), 0))
    return {
        "relative_error": _relative(a.mean(), b.mean(), floor.scale),
        "relative_error_std": _relative(means_a, means_b, floor.scale).std(0),
        "relative_error_by_stratum": (b.mean() - a.mean()) / np.abs(a.mean()),
        "standard_error": z.mean(0),
        "standard_error_std": boot_z.std(0),
        "scatter_ratio": np.sqrt(b.variance().mean(0) / a.variance().mean(0)),
        "scatter_ratio_std": (b.scatter(weights_b) / a.scatter(weights_a)).std(0),
        "distance": distance,
        "floor": floor.distance,
        "excess": distance / floor.distance,
        "excess_interval": _interval(boot_d / floor.distance),
        "excess_null": _interval(floor.split_distances() / floor.distance),
        "excess_conditional": math.sqrt(nanmean((z**2).mean(0))) / floor.conditional,
    }


def _kolmogorov(reference: Measured, samples: Measured, n: int, seed: int) -> dict[str, Any]:
    """KS per bin by ``_MOST_KS`` permutations at most, and the p of the distance by all of them."""
    sides = Sides.of(reference, samples, n, seed)
    z = sides.standardised()
    single = sides.n_strata == 1  # raw values then have the same D, with their ties as they are
    null = sides.ks(sides.vectors if single else z, _MOST_KS)
    whole = Sides.of(reference, samples, 0, seed, surplus=True)
    values = whole.vectors if single else whole.standardised()
    moved = rms(sides.differences(z))[:, None]
    return {
        "ks_D": whole.ks(values)[0].astype(float),
        "ks_p": permutation_p(null),
        "ks_p_independent": classical_p(values, whole.first[:, 0]),
        "ks_critical": np.quantile(null[1:], 0.95, axis=0).astype(float)
        if n
        else np.full(null.shape[1], np.nan),
        "ks_null": null,
        "distance_p": float(permutation_p(moved)[0]),
    }


def _relative(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``(..., n_bins)`` sum_s (b - a)/scale over sum_s |a|/scale: strata count in units of their own scatter.

    For one stratum (b - a)/|a|; where the scatter goes with the mean, the mean over strata of that.
    """
    return np.nansum((b - a) / scale, axis=-2) / np.nansum(np.abs(a) / scale, axis=-2)


def _interval(x: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(x, (0.16, 0.84))
    return float(low), float(high)
