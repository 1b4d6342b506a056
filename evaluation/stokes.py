"""Maps that Stokes parameters make, and the statistics of one field taken of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Part, Statistic
from gen.errors import InputError

StokesMap = Callable[[Tensor], Tensor]
"""``(B, 3, *shape)`` I, Q, U -> ``(B, 1, *shape)``."""


def check_channels(values: Tensor) -> None:
    """Refuse fields that are neither of one channel nor of I, Q and U."""
    if values.shape[1] not in (1, 3):
        raise InputError(
            f"a report takes fields of one channel, or of the three Stokes parameters I, Q and U, got "
            f"{values.shape[1]} channels; write one channel to a file of its own"
        )


def intensity(values: Tensor) -> Tensor:
    """I, the first channel."""
    return values[:, :1].contiguous()


def polarised_intensity(values: Tensor) -> Tensor:
    """P = sqrt(Q^2 + U^2)."""
    return torch.linalg.vector_norm(values[:, 1:], dim=1, keepdim=True)


def polarisation_fraction(values: Tensor) -> Tensor:
    """p = P / I; -1 where I is not positive and p has no meaning."""
    i = intensity(values)
    return torch.where(i > 0, polarised_intensity(values) / i.where(i > 0, 1.0), -1.0)


def polarisation_angle(values: Tensor) -> Tensor:
    """psi = arctan2(U, Q) / 2 [deg], in [-90, 90), where both ends are one direction."""
    psi = torch.rad2deg(torch.atan2(values[:, 2:3], values[:, 1:2])) / 2
    return torch.where(psi >= 90, -90.0, psi)


@dataclass(frozen=True, eq=False)
class OfMap:
    """What a function of one field gives for a map that I, Q and U make."""

    function: Callable[[Tensor], Tensor]
    made: StokesMap

    def __call__(self, values: Tensor) -> Tensor:
        return self.function(self.made(values))


@dataclass(frozen=True, eq=False)
class StatisticOfMap:
    """A statistic of a map that I, Q and U make, ``(B, 3, *shape)`` -> ``(B, n_bins)``."""

    function: OfMap
    name: str
    label: str
    abscissa: np.ndarray
    unit: str
    n_modes: np.ndarray | None
    log: bool

    def __call__(self, values: Tensor) -> Tensor:
        return self.function(values)


def of_map(statistics: Sequence[Statistic], made: StokesMap, suffix: str = "") -> list[Statistic]:
    """The statistics of a map in the place of a field, their names with a suffix; parts share their pass."""
    joints: dict[int, OfMap] = {}
    found: list[Statistic] = []
    for s in statistics:
        if isinstance(s, Part):
            joint = joints.setdefault(id(s.joint), OfMap(s.joint, made))
            found.append(replace(s, joint=joint, name=s.name + suffix))
        else:
            about = s.label, s.abscissa, s.unit, s.n_modes, s.log
            found.append(StatisticOfMap(OfMap(s, made), s.name + suffix, *about))
    return found
