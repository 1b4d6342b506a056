"""How alike two fields are at best, over the symmetries of their grid."""

from __future__ import annotations

from itertools import permutations, product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evaluation.base import check_finite, on_grid
from gen.errors import InputError
from gen.fields import Grid

_FINEST = {2: 32, 3: 16}  # cells a side that are compared, at most
_BLOCK = 1 << 25  # numbers in the largest array


def orbit(values: Tensor) -> Tensor:
    """``(n_symmetries, B, *shape)``: flips and exchanges of axes of equal length, the identity first."""
    shape = values.shape[1:]
    axes = [p for p in permutations(range(len(shape))) if tuple(shape[a] for a in p) == tuple(shape)]
    return torch.stack(
        [
            values.permute(0, *(a + 1 for a in p)).flip([j + 1 for j, f in enumerate(flips) if f])
            for p in axes
            for flips in product((False, True), repeat=len(shape))
        ]
    )


class Likeness:
    r"""The largest correlation coefficient of two fields over the symmetries of their grid.

    ``r(x, y) = max_g <g x, y> / (|x| |y|)`` of fields less their means, g over flips and exchanges of axes
    (8 in 2D, 48 in 3D) and, on a periodic grid, over all translations. A copy has r = 1 whatever has been
    done to its amplitude and offset. Fields are compared at up to 32^2 or 16^3 cells, so a copy
    with other small scales counts as a copy.

    Args:
        grid: of the fields.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.shape = tuple(min(n, _FINEST[grid.dim]) for n in grid.shape)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """``(A, 1, *shape)`` and ``(B, 1, *shape)`` -> r ``(A, B)``, in [-1, 1]."""
        return self.between(self.normalised(a), self.normalised(b))

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """The same of fields that ``normalised`` has prepared, ``(A, *coarse)`` and ``(B, *coarse)``."""
        turned = orbit(x)
        if self.grid.periodic:
            return self._over_translations(turned, y)
        best = torch.full((len(x), len(y)), -1.0, device=x.device)
        for t in turned:
            torch.maximum(best, t.flatten(1) @ y.flatten(1).T, out=best)
        return best.clamp(-1, 1)

    def normalised(self, values: Tensor) -> Tensor:
        """``(B, *coarse)`` block means less their mean, of unit norm."""
        x = on_grid(values, self.grid)
        check_finite(values)
        x = interpolate(x.float()[:, None], self.shape, mode="area")[:, 0]
        axes = tuple(range(1, x.ndim))
        x = x - x.mean(axes, keepdim=True)
        norm = x.square().sum(axes, keepdim=True).sqrt()
        if (norm == 0).any():
            raise InputError(
                "a field of one value everywhere cannot be compared with others; leave such fields out"
            )
        return x / norm

    def _over_translations(self, turned: Tensor, y: Tensor) -> Tensor:
        axes = tuple(range(-self.grid.dim, 0))
        f, g = torch.fft.rfftn(turned, dim=axes), torch.fft.rfftn(y, dim=axes).conj()
        best = torch.empty(turned.shape[1], len(y), device=y.device)
        rows = max(1, _BLOCK // (turned.shape[0] * y[0].numel() * 4))
        for i in range(turned.shape[1]):
            for j in range(0, len(y), rows):
                product_ = f[:, i, None] * g[j : j + rows]
                r = torch.fft.irfftn(product_, s=self.shape, dim=axes)
                best[i, j : j + rows] = r.amax((0, *axes))
        return best.clamp(-1, 1)
