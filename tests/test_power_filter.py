"""The filter of a sampler's scores: its inverse, its determinant, and the power that it gives."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_autoencoder import GRIDS, SPACE, Lognormal, gaussian
from test_completion import QUARTER
from torch import Tensor

import gen
from gen.checkpoint import save
from gen.emulators.copula import Copula
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.emulators.diffusion import Diffusion
from gen.emulators.evidence import log_likelihood
from gen.emulators.latent_diffusion import LatentDiffusion
from gen.emulators.power_filter import PowerFilter
from gen.emulators.sharpened import tapered_power
from gen.fields import Grid

SMALL = {"torus": Grid((6, 6), 6.0, "Mpc/h", True), "sky": Grid((6, 5), 2.0, "deg", False)}


def some_filter(grid: Grid, strength: float = 0.3) -> PowerFilter:
    """Of any amplitude, another at other parameters."""
    made = PowerFilter(Copula(grid, SPACE, degree=1, reach=3.0))
    shape = made.log_power.coefficients.shape
    made.log_power.coefficients += strength * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize("name", GRIDS)
def test_the_inverse_is_one_and_waves_are_multiplied(name: str) -> None:
    grid = GRIDS[name]
    made, y = some_filter(grid), gaussian(grid, 3)
    params = torch.tensor([[0.21], [0.3], [0.39]])
    assert torch.allclose(made(made(y, params), params, inverse=True), y, atol=1e-4)
    assert not torch.allclose(
        made(y[:1].expand(3, *y.shape[1:]), params)[0], made(y[:1], params[2:])[0], atol=1e-2
    )
    n = grid.shape[0]
    line = torch.arange(n)
    longest = (2 * math.pi / n * line).cos() if grid.periodic else (math.pi / n * (line + 0.5)).cos()
    wave = longest.reshape(1, 1, -1, *[1] * (grid.dim - 1)).expand_as(y[:1])
    found = made(wave, params[:1])
    gain = (found * wave).mean() / wave.square().mean()
    assert torch.allclose(found, gain * wave, atol=1e-4)
    at_the_first_node = made.log_power(params[:1])[0, 0] / 2
    assert float(gain.log()) == pytest.approx(float(at_the_first_node), abs=0.01)


@pytest.mark.parametrize("name", SMALL)
def test_the_determinant_is_the_matrices(name: str) -> None:
    grid = SMALL[name]
    made, n = some_filter(grid), math.prod(grid.shape)
    units = torch.eye(n).reshape(n, 1, *grid.shape)
    for value in (0.22, 0.38):
        theta = torch.tensor([[value]])
        matrix = made(units, theta.expand(n, -1)).flatten(1).double()
        assert torch.allclose(matrix, matrix.T, atol=1e-5)
        wanted = float(torch.linalg.slogdet(matrix).logabsdet)
        assert float(made.log_determinant(torch.Size(grid.shape), theta)) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("name", ["torus", "sky"])
def test_a_sampler_of_wrong_power_gets_that_of_the_training_fields(name: str) -> None:
    """Waves of a sampler are up to twice too strong; 1,000 fields tell a bin to some per cent."""
    grid = GRIDS[name]
    data = Lognormal(grid, 768).load().select(split="train")
    copula = Copula(grid, SPACE, degree=1, reach=3.0)
    copula.fit(data)
    wrong = some_filter(grid, 0.8)
    made = PowerFilter(copula)

    def draw(white: Tensor, params: Tensor, *, right: bool = True) -> Tensor:
        y = wrong(copula.gaussian(params, white), params)
        return copula.marginal(made(y, params) if right else y, params)

    made.fit_sampler(copula, data.values, data.params, copula.white_latent, draw, copula.from_white)
    params = torch.full((1000, 1), 0.3)
    white = torch.randn(1000, copula.white_size(grid.shape), generator=torch.Generator().manual_seed(3))
    power = {
        "real": tapered_power(grid, data.values[(data.params[:, 0] - 0.3).abs() < 0.01]),
        "right": tapered_power(grid, draw(white, params)),
        "wrong": tapered_power(grid, draw(white, params, right=False)),
    }
    k = (grid.wavenumber() / grid.k_fundamental).round()
    ratio = {
        which: torch.stack([power[which][k == b].mean() / power["real"][k == b].mean() for b in range(2, 8)])
        for which in ("right", "wrong")
    }
    error = {which: float(r.log().square().mean().sqrt()) for which, r in ratio.items()}
    assert error["right"] < 0.1 < 0.15 < error["wrong"]


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_it_is_part_of_the_checkpoint_and_of_the_density(kind: str, tmp_path: Path) -> None:
    grid = SMALL["torus"] if kind == "pixels" else GRIDS["torus"]
    data = Lognormal(grid).load().select(split="train")

    def fitted(*, calibrated: bool) -> Diffusion:
        coding = replace(QUARTER, widths=(4, 4), channels=2)
        if kind == "latents":
            made = LatentDiffusion(grid, SPACE, coding=coding, widths=(4,), steps=4, calibrated=calibrated)
        else:
            made = CopulaDiffusion(
                grid, SPACE, degree=1, widths=(4,), steps=4, reach=3.0, calibrated=calibrated
            )
        made.fit(data)
        return made.eval()

    plain, made = fitted(calibrated=False), fitted(calibrated=True)
    assert made.filter is not None
    made.filter.log_power.coefficients[0] += 0.5
    save(made, tmp_path / "toy", "# toy\n")
    again = gen.load(tmp_path / "toy")
    assert isinstance(again, Diffusion)
    values = again.sample({"Omega_m": 0.3}, n=4, seed=2).values
    assert torch.equal(values, made.sample({"Omega_m": 0.3}, n=4, seed=2).values)
    assert not torch.allclose(values, plain.sample({"Omega_m": 0.3}, n=4, seed=2).values)
    params = torch.full((4, 1), 0.3)
    if isinstance(again, CopulaDiffusion) and isinstance(plain, CopulaDiffusion):
        assert torch.allclose(again.to_physical(again.to_working(values, params), params), values, rtol=1e-3)
        unfiltered = plain.to_physical(again.to_working(values, params), params)
        slopes = [_log_slope(plain, x, params) for x in (values, unfiltered)]
        change = slopes[0] - slopes[1] - again.filter.log_determinant(values.shape[2:], params)  # pyright: ignore[reportOptionalMemberAccess]
        ours, theirs = (
            log_likelihood(m, x, params, probes=None) for m, x in ((again, values), (plain, unfiltered))
        )
        assert torch.allclose(ours.nats, theirs.nats + change, atol=0.05)


def _log_slope(made: CopulaDiffusion, values: Tensor, params: Tensor) -> Tensor:
    x = values.clone().requires_grad_()
    (slope,) = torch.autograd.grad(made.copula.marginal.inverse(x, params).sum(), x)
    return slope.double().log().flatten(1).sum(1)
