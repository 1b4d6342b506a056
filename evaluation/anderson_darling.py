"""Two-sample Anderson-Darling tests, which weigh the tails, by exchanging simulations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.base import Measured
from evaluation.hotelling import check_vectors
from evaluation.ks import Sides, permutation_p


@dataclass(frozen=True, eq=False)
class AndersonDarling:
    """``A2 (n_bins,)`` between the maps of reference and samples, and ``p (n_bins,)`` under equal laws."""

    A2: np.ndarray
    p: np.ndarray
    n_reference: int
    n_samples: int

    def to_dict(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def anderson_darling(
    reference: Measured, samples: Measured, *, n_permutations: int = 1000, seed: int = 0
) -> AndersonDarling:
    r"""A^2 = (n m / N) sum_i (F_n - F_m)^2 / (H (1 - H)) / N over the N = n + m values (Pettitt 1976).

    H is the distribution of both together; the weight makes a tail count as the middle does in
    Kolmogorov-Smirnov. Ties are stepped over together (the first of Scholz & Stephens 1987). Maps of several
    strata are put on their stratum's mean and scatter, and each stratum counts equally. Of samples in larger
    number than the reference the surplus is left out.

    Args:
        reference, samples: of one statistic, ``(N, n_bins)`` and ``(M, n_bins)``.
    """
    check_vectors(reference, samples)
    sides = Sides.of(reference, samples, n_permutations, seed)
    values = sides.vectors if sides.n_strata == 1 else sides.standardised()
    null = _distances(values, sides.weights(), sides.first[:, 0])
    return AndersonDarling(
        A2=null[0],
        p=permutation_p(null),
        n_reference=int(sides.first[:, 0].sum()),
        n_samples=int((~sides.first[:, 0]).sum()),
    )


def _distances(vectors: np.ndarray, weights: np.ndarray, first: np.ndarray) -> np.ndarray:
    """``(R, n_bins)`` A^2 for R ways of dividing N maps in two, weights as of ``side_weights``."""
    n, n_first = len(vectors), int(first.sum())
    out = np.zeros((weights.shape[1], vectors.shape[1]))
    for b, column in enumerate(vectors.T):
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        last = np.flatnonzero(ordered[1:] != ordered[:-1])  # beyond the very last one both are 1
        if len(last):
            gap = np.cumsum(weights[order], axis=0)[last]
            share = (last + 1) / n
            times = np.diff(last, prepend=-1)
            out[:, b] = (times / (share * (1 - share))) @ gap**2
    return out * n_first * (n - n_first) / n**2
