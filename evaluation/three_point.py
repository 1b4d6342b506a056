"""Isotropic three-point correlation of a field in multipoles of the angle between its two sides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import sph_harm_y
from torch import Tensor

from evaluation.base import Part, levelled, on_grid
from gen.errors import InputError
from gen.fields import Grid

_GROUP_CELLS = 1 << 17
_CHUNK = 1 << 12


def harmonics(r: np.ndarray, ell: int) -> np.ndarray:
    """Real functions f_m of direction with sum_m f_m(r1) f_m(r2) = P_l(cos angle), of ``(dim, n)`` vectors.

    3D: spherical harmonics times sqrt(4 pi / (2l+1)), 2l+1 of them. 2D, where cos(l angle) stands for P_l:
    the cosine and sine of l phi, and 1 for l = 0.
    """
    phi = np.arctan2(r[1], r[0])
    if len(r) == 2:
        return np.stack([np.cos(ell * phi), np.sin(ell * phi)][: min(ell, 1) + 1])
    theta = np.arctan2(np.hypot(r[0], r[1]), r[2])
    y = [sph_harm_y(ell, m, theta, phi) * math.sqrt(4 * math.pi / (2 * ell + 1)) for m in range(ell + 1)]
    return np.stack([y[0].real, *(math.sqrt(2) * part for z in y[1:] for part in (z.real, z.imag))])


class ThreePoint:
    """zeta_l(r1, r2) of zeta(r1, r2, angle) = sum_l zeta_l(r1, r2) P_l(cos angle) [field unit^3].

    By transforms instead of triplets (Slepian & Eisenstein 2015, arXiv:1506.02040; 2016, arXiv:1607.03109):

        zeta_l(a, b) = (2l+1) < delta(x) sum_m A_lm,a(x) A_lm,b(x) >_x,
        A_lm,a(x) = mean over cells r of shell a of f_m(r) delta(x + r),

    with delta the map less its mean. In 2D cos(l angle) is in the place of P_l and 2 (1 for l = 0) in that of
    2l+1. Pairs are of different shells, a < b, so that no cell is met twice. All are zero for a Gaussian
    field. On a patch x runs over the cells whose shells lie inside it.

    Args:
        grid: the grid of the fields, 2D or 3D.
        edges: ``(n_shells+1,)`` increasing edges of the shells of separation [unit of the grid].
        l_max: highest multipole.
    """

    def __init__(self, grid: Grid, edges: Sequence[float] | np.ndarray, l_max: int = 4) -> None:
        self.grid = grid
        self.edges = np.asarray(edges, dtype=np.float64)
        self.l_max = l_max
        if self.edges.ndim != 1 or len(self.edges) < 3 or not (np.diff(self.edges, prepend=0) > 0).all():
            raise InputError(
                f"edges must be at least three increasing positive separations, got {self.edges.tolist()}"
            )
        if self.edges[-1] > min(grid.box_size) / 2:
            raise InputError(
                f"separations may reach half the shortest side, {min(grid.box_size) / 2:g} {grid.unit}, "
                f"got {self.edges[-1]:g}"
            )
        if l_max < 0:
            raise InputError(f"l_max must not be negative, got {l_max}")
        axes = [np.rint(np.fft.fftfreq(n, 1 / n)) for n in grid.shape]
        cells = np.stack([m.reshape(-1) for m in np.meshgrid(*axes, indexing="ij")])
        r = cells * np.array(grid.spacing)[:, None]
        shell = np.digitize(np.linalg.norm(r, axis=0), self.edges) - 1
        near = np.flatnonzero((shell >= 0) & (shell < self.n_shells))
        count = np.bincount(shell[near], minlength=self.n_shells)
        if not count.all():
            raise InputError(
                f"every shell must hold cells, got {count.tolist()} of them; widen the empty ones"
            )
        self._inside = interior(grid, np.abs(cells[:, near]).max(1).astype(int).tolist())
        self._place = torch.from_numpy(shell[near] * grid.n_cells + near)
        weight = 1 / count[shell[near]]
        self._weights = [torch.from_numpy(harmonics(r[:, near], ell) * weight) for ell in range(l_max + 1)]

    @property
    def n_shells(self) -> int:
        return len(self.edges) - 1

    @property
    def pairs(self) -> np.ndarray:
        """``(n_pairs, 2)`` shells a < b of each number."""
        return np.stack(np.triu_indices(self.n_shells, 1), axis=1)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, l_max+1, n_pairs)`` float64."""
        x = on_grid(values, self.grid)
        x = x if x.dtype == torch.float64 else x.float()
        axes = tuple(range(1, x.ndim))
        x, level = levelled(x - x.mean(axes, keepdim=True))
        groups = [
            (y, torch.fft.rfftn(y, dim=axes)) for y in x.split(max(1, _GROUP_CELLS // self.grid.n_cells))
        ]
        a, b = self.pairs.T
        out = torch.zeros(len(x), self.l_max + 1, len(a), dtype=torch.float64, device=x.device)
        for ell, weights in enumerate(self._weights):
            norm = 2 * ell + 1 if self.grid.dim == 3 else min(ell, 1) + 1
            for f in weights:
                kernel = self._kernel(f.to(x))
                out[:, ell] += norm * torch.cat([self._products(y, m, kernel)[:, a, b] for y, m in groups])
        return out * level[:, None, None] ** 3

    def _kernel(self, f: Tensor) -> Tensor:
        """Conjugate transform of f_m over the cells of each shell, ``(n_shells, *half lattice)``.

        Made anew in each call: all of them would hold far more memory than they cost time.
        """
        cells = f.new_zeros(self.n_shells * self.grid.n_cells)
        cells[self._place.to(f.device)] = f
        axes = tuple(range(1, self.grid.dim + 1))
        return torch.fft.rfftn(cells.reshape(self.n_shells, *self.grid.shape), dim=axes).conj()

    def _products(self, x: Tensor, modes: Tensor, kernel: Tensor) -> Tensor:
        """``(B, n_shells, n_shells)`` < delta A_a A_b >."""
        a = torch.fft.irfftn(modes[:, None] * kernel, s=self.grid.shape, dim=tuple(range(2, x.ndim + 1)))
        a, x = a[(..., *self._inside)].flatten(2), x[(..., None, *self._inside)].flatten(2)
        # chunks are short enough to be added in single precision, their sums are not
        parts = zip(a.split(_CHUNK, dim=2), x.split(_CHUNK, dim=2), strict=True)
        sums = [torch.einsum("bsc,btc->bst", p * y, p).double() for p, y in parts]
        return torch.stack(sums).sum(0) / x.shape[2]

    def multipoles(self) -> tuple[Part, ...]:
        """The statistics "three_point_0" ... of one pass; the abscissa numbers the pairs of shells."""
        number = np.arange(len(self.pairs), dtype=np.float64)
        return tuple(
            Part(self, ell, f"three_point_{ell}", rf"$\zeta_{ell}(r_1, r_2)$", number, "pair of shells")
            for ell in range(self.l_max + 1)
        )


def interior(grid: Grid, reach: Sequence[int]) -> tuple[slice, ...]:
    """Cells of an open grid that are at least so many cells from its faces; all cells of a periodic one."""
    if grid.periodic:
        return (slice(None),) * grid.dim
    if any(2 * m >= n for m, n in zip(reach, grid.shape, strict=True)):
        raise InputError(
            f"shells that reach {max(reach)} cells fit nowhere in {grid.shape}; leave the largest out"
        )
    return tuple(slice(m, n - m) for m, n in zip(reach, grid.shape, strict=True))
