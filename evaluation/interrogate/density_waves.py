"""Densities of single and of crossed plane waves, beside those of a run that resolves them.

Particles at x = q - (A/k) sin kq have the density 1 + 2 sum_m J_m(m A) cos m k x before sheets cross, J the
Bessel functions: the Zel'dovich approximation is exact, and all harmonics are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate import coupling
from evaluation.interrogate.asking import TRUTH
from evaluation.interrogate.waves import AMPLITUDES, Mode, amplitude, plane_wave, waves
from gen.fields import Grid

HARMONICS = (1, 2, 3, 4)
DensityMap = Callable[[Tensor], Tensor]
"""From Zel'dovich displacements ``(B, 3, n, n, n)`` [Mpc/h] to S densities of each, ``(B, S, n, n, n)``."""


@dataclass(frozen=True, eq=False)
class DensityWaves:
    """Numbers for W waves, A amplitudes and H harmonics of them; dictionaries are by map.

    Args:
        direction, modes, k: of the waves; k [h/Mpc].
        amplitudes: of the linear density, ``(A,)``.
        harmonics: ``(H,)``, 1 is the wave itself.
        truth: amplitude of the waves in the true density, ``(W, A, H)``; NaN beyond the lattice.
        ratio: mean amplitude over a map's drawings, over the truth's; ratio_error: standard error of it.
    """

    direction: tuple[str, ...]
    modes: tuple[Mode, ...]
    k: np.ndarray
    amplitudes: np.ndarray
    harmonics: tuple[int, ...]
    truth: np.ndarray
    ratio: dict[str, np.ndarray]
    ratio_error: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class DensityCoupling:
    """The waves k1 + k2 and k1 - k2 of Q pairs at A amplitudes over the truth's, ``(Q, A)`` by map.

    Args:
        pairs: k1 along x and k2 along y in units of 2 pi / L; k: |k1 + k2| [h/Mpc], ``(Q,)``.
    """

    pairs: tuple[tuple[int, int], ...]
    k: np.ndarray
    amplitudes: np.ndarray
    sum_wave: dict[str, np.ndarray]
    sum_error: dict[str, np.ndarray]
    difference_wave: dict[str, np.ndarray]
    difference_error: dict[str, np.ndarray]


def count(coarse: Grid) -> int:
    """Displacements that both questions ask of every map."""
    return len(waves(coarse)) * len(AMPLITUDES) + len(coupling.pairs(coarse)) * len(coupling.AMPLITUDES)


def ask(maps: Mapping[str, DensityMap], grid: Grid, coarse: Grid) -> DensityWaves:
    """Put all waves that ``coarse``, a lattice of the same box, holds up to half its Nyquist wavenumber.

    Args:
        maps: with ``TRUTH`` among them.
    """
    found, names = waves(coarse), [name for name in maps if name != TRUTH]
    shape = (len(found), len(AMPLITUDES), len(HARMONICS))
    truth = np.full(shape, np.nan)
    ratio, error = ({name: np.full(shape, np.nan) for name in names} for _ in range(2))
    for row, (_, mode) in enumerate(found):
        psi = torch.stack([plane_wave(grid, mode, a) for a in AMPLITUDES])
        answers = {name: of(psi) for name, of in maps.items()}
        for h, m in enumerate(HARMONICS):
            wave = (m * mode[0], m * mode[1], m * mode[2])
            if max(wave) >= grid.shape[0] / 2:
                continue
            truth[row, :, h] = amplitude(answers[TRUTH], wave).real.mean(1).cpu().numpy()
            for name in names:
                ratio[name][row, :, h], error[name][row, :, h] = _over(answers, name, wave)
    fundamental = 2 * math.pi / grid.box_size[0]
    return DensityWaves(
        direction=tuple(name for name, _ in found),
        modes=tuple(mode for _, mode in found),
        k=np.array([math.hypot(*mode) * fundamental for _, mode in found]),
        amplitudes=np.array(AMPLITUDES),
        harmonics=HARMONICS,
        truth=truth,
        ratio=ratio,
        ratio_error=error,
    )


def cross(maps: Mapping[str, DensityMap], grid: Grid, coarse: Grid) -> DensityCoupling:
    """Put two perpendicular waves at once (``evaluation.interrogate.coupling``)."""
    pairs, names = coupling.pairs(coarse), [name for name in maps if name != TRUTH]
    shape = (len(pairs), len(coupling.AMPLITUDES))
    found = {sign: {name: np.zeros((2, *shape)) for name in names} for sign in (1, -1)}
    for row, pair in enumerate(pairs):
        psi = torch.stack([coupling.crossed_waves(grid, pair, a) for a in coupling.AMPLITUDES])
        answers = {name: of(psi) for name, of in maps.items()}
        for sign in (1, -1):
            for name in names:
                found[sign][name][:, row] = _over(answers, name, (pair[0], sign * pair[1], 0))
    (sums, sum_error), (differences, difference_error) = (
        [{name: x[i] for name, x in found[sign].items()} for i in (0, 1)] for sign in (1, -1)
    )
    return DensityCoupling(
        pairs=pairs,
        k=np.array([math.hypot(*pair) for pair in pairs]) * (2 * math.pi / grid.box_size[0]),
        amplitudes=np.array(coupling.AMPLITUDES),
        sum_wave=sums,
        sum_error=sum_error,
        difference_wave=differences,
        difference_error=difference_error,
    )


def _over(answers: Mapping[str, Tensor], name: str, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Mean amplitude over the drawings, over the truth's, with the standard error, ``(B,)`` each."""
    truth = amplitude(answers[TRUTH], mode).real.mean(1)
    ratio = amplitude(answers[name], mode).real / truth[:, None]
    n = ratio.shape[1]
    error = ratio.std(1) / n**0.5 if n > 1 else torch.zeros_like(truth)
    return ratio.mean(1).cpu().numpy(), error.cpu().numpy()
