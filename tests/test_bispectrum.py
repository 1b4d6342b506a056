from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian

from evaluation.base import Sample, Statistic, measure
from evaluation.battery import battery
from evaluation.bispectrum import Bispectrum, ReducedBispectrum, Sides, TriangleSum
from evaluation.power import PowerSpectrum
from evaluation.thresholds import load_thresholds
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True) -> Grid:
    return Grid(shape, [float(n) for n in shape], "Mpc/h", periodic)


def waves(shape: tuple[int, ...], integers: list[tuple[int, ...]], phases: list[float]) -> torch.Tensor:
    """Sum of plane waves of amplitude 1, 2, 3 ... with these numbers of periods along each axis."""
    cells = np.indices(shape)
    x = np.zeros(shape)
    for a, (m, phase) in enumerate(zip(integers, phases, strict=True), start=1):
        x += a * np.cos(2 * np.pi * sum(i * c / n for i, c, n in zip(m, cells, shape, strict=True)) + phase)
    return torch.tensor(x)[None, None]


def triples(grid: Grid, sides: Sides) -> list[tuple[tuple[int, ...], ...]]:
    """All ordered triples of integer modes that add up to zero, one by one; Nyquist planes left out."""
    ranges = [range(-((n - 1) // 2), (n - 1) // 2 + 1) for n in grid.shape]
    inside: list[set[tuple[int, ...]]] = [set(), set(), set()]
    for m in itertools.product(*ranges):
        k = math.sqrt(sum((2 * math.pi * i / s) ** 2 for i, s in zip(m, grid.k_sides, strict=True)))
        for shell, (low, high) in zip(inside, sides, strict=True):
            if low <= k < high and any(m):
                shell.add(m)
    found = []
    for a, b in itertools.product(inside[0], inside[1]):
        c = tuple(-i - j for i, j in zip(a, b, strict=True))
        if c in inside[2]:
            found.append((a, b, c))
    return found


def lattice_expectation(grid: Grid, zeta: np.ndarray, triangles: list[Sides]) -> np.ndarray:
    """Mean B of periodic fields with <x(0) x(r) x(s)> = zeta(r, s) on the lattice, ``(*shape, *shape)``."""
    modes = np.fft.fftn(zeta).real * math.prod(grid.k_sides) ** 2 / grid.n_cells**2
    out = []
    for sides in triangles:
        found = triples(grid, sides)
        # x(r) and x(s) carry two of the modes, the third is x(0)'s
        at = [tuple(i % n for i, n in zip(a + b, grid.shape * 2, strict=True)) for a, b, _ in found]
        out.append(np.mean([modes[m] for m in at]))
    return np.array(out)


def three_lags(xi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A correlation at r, at s and at r - s, each over ``(*shape, *shape)``."""
    dim, shape = xi.ndim, xi.shape
    r = xi.reshape(*shape, *[1] * dim)
    s = xi.reshape(*[1] * dim, *shape)
    cells = np.indices(shape)
    lags = [
        (c.reshape(*shape, *[1] * dim) - c.reshape(*[1] * dim, *shape)) % n
        for c, n in zip(cells, shape, strict=True)
    ]
    return np.broadcast_to(r, shape * 2), np.broadcast_to(s, shape * 2), xi[tuple(lags)]


def correlation_of(grid: Grid, radius: float) -> np.ndarray:
    """Of the fields of ``smooth_gaussian``, 1 at lag 0."""
    p = torch.exp(-(grid.wavenumber(half=False) ** 2) * radius**2).numpy()
    p[(0,) * grid.dim] = 0
    return np.fft.fftn(p / p.sum()).real


def check_pull(found: np.ndarray, expected: np.ndarray) -> None:
    """Within 4 standard errors of the mean over maps: one in 16,000 numbers fails by chance."""
    pull = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
    assert np.abs(pull).max() < 4, pull


def everything(grid: Grid) -> list[Bispectrum]:
    return [
        Bispectrum.equilateral(grid),
        Bispectrum.isosceles(grid, 0.4 * grid.k_nyquist, n_angles=5),
        Bispectrum.isosceles(grid, 0.3 * grid.k_nyquist, 0.5 * grid.k_nyquist, n_angles=5),
        Bispectrum.squeezed(grid),
    ]


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((8, 8), (8.0, 8.0)), ((9, 12), (2.0, 3.0)), ((6, 6, 6), (1.0, 1.0, 1.0)), ((6, 5, 8), (3.0, 2.0, 4.0))],
)
def test_every_triangle_is_summed_once(shape, sides):
    # odd and even sides: the planes that the real transform keeps single differ
    grid = Grid(shape, sides, "Mpc/h", periodic=True)
    x = torch.tensor(np.random.default_rng(1).gamma(1.0, size=(2, 1, *shape)))
    modes = np.fft.fftn(x.numpy(), axes=tuple(range(2, grid.dim + 2)))[:, 0]
    norm = math.prod(sides) ** 2 / grid.n_cells**3
    for statistic in everything(grid):
        assert isinstance(statistic, Statistic)
        found = statistic(x).numpy()
        assert found.shape == (2, len(statistic.abscissa))
        for t, shells in enumerate(statistic.triangles):
            each = triples(grid, shells)
            products = sum(modes[:, *a] * modes[:, *b] * modes[:, *c] for a, b, c in each)
            assert statistic.n_triangles[t] == len(each)
            expected = np.asarray(products).real / len(each) * norm
            np.testing.assert_allclose(found[:, t], expected, rtol=1e-9, atol=1e-12)


def test_three_closed_waves_have_the_bispectrum_of_their_phase():
    # amplitudes 1, 2, 3; k = 5, 5.66, 7 k_f
    grid = Grid((32, 32), 32 / 3, "deg", periodic=True)
    phases = [0.3, 1.1, -0.5]
    shell = {i: ((i - 0.5) * grid.k_fundamental, (i + 0.5) * grid.k_fundamental) for i in (5, 6, 7)}
    triangles = [
        (shell[a], shell[b], shell[c]) for a, b, c in itertools.combinations_with_replacement((5, 6, 7), 3)
    ]
    statistic = Bispectrum(grid, triangles)
    found = statistic(waves(grid.shape, [(3, 4), (4, -4), (-7, 0)], phases))[0].numpy()
    at = statistic.triangles.index((shell[5], shell[6], shell[7]))
    side = math.radians(32 / 3)
    # D = N A exp(i phase) / 2; a triangle and its negative
    expected = (
        2 * side**4 * 1 * 2 * 3 / 8 * math.cos(sum(phases)) / len(triples(grid, statistic.triangles[at]))
    )
    assert found[at] == pytest.approx(expected, rel=1e-12)
    assert np.abs(np.delete(found, at)).max() < 1e-12 * expected
    right_angle = [0.3, 1.1, math.pi / 2 - 1.4]
    hidden = statistic(waves(grid.shape, [(3, 4), (4, -4), (-7, 0)], right_angle))[0].numpy()
    assert np.abs(hidden).max() < 1e-12 * expected
    # alone they would close with other waves only
    apart = statistic(waves(grid.shape, [(3, 4), (4, -4), (-7, 1)], phases))[0].numpy()
    assert np.abs(apart).max() < 1e-12 * expected


def test_waves_that_close_by_aliasing_are_no_triangle():
    # 11 + 11 + 10 periods are 32 cells: on the lattice itself their product has a mean
    grid = grid_of((32, 32))
    x = waves(grid.shape, [(11, 0), (11, 0), (10, 0)], [0.0, 0.0, 0.0])
    assert (x**3).mean() > 1
    k = grid.k_fundamental
    statistic = Bispectrum(grid, [((10.5 * k, 11.5 * k), (10.5 * k, 11.5 * k), (9.5 * k, 10.5 * k))])
    assert abs(statistic(x).item()) < 1e-9 * float((x**3).mean()) * 32**4 / statistic.n_triangles[0]


def test_the_angle_is_the_one_between_the_two_sides():
    grid = grid_of((48, 48))
    x = waves(grid.shape, [(3, 4), (5, 0), (-8, -4)], [0.0, 0.0, 0.0])
    statistic = Bispectrum.isosceles(grid, 5 * grid.k_fundamental, n_angles=21)
    found = statistic(x)[0].numpy()
    k3 = [sides[2] for sides in statistic.triangles]
    inside = np.array([low <= math.sqrt(80) * grid.k_fundamental < high for low, high in k3])
    assert 0 < inside.sum() < 6
    np.testing.assert_array_equal(found > 1e-6 * found.max(), inside)
    assert np.abs(statistic.abscissa[inside] - math.acos(0.6)).max() < 0.3  # k3 to half a mode of 9


def test_the_long_side_is_the_third():
    grid = grid_of((48, 48))
    x = waves(grid.shape, [(7, 0), (-7, 1), (0, -1)], [0.0, 0.0, 0.0])
    statistic = Bispectrum.squeezed(grid)
    found = statistic(x)[0].numpy()
    at = int(np.argmax(found))
    assert np.abs(np.delete(found, at)).max() < 1e-9 * found[at]
    assert statistic.abscissa[at] == pytest.approx(7 * grid.k_fundamental, rel=0.03)
    assert (np.diff(statistic.abscissa) > 0).all()
    assert statistic.abscissa[-1] > 0.95 * grid.k_nyquist
    top = max(high for sides in Bispectrum.equilateral(grid).triangles for _, high in sides)
    assert top <= grid.k_nyquist * 2 / 3 < top + grid.k_fundamental


@pytest.mark.parametrize(("shape", "radius", "n"), [((16, 16), 0.7, 4000), ((8, 8, 8), 0.5, 2000)])
def test_gaussian_fields_have_none_and_its_scatter(shape, radius, n):
    grid = grid_of(shape)
    x = torch.tensor(smooth_gaussian(shape, radius, n, seed=2))[:, None]
    power = torch.exp(-(grid.wavenumber(half=False) ** 2) * radius**2).numpy()
    power[(0,) * grid.dim] = 0
    power *= math.prod(grid.box_size) / power.sum()  # unit variance
    for statistic in everything(grid):
        found = statistic(x).numpy()
        check_pull(found, np.zeros(found.shape[1]))
        for t, sides in enumerate(statistic.triangles):
            each = triples(grid, sides)
            closed = set(each)
            # <T^2> = sum over triangles and the orders of their sides that are triangles of the bin again
            total = sum(
                power[a] * power[b] * power[c] * sum(p in closed for p in itertools.permutations((a, b, c)))
                for a, b, c in each
            )
            variance = math.prod(grid.box_size) * total / len(each) ** 2
            squares = found[:, t] ** 2
            assert abs(squares.mean() - variance) < 4 * squares.std() / math.sqrt(n)
    # the closed form that n_modes stands for is exact where P is flat
    flat = torch.randn(n, 1, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for statistic in everything(grid):
        squares = statistic(flat).numpy() ** 2
        pull = (squares.mean(0) - math.prod(grid.box_size) / statistic.n_modes) / (
            squares.std(0) / math.sqrt(n)
        )
        assert np.abs(pull).max() < 4


def test_distinct_triangles_are_those_that_differ_by_more_than_order():
    grid = grid_of((32, 32))
    even = Bispectrum.equilateral(grid)
    np.testing.assert_array_equal(even.n_modes, even.n_triangles / 6)
    long = Bispectrum.squeezed(grid)
    np.testing.assert_array_equal(long.n_modes, long.n_triangles / 2)
    k = grid.k_fundamental
    three = Bispectrum(grid, [((2.5 * k, 3.5 * k), (4.5 * k, 5.5 * k), (5.5 * k, 6.5 * k))])
    np.testing.assert_array_equal(three.n_modes, three.n_triangles)


@pytest.mark.parametrize(("shape", "n"), [((16, 16), 3000), ((8, 8, 8), 1500)])
def test_a_lognormal_field_has_its_closed_form(shape, n):
    # 1 + zeta = (1 + X12)(1 + X13)(1 + X23) - ..., X = exp(xi_G) - 1 (Coles & Jones 1991)
    grid, radius, sigma = grid_of(shape), 0.8, 0.7
    g = sigma * smooth_gaussian(shape, radius, n, seed=4)
    x = torch.tensor(np.exp(g - sigma**2 / 2) - 1)[:, None]
    a, b, c = three_lags(np.exp(sigma**2 * correlation_of(grid, radius)) - 1)
    zeta = a * b + a * c + b * c + a * b * c
    for statistic in everything(grid):
        found = statistic(x).numpy()
        expected = lattice_expectation(grid, zeta, statistic.triangles)
        check_pull(found, expected)
        error = found.std(0) / math.sqrt(n)
        assert (expected / error).max() > 15  # so that a normalisation 30 % off would fail


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_a_local_quadratic_term_has_its_closed_form(shape):
    # <xxx> = 2 f (xi12 xi13 + 2 perm.) + 8 f^3 xi12 xi13 xi23 (Komatsu & Spergel 2001, astro-ph/0005036)
    grid, radius, f, n = grid_of(shape), 0.8, 0.15, 2000
    g = smooth_gaussian(shape, radius, n, seed=5)
    x = torch.tensor(g + f * (g**2 - 1))[:, None]
    a, b, c = three_lags(correlation_of(grid, radius))
    zeta = 2 * f * (a * b + a * c + b * c) + 8 * f**3 * a * b * c
    statistic = Bispectrum.squeezed(grid)
    found = statistic(x).numpy()
    expected = lattice_expectation(grid, zeta, statistic.triangles)
    check_pull(found, expected)
    assert (expected / (found.std(0) / math.sqrt(n))).max() > 10


@pytest.mark.parametrize("apodise", [None, "hann", 0.3])
def test_skewed_white_noise_is_flat_whatever_the_taper(apodise):
    # independent cells of an exponential law: third cumulant 2, so B = 2 cell^2 at every triangle
    grid, n = grid_of((32, 32), periodic=False), 3000
    x = torch.tensor(np.random.default_rng(6).exponential(size=(n, 1, 32, 32)) + 50)
    statistic = Bispectrum.equilateral(grid, 6, apodise)
    # the lowest shells of a tapered map share power with the mean that is taken off
    found = statistic(x).numpy()[:, 2:]
    check_pull(found, np.full(found.shape[1], 2.0))
    assert (found.std(0) / math.sqrt(n)).min() < 0.1  # without <w^3> a Hann taper gives 0.2 in place of 2
    assert (statistic.n_modes is None) == (apodise is not None)


def test_the_power_of_the_sides_is_the_power_spectrum():
    grid = grid_of((24, 24))
    x = torch.tensor(np.random.default_rng(8).gamma(1.0, size=(3, 1, 24, 24)))
    b, power = Bispectrum.equilateral(grid).with_power(x)
    expected = PowerSpectrum(grid)(x)[:, : b.shape[1]]
    for side in range(3):
        np.testing.assert_allclose(power[..., side], expected, rtol=1e-12)
    np.testing.assert_allclose(b, Bispectrum.equilateral(grid)(x), rtol=1e-12)


def lognormal(n: int, sigma: float, seed: int) -> torch.Tensor:
    g = sigma * smooth_gaussian((32, 32), 1.0, n, seed)
    return torch.tensor(np.exp(g - sigma**2 / 2) - 1)[:, None]


def test_the_reduced_bispectrum_is_that_of_the_ensemble():
    grid, n = grid_of((32, 32)), 600
    statistic = Bispectrum.equilateral(grid, 8)
    reference = lognormal(n, 0.7, seed=9)
    reduced = ReducedBispectrum.from_reference(statistic, reference)

    def ensemble(x: torch.Tensor) -> np.ndarray:
        b, power = (y.mean(0).numpy() for y in statistic.with_power(x))
        p1, p2, p3 = power.T
        return b / (p1 * p2 + p2 * p3 + p3 * p1)

    np.testing.assert_allclose(reduced(reference).mean(0), ensemble(reference), rtol=1e-10)
    # other fields: 4 % more power, so off by 0.04^2 of Q
    np.testing.assert_allclose(reduced(1.02 * reference).mean(0), ensemble(reference) / 1.02, rtol=0.002)
    b, power = statistic.with_power(reference)
    sums = 3 * power[..., 0] ** 2
    ratio = (b / sums).numpy()
    # the ratio of each map is no estimate of it: biased by many of its standard errors
    bias = (ratio.mean(0) - ensemble(reference)) / (ratio.std(0) / math.sqrt(n))
    assert np.abs(bias).max() > 5
    # and B over the reference's power alone scatters more than q
    plain = (b / (3 * power[..., 0].mean(0) ** 2)).numpy()
    assert (reduced(reference).numpy().std(0) < 0.95 * plain.std(0)).all()


def test_both_come_from_one_pass():
    grid = grid_of((16, 16))
    x = torch.tensor(np.random.default_rng(10).gamma(1.0, size=(20, 1, 16, 16)))
    reduced = ReducedBispectrum.from_reference(Bispectrum.isosceles(grid, grid.k_nyquist / 3), x)
    assert isinstance(reduced, Statistic)
    found = measure(reduced.parts(), Sample(x))
    assert list(found) == ["bispectrum_isosceles", "bispectrum_isosceles_reduced"]
    np.testing.assert_allclose(found["bispectrum_isosceles"].vectors, reduced.bispectrum(x), rtol=1e-12)
    np.testing.assert_allclose(found["bispectrum_isosceles_reduced"].vectors, reduced(x), rtol=1e-12)


def test_precision_offset_and_the_batch_change_nothing():
    grid = grid_of((24, 24), periodic=False)
    x = torch.tensor(np.random.default_rng(11).gamma(1.0, size=(300, 1, 24, 24)))
    for statistic in (Bispectrum.equilateral(grid, apodise="hann"), Bispectrum.squeezed(grid)):
        found = statistic(x)
        np.testing.assert_allclose(statistic(x + 1e3), found, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(statistic(x[299:]), found[299:], rtol=1e-12)
        # single precision against the scatter over maps, which is what a mean is known by
        assert ((statistic(x.float()) - found).abs() / found.std(0)).max() < 1e-4
        np.testing.assert_allclose(statistic(2 * x), 8 * found, rtol=1e-12)


def test_the_unit_of_the_field_is_free():
    """A density of 1e11 in single precision, whose cube is beyond its range: exactly 2^(3 * 36) times B."""
    unit = 2.0**36
    x = torch.tensor(np.random.default_rng(13).gamma(1.0, size=(3, 1, 16, 16, 16))).float()
    x[0] *= 1e-3  # each map has a level of its own
    for statistic in everything(grid_of((16, 16, 16))):
        b, power = statistic.with_power(unit * x)
        expected = [unit**p * y for p, y in zip((3, 2), statistic.with_power(x), strict=True)]
        assert torch.equal(b, expected[0]) and torch.equal(power, expected[1])
        assert torch.equal(statistic(0 * x), torch.zeros_like(b))


def test_a_map_turned_or_moved_is_the_same():
    grid = grid_of((24, 24))
    x = torch.tensor(np.random.default_rng(12).gamma(1.0, size=(2, 1, 24, 24)))
    for statistic in everything(grid):
        found = statistic(x)
        for y in (x.roll((5, 3), (2, 3)), x.rot90(1, (2, 3)), x.flip(2)):
            np.testing.assert_allclose(statistic(y), found, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(statistic(-x), -found, rtol=1e-12)


def test_the_sum_counts_triangles():
    grid = grid_of((12, 12))
    sides = ((1.0, 2.0), (0.5, 1.8), (1.2, 2.5))
    ones = torch.ones(1, 12 * 7, dtype=torch.complex128)
    assert TriangleSum(grid, [sides])(ones).item() == pytest.approx(len(triples(grid, sides)), rel=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        lambda g: Bispectrum(g, []),
        lambda g: Bispectrum(g, [((1.0, 2 * g.k_nyquist),) * 3]),
        lambda g: Bispectrum(g, [((0.1, 0.2), (0.1, 0.2), (1.0, 2.0))]),
        lambda g: Bispectrum.equilateral(g, bins=0),
        lambda g: Bispectrum.equilateral(g, apodise=1.5),
        lambda g: Bispectrum.isosceles(g, -1.0),
        lambda g: Bispectrum.isosceles(g, 1.0, n_angles=0),
        lambda g: Bispectrum.isosceles(g, 3.0),
        lambda g: Bispectrum.squeezed(g, n_long=0),
        lambda g: Bispectrum.squeezed(g)(torch.zeros(1, 1, 9, 9)),
        lambda g: Bispectrum.squeezed(g)(torch.zeros(1, 2, 8, 8)),
        lambda g: ReducedBispectrum.from_reference(Bispectrum.squeezed(g), torch.zeros(4, 1, 8, 8)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad(grid_of((8, 8)))


def test_densities_of_many_decades_have_every_statistic_of_hi():
    """Neutral hydrogen in (Msun/h)/(Mpc/h)^3: seven decades and more about 1e8, all finite."""
    grid = Grid((32, 32, 32), 20.0, "Mpc/h", periodic=True)
    g = torch.tensor(smooth_gaussian(grid.shape, 1.5, 6, 14))[:, None]
    x = torch.exp(np.log(10) * (7.0 + 1.2 * g / g.std())).float()
    assert x.max() / x.min() > 1e7 and x.max() > 1e11
    t = load_thresholds(Path(__file__).parents[1] / "recipes" / "reports" / "hi.yaml")
    measured = measure(battery(t.statistics, grid, x, t.measurement), Sample(x))
    assert set(t.excess) - {"column_density_los"} <= set(measured)
    assert all(np.isfinite(m.vectors).all() for m in measured.values())


@pytest.mark.parametrize("side", [16, 32])
def test_higans_sides_are_scaled_to_the_box(side):
    """k1 = 6, k2 = 6.5 h/Mpc of 35 kpc/h cells: the shells are those of 2.24 Mpc/h boxes of any unit."""
    published = Grid((64, 64, 64), 64 * 0.035, "Mpc/h", periodic=True)
    assert published.k_nyquist == pytest.approx(math.pi / 0.035)
    grid = Grid((side,) * 3, 20.0, "Mpc/h", periodic=True)
    x = torch.randn(2, 1, *grid.shape, generator=torch.Generator().manual_seed(1))
    thresholds = load_thresholds(Path(__file__).parents[1] / "recipes" / "reports" / "standard.yaml")
    b, q = battery(["bispectrum_angle"], grid, x, thresholds.measurement)
    assert (b.name, q.name) == ("bispectrum_angle", "bispectrum_angle_reduced")
    k1, k2 = (grid.k_nyquist * k / published.k_nyquist for k in (6.0, 6.5))
    mine = Bispectrum.isosceles(grid, k1, k2, thresholds.measurement.bispectrum_bins)
    torch.testing.assert_close(b(x), mine(x))
    third = np.sqrt(k1**2 + k2**2 + 2 * k1 * k2 * np.cos(b.abscissa))
    for sides, k3 in zip(mine.triangles, third, strict=True):
        assert [low <= k <= high for (low, high), k in zip(sides, (k1, k2, k3), strict=True)] == [True] * 3
