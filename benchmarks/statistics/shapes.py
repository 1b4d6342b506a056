"""What is above and below thresholds: Minkowski functionals, peaks and minima, voids."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from benchmarks.statistics.fields import cube, lognormal, smooth
from benchmarks.statistics.table import Case, Peer, optional, size
from benchmarks.statistics.two_points import transforms
from evaluation.minkowski import Minkowski, quantimpy_functionals
from evaluation.peaks import Peaks
from evaluation.voids import VoidSizes, ball
from gen.fields import Grid


def in_our_convention(grid: Grid, values: Tensor, thresholds: Tensor) -> Tensor:
    """quantimpy's V0, V1 and, in 2D, the mean of its chi of the set and less that of its complement.

    It joins no diagonal neighbours, and chi of what does is that of the complement with the other sign.
    """
    theirs = quantimpy_functionals(grid, values, thresholds)[:, :2]
    if grid.dim == 3:
        return theirs
    below = -torch.nextafter(thresholds.to(values), torch.tensor(-torch.inf))  # -x >= below where x < nu
    sets = [quantimpy_functionals(grid, s * values, t)[:, 2:] for s, t in ((1, thresholds), (-1, below))]
    return torch.cat([theirs, (sets[0] - sets[1]) / 2], dim=1)


def skimage_functionals(x: np.ndarray, thresholds: np.ndarray) -> Callable[[], object] | None:
    """Area (volume), Crofton perimeter (surface of marching cubes) and chi, by threshold."""
    measure = optional("skimage.measure")
    if measure is None:
        return None

    def boundary(mask: np.ndarray) -> float:
        if mask.ndim == 2:
            return measure.perimeter_crofton(mask, directions=4)
        return measure.mesh_surface_area(*measure.marching_cubes(mask.astype(np.float32), 0.5)[:2])

    return lambda: [
        (mask.sum(), boundary(mask), measure.euler_number(mask, x.ndim))
        for mask in (x >= t for t in thresholds)
    ]


def minkowski(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = smooth(grid, maps)
    ours = Minkowski.from_reference(grid, x)
    thresholds = torch.from_numpy(ours.thresholds)
    quantimpy = None
    if optional("quantimpy.minkowski"):
        quantimpy = Peer(
            f"quantimpy, by threshold ({'all three' if dim == 2 else 'V0 and V1'} compared)",
            lambda: quantimpy_functionals(grid, x[:1, 0], thresholds),
            1,
            lambda: (ours(x[:1])[:, : 3 if dim == 2 else 2], in_our_convention(grid, x[:1, 0], thresholds)),
        )
    return Case(
        f"Minkowski functionals, {len(thresholds)} thresholds",
        size(grid.shape, maps),
        lambda: ours(x),
        maps,
        [
            quantimpy or Peer("quantimpy", None),
            Peer("scikit-image, not periodic", skimage_functionals(x[0, 0].numpy(), ours.thresholds)),
        ],
    )


def peaks(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = smooth(grid, maps)
    ours, first = Peaks.from_reference(grid, x), x[0, 0].numpy()
    around = np.ones((3,) * dim, dtype=bool)
    around[(1,) * dim] = False

    def scipy() -> np.ndarray:
        counts = []
        for sign, edges in zip((1, -1), ours.edges, strict=True):
            y = sign * first
            found = first[y > ndimage.maximum_filter(y, footprint=around, mode="wrap")]
            counts.append(np.histogram(found, [-np.inf, *edges.astype(np.float32), np.inf])[0])
        return np.array(counts)

    same = Peer("scipy.ndimage.maximum_filter", scipy, 1, lambda: (ours(x[:1])[0], scipy()))
    return Case("peaks and minima", size(grid.shape, maps), lambda: ours(x), maps, [same])


def voids_one_by_one(grid: Grid, threshold: float, radii: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Sequential search in NumPy: sort the empty cells, take them in turn, mark each void and its margin."""
    balls, windows = [], []
    for radius in radii:
        steps = ball(grid, radius) % torch.tensor(grid.shape)
        cells = np.zeros(grid.shape, dtype=np.float32)
        cells[tuple(steps.T.numpy())] = 1 / len(steps)
        windows.append(np.fft.rfftn(cells))
        wide = ball(grid, 2 * radius).numpy()
        balls.append((wide, np.sqrt((wide * np.array(grid.spacing)) ** 2 @ np.ones(grid.dim))))

    def search(x: np.ndarray) -> np.ndarray:
        room = np.full(x.shape, np.inf)
        modes = np.fft.rfftn(x)
        found = np.zeros(len(radii))
        for rung in reversed(range(len(radii))):
            radius, (steps, distance) = radii[rung], balls[rung]
            average = np.fft.irfftn(modes * windows[rung], s=x.shape, axes=range(x.ndim))
            cells = np.argwhere((average < threshold) & (room >= radius * (1 - 1e-6)))
            for cell in cells[np.argsort(average[tuple(cells.T)])]:
                if room[tuple(cell)] >= radius * (1 - 1e-6):
                    around = tuple(((cell + steps) % x.shape).T)
                    room[around] = np.minimum(room[around], distance - radius)
                    found[rung] += 1
        return found

    return search


def voids_by_pylians(grid: Grid, x: np.ndarray, threshold: float, radii: np.ndarray) -> Callable | None:
    library = optional("void_library")
    if library is None or grid.dim == 2:
        return None

    def run() -> object:
        with contextlib.redirect_stdout(io.StringIO()):
            return library.void_finder(x, grid.box_size[0], threshold, radii.astype(np.float32), 1, 1)

    return run


def voids(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = lognormal(grid, maps)
    radii = np.geomspace(2.0, n / 4, 12)
    ours, first = VoidSizes(grid, -0.7, radii), x[0, 0].numpy()
    search = voids_one_by_one(grid, -0.7, radii)
    peers = [
        Peer(
            "sequential search in NumPy", lambda: search(first), 1, lambda: (ours(x[:1])[0, 0], search(first))
        )
    ]
    if dim == 3:
        pylians = voids_by_pylians(grid, first, -0.7, radii)
        peers.append(Peer("Pylians void_finder, spheres cut by cells", pylians))
    peers.append(Peer(f"{len(radii) + 1} bare torch transforms", transforms(x, 1, len(radii)), maps))
    return Case(f"voids, {len(radii)} radii", size(grid.shape, maps), lambda: ours(x), maps, peers)
