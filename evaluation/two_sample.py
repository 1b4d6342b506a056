"""Can a classifier tell samples from the reference? Two-sample tests on statistics and on the fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from evaluation.base import Measured, Sample
from evaluation.compare import combined
from evaluation.field_network import Convolutions, Views, check_fields, descend
from evaluation.hotelling import check_vectors
from evaluation.ks import Sides, permutation_p, standardised
from evaluation.resampling import Boxes, common_strata
from gen.errors import InputError
from gen.fields import Grid

_N_KERNELS = 200
_SHRINK = 0.2  # ridge penalty per training map, of features of unit variance
_LEARNING_RATE = 3e-3
_N_VIEWS = 4  # turned copies of a held-out field whose scores are averaged


@dataclass(frozen=True)
class Classified:
    """How well a classifier tells held-out samples from held-out reference.

    ``auc`` is the probability that a sample scores higher than a map of the reference at the same parameters:
    1/2 for equal laws, 1 for laws that never look alike. ``auc_critical`` is the 95th percentile under equal
    laws, ``p`` the chance of ``auc`` or more, by exchanging boxes. ``auc_of_fold`` are the folds one by one.
    """

    auc: float
    auc_critical: float
    p: float
    auc_of_fold: tuple[float, ...]
    n_reference: int
    n_samples: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summary_c2st(
    reference: Measured, samples: Measured, *, n_folds: int = 5, n_permutations: int = 200, seed: int = 0
) -> Classified:
    """Classifier two-sample test on vectors (Lopez-Paz & Oquab 2017, arXiv:1610.06545), cross-validated.

    The classifier is least squares on the bins, their squares and radial kernels of all (Nystroem's
    approximation), whose penalty and width are fixed beforehand: with one factorisation it is trained anew
    for every permutation, so that p is right although the folds train on each other's maps (to permute the
    scores of one training is not). Folds never split a box; boxes are exchanged inside a stratum and a fold.
    Vectors are less the mean of their stratum over its scatter, both of the two sets together. Several
    statistics may be given as one, side by side. Of samples in larger number than the reference the surplus
    is left out.

    Raises:
        InputError: for a set of parameters with one box, other bins, or other strata.
    """
    check_vectors(reference, samples)
    fold_a, fold_b, n_folds = _folds(reference, samples, n_folds, seed)
    stratum_a, stratum_b, n_strata = common_strata(reference, samples)
    cells = [
        Measured(m.vectors, m.simulation, stratum * n_folds + fold)
        for m, stratum, fold in ((reference, stratum_a, fold_a), (samples, stratum_b, fold_b))
    ]
    sides = Sides.of(cells[0], cells[1], n_permutations, seed)
    stratum, fold = np.divmod(np.unique(cells[0].stratum)[sides.stratum], n_folds)
    features = _features(standardised(sides.vectors, stratum, n_strata, sides.first[:, 0]), seed)
    label = np.where(sides.first, -1.0, 1.0)
    scores = np.empty(label.shape)
    for k in range(n_folds):
        held_out = fold == k
        penalty = _SHRINK * np.count_nonzero(~held_out)
        ridge = Ridge(penalty, solver="cholesky").fit(features[~held_out], label[~held_out])
        scores[held_out] = ridge.predict(features[held_out]).reshape(-1, label.shape[1])
    by_fold = np.stack([_auc(scores[fold == k], sides, fold == k) for k in range(n_folds)])
    found = by_fold.mean(0)
    return Classified(
        auc=float(found[0]),
        auc_critical=float(np.quantile(found[1:], 0.95)) if n_permutations else math.nan,
        p=float(permutation_p(found[:, None])[0]),
        auc_of_fold=tuple(by_fold[:, 0].tolist()),
        n_reference=int(sides.first[:, 0].sum()),
        n_samples=int((~sides.first[:, 0]).sum()),
    )


def field_c2st(
    reference: Sample,
    samples: Sample,
    grid: Grid,
    *,
    n_steps: int = 200,
    batch_size: int = 32,
    channels: Sequence[int] = (8, 16, 32),
    n_permutations: int = 1000,
    seed: int = 0,
) -> Classified:
    """Classifier two-sample test on the fields, by a small convolutional network (same paper).

    Of the boxes one half trains, the other is judged, then the other way round. The p-value of one direction
    permutes the boxes that were held out; of the two, which depend on each other, the Cauchy combination is
    reported.
    Fields are turned and flipped at random among the symmetries of the grid, and moved on a periodic one;
    batches hold a field of either side at the same parameters, so that parameters tell nothing. Fields are
    seen as asinh of their difference from the mean over the scatter.

    Args:
        reference, samples: fields of one grid.
        n_steps, batch_size: of the training in one direction; the cost is proportional to both.
        channels: of the layers; all but the first halve the resolution, in three dimensions that too.

    Raises:
        InputError: for a set of parameters with one box, other strata, or fields of another grid.
    """
    fields = [s.values[0 : len(s)] for s in (reference, samples)]
    for values in fields:
        check_fields(values, grid)
    a, b = (Measured(np.arange(len(s))[:, None], s.simulation, s.stratum) for s in (reference, samples))
    fold_a, fold_b, _ = _folds(a, b, 2, seed)
    views = Views(fields, grid)
    null, p = [], []
    for k in (0, 1):
        rng = np.random.default_rng([seed, 6, k])
        training = a.select(fold_a != k), b.select(fold_b != k)
        network = _trained(fields, views, *training, n_steps, batch_size, channels, rng)
        judged = [m.select(fold == k) for m, fold in ((a, fold_a), (b, fold_b))]
        turns = int(rng.integers(2**62))
        scored = [
            Measured(_scores(network, views, x, m.vectors[:, 0], turns)[:, None], m.simulation, m.stratum)
            for x, m in zip(fields, judged, strict=True)
        ]
        sides = Sides.of(scored[0], scored[1], n_permutations, seed)
        null.append(_auc(sides.vectors, sides))
        p.append(float(permutation_p(null[-1][:, None])[0]))
    found = np.mean(null, axis=0)
    return Classified(
        auc=float(found[0]),
        auc_critical=float(np.quantile(np.stack(null)[:, 1:].max(0), 0.95)) if n_permutations else math.nan,
        p=combined(p),
        auc_of_fold=tuple(float(x[0]) for x in null),
        n_reference=len(reference),
        n_samples=len(samples),
    )


def _folds(a: Measured, b: Measured, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Fold of every map of either side, and their number, at most ``n``; every stratum is spread over all.

    One box a stratum does not do: maps that are alike differ in law from independent samples, which a
    classifier sees.
    """
    stratum_a, stratum_b, n_strata = common_strata(a, b)
    boxes = [Boxes.of(m.simulation, s, n_strata) for m, s in ((a, stratum_a), (b, stratum_b))]
    n_folds = min(n, *(int(x.per_stratum.min()) for x in boxes))
    if n_folds < 2:
        raise InputError(
            "a classifier is trained and judged on different simulations; give two or more of the reference, "
            "and two samples or more, at every set of parameters"
        )
    rng = np.random.default_rng([seed, 7])
    found = []
    for x in boxes:
        order = np.lexsort((rng.random(x.n_boxes), x.box_stratum))
        fold = np.empty(x.n_boxes, int)
        fold[order] = np.concatenate([np.arange(m) % n_folds for m in x.per_stratum])
        found.append(fold[x.box])
    return found[0], found[1], n_folds


