from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import euler_by_cells, euler_by_components, smooth_gaussian
from scipy.special import ndtr

from evaluation import gaussian
from evaluation.base import Sample, measure
from evaluation.excursion import VORONOI, crofton_weights, excursion_functionals, levels
from evaluation.minkowski import Minkowski, quantimpy_functionals
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True, spacing: float = 1.0) -> Grid:
    return Grid(shape, [spacing * n for n in shape], "Mpc/h", periodic)


def of_mask(mask: np.ndarray, periodic: bool = True) -> np.ndarray:
    """Totals (not densities) of one set on unit cells: V0 ... Vd."""
    field = torch.tensor(mask, dtype=torch.float32)[None]
    found = excursion_functionals(grid_of(mask.shape, periodic), field, torch.tensor([0.5]))
    return found[0, :, 0].numpy() * (mask.size if periodic else math.prod(n - 1 for n in mask.shape))


def distance(shape: tuple[int, ...], centre: tuple[float, ...]) -> np.ndarray:
    return np.sqrt(sum((c - m) ** 2 for c, m in zip(np.indices(shape), centre, strict=True)))


def quantimpy_totals(mask: np.ndarray) -> np.ndarray:
    """quantimpy's own numbers on a periodic lattice: A, P/2pi, chi/pi; V, S/8, M/2pi^2, 3chi/4pi."""
    minkowski = pytest.importorskip("quantimpy.minkowski")
    return np.array(minkowski.functionals(np.pad(mask, ((0, 1),) * mask.ndim, mode="wrap")))


# --- shapes ---------------------------------------------------------------------------------------


def test_disc_has_its_area_perimeter_and_one_piece():
    area, perimeter, chi = of_mask(distance((160, 160), (80.3, 79.6)) < 60)
    assert area == pytest.approx(math.pi * 60**2, rel=2e-3)
    # the boundary of 377 cells is averaged over all directions: unbiased
    assert 4 * perimeter == pytest.approx(2 * math.pi * 60, rel=5e-3)
    assert chi == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("angle", "error"), [(0.0, -0.024), (math.pi / 4, -0.080), (math.pi / 8, 0.026)])
def test_straight_edges_have_the_documented_lattice_error(angle, error):
    # one edge through a window; the error of the 8-direction Crofton sum follows from its direction
    n = 401
    x, y = np.indices((n, n)) - n // 2
    across = x * math.cos(angle) + y * math.sin(angle)
    found = excursion_functionals(grid_of((n, n), False), torch.tensor(across)[None], torch.tensor([0.31]))
    length = (n - 1) / max(abs(math.cos(angle)), abs(math.sin(angle)))
    assert 4 * found[0, 1, 0].item() * (n - 1) ** 2 / length - 1 == pytest.approx(error, abs=4e-3)


def test_pieces_and_holes_are_counted():
    r = distance((64, 64), (32, 32))
    annulus = (r < 25) & (r > 15)
    assert of_mask(annulus)[2] == pytest.approx(0, abs=1e-9)
    assert of_mask(annulus | (r < 8))[2] == pytest.approx(1, abs=1e-9)
    two = (distance((64, 64), (16, 16)) < 9) | (distance((64, 64), (45, 40)) < 9)
    assert of_mask(two)[2] == pytest.approx(2, abs=1e-9)
    assert 4 * of_mask(annulus)[1] == pytest.approx(2 * math.pi * 40, rel=0.02)


def test_bodies_have_their_volume_surface_curvature_and_topology():
    # S / 6, M / (3 pi), chi; the mean curvature integral M of a ball is 4 pi R, of a torus 2 pi^2 R
    shape, centre = (40, 40, 40), (19.6, 19.5, 20.3)
    r = distance(shape, centre)
    volume, surface, curvature, chi = of_mask(r < 14)
    assert volume == pytest.approx(4 / 3 * math.pi * 14**3, rel=0.01)
    assert 6 * surface == pytest.approx(4 * math.pi * 14**2, rel=0.01)
    assert 3 * math.pi * curvature == pytest.approx(4 * math.pi * 14, rel=0.01)
    assert chi == pytest.approx(1, abs=1e-9)

    _, surface, curvature, chi = of_mask((r < 16) & (r > 9))
    assert 6 * surface == pytest.approx(4 * math.pi * (16**2 + 9**2), rel=0.01)
    assert 3 * math.pi * curvature == pytest.approx(4 * math.pi * (16 - 9), rel=0.03)
    assert chi == pytest.approx(2, abs=1e-9)


