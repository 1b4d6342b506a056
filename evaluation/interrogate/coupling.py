"""Two perpendicular plane waves: gravity couples them, at second order first.

Jamieson et al. 2022 (arXiv:2206.04573) asked their emulator the same. For delta = A cos k1 x + A cos k2 y
the second-order displacement has the waves k+ = k1 + k2 and k- = k1 - k2 alone,

    psi2 = (D2 / D1^2) A^2 / (2 |k|^2) (k+ sin k+ q + k- sin k- q),   |k|^2 = k1^2 + k2^2

(Bouchet et al. 1995, astro-ph/9406013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import TRUTH, Maps, rms
from evaluation.interrogate.waves import coefficient, plane_wave
from gen.fields import Grid

AMPLITUDES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.2)
PAIRS = ((1, 1), (1, 3), (2, 2), (2, 4), (4, 4))


@dataclass(frozen=True, eq=False)
class Coupling:
    """Numbers for Q pairs of waves and A amplitudes, dictionaries by map.

    Args:
        pairs: k1 along x and k2 along y in units of 2 pi / L; k: |k1 + k2| [h/Mpc], ``(Q,)``.
        sum_wave, difference_wave: longitudinal displacement at k1 + k2 and k1 - k2 over 2LPT's closed form,
            ``(Q, A)``: 1 at second order, 0 of the Zel'dovich approximation.
        from_truth: rms difference of all displacements from the simulation's, over the rms of 2LPT's
            second-order part.
    """

    pairs: tuple[tuple[int, int], ...]
    k: np.ndarray
    amplitudes: np.ndarray
    sum_wave: dict[str, np.ndarray]
    difference_wave: dict[str, np.ndarray]
    from_truth: dict[str, np.ndarray]


def pairs(grid: Grid) -> tuple[tuple[int, int], ...]:
    """Pairs of waves up to half the Nyquist wavenumber each."""
    return tuple(pair for pair in PAIRS if max(pair) <= grid.shape[0] / 4)


def crossed_waves(grid: Grid, pair: tuple[int, int], amplitude: float) -> Tensor:
    """The Zel'dovich displacement ``(3, n, n, n)`` [Mpc/h] of two waves of one amplitude."""
    return plane_wave(grid, (pair[0], 0, 0), amplitude) + plane_wave(grid, (0, pair[1], 0), amplitude)


def count(grid: Grid) -> int:
    """Displacements that ``ask`` asks of every map."""
    return len(pairs(grid)) * len(AMPLITUDES)


def ask(maps: Maps, grid: Grid, second_growth: float) -> Coupling:
    """Put all pairs to all maps.

    Args:
        maps: with ``TRUTH`` among them.
        grid: periodic cube.
        second_growth: D2 / D1^2 of the universe, near -3/7.
    """
    found = pairs(grid)
    shape = (len(found), len(AMPLITUDES))
    waves = {sign: {name: np.zeros(shape) for name in maps} for sign in (1, -1)}
    from_truth = {name: np.zeros(shape) for name in maps}
    fundamental, a = 2 * math.pi / grid.box_size[0], np.array(AMPLITUDES)
    for row, pair in enumerate(found):
        rows = torch.stack([crossed_waves(grid, pair, amplitude) for amplitude in AMPLITUDES])
        answers = {name: of(rows) for name, of in maps.items()}
        k = math.hypot(*pair) * fundamental
        second = second_growth * a**2 / (2 * k)  # amplitude of either wave
        for name, answer in answers.items():
            for sign in (1, -1):
                mode = (pair[0], sign * pair[1], 0)
                along = torch.tensor(mode, dtype=torch.float64) * (fundamental / k)
                # b sin kq has the coefficient - i b
                waves[sign][name][row] = -coefficient(answer, mode, along).imag.numpy() / second
            from_truth[name][row] = rms(answer - answers[TRUTH]).numpy() / np.abs(second)
    return Coupling(
        pairs=found,
        k=np.array([math.hypot(*pair) * fundamental for pair in found]),
        amplitudes=a,
        sum_wave=waves[1],
        difference_wave=waves[-1],
        from_truth=from_truth,
    )
