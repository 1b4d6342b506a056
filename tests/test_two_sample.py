from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian
from scipy import stats
from test_compare import draw
from two_laws import chance, of_pooled_boxes, other_laws, under_equal_laws

from evaluation.base import Measured, Sample
from evaluation.ks import Sides
from evaluation.two_sample import _auc, _folds, field_c2st, summary_c2st
from gen.errors import InputError
from gen.fields import Grid

# boxes, maps in each, how alike, strata, independent samples in each
STRUCTURES = [(50, 1, 0.0, 1, 50), (16, 4, 0.3, 1, 64), (6, 4, 0.1, 3, 24)]


def lognormal(shape: tuple[int, ...], n: int, seed: int, sigma: float = 0.6) -> np.ndarray:
    return np.exp(sigma * smooth_gaussian(shape, 1.0, n, seed)).astype(np.float32)


def twin(x: np.ndarray, seed: int) -> np.ndarray:
    """The same power in every mode of every field, with the phases of white noise."""
    axes = tuple(range(1, x.ndim))
    white = np.random.default_rng(seed).normal(size=x.shape)
    amplitude = np.abs(np.fft.rfftn(x, axes=axes))
    phases = np.exp(1j * np.angle(np.fft.rfftn(white, axes=axes)))
    phases[(slice(None), *(0,) * len(axes))] = 1  # the mean
    return np.fft.irfftn(amplitude * phases, s=x.shape[1:], axes=axes).astype(np.float32)


def fields(x: np.ndarray, maps: int = 1) -> Sample:
    """``maps`` fields in every box."""
    return Sample(torch.from_numpy(x[:, None]), np.arange(len(x)) // maps)


# --- on summaries ---------------------------------------------------------------------------------------


def summary_p(a: Measured, b: Measured, seed: int) -> float:
    return summary_c2st(a, b, n_permutations=99, seed=seed).p


@pytest.mark.parametrize("structure", STRUCTURES)
def test_summary_p_is_uniform_under_equal_laws(structure):
    p = under_equal_laws(summary_p, structure, 100, 100, seed=1)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_maps_pooled_out_of_their_boxes_reject_the_truth():
    assert np.mean(of_pooled_boxes(summary_p, 50, seed=2) <= 0.05) > chance(50)


def test_scores_permuted_after_one_training_would_reject_the_truth():
    # folds train on each other's maps, so their scores are alike: why every permutation is trained anew
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        x, label = rng.normal(size=(60, 20)), np.repeat([False, True], 30)
        half = rng.permutation(60) % 2 == 0
        scores = np.empty(60)
        for k in (half, ~half):
            scores[k] = x[k] @ (x[~k & label].mean(0) - x[~k & ~label].mean(0))
        labels = (label, *rng.permuted(np.tile(label, (99, 1)), axis=1))
        gap = [scores[p].mean() - scores[~p].mean() for p in labels]
        found.append(np.mean(np.array(gap) >= gap[0]))
    assert np.mean(np.array(found) <= 0.05) > chance(200)


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(4)
    stratum = np.arange(10) % 2
    x, y = np.round(rng.normal(size=(2, 10)))
    sides = Sides.of(*(Measured(v[:, None], np.arange(10), stratum) for v in (x, y)), 0, 0)
    gaps = [np.subtract.outer(y[stratum == s], x[stratum == s]) for s in (0, 1)]
    pairs = [((gap > 0) + (gap == 0) / 2).mean() for gap in gaps]
    assert _auc(sides.vectors, sides)[0] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_folds_never_split_a_box_and_hold_every_stratum():
    rng = np.random.default_rng(5)
    a, b = draw(rng, 6, 5, strata=3), draw(rng, 40, 1, strata=3)
    fold_a, fold_b, n = _folds(a, b, 4, seed=0)
    assert n == 4
    assert all(len(np.unique(fold_a[a.simulation == s])) == 1 for s in np.unique(a.simulation))
    for fold, m in ((fold_a, a), (fold_b, b)):
        assert len(np.unique(np.stack([fold, m.stratum]), axis=1).T) == 4 * 3
    for lone in (draw(rng, 1, 20), draw(rng, 1, 5, strata=6)):
        with pytest.raises(InputError, match="two or more of the reference"):
            summary_c2st(lone, draw(rng, 20, 1, strata=len(np.unique(lone.stratum))))


def test_summaries_tell_shift_scatter_and_correlation():
    reference, equal, others = other_laws(seed=6)
    for b in others:
        found = summary_c2st(reference, b, n_permutations=199)
        assert found.p < 0.01
        assert found.auc > found.auc_critical
    assert summary_c2st(reference, equal, n_permutations=199).p > 0.01


def test_auc_reaches_the_best_of_two_normal_laws():
    # the likelihood ratio of laws d apart has Phi(d / sqrt 2)
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(2, 1000, 3))
    y[:, 0] += 1
    a, b = (Measured(v, np.arange(1000), np.zeros(1000, int)) for v in (x, y))
    best = stats.norm.cdf(1 / math.sqrt(2))
    assert summary_c2st(a, b, n_permutations=9).auc == pytest.approx(best, abs=3 * 0.0115 + 0.01)


