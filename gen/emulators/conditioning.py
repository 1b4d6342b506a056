"""What emulators that are given a field beside the parameters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from gen.errors import InputError

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class Channels(Protocol):
    """Fields ``(B, C, *shape)`` of which ``[:, i]`` is a channel: a tensor, or what reads one from a file."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, index: tuple[slice, int], /) -> Tensor: ...


C = TypeVar("C", bound=Channels)


def check_coarse(coarse: C | None, n_channels: int, shape: Sequence[int], factor: int, what: str) -> C:
    """The given fields, if they are ``(B, n_channels, *shape)`` with sides that divide by ``factor``.

    Raises:
        InputError: if they are missing or of another shape.
    """
    want = f"(B, {n_channels}, {', '.join(map(str, shape))})"
    if coarse is None:
        raise InputError(f"this emulator makes fields from the {what}, {want}; give it as coarse")
    if tuple(coarse.shape[1:]) != (n_channels, *shape):
        raise InputError(
            f"coarse, the {what}, must have shape {want}, got {tuple(coarse.shape)}; for a box of another "
            f"size but the same cells give shape too"
        )
    if any(n % factor for n in shape):
        raise InputError(f"sides of coarse, the {what}, must divide by {factor} cells, got {tuple(shape)}")
    return coarse


def fitting_rows(data: SimulationSet, most: int) -> Tensor:
    """Indices of evenly spaced fields, at most ``most``."""
    return torch.arange(0, len(data), max(1, -(-len(data) // most)))
