"""Maps that are not periodic, continued beyond their edges as in a mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gen.errors import InputError
from gen.fields import Grid, beam_sigma

REACH = 2.5
"""Standard deviations of a beam by which maps are continued, and within the edge are not relied on."""


@dataclass(frozen=True)
class Mirror:
    """Maps of a grid's cells, and the cells worked on: with margins, divisible by ``factor``.

    Args:
        margin: cells beyond every edge, 0 on a periodic grid.
    """

    grid: Grid
    margin: int
    factor: int

    @classmethod
    def of_beam(cls, grid: Grid, fwhm: float, factor: int) -> Mirror:
        """As far as a beam reaches.

        Raises:
            InputError: if that is farther than the map is wide.
        """
        if grid.periodic:
            return cls(grid, 0, factor)
        cell = grid.k_sides[0] / grid.shape[0]
        margin = math.ceil(REACH * beam_sigma(grid, fwhm) / cell)
        if margin + factor >= min(grid.shape):
            raise InputError(
                f"a beam of {fwhm:.3g} reaches {margin} cells beyond the edges of a map of {min(grid.shape)} "
                f"cells a side; give larger maps"
            )
        return cls(grid, margin, factor)

    def worked(self, shape: Sequence[int]) -> list[int]:
        """The cells worked on for maps of ``shape``."""
        worked = [math.ceil((n + 2 * self.margin) / self.factor) * self.factor for n in shape]
        if self.grid.periodic and worked != list(shape):
            raise InputError(f"sides of a periodic field must divide by {self.factor}, got {tuple(shape)}")
        return worked

    def extended(self, maps: Tensor) -> Tensor:
        """``(B, C, *worked)`` of ``(B, C, *shape)``."""
        shape = maps.shape[2:]
        widths = [(self.margin, w - n - self.margin) for n, w in zip(shape, self.worked(shape), strict=True)]
        if not any(after for _, after in widths):
            return maps
        return pad(maps, [side for pair in reversed(widths) for side in pair], mode="reflect")

    def window(self, shape: Sequence[int]) -> Tensor:
        """``(*worked)``: 0 beyond maps of ``shape``, rising to 1 at ``margin`` within their edges."""
        window = torch.ones(())
        for n, worked in zip(shape, self.worked(shape), strict=True):
            cells = torch.arange(worked) - self.margin + 0.5
            depth = torch.minimum(cells, n - cells) / self.margin if self.margin else 1 + cells
            window = window[..., None] * 0.5 * (1 - torch.cos(math.pi * depth.clamp(0, 1)))
        return window

    def cut(self, maps: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of ``extended``."""
        return maps[(slice(None), slice(None), *(slice(self.margin, self.margin + n) for n in shape))]
