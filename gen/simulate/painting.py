"""Mass put on particles: of halos on their members, or of halos too small to find on particles by odds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.errors import InputError
from gen.simulate.halos import Halos
from gen.simulate.initial import sum_of_squares, wavevector

Array = NDArray[np.float64]


def shared(mass: Array, halos: Halos) -> Array:
    """Each halo's ``mass (H,)`` in equal parts on its particles ``(P,)``, none outside; no mass is lost."""
    inside = halos.halo >= 0
    members = np.bincount(halos.halo[inside], minlength=len(mass))
    part = mass / np.maximum(members, 1)
    out = np.zeros(len(halos.halo))
    out[inside] = part[halos.halo[inside]]
    return out


def hosts(odds: Array, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` of the particles ``(P,)``, each taken by its odds, with replacement.

    Raises:
        InputError: for odds that are negative or all zero.
    """
    below = np.cumsum(odds)
    if (odds < 0).any() or not 0 < below[-1] < np.inf:
        raise InputError(f"odds must be 0 or more with a positive sum, got {odds.min():g} to {odds.max():g}")
    host = np.searchsorted(below, rng.random(count) * below[-1], side="right")
    return np.minimum(host, len(odds) - 1)


def scattered(mass: Array, odds: Array, rng: np.random.Generator) -> Array:
    """Each of the masses ``(M,)`` on one of the particles ``(P,)``, see ``hosts``."""
    return np.bincount(hosts(odds, len(mass), rng), mass, minlength=len(odds)).astype(np.float64)


def smoothed(field: Tensor, box_size: float, reach: float) -> Tensor:
    """A field ``(B, 1, m, m, m)`` under a Gaussian of standard deviation ``reach`` [as ``box_size``]."""
    m = field.shape[-1]
    k2 = sum_of_squares(wavevector(m, box_size, field.device))
    modes = torch.fft.rfftn(field, dim=(2, 3, 4)) * torch.exp(-0.5 * k2 * reach**2)
    return torch.fft.irfftn(modes, s=(m, m, m), dim=(2, 3, 4))
