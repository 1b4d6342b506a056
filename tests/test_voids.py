from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oracles import smooth_gaussian
from scipy import ndimage

from evaluation.base import Sample, measure
from evaluation.voids import VoidSizes, ball, void_radii
from gen.errors import InputError
from gen.fields import Grid


def grid_of(shape: tuple[int, ...], periodic: bool = True) -> Grid:
    return Grid(shape, [float(n) for n in shape], "Mpc/h", periodic)


def separation(a: np.ndarray, b: np.ndarray, grid: Grid) -> float:
    step = np.abs(a - b)
    if grid.periodic:
        step = np.minimum(step, np.array(grid.shape) - step)
    return float(np.sqrt(((step * grid.spacing) ** 2).sum()))


def one_by_one(x: np.ndarray, grid: Grid, threshold: float, radii: np.ndarray) -> list[tuple[int, tuple]]:
    """From the definition: every cell in turn, every earlier void in turn; average by a sum over the ball."""
    found: list[tuple[int, tuple]] = []
    for rung in reversed(range(len(radii))):
        reach = [int(radii[rung] / d) for d in grid.spacing]
        box = np.meshgrid(
            *[d * np.arange(-r, r + 1) for r, d in zip(reach, grid.spacing, strict=True)], indexing="ij"
        )
        inside = sum(c**2 for c in box) <= radii[rung] ** 2 * (1 + 1e-9)
        average = ndimage.correlate(x, inside / inside.sum(), mode="wrap" if grid.periodic else "constant")
        for flat in np.argsort(average, axis=None):
            c = np.array(np.unravel_index(flat, x.shape))
            faces = np.minimum(c + 0.5, np.array(x.shape) - 0.5 - c) * grid.spacing
            if average[tuple(c)] >= threshold:
                break
            if not grid.periodic and faces.min() < radii[rung] - 1e-9:
                continue
            if all(
                separation(c, np.array(o), grid) >= (radii[rung] + radii[r]) * (1 - 1e-6) for r, o in found
            ):
                found.append((rung, tuple(int(i) for i in c)))
    return found


def planted(grid: Grid, holes: list[tuple[tuple[int, ...], float]], depth: float) -> torch.Tensor:
    """A field of zeros with balls of ``depth``, cell centres within the radius."""
    cells = np.indices(grid.shape)
    x = np.zeros(grid.shape)
    for centre, radius in holes:
        step = np.abs(cells - np.array(centre).reshape(-1, *[1] * grid.dim))
        if grid.periodic:
            step = np.minimum(step, np.array(grid.shape).reshape(-1, *[1] * grid.dim) - step)
        x[(step**2).sum(0) <= radius**2] = depth
    return torch.tensor(x)[None, None]


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((40, 28), (40.0, 28.0)), ((30, 24), (15.0, 24.0)), ((14, 16, 12), (14.0, 16.0, 12.0))],
)
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("smooth", [0.6, 2.0])
def test_voids_one_by_one(shape, sides, periodic, smooth):
    grid = Grid(shape, sides, "Mpc/h", periodic)
    x = smooth_gaussian(shape, smooth, 3, seed=1)
    radii = np.geomspace(1.3, 5.5, 7)
    for threshold in (-0.3, 0.2):  # few voids, and balls packed densely
        finder = VoidSizes(grid, threshold, radii)
        voids = finder.find(torch.tensor(x)[:, None])
        for i, field in enumerate(x):
            mine = voids.map_index == i
            found = {
                (int(r), tuple(c.tolist())) for r, c in zip(voids.rung[mine], voids.centre[mine], strict=True)
            }
            expected = one_by_one(field, grid, threshold, radii)
            assert len(expected) > 2
            assert found == set(expected)
            assert int(mine.sum()) == len(expected)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("dim", [2, 3])
