"""Derivatives by the parameters: those that were planted, with errors that are right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from evaluation.base import Measured
from evaluation.response import response
from gen.errors import InputError

NAMES = ("Omega_m", "sigma_8")
GRID = np.stack(np.meshgrid([0.2, 0.3, 0.4], [0.7, 0.8, 0.9]), -1).reshape(-1, 2)
SLOPES = np.random.default_rng(3).normal(size=(2, 6)) * 10


def drawn(seed: int, n_boxes: int, per_box: int, answer: tuple[float, float] = (1, 1)) -> Measured:
    """Quadratic in the parameters, half of the noise shared inside a box."""
    rng = np.random.default_rng(seed)
    stratum = np.repeat(np.arange(len(GRID)), n_boxes * per_box)
    box = np.arange(len(stratum)) // per_box
    x = (GRID[stratum] - [0.3, 0.8]) * answer
    noise = rng.normal(size=(len(stratum), 6)) + rng.normal(size=(len(stratum), 6))[box]
    return Measured(5 + x @ SLOPES + 30 * x[:, :1] * x[:, 1:] + 0.2 * noise, box, stratum)


def test_the_planted_derivatives_come_back() -> None:
    found = response(drawn(0, 24, 4), drawn(1, 96, 1), GRID, NAMES)
    assert found.middle == pytest.approx([0.3, 0.8])
    for side, error in ((found.reference, found.reference_std), (found.samples, found.samples_std)):
        z = (side - SLOPES) / error
        assert np.abs(z).max() < 3.5 and 0.5 < z.std() < 1.6
    assert found.slope == pytest.approx([1, 1], abs=4 * found.slope_std.max())
    assert found.p > 0.01


def test_a_parameter_that_is_ignored_is_seen() -> None:
    found = response(drawn(2, 24, 4), drawn(3, 96, 1, answer=(1, 0)), GRID, NAMES)
    assert found.slope[0] == pytest.approx(1, abs=4 * found.slope_std[0])
    assert found.slope[1] == pytest.approx(0, abs=4 * found.slope_std[1])
    assert found.p < 0.002
    weaker = response(drawn(4, 24, 4), drawn(5, 96, 1, answer=(1, 0.9)), GRID, NAMES)
    assert weaker.slope[1] == pytest.approx(0.9, abs=4 * weaker.slope_std[1]) and weaker.slope_std[1] < 0.05


def test_p_is_uniform_on_equal_laws() -> None:
    p = [
        response(
            drawn(2 * i, 6, 3),
            drawn(2 * i + 1, 6, 3),
            GRID,
            NAMES,
            n_bootstrap=50,
            n_permutations=200,
            seed=i,
        ).p
        for i in range(150)
    ]
    assert kstest(p, "uniform").pvalue > 0.01


def test_too_few_parameters_are_refused_and_a_line_too() -> None:
    def at(rows: list[int]) -> Measured:
        m = drawn(6, 2, 2)
        return m.select(np.isin(m.stratum, rows))

    with pytest.raises(InputError, match="at least 4 sets"):
        response(at([0, 1, 3]), at([0, 1, 3]), GRID[[0, 1, 3]], NAMES)
    with pytest.raises(InputError, match="one line"):
        response(at([0, 1, 2, 0]), at([0, 1, 2]), GRID[[0, 1, 2]], NAMES)
    linear = response(at([0, 2, 6, 8]), at([0, 2, 6, 8]), GRID[[0, 2, 6, 8]], NAMES)  # a linear fit
    assert linear.reference == pytest.approx(linear.samples)
