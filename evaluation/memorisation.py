"""Does a generator copy its training fields, or itself? Nearest neighbours, beside those of held-out ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from evaluation.base import Measured, Sample
from evaluation.ks import Sides, permutation_p
from evaluation.neighbours import Likeness
from evaluation.resampling import Boxes, common_strata, permutations
from gen.errors import InputError
from gen.fields import Grid


@dataclass(frozen=True, eq=False)
class Copying:
    """The three-sample test of Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675), by simulation.

    ``nearest_samples (N,)`` and ``nearest_held_out (M,)`` are each field's largest correlation with any
    training field under the grid's symmetries. ``closer`` is the probability that a sample lies closer to
    the training set than a held-out field of the same parameters: 1/2 of a generator that has learnt the
    law, 1 of one that copies, below 1/2 of one whose fields are unlike any real one. ``p`` is one-sided,
    by permutation of simulations inside each stratum. ``copies`` is the share of samples that lie closer to a
    training field than ``threshold``, the closest that any held-out field comes.
    """

    closer: float
    p: float
    copies: float
    threshold: float
    n_samples: int
    n_held_out: int
    n_training: int
    nearest_samples: np.ndarray = field(repr=False)
    nearest_held_out: np.ndarray = field(repr=False)
    neighbour: np.ndarray = field(repr=False)  # (N,) index of the training field nearest to each sample

    def to_dict(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def copying(
    held_out: Sample,
    samples: Sample,
    training: Sample,
    grid: Grid,
    *,
    n_permutations: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
) -> Copying:
    """Do samples lie closer to the training fields than held-out fields of the same parameters do?

    Args:
        held_out: real fields of simulations that were not trained on.
        samples: generated fields at the same parameters (strata).
        training: the fields that were trained on, of any parameters.

    Raises:
        InputError: if a held-out field is among the training fields, or the strata differ.
    """
    r_samples, neighbour = _nearest(samples, training, grid, batch_size)
    r_held_out, _ = _nearest(held_out, training, grid, batch_size)
    if r_held_out.max() > 1 - 1e-5:
        raise InputError(
            f"held-out field {int(r_held_out.argmax())} is a training field; "
            "split by simulation before judging"
        )
    a = Measured(r_held_out[:, None], held_out.simulation, held_out.stratum)
    b = Measured(r_samples[:, None], samples.simulation, samples.stratum)
    sides = Sides.of(a, b, n_permutations, seed)
    rank = _ranks(sides.vectors[:, 0], sides.stratum)
    null = -sides.differences(rank[:, None])  # mean rank of samples less that of the held-out
    return Copying(
        closer=_probability(r_held_out, r_samples, *common_strata(a, b)),
        p=float(permutation_p(null)[0]),
        copies=float((r_samples > r_held_out.max()).mean()),
        threshold=float(r_held_out.max()),
        n_samples=len(samples),
        n_held_out=len(held_out),
        n_training=len(training),
        nearest_samples=r_samples,
        nearest_held_out=r_held_out,
        neighbour=neighbour,
    )


def _nearest(sample: Sample, training: Sample, grid: Grid, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    likeness = Likeness(grid)
    asked = [likeness.normalised(part) for part in sample.values[:].split(batch_size)]
    best, index = np.full(len(sample), -np.inf), np.zeros(len(sample), np.int64)
    step = 16 * batch_size
    for j in range(0, len(training), step):
        bank = likeness.normalised(training.values[j : j + step])
        for i, part in enumerate(asked):
            rows = slice(i * batch_size, i * batch_size + len(part))
            r, found = likeness.between(part, bank).max(1)
            r, found = r.double().cpu().numpy(), found.cpu().numpy()
            better = r > best[rows]
            best[rows] = np.where(better, r, best[rows])
            index[rows] = np.where(better, found + j, index[rows])
    return best, index


def _ranks(x: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Ranks inside each stratum, over their number."""
    out = np.empty(len(x))
    for s in np.unique(stratum):
        rows = stratum == s
        out[rows] = rankdata(x[rows]) / rows.sum()
    return out


