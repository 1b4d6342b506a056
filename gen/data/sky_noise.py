"""White noise that lies on the sphere, as the cells of flat patches see it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from astropy_healpix import HEALPix
from torch import Tensor

from gen.data.sky_frames import TangentPlane
from gen.data.sky_patches import centres, near
from gen.noise import PlacedNoise

FINER = 2
"""Sides of the noise's pixels, at least, along the side of a patch's."""
_SIDE = math.sqrt(math.pi / 3)
"""Of a HEALPix pixel [rad], times nside."""
_TURN = 2 * math.pi * 2.0**-53


class SkyNoise(PlacedNoise):
    r"""Noise of a patch's cells, taken from one white noise on the sphere.

    The sphere's noise is a normal number for each pixel of a fine HEALPix grid, a function of the seed, of
    the channel and of the pixel (``at``); none is stored. A patch's cell takes the sum of those whose centres
    lie in it, over the root of their number. As each pixel lies in one cell, the noise of a patch is white
    and normal to the last digit, as its emulator expects. Two patches that share a piece of sky share their
    noise there on scales above a cell; of waves of multipole l, ``sinc^2(l a / 2)`` along each axis is
    common, a the cell: 0.95 at 1/sigma of a beam of 12 arcmin for a = 3.75.

    Successive calls are successive channels, the same for every patch of a seed. Cells beyond the margin are
    filled with numbers of the patch's own.

    Args:
        plane: the patch.
        margin: cells beyond each of its edges that lie on the sky too; noise begins that far before it.
        seed: of the sphere's noise.
    """

    def __new__(cls, plane: TangentPlane, margin: int, seed: int) -> SkyNoise:
        del plane, margin, seed
        return super().__new__(cls)

    def __init__(self, plane: TangentPlane, margin: int, seed: int) -> None:
        self.plane, self.sphere, self.channel = plane.widened(margin), seed, 0
        own = hashlib.sha256(f"cosmozoo/sky/{seed}/{plane.centre}".encode()).digest()
        self.manual_seed(int.from_bytes(own[:8], "little", signed=True))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Numbers ``(..., h, w)``, the first cells of which are the patch's and its margin's."""
        drawn = torch.randn(tuple(shape), generator=self)
        rows, columns = (min(side, self.plane.n) for side in shape[-2:])
        for one in drawn.view(-1, *shape[-2:]):
            placed = torch.from_numpy(self._placed().astype(np.float32))
            seen = torch.from_numpy(self._members > 0)[:rows, :columns]
            one[:rows, :columns] = torch.where(seen, placed[:rows, :columns], one[:rows, :columns])
        return drawn

    def _placed(self) -> np.ndarray:
        """The next channel ``(n, n)``."""
        numbers = at(f"{self.sphere}/{self.channel}", self._pixels)
        self.channel += 1
        n = self.plane.n
        total = np.bincount(self._cells, numbers, n * n).reshape(n, n)
        return total / np.sqrt(np.maximum(self._members, 1))

    @cached_property
    def _sky(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the noise, and the cell that each lies in."""
        nside = 2 ** math.ceil(math.log2(_SIDE * FINER / self.plane.spacing))
        grid, n = HEALPix(nside, order="nested"), self.plane.n
        pixels = near(grid, np.array(self.plane.centre), math.atan(self.plane.spacing * n / math.sqrt(2)))
        row, column = (np.floor(x + 0.5).astype(np.int64) for x in self.plane.pixels(centres(grid, pixels)))
        inside = (row >= 0) & (row < n) & (column >= 0) & (column < n)
        return pixels[inside], (row * n + column)[inside]

    @cached_property
    def _pixels(self) -> np.ndarray:
        return self._sky[0]

    @cached_property
    def _cells(self) -> np.ndarray:
        return self._sky[1]

    @cached_property
    def _members(self) -> np.ndarray:
        """How many pixels each cell holds ``(n, n)``; hardly ever none."""
        return np.bincount(self._cells, minlength=self.plane.n**2).reshape(self.plane.n, self.plane.n)


def at(name: str, places: np.ndarray) -> np.ndarray:
    """Normal numbers, a function of a name and of each place's whole number; float64.

    Counter-based: SplitMix64 (Steele, Lea & Flood 2014) of the places, and Box & Muller's map.
    """
    digest = hashlib.sha256(f"cosmozoo/places/{name}".encode()).digest()
    keys = np.frombuffer(digest[:16], dtype="<u8")
    radius, angle = (_mixed(places.astype(np.uint64), key) >> np.uint64(11) for key in keys)
    # (0, 1]: no logarithm of 0
    return np.sqrt(-2 * np.log((radius + np.uint64(1)) * 2.0**-53)) * np.cos(angle * _TURN)


def _mixed(x: np.ndarray, key: np.uint64) -> np.ndarray:
    """Bits of SplitMix64 at step x from a state."""
    with np.errstate(over="ignore"):
        z = x * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
