"""The density at the centre of a spherical perturbation, against spherical collapse.

Shells move as ``evaluation.interrogate.collapse`` tells, each by its own mean linear density; the density of
particles that are so moved is seen on the same cells as that of the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import Map
from evaluation.interrogate.collapse import DENSITIES, RADII, SphericalCollapse, from_centre, top_hat
from evaluation.interrogate.density_waves import DensityMap
from gen.fields import Grid


@dataclass(frozen=True, eq=False)
class DensityBall:
    """Mean density 1 + delta of the central cells, those within half the ball's first radius, ``(R, D)``.

    Args:
        radius: of the top-hats [Mpc/h], ``(R,)``.
        density: their linear density less the mean's, at the redshift of the fields, ``(R, D)``.
        exact: by spherical collapse; NaN where shells have collapsed.
        central: by map, mean over its drawings; central_error: standard error of it.
    """

    radius: np.ndarray
    density: np.ndarray
    exact: np.ndarray
    central: dict[str, np.ndarray]
    central_error: dict[str, np.ndarray]


def count() -> int:
    """Displacements that ``ask`` asks of every map."""
    return len(RADII) * len(DENSITIES)


def ask(
    maps: Mapping[str, DensityMap], density_of: Map, grid: Grid, coarse: Grid, Omega_m: float, a: float
) -> DensityBall:
    """Put all top-hats to all maps, at scale factor ``a`` of a universe of ``Omega_m``.

    Args:
        density_of: 1 + delta ``(B, 1, n, n, n)`` of displaced particles ``(B, 3, n, n, n)`` [Mpc/h].
        coarse: lattice of the same box that an emulator is given; the central cells hold one of its cells.
    """
    theory, offset = SphericalCollapse(Omega_m, a), from_centre(grid)
    radii = [r * grid.box_size[0] for r in RADII]
    shape = (len(radii), len(DENSITIES))
    density, exact = np.zeros((2, *shape))
    central = {name: np.zeros((2, *shape)) for name in maps}
    for row, radius in enumerate(radii):
        inner = offset.norm(dim=0) < max(radius / 2, coarse.spacing[0])
        psi = torch.stack([top_hat(grid, radius, d) for d in DENSITIES])
        linear = -3 * (psi.double() * offset).sum(1) / offset.square().sum(0)
        density[row] = linear[:, inner].mean(1).numpy()
        exact[row] = _central(density_of(shells(theory, linear, offset)), inner)[0]
        exact[row][~np.isfinite(theory.ratio(linear.numpy())).all((1, 2, 3))] = np.nan
        for name, of in maps.items():
            central[name][:, row] = _central(of(psi), inner)
    return DensityBall(
        np.array(radii),
        density,
        exact,
        {name: x[0] for name, x in central.items()},
        {name: x[1] for name, x in central.items()},
    )


def shells(theory: SphericalCollapse, linear: Tensor, offset: Tensor) -> Tensor:
    """Displacements ``(B, 3, n, n, n)`` of shells around a centre, psi = (y - 1) q.

    Args:
        linear: mean linear density within each particle's shell, ``(B, n, n, n)``.
        offset: q, from the centre, ``(3, n, n, n)``.
    """
    y = torch.from_numpy(np.nan_to_num(theory.ratio(linear.numpy()), nan=1.0))
    return (offset * (y - 1)[:, None]).float()


def _central(density: Tensor, inner: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the inner cells, then over drawings, and its standard error, ``(B,)`` each."""
    rows = density.double().cpu()[:, :, inner].mean(2)
    n = rows.shape[1]
    error = rows.std(1) / n**0.5 if n > 1 else torch.zeros(len(rows))
    return rows.mean(1).numpy(), error.numpy()