def test_a_ring_has_the_surface_and_curvature_of_a_torus():
    # a ring does not face all directions alike: the lattice error of one position (2 %) is averaged over six
    points = np.stack(np.indices((40, 40, 40)), -1) - 19.6
    found = []
    for seed in range(6):
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        x, y, z = np.moveaxis(points @ rotation, -1, 0)
        found.append(of_mask(np.hypot(np.hypot(x, y) - 11, z) < 5))
    volume, surface, curvature, chi = np.mean(found, axis=0)
    assert volume == pytest.approx(2 * math.pi**2 * 11 * 5**2, rel=0.01)
    assert 6 * surface == pytest.approx(4 * math.pi**2 * 11 * 5, rel=0.01)
    assert 3 * math.pi * curvature == pytest.approx(2 * math.pi**2 * 11, rel=0.01)
    assert chi == pytest.approx(0, abs=1e-9)


def test_mean_curvature_of_a_hollow_is_negative():
    # where quantimpy 0.2.6 overflows
    hollow = distance((32, 32, 32), (15.5, 15.6, 16.2)) > 10
    assert 3 * math.pi * of_mask(hollow)[2] == pytest.approx(-4 * math.pi * 10, rel=0.02)


# --- topology, element by element ------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.45, 0.6, 0.8])
def test_euler_number_of_noise_is_the_mean_of_both_readings(share):
    mask = np.zeros((24, 31), dtype=bool)
    mask[1:-1, 1:-1] = np.random.default_rng(3).random((22, 29)) < share
    expected = (euler_by_components(mask, True) + euler_by_components(mask, False)) / 2
    assert of_mask(mask)[2] == pytest.approx(expected, abs=1e-9)
    assert of_mask(mask, periodic=False)[2] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
def test_euler_number_in_3d_counted_cell_by_cell(share):
    mask = np.random.default_rng(5).random((6, 7, 8)) < share
    # what is not joined diagonally is the complement of what is; on a 3-torus both have one chi
    expected = (euler_by_cells(mask) + euler_by_cells(~mask)) / 2
    assert of_mask(mask)[3] == pytest.approx(expected, abs=1e-9)


# --- quantimpy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.0, 1.5])
def test_quantimpy_agrees_in_2d(radius):
    field = smooth_gaussian((40, 40), radius, 1, seed=1)[0]
    for nu in (-1.0, 0.0, 0.7, 1.5):
        mask = field >= nu
        theirs, complement = quantimpy_totals(mask), quantimpy_totals(~mask)
        area, perimeter, chi = of_mask(mask)
        assert area == theirs[0]
        assert 4 * perimeter == pytest.approx(2 * math.pi * theirs[1], rel=1e-12)
        # theirs joins no diagonals; the complement's then joins them
        assert chi == pytest.approx(math.pi * (theirs[2] - complement[2]) / 2, abs=1e-9)


def test_quantimpy_agrees_in_an_open_window():
    # quantimpy gives a cell's pixel to one corner only; over the four mirror images its counts are ours
    minkowski = pytest.importorskip("quantimpy.minkowski")
    mask = smooth_gaussian((30, 40), 1.0, 1, seed=2)[0] >= 0.3
    images = (mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1])
    theirs = np.mean([minkowski.functionals(np.ascontiguousarray(m)) for m in images], axis=0)
    area, perimeter, _ = of_mask(mask, periodic=False)
    assert area == pytest.approx(theirs[0], rel=1e-12)
    assert 4 * perimeter == pytest.approx(2 * math.pi * theirs[1], rel=1e-12)


def opposite_corners(mask: np.ndarray) -> float:
    """What quantimpy's table adds to chi: 1/4 (1/24) a cell with two (three) empty corners, two opposite."""
    corners = {c: np.roll(mask, [-i for i in c], (0, 1, 2)) for c in np.ndindex(2, 2, 2)}
    empty = 8 - sum(m.astype(int) for m in corners.values())
    pair = np.zeros(mask.shape, dtype=bool)
    for c, m in corners.items():
        pair |= ~m & ~corners[tuple(1 - i for i in c)]
    return float((pair & (empty == 2)).sum() / 4 + (pair & (empty == 3)).sum() / 24)


