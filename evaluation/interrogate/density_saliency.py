"""Which given cells an emulated cell listens to, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import Map
from evaluation.interrogate.saliency import SHARES, within
from gen.fields import Grid

ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class DensitySaliency:
    """Squares of d field (cell) / d given field (every cell), their sum over a cell's all being 1.

    Args:
        n_cells: cells whose derivatives were taken; those that depend on nothing, being empty, are left out.
        radius: ``(n,)`` in the unit of the grid.
        held: share of the squares of given cells whose centres are within the radius, mean over cells,
            ``(n,)`` by map; held_error: its standard error.
        reach: radii that hold ``SHARES``, median over cells; reach_error: standard error of the mean.
    """

    n_cells: dict[str, int]
    radius: np.ndarray
    held: dict[str, np.ndarray]
    held_error: dict[str, np.ndarray]
    reach: dict[str, np.ndarray]
    reach_error: dict[str, np.ndarray]


def gradient(of: Map, given: Tensor, cell: Sequence[int]) -> Tensor:
    """d field (cell) / d given cells, of the shape of one ``given (1, 1, *shape)``."""
    asked = given.clone().requires_grad_()
    (found,) = torch.autograd.grad(of(asked)[(0, 0, *cell)], asked)
    return found[0, 0].detach().double().cpu()


def distances(cell: Sequence[int], grid: Grid, coarse: Grid) -> Tensor:
    """From the centre of a cell of ``grid`` to those of ``coarse``, of one periodic box, nearest images."""
    lines = []
    for i, side, d, n, wide in zip(
        cell, grid.box_size, grid.spacing, coarse.shape, coarse.spacing, strict=True
    ):
        away = (torch.arange(n, dtype=torch.float64) + 0.5) * wide - (i + 0.5) * d
        lines.append(torch.remainder(away + side / 2, side) - side / 2)
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).norm(dim=0)


def ask(
    maps: Mapping[str, Map], given: Tensor, cells: Sequence[Sequence[int]], grid: Grid, coarse: Grid
) -> DensitySaliency:
    """Ask all maps of these cells in every box.

    Args:
        maps: from given fields ``(1, 1, *coarse shape)`` to ``(1, 1, *shape)``, differentiable.
        given: ``(B, 1, *coarse shape)``; boxes and cells together must be 2 or more.
    """
    step = coarse.spacing[0] / 2
    radius = np.arange(1, round(grid.box_size[0] / 2 / step) + 1) * step
    found: dict[str, list[np.ndarray]] = {name: [] for name in maps}
    for name, of in maps.items():
        for box in given.split(1):
            for cell in cells:
                r = distances(cell, grid, coarse)
                squares = gradient(of, box, cell).square()
                reach = within(r, squares, torch.ones(()) * 1e-12)
                total = squares.sum().clamp(min=1e-300)
                held = [float(squares[r <= x + 1e-9 * step].sum() / total) for x in radius]
                found[name].append(np.concatenate([held, reach]))
    heard = {name: np.stack([row for row in x if np.isfinite(row).all()] or x) for name, x in found.items()}
    n = {name: int(np.isfinite(x).all(1).sum()) for name, x in heard.items()}
    scatter = {name: x.std(0) / max(n[name] - 1, 1) ** 0.5 for name, x in heard.items()}
    error = {name: np.where(x > ROUNDING, x, 0.0) for name, x in scatter.items()}
    shares = len(SHARES)
    return DensitySaliency(
        n_cells=n,
        radius=radius,
        held={name: x[:, :-shares].mean(0) for name, x in heard.items()},
        held_error={name: x[:-shares] for name, x in error.items()},
        reach={name: np.median(x[:, -shares:], 0) for name, x in heard.items()},
        reach_error={name: x[-shares:] for name, x in error.items()},
    )
