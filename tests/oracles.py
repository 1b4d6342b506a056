"""Slow, independent implementations: written from the definitions, one element at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import ndimage


def smooth_gaussian(shape: tuple[int, ...], radius: float, n: int, seed: int) -> np.ndarray:
    """``(n, *shape)`` periodic Gaussian fields of unit variance, P(k) ~ exp(-k^2 radius^2), unit cells."""
    white = np.random.default_rng(seed).normal(size=(n, *shape))
    axes = tuple(range(1, len(shape) + 1))
    frequencies = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(s) for s in shape], indexing="ij")
    kernel = np.exp(-sum(k**2 for k in frequencies) * radius**2 / 2)
    kernel[(0,) * len(shape)] = 0
    kernel /= np.sqrt((kernel**2).mean())
    return np.fft.ifftn(np.fft.fftn(white, axes=axes) * kernel, axes=axes).real


def power_by_sums(
    x: np.ndarray, sides: tuple[float, ...], edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P(k) and mode counts by a sum over cells for every mode of the full lattice."""
    volume, n = math.prod(sides), x.size
    total, count = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    cells = np.indices(x.shape)
    for mode in np.ndindex(*x.shape):
        signed = [m - s if 2 * m > s else m for m, s in zip(mode, x.shape, strict=True)]
        k = math.sqrt(sum((2 * math.pi * m / side) ** 2 for m, side in zip(signed, sides, strict=True)))
        b = int(np.searchsorted(edges, k, side="right")) - 1
        if 0 <= b < len(total) and k > 0:
            phase = sum(m * c / s for m, c, s in zip(mode, cells, x.shape, strict=True))
            amplitude = (x * np.exp(-2j * math.pi * phase)).sum()
            total[b] += abs(amplitude) ** 2 * volume / n**2
            count[b] += 1
    return total / count, count


def euler_by_components(mask: np.ndarray, diagonal: bool) -> int:
    """chi of a plane figure surrounded by background: pieces less holes.

    With ``diagonal`` neighbours joined in the figure they are not in the background, and the other way round.
    """
    full, cross = np.ones((3, 3)), ndimage.generate_binary_structure(2, 1)
    padded = np.pad(mask, 1)
    pieces = ndimage.label(padded, full if diagonal else cross)[1]
    background = ndimage.label(~padded, cross if diagonal else full)[1]
    return pieces - (background - 1)


def euler_by_cells(mask: np.ndarray) -> int:
    """chi of the union of closed cubes on a periodic lattice: its vertices - edges + faces - cubes, as a set.

    Elements have doubled coordinates: odd along the axes on which they extend.
    """
    sides = [2 * s for s in mask.shape]
    elements = set()
    for cell in np.argwhere(mask):
        for step in itertools.product((-1, 0, 1), repeat=mask.ndim):
            elements.add(tuple((2 * c + 1 + d) % s for c, d, s in zip(cell, step, sides, strict=True)))
    return sum((-1) ** sum(c % 2 for c in e) for e in elements)


def peaks_one_by_one(x: np.ndarray, periodic: bool) -> list[float]:
    """Heights of all cells above each of their neighbours, corners included."""
    found = []
    for cell in np.ndindex(*x.shape):
        neighbours = []
        for step in itertools.product((-1, 0, 1), repeat=x.ndim):
            at = [c + d for c, d in zip(cell, step, strict=True)]
            if any(step):
                inside = all(0 <= a < s for a, s in zip(at, x.shape, strict=True))
                wrapped = tuple(a % s for a, s in zip(at, x.shape, strict=True))
                neighbours.append(x[wrapped] if inside or periodic else math.inf)
        if all(x[cell] > v for v in neighbours):
            found.append(float(x[cell]))
    return found