@pytest.mark.parametrize("radius", [0.0, 1.5])
def test_quantimpy_agrees_in_3d_but_for_its_known_defects(radius):
    field = smooth_gaussian((14, 14, 14), radius, 1, seed=4)[0]
    for nu in (-0.8, 0.2, 1.0):
        mask = field >= nu
        theirs, complement = quantimpy_totals(mask), quantimpy_totals(~mask)
        volume, surface, _, chi = of_mask(mask)
        assert volume == theirs[0]
        assert 6 * surface == pytest.approx(8 * theirs[1], rel=1e-10)
        both = [
            4 * math.pi / 3 * t[3] - opposite_corners(m) for t, m in ((theirs, mask), (complement, ~mask))
        ]
        assert chi == pytest.approx(sum(both) / 2, abs=1e-6)


def test_quantimpy_agrees_on_the_mean_curvature_where_it_is_positive():
    ball = distance((26, 26, 26), (12.5, 12.5, 12.5)) < 9
    assert 3 * math.pi * of_mask(ball)[2] == pytest.approx(
        2 * math.pi**2 * quantimpy_totals(ball)[2], rel=1e-10
    )


def test_quantimpy_as_backend():
    pytest.importorskip("quantimpy")
    values = torch.tensor(smooth_gaussian((32, 32), 1.5, 2, seed=6))[:, None]
    grid = Grid((32, 32), 3.2, "Mpc/h", periodic=True)
    ours = Minkowski.from_reference(grid, values, 9)
    theirs = Minkowski(grid, ours.thresholds, backend=quantimpy_functionals)
    np.testing.assert_allclose(ours(values)[:, :2], theirs(values)[:, :2], rtol=1e-10, atol=1e-12)
    # both readings of chi differ by at most the cells with a diagonal pair, few in a smooth field
    assert (ours(values)[:, 2] - theirs(values)[:, 2]).abs().max() < 10 / 3.2**2
    empty = theirs.backend(grid, values[:, 0], torch.tensor([99.0], dtype=torch.float64))
    assert (empty == 0).all()


# --- closed forms ----------------------------------------------------------------------------------


def white_noise(p: np.ndarray, dim: int) -> np.ndarray:
    """Expectation of every functional for independent unit cells, in the set with probability p."""
    q = 1 - p
    axis, face, *body = crofton_weights(dim)
    cross = 2 * p * q
    square = (p**4 + 1 - q**4) / 2 - p
    if dim == 2:
        return np.stack([p, (2 * axis + 2 * face) * cross / 4, square])
    triangles = 2 * p**3 - 3 * p**2 + p
    a, f, b = (2 * v for v in VORONOI[3])
    planes = 3 * a * square + 6 * f * square / math.sqrt(2) + 4 * b * triangles / math.sqrt(3)
    cubes = p - 3 * p**2 + 3 * p**4 - p**8
    dual = q - 3 * q**2 + 3 * q**4 - q**8
    surface = (3 * axis + 6 * face + 4 * body[0]) * cross
    return np.stack([p, surface / 6, 2 / 3 * planes, (cubes + dual) / 2])


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(64, 48), (16, 20, 18)])
def test_white_noise_has_its_exact_expectation(shape, periodic):
    n = 200
    values = torch.randn(n, *shape, generator=torch.Generator().manual_seed(7))
    nu = torch.linspace(-2, 2, 9)
    found = excursion_functionals(grid_of(shape, periodic), values, nu).numpy()
    pull = (found.mean(0) - white_noise(ndtr(-nu.numpy()), len(shape))) / (found.std(0) / math.sqrt(n))
    assert np.abs(pull).max() < 4.5  # of 27 or 36 correlated normals
    assert np.sqrt((pull**2).mean()) < 1.6


@pytest.mark.parametrize("shape", [(128, 128), (36, 36, 36)])
def test_smoothed_gaussian_fields_have_tomitas_curves(shape):
    dim, radius = len(shape), {2: 4.0, 3: 3.0}[len(shape)]
    n = {2: 60, 3: 12}[dim]
    grid = grid_of(shape)

    def power(k):
        return torch.exp(-(k**2) * radius**2)

    sigma0, sigma1 = (gaussian.spectral_moment(grid, power, j) for j in (0, 1))
    nu = np.linspace(-2.5, 2.5, 11)
    values = torch.tensor(smooth_gaussian(shape, radius, n, seed=8))
    found = excursion_functionals(grid, values, torch.tensor(nu)).numpy()
    mean, error = found.mean(0), found.std(0) / math.sqrt(n)
    expected = gaussian.minkowski(nu, dim, sigma0, sigma1)
    for k in range(dim + 1):
        # cells of 1/4 (1/3) of the smoothing length lower boundaries by 1 to 2 %, chi by up to 5 %
        lattice = (0, 0.02, 0.03, 0.06)[k] * np.abs(expected[k]).max()
        assert (np.abs(mean[k] - expected[k]) < 4 * error[k] + lattice).all(), k


