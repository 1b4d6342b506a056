"""The statistics that choose generators: right on equal laws, blind to no failure they guard against."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.data.base import SimulationSet
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.training.validation import Validation

SPACE = ParameterSpace(("amplitude",), (0.5,), (2.0,))
GRIDS = {
    "periodic 2D": Grid((32, 32), 32.0, "Mpc/h", True),
    "patch 2D": Grid((32, 32), 3.5, "deg", False),
    "periodic 3D": Grid((12, 12, 12), 12.0, "Mpc/h", True),
}


def smooth(n: int, grid: Grid, seed: int) -> Tensor:
    """Gaussian fields of unit variance and spectrum exp(-k^2) in cells."""
    g = torch.Generator().manual_seed(seed)
    axes = tuple(range(2, 2 + grid.dim))
    white = torch.fft.rfftn(torch.randn(n, 1, *grid.shape, generator=g), dim=axes)
    k = grid.wavenumber() * grid.k_sides[0] / grid.shape[0]
    x = torch.fft.irfftn(white * torch.exp(-0.5 * k**2).float(), s=grid.shape, dim=axes)
    return x / x.std()


def fields(params: Tensor, grid: Grid, seed: int) -> Tensor:
    """Lognormal fields whose amplitude is the parameter."""
    g = smooth(len(params), grid, seed)
    return params.reshape(-1, 1, *(1,) * grid.dim) * torch.expm1(0.5 * g)


def reference(grid: Grid, seed: int = 0, n: int = 160) -> SimulationSet:
    params = torch.tensor([0.5, 1.0, 1.5, 2.0]).repeat(n // 4)[:, None]
    return SimulationSet(
        grid, SPACE, fields(params, grid, seed), params, torch.arange(n), np.full(n, "validation"),
        np.full(n, "interior"), "toy",
    ).check()  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
def test_equal_laws(grid: Grid) -> None:
    """New fields of the same law: distances at the noise of 64 against 160 fields in four groups."""
    validation = Validation(reference(grid), n=64)
    assert len(validation) == 64
    noise = (4 / 64 + 4 / 160) ** 0.5
    assert validation.floor == pytest.approx(noise)
    for seed in (1, 2, 3):
        result = validation(fields(validation.params, grid, seed))
        for name in ("power", "pdf", "surface", "euler", "peaks", "score"):
            assert result[name] < 1.6 * noise, (name, result[name], noise)
        assert result["score"] > 0.6 * noise
        assert result["diversity"] == pytest.approx(1, abs=0.35)
        for scale in ("large", "middle", "small"):
            assert result[f"power_ratio_{scale}"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
def test_what_each_statistic_sees(grid: Grid) -> None:
    validation = Validation(reference(grid), n=64)
    good = fields(validation.params, grid, 1)
    base = validation(good)
    louder = validation(good * 1.3)
    for scale in ("large", "middle", "small"):
        wanted = 1.69 * base[f"power_ratio_{scale}"]
        assert louder[f"power_ratio_{scale}"] == pytest.approx(wanted, rel=1e-3)
    assert louder["score"] > 2 * base["score"]
    blind = validation(fields(validation.params.flip(0), grid, 1))  # at the wrong parameters
    assert blind["score"] > 2 * base["score"]
    mirrored = validation(-good)
    assert mirrored["power"] == pytest.approx(base["power"], rel=1e-3)
    assert mirrored["pdf"] > 3 * base["pdf"] and mirrored["peaks"] > 2 * base["peaks"]
    # The same cells in random order: the PDF is kept, all structure lost.
    shuffled = good.flatten(2)[..., torch.randperm(good[0].numel())].reshape(good.shape)
    result = validation(shuffled)
    assert result["pdf"] == pytest.approx(base["pdf"], rel=1e-3)
    assert min(result["power"], result["surface"], result["euler"], result["peaks"]) > 2 * base["score"]


def test_collapse_is_seen_at_fixed_parameters() -> None:
    """One field for each amplitude: right on average over parameters, without scatter at any."""
    grid = GRIDS["periodic 2D"]
    validation = Validation(reference(grid), n=64)
    one = smooth(1, grid, 1)
    collapsed = validation.params.reshape(-1, 1, 1, 1) * torch.expm1(0.5 * one)
    assert validation(collapsed)["diversity"] < 1e-6
    half = fields(validation.params, grid, 1)
    half[::2] = half[:1] / validation.params[0, 0] * validation.params[::2].reshape(-1, 1, 1, 1)
    assert 0.2 < validation(half)["diversity"] < 0.8


def test_excursion_sets_against_counts() -> None:
    """Densities of a blocky field: cells, faces and Euler characteristic by hand."""
    grid = Grid((16, 16), 16.0, "Mpc/h", True)
    x = torch.zeros(1, 1, 16, 16)
    x[..., 2:5, 2:5] = 1  # a square
    x[..., 8:13, 8:13] = 1
    x[..., 10, 10] = 0  # a ring
    x[..., 2, 10] = 1  # a cell
    x[..., 13, 3] = 1  # two cells that touch at a corner are one
    x[..., 14, 4] = 1
    validation = Validation(reference(grid, n=16), n=16)
    shares = validation._excursions(x, torch.full((1, 1, 17), 0.5))
    cells = 9 + 24 + 1 + 2
    assert shares["pdf"][0, 0].item() * 256 == pytest.approx(cells)
    # Counted on their own lattices of inner faces, edges and corners.
    vertical, horizontal = 12 + 30 + 2 + 4, 12 + 30 + 2 + 4
    corners = 16 + 36 + 4 + 7
    euler = cells / 256 - (vertical + horizontal) / 240 + corners / 225
    assert shares["euler"][0, 0].item() == pytest.approx(euler, rel=1e-6)
    assert shares["surface"][0, 0].item() == pytest.approx(2 * (vertical / 240 - cells / 256), rel=1e-6)
    # By topology: four pieces and one hole.
    assert cells - vertical - horizontal + corners == 4 - 1


def test_peaks_are_strict_local_maxima() -> None:
    grid = Grid((8, 8), 8.0, "Mpc/h", True)
    validation = Validation(reference(grid, n=16), n=16)
    x = 0.01 * torch.arange(64.0).reshape(1, 1, 8, 8)  # a ramp: its only maximum is at the border
    x[..., 2, 2], x[..., 5, 4] = 3.0, 5.0
    thresholds = torch.tensor([0.0, 2.0, 4.0, 6.0]).expand(1, 1, 4)
    padded = torch.cat([torch.zeros(1, 1, 8), thresholds, torch.full((1, 1, 5), 9.0)], -1)
    peaks = validation._excursions(x, padded)["peaks"][0]
    assert (peaks * 36).round().tolist()[:4] == [2, 2, 1, 0]


def test_sets_without_repeated_parameters_are_one_group() -> None:
    grid = GRIDS["periodic 2D"]
    n = 40
    params = torch.linspace(0.5, 2, n)[:, None]
    unique = SimulationSet(
        grid, SPACE, fields(params, grid, 0), params, torch.arange(n), np.full(n, "validation"),
        np.full(n, "interior"), "toy",
    ).check()  # fmt: skip
    validation = Validation(unique, n=32)
    assert validation.group.unique().tolist() == [0]
    assert validation(fields(validation.params, grid, 5))["score"] < 0.4


def test_too_little_to_compare_with() -> None:
    with pytest.raises(InputError, match="at least 8 real"):
        Validation(reference(GRIDS["periodic 2D"], n=4), n=64)
