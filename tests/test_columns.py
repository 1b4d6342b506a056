"""Column densities: exact for slabs, along the axes that are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from evaluation.columns import LINE_OF_SIGHT, ColumnDensity, columns
from gen.errors import InputError
from gen.fields import Grid

GRID = Grid((16, 16, 16), 40.0, "Mpc/h", periodic=True)


def maps(n: int, seed: int, sigma: float = 2.0) -> torch.Tensor:
    """``(n, 1, 16, 16)`` independent lognormal cells."""
    g = torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.exp(sigma * g)


def slab(x: torch.Tensor, axis: int, thickness: int) -> torch.Tensor:
    """Boxes that hold the map in so many layers of an axis, and nothing in the others."""
    box = torch.zeros(len(x), 1, 16, 16, 16, dtype=x.dtype)
    box.movedim(axis + 2, 2)[:, :, 3 : 3 + thickness] = x[:, :, None]
    return box


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_lognormal_slab_has_the_lognormal_distribution(axis):
    x = maps(200, 1)
    box = slab(x, axis, 5)
    n = columns(GRID, box, (axis,))
    torch.testing.assert_close(n, 5 * 2.5 * x.flatten(1))
    f = ColumnDensity.from_reference(GRID, box, (axis,))
    found = f(box).numpy()
    cdf = stats.norm.cdf(np.log(f.bins.edges / 12.5), scale=2.0)
    cdf[0], cdf[-1] = 0, 1  # the ends are open
    expected = np.diff(cdf) * f.bins.per_decade
    pull = (found.mean(0) - expected) / np.sqrt(expected * f.bins.per_decade / (200 * 256))
    assert np.abs(pull).max() < 4
    # exactly NumPy's count
    counts = np.histogram(np.log(n[0].numpy()), np.log(f.bins.edges))[0]
    inner = slice(1, -1)
    np.testing.assert_allclose(found[0, inner], counts[inner] / 256 * f.bins.per_decade)


def test_all_axes_are_the_mean_of_each():
    box = torch.exp(torch.randn(3, 1, 16, 16, 16, generator=torch.Generator().manual_seed(2)))
    every = ColumnDensity.from_reference(GRID, box)
    single = [ColumnDensity(GRID, every.bins, (a,))(box) for a in range(3)]
    torch.testing.assert_close(every(box), sum(single) / 3)
    turned = box.permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(every(turned), every(box))
    los = ColumnDensity(GRID, every.bins, LINE_OF_SIGHT)
    torch.testing.assert_close(los(box), single[2])
    assert not torch.equal(los(turned), los(box))


def test_sightlines_that_meet_nothing_stand_apart():
    box = slab(maps(2, 3), 0, 4)
    f = ColumnDensity.from_reference(GRID, box, (1,))
    np.testing.assert_allclose(f(box)[:, 0], 12 / 16)  # of the layers


def test_other_grids_are_refused():
    flat = Grid((16, 16), 40.0, "Mpc/h", periodic=True)
    with pytest.raises(InputError, match="of a 3D grid"):
        columns(flat, torch.ones(1, 1, 16, 16), (0,))
    with pytest.raises(InputError, match="axes among 0, 1 and 2"):
        columns(GRID, torch.ones(1, 1, 16, 16, 16), (3,))
