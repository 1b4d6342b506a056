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

SUB = 2
"""Sides of a bin along the side of a patch's cell."""
FINER = 2
"""Sides of the noise's pixels, at least, along the side of a bin."""
_SIDE = math.sqrt(math.pi / 3)
"""Of a HEALPix pixel [rad], times nside."""
_TURN = 2 * math.pi * 2.0**-53


class SkyNoise(PlacedNoise):
    r"""Noise of a patch's cells, taken from one white noise on the sphere.

    The sphere's noise is a normal number for each pixel of a fine HEALPix grid, a function of the seed, of
    the channel and of the pixel (``at``); none is stored. Bins half as wide as a patch's cells take the sum
    of those whose centres lie in them, over the root of their number; the waves of the bins that the cells
    can hold are the noise. As each pixel lies in one bin, and each wave is one of theirs, the noise of a
    patch is white and normal, as its emulator expects. Two patches that share a piece of sky share their
    noise there: of waves of multipole l, ``sinc^2(l b / 2)`` along each axis is common, b the bin, 0.99 at
    1/sigma of a beam of 12 arcmin for cells of 3.75.

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
        self.plane, self.margin, self.sphere, self.channel = plane, margin, seed, 0
        # odd, so that every wave has its partner
        self.side = (plane.n + 2 * margin) | 1
        own = hashlib.sha256(f"cosmozoo/sky/{seed}/{plane.centre}".encode()).digest()
        self.manual_seed(int.from_bytes(own[:8], "little", signed=True))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Numbers ``(..., h, w)``, the first cells of which are the patch's and its margin's."""
        drawn = torch.randn(tuple(shape), generator=self)
        rows, columns = (min(n, self.side) for n in shape[-2:])
        for one in drawn.view(-1, *shape[-2:]):
            one[:rows, :columns] = torch.from_numpy(self._placed()[:rows, :columns].astype(np.float32))
        return drawn

    def _placed(self) -> np.ndarray:
        """The next channel ``(side, side)``."""
        pixels, bins, members = self._sky
        numbers = at(f"{self.sphere}/{self.channel}", pixels)
        self.channel += 1
        total = np.bincount(bins, numbers, len(members)) / np.sqrt(np.maximum(members, 1))
        none = np.flatnonzero(members == 0)  # hardly ever any
        total[none] = torch.randn(len(none), generator=self, dtype=torch.float64).numpy()
        waves = np.fft.fft2(total.reshape(SUB * self.side, SUB * self.side))
        k = np.rint(np.fft.fftfreq(self.side, 1 / self.side)).astype(np.int64)
        # from the centres of bins to those of cells
        shift = np.exp(1j * np.pi * (SUB - 1) / (SUB * self.side) * k)
        return np.fft.ifft2(waves[np.ix_(k, k)] * shift[:, None] * shift).real / SUB

    @cached_property
    def _sky(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of the noise, the bin that each lies in, and how many each bin holds."""
        around = self.plane.widened(self.margin + 1)
        nside = 2 ** math.ceil(math.log2(_SIDE * FINER * SUB / around.spacing))
        grid, n = HEALPix(nside, order="nested"), SUB * self.side
        pixels = near(grid, np.array(around.centre), around.reach)
        places = self.plane.pixels(centres(grid, pixels))
        row, column = (np.floor(SUB * (x + self.margin + 0.5)).astype(np.int64) for x in places)
        inside = (row >= 0) & (row < n) & (column >= 0) & (column < n)
        bins = (row * n + column)[inside]
        return pixels[inside], bins, np.bincount(bins, minlength=n * n)


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
