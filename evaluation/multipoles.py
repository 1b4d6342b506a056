"""Multipoles of the power spectrum about the line of sight, for boxes in redshift space."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Part
from evaluation.power import Apodise, PowerSpectrum
from gen.errors import InputError
from gen.fields import Grid

ORDERS = (0, 2, 4)


def legendre(mu: Tensor) -> Tensor:
    """``(3, ...)`` L_0, L_2 and L_4 of mu."""
    m = mu * mu
    return torch.stack([torch.ones_like(m), (3 * m - 1) / 2, (35 * m * m - 30 * m + 3) / 8])


def line_of_sight_cosine(grid: Grid) -> Tensor:
    """mu = |k_last| / |k| on the half lattice, 0 at k = 0."""
    n, side = grid.shape[-1], grid.k_sides[-1]
    k = grid.wavenumber()
    last = 2 * np.pi * torch.fft.rfftfreq(n, side / n, dtype=torch.float64)
    return last / torch.where(k > 0, k, torch.inf)


class Multipoles:
    """P_0, P_2 and P_4 of P(k, mu) = sum_l P_l(k) L_l(mu), mu the cosine of k to the last axis [k_unit^-3].

    (2l + 1) <P L_l> over a shell gives P_l only where the shell samples mu evenly, as a lattice does not: the
    lowest shell makes P_4 of an isotropic field. Here P_l are the least-squares fit to the shell's own modes,

        P_l = sum_l' (G^-1)_ll' <P L_l'>,   G_ll' = <L_l L_l'> over the modes,

    (of a shell with fewer directions than multipoles the smallest that fit),
    exact on any lattice for spectra of these three, such as P (1 + beta mu^2)^2 (Kaiser 1987; Hamilton 1992):

        P_0 = P (1 + 2 beta/3 + beta^2/5),   P_2 = P (4 beta/3 + 4 beta^2/7),   P_4 = P 8 beta^2/35.

    ``n_modes`` are such that P_l of an isotropic Gaussian field scatters by P_0 sqrt(2 / n_modes): about 1/5
    and 1/9 of the shell's. With a taper they are those of independent modes.

    Args:
        grid: 3D grid; the line of sight is its last axis.
        bins, apodise: as of ``PowerSpectrum``.
    """

    def __init__(self, grid: Grid, bins: int | None = None, apodise: Apodise = None) -> None:
        if grid.dim != 3:
            raise InputError(f"multipoles about the line of sight need a 3D grid, got {grid.dim} axes")
        self.spectrum = PowerSpectrum(grid, bins, apodise)
        self._legendre = legendre(line_of_sight_cosine(grid)).flatten(1)
        average = self.spectrum.average
        products = (self._legendre[:, None] * self._legendre).flatten(0, 1)
        gram = (average(products) / average(self._legendre[:1])).T.reshape(-1, 3, 3)
        self._inverse = torch.linalg.pinv(gram, rtol=1e-6, hermitian=True)
        variance = self._inverse.diagonal(dim1=1, dim2=2).T.numpy()
        self.n_modes = np.asarray(self.spectrum.n_modes) / variance  # (3, n_bins)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, 3, n_bins)`` float64."""
        found = []
        weights = self._legendre.to(values.device)
        for x in values.split(self.spectrum.group):
            modes = self.spectrum.modes(x)
            power = modes.real.square().add_(modes.imag.square()).double()
            raw = torch.stack([self.spectrum.average(power * w) for w in weights], dim=1)
            found.append(torch.einsum("nij,bjn->bin", self._inverse.to(raw), raw))
        return torch.cat(found)

    def multipoles(self) -> tuple[Part, ...]:
        """Statistics "multipole_0", "multipole_2" and "multipole_4", which share one pass in ``measure``."""
        s = self.spectrum
        return tuple(
            Part(
                self,
                i,
                f"multipole_{ell}",
                rf"$P_{ell}(k)$",
                s.abscissa,
                s.unit,
                self.n_modes[i],
                log=ell == 0,
            )
            for i, ell in enumerate(ORDERS)
        )