# --- on fields ------------------------------------------------------------------------------------------


def test_phase_randomised_twins_are_seen():
    x = lognormal((32, 32), 512, 1)
    y = twin(lognormal((32, 32), 512, 2), 3)
    found = field_c2st(fields(x), fields(y), Grid((32, 32), 5.0, "deg", True), n_steps=30)
    assert found.auc > 0.95
    assert found.p < 0.01


@pytest.mark.parametrize(
    ("shape", "periodic"), [((16, 16), False), ((12, 16), True), ((10, 10, 10), True), ((8, 8, 12), False)]
)
def test_plane_and_cube_open_and_periodic_by_one_code(shape, periodic):
    x, y = lognormal(shape, 96, 4, 1.0), twin(lognormal(shape, 96, 5, 1.0), 6)
    unit = "deg" if len(shape) == 2 else "Mpc/h"
    grid = Grid(shape, [float(n) for n in shape], unit, periodic)
    found = field_c2st(fields(x), fields(y), grid, n_steps=40, channels=(4, 8))
    assert found.p < 0.01


@pytest.mark.slow
def test_fields_of_equal_laws_are_not_told_apart():
    # the Cauchy combination of two valid p-values, a little above 5 % where they depend on each other
    grid = Grid((8, 8), 1.0, "deg", True)
    found = []
    for t in range(200):
        x, y = lognormal((8, 8), 48, 2 * t + 10), lognormal((8, 8), 48, 2 * t + 11)
        c = field_c2st(
            fields(x), fields(y), grid, n_steps=12, batch_size=16, channels=(4, 4), n_permutations=99, seed=t
        )
        found.append(c.p)
    p = np.array(found)
    assert np.mean(p <= 0.05) < 0.05 + 3 * 0.0154
    assert 0.25 < np.mean(p <= 0.5) < 0.5 + 3 * 0.035


def test_boxes_of_equal_fields_are_no_evidence():
    # eight boxes of twelve all but equal fields: a network learns the boxes, and must not be believed
    grid = Grid((8, 8), 1.0, "deg", True)
    rejected = {1: 0, 12: 0}
    for t in range(12):
        shared = np.repeat(lognormal((8, 8), 8, 3 * t + 50, 1.0), 12, axis=0)
        x = shared * lognormal((8, 8), 96, 3 * t + 51, 0.1)
        y = lognormal((8, 8), 96, 3 * t + 52, math.sqrt(1.01))
        for maps in rejected:
            c = field_c2st(
                fields(x, maps), fields(y), grid, n_steps=40, batch_size=16, channels=(4, 8), seed=t
            )
            rejected[maps] += c.p <= 0.05
    assert rejected[12] <= 3  # of 12, nominal 0.6
    assert rejected[1] >= 4


def test_randomness_is_an_argument():
    grid = Grid((8, 8), 1.0, "deg", True)
    x, y = fields(lognormal((8, 8), 32, 7)), fields(lognormal((8, 8), 32, 8))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        one, two, other = (field_c2st(x, y, grid, n_steps=8, seed=s) for s in (1, 1, 2))
    assert one == two
    assert one.auc_of_fold != other.auc_of_fold
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_amplitude_and_offset_are_seen_and_units_are_not():
    grid = Grid((16, 16), 1.0, "deg", True)
    x, y = lognormal((16, 16), 128, 9), lognormal((16, 16), 128, 10)
    assert field_c2st(fields(x), fields(1.15 * y), grid, n_steps=60).p < 0.01
    small, large = (field_c2st(fields(u * x), fields(u * y), grid, n_steps=8) for u in (1.0, 1024.0))
    assert small.auc == pytest.approx(large.auc, abs=0.01)


def test_other_fields_are_refused():
    grid = Grid((8, 8), 1.0, "deg", True)
    x = fields(lognormal((8, 8), 8, 11))
    with pytest.raises(InputError, match="grid's shape"):
        field_c2st(x, fields(lognormal((8, 6), 8, 12)), grid)
    with pytest.raises(InputError, match="two or more of the reference"):
        field_c2st(fields(lognormal((8, 8), 8, 13), 8), x, grid)
    with pytest.raises(InputError, match="not finite"):
        field_c2st(x, Sample(torch.full((8, 1, 8, 8), torch.nan)), grid)
