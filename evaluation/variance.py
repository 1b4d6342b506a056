"""Means, scatter and their noise when maps come in boxes: what two sets of true maps differ by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.base import Measured
from evaluation.resampling import Boxes
from gen.errors import InputError


@dataclass(frozen=True, eq=False)
class Side:
    """One sample reduced to sums over its boxes.

    total, squares: ``(n_boxes, n_bins)`` sums of x and x^2 over the maps of each box, x less ``centre``
    ``(n_strata, n_bins)``, the mean of the stratum. ``given`` are the boxes as they came; in ``boxes`` the
    maps of a box that is alone in its stratum stand for boxes.
    """

    given: Boxes
    boxes: Boxes
    centre: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, sample: Measured, stratum: np.ndarray, n_strata: int) -> Side:
        given = Boxes.of(sample.simulation, stratum, n_strata)
        boxes = given.single_box_strata_as_maps()
        if (boxes.maps < 2).any():
            raise InputError(
                f"every set of parameters needs at least 2 maps to have a scatter, got {boxes.maps.min()}"
            )
        centre = np.stack([sample.vectors[stratum == s].mean(0) for s in range(n_strata)])
        x = sample.vectors - centre[stratum]
        return cls(given, boxes, centre, boxes.sums(x), boxes.sums(x * x))

    def _by_stratum(self, weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """``(R, n_strata, n_bins)`` weighted average over the maps of each stratum of a sum by box."""
        out = np.empty((len(weights), self.boxes.n_strata, sums.shape[1]))
        for s in range(self.boxes.n_strata):
            rows = self.boxes.box_stratum == s
            w = weights[:, rows]
            out[:, s] = (w @ sums[rows]) / (w @ self.boxes.size[rows])[:, None]
        return out

    def mean(self) -> np.ndarray:
        """``(n_strata, n_bins)``."""
        return self.centre

    def means(self, weights: np.ndarray) -> np.ndarray:
        """``(R, n_strata, n_bins)`` for ``(R, n_boxes)`` weights of the boxes."""
        return self._by_stratum(weights, self.total) + self.centre

    def scatter(self, weights: np.ndarray) -> np.ndarray:
        """``(R, n_bins)`` map-to-map scatter, mean square over strata, for weights of the boxes."""
        variance = self._by_stratum(weights, self.squares) - self._by_stratum(weights, self.total) ** 2
        return np.sqrt(np.maximum(variance, 0).mean(1))

    def within(self) -> np.ndarray:
        """``(n_strata, n_bins)`` variance inside boxes; of all maps where every map is a box."""
        out = np.empty_like(self.centre)
        inside = self.squares - self.total**2 / self.boxes.size[:, None]
        for s in range(self.boxes.n_strata):
            rows = self.boxes.box_stratum == s
            n, n_boxes = self.boxes.size[rows].sum(), rows.sum()
            out[s] = (
                inside[rows].sum(0) / (n - n_boxes) if n > n_boxes else self.squares[rows].sum(0) / (n - 1)
            )
        return np.maximum(out, 0)

    def variance(self) -> np.ndarray:
        """``(n_strata, n_bins)`` half the mean square difference of maps of different boxes.

        Unbiased for the variance of a map although maps of one box are alike; the usual estimate where every
        map is a box.
        """
        out = np.empty_like(self.centre)
        for s in range(self.boxes.n_strata):
            rows = self.boxes.box_stratum == s
            size, total = self.boxes.size[rows], self.total[rows]
            n = size.sum()
            own = ((n - size)[:, None] * self.squares[rows]).sum(0)
            crossed = total.sum(0) ** 2 - (total**2).sum(0)
            out[s] = (own - crossed) / (n**2 - (size**2).sum())
        return np.maximum(out, 0)


@dataclass(frozen=True, eq=False)
class Components:
    """Variance between boxes and inside them, ``(n_bins,)``, in units of ``scale`` squared.

    One-way analysis of variance, pooled over strata; ``between`` is unbiased and may come out negative.
    """

    between: np.ndarray
    within: np.ndarray

    @classmethod
    def of(cls, side: Side, scale: np.ndarray) -> Components:
        """scale: ``(n_strata, n_bins)``."""
        boxes = side.boxes
        unit = scale[boxes.box_stratum]
        size = boxes.size[:, None]
        between = (side.total**2 / size / unit**2).sum(0)  # totals are about the mean of their stratum
        within = ((side.squares - side.total**2 / size) / unit**2).sum(0)
        n, n_boxes, n_strata = len(boxes.box), boxes.n_boxes, boxes.n_strata
        mean_square = between / (n_boxes - n_strata)
        if n == n_boxes:
            return cls(np.zeros_like(mean_square), mean_square)
        within = within / (n - n_boxes)
        squares = np.bincount(boxes.box_stratum, weights=boxes.size**2, minlength=n_strata)
        typical = (n - (squares / boxes.maps).sum()) / (n_boxes - n_strata)
        return cls((mean_square - within) / typical, within)

    def of_mean(self, size: np.ndarray) -> np.ndarray:
        """``(n_bins,)`` variance of the mean of true maps that come in boxes of these sizes."""
        n = size.sum()
        return self.between * (size**2).sum() / n**2 + self.within / n

    def of_difference(self, *sides: Boxes) -> np.ndarray:
        """``(n_strata, n_bins)`` variance of the difference of two means of true maps in each stratum."""
        strata = range(sides[0].n_strata)
        found = [sum(self.of_mean(b.size[b.box_stratum == s]) for b in sides) for s in strata]
        return np.maximum(np.stack(found), 0)
