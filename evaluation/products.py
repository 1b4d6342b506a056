"""The covariance of a vector as the mean of another, its products, so that the machinery of means serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.base import Measured
from evaluation.ks import Sides
from evaluation.resampling import Boxes, bootstrap_weights

_LEAST_BOXES = 3  # in a stratum, for its residuals to tell how uncertain their own scatter is


class Triangle:
    """Symmetric ``(p, p)`` matrices as lists ``(..., p + p (p - 1) / 2)``: the diagonal, then all pairs."""

    def __init__(self, p: int) -> None:
        self.p = p
        self.pairs = np.triu_indices(p, 1)

    def diagonal(self, c: np.ndarray) -> np.ndarray:
        return c[..., : self.p]

    def correlation(self, c: np.ndarray) -> np.ndarray:
        """``(..., n_pairs)`` correlation coefficients; zero where a bin has no scatter."""
        std = np.sqrt(np.maximum(self.diagonal(c), 0))
        norm = std[..., self.pairs[0]] * std[..., self.pairs[1]]
        return np.divide(c[..., self.p :], norm, out=np.zeros_like(norm), where=norm > 0)

    def standardised(self, y: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Products y over the scatters in c: their mean is the correlation matrix if that of y is c."""
        std = np.sqrt(np.where(self.diagonal(c) > 0, self.diagonal(c), 1.0))
        return y / np.concatenate([std**2, std[self.pairs[0]] * std[self.pairs[1]]])

    def square(self, c: np.ndarray) -> np.ndarray:
        """``(..., p, p)`` of lists."""
        out = np.empty((*c.shape[:-1], self.p, self.p))
        i, j = self.pairs
        out[..., i, j] = out[..., j, i] = c[..., self.p :]
        out[..., range(self.p), range(self.p)] = self.diagonal(c)
        return out


@dataclass(frozen=True, eq=False)
class Products:
    r"""``y (N, p + n_pairs)`` whose mean over maps, each stratum counting alike, is the covariance of a map.

    That is half the mean square difference of maps of different boxes of one stratum, unbiased though maps of
    one box are alike, and never indefinite. Of n maps, e = x - mean, in boxes of m maps and sums t of e,

        y = n ((n - m) e e^T + (e t^T + t e^T) / 2) / (n^2 - sum_boxes m^2),

    which is n / (n - 1) e e^T for independent maps.

    ``boxes`` are the units of resampling: boxes in their strata or, where a stratum holds fewer than three,
    whole strata, each then a box of one law.
    """

    y: np.ndarray
    boxes: Boxes
    by_stratum: bool

    @classmethod
    def of(cls, x: np.ndarray, boxes: Boxes, by_stratum: bool) -> Products:
        mean = np.stack([x[boxes.stratum == s].mean(0) for s in range(boxes.n_strata)])
        e = x - mean[boxes.stratum]
        t = boxes.sums(e)[boxes.box]
        n = boxes.maps[boxes.stratum][:, None]
        others = n - boxes.size[boxes.box][:, None]
        squares = np.bincount(boxes.box_stratum, weights=boxes.size**2, minlength=boxes.n_strata)
        i, j = (np.concatenate([np.arange(x.shape[1]), k]) for k in np.triu_indices(x.shape[1], 1))
        y = others * e[:, i] * e[:, j] + (e[:, i] * t[:, j] + t[:, i] * e[:, j]) / 2
        y *= n / (n**2 - squares[boxes.stratum][:, None])
        if not by_stratum:
            return cls(y, boxes, False)
        y *= len(x) / (boxes.n_strata * n)  # the mean over all maps then counts each stratum equally
        return cls(y, Boxes.of(boxes.stratum, np.zeros_like(boxes.stratum), 1), True)

    @classmethod
    def of_both(
        cls, x: tuple[np.ndarray, np.ndarray], boxes: tuple[Boxes, Boxes]
    ) -> tuple[Products, Products]:
        """Of two samples, with the same units."""
        by_stratum = bool(min(b.per_stratum.min() for b in boxes) < _LEAST_BOXES)
        return cls.of(x[0], boxes[0], by_stratum), cls.of(x[1], boxes[1], by_stratum)

    def measured(self, *more: np.ndarray) -> Measured:
        """More columns, then the products, as a statistic of maps whose boxes may be exchanged inside strata.

        Of strata as units the two sides of one stratum are exchanged for each other.
        """
        stratum = self.boxes.box if self.by_stratum else self.boxes.stratum
        return Measured(np.hstack([*more, self.y]), self.boxes.box, stratum)

    @property
    def inflation(self) -> np.ndarray:
        """``(n_strata,)`` root of (S - 1)/(S - 2) for the S units of a stratum.

        Squares of residuals about the mean of S normal numbers scatter by less than what they estimate: their
        sum has the variance 2 (S - 1), of which resampling S squares finds the share (S - 2)/(S - 1).
        """
        s = np.maximum(self.boxes.per_stratum, _LEAST_BOXES)
        return np.sqrt((s - 1) / (s - 2))

    def bootstrap_weights(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """``(n, n_units)`` of mean 1."""
        drawn = bootstrap_weights(self.boxes, n, rng)
        return 1 + self.inflation[self.boxes.box_stratum] * (drawn - 1)


def exchanged(sides: Sides, residual: Sequence[Products] = ()) -> tuple[np.ndarray, np.ndarray]:
    """``(n+1, N)`` weights of maps in the mean of either side after exchanging boxes; row 0 is the truth.

    residual: the products of both sides, for weights that make up for what residuals of few boxes do not know
    (``inflation``; its mean square, as each side makes half of the variance).
    """
    gap = np.abs(sides.weights())
    weights = [np.where(side, gap, 0) for side in (sides.first, ~sides.first)]
    if residual and not residual[0].by_stratum:
        even = 1 / np.bincount(sides.stratum)[sides.stratum][:, None] / sides.n_strata
        inflation = np.sqrt(np.mean([p.inflation**2 for p in residual], axis=0))
        stretch = inflation[sides.stratum][:, None]
        for w in weights:
            w[:, 1:] = even + stretch * (w[:, 1:] - even)
    return weights[0].T, weights[1].T
