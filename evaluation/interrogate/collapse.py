"""A spherical perturbation, whose collapse has an exact solution shell by shell (Gunn & Gott 1972).

Before shells cross, a shell feels the mass inside it alone. So whatever the profile, the shell that started
at q around the centre stands at y q, with y a function of the mean linear density inside it alone,
delta(q) = - 3 psi1 . q / q^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from torch import Tensor

from evaluation.interrogate.asking import Maps, places, zeldovich
from gen.fields import Grid

A_START = 1e-3
DENSEST, EMPTIEST = 1.62, -6.0
"""Linear densities between which the solution is tabulated: shells above about 1.65 have collapsed."""
DENSITIES = (-2.5, -2.0, -1.5, -1.0, -0.5, 0.5, 0.8, 1.1, 1.3, 1.5)
"""Mean linear densities of the top-hats."""
RADII = (4 / 32, 6 / 32)
"""Of the top-hats, over the side of the box."""
CENTRE = (1, 2, 3)
"""Cells by which the centre lies off the middle of the box, so that a network's coarse cells do not fit."""


@dataclass(frozen=True)
class SphericalCollapse:
    """y = r / (a q) of a shell in flat LCDM, until it collapses.

        y'' + (2 + dln H / dln a) y' = - 1/2 Omega_m(a) (y^-3 - 1) y,   ' = d / dln a

    from the growing mode y = 1 - delta/3 - delta^2/21, delta = a, at early times. 1 + Delta = y^-3.

    Args:
        Omega_m: today; a: scale factor of the answer.
    """

    Omega_m: float
    a: float = 1.0

    def ratio(self, delta: ArrayLike) -> np.ndarray:
        """y of mean linear densities extrapolated to ``a``; NaN outside of the table."""
        return self._spline(np.asarray(delta, dtype=np.float64))

    @cached_property
    def _spline(self) -> CubicSpline:
        x = np.log([A_START, self.a])
        early = self._solve(x, np.array([A_START]), np.array([A_START]), self._linear)[0]
        delta = np.linspace(EMPTIEST, DENSEST, 400)
        start = delta * A_START / early
        y = self._solve(x, 1 - start / 3 - start**2 / 21, -start / 3 - 2 * start**2 / 21, self._pull)
        return CubicSpline(delta, y, extrapolate=False)

    def _matter_fraction(self, x: float) -> float:
        a3 = math.exp(3 * x)
        return self.Omega_m / (self.Omega_m + (1 - self.Omega_m) * a3)

    @staticmethod
    def _linear(growth: np.ndarray) -> np.ndarray:
        return 3 * growth

    @staticmethod
    def _pull(y: np.ndarray) -> np.ndarray:
        return y - y**-2

    def _solve(self, x: np.ndarray, value: np.ndarray, speed: np.ndarray, force) -> np.ndarray:
        """At the end of ln a = x, from y'' = Omega_m(a) force(y) / 2 - (2 - 3/2 Omega_m(a)) y'."""
        n = len(value)

        def slope(x: float, state: np.ndarray) -> np.ndarray:
            om = self._matter_fraction(x)
            y, dy = state[:n], state[n:]
            return np.concatenate([dy, om / 2 * force(y) - (2 - 1.5 * om) * dy])

        found = solve_ivp(slope, x, np.concatenate([value, speed]), rtol=1e-9, atol=1e-12, method="DOP853")
        return found.y[:n, -1]


@dataclass(frozen=True, eq=False)
class Collapse:
    """Numbers for R radii and D densities, dictionaries by map.

    Args:
        radius: of the top-hats [Mpc/h], ``(R,)``.
        density: mean linear density of the inner particles, those within half the radius, ``(R, D)``.
        exact: y of the inner particles by spherical collapse, ``(R, D)``, a fit of x = y q to them.
        ratio: the same fit to the maps' particles. The density of the inner ball is y^-3.
    """

    radius: np.ndarray
    density: np.ndarray
    exact: np.ndarray
    ratio: dict[str, np.ndarray]


def top_hat(grid: Grid, radius: float, density: float) -> Tensor:
    """The Zel'dovich displacement ``(3, n, n, n)`` [Mpc/h] of a ball, smoothed by a Gaussian of a cell.

    The rest of the box is as much emptier, or denser, that the mean is zero.
    """
    offset = from_centre(grid)
    n, spacing = grid.shape[0], grid.spacing[0]
    k = grid.wavenumber()
    x = k * radius
    shape = torch.where(x > 1e-3, 3 * (torch.sin(x) - x * torch.cos(x)) / x.clamp(min=1e-3) ** 3, 1.0)
    volume = 4 * math.pi / 3 * radius**3
    modes = density * volume * shape * torch.exp(-((k * spacing) ** 2) / 2) / spacing**3
    modes[0, 0, 0] = 0
    phase = torch.zeros_like(k)
    for axis, (m, side) in enumerate(zip(grid.shape, grid.box_size, strict=True)):
        freq = (torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq)(m, side / m, dtype=torch.float64)
        # the first cell's centre, seen from the ball's
        first = offset[axis].select(axis, 0).reshape(-1)[0].item()
        phase = phase + (2 * math.pi * freq * first).reshape([-1 if i == axis else 1 for i in range(3)])
    delta = torch.fft.irfftn(modes * torch.polar(torch.ones_like(phase), phase), s=(n,) * 3)
    return zeldovich(delta[None], grid)[0].float()


def count() -> int:
    """Displacements that ``ask`` asks of every map."""
    return len(RADII) * len(DENSITIES)


def ask(maps: Maps, grid: Grid, Omega_m: float, a: float) -> Collapse:
    """Put all top-hats to all maps, at scale factor ``a`` of a universe of ``Omega_m``."""
    theory, offset = SphericalCollapse(Omega_m, a), from_centre(grid)
    radii = [r * grid.box_size[0] for r in RADII]
    density, exact = np.zeros((2, len(RADII), len(DENSITIES)))
    ratio = {name: np.zeros_like(exact) for name in maps}
    for row, radius in enumerate(radii):
        inner = offset.norm(dim=0) < max(radius / 2, grid.spacing[0])
        q = offset[:, inner]
        first = torch.stack([top_hat(grid, radius, d) for d in DENSITIES])
        weight = q.square().sum(0)
        linear = (-3 * (first[:, :, inner] * q).sum(1) / weight).numpy()
        density[row] = linear.mean(1)
        exact[row] = np.average(theory.ratio(linear), axis=1, weights=weight.numpy())
        for name, of in maps.items():
            moved = (of(first)[:, :, inner].double() * q).sum((1, 2)) / weight.sum()
            ratio[name][row] = 1 + moved.numpy()
    return Collapse(np.array(radii), density, exact, ratio)


def from_centre(grid: Grid) -> Tensor:
    """Where particles start, seen from the ball's centre, to the nearest image, ``(3, n, n, n)``."""
    side, spacing = grid.box_size[0], grid.spacing[0]
    centre = side / 2 + spacing * torch.tensor(CENTRE, dtype=torch.float64)[:, None, None, None]
    return torch.remainder(places(grid) - centre + side / 2, side) - side / 2
