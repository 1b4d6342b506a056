"""Symmetries of maps between densities: how far a field depends on the frame of what it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evaluation.interrogate.asking import Map
from evaluation.interrogate.symmetry import FLAT_TURNS, TURNS, cells, turned_cells


@dataclass(frozen=True, eq=False)
class DensitySymmetry:
    """rms of ``f(g x) - g f(x)`` over cells, in units of the map's rms distance from the truth.

    x is all that a field is made from, noise included, and g moves all of it alike.

    Args:
        names: of the transformations g; one translates by as many cells as a network's coarsest cell.
        broken, broken_error: ``(G,)`` by map, mean over boxes with its standard error.
        error: rms distance from the truth, in the field's unit, by map.
    """

    n_boxes: int
    names: tuple[str, ...]
    broken: dict[str, np.ndarray]
    broken_error: dict[str, np.ndarray]
    error: dict[str, float]


def ask(maps: Mapping[str, Map], inputs: Tensor, truth: Tensor, factor: int) -> DensitySymmetry:
    """Put boxes in all frames to all maps.

    Args:
        maps: from inputs ``(B, C, *shape)``, scalars in 2D or 3D, to fields ``(B, 1, *shape)``.
        inputs: of at least 2 boxes.
        truth: ``(B, 1, *shape)``.
        factor: cells along a side of a network's coarsest cell, 1 if it has none.
    """
    dim, n = inputs.ndim - 2, len(inputs)
    turns = TURNS if dim == 3 else FLAT_TURNS
    steps = sorted({1, factor})
    plain = {name: of(inputs) for name, of in maps.items()}
    error = {name: float(_rms(x - truth).mean()) for name, x in plain.items()}
    broken: dict[str, np.ndarray] = {}
    for name, of in maps.items():
        rows = []
        for step in steps:
            shift = (step,) * dim, tuple(range(2, 2 + dim))
            rows.append(_rms(of(inputs.roll(*shift)) - plain[name].roll(*shift)))
        for axes, signs in turns.values():
            there = of(turned_cells(inputs, axes, signs))
            rows.append(_rms(there - turned_cells(plain[name], axes, signs)))
        broken[name] = np.stack(rows) / error[name]
    return DensitySymmetry(
        n_boxes=n,
        names=(*map(cells, steps), *turns),
        broken={name: x.mean(1) for name, x in broken.items()},
        broken_error={name: x.std(1, ddof=1) / n**0.5 for name, x in broken.items()},
        error=error,
    )


def _rms(field: Tensor) -> np.ndarray:
    """Over the cells of each box, ``(B,)``."""
    return field.detach().double().square().flatten(1).mean(1).sqrt().cpu().numpy()
