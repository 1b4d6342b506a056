"""What massive neutrinos do to the linear matter power, in two numbers: where it begins and where it ends."""

from __future__ import annotations

import torch
from torch import Tensor

OMEGA_H2_PER_EV = 1 / 93.14
"""Omega_nu h^2 of 1 eV of summed masses (Lesgourgues & Pastor 2006, astro-ph/0603494)."""
PLATEAU = 8.0
"""Fall of ln P at small scales, in f_nu."""
HALF = 17.0
"""Wavenumber of half the fall, in k_nr."""


def fraction(Omega_m: Tensor, m_nu: Tensor, h: float) -> Tensor:
    """f_nu = Omega_nu / Omega_m of three neutrinos of summed mass ``m_nu`` [eV]."""
    return m_nu * OMEGA_H2_PER_EV / (h**2 * Omega_m)


def suppression(k: Tensor, Omega_m: Tensor, m_nu: Tensor, h: float) -> Tensor:
    r"""P(k; m_nu) / P(k; 0) of linear matter, ``exp(-8 f_nu k / (k + 17 k_nr))``.

    Neutrinos slow down at a wavenumber of free streaming ``k_nr = 0.018 sqrt(Omega_m m / eV) h/Mpc``, m =
    m_nu / 3; much larger waves grow as if all matter were cold, and much smaller ones end ``8 f_nu`` lower to
    first order (Lesgourgues & Pastor 2006, astro-ph/0603494). Between the two the true curve is a slow fall
    up to the free-streaming wavenumber of today, 20 to 40 k_nr; its half at 17 k_nr is this project's choice.

    Args:
        k: wavenumber [h/Mpc], any shape.
        Omega_m, m_nu: broadcastable with k; the summed mass in eV.
        h: Hubble constant / 100.
    """
    start = 0.018 * (Omega_m * m_nu / 3).clamp(min=0).sqrt()
    share = k / (k + HALF * start).clamp(min=1e-30)
    return torch.exp(-PLATEAU * fraction(Omega_m, m_nu, h) * share)
