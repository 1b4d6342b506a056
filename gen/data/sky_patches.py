"""HEALPix maps of I, Q, U cut into flat patches, and patches put back into a map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix
from scipy.ndimage import map_coordinates
from tqdm import tqdm

from gen.data.sky_frames import TangentPlane
from gen.errors import InputError

_COARSE = 64
_SLICE = 2**20
_RADIUS = 1.2
"""Of the circle around a pixel [rad], times nside: 0.84 for nside 1, 1.07 for 16 (Gorski et al. 2005)."""


def cut(sky: np.ndarray, ordering: str, plane: TangentPlane) -> np.ndarray:
    """The patch ``(C, n, n)`` of a map ``(C, npix)`` of I, or of I, Q, U (COSMO), in the patch's own frame.

    Bilinear between the four nearest pixels; Q and U of each are turned to the patch's frame first, as
    those of the meridians turn fast near the poles. Pixels that are NaN make what they touch NaN.

    Args:
        sky: 1 or 3 channels.
        ordering: "RING" or "NESTED".
    """
    grid = _grid(sky, ordering)
    lon, lat = _lonlat(plane.directions().reshape(-1, 3))
    pixels, weights = grid.bilinear_interpolation_weights(lon * u.rad, lat * u.rad)
    shape = (plane.n, plane.n)
    i = (sky[0][pixels] * weights).sum(0).reshape(1, *shape)
    if len(sky) == 1:
        return i
    turned = (sky[1][pixels] + 1j * sky[2][pixels]) * plane.turn(centres(grid, pixels))
    p = (turned * weights).sum(0).reshape(shape)
    return np.concatenate([i, p.real[None], p.imag[None]])


def weight(plane: TangentPlane, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Smooth weight of a patch at places in it: sin^2 across both axes, 0 from the outer pixel centres on."""
    place = [np.clip(x / (plane.n - 1), 0, 1) for x in (row, column)]
    return np.sin(np.pi * place[0]) ** 2 * np.sin(np.pi * place[1]) ** 2


