"""A HEALPix map of patches that agree in their large scales and, more or less, in their small ones."""

from __future__ import annotations

import numpy as np

from gen.data.sky_frames import TangentPlane
from gen.data.sky_patches import Mosaic, by_parent

_PIECES = 4
"""nside of the pieces of sky that count alike: large, for what is divided by fluctuates in small ones."""


class Blend(Mosaic):
    r"""Weighted means of patches, whose small scales keep their variance where patches overlap.

    With weights w of sum 1, a mean of small scales of variance s^2 and mutual correlation rho has variance
    ``s^2 (f + rho (1 - f))``, ``f = sum w^2``: all of it for patches that agree, half of it where two that
    do not meet. rho is measured where patches overlap, and the means' small scales are multiplied by
    ``(f + rho (1 - f))^(-1/2)``. So large scales have weights of sum 1, small ones of patches that know
    nothing of each other weights whose squares have sum 1.

    Args:
        nside, ordering, channels: as of ``Mosaic``. Q and U have one rho.
        seen: pixels ``(npix,)`` in which rho is measured, by default all; where patches were filled in, each
            is filled in its own way.
    """

    def __init__(
        self, nside: int, ordering: str = "RING", channels: int = 3, seen: np.ndarray | None = None
    ) -> None:
        super().__init__(nside, ordering, channels)
        self.seen = np.ones(len(self.weight), dtype=bool) if seen is None else seen
        self.small = np.zeros_like(self.total)
        self.power = np.zeros((min(channels, 2), len(self.weight)))
        self.squares = np.zeros_like(self.weight)

    def add_scales(self, patch: np.ndarray, small: np.ndarray, plane: TangentPlane) -> None:
        """Lay a patch ``(C, n, n)`` over the map, of which ``small`` are the small scales.

        Raises:
            InputError: as ``add``.
        """
        pixels, w, (values, rest) = self.placed([patch, small], plane)
        self.total[:, pixels] += w * values
        self.small[:, pixels] += w * rest
        self.power[:, pixels] += w * _spins(rest**2)
        self.weight[pixels] += w
        self.squares[pixels] += w**2

    def agreement(self) -> np.ndarray:
        """rho of I, or of I and of Q and U, in 0 to 1; 1 where nothing overlaps.

        Every piece of sky of some 15 degrees counts by its overlap alone, however bright it is.
        """
        weight, share = self._shares()
        found, seen = [], self.seen
        for mean, each in zip(_spins((self.small / weight) ** 2), seen * self.power / weight, strict=True):
            sums = by_parent(
                self.grid,
                min(_PIECES, self.grid.nside),
                [seen * mean - share * each, (1 - share) * each, each],
            )
            together, possible, all_of_it = sums[:, sums[2] > 0]
            overlap = (possible / all_of_it).sum()
            found.append((together / all_of_it).sum() / overlap if overlap > 0 else 1.0)
        return np.clip(found, 0, 1)

    def map(self) -> np.ndarray:
        """The map ``(C, npix)``; NaN where no patch lies."""
        weight, share = self._shares()
        made = super().map()
        rho = self.agreement()
        for i, channel in enumerate(made):
            r = rho[min(i, 1)]
            channel += ((share + r * (1 - share)) ** -0.5 - 1) * self.small[i] / weight
        return made

    def _shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Summed weights, 1 where there are none, and f, which is 1 there."""
        weight = np.where(self.weight > 0, self.weight, 1.0)
        return weight, np.where(self.weight > 0, self.squares / weight**2, 1.0)


def _spins(squares: np.ndarray) -> np.ndarray:
    """Of I, or of I and of Q and U together."""
    return squares if len(squares) == 1 else np.stack([squares[0], squares[1] + squares[2]])
