"""Single plane waves, which the Zel'dovich approximation solves exactly until shells cross.

The linear density is delta = A cos(k q + phase). Sheets cross where A > 1. He et al. 2019 (arXiv:1811.06533)
and Jamieson et al. 2022 (arXiv:2206.04573) asked their emulators the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import TRUTH, Map, Maps, places, rms
from gen.fields import Grid

Mode = tuple[int, int, int]
AXIS, FACE, BODY = "axis", "face diagonal", "body diagonal"
DIRECTIONS: dict[str, Mode] = {AXIS: (1, 0, 0), FACE: (1, 1, 0), BODY: (1, 1, 1)}
AMPLITUDES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 1.6)
SHIFTS = (0.0, 0.5, 1.0, 2.0)
"""By which a wave is moved along every axis [cells]."""
MIDDLE = 0.5
"""Amplitude at which waves are moved and turned."""
PROFILES = (0.5, 0.9, 1.6)
"""Amplitudes whose profiles are kept."""
TURNS: tuple[tuple[Mode, ...], ...] = (
    ((3, 0, 0), (0, 3, 0), (0, 0, 3), (2, 2, 1), (1, 2, 2), (2, 1, 2)),
    ((5, 0, 0), (0, 5, 0), (0, 0, 5), (4, 3, 0), (0, 4, 3), (3, 0, 4)),
)
"""Waves of one length: along the three axes, then oblique."""


@dataclass(frozen=True, eq=False)
class Response:
    """What became of waves, each ``(B,)``; all but ``transfer`` in units of the wave's own rms.

    transfer: amplitude of the longitudinal wave over its linear one, complex; the phase is a displacement of
        the wave. harmonics: longitudinal waves of 2 k, 3 k, ... leakage: everything else, which the
        symmetries of a plane wave forbid: other directions, transverse waves, a mean.
    """

    transfer: np.ndarray
    harmonics: np.ndarray
    leakage: np.ndarray


@dataclass(frozen=True, eq=False)
class Asked:
    """Numbers for W waves and A amplitudes, ``(W, A)`` each.

    transfer (its real part), harmonics, leakage: of ``Response``. from_exact: rms of the difference from
    the Zel'dovich solution, NaN where shells have crossed; from_truth: from the simulation; both in units
    of the wave's rms.
    """

    transfer: np.ndarray
    harmonics: np.ndarray
    leakage: np.ndarray
    from_exact: np.ndarray
    from_truth: np.ndarray


@dataclass(frozen=True, eq=False)
class PlaneWaves:
    """Everything that was asked of single waves; dictionaries are by map.

    Args:
        direction, modes, k: of the W waves; k [h/Mpc].
        amplitudes: ``(A,)``.
        shift: largest change of the complex transfer when the wave is moved, ``(W,)``.
        turned: for each length of ``TURNS`` the wavenumber, the largest difference of transfer between the
            three axes, and the oblique waves' mean transfer less that of the axes.
        place, profile: q [Mpc/h] ``(n,)`` and the displacement along one wave at ``PROFILES``, ``(P, n)``.
    """

    direction: tuple[str, ...]
    modes: tuple[Mode, ...]
    k: np.ndarray
    amplitudes: np.ndarray
    asked: dict[str, Asked]
    shift: dict[str, np.ndarray]
    turned_k: np.ndarray
    quarter_turn: dict[str, np.ndarray]
    oblique: dict[str, np.ndarray]
    place: np.ndarray
    profile_mode: Mode
    profile: dict[str, np.ndarray]


def plane_wave(grid: Grid, mode: Mode, amplitude: float, shift: float = 0.0) -> Tensor:
    """psi = - A k / k^2 sin(k q + phase), ``(3, n, n, n)`` [Mpc/h], of delta = A cos(k q + phase).

    Args:
        mode: k in units of 2 pi / L; shift: phase = k (shift, shift, shift), in cells.
    """
    k = torch.tensor(mode, dtype=torch.float64) * (2 * math.pi / grid.box_size[0])
    phase = torch.einsum("i,ixyz->xyz", k, places(grid) + shift * grid.spacing[0])
    return (-amplitude / k.square().sum() * k[:, None, None, None] * torch.sin(phase)).float()


def coefficient(displacement: Tensor, mode: Mode, along: Tensor) -> Tensor:
    """c of ``along`` . psi = Re c exp(i k q), ``(B,)`` complex, q at the cells' centres; no Nyquist waves."""
    return amplitude(torch.einsum("i,bixyz->bxyz", along.double(), displacement.double()), mode)


