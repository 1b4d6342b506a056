"""Flat patches of the sky and their frames: tangent planes, and the turning of Q and U into them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gen.errors import InputError


@dataclass(frozen=True)
class TangentPlane:
    """A gnomonic patch of ``n^2`` pixels around a unit vector; rows run to the north, columns to the west.

    Its pixels are ``size / n`` [deg] wide at the centre; at a distance t from it the plane is stretched by
    1 / cos(t)^2 along the radius and by 1 / cos(t) across it, in a patch of 20 degrees by 3 % and 1.5 % at
    the middle of its edges, by 6 % and 3 % in its corners.
    """

    centre: tuple[float, float, float]
    n: int
    size: float

    @property
    def spacing(self) -> float:
        """Of pixels in the plane, whose distance from the sphere's centre is 1."""
        return math.radians(self.size) / self.n

    @property
    def reach(self) -> float:
        """From the centre to a corner [rad]."""
        return math.atan(self.spacing * self.n / math.sqrt(2))

    def widened(self, border: int) -> TangentPlane:
        """The same pixels with some more at each edge."""
        n = self.n + 2 * border
        return replace(self, n=n, size=self.size * n / self.n)

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """North and west at the centre."""
        c = np.array(self.centre)
        west = np.cross(c, [0.0, 0.0, 1.0])
        if not np.linalg.norm(west) > 1e-9:
            raise InputError("a patch cannot be centred on a pole, where north has no direction; move it")
        west /= np.linalg.norm(west)
        return np.cross(west, c), west

    def directions(self) -> np.ndarray:
        """Unit vectors ``(n, n, 3)`` of the pixel centres."""
        north, west = self.axes
        at = (np.arange(self.n) - (self.n - 1) / 2) * self.spacing
        v = np.array(self.centre) + at[:, None, None] * north + at[None, :, None] * west
        return v / np.linalg.norm(v, axis=-1, keepdims=True)

    def pixels(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column, not whole numbers, of unit vectors ``(..., 3)`` in the patch's hemisphere."""
        north, west = self.axes
        along = vectors @ np.array(self.centre)
        middle = (self.n - 1) / 2
        return (
            vectors @ north / along / self.spacing + middle,
            vectors @ west / along / self.spacing + middle,
        )

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        """``exp(2 i a)``, which takes Q + iU at unit vectors ``(..., 3)`` from the meridians' frame to this.

        The centre's frame is carried along great circles, so it keeps its angle with the radius, which
        is straight in the plane: a is the radius's angle from north to west there, less its angle from south
        to east (which is the same sense) on the sphere. Both are of the COSMO convention of HEALPix.
        """
        north, west = self.axes
        radius = vectors * (vectors @ np.array(self.centre))[..., None] - np.array(self.centre)
        x, y, z = np.moveaxis(vectors, -1, 0)
        across = np.hypot(x, y)
        # at the poles themselves, the meridian of longitude 0
        safe = np.where(across > 0, across, 1.0)
        cos, sin = np.where(across > 0, x / safe, 1.0), np.where(across > 0, y / safe, 0.0)
        south = np.stack([z * cos, z * sin, -across], axis=-1)
        east = np.stack([-sin, cos, np.zeros_like(cos)], axis=-1)
        flat = vectors @ north + 1j * (vectors @ west)
        sphere = (radius * south).sum(-1) + 1j * (radius * east).sum(-1)
        return _unit(flat) ** 2 * np.conj(_unit(sphere)) ** 2


def cover(n: int, size: float, overlap: float = 0.35) -> list[TangentPlane]:
    """Patches of ``n^2`` pixels and ``size`` [deg] that cover the sky and share some of their sides' length.

    On rings of equal latitude, evenly spaced, none on a pole; 280 of 20 degrees.

    Args:
        overlap: share of a side, 0.3 or more, as patches on neighbouring rings are turned to each other.

    Raises:
        InputError: for a size or an overlap that covers nothing.
    """
    if n < 2 or not 0 < size <= 30 or not 0.3 <= overlap <= 0.7:
        raise InputError(
            "a cover needs 2 pixels or more, a size in (0, 30] degrees and an overlap in 0.3 to 0.7, got "
            f"{n}, {size:g} and {overlap:g}"
        )
    step = math.radians(size) * (1 - overlap)
    rings = math.ceil(math.pi / step)
    latitudes = (np.arange(rings) + 0.5) * math.pi / rings - math.pi / 2
    planes = []
    for latitude in latitudes:
        # the longest parallel of the ring's band says how many are needed
        longest = max(0.0, abs(latitude) - math.pi / rings / 2)
        count = max(3, math.ceil(2 * math.pi * math.cos(longest) / step))
        for longitude in 2 * math.pi * (np.arange(count) + 0.5) / count:
            across = math.cos(latitude)
            centre = (across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude))
            planes.append(TangentPlane(centre, n, size))
    return planes


def _unit(z: np.ndarray) -> np.ndarray:
    """Complex numbers of length 1; 1 where there is no direction, at the centre of a patch."""
    length = np.abs(z)
    return np.where(length > 1e-14, z / np.where(length > 1e-14, length, 1.0), 1.0)
