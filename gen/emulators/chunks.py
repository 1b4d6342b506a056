"""Boxes of any size, in chunks: what is global once, the network in pieces that overlap.

A network of convolutions makes a chunk's cells from those within a known distance, its halo. In a piece of
the box that holds a chunk and its halo, the network's own treatment of the piece's faces is heard within the
halo only, which is cut off; what is left is what the whole box would have given, if pieces begin where the
network's coarsest cells do. What knows the whole box (Fourier transforms, white noise) is made before, once,
so chunks share one universe and one field of noise, and there are no seams.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from gen.emulators.base import Emulator
from gen.emulators.conditioning import Channels
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import normal


class Reach(Protocol):
    """How a network hears: its coarsest cells are ``factor`` fine ones, its ``halo`` as of ``UNet``."""

    @property
    def factor(self) -> int: ...
    @property
    def halo(self) -> int: ...


@runtime_checkable
class Local(Protocol):
    """An emulator that is a local map of fields made beforehand: ``generate`` is ``finish`` of ``inputs``.

    ``margin``: cells beyond the field on every side, worked on and cut off. ``network``: all that is not
    pointwise in ``finish``.
    """

    grid: Grid
    margin: int

    @property
    def network(self) -> Reach: ...

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The cells worked on for a field of ``shape``, margins and all; InputError if there is none."""
        ...

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """What ``finish`` takes, channel by channel ``(B, *worked)``, in the memory of a few channels."""
        ...

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        """Fields in physical units of inputs ``(B, channels, *shape)``."""
        ...


class Piece(NamedTuple):
    """``field``: the chunk's cells in the field; ``read``: the cells worked on that make it, counted on
    beyond the faces of a periodic box; ``kept``: the chunk's among these. A slice or range an axis."""

    field: tuple[slice, ...]
    read: tuple[range, ...]
    kept: tuple[slice, ...]


@dataclass(frozen=True)
class Pointwise:
    """The reach of a map of each cell by itself."""

    factor: int = 1
    halo: int = 0


class Whole:
    """An emulator that makes fields of others at once: as a ``Local``, all of it is global."""

    margin, network = 0, Pointwise()

    def __init__(self, emulator: Emulator) -> None:
        self.emulator, self.grid = emulator, emulator.grid

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape)

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """The channels of the fields."""
        given = None if coarse is None else torch.stack([coarse[:, i] for i in range(coarse.shape[1])], 1)
        yield from self.emulator.generate(params, generators, given, shape).unbind(1)

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        del params
        return inputs


def local(emulator: Emulator) -> Local:
    """The emulator, if it can be applied in chunks, or makes fields of others whole.

    Raises:
        InputError: if neither.
    """
    if not isinstance(emulator, Local) and emulator.needs_coarse:
        return Whole(emulator)
    if not isinstance(emulator, Local):
        raise InputError(
            f"{type(emulator).__name__} is not a local map of fields and cannot be applied in chunks; draw "
            "whole fields with cosmozoo sample"
        )
    return emulator


def pieces(emulator: Local, shape: Sequence[int], chunk: int) -> list[Piece]:
    """The pieces that fields of ``shape`` are made in, in chunks of ``chunk`` cells a side.

    An axis no longer than a chunk and its halos stays whole.

    Raises:
        InputError: for a shape that the emulator cannot make, or chunks of no cell.
    """
    if chunk < 1:
        raise InputError(f"chunk must be at least 1 cell a side, got {chunk}")
    if len(shape) != emulator.grid.dim:
        raise InputError(f"shape must be {emulator.grid.dim} sizes, got {tuple(shape)}")
    worked = emulator.worked(shape)
    axes = [_along(emulator, n, w, chunk) for n, w in zip(shape, worked, strict=True)]
    return [Piece(*map(tuple, zip(*parts, strict=True))) for parts in product(*axes)]


def _along(emulator: Local, n: int, worked: int, chunk: int) -> list[tuple[slice, range, slice]]:
    """Chunk, cells read and cells kept, along one axis."""
    margin, factor, halo = emulator.margin, emulator.network.factor, emulator.network.halo
    if chunk + 2 * halo >= worked:
        chunk = n
    parts = []
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        low, high = margin + start, margin + stop
        first = ((low // factor) * factor - halo) // factor * factor
        last = -(-(-(-high // factor) * factor + halo) // factor) * factor
        if chunk == n:
            first, last = 0, worked
        elif not emulator.grid.periodic:  # what the network makes of the field's own faces is to be kept
            first, last = max(first, 0), min(last, worked)
        parts.append((slice(start, stop), range(first, last), slice(low - first, high - first)))
    return parts


def make(emulator: Local, inputs: Sequence[Tensor], params: Tensor, piece: Piece) -> Tensor:
    """The cells ``(B, C, *chunk)`` of a chunk, from all inputs, each ``(B, *worked)``."""
    sides = inputs[0].shape[1:]
    read = [torch.tensor(r) % n for r, n in zip(piece.read, sides, strict=True)]
    mesh = torch.meshgrid(*read, indexing="ij")
    near = torch.stack([channel[(slice(None), *mesh)] for channel in inputs], 1)
    made = emulator.finish(near.to(params), params)
    return made[(slice(None), slice(None), *piece.kept)]


def generate_in_chunks(
    emulator: Local,
    params: Tensor,
    generators: Sequence[torch.Generator],
    coarse: Channels | None = None,
    shape: Sequence[int] | None = None,
    chunk: int = 64,
) -> Tensor:
    """``Emulator.generate`` in chunks: to rounding the same fields ``(B, C, *shape)``.

    Only the network's memory is that of a piece; ``cosmozoo apply`` keeps all else on disk.

    Raises:
        InputError: as ``pieces``, and as the emulator for coarse fields that do not fit.
    """
    shape = emulator.grid.shape if shape is None else tuple(shape)
    plan = pieces(emulator, shape, chunk)
    inputs = list(emulator.inputs(params, generators, coarse, shape))
    first = make(emulator, inputs, params, plan[0])
    fields = first.new_empty(*first.shape[:2], *shape)
    fields[(..., *plan[0].field)] = first
    for piece in plan[1:]:
        fields[(..., *piece.field)] = make(emulator, inputs, params, piece)
    return fields


def white_channels(generators: Sequence[torch.Generator], n: int, shape: Sequence[int]) -> Iterator[Tensor]:
    """The channels ``(B, *shape)`` of ``normal(generators, (n, *shape))``, one at a time."""
    if math.prod(shape) % 16:  # torch draws in blocks of 16
        yield from normal(generators, (n, *shape)).unbind(1)
    else:
        for _ in range(n):
            yield normal(generators, shape)
