"""Power and correlation on a periodic lattice, and power between nodes in wavenumber."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gen.fields import Grid

SLAB = 2**20
"""Modes of a large box that are interpolated at a time."""


class Torus:
    """Fourier bookkeeping on a periodic lattice in lattice units: unit variance means mean power 1."""

    def __init__(self, grid: Grid, offset: float) -> None:
        self.grid, self.offset = grid, offset
        self.k = grid.wavenumber()
        counts = torch.full((grid.shape[-1] // 2 + 1,), 2.0, dtype=torch.float64)
        counts[0] = 1
        if grid.shape[-1] % 2 == 0:
            counts[-1] = 1
        self.multiplicity = counts.expand(self.k.shape)
        #: The same but for the mean mode of a periodic box, which is no wave of the box.
        self.waves = self.multiplicity * (self.k > 0) if grid.periodic else self.multiplicity

    def coordinate(self, k: Tensor) -> Tensor:
        """Close to linear below a dozen fundamentals, where modes are few, and to log k above."""
        return torch.log1p(k / self.offset)

    def nodes(self, n: int) -> Tensor:
        """Values of the coordinate from the fundamental to the corner of the lattice."""
        ends = self.coordinate(torch.stack([torch.tensor(self.grid.k_fundamental).double(), self.k.max()]))
        return torch.linspace(ends[0].item(), ends[1].item(), n, dtype=torch.float64)

    def mean(self, power: Tensor) -> Tensor:
        """Mean over all modes of ``(B, *half lattice)``, kept for broadcasting."""
        weight = (self.multiplicity / self.multiplicity.sum()).to(power)
        return (power * weight).sum(tuple(range(1, power.ndim)), keepdim=True)

    def power(self, correlation: Tensor) -> Tensor:
        """Power of a correlation function given on the whole lattice."""
        return torch.fft.rfftn(correlation).real

    def covariance(self, power: Tensor) -> Tensor:
        """Unit-variance correlation function of a power, negative powers refused by construction."""
        xi = torch.fft.irfftn(power, s=self.grid.shape)
        return xi / xi.flatten()[0]

    def _cells(self, nodes: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """The node below each mode, and how far the mode lies towards the next; clamped at the ends."""
        nodes = nodes.double()
        position = (
            (self.coordinate(k.to(nodes.device)) - nodes[0]) * (len(nodes) - 1) / (nodes[-1] - nodes[0])
        )
        position = position.clamp(0, len(nodes) - 1)
        cell = position.floor().clamp(max=len(nodes) - 2).long()
        return cell, position - cell

    def on_lattice(self, log_power: Tensor, nodes: Tensor) -> Tensor:
        """Linear interpolation of ``(B, n_k)`` to ``(B, *half lattice)``; constant beyond."""
        parts = []
        for k in self.k.split(max(1, SLAB // self.k[0].numel())):
            cell, fraction = self._cells(nodes, k)
            low, high = log_power[:, cell], log_power[:, cell + 1]
            parts.append(low + fraction.to(log_power) * (high - low))
        return torch.cat(parts, 1)

    def at_nodes(self, power: Tensor, nodes: Tensor) -> Tensor:
        """Means of lattice powers ``(..., *half lattice)`` around each node ``(..., n)``, with the weights of
        the interpolation; nodes that no mode is near are interpolated from their neighbours."""
        cell, fraction = self._cells(nodes, self.k)
        flat = power.flatten(-self.k.ndim)
        weight = torch.zeros(len(nodes), dtype=torch.float64)
        total = torch.zeros(*flat.shape[:-1], len(nodes), dtype=torch.float64)
        for index, share in ((cell, 1 - fraction), (cell + 1, fraction)):
            share = (share * self.waves).flatten()
            weight.index_add_(0, index.flatten(), share)
            total.index_add_(-1, index.flatten(), share * flat)
        seen = weight > 1e-9
        return interpolated(nodes, nodes[seen], total[..., seen] / weight[seen])


def interpolated(x: Tensor, xp: Tensor, fp: Tensor) -> Tensor:
    """Piecewise linear in the last axis of ``fp``, constant beyond the ends; ``xp`` increasing."""
    cell = torch.searchsorted(xp, x.contiguous()).clamp(1, len(xp) - 1)
    x0, x1 = xp[cell - 1], xp[cell]
    fraction = ((x - x0) / (x1 - x0)).clamp(0, 1)
    return fp[..., cell - 1] + fraction * (fp[..., cell] - fp[..., cell - 1])


def times(grid: Grid, y: Tensor, amplitude: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Each wave of fields ``(B, C, *shape)`` times a number; of open fields, each cosine (DCT-II).

    Args:
        amplitude: of a periodic lattice, that of the fields or of twice their sides, to numbers
            ``(B or 1, C or 1, *half lattice)``.
    """
    shape, axes = y.shape[2:], tuple(range(2, y.ndim))
    whole = y
    if not grid.periodic:
        for axis in axes:
            whole = torch.cat([whole, whole.flip(axis)], axis)
    modes = torch.fft.rfftn(whole, dim=axes) * amplitude(whole.shape[2:])
    made = torch.fft.irfftn(modes, s=whole.shape[2:], dim=axes)
    return made[(..., *(slice(0, n) for n in shape))]
