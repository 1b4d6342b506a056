"""Augmentation is the square's and cube's group, exactly, and shifts only where edges meet."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.multipoles import Multipoles, line_of_sight_cosine
from gen.data.augment import Isometry, Symmetries
from gen.errors import InputError
from gen.fields import Fields, Grid
from gen.simulate.displacement import density


def grid(dim: int, periodic: bool = True, n: int = 6) -> Grid:
    return Grid((n,) * dim, 1.0, "Mpc/h", periodic)


def matrix(g: Isometry) -> np.ndarray:
    """The signed permutation that moves a cell's coordinates (about the centre): new = M old."""
    m = np.zeros((len(g.axes),) * 2, dtype=int)
    for j, (a, flip) in enumerate(zip(g.axes, g.flips, strict=True)):
        m[j, a] = -1 if flip else 1
    return m


def moved_by_coordinates(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Oracle: carry each cell of a cubic array to where the matrix puts it, one by one."""
    n, out = x.shape[0], np.empty_like(x)
    for cell in product(range(n), repeat=x.ndim):
        centred = 2 * np.array(cell) - (n - 1)
        out[tuple((m @ centred + n - 1) // 2)] = x[cell]
    return out


@pytest.mark.parametrize(("dim", "order"), [(2, 8), (3, 48)])
def test_the_elements_are_the_whole_group(dim: int, order: int) -> None:
    group = set(Symmetries(grid(dim)).isometries)
    assert len(group) == order == len({matrix(g).tobytes() for g in group})
    identity = Isometry(tuple(range(dim)), (False,) * dim)
    assert identity in group
    for g in group:
        assert g.inverse in group and g.inverse @ g == identity == g @ g.inverse
        assert np.array_equal(matrix(g.inverse), np.linalg.inv(matrix(g)).round().astype(int))
    for g, h in product(group, group):
        assert g @ h in group and np.array_equal(matrix(g @ h), matrix(g) @ matrix(h))


@pytest.mark.parametrize("dim", [2, 3])
def test_each_element_carries_cells_where_its_matrix_says(dim: int) -> None:
    x = torch.randn((3,) * dim, generator=torch.Generator().manual_seed(0))
    for g in Symmetries(grid(dim)).isometries:
        assert np.array_equal(g(x[None])[0].numpy(), moved_by_coordinates(x.numpy(), matrix(g)))


@pytest.mark.parametrize("dim", [2, 3])
def test_acting_twice_is_acting_with_the_product_for_scalars_and_vectors(dim: int) -> None:
    x = torch.randn(2, dim + 2, *(4,) * dim, generator=torch.Generator().manual_seed(1))
    vectors = [tuple(range(1, dim + 1))]
    group = Symmetries(grid(dim)).isometries
    for g, h in list(product(group, group))[:: 7 if dim == 3 else 1]:
        assert torch.equal(g(h(x, vectors), vectors), (g @ h)(x, vectors))


@pytest.mark.parametrize("dim", [2, 3])
def test_vectors_turn_with_the_field(dim: int) -> None:
    """The gradient of a moved scalar is the moved gradient: an identity only if components follow."""
    axes = tuple(range(1, dim + 1))
    f = torch.randn(1, *(6,) * dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([(x.roll(-1, a) - x.roll(1, a)) / 2 for a in axes])

    for g in Symmetries(grid(dim)).isometries:
        assert torch.allclose(gradient(g(f)), g(gradient(f), [tuple(range(dim))]), atol=1e-15)
    turn = Isometry(tuple(reversed(range(dim))), (True,) + (False,) * (dim - 1))
    assert not torch.allclose(gradient(turn(f)), turn(gradient(f)))  # as scalars they do not


def test_power_of_every_isotropic_shell_is_kept_and_rolls_keep_every_mode() -> None:
    box = grid(2, n=8)
    fields = Fields.of(
        torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )
    moved = Symmetries(box)(fields, seed=0, step=0)
    k = (box.wavenumber(half=False) / box.k_fundamental).pow(2).round().long().flatten()

    def shells(x: torch.Tensor) -> torch.Tensor:
        power = torch.fft.fft2(x[:, 0]).abs().square().flatten(1)
        return torch.stack([power[:, k == s].sum(1) for s in k.unique()])

    assert torch.allclose(shells(moved.values), shells(fields.values), rtol=1e-12)
    assert not torch.equal(moved.values, fields.values)


def orbit(x: torch.Tensor, periodic: bool) -> set[bytes]:
    """All images of a square map, made with numpy's own rotations."""
    a = x.numpy()
    images = [np.rot90(b, k) for b in (a, a.T) for k in range(4)]
    n = len(a)
    shifts = product(range(n), range(n)) if periodic else [(0, 0)]
    return {np.ascontiguousarray(np.roll(b, s, (0, 1))).tobytes() for s in shifts for b in images}


@pytest.mark.parametrize(("periodic", "size"), [(True, 8 * 16), (False, 8)])
def test_random_moves_reach_the_whole_orbit_evenly_and_nothing_else(periodic: bool, size: int) -> None:
    x = torch.arange(16.0).reshape(1, 4, 4)
    symmetries = Symmetries(grid(2, periodic, n=4))
    images = orbit(x[0], periodic)
    assert len(images) == size
    draws = 40 * size
    counts = dict.fromkeys(images, 0)
    for row in symmetries(Fields.of(x.expand(draws, 1, 4, 4)), seed=1, step=0).values:
        counts[np.ascontiguousarray(row[0].numpy()).tobytes()] += 1  # a KeyError is an image that must not be
    chi2 = sum((c - 40) ** 2 / 40 for c in counts.values())
    assert abs(chi2 - (size - 1)) < 5 * math.sqrt(2 * (size - 1))


def test_moves_are_a_function_of_seed_and_step_row_by_row() -> None:
    symmetries = Symmetries(grid(3))
    fields = Fields.of(torch.randn(12, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0)))
    whole = symmetries(fields, seed=5, step=17).values
    part = Fields.of(fields.values[4:8])
    assert torch.equal(symmetries(part, 5, 17, slice(4, 8), 12).values, whole[4:8])
    assert not torch.equal(symmetries(fields, seed=5, step=18).values, whole)
    assert not torch.equal(symmetries(fields, seed=6, step=17).values, whole)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("periodic", [True, False])
