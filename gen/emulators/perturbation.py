"""Lagrangian perturbation theory of a given Zel'dovich displacement: its strain, second order, growth.

Everything is in torch, batched, in 2D and 3D, and differentiable. Reference: Bouchet et al. 1995,
astro-ph/9406013.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gen.simulate.growth import A_START, Growth


def wavevector(shape: Sequence[int], spacing: Sequence[float], like: Tensor, *, odd: bool) -> list[Tensor]:
    """Components of k on the rfftn lattice, broadcastable; ``odd`` zeroes Nyquist, for odd derivatives."""
    components = []
    for axis, (n, d) in enumerate(zip(shape, spacing, strict=True)):
        last = axis == len(shape) - 1
        k = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(n, d / (2 * torch.pi), device=like.device)
        if odd and n % 2 == 0:
            k[n // 2] = 0
        components.append(k.to(like.dtype).reshape(-1, *(1,) * (len(shape) - 1 - axis)))
    return components


def strain(displacement: Tensor, spacing: Sequence[float]) -> Tensor:
    """Symmetric derivative ``(d_i psi_j + d_j psi_i) / 2`` of ``(B, dim, *shape)``, by FFT.

    Returns:
        ``(B, dim (dim + 1) / 2, *shape)``: the diagonal, whose sum is -delta at first order, then the
        pairs i < j, the tide.
    """
    return torch.stack(list(strains(lambda i: displacement[:, i], spacing)), 1)


def second_order(zeldovich: Tensor, spacing: Sequence[float], strains: Tensor | None = None) -> Tensor:
    r"""Second-order displacement of a Zel'dovich displacement, up to its growth: ``grad phi2``.

    With ``psi1 = -D1 grad phi1`` and ``lap phi2 = D1^2 sum_{i<j} (phi1_ii phi1_jj - phi1_ij^2)``, the
    displacement to second order is ``psi1 + (D2 / D1^2) grad phi2``, D2 / D1^2 near -3/7.

    Args:
        zeldovich: ``(B, dim, *shape)``, any unit of length, on a periodic grid.
        spacing: of the cells along each axis, same unit.
        strains: ``strain(zeldovich, spacing)``, if it is known already.
    """
    e = strain(zeldovich, spacing) if strains is None else strains
    shape, dim = zeldovich.shape[2:], zeldovich.shape[1]
    axes = tuple(range(1, 1 + dim))
    pairs = combinations(range(dim), 2)
    terms = [e[:, i] * e[:, j] - e[:, dim + n] ** 2 for n, (i, j) in enumerate(pairs)]
    source = torch.fft.rfftn(torch.stack(terms).sum(0), dim=axes)
    k2 = torch.stack(torch.broadcast_tensors(*wavevector(shape, spacing, e, odd=False))).square().sum(0)
    potential = torch.where(k2 > 0, -source / k2.clamp(min=1e-30), 0.0)
    odd = wavevector(shape, spacing, e, odd=True)
    return torch.stack([torch.fft.irfftn(1j * ki * potential, s=shape, dim=axes) for ki in odd], 1)


def strains(given: Callable[[int], Tensor], spacing: Sequence[float]) -> Iterator[Tensor]:
    """The components of ``strain``, one field ``(B, *shape)`` at a time, of channel i by ``given(i)``.

    For boxes of which memory holds a few components only: none is kept. Differentiable.
    """
    dim = len(spacing)
    shape, axes = given(0).shape[1:], tuple(range(1, 1 + dim))
    odd = [1j * k for k in wavevector(shape, spacing, given(0), odd=True)]

    def derivative(i: int, axis: int) -> Tensor:
        return torch.fft.rfftn(given(i).float(), dim=axes).mul_(odd[axis])

    for i in range(dim):
        yield torch.fft.irfftn(derivative(i, i), s=shape, dim=axes)
    for i, j in combinations(range(dim), 2):
        yield torch.fft.irfftn(derivative(j, i).add_(derivative(i, j)).div_(2), s=shape, dim=axes)


def expansion(given: Callable[[int], Tensor], spacing: Sequence[float]) -> Iterator[Tensor]:
    """The components of ``strain`` and then of ``second_order``, as ``strains``.

    None but two sums is kept, with ``sum_{i<j} e_ii e_jj = sum_j e_jj sum_{i<j} e_ii``.
    """
    dim = len(spacing)
    source = trace = torch.zeros(())
    for n, made in enumerate(strains(given, spacing)):
        if n < dim:
            source, trace = source + trace * made, trace + made
        else:
            source = source - made.square()
        yield made
        del made
    del trace
    shape, axes = source.shape[1:], tuple(range(1, 1 + dim))
    k2 = torch.as_tensor(sum(k.square() for k in wavevector(shape, spacing, source, odd=False)))
    odd = wavevector(shape, spacing, source, odd=True)
    inverse = torch.where(k2 > 0, -1 / k2.clamp(min=1e-30), 0.0)
    del k2
    potential = torch.fft.rfftn(source, dim=axes).mul_(inverse)
    del source, inverse
    for k in odd:
        yield torch.fft.irfftn(1j * k * potential, s=shape, dim=axes)


class GrowthRates(NamedTuple):
    """Columns ``(B,)``: ``second`` is D2 / D1^2; rates are derivatives with respect to ln a, that of the
    second order over D1^2; ``log_first`` is ln D1 up to a constant of the universe."""

    second: Tensor
    first_rate: Tensor
    second_rate: Tensor
    log_first: Tensor


class GrowthTable(nn.Module):
    """Growth in flat LCDM as functions of Omega_m(a) alone.

    All flat LCDM universes are one universe at different times: ``d Omega_m(a) / d ln a = -3 Omega_m(a)
    (1 - Omega_m(a))`` knows no other number. So one solution of the growth equations is tabulated, over
    logit Omega_m(a), which is linear in ln a.
    """

    table: Tensor
    ends: Tensor

    def __init__(self) -> None:
        super().__init__()
        nodes, table = _solution()
        self.register_buffer("table", torch.from_numpy(table).float(), persistent=False)
        self.register_buffer("ends", torch.tensor([nodes[0], nodes[-1]]).float(), persistent=False)

    def forward(self, matter_fraction: Tensor) -> GrowthRates:
        """At ``(B,)`` values of Omega_m(a), differentiable."""
        logit = torch.logit(matter_fraction, eps=1e-6)
        steps = self.table.shape[1] - 1
        position = ((logit - self.ends[0]) / (self.ends[1] - self.ends[0])).clamp(0, 1) * steps
        cell = position.detach().floor().clamp(max=steps - 1).long()
        low, high = self.table[:, cell], self.table[:, cell + 1]
        return GrowthRates(*(low + (position - cell) * (high - low)))


@lru_cache(maxsize=1)
def _solution(n: int = 2049) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in logit Omega_m(a), and the columns of ``GrowthRates`` at them, ``(4, n)``."""
    growth = Growth(0.05)
    # An exact power of a gives nodes at equal steps of the logit, which falls by 3 for each e-fold of a.
    a = np.geomspace(A_START, 1.2, n)
    om, e = growth.matter_fraction(a), growth.expansion(a)
    first = growth.first(a)
    to_rate = 1 / (a**2 * e)
    rows = [
        growth.second(a) / first**2,
        growth.first_momentum(a) * to_rate / first,
        growth.second_momentum(a) * to_rate / first**2,
        np.log(first),
    ]
    return np.log(om / (1 - om)), np.stack(rows)
