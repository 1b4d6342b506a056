"""Toy fields for tests of the report: lognormal maps in boxes, with a law that can be bent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from evaluation.thresholds import Measurement, PowerThresholds, Thresholds
from gen.fields import Grid, ParameterSpace
from gen.io import FieldFile

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
INTERIOR, OUTSIDE = (0.3, 0.8), (0.55, 0.7)


def grid_of(n: int, dim: int = 2, periodic: bool = False) -> Grid:
    return Grid((n,) * dim, 3.5 if dim == 2 else 100.0, "deg" if dim == 2 else "Mpc/h", periodic)


def lognormal(
    rng: np.random.Generator,
    grid: Grid,
    n: int,
    *,
    per_box: int,
    amplitude: float = 1.0,
    gaussian: bool = False,
    box_scatter: float = 0.02,
) -> np.ndarray:
    """``(n, 1, *shape)``; maps of one box share a small change of amplitude, which single maps draw alone."""
    k = grid.wavenumber().numpy() / grid.k_fundamental
    k[(0,) * grid.dim] = np.inf
    axes = tuple(range(1, grid.dim + 1))
    white = rng.standard_normal((n, *grid.shape))
    g = np.fft.irfftn(np.fft.rfftn(white, axes=axes) * k**-0.75, s=grid.shape, axes=axes)
    g /= np.sqrt((k**-1.5).mean())
    shared = np.repeat(rng.standard_normal(-(-n // per_box)), per_box)[:n]
    g *= 1 + box_scatter * shared.reshape(n, *(1,) * grid.dim)
    x = g * 0.4 if gaussian else np.exp(0.5 * g - 0.125) - 1
    return (0.02 * amplitude * x)[:, None].astype(np.float32)


def file_of(
    grid: Grid,
    cosmologies: list[tuple[float, float]],
    n: int,
    seed: int,
    *,
    per_box: int = 1,
    amplitude: float = 1.0,
    gaussian: bool = False,
    **attributes: object,
) -> FieldFile:
    """A file of fields; ``per_box`` above 1 makes it a reference with simulations and regions."""
    rng = np.random.default_rng(seed)
    values, params, simulation, region = [], [], [], []
    for i, point in enumerate(cosmologies):
        values.append(lognormal(rng, grid, n, per_box=per_box, amplitude=amplitude, gaussian=gaussian))
        params += [point] * n
        simulation.append(1000 * i + np.arange(n) // per_box)
        region += ["interior" if point == INTERIOR else "extrapolation"] * n
    real = per_box > 1
    return FieldFile(
        values=torch.from_numpy(np.concatenate(values)),
        params=torch.tensor(params, dtype=torch.float64),
        simulation=np.concatenate(simulation) if real else None,
        region=np.array(region) if real else None,
        grid=grid,
        space=SPACE,
        attributes={"units": "1", "field": "convergence", **attributes},
    )


def with_changes(file: FieldFile, **changes: object) -> FieldFile:
    return replace(file, **changes)


def thresholds(**changes: object) -> Thresholds:
    """As the standard ones, measured more coarsely."""
    coarse = Measurement(
        apodise=0.25,
        pdf_bins=12,
        minkowski_thresholds=7,
        peak_bins=4,
        n_bootstrap=200,
        n_permutations=200,
        bispectrum_bins=6,
        n_splits=50,
        classifier_steps=4,
    )
    excess = dict.fromkeys(("pdf", "V0", "V1", "V2", "V3", "peaks"), 2.0)
    measured = ("power", "pdf", "peaks", "minkowski", "bispectrum", "scattering", "moments")
    t = Thresholds(PowerThresholds(0.5, 0.05, 0.02), excess, 0.05, measured, coarse, 3, "coarse", "0" * 64)
    return replace(t, **changes)
