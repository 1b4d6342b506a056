"""Cloud-in-cell assignment between particles and a periodic mesh, in 2D and 3D (Hockney & Eastwood 1981).

Positions are ``(B, dim, P)`` in units of the mesh cell, 0 <= x < M; a cell's centre carries its index.
The layout (axis before particle) and the wrap by comparison make it about twice as fast on a CPU as
``(P, 3)`` with a modulo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from gen.errors import InputError


def wrap(positions: Tensor, mesh: int) -> Tensor:
    """Bring positions that left the box back into [0, mesh), in place."""
    positions.remainder_(mesh)
    # A tiny negative number rounds to exactly ``mesh``.
    return positions.masked_fill_(positions >= mesh, 0.0)


def corners(positions: Tensor, mesh: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each of the 2^dim nearest cells, flat index into ``(B, M, ..., M)`` and weight, each ``(B*P,)``."""
    batch, dim, _ = positions.shape
    if batch * mesh**dim >= 2**31:
        raise InputError(
            f"{batch} meshes of {mesh}^{dim} cells exceed 2^31 cells; take fewer realisations at once"
        )
    low = positions.floor()
    upper_weight = positions - low
    below = low.to(torch.int32).clamp_(max=mesh - 1)
    above = below + 1
    above = torch.where(above == mesh, torch.zeros_like(above), above)
    stride = [mesh ** (dim - 1 - axis) for axis in range(dim)]
    offset = torch.arange(batch, dtype=torch.int32, device=positions.device)[:, None] * mesh**dim
    index = [
        [cell[:, axis] * stride[axis] + (offset if axis == 0 else 0) for cell in (below, above)]
        for axis in range(dim)
    ]
    weight = [[1 - upper_weight[:, axis], upper_weight[:, axis]] for axis in range(dim)]
    for sides in product((0, 1), repeat=dim):
        cell, share = index[0][sides[0]], weight[0][sides[0]]
        for axis, side in enumerate(sides[1:], 1):
            cell, share = cell + index[axis][side], share * weight[axis][side]
        yield cell.reshape(-1), share.reshape(-1)


def deposit(positions: Tensor, mesh: int, weights: Tensor | None = None) -> Tensor:
    """Number of particles in each cell, or sum of their ``weights (B, P)``, ``(B, M, ..., M)``.

    The total is conserved.
    """
    batch, dim, _ = positions.shape
    count = positions.new_zeros(batch * mesh**dim)
    for cell, share in corners(positions, mesh):
        count.index_add_(0, cell, share if weights is None else share * weights.reshape(-1))
    return count.reshape(batch, *(mesh,) * dim)


def readout(fields: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Interpolate C fields ``(B, M, ..., M)`` at the particles, ``(B, C, P)``; the adjoint of ``deposit``."""
    batch, mesh = fields[0].shape[:2]
    flat = [field.reshape(-1) for field in fields]
    out = [positions.new_zeros(batch * positions.shape[2]) for _ in flat]
    for cell, share in corners(positions, mesh):
        for source, target in zip(flat, out, strict=True):
            target.addcmul_(source.index_select(0, cell), share)
    return torch.stack([target.reshape(batch, -1) for target in out], dim=1)


def window(mesh: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """Fourier transform of the assignment, prod sinc^2(k_i / 2), on the rfftn lattice, float64."""
    full = torch.sinc(torch.fft.fftfreq(mesh, dtype=torch.float64, device=device)) ** 2
    out = torch.sinc(torch.fft.rfftfreq(mesh, dtype=torch.float64, device=device)) ** 2
    for _ in range(dim - 1):
        out = full.reshape(-1, *(1,) * out.ndim) * out
    return out
