"""Over how many decades a distribution holds: the excess of ``log_pdf`` decade by decade."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.compare import Comparison
from evaluation.evaluate import Evaluated
from evaluation.log_pdf import LogBins, LogPDF
from evaluation.residuals import Residual
from evaluation.thresholds import Thresholds

EXCESS = 2.0  # up to which a decade holds, where a file of thresholds says nothing on log_pdf


@dataclass(frozen=True)
class Decades:
    """Excess of each decade, from that of the largest values down.

    Args:
        low: ``(n,)`` where each begins [unit of the field].
        excess: ``(n,)`` distance of samples to real over that of real to real, in bins of the decade alone;
            None where the reference has no scatter, or nothing.
        threshold: up to which a decade holds; ``n_within`` do.
    """

    low: tuple[float, ...]
    excess: tuple[float | None, ...]
    threshold: float
    n_within: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def by_decade(bins: LogBins, c: Comparison, r: Residual, threshold: float) -> Decades:
    """rms of (samples - real) over rms of what true maps at the same numbers would differ by.

    Bins count in units of the reference's scatter, as in the excess of all of them (``compare``).
    """
    size = np.abs(c.reference_mean)
    known = (size > 0) & (c.reference_std > 0) & np.isfinite(r.floor)
    weight = np.divide(1.0, c.reference_std, out=np.zeros_like(size), where=known)
    distance = np.where(known, weight * (c.samples_mean - c.reference_mean), 0.0) ** 2
    floor = np.where(known, weight * r.floor * size / 100, 0.0) ** 2
    found = []
    for decade in range(bins.decades.max() + 1):
        mine = (bins.decades == decade) & known
        found.append(float(np.sqrt(distance[mine].sum() / floor[mine].sum())) if mine.any() else None)
    low = bins.edges[:: -bins.per_decade][1:]
    within = sum(x is not None and x <= threshold for x in found)
    return Decades(tuple(float(x) for x in low), tuple(found), threshold, within)


def decades_of(e: Evaluated, t: Thresholds) -> dict[str, Decades]:
    """Of every set at one cosmology, if ``log_pdf`` was measured."""
    bins = [s.bins for s in e.statistics if isinstance(s, LogPDF)]
    threshold, name = t.excess.get(LogPDF.name, EXCESS), LogPDF.name
    return {
        of: by_decade(bins[0], c[name], e.residuals[of][name], threshold)
        for of, c in e.comparisons.items()
        if bins
    }
