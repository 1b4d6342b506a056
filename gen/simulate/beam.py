"""Gaussian beams on a periodic picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gen.fields import FWHM, Grid


def smoothed(x: Tensor, pixel: float, fwhm: float) -> Tensor:
    """Pictures ``x (..., h, w)`` seen by a Gaussian beam: modes times ``exp(- k^2 sigma^2 / 2)``.

    Args:
        pixel, fwhm: side of a pixel, and the beam's full width at half maximum, in one unit; periodic edges.
    """
    if not fwhm:
        return x
    k = Grid(x.shape[-2:], tuple(float(n) for n in x.shape[-2:]), "rad", periodic=True).wavenumber()
    transfer = torch.exp(-0.5 * (k * fwhm / pixel / FWHM) ** 2).to(x)
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=x.shape[-2:])


def between(fine: float, coarse: float) -> float:
    """Full width at half maximum of the beam that makes a coarse picture out of a fine one."""
    return math.sqrt(coarse**2 - fine**2)


def binned(x: Tensor, factor: int) -> Tensor:
    """Means ``(..., h / factor, w / factor)`` over squares of ``factor^2`` pixels."""
    *lead, h, w = x.shape
    return x.reshape(*lead, h // factor, factor, w // factor, factor).mean((-3, -1))
