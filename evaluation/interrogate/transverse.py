"""The curl of displacements, which perturbation theory has from third order on and 2LPT not at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.interrogate.asking import TRUTH, Maps, places, rms, wavevector
from evaluation.interrogate.waves import Mode
from evaluation.pairs import PairedPower
from evaluation.power import PowerSpectrum
from gen.fields import Grid

SHEAR: Mode = (2, 0, 0)
"""The wave of shear, in units of 2 pi / L."""
FAINTEST = 1e-6
"""Share of the truth's power below which a model has none: its phases are rounding."""


@dataclass(frozen=True, eq=False)
class Part:
    """One part of displacements, longitudinal or transverse, in shells ``k (n_bins,)`` [h/Mpc].

    power: mean over boxes [(Mpc/h)^5], components summed; power_error: standard error.
    ratio: power over the truth's, 0 below ``FAINTEST``; coherence: r(k) with it, NaN there; each with a
    bootstrap error over boxes. Dictionaries are by map.
    """

    k: np.ndarray
    power: dict[str, np.ndarray]
    power_error: dict[str, np.ndarray]
    ratio: dict[str, np.ndarray]
    ratio_error: dict[str, np.ndarray]
    coherence: dict[str, np.ndarray]
    coherence_error: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Transverse:
    """Longitudinal and transverse parts, and the answer to a wave of shear.

    shear: what is added to a displacement psi_y = B sin kx of no density, over its own rms: gravity adds
        nothing. ``shear_mode`` in units of 2 pi / L.
    """

    longitudinal: Part
    transverse: Part
    shear_mode: Mode
    shear: dict[str, float]


def split(displacement: Tensor, spectrum: PowerSpectrum) -> tuple[Tensor, Tensor]:
    """Modes of the parts along k and across it, ``(B, 1, N)`` and ``(B, 3, N)`` on the flat half lattice.

    Waves on the Nyquist planes, whose direction has no sign, are left out of both.
    """
    k = wavevector(spectrum.grid).reshape(3, -1)
    # a component of Nyquist was set to zero: |k| of the lattice knows it
    whole = torch.isclose(k.norm(dim=0), spectrum.grid.wavenumber().reshape(-1))
    unit = torch.where(k.norm(dim=0) > 0, k / k.norm(dim=0).clamp(min=1e-30), 0.0)
    psi = torch.stack([spectrum.modes(displacement[:, i : i + 1].double()) for i in range(3)], 1) * whole
    along = torch.einsum("in,bin->bn", unit.to(psi), psi)[:, None]
    return along, psi - along * unit


def measure(fields: Mapping[str, Tensor], grid: Grid, seed: int = 0) -> tuple[Part, Part]:
    """Both parts of displacements ``(B, 3, n, n, n)`` [Mpc/h] of B boxes, ``TRUTH`` among them."""
    spectrum = PowerSpectrum(grid)
    names = list(fields)
    modes = [split(fields[name], spectrum) for name in names]
    found = []
    for part in (0, 1):
        of = {name: m[part] for name, m in zip(names, modes, strict=True)}
        auto = {name: _power(spectrum, m, m) for name, m in of.items()}
        cross = {name: _power(spectrum, m, of[TRUTH]) for name, m in of.items()}
        found.append(_part(spectrum, auto, cross, seed))
    return found[0], found[1]


def shear(
    maps: Maps, grid: Grid, blind: Collection[str] = (), mode: Mode = SHEAR, slope: float = 0.5
) -> dict[str, float]:
    """rms of what is added to psi_y = (slope / k) sin kx, over its own, for all maps that it reaches.

    Sheets that slide along themselves change no density, so gravity adds nothing. The simulation is not
    asked: it starts from a density, as the ``blind`` maps do.
    """
    k = 2 * torch.pi * mode[0] / grid.box_size[0]
    psi = torch.zeros(1, 3, *grid.shape)
    psi[0, 1] = slope / k * torch.sin(k * places(grid)[0])
    asked = {name: of for name, of in maps.items() if name not in (TRUTH, *blind)}
    return {name: float(rms(of(psi) - psi) / rms(psi)) for name, of in asked.items()}


def _power(spectrum: PowerSpectrum, a: Tensor, b: Tensor) -> np.ndarray:
    """Cross power of modes ``(B, C, N)``, components summed, ``(B, n_bins)``."""
    return spectrum.average((a * b.conj()).real.sum(1)).numpy()


def _part(
    spectrum: PowerSpectrum, auto: Mapping[str, np.ndarray], cross: Mapping[str, np.ndarray], seed: int
) -> Part:
    truth = auto[TRUTH]
    n = len(truth)
    ratio, coherence = {}, {}
    for name, power in auto.items():
        pairs = PairedPower.of_boxes(power, truth, cross[name])
        transfer = pairs.transfer(seed=seed)
        r = pairs.coherence(seed=seed)
        silent = power.mean(0) <= FAINTEST * truth.mean(0)
        square = transfer.mean**2, 2 * transfer.mean * transfer.std
        ratio[name] = tuple(np.where(silent, 0.0, x) for x in square)
        coherence[name] = tuple(np.where(silent, np.nan, x) for x in (r.mean, r.std))
    return Part(
        spectrum.abscissa,
        {name: power.mean(0) for name, power in auto.items()},
        {name: power.std(0, ddof=1) / n**0.5 for name, power in auto.items()},
        *({name: x[i] for name, x in of.items()} for of in (ratio, coherence) for i in (0, 1)),
    )
