"""What the sampler of a diffusion emulator does to the power of waves, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.power import PowerSpectrum
from evaluation.sampler import RANGE, SamplerBias
from gen.checkpoint import load
from gen.diffusion.levels import Ladder
from gen.diffusion.solver import gaussian_bias
from gen.emulators.diffusion import Diffusion
from gen.io import FieldFile
from gen.noise import sample_generator

OTHERS = (10, 20, 32, 64)
"""Numbers of evaluations that a report shows beside an emulator's own."""
A_DECADE = 40
"""Powers at which the bias is known."""
FIELDS = 256
"""Real ones, at most, from which the powers of a field's own waves are measured."""


def sampler_biases(folders: Mapping[str, Path], real: FieldFile) -> list[SamplerBias]:
    """Of those checkpoints, by name, that are diffusion emulators."""
    found = ((name, load(folder)) for name, folder in folders.items())
    return [sampler_bias(name, one, real) for name, one in found if isinstance(one, Diffusion)]


def sampler_bias(name: str, emulator: Diffusion, real: FieldFile) -> SamplerBias:
    """Of one diffusion emulator, which starts from noise of variance ``1 + high^2`` times its own.

    The field's own range is that of ``own_powers`` of real fields, where they are on the emulator's grid.
    """
    own = None
    if real.grid == emulator.grid:
        powers = own_powers(emulator, *_some(real))
        own = float(powers.min()), float(powers.max())
    low, high = np.log10(RANGE).tolist()
    power = 10.0 ** np.linspace(low, high, round(A_DECADE * (high - low)) + 1)
    if own is not None:
        power = np.union1d(power, np.geomspace(*own, A_DECADE))
    numbers = sorted({emulator.ladder.steps, *OTHERS})
    bias = {n: _bias(power, replace(emulator.ladder, steps=n), emulator.order) for n in numbers}
    return SamplerBias(
        name,
        power,
        emulator.ladder.steps,
        bias,
        own,
        emulator.order,
        (emulator.ladder.high, emulator.ladder.low),
    )


def own_powers(emulator: Diffusion, values: Tensor, params: Tensor) -> np.ndarray:
    """Mean power of real fields over that of the noise, both as the emulator sees them, in shells of k.

    Args:
        values: ``(N, C, *grid.shape)`` in physical units; params: ``(N, P)``.

    Returns:
        One number a shell, of each channel of the emulator's working space.
    """
    spectrum = PowerSpectrum(emulator.working, apodise=None if emulator.working.periodic else "hann")

    def powers(y: Tensor) -> Tensor:
        return torch.stack([spectrum(y[:, i : i + 1]) for i in range(y.shape[1])], 1)

    fields, noise = [], []
    with torch.no_grad():
        for rows in torch.arange(len(values)).split(32):
            theta = params[rows].float()
            generators = [sample_generator(0, int(i), "own powers") for i in rows]
            fields.append(powers(emulator.to_working(values[rows], theta)))
            noise.append(powers(emulator.noise(theta, generators)))
    return (torch.cat(fields).mean(0) / torch.cat(noise).mean(0)).flatten().numpy()


def _bias(power: np.ndarray, ladder: Ladder, order: int) -> np.ndarray:
    """``gaussian_bias`` of a start that has the field's variance in it; waves are linear in theirs."""
    high2 = float(ladder.sigmas()[0]) ** 2
    bias = gaussian_bias(torch.from_numpy(power), ladder, order).numpy()
    return (1 + bias) * (1 + high2) / high2 - 1


def _some(real: FieldFile) -> tuple[Tensor, Tensor]:
    """Fields evenly spread over a file."""
    rows = torch.linspace(0, len(real) - 1, min(FIELDS, len(real))).round().long()
    return real.values[rows], real.params[rows]
