"""Every sample has its own generator, a pure function of what names it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from gen.noise import normal, sample_generator, student_t

SEEDS = [(s, i) for s in range(20) for i in range(20)]


def test_a_generator_is_a_function_of_its_arguments_alone_across_processes() -> None:
    code = (
        "import torch; from gen.noise import sample_generator as g; torch.manual_seed(9); "
        "print(torch.randn(4, generator=g(3, 14, 'latent')).tolist())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert elsewhere.strip() == str(torch.randn(4, generator=sample_generator(3, 14, "latent")).tolist())


def test_seed_index_and_stream_each_change_the_numbers() -> None:
    firsts = {(s, i): torch.randint(2**62, (1,), generator=sample_generator(s, i)).item() for s, i in SEEDS}
    assert len(set(firsts.values())) == len(SEEDS)
    a, b = (torch.randn(8, generator=sample_generator(1, 2, name)) for name in ("split", "batches"))
    assert not torch.equal(a, b)


def test_arguments_that_only_join_to_the_same_text_differ() -> None:
    a, b = sample_generator(1, 23), sample_generator(12, 3)
    assert a.initial_seed() != b.initial_seed()
    assert sample_generator(-1, 0).initial_seed() != sample_generator(1, 0).initial_seed()


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    normal([sample_generator(0, 0)], (5,))
    student_t([sample_generator(0, 0)], (5,), nu=5.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("draw", [normal, lambda g, shape: student_t(g, shape, nu=4.0)])
def test_row_i_comes_from_generator_i_whatever_the_others(draw) -> None:
    whole = draw([sample_generator(0, i) for i in range(6)], (3, 4))
    assert whole.shape == (6, 3, 4)
    alone = draw([sample_generator(0, 4)], (3, 4))
    backwards = draw([sample_generator(0, i) for i in reversed(range(6))], (3, 4))
    assert torch.equal(whole[4], alone[0]) and torch.equal(whole, backwards.flip(0))


def test_normal_numbers_are_standard_normal_within_and_across_samples() -> None:
    x = normal([sample_generator(7, i) for i in range(400)], (500,)).double().numpy()
    # Both tests at 1e-3 on fixed seeds: a wrong mean, width or shape of 1 % fails at n = 2e5.
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(x[:, 0], "norm").pvalue > 1e-3  # first numbers of nearby seeds
    neighbours = np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(x[1:].size)


@pytest.mark.parametrize("nu", [3.0, 5.0, 12.0])
def test_student_t_numbers_follow_the_law_scaled_to_unit_variance(nu: float) -> None:
    x = student_t([sample_generator(3, i) for i in range(100)], (1000,), nu).double().numpy().ravel()
    assert stats.kstest(x * math.sqrt(nu / (nu - 2)), stats.t(nu).cdf).pvalue > 1e-3
    assert stats.kstest(x, "norm").pvalue < 1e-6  # and the test can tell it from a normal law


def test_student_t_of_many_degrees_is_nearly_normal_and_of_unit_variance() -> None:
    x = student_t([sample_generator(5, i) for i in range(100)], (1000,), nu=200.0).double()
    assert x.var().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / x.numel()))