def amplitude(values: Tensor, mode: Mode) -> Tensor:
    """c of values ``(..., n, n, n)`` = Re c exp(i k q), complex, q at the cells' centres; none of Nyquist."""
    n, found = values.shape[-1], values.to(torch.complex128)
    for m in reversed(mode):
        turns = torch.exp(-2j * math.pi * m * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
        found = found @ turns
    return 2 * found / n**3


def respond(
    answer: Tensor, mode: Mode, amplitudes: Sequence[float], grid: Grid, shift: float = 0.0
) -> Response:
    """Take displacements ``(B, 3, n, n, n)`` of plane waves apart."""
    n, unit = grid.shape[0], torch.tensor(mode, dtype=torch.float64)
    length = unit.norm()
    k = length * (2 * math.pi / grid.box_size[0])
    a = torch.tensor(amplitudes, dtype=torch.float64)
    phase = math.tau * sum(mode) * shift / n
    c = coefficient(answer, mode, unit / length)
    transfer = c * torch.exp(torch.tensor(-1j * phase)) / (1j * a / k)
    field = answer.double()
    modes = torch.fft.fftn(field, dim=(2, 3, 4)) / n**3
    line = sorted({tuple(m * x % n for x in mode) for m in range(1, n)} - {(0, 0, 0)})
    on_line = modes[(..., *torch.tensor(line).T)]  # (B, 3, M)
    power = torch.einsum("i,bim->bm", (unit / length).to(on_line), on_line).abs().square()
    first = [tuple(s * x % n for x in mode) for s in (1, -1)]
    own = torch.tensor([place in first for place in line])
    total = field.square().sum(1).mean((1, 2, 3))
    scale = a / k / 2**0.5
    harmonics, leakage = power[:, ~own].sum(1).sqrt(), (total - power.sum(1)).clamp(min=0).sqrt()
    return Response(transfer.numpy(), (harmonics / scale).numpy(), (leakage / scale).numpy())


def waves(grid: Grid) -> list[tuple[str, Mode]]:
    """1, 2, 4, ... fundamental waves along each direction, up to half the Nyquist wavenumber."""
    found = []
    for name, e in DIRECTIONS.items():
        length, j = math.hypot(*e), 1
        while j * length <= grid.shape[0] / 4:
            found.append((name, (j * e[0], j * e[1], j * e[2])))
            j *= 2
    return found


def turns(grid: Grid) -> list[tuple[Mode, ...]]:
    """The groups of ``TURNS`` that the grid holds below its Nyquist wavenumber."""
    return [group for group in TURNS if max(group[0]) < grid.shape[0] / 2]


def count(grid: Grid) -> int:
    """Displacements that ``ask`` asks of every map."""
    return len(waves(grid)) * (len(AMPLITUDES) + len(SHIFTS)) + sum(map(len, turns(grid))) + len(PROFILES)


def ask(maps: Maps, grid: Grid) -> PlaneWaves:
    """Put all waves to all maps.

    Args:
        maps: with ``TRUTH`` among them.
        grid: periodic cube.
    """
    found, names = waves(grid), list(maps)
    asked: dict[str, list[Asked]] = {name: [] for name in names}
    shift: dict[str, list[float]] = {name: [] for name in names}
    for _, mode in found:
        for name, row in _amplitudes(maps, grid, mode):
            asked[name].append(row)
        for name in names:
            shift[name].append(_shifts(maps[name], grid, mode))
    groups = turns(grid)
    turned = {name: [_turns(maps[name], grid, group) for group in groups] for name in names}
    fundamental = 2 * math.pi / grid.box_size[0]
    along: Mode = (max(1, grid.shape[0] // 16), 0, 0)
    rows = torch.stack([plane_wave(grid, along, a) for a in PROFILES])
    return PlaneWaves(
        direction=tuple(name for name, _ in found),
        modes=tuple(mode for _, mode in found),
        k=np.array([math.hypot(*mode) * fundamental for _, mode in found]),
        amplitudes=np.array(AMPLITUDES),
        asked={name: _stacked(rows) for name, rows in asked.items()},
        shift={name: np.array(x) for name, x in shift.items()},
        turned_k=np.array([math.hypot(*group[0]) * fundamental for group in groups]),
        quarter_turn={name: np.array([x[0] for x in rows]) for name, rows in turned.items()},
        oblique={name: np.array([x[1] for x in rows]) for name, rows in turned.items()},
        place=places(grid)[0, :, 0, 0].numpy(),
        profile_mode=along,
        profile={name: of(rows)[:, 0].mean((2, 3)).double().numpy() for name, of in maps.items()},
    )


def _amplitudes(maps: Maps, grid: Grid, mode: Mode) -> Iterator[tuple[str, Asked]]:
    """One wave at all amplitudes, ``(A,)`` each."""
    exact = torch.stack([plane_wave(grid, mode, a) for a in AMPLITUDES])
    scale, before = rms(exact), torch.tensor([a < 1 for a in AMPLITUDES])
    answers = {name: of(exact) for name, of in maps.items()}
    for name, answer in answers.items():
        r = respond(answer, mode, AMPLITUDES, grid)
        from_exact = torch.where(before, rms(answer - exact) / scale, torch.nan)
        from_truth = rms(answer - answers[TRUTH]) / scale
        yield (
            name,
            Asked(np.real(r.transfer), r.harmonics, r.leakage, from_exact.numpy(), from_truth.numpy()),
        )


def _shifts(of: Map, grid: Grid, mode: Mode) -> float:
    rows = torch.stack([plane_wave(grid, mode, MIDDLE, s) for s in SHIFTS])
    answers = of(rows)
    found = [respond(answers[i : i + 1], mode, [MIDDLE], grid, s).transfer[0] for i, s in enumerate(SHIFTS)]
    return float(np.abs(np.array(found[1:]) - found[0]).max())


def _turns(of: Map, grid: Grid, group: Sequence[Mode]) -> tuple[float, float]:
    answers = of(torch.stack([plane_wave(grid, mode, MIDDLE) for mode in group]))
    found = [respond(x[None], mode, [MIDDLE], grid) for x, mode in zip(answers, group, strict=True)]
    transfer = np.array([float(np.real(r.transfer[0])) for r in found])
    axes, oblique = transfer[:3], transfer[3:]
    return float(np.ptp(axes)), float(oblique.mean() - axes.mean())


def _stacked(rows: list[Asked]) -> Asked:
    return Asked(*(np.stack([getattr(row, key) for row in rows]) for key in Asked.__dataclass_fields__))
