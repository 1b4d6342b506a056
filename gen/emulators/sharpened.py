"""A copula's power, brought to what fields of it show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.emulators.log_marginal import LogMarginal
from gen.emulators.torus import Torus
from gen.fields import Grid
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.emulators.copula import Copula

DEEPEST = 1e-4
"""Smallest factor by which power is changed in one round."""
ROUNDS, MOST = 5, 256
"""How often, and by how many maps, a closed form is compared with the training maps."""
DRAWS = 1024
"""Fields of a copula, at least, that are compared with the contrasts of its training fields."""


def correct(copula: Copula, real: Tensor, made: Tensor) -> None:
    """Change the copula's power by the ratio of two tapered powers, of maps that are real and made.

    One factor a wavenumber for all parameters.
    """
    nodes, offset = copula.nodes.double(), 12 * copula.grid.k_fundamental
    lattice = Torus(copula.grid, offset)
    ours, theirs = (lattice.at_nodes(power, nodes) for power in (made, real))
    factor = (theirs / ours.clamp(min=1e-30)).clamp(DEEPEST, 4)
    copula.log_power.coefficients[0] += factor.log().to(copula.log_power.coefficients)


def tapered_power(grid: Grid, fields: Tensor) -> Tensor:
    """Mean |modes|^2 on the rfftn lattice of fields, float64; of open ones under a cosine taper.

    The taper's mean square is 1.
    """
    window = torch.ones((), dtype=torch.float64)
    for n in grid.shape:
        side = (
            torch.ones(n).double()
            if grid.periodic
            else torch.hann_window(n, periodic=False, dtype=torch.float64)
        )
        window = window[..., None] * side
    window = window / window.square().mean().sqrt()
    axes = tuple(range(2, fields.ndim))
    centred = (fields.double() - fields.double().mean(axes, keepdim=True)) * window
    return torch.fft.rfftn(centred, dim=axes).abs().square().mean((0, 1))


@torch.no_grad()
def match_contrast(copula: Copula, values: Tensor, params: Tensor) -> None:
    """Give fields of a ``LogMarginal`` the mean power of density contrasts x / E[x] of the training fields.

    A P_G that has the power of ln x leaves that of x, which is in the peaks, too flat: HI boxes have a third
    less of it at low wavenumbers. The same white noise is used in all rounds.

    Args:
        values: ``(N, 1, *shape)``; params: ``(N, P)``.
    """
    marginal = copula.marginal
    assert isinstance(marginal, LogMarginal)
    params = params.to(copula.log_power.coefficients)
    mean = marginal.mean(params).reshape(-1, *[1] * (values.ndim - 1))
    real = tapered_power(copula.grid, values / mean)
    rows = torch.arange(max(len(values), DRAWS)) % len(values)
    for _ in range(ROUNDS):
        made = [
            tapered_power(copula.grid, copula.generate(params[part], generators) / mean[part])
            for part in rows.split(64)
            for generators in [[sample_generator(0, int(i), "contrast") for i in part]]
        ]
        correct(copula, real, torch.stack(made).mean(0))
