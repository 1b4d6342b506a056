"""From arrays read from files to a checked ``SimulationSet``: ids, split, trained range, regions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gen.data.base import SimulationSet, region_of, split_by_simulation
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace


def assemble(
    name: str,
    values: Tensor,
    grid: Grid,
    simulation: np.ndarray,
    params: np.ndarray,
    parameters: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    unit: str,
    coarse: Tensor | None = None,
    coarse_grid: Grid | None = None,
    vector_channels: tuple[tuple[int, ...], ...] = (),
    coarse_vector_channels: tuple[tuple[int, ...], ...] = (),
) -> SimulationSet:
    """Check the fields, split by simulation, and take the trained range from the training simulations.

    Args:
        values: ``(N, C, *grid.shape)`` float32.
        simulation: ``(N,)`` ids.
        params: ``(N, P)`` of ``parameters``.
        coarse, coarse_grid, vector_channels, coarse_vector_channels: as of ``SimulationSet``.

    Raises:
        InputError: for bad fields or too few simulations; see ``check_fields`` and ``split_by_simulation``.
    """
    rows = torch.as_tensor(params, dtype=torch.float32).reshape(len(values), -1)
    ids = torch.as_tensor(simulation, dtype=torch.int64)
    split = split_by_simulation(ids, fractions, seed)
    space = trained_range(name, parameters, rows, split)
    data = SimulationSet(
        grid,
        space,
        values,
        rows,
        ids,
        split,
        region_of(space, rows),
        name,
        unit,
        coarse,
        coarse_grid,
        vector_channels,
        coarse_vector_channels,
    ).check()
    check_fields(data)
    return data


def trained_range(name: str, parameters: Sequence[str], params: Tensor, split: np.ndarray) -> ParameterSpace:
    """The space spanned by the training rows, or by all rows if nothing is for training.

    Raises:
        InputError: for a parameter that does not vary there.
    """
    training = torch.from_numpy(split == "train")
    rows = params[training] if training.any() else params
    for parameter, column in zip(parameters, rows.T, strict=True):
        if column.min() == column.max():
            raise InputError(
                f"{name}: parameter {parameter} is {column[0].item():g} in every training simulation, so "
                "nothing can "
                f"be learned about it; leave it out of the parameters"
            )
    low, high = ([], []) if not len(parameters) else (rows.amin(0).tolist(), rows.amax(0).tolist())
    return ParameterSpace(parameters, low, high)


def check_fields(data: SimulationSet) -> None:
    """Refuse constant and duplicate fields.

    Raises:
        InputError: naming the first.
    """
    seen: dict[bytes, int] = {}
    for row, field in enumerate(data.values):
        flat = field.flatten(1)
        constant = flat.amin(1) == flat.amax(1)
        if constant.any():
            channel = int(constant.nonzero()[0, 0])
            raise InputError(
                f"{data.name}: channel {channel} of field {row} is {flat[channel, 0].item():g} everywhere, "
                f"so it carries no field; drop it or read it again"
            )
        key = hashlib.blake2b(np.ascontiguousarray(flat.numpy()).data, digest_size=16).digest()
        if key in seen:
            raise InputError(
                f"{data.name}: field {row} is a copy of field {seen[key]} (simulations "
                f"{int(data.simulation[row])} and {int(data.simulation[seen[key]])}); drop the duplicates"
            )
        seen[key] = row


def with_channels(values: Tensor, dim: int, what: str) -> Tensor:
    """``(N, *shape)`` or ``(N, C, *shape)`` as ``(N, C, *shape)``.

    Raises:
        InputError: for another number of axes, or channels that seem to come last.
    """
    if values.ndim == dim + 1:
        return values.unsqueeze(1)
    shape = tuple(values.shape)
    if values.ndim != dim + 2:
        axes = "H, W" if dim == 2 else "D, H, W"
        raise InputError(
            f"{what} must have shape (N, {axes}) or (N, C, {axes}), got {shape}; reshape it or set dim"
        )
    if len(set(shape[1:-1])) == 1 and shape[-1] != shape[1] and shape[-1] <= 16:
        raise InputError(f"{what} seems to have its channels last, got shape {shape}; move them to axis 1")
    return values


def blocks(n: int, size: int, what: str) -> np.ndarray:
    """Simulation ids ``(n,)`` of consecutive blocks of ``size`` fields.

    Raises:
        InputError: if ``size`` does not divide ``n``.
    """
    if size < 1 or n % size:
        raise InputError(
            f"{what}: {n} fields are no whole number of simulations of {size} fields each; "
            f"correct per_simulation, or the file may be truncated"
        )
    return np.arange(n) // size


def own_or_shared(params: np.ndarray) -> np.ndarray:
    """Simulation ids where nothing tells them: fields of equal parameters share one."""
    if not params.shape[1]:
        return np.arange(len(params))
    return np.unique(params, axis=0, return_inverse=True)[1].reshape(-1)
