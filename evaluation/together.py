"""One p-value for everything that was tested of one set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.compare import combined, holm
from evaluation.evaluate import Evaluated, regions
from evaluation.joint import JointTest
from evaluation.verdict import CONSISTENT, DIFFERS, UNTESTED, smallest_p


def any_bin(null: np.ndarray) -> float:
    """p of the largest of all bins' KS distances, each over its mean, from ``Comparison.ks_null``."""
    largest = (null / np.maximum(null.mean(0), 1e-12)).max(1)
    return float((largest >= largest[0] * (1 - 1e-5)).mean())


@dataclass(frozen=True)
class Together:
    """All tests of one set of samples in one region as one: distances, KS of bins, joint tests.

    ``p`` by ``combined``; ``p_adjusted`` after Holm's correction over the regions.
    """

    region: str
    samples: str
    p: float
    p_adjusted: float
    n_tests: int
    state: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def p_values(e: Evaluated, name: str) -> dict[str, float]:
    """Of every statistic at one cosmology, by its distance and by the KS tests of its bins."""
    of = e.comparisons[name].items()
    return {f"distance: {s}": c.distance_p for s, c in of} | {f"KS: {s}": any_bin(c.ks_null) for s, c in of}


def together(
    evaluated: Sequence[Evaluated], joint: Sequence[JointTest], names: Sequence[str], significance: float
) -> list[Together]:
    """One row a set and region."""
    out = []
    for name in names:
        rows = []
        for region in regions(list(evaluated)):
            here = [e for e in evaluated if e.cosmology.region == region]
            p = [q for e in here for q in p_values(e, name).values()]
            p += [j.p for j in joint if (j.region, j.samples) == (region, name) and j.p is not None]
            least = min(smallest_p(c) for e in here for c in e.comparisons[name].values())
            rows.append((region, combined(p), len(p), least))
        adjusted = holm(np.array([p for _, p, _, _ in rows]))
        for (region, p, n, least), q in zip(rows, adjusted, strict=True):
            state = DIFFERS if q < significance else CONSISTENT
            if least * len(rows) >= significance:
                state = UNTESTED
            out.append(Together(region, name, p, float(q), n, state))
    return out
