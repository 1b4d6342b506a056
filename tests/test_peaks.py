from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import peaks_one_by_one, smooth_gaussian

from evaluation import gaussian
from evaluation.base import Sample, measure
from evaluation.peaks import Peaks, highest_neighbour
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True) -> Grid:
    return Grid(shape, [float(n) for n in shape], "Mpc/h", periodic)


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 4)])
@pytest.mark.parametrize("periodic", [True, False])
def test_peaks_and_minima_one_by_one(shape, periodic):
    x = torch.randn(3, 1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    edges = [-0.5, 0.3, 0.9, 1.5]
    found = Peaks(grid_of(shape, periodic), edges, edges)(x).numpy()
    for row, field in zip(found, x[:, 0].numpy(), strict=True):
        bins = [-np.inf, *edges, np.inf]
        heights = peaks_one_by_one(field, periodic)
        depths = [-h for h in peaks_one_by_one(-field, periodic)]
        np.testing.assert_array_equal(row[0], np.histogram(heights, bins)[0])
        np.testing.assert_array_equal(row[1], np.histogram(depths, bins)[0])


def test_a_plateau_is_no_peak():
    x = torch.zeros(1, 8, 8)
    x[0, 3, 3:5] = 1.0
    assert not (x > highest_neighbour(x, True)).any()
    x[0, 3, 4] = 2.0
    assert (x > highest_neighbour(x, True)).sum() == 1


def test_a_gaussian_plane_has_bond_and_efstathious_peaks():
    radius, n, side = 4.0, 60, 128
    grid = grid_of((side, side))
    sigma = [gaussian.spectral_moment(grid, lambda k: torch.exp(-(k**2) * radius**2), j) for j in range(3)]
    x = torch.tensor(smooth_gaussian((side, side), radius, n, seed=2))[:, None]
    edges = np.linspace(-0.5, 3, 8)
    found = Peaks(grid, edges, -edges[::-1])(x).numpy()
    nu = np.linspace(-7, 7, 14001)
    density = gaussian.peak_density(nu, 1.0, sigma[1] / sigma[0], sigma[2] / sigma[0])
    mean_height = np.histogram(nu, [-np.inf, *edges, np.inf], weights=density * 1e-3)[0] * side**2
    error = found.std(0) / math.sqrt(n)
    # heights on the lattice lie below the true maxima by about sigma_2 cell^2 / 24 each way: 0.5 % here
    assert (np.abs(found[:, 0].mean(0) - mean_height) < 4 * error[0] + 0.03 * mean_height.max()).all()
    assert (np.abs(found[:, 1].mean(0) - mean_height[::-1]) < 4 * error[1] + 0.03 * mean_height.max()).all()
    total = gaussian.peak_total(2, sigma[1], sigma[2]) * side**2
    assert found[:, 0].sum(1).mean() == pytest.approx(total, rel=0.02)


def test_a_gaussian_volume_has_bbks_peaks():
    radius, n, side = 3.0, 10, 40
    grid = grid_of((side,) * 3)
    sigma = [gaussian.spectral_moment(grid, lambda k: torch.exp(-(k**2) * radius**2), j) for j in range(3)]
    x = torch.tensor(smooth_gaussian((side,) * 3, radius, n, seed=3))[:, None]
    found = Peaks(grid, [0.0, 1.0], [0.0, 1.0])(x).numpy().sum(2)
    total = gaussian.peak_total(3, sigma[1], sigma[2]) * side**3
    assert found.mean() == pytest.approx(total, rel=0.04)


def test_minima_of_one_lowest_value_have_a_bin_for_themselves():
    """A fifth of the minima are empty cells; the others share the other bins equally."""
    grid = Grid((64, 64), 64.0, "Mpc/h", True)
    x = torch.from_numpy(np.random.default_rng(0).random((8, 1, 64, 64)).astype(np.float32))
    low = x[x < -highest_neighbour(-x[:, 0], True)[:, None]].quantile(0.2)
    x = torch.where(x <= low, 0.0, x)
    peaks = Peaks.from_reference(grid, x, n_bins=6)
    minima = peaks(x)[:, 1].sum(0)
    found = -x[:, 0] > highest_neighbour(-x[:, 0], True)
    assert minima[0] == (x[:, 0][found] == 0).sum() > 100
    assert minima[1:] == pytest.approx(float(minima[1:].mean()), abs=2)


def test_edges_share_the_references_peaks_equally():
    x = torch.tensor(smooth_gaussian((48, 48), 1.5, 40, seed=4))[:, None]
    peaks = Peaks.from_reference(grid_of((48, 48), False), x, n_bins=6)
    statistics = peaks.counts()
    assert [s.name for s in statistics] == ["peaks", "minima"]
    measured = measure(statistics, Sample(x))
    for s in statistics:
        mean = measured[s.name].vectors.mean(0)
        np.testing.assert_allclose(mean / mean.sum(), 1 / 6, atol=0.002)
        assert (np.diff(s.abscissa) > 0).all()


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Peaks(grid_of((8, 8)), [0.0], [0.0]),
        lambda: Peaks(grid_of((8, 8)), [0.0, 1.0], [1.0, 0.0]),
        lambda: Peaks(grid_of((8, 8)), [0.0, 1.0], [0.0, 1.0, 2.0]),
        lambda: Peaks.from_reference(grid_of((8, 8)), torch.zeros(4, 1, 8, 8)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()