@pytest.mark.parametrize("shape", [(64, 64), (24, 24, 24)])
@pytest.mark.parametrize("radius", [0.7, 2.0])
def test_boundaries_of_gaussian_fields_on_the_lattice_are_exact(shape, radius):
    grid, n = grid_of(shape), 100 if len(shape) == 2 else 40
    nu = np.linspace(-2, 2, 9)
    values = torch.tensor(smooth_gaussian(shape, radius, n, seed=9))
    found = excursion_functionals(grid, values, torch.tensor(nu)).numpy()[:, :2]
    expected = gaussian.lattice_minkowski(grid, nu, lambda k: torch.exp(-(k**2) * radius**2))
    pull = (found.mean(0) - expected) / (found.std(0) / math.sqrt(n))
    assert np.abs(pull).max() < 4.5
    assert np.sqrt((pull**2).mean()) < 1.6


def test_windows_of_a_periodic_field_are_unbiased():
    values = torch.tensor(smooth_gaussian((192, 192), 2.0, 30, seed=10))
    nu = torch.linspace(-2, 2, 9, dtype=torch.float64)
    whole = excursion_functionals(grid_of((192, 192)), values, nu)
    windows = values.unfold(1, 48, 48).unfold(2, 48, 48).reshape(-1, 48, 48)
    cut = excursion_functionals(grid_of((48, 48), False), windows, nu).reshape(30, 16, 3, 9).mean(1)
    gap = (cut - whole).numpy()
    pull = gap.mean(0) / (gap.std(0) / math.sqrt(30))
    assert np.abs(pull).max() < 4.5


# --- symmetries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 24), (10, 9, 12)])
@pytest.mark.parametrize("periodic", [True, False])
def test_duality_under_a_change_of_sign(shape, periodic):
    values = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nu = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    over = excursion_functionals(grid_of(shape, periodic), values, nu)
    under = excursion_functionals(grid_of(shape, periodic), -values, -nu.flip(0)).flip(2)
    np.testing.assert_allclose(over[:, 0] + under[:, 0], torch.ones_like(over[:, 0]))
    for k in range(1, len(shape) + 1):
        np.testing.assert_allclose(over[:, k], (-1) ** (k + 1) * under[:, k], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(16, 16), (9, 9, 9)])
def test_rotations_mirrors_and_shifts_change_nothing(shape):
    values = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    nu = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    for periodic in (True, False):
        grid = grid_of(shape, periodic)
        expected = excursion_functionals(grid, values, nu)
        images = [values.flip(1), values.transpose(1, 2), torch.rot90(values, 1, (1, -1))]
        images += [values.roll((3, 5), (1, 2))] if periodic else []
        for image in images:
            np.testing.assert_allclose(excursion_functionals(grid, image, nu), expected, rtol=0, atol=1e-12)


def test_lengths_are_in_the_unit_of_the_grid():
    values = torch.randn(1, 12, 12, 12, generator=torch.Generator().manual_seed(3))
    nu = torch.linspace(-1, 1, 3)
    unit = excursion_functionals(grid_of((12,) * 3), values, nu)
    coarse = excursion_functionals(grid_of((12,) * 3, spacing=4.0), values, nu)
    np.testing.assert_allclose(coarse, unit / torch.tensor([1.0, 4, 16, 64], dtype=torch.float64)[:, None])


# --- one pass --------------------------------------------------------------------------------------


