"""Small scales of a map in units that its large scales set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gen.errors import InputError


class Composition(ABC):
    """How small scales r join large ones c, both ``(B, 1, *shape)``, in a map's unit ``(B, 1, 1, ...)``."""

    @abstractmethod
    def unit(self, coarse: Tensor) -> Tensor:
        """A map's unit, from its large scales."""

    @abstractmethod
    def contrast(self, coarse: Tensor, unit: Tensor) -> Tensor:
        """x, the large scales without unit."""

    @abstractmethod
    def joined(self, coarse: Tensor, unit: Tensor, r: Tensor) -> Tensor:
        """The map M."""

    @abstractmethod
    def small(self, values: Tensor, coarse: Tensor, unit: Tensor) -> Tensor:
        """r of a map, the inverse of ``joined``."""

    @abstractmethod
    def step(self, aim: Tensor, reached: Tensor, unit: Tensor) -> Tensor:
        """The rise of r, to first order, that brings smoothed maps from ``reached`` to ``aim``."""

    @abstractmethod
    def flat(self, values: Tensor) -> Tensor:
        """A map, in one unit for all, where its fluctuations are of one size everywhere."""

    @abstractmethod
    def unflat(self, w: Tensor) -> Tensor:
        """The inverse of ``flat``."""

    def to_config(self) -> dict[str, Any]:
        return {"kind": type(self).__name__}


class Ratio(Composition):
    """``M = c exp(r)``, for fields that are positive; x = ln(c / mean of c)."""

    def unit(self, coarse: Tensor) -> Tensor:
        _positive(coarse, "coarse fields")
        return coarse.mean(tuple(range(1, coarse.ndim)), keepdim=True)

    def contrast(self, coarse: Tensor, unit: Tensor) -> Tensor:
        return (coarse / unit).log()

    def joined(self, coarse: Tensor, unit: Tensor, r: Tensor) -> Tensor:
        return coarse * r.exp()

    def small(self, values: Tensor, coarse: Tensor, unit: Tensor) -> Tensor:
        return (values / coarse).log()

    def step(self, aim: Tensor, reached: Tensor, unit: Tensor) -> Tensor:
        return (aim / reached.clamp(min=1e-6 * unit)).log()

    def flat(self, values: Tensor) -> Tensor:
        _positive(values, "fields")
        return values.log()

    def unflat(self, w: Tensor) -> Tensor:
        return w.exp()


class Sum(Composition):
    """``M = c + s r``, s the standard deviation of c, for fields of either sign; x = (c - mean of c) / s."""

    def unit(self, coarse: Tensor) -> Tensor:
        unit = coarse.std(tuple(range(1, coarse.ndim)), keepdim=True)
        if not bool((unit > 0).all()):
            raise InputError("a coarse field is constant and says nothing of how strong small scales are")
        return unit

    def contrast(self, coarse: Tensor, unit: Tensor) -> Tensor:
        return (coarse - coarse.mean(tuple(range(1, coarse.ndim)), keepdim=True)) / unit

    def joined(self, coarse: Tensor, unit: Tensor, r: Tensor) -> Tensor:
        return coarse + unit * r

    def small(self, values: Tensor, coarse: Tensor, unit: Tensor) -> Tensor:
        return (values - coarse) / unit

    def step(self, aim: Tensor, reached: Tensor, unit: Tensor) -> Tensor:
        return (aim - reached) / unit

    def flat(self, values: Tensor) -> Tensor:
        return values

    def unflat(self, w: Tensor) -> Tensor:
        return w


def composition_from_config(config: Mapping[str, Any]) -> Composition:
    """The composition that ``to_config`` described.

    Raises:
        InputError: for a kind that is none of this file's.
    """
    leaves = {leaf.__name__: leaf for leaf in (Ratio, Sum)}
    kind = config.get("kind")
    if kind not in leaves:
        raise InputError(f"a composition must be one of {', '.join(leaves)}, got {kind!r}")
    return leaves[kind]()


class Strength(nn.Module):
    """Mean and scatter of r where the large scales are x: linear between nodes of x, constant beyond them."""

    nodes: Tensor
    moments: Tensor

    def __init__(self, n_nodes: int = 12) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.linspace(-1, 1, n_nodes))
        self.register_buffer("moments", torch.stack([torch.zeros(n_nodes), torch.ones(n_nodes)]))

    @torch.no_grad()
    def fit(self, x: Tensor, r: Tensor) -> None:
        """Measure both in bins of equal numbers of cells.

        Raises:
            InputError: where r does not vary.
        """
        x, r = x.flatten().double(), r.flatten().double()
        parts = [(x[i].mean(), r[i].mean(), r[i].std()) for i in x.argsort().tensor_split(len(self.nodes))]
        nodes, mean, scatter = (torch.stack(column) for column in zip(*parts, strict=True))
        if not bool((scatter > 0).all()):
            raise InputError("fields and their coarse fields are alike: there are no small scales to learn")
        self.nodes.copy_(nodes)
        self.moments.copy_(torch.stack([mean, scatter]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scatter, each of the shape of ``x``."""
        nodes = self.nodes
        right = torch.searchsorted(nodes, x.detach().contiguous()).clamp(1, len(nodes) - 1)
        width = (nodes[right] - nodes[right - 1]).clamp(min=1e-9)
        share = ((x - nodes[right - 1]) / width).clamp(0, 1)
        mean, scatter = (m[right - 1] + share * (m[right] - m[right - 1]) for m in self.moments)
        return mean, scatter


def _positive(values: Tensor, what: str) -> None:
    if not bool((values > 0).all()):
        raise InputError(
            f"small scales that multiply need positive {what}, got values down to {values.min():g} under the "
            "logarithm; take off what makes them so, or let small scales add (gen.emulators.contrast.Sum)"
        )