def _features(z: np.ndarray, seed: int) -> np.ndarray:
    """``(N, n_features)`` of unit variance: bins, squares, radial kernels as wide as the typical distance."""
    kernels = Nystroem(gamma=0.5 / z.shape[1], n_components=min(_N_KERNELS, len(z) // 2), random_state=seed)
    return StandardScaler().fit_transform(np.hstack([z, z**2, kernels.fit_transform(z)]))


def _auc(scores: np.ndarray, sides: Sides, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """``(R,)`` P(second scores higher than first), mean over strata, of scores ``(N, R)`` or ``(N, 1)``."""
    first, stratum = sides.first[rows], sides.stratum[rows]
    names = np.unique(stratum)
    total = np.zeros(first.shape[1])
    for s in names:
        label, x = first[stratum == s], scores[stratum == s]
        rank = rankdata(x, axis=0)
        n = label.sum(0)
        total += (np.where(label, 0, rank).sum(0) / (len(x) - n) - np.where(label, rank, 0).sum(0) / n) / len(
            x
        )
    return 0.5 + total / len(names)


class _Network(torch.nn.Module):
    """Convolutions and a linear score of their mean."""

    def __init__(self, grid: Grid, channels: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        # Of a volume all but a hundredth of the work would be in the layers of full resolution.
        self.convolutions = Convolutions(grid, channels, generator, first_stride=2 if grid.dim == 3 else 1)
        head = torch.randn(channels[-1], generator=generator) / math.sqrt(channels[-1])
        self.head = torch.nn.Parameter(head)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B,)`` logits."""
        return self.convolutions(x) @ self.head


def _trained(
    fields: Sequence[Tensor],
    views: Views,
    a: Measured,
    b: Measured,
    n_steps: int,
    batch_size: int,
    channels: Sequence[int],
    rng: np.random.Generator,
) -> _Network:
    """A network that has learnt to tell the fields of ``b`` from those of ``a`` (numbers of fields)."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    device = fields[0].device
    network = _Network(views.grid, channels, generator).to(device)
    half = max(1, batch_size // 2)
    label = torch.arange(2 * half, device=device).ge(half).float()
    partners = {s: b.vectors[b.stratum == s, 0] for s in np.unique(b.stratum)}

    def loss() -> Tensor:
        rows = rng.integers(len(a), size=half)
        i = a.vectors[rows, 0]
        j = np.array([rng.choice(partners[s]) for s in a.stratum[rows]])
        x = torch.cat([v[torch.from_numpy(k)] for v, k in zip(fields, (i, j), strict=True)])
        return binary_cross_entropy_with_logits(network(views(x, rng)), label)

    descend(network, loss, n_steps, _LEARNING_RATE)
    return network


@torch.no_grad()
def _scores(network: _Network, views: Views, fields: Tensor, index: np.ndarray, turns: int) -> np.ndarray:
    """``(N,)`` logits of the fields of one side, mean over turned copies, the same turns for all."""
    out = []
    for k in torch.from_numpy(index).split(64):
        rng = np.random.default_rng(turns)
        x = fields[k]
        out.append(sum(network(views(x, rng)) for _ in range(_N_VIEWS)) / _N_VIEWS)
    return torch.cat(out).double().cpu().numpy()
