"""Parameters from fields: close to the best error there is, planted biases come back, nothing is leaked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal

from evaluation.answers import _tarp
from evaluation.base import Sample
from evaluation.field_network import Convolutions
from evaluation.field_regression import field_infer, likelihood_loss
from gen.errors import InputError
from gen.fields import Grid

STRATA, MAPS = 10, 32
GRID = Grid((16, 16), 16.0, "deg", True)
LOG_VARIANCE = np.linspace(-1, 1, STRATA)[:, None]  # the one parameter of most tests
CRAMER_RAO = math.sqrt(2 / (GRID.n_cells - 1))  # of the log variance of a Gaussian field of known shape


def gaussian(
    grid: Grid, log_variance: np.ndarray, seed: int, maps: int = MAPS, jitter: float = 0.0
) -> Sample:
    """White Gaussian fields less their mean, ``maps`` of each log variance; ``jitter`` is added to it."""
    rng = np.random.default_rng(seed)
    stratum = np.repeat(np.arange(len(log_variance)), maps)
    own = log_variance.reshape(-1)[stratum] + jitter * rng.normal(size=len(stratum))
    x = rng.normal(size=(len(stratum), 1, *grid.shape))
    x -= x.mean(tuple(range(1, x.ndim)), keepdims=True)
    x *= np.exp(own / 2).reshape(-1, *[1] * (x.ndim - 1))
    return Sample(torch.from_numpy(x.astype(np.float32)), None, stratum)


def test_a_network_comes_near_the_cramer_rao_error_and_returns_a_planted_shift() -> None:
    shift = 0.3
    real, made = gaussian(GRID, LOG_VARIANCE, 1), gaussian(GRID, LOG_VARIANCE + shift, 2)
    found = field_infer(real, made, LOG_VARIANCE, ("A",), GRID, n_steps=100, n_folds=2, seed=1)
    # within a factor of 2 after 100 steps with 80 fields a network; the prior is wider by a factor of 7
    assert 0.8 * CRAMER_RAO < found.sigma[0] < 2 * CRAMER_RAO
    # what a shift of the parameter does to the mean answer, by the answers to real fields themselves
    answers = found.reference_by_stratum[:, 0] * found.sigma[0] + LOG_VARIANCE[:, 0]
    gain = np.polyfit(LOG_VARIANCE[:, 0], answers, 1)[0]
    expected = gain * shift / found.sigma[0]
    assert found.bias_on_samples[0] == pytest.approx(
        expected, abs=4 * found.bias_on_samples_std[0] + 0.1 * expected
    )
    assert found.z[0, 0] > 8 and found.z[1, 0] < -3
    assert found.bias_p < 0.002


def test_understated_errors_are_seen() -> None:
    """Samples scatter by 0.8 in the parameter beyond the noise, of which the network knows nothing."""
    real, made = gaussian(GRID, LOG_VARIANCE, 3), gaussian(GRID, LOG_VARIANCE, 4, jitter=0.8)
    found = field_infer(real, made, LOG_VARIANCE, ("A",), GRID, n_steps=60, n_folds=2, seed=1)
    assert found.coverage_p < 0.01
    assert found.error_ratio[0] > 1.3 and found.pull[0] > 1.3 * found.pull_reference[0]
    assert abs(found.z[0, 0]) < 4


@pytest.mark.parametrize("understated", [1.0, 2.0])
def test_coverage_is_uniform_only_where_errors_are_right(understated: float) -> None:
    rng = np.random.default_rng(5)
    covariance = np.array([[1.0, 0.9], [0.9, 1.5]])
    answer, point = rng.normal(size=(2, 1000, 2)) * 3
    error = rng.multivariate_normal([0, 0], covariance * understated**2, 1000)
    truth = answer - error  # drawn from the posterior, which knows nothing of the point
    values = _tarp(error, covariance, truth, point)
    p = kstest(values, "uniform").pvalue
    assert p > 0.01 if understated == 1 else p < 1e-6
    # the share of draws from the posterior that are nearer, in the same distance
    draws = rng.multivariate_normal([0, 0], covariance, 4000) + answer[0]
    inverse = np.linalg.inv(covariance)
    far = [np.einsum("...i,ij,...j", x - point[0], inverse, x - point[0]) for x in (draws, truth[0])]
    assert values[0] == pytest.approx((far[0] < far[1]).mean(), abs=4 * 0.5 / math.sqrt(4000))


def test_labels_that_only_memory_could_give_are_not_given() -> None:
    """Parameters that have nothing to do with the fields: known only to who has seen them."""
    labels = np.random.default_rng(6).permutation(LOG_VARIANCE)
    fields = gaussian(GRID, LOG_VARIANCE, 7, maps=16)
    found = field_infer(fields, fields, labels, ("A",), GRID, n_steps=30, n_folds=2)
    assert found.sigma[0] > 0.8 * found.prior[0]


def test_three_dimensions_and_randomness_as_an_argument() -> None:
    grid = Grid((6, 6, 8), [6.0, 6.0, 8.0], "Mpc/h", False)
    real, made = gaussian(grid, 2 * LOG_VARIANCE, 8, 12), gaussian(grid, 2 * LOG_VARIANCE, 9, 12)
    params = np.column_stack([LOG_VARIANCE, np.random.default_rng(0).random(STRATA)])
    options = {"n_steps": 20, "n_folds": 2, "n_permutations": 99, "channels": (4, 8)}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        one, two, other = (
            field_infer(real, made, params, ("A", "idle"), grid, seed=s, **options) for s in (1, 1, 2)
        )
    assert np.array_equal(one.coverage, two.coverage) and np.array_equal(one.z, two.z)
    assert not np.array_equal(one.z, other.z)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert one.sigma[0] < 0.6 * one.prior[0]  # 20 steps do not reach the Cramer-Rao error of 0.14 of it
    assert one.bias_p > 0.01 and one.coverage_p > 0.01


def test_padding_is_circular_on_periodic_grids_only() -> None:
    x = torch.randn((2, 1, 16, 16), generator=torch.Generator().manual_seed(1))
    for periodic in (True, False):
        grid = Grid((16, 16), 1.0, "deg", periodic)
        layers = Convolutions(grid, (4, 4, 4), torch.Generator().manual_seed(2), first_stride=2)
        moved = layers(x.roll((8, 8), (2, 3)))  # by the whole stride of three layers
        assert torch.allclose(layers(x), moved, atol=1e-6) == periodic


def test_the_loss_is_the_gaussian_likelihood() -> None:
    rng = np.random.default_rng(10)
    mean, truth = torch.from_numpy(rng.normal(size=(2, 5, 3)))
    factor = torch.from_numpy(np.tril(rng.normal(size=(5, 3, 3)), -1) + 2 * np.eye(3))
    covariance = np.linalg.inv((factor @ factor.mT).numpy())
    logs = [multivariate_normal.logpdf(t, m, c) for t, m, c in zip(truth, mean, covariance, strict=True)]
    constant = 1.5 * math.log(2 * math.pi)
    assert likelihood_loss(mean, factor, truth).item() == pytest.approx(-np.mean(logs) - constant)


def test_what_cannot_be_done_is_refused() -> None:
    x = gaussian(GRID, LOG_VARIANCE, 11, 2)
    with pytest.raises(InputError, match="10 sets of parameters or more, got 4"):
        field_infer(x.select(x.stratum < 4), x.select(x.stratum < 4), LOG_VARIANCE[:4], ("A",), GRID)
    with pytest.raises(InputError, match="A cannot be inferred"):
        field_infer(x, x, np.zeros((STRATA, 1)), ("A",), GRID)
    with pytest.raises(InputError, match="grid's shape"):
        field_infer(x, x, LOG_VARIANCE, ("A",), Grid((8, 8), 1.0, "deg", True))
    broken = Sample(
        torch.where(torch.arange(20)[:, None, None, None] == 3, torch.nan, x.values), None, x.stratum
    )
    with pytest.raises(InputError, match="not finite"):
        field_infer(x, broken, LOG_VARIANCE, ("A",), GRID)
