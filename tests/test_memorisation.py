"""Copies are alarmed about under every symmetry, fresh fields of the same law are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from evaluation.base import Sample
from evaluation.memorisation import copying, diversity
from evaluation.neighbours import Likeness, orbit
from gen.errors import InputError
from gen.fields import Grid

OPEN, PERIODIC = Grid((24, 24), 3.5, "deg", False), Grid((24, 24), 3.5, "deg", True)
CUBE = Grid((8, 8, 8), 8.0, "Mpc/h", True)


def fields(n: int, seed: int, grid: Grid = OPEN) -> Tensor:
    """Skewed random fields of a red spectrum."""
    white = torch.randn(n, *grid.shape, generator=torch.Generator().manual_seed(seed))
    axes = tuple(range(1, grid.dim + 1))
    k = grid.wavenumber() / grid.k_fundamental
    x = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) / (1 + k).square(), s=grid.shape, dim=axes)
    return (x / x.std()).exp()[:, None].float()


def in_boxes(n_boxes: int, per_box: int, seed: int) -> Sample:
    """Maps that share half of their structure with the others of their box."""
    own, shared = fields(n_boxes * per_box, seed).log(), fields(n_boxes, seed + 1000).log()
    return Sample((own + shared.repeat_interleave(per_box, 0)).exp(), np.repeat(np.arange(n_boxes), per_box))


@pytest.mark.parametrize("grid", [OPEN, CUBE])
def test_an_orbit_holds_every_symmetry_once(grid: Grid) -> None:
    x = fields(1, 0, grid)[:, 0]
    turned = orbit(x)[:, 0].flatten(1)
    assert len(turned) == {2: 8, 3: 48}[grid.dim]
    assert torch.equal(turned[0], x.flatten())
    assert len(torch.unique(turned, dim=0)) == len(turned)
    assert len(orbit(torch.rand(1, 4, 6))) == 4  # the sides of an oblong cannot be exchanged


@pytest.mark.parametrize("grid", [OPEN, PERIODIC, CUBE])
def test_a_copy_is_one_under_its_symmetries_and_no_others(grid: Grid) -> None:
    x = fields(6, 1, grid)
    like = Likeness(grid)
    flipped = 3 * x.transpose(2, 3).flip(3) - 5
    assert like(flipped, x).diagonal() == pytest.approx([1] * 6, abs=1e-5)
    r = like(x, fields(40, 2, grid))
    assert r.max() < 0.95
    moved = torch.roll(x, (3, 5), (2, 3))
    assert (like(moved, x).diagonal() > 1 - 1e-5).all() == grid.periodic
    assert like(-x, x).diagonal().max() < 0.9


def test_likeness_is_the_brute_force() -> None:
    x, y = fields(2, 3, CUBE), fields(3, 4, CUBE)
    r = Likeness(CUBE)(x, y)
    best = -1.0
    a, b = x[1, 0] - x[1, 0].mean(), (y[2, 0] - y[2, 0].mean()).flatten()
    for t in orbit(a[None])[:, 0]:
        for shift in np.ndindex(8, 8, 8):
            best = max(best, float(torch.roll(t, shift, (0, 1, 2)).flatten() @ b / (a.norm() * b.norm())))
    assert float(r[1, 2]) == pytest.approx(best, abs=1e-5)


def test_copies_are_alarmed_about() -> None:
    training, held_out = Sample(fields(32, 5)), Sample(fields(128, 6))
    rng = np.random.default_rng(0)
    copies = training.values[rng.integers(32, size=128)].flip(3)
    noisy = copies * (1 + 0.1 * torch.randn(copies.shape, generator=torch.Generator().manual_seed(1)))
    found = copying(held_out, Sample(noisy), training, OPEN)
    assert found.closer > 0.99 and found.p < 0.002 and found.copies > 0.99
    assert torch.equal(training.values[torch.from_numpy(found.neighbour)].flip(3), copies)
    mixed = torch.cat([noisy[:32], fields(96, 7)])
    found = copying(held_out, Sample(mixed), training, OPEN)
    assert found.p < 0.01 and found.copies == pytest.approx(0.25, abs=0.03)


def test_fresh_fields_are_not() -> None:
    training, held_out = Sample(fields(256, 8)), in_boxes(16, 8, 9)
    found = copying(held_out, in_boxes(16, 8, 10), training, OPEN)
    assert found.closer == pytest.approx(0.5, abs=0.15) and found.p > 0.05
    assert found.copies < 0.05
    # unlike any real field: far from the training set, which is not copying
    noise = torch.rand(128, 1, 24, 24, generator=torch.Generator().manual_seed(2))
    found = copying(held_out, Sample(noise), training, OPEN)
    assert found.closer < 0.1 and found.p > 0.9 and found.copies == 0


def test_p_of_fresh_fields_is_uniform_though_boxes_share_structures() -> None:
    training = Sample(fields(16, 11))
    p = [
        copying(
            in_boxes(12, 4, 100 + 2 * i), in_boxes(12, 4, 5000 + 2 * i), training, OPEN, n_permutations=200
        ).p
        for i in range(100)
    ]
    assert kstest(p, "uniform").pvalue > 0.01


def test_a_held_out_field_among_the_training_fields_is_refused() -> None:
    training = Sample(fields(32, 12))
    with pytest.raises(InputError, match="held-out field 3 is a training field"):
        copying(Sample(torch.cat([fields(3, 13), training.values[:2]])), training, training, OPEN)


def test_frozen_noise_is_alarmed_about_and_real_fields_are_not() -> None:
    reference = in_boxes(12, 4, 14)
    frozen = fields(4, 15)[torch.arange(48) % 4]
    frozen = frozen * (1 + 0.05 * torch.randn(frozen.shape, generator=torch.Generator().manual_seed(3)))
    found = diversity(reference, Sample(frozen), OPEN)
    assert found.p < 0.005 and found.duplicates > 0.95
    assert found.likeness > found.reference_likeness + 0.2
    fresh = diversity(reference, in_boxes(12, 4, 16), OPEN)
    assert fresh.p > 0.05 and fresh.duplicates < 0.1
    assert fresh.likeness == pytest.approx(fresh.reference_likeness, abs=0.05)


def test_diversity_is_taken_at_fixed_parameters() -> None:
    a, b = in_boxes(6, 4, 17), in_boxes(6, 4, 18)
    two = Sample(
        torch.cat([a.values, b.values]),
        np.concatenate([a.simulation, b.simulation + 6]),
        np.repeat([0, 1], 24),
    )
    same = torch.cat([fields(24, 19), fields(24, 19)])  # twins, but of different parameters
    assert diversity(two, Sample(same, stratum=two.stratum), OPEN).duplicates < 0.1
    with pytest.raises(InputError, match="two simulations"):
        diversity(Sample(a.values, np.zeros(24)), a, OPEN)
