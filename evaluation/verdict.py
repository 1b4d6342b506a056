"""What the numbers say in words: demands met or missed, consistent or different, ahead or behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.compare import Comparison, holm
from evaluation.paired import PairedErrors
from evaluation.residuals import PowerError, Residual
from evaluation.thresholds import Thresholds

MET, MISSED, UNDECIDED = "met", "missed", "not decided"
DIFFERS, CONSISTENT, UNTESTED = "differs", "consistent", "untested"
FAMILIES = 3
"""Of tests of one set, each with an equal share of the significance: distances, KS of bins, joint tests."""


@dataclass(frozen=True)
class Demand:
    """A threshold against what was measured at one cosmology, or, without a ``letter``, in a whole region.

    ``not decided`` where the value lies above the threshold by no more than its error, or where the error
    alone is larger than the threshold: more simulations would decide.
    """

    letter: str
    region: str
    samples: str
    quantity: str
    value: float
    low: float
    high: float
    threshold: float
    state: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def power_demand(letter: str, region: str, name: str, error: PowerError, t: Thresholds) -> Demand:
    """The largest error of the mean power; a bin beyond the demand by two standard errors decides a miss."""
    high = error.largest + 2 * error.largest_std
    state = _state(error.largest, error.surely, error.std, t.power.error)
    return Demand(
        letter, region, name, "power error", error.largest, error.surely, high, t.power.error, state
    )


def excess_demands(
    letter: str, region: str, comparisons: Mapping[str, Comparison], name: str, t: Thresholds
) -> list[Demand]:
    """The excess of each statistic that has a threshold and was measured."""
    found = []
    for statistic, threshold in t.excess.items():
        if statistic in comparisons:
            c = comparisons[statistic]
            low, high = c.excess_interval
            state = _state(c.excess, low, 0.0, threshold)
            found.append(
                Demand(letter, region, name, f"excess {statistic}", c.excess, low, high, threshold, state)
            )
    return found


def pair_demands(paired: Sequence[PairedErrors], t: Thresholds) -> list[Demand]:
    """Vectors in units of the baseline's, and large scales, by region; two standard errors decide a miss."""
    found = []
    for row in paired:
        asked = [(f"{e.name} error", e.of_baseline, e.of_baseline_std, t.motion[e.name])
                 for e in row.errors if e.name in t.motion]  # fmt: skip
        if t.large_scales is not None:
            asked.append(("large scales", row.large_scales, row.large_scales_std, t.large_scales.error))
        for quantity, value, std, threshold in asked:
            if value is not None and std is not None:
                low, high = value - 2 * std, value + 2 * std
                state = _state(value, low, std, threshold)
                found.append(
                    Demand("", row.region, row.samples, quantity, value, low, high, threshold, state)
                )
    return found


def _state(value: float, low: float, error: float, threshold: float) -> str:
    if value <= threshold and error <= threshold:
        return MET
    return MISSED if low > threshold else UNDECIDED


@dataclass(frozen=True)
class Word:
    """Whether one statistic of one set at one cosmology differs from the reference, and by how much.

    Two families of tests over all statistics and cosmologies of the set, each with its share of the
    significance: the distances with Holm's correction (1979), and the KS tests of all bins with the permuted
    distribution of the most extreme of them (max-T, Westfall & Young 1993), as Holm on so many permutation
    p-values could never reject. ``state`` is "differs", "consistent", or "untested" where so few simulations
    can be permuted in so few ways that no p-value is small enough.
    """

    letter: str
    region: str
    samples: str
    statistic: str
    state: str
    p: float
    smallest_p: float
    n_rejected: int
    n_bins: int
    text: str

    @property
    def differs(self) -> bool:
        return self.state == DIFFERS

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "differs": self.differs}


@dataclass(frozen=True, eq=False)
class Judged:
    """A comparison with where it was made."""

    letter: str
    region: str
    samples: str
    comparison: Comparison
    residual: Residual


def words(judged: Sequence[Judged], significance: float) -> list[Word]:
    """Words for all statistics and cosmologies of ONE set, with one correction over all of them."""
    adjusted = holm(np.array([j.comparison.distance_p for j in judged]))
    share = significance / FAMILIES
    found = []
    for j, p in zip(judged, adjusted, strict=True):
        c = j.comparison
        ks = c.ks_p if c.ks_p_family is None else c.ks_p_family
        rejected = int((ks < share).sum())
        smallest = smallest_p(c)
        differs = p < share or rejected > 0
        state = UNTESTED if smallest >= share else DIFFERS if differs else CONSISTENT
        found.append(
            Word(
                letter=j.letter,
                region=j.region,
                samples=j.samples,
                statistic=c.name,
                state=state,
                p=float(p),
                smallest_p=smallest,
                n_rejected=rejected,
                n_bins=len(c.abscissa),
                text=_text(state, j),
            )
        )
    return found


def smallest_p(c: Comparison) -> float:
    """Share of the permutations of boxes that leave the two sides as they are, or swap them whole.

    Independent samples are permuted in groups of the size of the reference's boxes.
    """
    n = c.n_simulations_reference
    groups = min(c.n_samples, c.n_reference) // max(1, round(c.n_reference / n))
    m = max(1, groups if c.n_simulations_samples == c.n_samples else c.n_simulations_samples)
    return (2 if n == m else 1) / math.comb(n + m, n)


