"""Symmetries of gravity in a periodic box, as numbers: how far answers depend on the question's frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import EMULATOR, TRUTH, Map, Maps, rms
from gen.fields import Grid

TURNS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "quarter turn": ((1, 0, 2), (-1, 1, 1)),
    "third of a turn": ((1, 2, 0), (1, 1, 1)),
    "mirror": ((0, 1, 2), (-1, 1, 1)),
    "inversion": ((0, 1, 2), (-1, -1, -1)),
    "axes exchanged": ((0, 2, 1), (1, 1, 1)),
}
"""Old axis that becomes each new axis, and the sign of each new one. They generate all 48 of the cube."""
FLAT_TURNS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "quarter turn": ((1, 0), (-1, 1)),
    "mirror": ((0, 1), (-1, 1)),
    "inversion": ((0, 1), (-1, -1)),
    "axes exchanged": ((1, 0), (1, 1)),
}
"""The same of the square, which they generate all 8 of."""
DRIFT = (1.0, -2.0, 0.5)
"""Of the whole box [Mpc/h]."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """rms over particles and boxes of ``f(g psi) - g f(psi)`` [Mpc/h], with its standard error over boxes.

    Args:
        names: of the transformations g; ``factor`` translates by as many cells as a network's coarsest cell.
        broken, broken_error: ``(G,)`` by map; NaN where the map cannot be asked.
        mean, mean_error: length of the mean displacement of a box [Mpc/h], by map, which no force between
            particles can bring about.
        of_nothing: rms displacement [Mpc/h] that a map makes of none, by map.
        error: rms distance from the truth [Mpc/h], by map, for scale.
    """

    n_boxes: int
    names: tuple[str, ...]
    broken: dict[str, np.ndarray]
    broken_error: dict[str, np.ndarray]
    mean: dict[str, float]
    mean_error: dict[str, float]
    of_nothing: dict[str, float]
    error: dict[str, float]


def turned(displacement: Tensor, axes: tuple[int, int, int], signs: tuple[int, int, int]) -> Tensor:
    """A rotation or reflection of the cube acting on vectors ``(B, 3, n, n, n)``: places and components.

    New axis j is old axis ``axes[j]``, reversed if ``signs[j]`` is -1; so are components.
    """
    moved = turned_cells(displacement, axes, signs)
    sign = displacement.new_tensor(signs, dtype=displacement.dtype)[:, None, None, None]
    return moved[:, list(axes)] * sign


def turned_cells(fields: Tensor, axes: Sequence[int], signs: Sequence[int]) -> Tensor:
    """The same acting on the places alone, of scalars ``(B, C, *shape)``."""
    flipped = [2 + j for j, s in enumerate(signs) if s < 0]
    return fields.permute(0, 1, *(2 + a for a in axes)).flip(flipped)


def count(factor: int) -> int:
    """Displacements that ``ask`` asks of the truth for each box; of other maps one more."""
    return 1 + len(TURNS) + len({1, factor})


def ask(maps: Maps, psi: Tensor, grid: Grid, factor: int) -> Symmetry:
    """Put boxes in all frames to all maps.

    Args:
        maps: with ``TRUTH`` among them.
        psi: Zel'dovich displacements ``(B, 3, n, n, n)`` [Mpc/h] of at least 2 boxes.
        grid: periodic cube.
        factor: cells along a side of a network's coarsest cell, 1 if it has none.
    """
    steps = sorted({1, factor})
    names = (*(cells(s) for s in steps), *TURNS, "uniform drift")
    plain = {name: of(psi) for name, of in maps.items()}
    broken = {
        name: np.stack(_broken(of, psi, plain[name], steps, name == TRUTH)) for name, of in maps.items()
    }
    n = len(psi)
    mean = {name: x.double().mean((2, 3, 4)).norm(dim=1).numpy() for name, x in plain.items()}
    return Symmetry(
        n_boxes=n,
        names=names,
        broken={name: np.sqrt((x**2).mean(1)) for name, x in broken.items()},
        broken_error={name: x.std(1, ddof=1) / n**0.5 for name, x in broken.items()},
        mean={name: float(x.mean()) for name, x in mean.items()},
        mean_error={name: float(x.std(ddof=1) / n**0.5) for name, x in mean.items()},
        of_nothing={name: float(rms(of(torch.zeros_like(psi[:1])))) for name, of in maps.items()},
        error={name: float(rms(x - plain[TRUTH]).square().mean().sqrt()) for name, x in plain.items()},
    )


def cells(n: int) -> str:
    """The name of a translation."""
    return "shift by 1 cell" if n == 1 else f"shift by {n} cells"


def _broken(of: Map, psi: Tensor, plain: Tensor, steps: list[int], is_truth: bool) -> list[np.ndarray]:
    """rms of the difference, ``(B,)`` for each transformation."""
    found = []
    for s in steps:
        shift = (s, s, s), (2, 3, 4)
        found.append(rms(of(psi.roll(*shift)) - plain.roll(*shift)).numpy())
    for axes, signs in TURNS.values():
        found.append(rms(of(turned(psi, axes, signs)) - turned(plain, axes, signs)).numpy())
    # a simulation that starts from a density knows of no drift
    drift = torch.tensor(DRIFT)[:, None, None, None].to(psi)
    nothing = np.full(len(psi), np.nan)
    found.append(nothing if is_truth else rms(of(psi + drift) - plain - drift).numpy())
    return found


def worst(found: Symmetry, name: str = EMULATOR) -> float:
    """Largest of all numbers over the map's distance from the truth, NaN if that is zero."""
    error = found.error[name]
    return float(np.nanmax(found.broken[name]) / error) if error > 0 else float("nan")
