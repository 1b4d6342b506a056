"""Do two samples have the same mean vector? Hotelling's test, with simulations as observations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import f as f_law

from evaluation.base import Measured
from evaluation.resampling import Boxes, common_strata
from evaluation.variance import Side
from gen.errors import InputError

_SMALLEST = 1e-10  # directions of less variance than this share of the largest are taken for constant


@dataclass(frozen=True, eq=False)
class Pair:
    """Two samples on the same bins and strata, in common units that know nothing of the labels.

    ``reference (N, p)`` and ``samples (M, p)`` are less the reference's mean of their stratum, over the
    map-to-map scatter of each bin (root mean square over strata and sides) and over one amplitude of each
    stratum, so that strata of large scatter do not count for all. ``group (n_bins,)`` is the joined bin that
    each bin of the statistic went to, -1 for those without scatter.
    """

    reference: np.ndarray
    samples: np.ndarray
    boxes: tuple[Boxes, Boxes]  # maps stand for boxes where a stratum has only one
    group: np.ndarray
    basis: str  # "simulations", or "maps" where a stratum has a single box: errors are then too small

    @classmethod
    def of(cls, reference: Measured, samples: Measured, n_bins: int | None = None) -> Pair:
        """``n_bins``: join neighbouring bins, as means in units of their scatter, to so many."""
        check_vectors(reference, samples)
        stratum_a, stratum_b, n_strata = common_strata(reference, samples)
        a, b = Side.of(reference, stratum_a, n_strata), Side.of(samples, stratum_b, n_strata)
        variance = (a.variance() + b.variance()) / 2
        size = max(np.square(reference.vectors).max(), np.square(samples.vectors).max())
        kept = np.flatnonzero(variance.mean(0) > 1e-20 * size)
        if len(kept) == 0:
            raise InputError("no bin of the statistic has a scatter; give fields that differ from each other")
        if n_bins is not None and not 1 <= n_bins <= len(kept):
            raise InputError(
                f"n_bins must be 1 to {len(kept)}, the bins that have a scatter, got {n_bins}; choose fewer"
            )
        variance = variance[:, kept]
        unit = np.sqrt(variance.mean(0))
        amplitude = np.sqrt((variance / unit**2).mean(1, keepdims=True))
        parts = np.array_split(np.arange(len(kept)), len(kept) if n_bins is None else n_bins)
        group = np.full(reference.vectors.shape[1], -1)
        join = np.zeros((len(kept), len(parts)))
        for j, part in enumerate(parts):
            group[kept[part]] = j
            join[part, j] = 1 / len(part)
        x, y = (
            (m.vectors[:, kept] - a.centre[stratum][:, kept]) / (unit * amplitude[stratum]) @ join
            for m, stratum in ((reference, stratum_a), (samples, stratum_b))
        )
        basis = "simulations" if a.boxes is a.given else "maps"
        return cls(x, y, (a.boxes, b.boxes), group, basis)

    def check_boxes(self) -> None:
        """Refuse more bins than the independent boxes can tell apart: n > p + 2 is needed."""
        p = self.reference.shape[1]
        for name, boxes in zip(("reference", "samples"), self.boxes, strict=True):
            n = boxes.n_boxes - boxes.n_strata + 1
            if n <= p + 2:
                mend = f"join bins with n_bins={n - 3} or less, or " if n > 3 else ""
                raise InputError(
                    f"{p} bins need more than {p + 2} independent boxes, got {n} of the {name} "
                    f"({boxes.n_boxes} boxes in {boxes.n_strata} sets of parameters); "
                    f"{mend}give more simulations"
                )


def check_vectors(reference: Measured, samples: Measured) -> None:
    """Refuse vectors of different lengths, and numbers that are not finite."""
    if reference.vectors.shape[1:] != samples.vectors.shape[1:] or reference.vectors.ndim != 2:
        raise InputError(
            "reference and samples must hold vectors (N, n_bins) of the same bins, got shapes "
            f"{reference.vectors.shape} and {samples.vectors.shape}; measure both with one statistic"
        )
    for name, m in (("reference", reference), ("samples", samples)):
        bad = (~np.isfinite(m.vectors)).any(1).sum()
        if bad:
            raise InputError(f"{bad} of {len(m)} vectors of the {name} are not finite; leave them out")


@dataclass(frozen=True, eq=False)
class Hotelling:
    """``T2`` of two mean vectors, and its law F(``df_1``, ``df_2``) under equal means.

    ``difference (p,)`` is samples less reference in units of the map-to-map scatter of the (joined) bins,
    mean over strata; ``difference_std (p,)`` its error. ``group`` as in ``Pair``.
    """

    T2: float
    F: float
    df_1: int
    df_2: float
    p: float
    difference: np.ndarray
    difference_std: np.ndarray
    group: np.ndarray
    n_simulations_reference: int
    n_simulations_samples: int
    n_strata: int
    basis: str

    def to_dict(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def hotelling(reference: Measured, samples: Measured, *, n_bins: int | None = None) -> Hotelling:
    r"""Two-sample Hotelling test of equal mean vectors, of unequal covariances.

    The observations are means over the maps of a box. The mean boxes of the two sides, averaged over strata,
    differ by d, whose covariance is V = V_1 + V_2 with V_i = sum_s S_is / n_is / n_strata^2 (S_is the
    covariance of the n_is boxes of stratum s, nu_i degrees of freedom in all). Boxes of many maps and
    independent maps have different covariances (the problem of Behrens and Fisher), so the law of
    T^2 = d^T V^-1 d is taken as

        T^2 ~ nu p / (nu - p + 1) F(p, nu - p + 1),
        nu = (p + p^2) / sum_i (tr[(V_i V^-1)^2] + tr[V_i V^-1]^2) / nu_i

    (Krishnamoorthy & Yu 2004, who mend Nel & van der Merwe 1986; for p = 1 Welch's t-test). Single maps
    need not be normal, their means need. A chi-squared in place of F rejects the truth far too often where
    boxes are few. Directions that never vary (bins of a PDF add up to one) are left out of p.

    Args:
        reference, samples: of one statistic.
        n_bins: join neighbouring bins to so many; None: take them as they are.

    Raises:
        InputError: for p + 2 independent boxes or fewer on either side.
    """
    pair = Pair.of(reference, samples, n_bins)
    pair.check_boxes()
    mean_a, v_a = _mean_box(pair.reference, pair.boxes[0])
    mean_b, v_b = _mean_box(pair.samples, pair.boxes[1])
    difference, std = mean_b - mean_a, np.sqrt(np.diag(v_a + v_b))
    directions = varying(v_a + v_b)
    d, v_a, v_b = directions.T @ difference, *(directions.T @ v @ directions for v in (v_a, v_b))
    p = len(d)
    inverse = np.linalg.inv(v_a + v_b)
    t2 = float(d @ inverse @ d)
    spread = 0.0
    for v, boxes in zip((v_a, v_b), pair.boxes, strict=True):
        share = v @ inverse
        spread += (np.trace(share @ share) + np.trace(share) ** 2) / (boxes.n_boxes - boxes.n_strata)
    nu = (p + p**2) / float(spread)
    f = t2 * (nu - p + 1) / (nu * p)
    return Hotelling(
        T2=t2,
        F=f,
        df_1=p,
        df_2=nu - p + 1,
        p=float(f_law.sf(f, p, nu - p + 1)),
        difference=difference,
        difference_std=std,
        group=pair.group,
        n_simulations_reference=pair.boxes[0].n_boxes,
        n_simulations_samples=pair.boxes[1].n_boxes,
        n_strata=pair.boxes[0].n_strata,
        basis=pair.basis,
    )


def varying(covariance: np.ndarray) -> np.ndarray:
    """``(p, rank)`` directions in which a covariance ``(p, p)`` is not zero, of unit variance each."""
    std = np.sqrt(np.diag(covariance))
    std = np.where(std > 0, std, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(std, std))
    kept = values > _SMALLEST * values[-1]
    return vectors[:, kept] / np.sqrt(values[kept]) / std[:, None]


def _mean_box(x: np.ndarray, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Mean over strata of the mean box ``(p,)``, and its covariance ``(p, p)``."""
    means = boxes.sums(x) / boxes.size[:, None]
    total, covariance = 0.0, 0.0
    for s in range(boxes.n_strata):
        of_stratum = means[boxes.box_stratum == s]
        total = total + of_stratum.mean(0)
        covariance = covariance + np.atleast_2d(np.cov(of_stratum, rowvar=False)) / len(of_stratum)
    return np.asarray(total) / boxes.n_strata, np.asarray(covariance) / boxes.n_strata**2
