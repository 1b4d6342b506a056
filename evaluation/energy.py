"""Energy distance of two sets of vectors: zero for equal laws only, tested by exchanging simulations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from evaluation.base import Measured
from evaluation.hotelling import check_vectors
from evaluation.ks import Sides, permutation_p

_ROWS = 1024  # of the table of distances that are held at once


@dataclass(frozen=True)
class Energy:
    """``distance`` E between the laws, in units of the map-to-map scatter of a bin.

    ``floor`` is the mean of E after exchanging boxes, what finite sets of one law give, ``excess`` the ratio.
    ``coefficient`` is E / 2 <|X - Y|>, between 0 and 1. ``p`` is the chance of E or more under equal laws.
    """

    distance: float
    floor: float
    excess: float
    coefficient: float
    p: float
    n_reference: int
    n_samples: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def energy_distance(
    reference: Measured, samples: Measured, *, n_permutations: int = 1000, seed: int = 0
) -> Energy:
    r"""Two-sample test by E = 2 <|X - Y|> - <|X - X'|> - <|Y - Y'|> (Szekely & Rizzo 2004, 2013).

    All pairs count, a vector with itself too, so E >= 0. Vectors are less the mean of their stratum over its
    scatter, both of reference and samples together, so that all bins weigh alike. Boxes are exchanged inside
    strata; of samples in larger number than the reference the surplus is left out.

    Args:
        reference, samples: of one statistic, ``(N, n_bins)`` and ``(M, n_bins)``.

    Raises:
        InputError: for other bins, other strata, or numbers that are not finite.
    """
    check_vectors(reference, samples)
    sides = Sides.of(reference, samples, n_permutations, seed)
    z, weights = sides.standardised(), sides.weights()
    first = sides.first[:, 0]
    null = np.zeros(weights.shape[1])
    across = 0.0
    for i in range(0, len(z), _ROWS):
        rows = slice(i, i + _ROWS)
        towards = cdist(z[rows], z) @ np.column_stack([weights, np.where(first, 0, -weights[:, 0])])
        null -= np.einsum("ir,ir->r", weights[rows], towards[:, :-1])
        across += float(np.where(first, weights[:, 0], 0)[rows] @ towards[:, -1])
    floor = float(null[1:].mean()) if n_permutations else float("nan")
    return Energy(
        distance=float(null[0]),
        floor=floor,
        excess=float(null[0]) / floor,
        coefficient=float(null[0]) / (2 * across) if across > 0 else 0.0,
        p=float(permutation_p(null[:, None])[0]),
        n_reference=int(first.sum()),
        n_samples=int((~first).sum()),
    )
