"""Smoothed moments, voids, pairs and polarisation against the transforms they need and against peers.

One thread, same fields, same process, in turns. Bare transforms are those that no implementation can avoid,
one map at a time. Peers: scipy for smoothed moments, a sequential search in NumPy for voids, powerbox for
pairs.

python benchmarks/summary_statistics.py [--cells 256] [--maps 16] [--repeats 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from powerbox import get_power
from scipy import ndimage, stats
from torch import Tensor
from turns import alternate

from evaluation.moments import SmoothedMoments
from evaluation.pairs import PairedSpectra
from evaluation.polarisation import Polarisation
from evaluation.power import PowerSpectrum
from evaluation.voids import VoidSizes, ball
from gen.fields import Grid


def lognormal(grid: Grid, maps: int, sigma: float = 1.5, radius: float = 2.0) -> Tensor:
    """Density contrasts ``(maps, 1, *shape)`` with voids, smoothed over a few cells."""
    axes = tuple(range(2, grid.dim + 2))
    white = torch.randn(maps, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    kernel = torch.exp(-((grid.wavenumber() * radius * grid.spacing[0]) ** 2) / 2).float()
    smooth = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * kernel, s=grid.shape, dim=axes)
    return torch.exp(sigma * smooth / smooth.std() - sigma**2 / 2) - 1


def transforms(x: Tensor, forward: int, back: int) -> Callable[[], None]:
    """The bare real transforms of each map of ``(B, C, *shape)``, there and back so many times."""
    axes = tuple(range(1, x.ndim - 1))

    def run() -> None:
        for one in x:
            for _ in range(forward):
                modes = torch.fft.rfftn(one[:1], dim=axes)
            for _ in range(back):
                torch.fft.irfftn(modes, s=x.shape[2:], dim=axes)

    return run


def voids_one_by_one(grid: Grid, threshold: float, radii: np.ndarray) -> Callable[[np.ndarray], int]:
    """Sequential search in NumPy: sort the empty cells, take them in turn, mark each void and its margin."""
    balls, windows = [], []
    for radius in radii:
        steps = ball(grid, radius) % torch.tensor(grid.shape)
        cells = np.zeros(grid.shape, dtype=np.float32)
        cells[tuple(steps.T.numpy())] = 1 / len(steps)
        windows.append(np.fft.rfftn(cells))
        wide = ball(grid, 2 * radius).numpy()
        balls.append((wide, np.sqrt((wide * np.array(grid.spacing)) ** 2 @ np.ones(grid.dim))))

    def search(x: np.ndarray) -> int:
        room = np.full(x.shape, np.inf)
        modes = np.fft.rfftn(x)
        found = 0
        for radius, window, (steps, distance) in reversed(list(zip(radii, windows, balls, strict=True))):
            average = np.fft.irfftn(modes * window, s=x.shape, axes=range(x.ndim))
            cells = np.argwhere((average < threshold) & (room >= radius * (1 - 1e-6)))
            for cell in cells[np.argsort(average[tuple(cells.T)])]:
                if room[tuple(cell)] >= radius * (1 - 1e-6):
                    around = tuple(((cell + steps) % x.shape).T)
                    room[around] = np.minimum(room[around], distance - radius)
                    found += 1
        return found

    return search


def show(what: str, ours: float, bare: float, peer: tuple[str, float] | None = None) -> None:
    against = f"   {peer[0]} {peer[1] * 1e3:.2f} ms, {peer[1] / ours:.1f} times" if peer else ""
    print(f"  {what:26s}{ours * 1e3:8.3f} ms a map   {ours / bare:5.1f} of bare transforms{against}")


def compare(n: int, dim: int, maps: int, repeats: int) -> None:
    grid = Grid((n,) * dim, float(n), "Mpc/h", periodic=True)
    x = lognormal(grid, maps)
    first = x[0, 0].numpy()
    print(f"{' x '.join([str(n)] * dim)}, {maps} maps, one thread")

    radii = np.geomspace(1.0, n / 8, 8)
    moments = SmoothedMoments(grid, radii, "gaussian")

    def scipy_moments() -> np.ndarray:
        smooth = [ndimage.gaussian_filter(first, r, mode="wrap", truncate=4).reshape(-1) for r in radii]
        return np.array([(s.var(), stats.skew(s), stats.kurtosis(s)) for s in smooth])

    ours, bare, peer = alternate([lambda: moments(x), transforms(x, 1, 8), scipy_moments], repeats)
    show("moments, 8 scales", ours / maps, bare / maps, ("scipy", peer))

    ladder = np.geomspace(2.0, n / 4, 12)
    voids = VoidSizes(grid, -0.7, ladder)
    search = voids_one_by_one(grid, -0.7, ladder)
    theirs, found = search(first), len(voids.find(x[:1]).rung)
    calls = [lambda: voids(x), transforms(x, 1, 12), lambda: search(first)]
    ours, bare, peer = alternate(calls, max(2, repeats // 3))
    show("voids, 12 radii", ours / maps, bare / maps, (f"numpy ({theirs} voids, ours {found})", peer))

    pairs = PairedSpectra(PowerSpectrum(grid))
    both = torch.cat([x, x.roll(1, 2)], dim=1)
    edges = pairs.spectrum.edges

    def powerbox() -> list[np.ndarray]:
        a, b = first, both[0, 1].numpy()
        how = {"bins": edges, "dimensionless": False, "nthreads": 1}
        return [
            get_power(a, grid.box_size, **how).power,
            get_power(b, grid.box_size, **how).power,
            get_power(a, grid.box_size, deltax2=b, **how).power,
        ]

    ours, bare, peer = alternate([lambda: pairs(both), transforms(both, 2, 0), powerbox], repeats)
    show("pairs: r, T, 1 - r^2", ours / maps, bare / maps, ("powerbox", peer))

    if dim == 2:
        iqu = torch.randn(maps, 3, n, n, generator=torch.Generator().manual_seed(1))
        patch = Grid((n, n), 10.0, "deg", periodic=False)
        whole = Polarisation(grid)
        tapered, pure = (
            Polarisation(patch, apodise="hann"),
            Polarisation(patch, apodise="hann", leakage="pure"),
        )
        calls = [lambda: whole(iqu), lambda: tapered(iqu), lambda: pure(iqu), transforms(iqu, 3, 0)]
        *ours, bare = alternate(calls, repeats)
        for what, t in zip(("periodic", "tapered", "pure"), ours, strict=True):
            show(f"polarisation, {what}", t / maps, bare / maps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--maps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args.cells, 2, args.maps, args.repeats)
    compare(64, 2, 4 * args.maps, args.repeats)
    compare(64, 3, 2, args.repeats)


if __name__ == "__main__":
    main()
