"""The density of fields under a diffusion emulator: that of the copula before training, more after it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gen.data.base import SimulationSet
from gen.diffusion.levels import Ladder
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.emulators.evidence import likelihood_bound, log_likelihood
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

SPACE = ParameterSpace(("sigma_8",), (0.6,), (1.0,))


def gaussian_fields(grid: Grid, n: int) -> SimulationSet:
    """3 + sigma_8 g of a known red g, cut out of a torus of twice the side where the grid is open."""
    shape = grid.shape if grid.periodic else tuple(2 * m for m in grid.shape)
    torus = Grid(shape, 1.0 * shape[0], "Mpc/h", periodic=True)
    k = torus.wavenumber() / torus.k_fundamental
    white = torch.randn(n, 1, *shape, generator=torch.Generator().manual_seed(0))
    g = torch.fft.irfft2(torch.fft.rfft2(white) * (1 / (1 + (k / 2) ** 2)).float(), s=shape)
    params = torch.linspace(0.6, 1.0, 16).repeat(n // 16)[:, None]
    values = 3 + params[..., None, None] * (g / g.std())[..., : grid.shape[0], : grid.shape[1]]
    return SimulationSet(
        grid, SPACE, values, params, torch.arange(n), np.full(n, "train"), np.full(n, "interior"), "gaussian"
    ).check()


def fitted(grid: Grid, n: int = 192) -> tuple[CopulaDiffusion, SimulationSet]:
    data = gaussian_fields(grid, n)
    made = CopulaDiffusion(grid, SPACE, degree=1, widths=(4, 8), reach=3.0)
    made.fit(data)
    return made.double().eval(), data


@pytest.mark.parametrize("periodic", [True, False])
def test_before_training_it_is_the_copulas(periodic: bool) -> None:
    """By hand: a Gaussian density of scores with the dense covariance, and the slope of the one-point law."""
    emulator, data = fitted(Grid((8, 8), 8.0, "Mpc/h", periodic))
    values, params = data.values[:2].double(), data.params[:2].double()
    bound, flow = (
        likelihood_bound(emulator, values, params),
        log_likelihood(emulator, values[:1], params[:1], probes=None),
    )
    units = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    for i in range(2):
        theta = params[i : i + 1]
        covariance = emulator.covariance(units, theta.expand(64, -1)).reshape(64, 64)
        covariance = covariance + (0 if periodic else 1e-6) * torch.eye(64)
        y = emulator.to_working(values[i : i + 1], theta).flatten()
        step = 1e-5 * torch.ones_like(values[i : i + 1])
        slope = (emulator.to_working(values[i : i + 1] + step, theta).flatten() - y) / 1e-5
        exact = torch.distributions.MultivariateNormal(torch.zeros(64).double(), covariance).log_prob(y)
        exact = float(exact + slope.log().sum())
        assert float(bound.nats[i]) == pytest.approx(exact, abs=0.02)
        assert float(bound.error[i]) < 1e-6
        if i == 0:
            # 64 waves, steps of 0.31: 0.03 h^4 nats a wave, and the blur of the lowest level.
            assert float(flow.nats[i]) == pytest.approx(exact, abs=64 * (0.03 * 0.31**4 + 0.03**2))


def test_fields_are_most_probable_at_their_own_parameters() -> None:
    """The curvature of ln p in ln sigma_8 is 2 n_modes, so n fields know it to 1 / sqrt(2 x 64 n)."""
    emulator, _ = fitted(Grid((8, 8), 8.0, "Mpc/h", True))
    fresh = gaussian_fields(Grid((8, 8), 8.0, "Mpc/h", True), 512)
    told = fresh.params[:, 0] == fresh.params[7, 0]
    values = fresh.values[told].double()
    trial = torch.linspace(0.7, 0.9, 21, dtype=torch.float64)
    ladder = Ladder(10.0, 0.03, 4)
    total = [
        float(
            likelihood_bound(
                emulator, values, torch.full((len(values), 1), float(t)).double(), ladder, 2
            ).nats.sum()
        )
        for t in trial
    ]
    best = float(trial[int(np.argmax(total))])
    assert math.log(best / float(fresh.params[7, 0])) == pytest.approx(
        0, abs=4 / math.sqrt(2 * 64 * len(values)) + 0.01
    )


def test_other_grids_are_refused() -> None:
    emulator, data = fitted(Grid((8, 8), 8.0, "Mpc/h", True), 64)
    with pytest.raises(InputError, match="of 1 channel and"):
        log_likelihood(emulator, data.values[:1, :, :4].double(), data.params[:1].double())