class Mosaic:
    """A HEALPix map made of patches that overlap, ``sum w_i x_i / sum w_i`` with the weights of ``weight``.

    Patches are added one by one and forgotten: only the map and its weight are kept.

    Args:
        nside, ordering: of the map.
        channels: 1 (I) or 3 (I, Q, U in the COSMO convention, each patch in its own frame).
    """

    def __init__(self, nside: int, ordering: str = "RING", channels: int = 3) -> None:
        if nside < 1 or nside & (nside - 1) or ordering not in ("RING", "NESTED") or channels not in (1, 3):
            raise InputError(
                "a map needs nside a power of 2, ordering RING or NESTED and 1 or 3 channels, got "
                f"{nside}, {ordering!r} and {channels}"
            )
        self.grid = HEALPix(nside, order=ordering.lower())
        self.total = np.zeros((channels, 12 * nside**2))
        self.weight = np.zeros(12 * nside**2)

    def add(self, patch: np.ndarray, plane: TangentPlane) -> None:
        """Lay a patch ``(C, n, n)`` over the map, by cubic splines between its pixels.

        Raises:
            InputError: for another shape than the plane's, or values that are not finite.
        """
        pixels, w, (values,) = self.placed([patch], plane)
        self.total[:, pixels] += w * values
        self.weight[pixels] += w

    def placed(
        self, patches: Sequence[np.ndarray], plane: TangentPlane
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Pixels of the map inside a plane, their weights, and what each patch holds there ``(C, m)``.

        Raises:
            InputError: as ``add``.
        """
        for patch in patches:
            if patch.shape != (len(self.total), plane.n, plane.n) or not np.isfinite(patch).all():
                raise InputError(
                    f"a patch must have shape {(len(self.total), plane.n, plane.n)} and finite values, got "
                    f"{patch.shape}"
                )
        pixels = near(self.grid, np.array(plane.centre), plane.reach)
        vectors = centres(self.grid, pixels)
        row, column = plane.pixels(vectors)
        inside = (row > 0) & (row < plane.n - 1) & (column > 0) & (column < plane.n - 1)
        pixels, vectors, row, column = pixels[inside], vectors[inside], row[inside], column[inside]
        found = [_between(patch.astype(np.float64), row, column) for patch in patches]
        if len(self.total) == 3:
            turn = np.conj(plane.turn(vectors))
            for values in found:
                p = (values[1] + 1j * values[2]) * turn
                values[1:] = p.real, p.imag
        return pixels, weight(plane, row, column), found

    def map(self) -> np.ndarray:
        """The map ``(C, npix)``; NaN where no patch lies."""
        covered = self.weight > 0
        return np.where(covered, self.total / np.where(covered, self.weight, 1.0), np.nan)


def mosaic(
    patches: Iterable[np.ndarray],
    planes: Sequence[TangentPlane],
    nside: int,
    ordering: str = "RING",
    channels: int = 3,
    *,
    progress: bool = True,
) -> np.ndarray:
    """The map ``(C, npix)`` of patches that come one after another, one for each plane.

    Raises:
        InputError: for more or fewer patches than planes, or one that ``Mosaic.add`` refuses.
    """
    made = Mosaic(nside, ordering, channels)
    count = 0
    with tqdm(total=len(planes), desc="sky", unit="patch", disable=not progress) as bar:
        for count, patch in enumerate(patches, 1):
            if count > len(planes):
                break
            made.add(patch, planes[count - 1])
            bar.update()
    if count != len(planes):
        raise InputError(
            f"{len(planes)} planes need as many patches, got {'more' if count > len(planes) else count}"
        )
    return made.map()


def near(grid: HEALPix, centre: np.ndarray, reach: float) -> np.ndarray:
    """Pixels within ``reach`` [rad] of a direction, and more: the children of coarse pixels there."""
    coarse = min(_COARSE, grid.nside)
    held = np.flatnonzero(_all_centres(coarse) @ centre > math.cos(min(math.pi, reach + _RADIUS / coarse)))
    children = (grid.nside // coarse) ** 2
    nested = (held[:, None] * children + np.arange(children)).ravel()
    return nested if grid.order == "nested" else np.asarray(grid.nested_to_ring(nested))


@lru_cache(maxsize=4)
def _all_centres(nside: int) -> np.ndarray:
    """Of a coarse grid, NESTED."""
    return centres(HEALPix(nside, order="nested"), np.arange(12 * nside**2))


def by_parent(grid: HEALPix, nside: int, maps: Sequence[np.ndarray]) -> np.ndarray:
    """Sums ``(len(maps), 12 nside^2)`` of maps ``(npix,)`` over the pixels of a coarser grid, NESTED."""
    children = (grid.nside // nside) ** 2
    sums = np.zeros((len(maps), 12 * nside**2))
    for start in range(0, len(maps[0]), _SLICE):
        pixels = np.arange(start, min(start + _SLICE, len(maps[0])))
        parents = (pixels if grid.order == "nested" else np.asarray(grid.ring_to_nested(pixels))) // children
        for total, values in zip(sums, maps, strict=True):
            total += np.bincount(parents, values[pixels], len(total))
    return sums


def _between(patch: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Values ``(C, m)`` between pixels."""
    return np.stack([map_coordinates(channel, (row, column), mode="mirror") for channel in patch])


def _grid(sky: np.ndarray, ordering: str) -> HEALPix:
    return HEALPix(math.isqrt(sky.shape[1] // 12), order=ordering.lower())


def centres(grid: HEALPix, pixels: np.ndarray) -> np.ndarray:
    """Unit vectors ``(..., 3)`` of pixel centres."""
    lon, lat = grid.healpix_to_lonlat(pixels)
    lon, lat = np.asarray(lon.to_value(u.rad)), np.asarray(lat.to_value(u.rad))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _lonlat(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude in [0, 2 pi) and latitude; astropy-healpix gives infinite weights for negative longitudes."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.arctan2(y, x) % (2 * np.pi), np.arcsin(np.clip(z, -1, 1))