def _probability(
    x: np.ndarray, y: np.ndarray, stratum_x: np.ndarray, stratum_y: np.ndarray, n_strata: int
) -> float:
    """P(y > x) + P(y = x) / 2, mean over strata."""
    out = []
    for s in range(n_strata):
        u, v = x[stratum_x == s], y[stratum_y == s]
        gap = v[:, None] - u
        out.append((gap > 0).mean() + (gap == 0).mean() / 2)
    return float(np.mean(out))


@dataclass(frozen=True)
class Diversity:
    """How alike the fields of one set are among themselves, against real fields of different simulations.

    ``likeness`` is the mean, over the samples, of the correlation with the most alike other sample under
    the grid's symmetries; ``reference_likeness`` the same of as many real fields. ``p`` is one-sided: the
    chance under equal laws of samples so alike, by permutation of simulations. ``duplicates`` is the share
    of samples with a twin closer than ``threshold``, the closest that real fields come to each other.
    """

    likeness: float
    reference_likeness: float
    p: float
    duplicates: float
    threshold: float
    n_samples: int
    n_reference: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def diversity(
    reference: Sample, samples: Sample, grid: Grid, *, n_permutations: int = 500, seed: int = 0
) -> Diversity:
    """Are samples of the same parameters as different from each other as real fields are?

    Fields of one simulation are not compared. Independent samples are grouped to the reference's
    simulations, and a surplus is left out, so that each field has as many others to resemble.

    Raises:
        InputError: for a stratum with less than two simulations of the reference.
    """
    marked = [
        Measured(np.full((len(s), 1), i), s.simulation, s.stratum) for i, s in enumerate((reference, samples))
    ]
    stratum_a, stratum_b, n_strata = common_strata(*marked)
    few = Boxes.of(reference.simulation, stratum_a, n_strata).per_stratum.min()
    if few < 2:
        raise InputError(f"diversity needs two simulations at each set of parameters, got {few}; give more")
    likeness = Likeness(grid)
    totals = np.zeros((n_permutations + 1, 2))
    own: list[np.ndarray] = []
    real: list[np.ndarray] = []
    for s in range(n_strata):
        a, b = reference.select(stratum_a == s), samples.select(stratum_b == s)
        boxes_a = Boxes.of(a.simulation, np.zeros(len(a), int), 1)
        boxes_b = Boxes.of(b.simulation, np.zeros(len(b), int), 1)
        size = np.rint(boxes_a.maps / boxes_a.per_stratum).astype(int)
        boxes_b = boxes_b.grouped(size)
        keep = np.flatnonzero(boxes_b.box < boxes_a.n_boxes)
        boxes_b = Boxes.of(boxes_b.box[keep], np.zeros(len(keep), int), 1)
        b = b.select(keep)
        first = permutations(boxes_a, boxes_b, n_permutations, np.random.default_rng([seed, s]))
        box = np.concatenate([boxes_a.box, boxes_a.n_boxes + boxes_b.box])
        values = np.concatenate([s.values[:].cpu().numpy() for s in (a, b)])
        # Boxes change sides whole, so the largest likeness to each other box is all that is needed.
        r = _pairs(likeness, Sample(values))
        to_box = np.stack([r[:, box == i].max(1) for i in range(box.max() + 1)], axis=1)
        to_box[np.arange(len(box)), box] = -1.0
        of_box = first[np.unique(box, return_index=True)[1]]
        for k in range(n_permutations + 1):
            inside = np.where(of_box[:, k] == first[:, k, None], to_box, -1.0).max(1)
            totals[k] += inside[first[:, k]].mean() / n_strata, inside[~first[:, k]].mean() / n_strata
            if k == 0:
                real.append(inside[first[:, 0]])
                own.append(inside[~first[:, 0]])
    threshold = float(np.concatenate(real).max())
    return Diversity(
        likeness=float(totals[0, 1]),
        reference_likeness=float(totals[0, 0]),
        p=float(permutation_p((totals[:, 1] - totals[:, 0])[:, None])[0]),
        duplicates=float((np.concatenate(own) > threshold).mean()),
        threshold=threshold,
        n_samples=len(samples),
        n_reference=len(reference),
    )


def _pairs(likeness: Likeness, sample: Sample, rows: int = 64) -> np.ndarray:
    x = likeness.normalised(sample.values[:])
    return torch.cat([likeness.between(part, x) for part in x.split(rows)]).cpu().numpy()
