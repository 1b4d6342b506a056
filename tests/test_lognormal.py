"""Lognormal convergence against theory power and the lognormal's closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.lognormal import empty_beam, lognormal_convergence, pixel_window, shift
from gen.simulate.theory import Cosmology, convergence_power

PERIODIC = Grid((64, 64), 3.5, "deg", True)
PATCH = Grid((64, 64), 3.5, "deg", False)


def maps(cosmo: Cosmology, grid: Grid, n: int) -> torch.Tensor:
    return lognormal_convergence(cosmo, grid, 1.0, [sample_generator(0, i) for i in range(n)])


@pytest.mark.parametrize(("Omega_m", "sigma_8"), [(0.15, 0.95), (0.3, 0.8), (0.5, 0.65)])
def test_power_is_limbers_times_the_pixel_window(Omega_m: float, sigma_8: float) -> None:
    cosmo = Cosmology(Omega_m, sigma_8)
    kappa = maps(cosmo, PERIODIC, 400)[:, 0].double()
    measured = (torch.fft.rfft2(kappa).abs() ** 2).mean(0) * PERIODIC.k_sides[0] ** 2 / 64**4
    ell = PERIODIC.wavenumber()
    theory = torch.from_numpy(convergence_power(cosmo, ell.clamp(min=50).numpy(), nodes=128))
    theory *= pixel_window(PERIODIC) ** 2
    for low, high, tolerance in ((90, 300, 0.05), (300, 800, 0.02), (800, 1600, 0.02), (1600, 3000, 0.02)):
        held = (ell > low) & (ell < high)
        assert (measured[held].mean() / theory[held].mean()).item() == pytest.approx(1, abs=tolerance)


def test_moments_are_a_shifted_lognormals() -> None:
    cosmo = Cosmology(0.3, 0.8)
    kappa = maps(cosmo, PERIODIC, 400).double()
    lam = shift(cosmo, 1.0)
    v = (kappa.var() / lam**2).item()
    skewness = (kappa**3).mean() / kappa.var() ** 1.5
    assert kappa.min() > -lam
    assert abs(kappa.mean()) < 1e-4
    assert skewness.item() == pytest.approx((v + 3) * v**0.5, rel=0.05)


def test_shift_is_hilberts_and_follows_the_empty_beam() -> None:
    millennium = Cosmology(0.25, 0.9, 0.045, 0.73, 1.0)
    assert shift(millennium, 1.0) == pytest.approx(0.008 + 0.029 - 0.0079 + 0.00065)
    low, high = Cosmology(0.15, 0.8), Cosmology(0.45, 0.8)
    assert shift(high, 1.0) / shift(low, 1.0) == pytest.approx(empty_beam(high, 1.0) / empty_beam(low, 1.0))
    assert shift(low, 1.0) < empty_beam(low, 1.0)
    assert shift(low, 1.0) == pytest.approx(shift(Cosmology(0.15, 0.6), 1.0))


def test_a_patch_does_not_wrap_and_has_the_same_variance() -> None:
    cosmo = Cosmology(0.3, 0.8)
    patch, periodic = maps(cosmo, PATCH, 300)[:, 0], maps(cosmo, PERIODIC, 300)[:, 0]

    def across(x: torch.Tensor) -> float:
        first, last = x[:, 0].flatten(), x[:, -1].flatten()
        return np.corrcoef(first.numpy(), last.numpy())[0, 1]

    assert across(periodic) > 0.5
    assert abs(across(patch)) < 0.1
    assert patch.var().item() == pytest.approx(periodic.var().item(), rel=0.1)


def test_a_map_depends_on_its_generator_alone() -> None:
    cosmo = Cosmology(0.3, 0.8)
    alone = lognormal_convergence(cosmo, PATCH, 1.0, [sample_generator(0, 1)])
    assert torch.equal(maps(cosmo, PATCH, 2)[1:], alone)


def test_grids_that_are_no_sky_are_refused() -> None:
    with pytest.raises(InputError, match="2-D grid in degrees"):
        maps(Cosmology(0.3, 0.8), Grid((8, 8), 10.0, "Mpc/h", True), 1)
