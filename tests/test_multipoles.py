"""Multipoles about the line of sight: of isotropic fields, of Kaiser's, and against sums over all modes."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from evaluation.multipoles import Multipoles, legendre, line_of_sight_cosine
from evaluation.power import PowerSpectrum
from gen.errors import InputError
from gen.fields import Grid

GRID = Grid((24, 24, 24), 60.0, "Mpc/h", periodic=True)


def gaussian(grid: Grid, n: int, seed: int, beta: float = 0.0, slope: float = -1.0) -> torch.Tensor:
    """Fields of P = (k / k_f)^slope (1 + beta mu^2)^2 [(Mpc/h)^3], constant within each shell."""
    spectrum = PowerSpectrum(grid)
    white = torch.randn(n, 1, *grid.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shell = np.clip(np.digitize(grid.wavenumber().numpy(), spectrum.edges) - 1, 0, len(spectrum.abscissa) - 1)
    root = torch.from_numpy((spectrum.abscissa / grid.k_fundamental) ** (slope / 2))[shell]
    root = root * (1 + beta * line_of_sight_cosine(grid) ** 2)
    cell = np.prod(grid.spacing)
    modes = torch.fft.rfftn(white, dim=(2, 3, 4)) * root / cell**0.5
    return torch.fft.irfftn(modes, s=grid.shape, dim=(2, 3, 4))


def pull(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (found.mean(0) - expected) / (found.std(0, ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.2])
def test_kaisers_multipoles(beta):
    """P_2 and P_4 of an isotropic field vanish in every shell, the lowest too; those of Kaiser's are his."""
    statistic = Multipoles(GRID)
    found = statistic(gaussian(GRID, 160, 1, beta)).numpy()
    p = (statistic.spectrum.abscissa / GRID.k_fundamental) ** -1.0
    of = (
        1 + 2 * beta / 3 + beta**2 / 5,
        4 * beta / 3 + 4 * beta**2 / 7,
        8 * beta**2 / 35,
    )
    for i, factor in enumerate(of):
        assert np.abs(pull(found[:, i], factor * p)).max() < 4, f"l = {2 * i}"
    # the lowest shells, where the plain sum is wrong, to a few per cent
    error = found[:, 0].std(0) / np.sqrt(160)
    assert np.abs(found[:, 0].mean(0) / (of[0] * p) - 1).max() < 4 * (error / p).max()


def test_isotropic_gaussian_fields_scatter_as_the_mode_counts_say():
    statistic = Multipoles(GRID)
    found = statistic(gaussian(GRID, 400, 2)).numpy()
    p = (statistic.spectrum.abscissa / GRID.k_fundamental) ** -1.0
    ratio = found.std(0) / (p * np.sqrt(2 / statistic.n_modes))
    assert np.abs(ratio - 1).max() < 4.5 / np.sqrt(2 * 400)
    # far from the lowest shells a lattice is even, and the plain (2l + 1) <P L_l> would do
    share = (statistic.n_modes / statistic.spectrum.n_modes)[:, -5:-1]  # the last shell is cut by Nyquist
    assert share == pytest.approx(np.array([[1.0], [1 / 5], [1 / 9]]) * np.ones(4), rel=0.05)


def test_against_a_fit_to_every_mode_of_the_full_lattice():
    grid = Grid((6, 7, 8), (10.0, 12.0, 9.0), "Mpc/h", periodic=True)
    x = torch.randn(2, 1, *grid.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    statistic = Multipoles(grid, bins=3)
    k = np.meshgrid(
        *[2 * np.pi * np.fft.fftfreq(n, s / n) for n, s in zip(grid.shape, grid.box_size, strict=True)],
        indexing="ij",
    )
    length = np.sqrt(sum(q**2 for q in k))
    mu = np.divide(k[2], length, out=np.zeros_like(length), where=length > 0)
    volume = np.prod(grid.box_size)
    edges = statistic.spectrum.edges
    for field, row in zip(x[:, 0].numpy(), statistic(x).numpy(), strict=True):
        power = np.abs(np.fft.fftn(field - field.mean())) ** 2 * volume / field.size**2
        for b, (low, high) in enumerate(pairwise(edges)):
            mine = (length >= low) & (length < high) & (length > 0)
            basis = np.stack([np.polynomial.legendre.Legendre.basis(n)(mu[mine]) for n in (0, 2, 4)], axis=1)
            np.testing.assert_allclose(
                row[:, b], np.linalg.lstsq(basis, power[mine], rcond=None)[0], rtol=1e-9
            )


def test_a_wave_along_the_line_of_sight_has_all_multipoles():
    """Power at mu = 1 alone: of that shell's fit P(mu = 1) is the largest, and across it P_2 < 0."""
    z = torch.arange(24, dtype=torch.float64)
    wave = torch.cos(2 * np.pi * 5 * z / 24).expand(24, 24, 24)
    statistic = Multipoles(GRID)
    along, across = statistic(torch.stack([wave, wave.permute(2, 0, 1)])[:, None])[:, :, 4].numpy()
    assert along[1] > 0 and along[2] > 0 and across[1] < 0
    assert (legendre(torch.tensor([1.0])) == 1).all()


def test_it_travels_to_other_processes_and_refuses_planes():
    x = gaussian(GRID, 2, 5)
    statistic = Multipoles(GRID)
    torch.testing.assert_close(pickle.loads(pickle.dumps(statistic))(x), statistic(x))
    with pytest.raises(InputError, match="need a 3D grid"):
        Multipoles(Grid((8, 8), 1.0, "deg", periodic=True))
