"""Polarised emission of dust: spectra of I, Q, U and their correlation, and how ordered its angles are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evaluation.base import Part
from evaluation.polarisation import SPECTRA, Polarisation
from evaluation.voids import distance_from_centre, steps_within
from gen.errors import InputError
from gen.fields import Grid

KEPT = ("EE", "BB", "TE")


class DustSpectra:
    """C_l of EE, BB and TE, and r_TE = C_TE / sqrt(C_TT C_EE), of each patch; TT is the power spectrum of I.

    Spectra are averaged over a shell before the ratio: of one patch |r| is that of its few modes, so single
    maps scatter about the ensemble's r by (1 - r^2) / sqrt(n_modes). Dust has r_TE of 0.36, and EE twice BB
    (Planck 2018 XI, arXiv:1801.04945).
    """

    def __init__(self, polarisation: Polarisation) -> None:
        self.polarisation = polarisation

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 3, *shape)`` I, Q, U -> ``(B, 4, n_bins)`` float64: EE, BB, TE and r_TE."""
        tt, ee, bb, te = self.polarisation(values)[:, :4].unbind(1)
        power = tt * ee
        return torch.stack([ee, bb, te, te / power.where(power > 0, torch.inf).sqrt()], dim=1)

    def spectra(self) -> tuple[Part, ...]:
        """Statistics "EE", "BB", "TE" and "r_TE", which share one pass in ``measure``."""
        of = {p.name: p for p in self.polarisation.spectra()}
        found = [
            Part(self, i, name, p.label, p.abscissa, p.unit, p.n_modes, p.log)
            for i, (name, p) in enumerate((name, of[name]) for name in KEPT)
        ]
        p = of[SPECTRA[0]]
        return (*found, Part(self, 3, "r_TE", r"$r_\ell^{TE}$", p.abscissa, p.unit, p.n_modes))


class AngleDispersion:
    """S(x, lag) of every cell of a patch: how much the polarisation angle differs around it [deg].

        S^2(x) = < [psi(x) - psi(x + d)]^2 >,   lag / 2 <= |d| < 3 lag / 2,

    differences of angles taken in [-90, 90] (Planck intermediate results XIX 2015, arXiv:1405.0871, eqs. 6
    and 7). Angles at random have S = 180 / sqrt(12) = 52 degrees. Of a patch that is not periodic the cells
    count whose whole annulus lies inside.

    Args:
        grid: 2D grid.
        lag: [unit of the grid], at least two thirds of a cell.

    Raises:
        InputError: for an annulus without cells, or one that does not fit into the grid.
    """

    def __init__(self, grid: Grid, lag: float) -> None:
        if grid.dim != 2:
            raise InputError(f"the dispersion of angles needs a 2D grid, got {grid.dim} axes")
        self.grid, self.lag = grid, lag
        steps = steps_within(grid, 1.5 * lag)
        distance = distance_from_centre(grid, steps)
        inside = (distance >= lag / 2) & (distance < 1.5 * lag) & (distance > 0)
        self.steps: list[tuple[int, ...]] = [
            (int(i), int(j)) for i, j in torch.cartesian_prod(*steps)[inside.flatten()]
        ]
        self.border = tuple(0 if grid.periodic else math.floor(1.5 * lag / d) for d in grid.spacing)
        if not self.steps or any(2 * b >= n for b, n in zip(self.border, grid.shape, strict=True)):
            raise InputError(
                f"a lag of {lag:g} {grid.unit} has no annulus of cells of {max(grid.spacing):g} in patches "
                f"of {min(grid.box_size):g} {grid.unit}; give one between a cell and a quarter of the side"
            )

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 3, *shape)`` I, Q, U -> ``(B, 1, n, m)`` S of the cells that count."""
        if tuple(values.shape[1:]) != (3, *self.grid.shape):
            raise InputError(f"I, Q, U must have shape (B, 3, *{self.grid.shape}), got {tuple(values.shape)}")
        x = values if values.dtype == torch.float64 else values.float()
        turns = torch.atan2(x[:, 2], x[:, 1]) / (2 * math.pi)  # of psi, in half circles
        centre = self._cut(turns)
        total = torch.zeros_like(centre)
        for step in self.steps:
            apart = self._cut(turns.roll(step, (1, 2))) - centre
            total += (apart - apart.round()).square_()
        return 180 * (total / len(self.steps)).sqrt()[:, None]

    def _cut(self, x: Tensor) -> Tensor:
        (b0, b1), (n0, n1) = self.border, self.grid.shape
        return x[:, b0 : n0 - b0, b1 : n1 - b1]
