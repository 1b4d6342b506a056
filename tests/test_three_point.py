from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian
from scipy.special import eval_legendre, jv, spherical_jn

from evaluation.base import Sample, Statistic, measure
from evaluation.three_point import ThreePoint, harmonics
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True) -> Grid:
    return Grid(shape, [float(n) for n in shape], "Mpc/h", periodic)


def angular(dim: int, ell: int, cosine: np.ndarray | float) -> np.ndarray:
    """(2l+1) P_l, or (2 - delta_l0) cos(l angle) in the plane."""
    if dim == 3:
        return (2 * ell + 1) * eval_legendre(ell, cosine)
    return (1 if ell == 0 else 2) * np.cos(ell * np.arccos(np.clip(cosine, -1, 1)))


def shells_of(grid: Grid, edges: list[float]) -> list[list[tuple[int, ...]]]:
    """Steps, in cells, of every shell of separation, one by one."""
    ranges = [range(-(n // 2), n // 2 + 1) for n in grid.shape]
    out: list[list[tuple[int, ...]]] = [[] for _ in edges[1:]]
    for step in itertools.product(*ranges):
        r = math.sqrt(sum((i * d) ** 2 for i, d in zip(step, grid.spacing, strict=True)))
        for shell, low, high in zip(out, edges[:-1], edges[1:], strict=True):
            if low <= r < high:
                shell.append(step)
    return out


def cosine(grid: Grid, r: tuple[int, ...], s: tuple[int, ...]) -> float:
    a, b = (np.array(v) * np.array(grid.spacing) for v in (r, s))
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def check_pull(found: np.ndarray, expected: np.ndarray | float) -> None:
    """Within 4 standard errors of the mean over maps: one in 16,000 numbers fails by chance."""
    pull = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
    assert np.abs(pull).max() < 4, pull


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(
    ("shape", "sides", "edges"),
    [
        ((8, 8), (8.0, 8.0), [0.5, 1.5, 2.5, 3.2]),
        ((9, 12), (3.0, 6.0), [0.3, 0.7, 1.1]),
        ((6, 6, 6), (6.0, 6.0, 6.0), [0.5, 1.5, 2.1, 2.3]),
        ((5, 6, 7), (1.0, 1.5, 1.4), [0.1, 0.25, 0.3]),
    ],
)
def test_every_triplet_is_counted(shape, sides, edges, periodic):
    grid = Grid(shape, sides, "Mpc/h", periodic)
    x = np.random.default_rng(1).gamma(1.0, size=shape)
    statistic = ThreePoint(grid, edges)
    found = statistic(torch.tensor(x)[None, None])[0].numpy()
    delta = x - x.mean()
    shells = shells_of(grid, edges)
    reach = [max(abs(r[a]) for shell in shells for r in shell) for a in range(grid.dim)]
    inside = [range(n) if periodic else range(m, n - m) for n, m in zip(shape, reach, strict=True)]
    cells = list(itertools.product(*inside))
    moved = {
        r: np.array(
            [delta[tuple((c + d) % n for c, d, n in zip(cell, r, shape, strict=True))] for cell in cells]
        )
        for shell in shells
        for r in shell
    }
    centre = np.array([delta[cell] for cell in cells])
    for p, (a, b) in enumerate(statistic.pairs):
        each = list(itertools.product(shells[a], shells[b]))
        products = np.array([(centre * moved[r] * moved[s]).mean() for r, s in each])
        angle = np.array([cosine(grid, r, s) for r, s in each])
        for ell in range(5):
            expected = (products * angular(grid.dim, ell, angle)).mean()
            assert found[ell, p] == pytest.approx(expected, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_harmonics_add_up_to_legendre(dim):
    r = np.random.default_rng(2).normal(size=(2, dim, 50))
    unit = r / np.linalg.norm(r, axis=1, keepdims=True)
    mu = (unit[0] * unit[1]).sum(0)
    for ell in range(6):
        f, g = harmonics(r[0], ell), harmonics(r[1], ell)
        assert len(f) == (2 * ell + 1 if dim == 3 else min(ell, 1) + 1)
        norm = angular(dim, ell, 1.0)
        np.testing.assert_allclose((f * g).sum(0) * norm, angular(dim, ell, mu), atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_three_closed_waves_have_their_bessel_functions(dim):
    # <delta(x) delta(x+r1) delta(x+r2)> = (1/4) sum over ordered pairs cos(k_a r1 + k_b r2 + Phi); its mean
    # over directions is (-1)^l j_l(k_a r1) j_l(k_b r2) (2l+1) P_l(cos ab), in the plane with J_l
    n, phase = 64, 0.4
    grid = grid_of((n,) * dim)
    integers = np.array([(2, 1, 1), (1, -2, 0), (-3, 1, -1)])[:, :dim]
    cells = np.indices(grid.shape)
    x = sum(
        np.cos(2 * np.pi * np.tensordot(m, cells, 1) / n + p)
        for m, p in zip(integers, (phase, 0, 0), strict=True)
    )
    edges = [5.5, 7.5, 10.5, 13.5]
    found = ThreePoint(grid, edges)(torch.tensor(x)[None, None])[0].numpy()
    k = np.linalg.norm(integers, axis=1) * grid.k_fundamental
    bessel = spherical_jn if dim == 3 else jv
    # over the radii that the cells of a shell have
    radii = [np.linalg.norm(shell, axis=1) for shell in shells_of(grid_of((28,) * dim), edges)]
    length = np.linalg.norm(integers, axis=1)
    expected = np.zeros_like(found)
    for p, (s, t) in enumerate(ThreePoint(grid, edges).pairs):
        for ell, (a, b) in itertools.product(range(5), itertools.permutations(range(3), 2)):
            mu = integers[a] @ integers[b] / (length[a] * length[b])
            radial = bessel(ell, k[a] * radii[s]).mean() * bessel(ell, k[b] * radii[t]).mean()
            expected[ell, p] += (-1) ** ell * radial * float(angular(dim, ell, mu)) * math.cos(phase) / 4
    # the directions of some hundred cells stand for all directions to a few thousandths
    np.testing.assert_allclose(found, expected, atol=0.005 * np.abs(expected).max())
    assert (np.abs(expected).max(1) > 0.05 * np.abs(expected).max()).sum() >= 4


@pytest.mark.parametrize(("shape", "n"), [((24, 24), 800), ((12, 12, 12), 300)])
@pytest.mark.parametrize("periodic", [True, False])
def test_gaussian_fields_have_none(shape, n, periodic):
    x = torch.tensor(smooth_gaussian(shape, 1.0, n, seed=3))[:, None]
    found = ThreePoint(grid_of(shape, periodic), [0.5, 1.5, 2.5, 3.5])(x).numpy()
    check_pull(found, 0.0)


@pytest.mark.parametrize(("shape", "n"), [((16, 16), 3000), ((8, 8, 8), 1200)])
def test_a_lognormal_field_has_its_closed_form(shape, n):
    # zeta = X12 X13 + X12 X23 + X13 X23 + X12 X13 X23 with X = exp(xi_G) - 1 (Coles & Jones 1991)
    grid, radius, sigma = grid_of(shape), 0.9, 0.7
    dim, axes = grid.dim, tuple(range(grid.dim))
    g = sigma * smooth_gaussian(shape, radius, n, seed=4)
    x = torch.tensor(np.exp(g - sigma**2 / 2) - 1)[:, None]
    power = torch.exp(-(grid.wavenumber(half=False) ** 2) * radius**2).numpy()
    power[(0,) * dim] = 0
    excess = np.exp(sigma**2 * np.fft.fftn(power / power.sum()).real) - 1
    first = excess.reshape(*shape, *[1] * dim)
    index = np.indices(shape)
    lag = tuple((c.reshape(first.shape) - c) % m for c, m in zip(index, shape, strict=True))
    zeta = first * excess + first * excess[lag] + excess * excess[lag] + first * excess * excess[lag]
    # each map is less its own mean: no mode of the three is zero
    modes = np.fft.fftn(zeta)
    flat = modes.reshape(grid.n_cells, grid.n_cells)
    cells = np.stack([c.reshape(-1) for c in index])
    opposite = np.ravel_multi_index(tuple(-cells), shape, mode="wrap")
    flat[0], flat[:, 0], flat[np.arange(grid.n_cells), opposite] = 0, 0, 0
    zeta = np.fft.ifftn(modes, axes=(*axes, *(a + dim for a in axes))).real

    edges = [0.5, 1.5, 2.5, 3.5]
    statistic = ThreePoint(grid, edges)
    found = statistic(x).numpy()
    shells = shells_of(grid, edges)
    expected = np.zeros(found.shape[1:])
    for p, (a, b) in enumerate(statistic.pairs):
        each = list(itertools.product(shells[a], shells[b]))
        values = np.array([zeta[r + s] for r, s in each])
        angle = np.array([cosine(grid, r, s) for r, s in each])
        expected[:, p] = [(values * angular(dim, ell, angle)).mean() for ell in range(5)]
    check_pull(found, expected)
    error = found.std(0) / math.sqrt(n)
    assert (np.abs(expected / error).max(1) > 5).sum() >= 3  # so that most of it is seen


def test_precision_offset_turns_and_the_batch_change_nothing():
    for shape in ((20, 20), (10, 10, 10)):
        x = torch.tensor(np.random.default_rng(6).gamma(1.0, size=(40, 1, *shape)))
        statistic = ThreePoint(grid_of(shape), [0.5, 1.5, 2.5, 4.5])
        assert not isinstance(statistic, Statistic)
        found = statistic(x)
        np.testing.assert_allclose(statistic(x + 1e3), found, atol=1e-9)
        np.testing.assert_allclose(statistic(x[39:]), found[39:], atol=1e-13)
        for y in (x.roll((5, 3), (2, 3)), x.rot90(1, (2, 3)), x.flip(2)):
            np.testing.assert_allclose(statistic(y), found, atol=1e-12)
        # single precision against the scatter over maps, which is what a mean is known by
        assert ((statistic(x.float()) - found).abs() / found.std(0)).max() < 1e-4
        # a unit in which the cube of the field is beyond single precision
        assert torch.equal(statistic(2.0**45 * x.float()), 2.0**135 * statistic(x.float()))


def test_multipoles_share_one_pass():
    x = torch.tensor(np.random.default_rng(7).gamma(1.0, size=(5, 1, 12, 12)))
    statistic = ThreePoint(grid_of((12, 12)), [0.5, 1.5, 2.5, 3.5, 4.5], l_max=2)
    parts = statistic.multipoles()
    assert all(isinstance(p, Statistic) for p in parts)
    found = measure(parts, Sample(x))
    assert list(found) == ["three_point_0", "three_point_1", "three_point_2"]
    for ell, part in enumerate(parts):
        assert len(part.abscissa) == 6
        np.testing.assert_allclose(found[part.name].vectors, statistic(x)[:, ell], rtol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: ThreePoint(grid_of((8, 8)), [1.0, 2.0]),
        lambda: ThreePoint(grid_of((8, 8)), [1.0, 3.0, 2.0]),
        lambda: ThreePoint(grid_of((8, 8)), [1.0, 2.0, 5.0]),
        lambda: ThreePoint(grid_of((8, 8)), [1.01, 1.02, 2.5]),
        lambda: ThreePoint(grid_of((8, 8)), [0.5, 1.5, 2.5], l_max=-1),
        lambda: ThreePoint(grid_of((8, 8), False), [0.5, 1.5, 4.0])(torch.zeros(1, 1, 9, 9)),
        lambda: ThreePoint(grid_of((8, 8)), [0.5, 1.5, 2.5])(torch.zeros(1, 2, 8, 8)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()
