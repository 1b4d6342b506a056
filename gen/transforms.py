"""Invertible, monotone maps between physical values and what a network likes to see.

A transform is a module whose state lies in buffers, so it is saved with the emulator that owns it.
All act on ``(B, C, *shape)``, are strictly increasing in every value, and carry gradients both ways.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from gen.errors import InputError


class Transform(nn.Module, ABC):
    """y = f(x), with f strictly increasing."""

    def fit(self, x: Tensor) -> Self:
        """Set the state from *training* values ``(B, C, *shape)``; by default only check the domain."""
        self.forward(x)
        return self

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Physical values to transformed ones."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Transformed values to physical ones."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """``{"kind": class name, ...}`` with the constructor's arguments; see ``from_config``."""


class Identity(Transform):
    """y = x."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, y: Tensor) -> Tensor:
        return y

    def to_config(self) -> dict[str, Any]:
        return {"kind": "Identity"}


class Log(Transform):
    """y = ln(x + shift), for x > -shift.

    Raises:
        InputError: in ``forward`` for values that are not above ``-shift``.
    """

    shift: Tensor

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        _above(x, -self.shift, "log(x + shift)", "choose a larger shift, or another transform")
        return (x + self.shift).log()

    def inverse(self, y: Tensor) -> Tensor:
        return y.exp() - self.shift

    def to_config(self) -> dict[str, Any]:
        return {"kind": "Log", "shift": self.shift.item()}


class Asinh(Transform):
    """y = asinh(x / scale): linear well below the scale, logarithmic well above, for either sign.

    Args:
        scale: where it turns, in the values' unit; if not given, ``fit`` takes the standard deviation.
    """

    scale: Tensor

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise InputError(f"the scale of asinh must be positive, got {scale}")
        self.fixed = scale is not None
        self.register_buffer("scale", torch.tensor(scale or 1.0, dtype=torch.float64))

    def fit(self, x: Tensor) -> Self:
        if not self.fixed:
            self.scale.copy_(_spread(x.double().std(), "asinh"))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.scale).asinh()

    def inverse(self, y: Tensor) -> Tensor:
        return y.sinh() * self.scale

    def to_config(self) -> dict[str, Any]:
        return {"kind": "Asinh", "scale": self.scale.item() if self.fixed else None}


class Rational(Transform):
    """y = 2 x / (x + a) - 1 maps [0, inf) to [-1, 1) (Rodriguez et al. 2018, arXiv:1801.09070).

    Defined and increasing for all x > -a; the inverse x = a (1 + y) / (1 - y) needs y < 1.

    Raises:
        InputError: in ``forward`` for x <= -a and in ``inverse`` for y >= 1.
    """

    a: Tensor

    def __init__(self, a: float = 4.0) -> None:
        super().__init__()
        if not a > 0:
            raise InputError(f"a of the rational transform must be positive, got {a}")
        self.register_buffer("a", torch.tensor(a, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        _above(x, -self.a, "2x/(x+a)-1", "choose a larger a, or another transform")
        return (x - self.a) / (x + self.a)

    def inverse(self, y: Tensor) -> Tensor:
        reached = ~(y.detach() < 1)
        if reached.any():
            raise InputError(
                f"the inverse of 2x/(x+a)-1 needs values below 1, got {int(reached.sum())} of {y.numel()} "
                "that are "
                f"not, the highest {y.detach().max().item():g}; keep the network's output below 1"
            )
        return self.a * (1 + y) / (1 - y)

    def to_config(self) -> dict[str, Any]:
        return {"kind": "Rational", "a": self.a.item()}


class Standardise(Transform):
    """y = (x - mean) / std, per channel, with mean and std of the training values."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_channels: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("std", torch.ones(n_channels, dtype=torch.float64))

    def fit(self, x: Tensor) -> Self:
        self._check_channels(x)
        by_channel = x.detach().double().transpose(0, 1).flatten(1)
        self.mean.copy_(by_channel.mean(1))
        self.std.copy_(_spread(by_channel.std(1), "standardise"))
        return self

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self._like(x)
        return (x - mean) / std

    def inverse(self, y: Tensor) -> Tensor:
        mean, std = self._like(y)
        return y * std + mean

    def to_config(self) -> dict[str, Any]:
        return {"kind": "Standardise", "n_channels": len(self.mean)}

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check_channels(x)
        shape = (-1, *(1,) * (x.ndim - 2))
        return self.mean.to(x).reshape(shape), self.std.to(x).reshape(shape)

    def _check_channels(self, x: Tensor) -> None:
        if x.ndim < 2 or x.shape[1] != len(self.mean):
            raise InputError(
                f"standardise expects values (B, {len(self.mean)}, ...) with one mean per channel, "
                f"got shape {tuple(x.shape)}"
            )


class Chain(Transform):
    """One transform after another: ``Chain([f, g])`` is g(f(x))."""

    def __init__(self, parts: Sequence[Transform]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def fit(self, x: Tensor) -> Self:
        for part in self._each():
            x = part.fit(x)(x)
        return self

    def forward(self, x: Tensor) -> Tensor:
        for part in self._each():
            x = part(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self._each()):
            y = part.inverse(y)
        return y

    def to_config(self) -> dict[str, Any]:
        return {"kind": "Chain", "parts": [part.to_config() for part in self._each()]}

    def _each(self) -> list[Transform]:
        return [part for part in self.parts if isinstance(part, Transform)]


def from_config(config: Mapping[str, Any]) -> Transform:
    """The transform that ``to_config`` described; its fitted state comes from the checkpoint.

    Raises:
        InputError: for a kind that is none of this file's classes.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind == "Chain":
        return Chain([from_config(part) for part in arguments["parts"]])
    for leaf in (Identity, Log, Asinh, Rational, Standardise):
        if kind == leaf.__name__:
            return leaf(**arguments)
    raise InputError(
        f"a transform must be Identity, Log, Asinh, Rational, Standardise or Chain, got {kind!r}"
    )


def _above(x: Tensor, bound: Tensor, formula: str, remedy: str) -> None:
    """Refuse values that are not above ``bound``, with their number and the lowest."""
    outside = ~(x.detach() > bound)
    if outside.any():
        raise InputError(
            f"{formula} needs values above {bound.item() + 0.0:g}, got {int(outside.sum())} of {x.numel()} "
            "that are "
            f"not, the lowest {x.detach().min().item():g}; {remedy}"
        )


def _spread(std: Tensor, what: str) -> Tensor:
    """The standard deviations, refused if one cannot divide."""
    if not (torch.isfinite(std) & (std > 0)).all():
        raise InputError(
            f"{what} cannot be fitted to values of standard deviation {std.min().item():g}; "
            f"give at least two different, finite training values per channel"
        )
    return std
