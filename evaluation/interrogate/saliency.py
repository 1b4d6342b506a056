"""Which linear densities move a particle: d psi / d delta of every cell, by automatic differentiation.

Derivatives are by a Gaussian lump of the mass of one cell at unit density and of a cell's rms width. In
linear theory, psi = - grad lap^-1 delta, a lump at r pulls the particle towards itself by V / (4 pi r^2), V
the cell's volume, outside of the lump and with periodic images. What a map adds to that says how far it
looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import Map, Maps, linear_density, zeldovich
from gen.fields import Grid

Particle = tuple[int, int, int]
SHARES = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Saliency:
    """Means over P particles, dictionaries by map.

    Args:
        n_particles: P.
        distance: mean distance of the cells of each shell [Mpc/h], ``(n_bins,)``.
        linear: pull of linear theory, the component towards the cell [Mpc/h per unit density].
        pull, pull_error: of the maps, mean over directions and particles, and its standard error.
        added: root mean square length, over directions and particles, of the derivative less linear theory's.
        reach: radii [Mpc/h] that hold ``SHARES`` of the added sum of squares, its median over particles;
            ``reach_error``: standard error of the mean. NaN where nothing is added.
        plane: mean d psi_x / d delta in the plane of the particle, ``(n, n)``, x first, particle at n/2, n/2.
    """

    n_particles: int
    distance: np.ndarray
    linear: np.ndarray
    pull: dict[str, np.ndarray]
    pull_error: dict[str, np.ndarray]
    added: dict[str, np.ndarray]
    reach: dict[str, np.ndarray]
    reach_error: dict[str, np.ndarray]
    plane: dict[str, np.ndarray]


def gradients(of: Map, delta: Tensor, particle: Particle, grid: Grid) -> Tensor:
    """d psi_i (particle) / d lump (cell), ``(3, n, n, n)``, the particle's own cell moved to index 0.

    Args:
        delta: linear density ``(n, n, n)``; only its part below the Nyquist planes matters.
    """
    given = delta.clone().requires_grad_()
    moved = of(zeldovich(given[None], grid))[0]
    rows = [
        torch.autograd.grad(moved[(i, *particle)], given, retain_graph=i < 2)[0].roll(
            [-p for p in particle], (0, 1, 2)
        )
        for i in range(3)
    ]
    return smoothed(torch.stack(rows).detach().double(), grid)


def smoothed(fields: Tensor, grid: Grid) -> Tensor:
    """Convolve ``(B, n, n, n)`` with a Gaussian of a cell's rms width and unit sum."""
    window = torch.exp(-((grid.wavenumber() * grid.spacing[0]) ** 2) / 2)
    return torch.fft.irfftn(torch.fft.rfftn(fields, dim=(1, 2, 3)) * window, s=grid.shape, dim=(1, 2, 3))


def ask(maps: Maps, psi: Tensor, particles: Sequence[Particle], grid: Grid) -> Saliency:
    """Ask all maps of these particles in every box, given by Zel'dovich displacements ``(B, 3, n, n, n)``.

    Memory holds what a map keeps to be differentiated; particles and boxes together must be 2 or more.
    """
    n, spacing = grid.shape[0], grid.spacing[0]
    freq = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) * spacing
    r = torch.stack(torch.meshgrid(freq, freq, freq, indexing="ij"))
    distance = r.norm(dim=0)
    shells = _Shells(distance, spacing, grid.box_size[0] / 2)
    towards = torch.where(distance > 0, r / distance.clamp(min=1e-30), 0.0)
    linear = gradients(lambda psi: psi, torch.zeros(grid.shape), (0, 0, 0), grid)
    densities = linear_density(psi, grid)
    pull, added, reach, plane = ({name: [] for name in maps} for _ in range(4))
    for name, of in maps.items():
        for delta in densities:
            for particle in particles:
                found = gradients(of, delta, particle, grid)
                extra = (found - linear).square().sum(0)
                pull[name].append(shells.mean((found * towards).sum(0)))
                added[name].append(shells.mean(extra))
                reach[name].append(within(distance, extra, linear.square().sum()))
                plane[name].append(found[0, :, :, 0].roll((n // 2, n // 2), (0, 1)).numpy())
    total = len(densities) * len(particles)
    return Saliency(
        n_particles=total,
        distance=shells.mean(distance),
        linear=shells.mean((linear * towards).sum(0)),
        pull={name: np.mean(rows, 0) for name, rows in pull.items()},
        pull_error={name: np.std(rows, 0, ddof=1) / total**0.5 for name, rows in pull.items()},
        added={name: np.sqrt(np.mean(rows, 0)) for name, rows in added.items()},
        reach={name: np.median(rows, 0) for name, rows in reach.items()},
        reach_error={name: np.std(rows, 0, ddof=1) / total**0.5 for name, rows in reach.items()},
        plane={name: np.mean(rows, 0) for name, rows in plane.items()},
    )


class _Shells:
    """Means over shells of a cell's width around the origin, up to half the box; the first is one cell."""

    def __init__(self, distance: Tensor, width: float, end: float) -> None:
        index = torch.floor(distance / width + 0.5).long().reshape(-1)
        self.index = torch.where(distance.reshape(-1) <= end, index, -1)
        self.count = torch.bincount(self.index[self.index >= 0]).double()

    def mean(self, values: Tensor) -> np.ndarray:
        inside = self.index >= 0
        sums = torch.bincount(self.index[inside], values.reshape(-1)[inside].double(), len(self.count))
        return (sums / self.count).numpy()


def within(distance: Tensor, squares: Tensor, scale: Tensor) -> np.ndarray:
    """Radii that hold ``SHARES`` of a sum of squares, between cells' distances in order."""
    if squares.sum() <= 1e-8 * scale:
        return np.full(len(SHARES), np.nan)
    order = distance.reshape(-1).argsort()
    held = (squares.reshape(-1)[order].cumsum(0) / squares.sum()).numpy()
    return distance.reshape(-1)[order].numpy()[np.searchsorted(held, SHARES)]
