"""The copula's power at scales that a map which is not periodic shows only through a taper."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.emulators.copula import Copula, _Torus
from gen.fields import Grid
from gen.noise import sample_generator

DEEPEST = 1e-4
"""Smallest factor by which power is changed in one round."""


@torch.no_grad()
def sharpen(copula: Copula, values: Tensor, params: Tensor, rounds: int = 4, most: int = 256) -> None:
    """Bring the tapered spectrum of the copula's own fields to that of ``values (N, 1, *shape)``.

    The two-point function of a map without periodicity, from which the copula's power is found, cannot tell
    power that is some 10^-4 of the largest: maps smoothed by a beam come out noisy at its scale. A taper's
    leakage falls faster. One factor a wavenumber for all parameters.
    """
    rows = torch.arange(0, len(values), max(1, -(-len(values) // most)))
    real = tapered_power(copula.grid, values[rows])
    nodes, offset = copula.nodes.double(), 12 * copula.grid.k_fundamental
    lattice = _Torus(copula.grid, offset)
    for _ in range(rounds):
        generators = [sample_generator(0, int(i), "sharpen") for i in rows]
        made = tapered_power(copula.grid, copula.generate(params[rows], generators))
        ratio = lattice.at_nodes(real, nodes) / lattice.at_nodes(made, nodes).clamp(min=1e-30)
        copula.log_power.coefficients[0] += ratio.clamp(DEEPEST, 4).log().to(copula.log_power.coefficients)


def tapered_power(grid: Grid, fields: Tensor) -> Tensor:
    """Mean |modes|^2 on the rfftn lattice of fields under a cosine taper of mean square 1, float64."""
    window = torch.ones((), dtype=torch.float64)
    for n in grid.shape:
        window = window[..., None] * torch.hann_window(n, periodic=False, dtype=torch.float64)
    window = window / window.square().mean().sqrt()
    axes = tuple(range(2, fields.ndim))
    centred = (fields.double() - fields.double().mean(axes, keepdim=True)) * window
    return torch.fft.rfftn(centred, dim=axes).abs().square().mean((0, 1))
