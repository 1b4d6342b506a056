"""Values cell by cell: their distribution, their moments, and those after smoothing."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage, stats

from benchmarks.statistics.fields import cube, lognormal, smooth
from benchmarks.statistics.table import Case, Peer, size
from benchmarks.statistics.two_points import transforms
from evaluation.columns import ColumnDensity
from evaluation.log_pdf import LogPDF
from evaluation.moments import SmoothedMoments
from evaluation.pdf import Moments, PixelPDF


def pdf(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = smooth(grid, maps)
    ours = PixelPDF.from_reference(x)
    first, edges = x[0, 0].numpy(), ours.edges.astype(np.float32)

    def histogram() -> np.ndarray:
        return np.histogram(first, edges)[0] / (first.size * np.diff(ours.edges))

    same = Peer("numpy.histogram", histogram, 1, lambda: (ours(x[:1])[0], histogram()))
    return Case("pixel PDF, 40 bins", size(grid.shape, maps), lambda: ours(x), maps, [same])


def log_pdf(n: int, maps: int) -> Case:
    """Cells over many decades, as neutral hydrogen has them."""
    grid = cube(n, 3)
    x = torch.exp(3 * smooth(grid, maps))
    ours = LogPDF.from_reference(x)
    first, edges = x[0, 0].numpy(), ours.bins.edges.astype(np.float32)
    edges[0], edges[-1] = 0, np.inf  # no value is lost

    def histogram() -> np.ndarray:
        return np.histogram(first, edges)[0] / first.size * ours.bins.per_decade

    same = Peer("numpy.histogram", histogram, 1, lambda: (ours(x[:1])[0], histogram()))
    return Case("PDF of log x", size(grid.shape, maps), lambda: ours(x), maps, [same])


def column_density(n: int, maps: int) -> Case:
    grid = cube(n, 3)
    x = torch.exp(3 * smooth(grid, maps))
    ours = ColumnDensity.from_reference(grid, x)
    first, edges = x[0, 0].numpy(), ours.bins.edges.copy()
    edges[0], edges[-1] = 0, np.inf

    def histogram() -> np.ndarray:
        columns = [first.sum(axis, dtype=np.float64).ravel() * grid.spacing[axis] for axis in range(3)]
        return np.histogram(np.concatenate(columns), edges)[0] / (3 * n**2) * ours.bins.per_decade

    same = Peer("numpy sum, histogram", histogram, 1, lambda: (ours(x[:1])[0], histogram()))
    return Case("column densities, 3 axes", size(grid.shape, maps), lambda: ours(x), maps, [same])


def moments(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = lognormal(grid, maps)
    ours, first = Moments(), x[0, 0].numpy().reshape(-1)

    def scipy() -> np.ndarray:
        y = first.astype(np.float64)
        return np.array([y.mean(), y.std(), stats.skew(y), stats.kurtosis(y)])

    same = Peer("scipy.stats skew, kurtosis", scipy, 1, lambda: (ours(x[:1])[0, :, None], scipy()[:, None]))
    return Case("moments", size(grid.shape, maps), lambda: ours(x), maps, [same])


def smoothed_moments(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = lognormal(grid, maps)
    radii = np.geomspace(1.0, n / 8, 8)
    ours, first = SmoothedMoments(grid, radii, "gaussian"), x[0, 0].numpy()

    def scipy() -> np.ndarray:
        maps = [ndimage.gaussian_filter(first, r, mode="wrap", truncate=6).reshape(-1) for r in radii]
        return np.array([(y.var(), stats.skew(y), stats.kurtosis(y)) for y in maps]).T

    return Case(
        "moments, 8 scales",
        size(grid.shape, maps),
        lambda: ours(x),
        maps,
        [
            Peer("scipy gaussian_filter, stats", scipy, 1, lambda: (ours(x[:1])[0], scipy())),
            Peer("9 bare torch transforms", transforms(x, 1, 8), maps),
        ],
    )