def test_planted_holes_are_found_with_their_radii(dim, periodic):
    grid = grid_of((48,) * dim, periodic)
    holes = [((12,) * dim, 9.0), ((34,) * dim, 7.0), ((34,) + (12,) * (dim - 1), 5.0)]
    if periodic:
        holes.append(((12,) * (dim - 1) + (46,), 4.0))  # across a face
    x = planted(grid, holes, -0.8)
    radii = np.array([3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    finder = VoidSizes(grid, -0.75, radii)
    voids = finder.find(x)
    expected = {(tuple(c), r) for c, r in holes}
    found = [(tuple(c.tolist()), radii[r]) for c, r in zip(voids.centre, voids.rung, strict=True)]
    assert set(found) == expected
    assert len(found) == len(holes)
    counts = finder(x)[0].numpy()
    assert counts[0].sum() == counts[1, 0] == len(holes)
    np.testing.assert_array_equal(counts[1], [sum(r >= s for _, r in holes) for s in radii])
    # a hole that is not deep enough is no void, and neither is an overdense ball
    assert VoidSizes(grid, -0.81, radii)(x).sum() == 0
    assert finder(-x).sum() == 0


@pytest.mark.parametrize("dim", [2, 3])
def test_a_hole_is_larger_to_a_higher_threshold(dim):
    # the mean of a ball of radius R around a hole of r is depth (r/R)^d: below -0.4 up to R = r 2^(1/d)
    grid = grid_of((64,) * dim if dim == 2 else (40,) * 3)
    r = 8.0
    x = planted(grid, [((20,) * dim, r)], -0.8)
    radii = np.arange(4.0, 15.0, 0.25)
    voids = VoidSizes(grid, -0.4, radii).find(x)
    assert len(voids.rung) == 1
    assert radii[voids.rung[0]] == pytest.approx(r * 2 ** (1 / dim), rel=0.03)  # lattice balls
    # anywhere where the ball holds the whole hole the average is the same
    assert separation(voids.centre[0].numpy(), np.full(dim, 20), grid) <= radii[voids.rung[0]] - r + 1


def test_a_uniform_field_has_none():
    for value in (0.0, 1e3, -0.69):
        assert VoidSizes(grid_of((24, 24)), -0.7)(torch.full((2, 1, 24, 24), value)).sum() == 0


@pytest.mark.parametrize("shape", [(64, 48), (24, 24, 24)])
def test_balls_never_overlap(shape):
    grid = grid_of(shape)
    x = torch.tensor(np.exp(smooth_gaussian(shape, 1.0, 2, seed=2)) / np.exp(0.5) - 1)[:, None]
    finder = VoidSizes(grid, -0.3)
    voids = finder.find(x.float())
    assert len(voids.rung) > 20
    for i in range(2):
        mine = (voids.map_index == i).nonzero().flatten().tolist()
        for a, b in itertools.combinations(mine, 2):
            apart = separation(voids.centre[a].numpy(), voids.centre[b].numpy(), grid)
            assert apart >= (finder.radii[voids.rung[a]] + finder.radii[voids.rung[b]]) * (1 - 1e-6)


def test_voids_move_with_the_field_and_do_not_see_the_batch():
    grid = grid_of((48, 40))
    x = torch.tensor(smooth_gaussian((48, 40), 1.2, 5, seed=3))[:, None]
    finder = VoidSizes(grid, -0.5)
    voids, moved = finder.find(x), finder.find(x.roll((7, -11), (2, 3)))
    shift = torch.tensor([7, -11])
    for i in range(5):
        a, b = voids.map_index == i, moved.map_index == i
        there = {
            (*((c + shift) % torch.tensor(grid.shape)).tolist(), int(r))
            for c, r in zip(voids.centre[a], voids.rung[a], strict=True)
        }
        assert there == {(*c.tolist(), int(r)) for c, r in zip(moved.centre[b], moved.rung[b], strict=True)}
    counts = finder(x)
    np.testing.assert_array_equal(counts[3:4], finder(x[3:4]))
    many = finder(x.repeat(40, 1, 1, 1))  # several groups
    np.testing.assert_array_equal(many, counts.repeat(40, 1, 1))


def test_parts_and_the_reference():
    grid = grid_of((32, 32), False)
    x = torch.tensor(np.exp(smooth_gaussian((32, 32), 1.5, 20, seed=4)))[:, None].float()
    finder = VoidSizes.from_reference(grid, x, nu=-0.5, radii=[2.0, 3.0, 5.0])
    assert float((x < finder.threshold).float().mean()) == pytest.approx(0.3085, abs=1e-3)  # Phi(-1/2)
    sizes, count = finder.counts()
    measured = measure([sizes, count], Sample(x))
    a, b = measured[sizes.name].vectors, measured[count.name].vectors
    assert a.shape == (20, 3)
    assert a.sum() > 20
    np.testing.assert_array_equal(a[:, ::-1].cumsum(1)[:, ::-1], b)
    assert VoidSizes(grid).radii == pytest.approx(void_radii(grid))


def test_a_ball_counts_each_cell_of_a_small_box_once():
    steps = ball(grid_of((6, 5)), 20.0)
    assert len(steps) == 30
    assert len({tuple(s) for s in (steps % torch.tensor([6, 5])).tolist()}) == 30
    assert len(ball(grid_of((9, 9, 9)), 1.0)) == 7
    assert len(ball(grid_of((9, 9), False), 1.5)) == 9


@pytest.mark.parametrize(
    "bad",
    [
        lambda: VoidSizes(grid_of((16, 16)), radii=[]),
        lambda: VoidSizes(grid_of((16, 16)), radii=[3.0, 2.0]),
        lambda: VoidSizes(grid_of((16, 16)), radii=[0.5, 2.0]),
        lambda: VoidSizes(grid_of((16, 16)), radii=[2.0, 9.0]),
        lambda: VoidSizes(grid_of((16, 16), False), radii=[2.0, 8.0]),
        lambda: VoidSizes(grid_of((16, 16)), float("nan")),
        lambda: VoidSizes(grid_of((16, 16)))(torch.zeros(1, 1, 8, 8)),
        lambda: VoidSizes(grid_of((16, 16)))(torch.zeros(1, 3, 16, 16)),
    ],
)
def test_bad_input_is_told(bad):
    with pytest.raises(InputError):
        bad()


def test_holes_in_a_density_of_many_decades_are_found_as_in_double_precision():
    """Planted holes below 0.3 of the mean are found with their radii, whatever fills the rest."""
    grid = grid_of((32, 32, 32))
    holes = [((8, 8, 8), 5.0), ((24, 24, 20), 4.0)]
    hole = planted(grid, holes, 1.0) > 0
    g = torch.tensor(smooth_gaussian(grid.shape, 0.3, 1, seed=3))
    # peaks of a thousand times the mean where the holes are not, and twelve decades to what is left in them
    x = torch.exp(3.5 * g - 3.5**2 / 2)[:, None] + 2
    x = torch.where(hole, 1e-9 * torch.exp(2 * g)[:, None], x)
    sizes = VoidSizes.of_density(grid, x, radii=[3.0, 4.0, 5.0])
    assert sizes.threshold == pytest.approx(0.3 * float(x.mean()))
    double, single = sizes.find(x), sizes.find(x.float())
    for v in (double, single):
        assert [tuple(c) for c in v.centre[:2].tolist()] == [c for c, _ in holes]
        assert v.rung[:2].tolist() == [2, 1]
    assert torch.equal(sizes(x), sizes(x.float()))
    assert sizes(1e9 * x).sum() == 0, "in another unit nothing is below the threshold"
    scaled = VoidSizes.of_density(grid, 1e9 * x, radii=[3.0, 4.0, 5.0])
    assert torch.equal(scaled(1e9 * x), sizes(x))
    with pytest.raises(InputError, match="need a density"):
        VoidSizes.of_density(grid, x - 1)