def _text(state: str, j: Judged) -> str:
    if state == CONSISTENT:
        return "consistent at this n"
    if state == DIFFERS:
        return f"differs: {_how_much(j)}"
    return f"too few to test: {_how_much(j)}"


def _how_much(j: Judged) -> str:
    c, r = j.comparison, j.residual
    i = r.worst()
    if c.name == "moments":
        return f"{MOMENTS[i]} {number(c.samples_mean[i])}, real {number(c.reference_mean[i])}"
    share = "%" if r.of == "mean" else f"% of {r.of}"
    where = f"{SYMBOLS.get(c.unit, 'x')} = {number(c.abscissa[i])}"
    return f"{_minus(f'{r.values[i]:+.1f}')} ± {r.std[i]:.1f} {share} at {where}"


def number(x: float) -> str:
    """Three digits, plain where that is short."""
    return _minus(f"{x:.0f}" if 100 <= abs(x) < 1e5 else f"{x:.3g}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


@dataclass(frozen=True)
class Standing:
    """A set of samples against the analytic baseline in one region, statistic by statistic."""

    region: str
    samples: str
    ahead: tuple[str, ...]
    level: tuple[str, ...]
    behind: tuple[str, ...]

    @property
    def beats(self) -> bool:
        return bool(self.ahead) and not self.behind

    @property
    def text(self) -> str:
        level = f"; level in {_list(self.level)}" if self.level else ""
        if self.beats:
            return f"beats the analytic baseline: ahead in {_list(self.ahead)}{level}"
        if self.ahead:
            sides = f"ahead in {_list(self.ahead)}, behind in {_list(self.behind)}"
            return f"does not beat the analytic baseline: {sides}{level}"
        if self.behind:
            return f"does not beat the analytic baseline: behind in {_list(self.behind)}{level}"
        return f"does not beat the analytic baseline: level in {_list(self.level)}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "beats": self.beats, "text": self.text}


def standing(
    region: str,
    name: str,
    mine: Sequence[Mapping[str, Comparison]],
    baseline: Sequence[Mapping[str, Comparison]],
    statistics: Sequence[str],
) -> Standing:
    """Ahead or behind where the 16-84 % intervals of the mean excess over the cosmologies do not touch."""
    ahead, level, behind = [], [], []
    for statistic in statistics:
        a, a_error = _mean_excess([c[statistic] for c in mine])
        b, b_error = _mean_excess([c[statistic] for c in baseline])
        kind = ahead if a + a_error < b - b_error else behind if a - a_error > b + b_error else level
        kind.append(statistic)
    return Standing(region, name, tuple(ahead), tuple(level), tuple(behind))


def _mean_excess(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    half = [(c.excess_interval[1] - c.excess_interval[0]) / 2 for c in comparisons]
    n = len(comparisons)
    return float(np.mean([c.excess for c in comparisons])), float(np.sqrt(np.square(half).sum()) / n)


def _list(names: Sequence[str]) -> str:
    said = [NAMES.get(name, name) for name in names]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


SYMBOLS = {"multipole": "ℓ", "h/Mpc": "k", "sigma": "ν"}
MOMENTS = ("mean", "standard deviation", "skewness", "excess kurtosis")
NAMES = {
    "power": "the power spectrum",
    "pdf": "the pixel PDF",
    "moments": "the moments",
    "V0": "V₀",
    "V1": "V₁",
    "V2": "V₂",
    "V3": "V₃",
    "peaks": "peak counts",
    "minima": "minima counts",
    "bispectrum": "the bispectrum",
    "scattering": "the scattering transform",
    "bispectrum_squeezed": "the squeezed bispectrum",
    "bispectrum_isosceles": "the isosceles bispectrum",
    "bispectrum_reduced": "the reduced bispectrum",
    "smoothed_variance": "the variance by smoothing scale",
    "smoothed_skewness": "the skewness by smoothing scale",
    "smoothed_kurtosis": "the kurtosis by smoothing scale",
    "void_sizes": "void sizes",
    "void_count": "voids above a size",
    "bispectrum_angle": "the bispectrum by angle",
    "bispectrum_angle_reduced": "the reduced bispectrum by angle",
    "log_pdf": "the PDF over decades",
    "column_density": "column densities",
    "column_density_los": "column densities",
    "multipole_2": "the quadrupole",
    "multipole_4": "the hexadecapole",
    "TE": "the TE spectrum",
    "EE": "the EE spectrum",
    "BB": "the BB spectrum",
    "r_TE": "the TE correlation",
    "pdf_P": "the PDF of P",
    **{f"V{i}_P": f"V{'₀₁₂'[i]} of P" for i in range(3)},
    "polarisation_fraction": "the polarisation fraction",
    "polarisation_angle": "polarisation angles",
    "angle_dispersion": "the dispersion of angles",
    **{f"three_point_{ell}": f"three-point multipole {ell}" for ell in range(9)},
}