def test_all_thresholds_at_once_are_each_by_itself():
    values = torch.randn(70, 16, 16, generator=torch.Generator().manual_seed(4))
    nu = torch.linspace(-2, 2, 300)  # more levels than a byte holds
    grid = grid_of((16, 16))
    together = excursion_functionals(grid, values, nu)
    for t in (0, 17, 150, 299):
        alone = excursion_functionals(grid, values, nu[t : t + 1])[..., 0]
        np.testing.assert_allclose(together[..., t], alone, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        excursion_functionals(grid, values[33:34], nu)[0], together[33], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(
    "thresholds",
    [[-1.0, 0.0, 0.5], [0.25], list(np.linspace(-3, 3, 200)), [0.0, 1e-6, 1.0, 1e5], [-1e-3, 0.0, 1e-3]],
)
def test_levels_are_a_binary_search(thresholds):
    t = torch.tensor(thresholds, dtype=torch.float32)
    x = torch.randn(5000, generator=torch.Generator().manual_seed(5))
    near = torch.cat([t, torch.nextafter(t, t + 1), torch.nextafter(t, t - 1)])
    x = torch.cat([x, near, torch.tensor([-torch.inf, torch.inf, 3e38, -3e38])])
    expected = np.searchsorted(t.numpy(), x.numpy(), side="right")
    np.testing.assert_array_equal(levels(x, t).numpy(), expected)


def test_empty_cells_lie_below_all_thresholds():
    """A tenth of the cells share the lowest value, as voids of a particle density do."""
    grid = Grid((16, 16, 16), 16.0, "Mpc/h", True)
    x = torch.from_numpy(np.random.default_rng(0).lognormal(size=(4, 1, 16, 16, 16)).astype(np.float32))
    x = (x - x.quantile(0.1)).clamp(min=0)
    m = Minkowski.from_reference(grid, x)
    assert len(m.thresholds) == 25 and m.thresholds[0] > 0
    volume = m(x)[:, 0].mean(0)
    assert volume[0] < 0.9 and volume[-1] == pytest.approx(1 - ndtr(3.25), rel=0.3)


def test_thresholds_from_a_reference_cut_through_it():
    values = torch.exp(torch.randn(40, 1, 32, 32, generator=torch.Generator().manual_seed(6)))
    grid = grid_of((32, 32))
    m = Minkowski.from_reference(grid, values, 15, nu=(-2.0, 3.0))
    share = m(values)[:, 0].mean(0).numpy()
    np.testing.assert_allclose(share, ndtr(-np.linspace(-2, 3, 15)), atol=2e-4)
    parts = m.functionals()
    assert [p.name for p in parts] == ["V0", "V1", "V2"]
    measured = measure(parts, Sample(values))
    for k, part in enumerate(parts):
        np.testing.assert_allclose(measured[part.name].vectors, m(values)[:, k].numpy(), rtol=1e-12)
        assert part.abscissa.shape == (15,)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Minkowski(Grid((8, 8), (1.0, 2.0), "Mpc/h", True), [0.0, 1.0]),
        lambda: Minkowski(grid_of((8, 8)), [1.0, 0.0]),
        lambda: Minkowski(grid_of((8, 8)), [0.0, 1.0])(torch.zeros(2, 1, 9, 9)),
        lambda: Minkowski(grid_of((8, 8)), [0.0, 1.0])(torch.zeros(2, 3, 8, 8)),
        lambda: Minkowski.from_reference(grid_of((8, 8)), torch.zeros(2, 1, 8, 8)),
        lambda: measure(
            Minkowski(grid_of((4, 4)), [0.0, 1.0]).functionals(), Sample(torch.full((1, 1, 4, 4), math.nan))
        ),
    ],
    ids=["oblong cells", "falling thresholds", "other shape", "channels", "constant reference", "not finite"],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()


def test_functionals_of_the_logarithm_are_those_of_the_field():
    """An excursion set is the same for any increasing function; nu is then that of ln x."""
    grid = Grid((12, 12, 12), 20.0, "Mpc/h", periodic=True)
    g = torch.tensor(smooth_gaussian((12, 12, 12), 1.0, 6, seed=8))[:, None]
    x = torch.exp(4 * g)  # ten decades
    of_x, of_log = Minkowski.of_logarithm(grid, x), Minkowski.from_reference(grid, 4 * g)
    np.testing.assert_allclose(of_x.nu, of_log.nu, rtol=1e-2, atol=1e-2)  # quantiles between two cells
    same = Minkowski(grid, np.log(of_x.thresholds))
    assert torch.equal(of_x(x), same(4 * g))
    assert of_x.nu[0] < -2.2 < 2.9 < of_x.nu[-1]
    with pytest.raises(InputError, match="must be positive"):
        Minkowski.of_logarithm(grid, g)
