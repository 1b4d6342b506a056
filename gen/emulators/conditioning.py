"""What emulators that are given a field beside the parameters share."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.noise import sample_generator

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


def divisible(shape: Sequence[int], factor: int) -> tuple[int, ...]:
    """The sides, if all of them divide by ``factor``.

    Raises:
        InputError: if they do not.
    """
    if any(n % factor for n in shape):
        raise InputError(f"sides must divide by {factor} cells, got {tuple(shape)}")
    return tuple(shape)


def refuse_negative(coarse: Tensor) -> None:
    """Refuse what is no density.

    Raises:
        InputError: for values below 0.
    """
    if not bool((coarse >= 0).all()):
        raise InputError("coarse must be a density 1 + delta, which is never negative; add 1 to delta")


class Deterministic(Emulator):
    """A map from one field to another without randomness, which regression trains."""

    micro_batch = 4
    needs_coarse = True

    @abstractmethod
    def predict(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Fields ``(B, C, *shape)`` of given ones at ``(B, P)`` parameters, differentiable in all."""

    @abstractmethod
    def check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        """The given fields, if fields of ``shape`` can be made of them; InputError if they cannot."""

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """What ``predict`` says: the generators are not used.

        Raises:
            InputError: without the fields that it starts from, or with those of another shape.
        """
        del generators
        coarse = self.check(coarse, self.grid.shape if shape is None else tuple(shape))
        return self.predict(coarse.to(params), params)


def own_generators(coarse: Tensor, stream: str) -> list[torch.Generator]:
    """A generator for each given field, set by its bits: the same field is always met by the same noise."""
    fields = coarse.detach().cpu().float().contiguous()
    digests = [hashlib.sha256(field.numpy().tobytes()).digest() for field in fields]
    return [sample_generator(int.from_bytes(digest[:7], "little"), 0, stream) for digest in digests]


def mean_square(fields: Tensor) -> Tensor:
    """Of each channel of each row, ``(B, C)``."""
    return fields.flatten(2).square().mean(2)


def shared_scale(squares: Tensor, groups: Sequence[int]) -> Tensor:
    """Root mean squares ``(C,)`` of mean squares ``(B, C)``, one number for each group of channels."""
    parts = squares.mean(0).split(list(groups))
    return torch.cat([part.mean().sqrt().clamp(min=1e-12).expand(len(part)) for part in parts])


def evenly(n: int, count: int) -> Tensor:
    """``count`` evenly spaced indices below ``n``, repeating if there are more."""
    return torch.arange(count) * n // count if count <= n else torch.arange(count) % n


def fitting_rows(data: SimulationSet, most: int) -> Tensor:
    """Indices of evenly spaced fields, at most ``most``."""
    return torch.arange(0, len(data), max(1, -(-len(data) // most)))
