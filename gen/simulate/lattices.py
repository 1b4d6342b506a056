"""One field on lattices of two sizes whose cells nest, with values at the cells' centres."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def interpolated(field: Tensor, factor: int) -> Tensor:
    """A periodic field ``(B, C, *shape)`` at the centres of ``factor`` times as many cells along each axis.

    Exact for all waves below the Nyquist planes of the given lattice; those on the planes, whose phases it
    does not tell, are left out.
    """
    coarse = tuple(field.shape[2:])
    fine = tuple(n * factor for n in coarse)
    axes = tuple(range(2, field.ndim))
    modes = torch.fft.rfftn(field.float(), dim=axes)
    for axis, (few, many) in enumerate(zip(coarse, fine, strict=True), 2):
        last = axis == field.ndim - 1
        k = _numbers(few, last, field.device)
        modes = modes * _turn(k, few, many).reshape(-1, *(1,) * (field.ndim - 1 - axis))
        held = (few + 1) // 2 if last else few
        wide = modes.new_zeros(*modes.shape[:axis], many // 2 + 1 if last else many, *modes.shape[axis + 1 :])
        rows = k[:held].long() % many
        modes = wide.index_copy(axis, rows, modes.narrow(axis, 0, held))
    return torch.fft.irfftn(modes, s=fine, dim=axes)


def restricted(field: Tensor, factor: int) -> Tensor:
    """A periodic field ``(B, C, *shape)`` at the centres of ``factor`` times fewer cells along each axis.

    The waves below the coarse lattice's Nyquist planes only, so that ``interpolated`` of it gives them back.
    """
    fine = tuple(field.shape[2:])
    coarse = tuple(n // factor for n in fine)
    axes = tuple(range(2, field.ndim))
    modes = torch.fft.rfftn(field.float(), dim=axes)
    for axis, (few, many) in enumerate(zip(coarse, fine, strict=True), 2):
        k = _numbers(few, axis == field.ndim - 1, field.device)
        turn = _turn(k, many, few).reshape(-1, *(1,) * (field.ndim - 1 - axis))
        modes = modes.index_select(axis, k.long() % many) * turn
    return torch.fft.irfftn(modes, s=coarse, dim=axes)


def lacking(shape: Sequence[int], factor: int, device: torch.device | None = None) -> Tensor:
    """Which waves of the rfftn lattice of ``shape`` are not on one of ``factor`` times fewer cells a side.

    Those below its own Nyquist planes, with at least one component at or above the coarse lattice's.
    """
    inside = torch.ones((), dtype=torch.bool, device=device)
    known = inside
    for axis, n in enumerate(shape):
        k = _numbers(n, axis == len(shape) - 1, device).abs()
        k = k.reshape(-1, *(1,) * (len(shape) - 1 - axis))
        inside, known = inside & (k < n / 2), known & (k < n / factor / 2)
    return inside & ~known


def _numbers(n: int, last: bool, device: torch.device | None) -> Tensor:
    """Of the waves along an axis of the rfftn lattice."""
    return (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, 1 / n, device=device)


def _turn(k: Tensor, given: int, wanted: int) -> Tensor:
    """What waves below both Nyquist planes are multiplied by, from ``given`` cells along an axis to others.

    A centre lies half a cell from the origin, and the cells are of other sizes.
    """
    phase = math.pi * k * (1 / wanted - 1 / given)
    return torch.polar(torch.full_like(phase, wanted / given), phase) * (k.abs() < min(given, wanted) / 2)
