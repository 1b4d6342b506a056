"""The report in one table and one sentence for each region and set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.verdict import MET, MISSED, NAMES, UNTESTED, Demand, Standing, Word

if TYPE_CHECKING:
    from evaluation.report import Evaluated


def headline(
    evaluated: Sequence[Evaluated],
    words: Sequence[Word],
    demands: Sequence[Demand],
    standings: Sequence[Standing],
) -> list[dict[str, Any]]:
    """One row a region and set: means over the region's cosmologies, their worst, states and the sentence.

    ``power_error`` is the worst over the cosmologies of the largest error of any bin, ``power_error_mean``
    the mean over cosmologies and bins; ``excess[s]`` holds ``mean``, ``worst`` and ``null`` (16-84 % of a
    perfect emulator). ``pairs`` lists demands on fields made for given conditions.
    """
    rows = []
    for region in dict.fromkeys(e.cosmology.region for e in evaluated):
        here = [e for e in evaluated if e.cosmology.region == region]
        for name in here[0].comparisons:
            mine = [w for w in words if (w.region, w.samples) == (region, name)]
            asked = [d for d in demands if (d.region, d.samples) == (region, name)]
            rank = next((s for s in standings if (s.region, s.samples) == (region, name)), None)
            errors = [e.power[name] for e in here]
            worst = max(errors, key=lambda p: p.largest)
            row = {
                "region": region,
                "samples": name,
                "letters": [e.cosmology.letter for e in here],
                "n_cosmologies": len(here),
                "n_reference": sum(len(e.cosmology.reference) for e in here),
                "n_simulations": sum(e.cosmology.n_simulations for e in here),
                "n_samples": sum(len(e.cosmology.samples[name]) for e in here),
                "power_error": worst.largest,
                "power_error_std": worst.largest_std,
                "power_error_at": worst.at,
                "power_error_mean": float(np.mean([p.mean for p in errors])),
                "power_error_floor": float(np.mean([p.floor for p in errors])),
                "power_state": _worst_state([d for d in asked if d.quantity == "power error"]),
                "excess": {s: _excess(here, name, s, asked) for s in here[0].comparisons[name]},
                "pairs": [d.to_dict() for d in asked if not d.letter],
                "n_differs": sum(w.differs for w in mine),
                "n_words": len(mine),
                "n_ks_rejected": sum(w.n_rejected for w in mine),
                "n_ks": sum(w.n_bins for w in mine),
                "standing": None if rank is None else rank.to_dict(),
            }
            row["differs"], row["untested"], row["consistent"] = _split(mine, len(here))
            row["n_untested"] = sum(w.state == UNTESTED for w in mine)
            row["fewest_simulations"] = min(e.cosmology.n_simulations for e in here)
            row["states"] = {
                s: sum(d.state == s for d in asked) for s in dict.fromkeys(d.state for d in asked)
            }
            row["n_demands"] = len(asked)
            rows.append(row)
    return rows


def _excess(here: Sequence[Evaluated], name: str, statistic: str, asked: Sequence[Demand]) -> dict[str, Any]:
    comparisons = [e.comparisons[name][statistic] for e in here]
    values = [c.excess for c in comparisons]
    mine = [d for d in asked if d.quantity == f"excess {statistic}"]
    return {
        "mean": float(np.mean(values)),
        "worst": float(max(values)),
        "interval": [float(np.mean([c.excess_interval[i] for c in comparisons])) for i in (0, 1)],
        "null": [float(np.mean([c.excess_null[i] for c in comparisons])) for i in (0, 1)],
        "threshold": mine[0].threshold if mine else None,
        "state": _worst_state(mine) if mine else None,
    }


def _worst_state(demands: Sequence[Demand]) -> str:
    states = {d.state for d in demands}
    return MISSED if MISSED in states else (states - {MET}).pop() if states - {MET} else MET


def _split(words: Sequence[Word], n: int) -> tuple[list[dict[str, str]], list[str], list[str]]:
    """Statistics that differ somewhere (and where), that could not be tested somewhere, and the others."""
    differs, untested, consistent = [], [], []
    for statistic in dict.fromkeys(w.statistic for w in words):
        mine = [w for w in words if w.statistic == statistic]
        name = NAMES.get(statistic, statistic)
        hits = [w.letter for w in mine if w.differs]
        if hits:
            where = "" if n == 1 else f" ({', '.join(hits)})"
            differs.append({"statistic": statistic, "name": name, "where": where})
        else:
            (untested if any(w.state == UNTESTED for w in mine) else consistent).append(name)
    return differs, untested, consistent