def test_coarse_fields_move_along(dim: int, periodic: bool) -> None:
    values = torch.randn(10, 1, *(6,) * dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    pool = {2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}[dim]
    moved = Symmetries(grid(dim, periodic))(Fields.of(values, coarse=pool(values, 2)), seed=0, step=3)
    assert torch.allclose(pool(moved.values, 2), moved.coarse, atol=1e-15)


def test_q_and_u_turn_as_those_of_the_potential_they_come_from() -> None:
    generator = torch.Generator().manual_seed(5)
    potential = torch.randn(1, 32, 32, generator=generator, dtype=torch.float64)
    turned = [h(qu_of(potential), spin_channels=[(0, 1)]) for h in Symmetries(grid(2, n=32)).isometries]
    ours = [qu_of(h(potential)) for h in Symmetries(grid(2, n=32)).isometries]
    assert len(turned) == 8
    for one, other in zip(turned, ours, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def qu_of(potential: Tensor) -> Tensor:
    """Q and U of E modes, ``(d0^2 - d1^2, 2 d0 d1)`` of a periodic potential without Nyquist waves."""
    k = 2 * torch.pi * torch.fft.fftfreq(potential.shape[-1], dtype=torch.float64)
    k0, k1 = torch.meshgrid(k, k, indexing="ij")
    modes = torch.fft.fft2(potential[0]) * ((k0.abs() < 3) & (k1.abs() < 3))
    return torch.stack([torch.fft.ifft2(-f * modes).real for f in (k0**2 - k1**2, 2 * k0 * k1)])


@pytest.mark.parametrize("coarse_cells", [8, 4])
def test_vectors_of_coarse_fields_turn_too(coarse_cells: int) -> None:
    """A displacement and its block means stay block means; as scalars the coarse ones do not."""
    g = torch.Generator().manual_seed(5)
    psi = torch.randn(10, 6, 8, 8, 8, generator=g, dtype=torch.float64)
    coarse = torch.nn.functional.avg_pool3d(psi[:, :3], 8 // coarse_cells)
    vectors = [[0, 1, 2], [3, 4, 5]]
    right = Symmetries(grid(3, n=8), vectors, coarse_vector_channels=vectors[:1])
    moved = right(Fields.of(psi, coarse=coarse), seed=0, step=3)
    again = torch.nn.functional.avg_pool3d(moved.values[:, :3], 8 // coarse_cells)
    assert torch.allclose(again, moved.coarse, atol=1e-15)
    wrong = Symmetries(grid(3, n=8), vectors)(Fields.of(psi, coarse=coarse), seed=0, step=3)
    assert torch.equal(wrong.values, moved.values) and not torch.allclose(wrong.coarse, moved.coarse)


def test_moved_displacements_make_the_moved_density() -> None:
    psi = 3 * torch.randn(12, 3, 6, 6, 6, generator=torch.Generator().manual_seed(6))
    rho = density(psi, 6.0, 6)
    symmetries = Symmetries(grid(3), [[0, 1, 2]])
    moved = symmetries(Fields.of(psi, coarse=rho), seed=1, step=2)
    assert torch.allclose(density(moved.values, 6.0, 6), moved.coarse, atol=1e-4)
    assert not torch.allclose(moved.coarse, rho, atol=0.1)


def test_axes_that_differ_are_not_exchanged_and_a_line_of_sight_is_left_alone() -> None:
    slab = Grid((6, 6, 8), (1.0, 1.0, 3.0), "Mpc/h", periodic=True)
    assert len(Symmetries(slab).isometries) == 2 * 8
    lightcone = Symmetries(grid(3, n=4), axes=(0, 1))
    assert len(lightcone.isometries) == 8
    assert all(g.axes[2] == 2 and not g.flips[2] for g in lightcone.isometries)


def test_in_redshift_space_multipoles_stay_and_every_other_move_is_made() -> None:
    """A box squeezed along the last axis: its quadrupole is kept, and lost if axes change places."""
    box = grid(3, n=8)
    noise = torch.randn(24, 1, 8, 8, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    mu = line_of_sight_cosine(box)
    modes = torch.fft.rfftn(noise, dim=(2, 3, 4)) * (1 + 2 * mu**2)
    x = Fields.of(torch.fft.irfftn(modes, s=(8, 8, 8), dim=(2, 3, 4)))
    multipoles = Multipoles(box)
    before = multipoles(x.values)
    seen = Symmetries(box, line_of_sight=2)
    moved = seen(x, seed=0, step=0)
    assert torch.allclose(multipoles(moved.values), before, rtol=1e-9, atol=1e-9)
    assert len(seen.isometries) == 16 and {g.flips[2] for g in seen.isometries} == {False, True}
    assert not any(torch.equal(a, b) for a, b in zip(moved.values, x.values, strict=True))
    lost = multipoles(Symmetries(box)(x, seed=0, step=0).values)
    assert lost[:, 1].mean() < 0.5 * before[:, 1].mean()


def test_a_fixed_axis_is_not_rolled() -> None:
    ramp = torch.arange(4.0).expand(20, 1, 4, 4, 4)
    moved = Symmetries(grid(3, n=4), axes=(0, 1))(Fields.of(ramp), seed=0, step=0)
    assert torch.equal(moved.values, ramp)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vector_channels": [[0, 1]]}, "3 different channels"),
        ({"vector_channels": [[0, 1, 1]]}, "3 different channels"),
        ({"coarse_vector_channels": [[0, 1]]}, "3 different channels"),
        ({"axes": [0, 3]}, "0 to 2"),
        ({"line_of_sight": 3}, "an axis, 0 to 2, got 3"),
    ],
)
def test_symmetries_that_cannot_be_are_refused(arguments, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Symmetries(grid(3), **arguments)


def test_a_coarse_grid_that_does_not_divide_is_refused() -> None:
    fields = Fields.of(torch.zeros(2, 1, 6, 6), coarse=torch.zeros(2, 1, 4, 4))
    with pytest.raises(InputError, match="whole multiple"):
        Symmetries(grid(2))(fields, 0, 0)
