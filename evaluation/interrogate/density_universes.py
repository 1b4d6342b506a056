"""Other universes: what is left of the power and the phases of emulated densities away from the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evaluation.pairs import PairedPower
from evaluation.power import PowerSpectrum
from gen.fields import Grid


@dataclass(frozen=True, eq=False)
class DensityErrors:
    """One map in one universe, a low and a high band of k, ``(2,)`` each, bootstrap errors over boxes.

    transfer: T = sqrt(P / P_true), power summed over the band. coherence: r with the truth.
    """

    transfer: np.ndarray
    transfer_error: np.ndarray
    coherence: np.ndarray
    coherence_error: np.ndarray


@dataclass(frozen=True, eq=False)
class DensityUniverse:
    """What was found at one set of parameters.

    Args:
        params: by name; amplitude: A_s over the middle's.
        trained: whether the emulator's range of training holds it.
        bands: upper ends of the two bands in k [h/Mpc].
        errors: by map.
    """

    params: dict[str, float]
    amplitude: float
    trained: bool
    boxes: int
    bands: tuple[float, float]
    errors: dict[str, DensityErrors]


def judge(
    fields: Mapping[str, Tensor],
    truth: Tensor,
    grid: Grid,
    split: float,
    params: Mapping[str, float],
    amplitude: float,
    *,
    trained: bool,
    seed: int = 0,
) -> DensityUniverse:
    """Errors of fields ``(B, 1, *shape)`` of B boxes, by map, against the truth's; NaN if a box has none.

    Args:
        split: wavenumber that divides the bands [h/Mpc]; the high one ends at Nyquist's.
        params, amplitude, trained: of ``DensityUniverse``.
        seed: of the bootstrap.
    """
    spectrum = PowerSpectrum(grid)
    true_power = _bands(spectrum, spectrum(truth), split)
    errors = {}
    nothing = np.full(2, np.nan)
    for name, field in fields.items():
        if not (true_power > 0).all():
            errors[name] = DensityErrors(nothing, nothing, nothing, nothing)
            continue
        power = _bands(spectrum, spectrum(field), split)
        pairs = PairedPower.of_boxes(power, true_power, _bands(spectrum, spectrum.cross(field, truth), split))
        transfer, coherence = pairs.transfer(seed=seed), pairs.coherence(seed=seed)
        errors[name] = DensityErrors(transfer.mean, transfer.std, coherence.mean, coherence.std)
    bands = split, float(grid.k_nyquist)
    return DensityUniverse(dict(params), amplitude, trained, len(truth), bands, errors)


def _bands(spectrum: PowerSpectrum, power: Tensor, split: float) -> np.ndarray:
    """Power summed over the modes of the shells below and above ``split``, ``(B, 2)``."""
    low = spectrum.abscissa <= split
    weighted = power.cpu().numpy() * spectrum.n_modes
    return np.stack([weighted[:, low].sum(1), weighted[:, ~low].sum(1)], 1)
