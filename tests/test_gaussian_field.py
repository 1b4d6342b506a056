"""Gaussian fields against the statistics that define them."""

from __future__ import annotations

import pytest
import torch

from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.gaussian import gaussian_field

GRIDS = [
    Grid((32, 32), 3.5, "deg", True),
    Grid((24, 32), (60.0, 100.0), "Mpc/h", True),
    Grid((16, 16, 16), 100.0, "Mpc/h", True),
]


def power(k: torch.Tensor) -> torch.Tensor:
    return 1e-3 * (k / 1e-1) ** -1.5


def volume(grid: Grid) -> float:
    return float(torch.tensor(grid.k_sides, dtype=torch.float64).prod())


@pytest.mark.parametrize("grid", GRIDS)
def test_power_is_the_one_asked_for(grid: Grid) -> None:
    n = 300
    x = gaussian_field(grid, power, [sample_generator(0, i) for i in range(n)], torch.float64)[:, 0]
    axes = tuple(range(1, grid.dim + 1))
    measured = torch.fft.fftn(x, dim=axes).abs() ** 2 * volume(grid) / grid.n_cells**2
    k = grid.wavenumber(half=False)
    ratio = (measured / power(k.clamp(min=1e-9)))[:, k > 0]
    # Each |mode|^2 is exponential with unit mean; half of the modes are independent.
    error = (2 / ratio.numel()) ** 0.5
    assert ratio.mean().item() == pytest.approx(1, abs=5 * error)
    for low, high in ((0, 0.3), (0.3, 0.6), (0.6, 1.0)):
        scale = k[k > 0] / k.max()
        part = ratio[:, (scale > low) & (scale <= high)]
        assert part.mean().item() == pytest.approx(1, abs=5 * (2 / part.numel()) ** 0.5)


@pytest.mark.parametrize("grid", GRIDS)
def test_values_are_gaussian_of_zero_mean_and_the_summed_power(grid: Grid) -> None:
    x = gaussian_field(grid, power, [sample_generator(1, i) for i in range(200)], torch.float64)
    k = grid.wavenumber(half=False)
    variance = power(k[k > 0]).sum() / volume(grid)
    assert x.flatten(1).mean(1).abs().max() < 1e-12 * x.std()
    assert x.var().item() == pytest.approx(variance.item(), rel=0.1)
    z = x / variance.sqrt()
    assert (z**3).mean().abs() < 0.1
    assert (z**4).mean().item() == pytest.approx(3, abs=0.35)


def test_a_field_depends_on_its_generator_alone() -> None:
    grid = GRIDS[0]
    together = gaussian_field(grid, power, [sample_generator(0, i) for i in range(3)])
    alone = gaussian_field(grid, power, [sample_generator(0, 2)])
    assert torch.equal(together[2:], alone)
    assert together.dtype == torch.float32
    assert together.shape == (3, 1, 32, 32)
    assert not torch.equal(together[0], together[1])


def test_a_single_mode_is_a_plane_wave() -> None:
    grid = GRIDS[0]

    def one(k: torch.Tensor) -> torch.Tensor:
        return (k < 1.01 * grid.k_fundamental).double()

    x = gaussian_field(grid, one, [sample_generator(4, 0)], torch.float64)[0, 0]
    assert torch.allclose(x + x.roll((16, 16), (0, 1)), torch.zeros_like(x), atol=1e-12)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_an_impossible_power_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="finite and not negative"):
        gaussian_field(GRIDS[0], lambda k: torch.full_like(k, bad), [sample_generator(0, 0)])
