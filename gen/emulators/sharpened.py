"""A copula's power, brought to what maps of it show through a taper."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.emulators.copula import Copula, _Torus
from gen.fields import Grid

DEEPEST = 1e-4
"""Smallest factor by which power is changed in one round."""
ROUNDS, MOST = 5, 256
"""How often, and by how many maps, a closed form is compared with the training maps."""


def correct(copula: Copula, real: Tensor, made: Tensor) -> None:
    """Change the copula's power by the ratio of two tapered powers, of maps that are real and made.

    One factor a wavenumber for all parameters.
    """
    nodes, offset = copula.nodes.double(), 12 * copula.grid.k_fundamental
    lattice = _Torus(copula.grid, offset)
    ours, theirs = (lattice.at_nodes(power, nodes) for power in (made, real))
    factor = (theirs / ours.clamp(min=1e-30)).clamp(DEEPEST, 4)
    copula.log_power.coefficients[0] += factor.log().to(copula.log_power.coefficients)


def tapered_power(grid: Grid, fields: Tensor) -> Tensor:
    """Mean |modes|^2 on the rfftn lattice of fields under a cosine taper of mean square 1, float64."""
    window = torch.ones((), dtype=torch.float64)
    for n in grid.shape:
        window = window[..., None] * torch.hann_window(n, periodic=False, dtype=torch.float64)
    window = window / window.square().mean().sqrt()
    axes = tuple(range(2, fields.ndim))
    centred = (fields.double() - fields.double().mean(axes, keepdim=True)) * window
    return torch.fft.rfftn(centred, dim=axes).abs().square().mean((0, 1))
