"""Skies that are seen in part: which patches see something, and what stands where they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from astropy_healpix import HEALPix
from scipy.ndimage import gaussian_filter

from gen.data.sky_frames import TangentPlane
from gen.data.sky_patches import by_parent, centres, near

_PARENTS = 16


def seeing(planes: Sequence[TangentPlane], seen: np.ndarray, ordering: str) -> list[TangentPlane]:
    """The patches in which the centre of a seen pixel lies, in their order.

    Args:
        seen: ``(npix,)`` booleans.
        ordering: "RING" or "NESTED".
    """
    if seen.all():
        return list(planes)
    grid = HEALPix(math.isqrt(len(seen) // 12), order=ordering.lower())
    whole, some = _parents(grid, seen)
    coarse = HEALPix(math.isqrt(len(whole) // 12), order="nested")
    found = []
    for plane in planes:
        centre = np.array(plane.centre)
        around = near(coarse, centre, plane.reach)
        if not some[around].any():
            continue
        if not whole[around].all():
            held = near(grid, centre, plane.reach)
            row, column = plane.pixels(centres(grid, held[seen[held]]))
            inside = (row > 0) & (row < plane.n - 1) & (column > 0) & (column < plane.n - 1)
            if not inside.any():
                continue
        found.append(plane)
    return found


def _parents(grid: HEALPix, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which coarse pixels, NESTED, are seen whole and in part."""
    nside = min(_PARENTS, grid.nside)
    count = by_parent(grid, nside, [seen])[0].astype(np.int64)
    return count == (grid.nside // nside) ** 2, count > 0


def filled(patch: np.ndarray, width: float) -> np.ndarray:
    """A patch ``(C, n, n)`` whose NaN are means of what is seen around them, weighted by a Gaussian.

    Each takes the narrowest of ``width`` [pixels], twice that, and so on that sees something. It stands in
    for what nobody saw, so that seen pixels beside it have a smooth surrounding.
    """
    seen = np.isfinite(patch).all(0)
    if seen.all() or not seen.any():
        return patch
    made, open_cells, known = patch.copy(), ~seen, np.where(seen, patch, 0.0)
    while open_cells.any():
        weight = gaussian_filter(seen.astype(np.float64), width, mode="nearest")
        reached = open_cells & (weight > 1e-6)
        for channel, values in zip(made, known, strict=True):
            channel[reached] = (gaussian_filter(values, width, mode="nearest") / weight.clip(1e-6))[reached]
        open_cells, width = open_cells & ~reached, 2 * width
    return made
