"""A small scattering transform: what wavelets see of a field, and of their own response."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.base import on_grid
from gen.errors import InputError
from gen.fields import Grid

_GROUP_CELLS = 1 << 14
_REACH = 3.0  # widths within which a Gaussian counts as inside a patch: 0.3 % of its weight on an axis
_WIDTH = 0.8  # of the finest wavelet's envelope [cells]
_CENTRE = 3 * math.pi / 4  # of its transform [1/cell]


def directions(dim: int, n: int | None = None) -> np.ndarray:
    """``(n, dim)`` unit vectors of half the directions, for a wavelet and its opposite see the same.

    2D: n equal angles from the first axis on, even and 4 if None. 3D: the 3 axes of the cube, with its 4
    diagonals 7 (if None), with those of its faces 13. A field turned by 90 degrees meets the same set.
    """
    if dim == 2:
        n = 4 if n is None else n
        if n < 2 or n % 2:
            raise InputError(f"wavelets of the plane need an even number of orientations, got {n}")
        angle = np.arange(n) * math.pi / n
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ranks = {3: (1,), None: (1, 3), 7: (1, 3), 13: (1, 2, 3)}.get(n)
    if ranks is None:
        raise InputError(f"wavelets of the volume may have 3, 7 or 13 orientations, got {n}")
    steps = [
        s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0) and sum(map(abs, s)) in ranks
    ]
    return np.array(steps) / np.linalg.norm(steps, axis=1, keepdims=True)


def morlet(k: Sequence[Tensor], direction: np.ndarray, j: int) -> Tensor:
    """Transform of a Morlet wavelet of scale 2^j at wavenumbers ``k`` of each axis [1/cell], real.

        psi(k) = g(k - k_j n) - beta g(k),   g(q) = exp(-sigma_j^2 q^2 / 2),

    k_j = 3 pi / 4 / 2^j along the direction n, sigma_j = 0.8 * 2^j cells, beta such that psi(0) = 0 (as in
    Cheng et al. 2020, arXiv:2006.08561). It is sampled on cells, so copies of g at multiples of 2 pi add up.
    The largest value, near k_j n, is 0.97.
    """
    sigma, centre = _WIDTH * 2**j, _CENTRE / 2**j * direction

    def envelope(k: Sequence[Tensor], at: np.ndarray) -> Tensor:
        total = torch.ones((), dtype=torch.float64)
        for q, shift in zip(k, at.tolist(), strict=True):
            copies = (q + 2 * math.pi * copy - shift for copy in (-2, -1, 0, 1, 2))
            total = total * torch.stack([torch.exp(-((sigma * c) ** 2) / 2) for c in copies]).sum(0)
        return total

    zero = [torch.zeros((), dtype=torch.float64)] * len(k)
    beta = envelope(zero, centre) / envelope(zero, 0 * centre)
    return envelope(k, centre) - beta * envelope(k, 0 * centre)


class Scattering:
    """First and second order scattering coefficients, averaged over positions and orientations.

        S1(j) = < |x * psi_j| >,   S2(j1, j2) = < ||x * psi_j1| * psi_j2| >,   j1 < j2,

    the vector being S1 for every j [field unit], then S2(j1, j2) / S1(j1) (Mallat 2012, arXiv:1101.2286; the
    reduction to s1 and s2/s1 of Cheng et al. 2020, arXiv:2006.08561). A wave of amplitude A has about
    S1 = A |psi(k)| / 2, a Gaussian field about sqrt(pi)/2 times the root of sum_k P(k) |psi(k)|^2 / V.
    S2 / S1 tells how the structures that S1 finds lie together, of which a spectrum knows nothing.

    Responses of scale j >= 3 are sampled at every 2^(j-2)-th cell, with band to spare: a map moved by one
    cell changes by about 1e-4. On a patch only positions count whose wavelets lie inside, to 3 widths.

    Args:
        grid: the grid of the fields, of cubic cells.
        n_scales: J, scales 2^0 ... 2^(J-1); None: as many as there is room for.
        n_orientations: as in ``directions``.
    """

    def __init__(self, grid: Grid, n_scales: int | None = None, n_orientations: int | None = None) -> None:
        if max(grid.spacing) > min(grid.spacing) * (1 + 1e-6):
            raise InputError(
                f"wavelets need cubic cells, got spacing {grid.spacing} {grid.unit}; resample first"
            )
        self.grid = grid
        self.name, self.label = "scattering", r"$S_1(j),\ S_2(j_1, j_2) / S_1(j_1)$"
        self.unit, self.n_modes, self.log = "coefficient", None, False
        self.directions = directions(grid.dim, n_orientations)
        most = self._room()
        self.n_scales = most if n_scales is None else n_scales
        if not 1 <= self.n_scales <= most:
            raise InputError(
                f"the grid {grid.shape}{'' if grid.periodic else ', not periodic,'} has room for 1 to {most} "
                f"scales of wavelets, got {n_scales or most}; choose fewer, or take larger maps"
            )
        self.pairs = list(itertools.combinations(range(self.n_scales), 2))
        self.abscissa = np.arange(self.n_scales + len(self.pairs), dtype=np.float64)
        self._step = [self._decimation(j) for j in range(self.n_scales)]
        self.filters = [self._bank(j) for j in range(self.n_scales)]

    @property
    def wavelengths(self) -> np.ndarray:
        """``(J,)`` of the wave that each scale answers best [unit of the grid]."""
        return 2 * math.pi / _CENTRE * 2.0 ** np.arange(self.n_scales) * self.grid.spacing[0]

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, J + J(J-1)/2)`` float64; a map without structure has zeros."""
        x = on_grid(values, self.grid)
        x = x if x.dtype == torch.float64 else x.float()
        banks = [bank.to(x) for bank in self.filters]
        groups = x.split(max(1, _GROUP_CELLS // self.grid.n_cells))
        return torch.cat([self._transform(y, banks) for y in groups])

    def _transform(self, x: Tensor, banks: list[Tensor]) -> Tensor:
        axes = tuple(range(1, x.ndim))
        modes = torch.fft.fftn(x - x.mean(axes, keepdim=True), dim=axes, norm="forward")
        first, second = [], []
        for j in range(self.n_scales):
            response = responses(modes[:, None], banks[j])
            first.append(self._mean(response, j, self._margin(j)))
            if j == self.n_scales - 1:
                break
            inner = torch.fft.fftn(response, dim=tuple(range(2, x.ndim + 1)), norm="forward")
            for j2 in range(j + 1, self.n_scales):
                margin = self._margin(j) + self._margin(j2)
                each = [self._mean(responses(m[:, None], banks[j2]), j2, margin) for m in inner.unbind(1)]
                found = torch.stack(each).mean(0)
                second.append((found / first[j]).where(first[j] > 0, 0.0))
        return torch.stack(first + second, dim=1)

    def _mean(self, response: Tensor, j: int, margin: int) -> Tensor:
        if not self.grid.periodic:
            edge = math.ceil(margin / self._step[j])
            response = response[(..., *(slice(edge, n - edge) for n in response.shape[2:]))]
        # rows are short enough to be added in single precision, their sums are not
        return response.mean(-1).double().flatten(1).mean(1)

    def _margin(self, j: int) -> int:
        return math.ceil(_REACH * _WIDTH * 2**j)

    def _room(self) -> int:
        """Scales whose wave fits twice into the box, or whose pairs leave half of a patch's sides."""
        side, scales = min(self.grid.shape), range(1, 32)
        if self.grid.periodic:
            return sum(2 * 2 * math.pi / _CENTRE * 2 ** (n - 1) <= side for n in scales)
        margins = [self._margin(n - 1) + (self._margin(n - 2) if n > 1 else 0) for n in scales]
        return sum(4 * m <= side for m in margins)

    def _decimation(self, j: int) -> int:
        """2^(j-2), or the part of it by which all sides divide into even ones."""
        step = 1
        while step < 2 ** (j - 2) and all(n % (4 * step) == 0 for n in self.grid.shape):
            step *= 2
        return step

    def _bank(self, j: int) -> Tensor:
        """``(n_orientations, *decimated shape)`` transforms of the wavelets."""
        dim, step = self.grid.dim, self._step[j]
        k = []
        for axis, n in enumerate(self.grid.shape):
            freq = torch.fft.fftfreq(n // step, step, dtype=torch.float64) * 2 * math.pi
            k.append(freq.reshape([-1 if a == axis else 1 for a in range(dim)]))
        return torch.stack([morlet(k, n, j) for n in self.directions])


def responses(modes: Tensor, bank: Tensor) -> Tensor:
    """|x * psi| for every wavelet of a bank, on the bank's lattice, from ``(B, 1, *shape)`` transforms."""
    axes = tuple(range(2, modes.ndim))
    for axis, n in zip(axes, bank.shape[1:], strict=True):
        if n < modes.shape[axis]:
            modes = torch.cat([modes.narrow(axis, 0, n // 2), modes.narrow(axis, -(n // 2), n // 2)], axis)
    z = torch.fft.ifftn(modes * bank, dim=axes, norm="forward")
    return z.real.square().add_(z.imag.square()).sqrt_()  # a third of the time of abs()
