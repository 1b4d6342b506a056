"""Eulerian fields of particles that are given by their displacements, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.mass_assignment import corners


def eulerian(lagrangian: Tensor, grid: Grid) -> Tensor:
    """Density, and momentum density if there are velocities, of displaced particles, one a cell.

    Args:
        lagrangian: displacement ``(B, dim, *shape)`` in the unit of ``grid``, and velocity ``(B, dim, ...)``
            after it if given; particles start at the centres of the cells.

    Returns:
        ``1 + delta`` and ``(1 + delta) v``, ``(B, 1 (+ dim), *shape)``, by cloud-in-cell, values at the
        centres of the cells; gradients reach displacement and velocity.

    Raises:
        InputError: for a grid that is not periodic or has sides of different numbers of cells.
    """
    n, dim = grid.shape[0], grid.dim
    if len(set(grid.shape)) > 1 or len(set(grid.box_size)) > 1 or not grid.periodic:
        raise InputError(f"an Eulerian loss needs a periodic cube, got {grid.shape} cells of {grid.box_size}")
    psi, carried = lagrangian[:, :dim].flatten(2), lagrangian[:, dim:].flatten(2)
    line = torch.arange(n, dtype=psi.dtype, device=psi.device)
    start = torch.stack(torch.meshgrid(*[line] * dim, indexing="ij")).flatten(1)
    x = torch.remainder(start + psi / grid.spacing[0], n)
    x = torch.where(x >= n, 0.0, x)  # a tiny negative number rounds to exactly n
    cells, shares = zip(*corners(x, n), strict=True)
    cell, share = torch.cat(cells), torch.stack(shares)
    empty = x.new_zeros(len(x) * n**dim)
    deposits = [share, *(share * v.flatten() for v in carried.unbind(1))]
    mesh = [empty.index_add(0, cell, each.flatten()) for each in deposits]
    return torch.stack([m.unflatten(0, (len(x), *grid.shape)) for m in mesh], 1)
