"""Paths, sums and sweeps through a latent space: the fields that ``cosmozoo explore`` shows and measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.course import Course, FieldNumbers, standard_error
from gen.emulators.base import Emulator
from gen.emulators.latent import (
    ARITHMETIC,
    fields_of,
    great_circle,
    latent_space,
    mixtures,
    straight_line,
)
from gen.noise import sample_generator


@dataclass(frozen=True, eq=False)
class Paths:
    """Numbers ``(n, steps, n_numbers)`` on great circles and straight lines; planes of the first circles."""

    circle: np.ndarray
    line: np.ndarray
    planes: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Sums:
    """Fields of a, b, c and (a - b + c) / sqrt(3).

    ``draws (3 n, n_numbers)`` are the numbers of those of a, b and c, which are fresh draws of the emulator.
    Over the cells ``correlation (n, 3)`` is that of the sum's field with theirs, and ``unrelated (n,)`` that
    of a's with b's: its mean is not zero if all fields have a pattern in common.
    """

    draws: np.ndarray
    correlation: np.ndarray
    unrelated: np.ndarray
    planes: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Numbers ``(steps, n_numbers)`` at ``values (steps,)`` of one parameter, all else fixed."""

    name: str
    values: np.ndarray
    numbers: np.ndarray
    planes: np.ndarray


@dataclass(frozen=True, eq=False)
class Walk:
    """An emulator seen from one set of parameters ``(1, P)`` and one seed."""

    emulator: Emulator
    params: Tensor
    seed: int
    numbers: FieldNumbers

    def latents(self, first: int, n: int, stream: str = "") -> Tensor:
        """``(n, N)`` latents; those of no stream are behind the fields of ``cosmozoo sample``."""
        generators = [sample_generator(self.seed, i, stream) for i in range(first, first + n)]
        return latent_space(self.emulator).white_latent(generators)

    def fields(self, weights: Tensor, latents: Tensor) -> Tensor:
        """Fields ``(S, C, *shape)`` of mixtures of latents."""
        return fields_of(self.emulator, mixtures(weights, latents), self.params)

    def paths(self, n: int, steps: int, shown: int) -> Paths:
        """Path i leads from the latent of field 2 i to that of field 2 i + 1."""
        weights = torch.cat([great_circle(steps), straight_line(steps)[1:-1]])
        circle, line, planes = [], [], []
        for i in range(n):
            fields = self.fields(weights, self.latents(2 * i, 2))
            found = self.numbers(fields)
            circle.append(found[:steps])
            line.append(np.concatenate([found[:1], found[steps:], found[steps - 1 : steps]]))
            if i < shown:
                planes.append(middle_planes(fields[:steps]))
        return Paths(np.stack(circle), np.stack(line), planes)

    def sums(self, n: int, shown: int) -> Sums:
        """Of latents that no path has."""
        weights = torch.cat([torch.eye(3, dtype=torch.float64), ARITHMETIC[None]])
        draws, correlation, planes = [], [], []
        for i in range(n):
            fields = self.fields(weights, self.latents(3 * i, 3, "arithmetic"))
            draws.append(self.numbers(fields[:3]))
            correlation.append(np.corrcoef(fields[:, 0].flatten(1).double().numpy()))
            if i < shown:
                planes.append(middle_planes(fields))
        r = np.stack(correlation)
        return Sums(np.concatenate(draws), r[:, 3, :3], r[:, 0, 1], planes)

    def sweep(self, i: int, steps: int) -> Sweep:
        """Parameter i from the low to the high end of its trained range, with the latent of field 0."""
        space = self.emulator.space
        table = self.params.repeat(steps, 1)
        table[:, i] = torch.linspace(space.low[i], space.high[i], steps, dtype=torch.float64)
        fields = fields_of(self.emulator, self.latents(0, 1).expand(steps, -1), table)
        return Sweep(space.names[i], table[:, i].numpy(), self.numbers(fields), middle_planes(fields))


@dataclass(frozen=True, eq=False)
class Explored:
    """What a walk found: ``circle`` and ``line`` are judged in their middle against ``sums.draws``."""

    numbers: FieldNumbers
    paths: Paths
    sums: Sums
    sweeps: list[Sweep]
    circle: Course
    line: Course

    @classmethod
    def of(cls, walk: Walk, paths: int, steps: int, shown: tuple[int, int]) -> Explored:
        """Take as many paths and sums, of which so many of each are shown, and sweep every parameter."""
        along, sums = walk.paths(paths, steps, shown[0]), walk.sums(paths, shown[1])
        sweeps = [walk.sweep(i, steps) for i in range(len(walk.emulator.space))]
        circle, line = (Course.of(values, sums.draws) for values in (along.circle, along.line))
        return cls(walk.numbers, along, sums, sweeps, circle, line)

    def to_dict(self) -> dict[str, Any]:
        """Every number that is drawn, in physical units."""
        draws, correlation = self.sums.draws, self.sums.correlation
        shown = self.circle.values[: len(self.paths.planes)]
        return {
            "numbers": self.numbers.to_list(),
            "draws": {"n": len(draws), "mean": draws.mean(0).tolist(), "std": draws.std(0, ddof=1).tolist()},
            "paths": {
                "n": len(self.circle.values),
                "t": np.linspace(0, 1, shown.shape[1]).tolist(),
                "shown": shown.tolist(),
                "great_circle": self.circle.to_dict(),
                "straight_line": self.line.to_dict(),
            },
            "arithmetic": {
                "n": len(correlation),
                "shown": correlation[: len(self.sums.planes)].tolist(),
                "correlation": correlation.mean(0).tolist(),
                "error": standard_error(correlation).tolist(),
                "linear": ARITHMETIC.tolist(),
                "unrelated": {
                    "correlation": float(self.sums.unrelated.mean()),
                    "error": float(standard_error(self.sums.unrelated)),
                },
            },
            "sweeps": {
                s.name: {"values": s.values.tolist(), "numbers": s.numbers.tolist()} for s in self.sweeps
            },
        }


def middle_planes(fields: Tensor) -> np.ndarray:
    """The first channel ``(B, n, m)`` of 2D fields, of 3D ones the middle slice of the last axis."""
    first = fields[:, 0]
    return (first if first.ndim == 3 else first[..., first.shape[-1] // 2]).numpy()
