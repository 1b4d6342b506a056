"""Maps as pictures on one colour scale."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image

from evaluation.plots.style import address

MAP_PIXELS = 256  # a larger map is shown by its block means


@dataclass(frozen=True)
class Scale:
    """One colour scale for everything that is shown side by side."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, reference: np.ndarray) -> Scale:
        """From 0.5 to 99.8 % of the reference.

        Logarithmic, over three decades at most, where it is nowhere negative and spans three decades or has
        cells of 20 times its median, as densities have.
        """
        low, middle, high = (float(q) for q in np.quantile(reference, (0.005, 0.5, 0.998)))
        spans = (low > 0 and high > 1000 * low) or (middle > 0 and high > 20 * middle)
        log = spans and float(reference.min()) >= 0
        low = max(low, high / 1000) if log else low
        return cls(low, high if high > low else low + 1.0, log)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """To [0, 1], clipped."""
        if self.log:
            values = np.log(np.maximum(values, self.low) / self.low) / math.log(self.high / self.low)
        else:
            values = (values - self.low) / (self.high - self.low)
        return np.clip(values, 0, 1)


def picture(values: np.ndarray, scale: Scale) -> str:
    """One map ``(n, m)`` as a PNG data address; a 3D field ``(n, m, l)`` by its first slice."""
    return _png(scale(reduced(values[..., 0] if values.ndim == 3 else values)))


def reduced(plane: np.ndarray) -> np.ndarray:
    """A map ``(n, m)`` of at most ``MAP_PIXELS`` a side, by block means."""
    block = -(-max(plane.shape) // MAP_PIXELS)
    if block == 1:
        return plane
    n, m = (s // block * block for s in plane.shape)
    return plane[:n, :m].reshape(n // block, block, m // block, block).mean((1, 3))


def colour_bar() -> str:
    """The colours from low to high, as a PNG data address."""
    return _png(np.linspace(0, 1, 256)[None])


def _png(unit: np.ndarray) -> str:
    image = Image.fromarray(np.round(255 * unit).astype(np.uint8), mode=None).convert("P")
    image.putpalette(
        (255 * matplotlib.colormaps["inferno"](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()
    )
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return address("image/png", buffer.getvalue())
