"""The filter of a sampler's scores: its inverse, its determinant, and the power that it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def test_no_wave_is_changed_by_more_than_it_may() -> None:
    grid = GRIDS["torus"]
    made = PowerFilter(Copula(grid, SPACE, degree=1), most=4.0)
    y, params = gaussian(grid, 2), torch.full((2, 1), 0.3)
    for asked, gain in ((20.0, 2.0), (-20.0, 0.5)):
        made.log_power.coefficients[0] = asked
        assert torch.allclose(made(y, params), gain * y, atol=1e-4)


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


class Wrong(CopulaDiffusion):
    """A sampler whose waves are up to twice too strong, and whose scores are off, stretched and skewed."""

    def raw_scores(
        self,
        white: Tensor,
        params: Tensor,
        shape: Sequence[int] | None = None,
        coarse: Tensor | None = None,
    ) -> Tensor:
        del coarse
        y = some_filter(self.grid, 0.8)(self.copula.gaussian(params, white, shape), params)
        return 0.2 + 1.1 * y + 0.05 * y.square()


@pytest.mark.parametrize("name", ["torus", "sky"])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_sampler_gets_the_power_and_the_law_of_the_training_fields(name: str, logarithmic: bool) -> None:
    """1,000 fields tell a bin of power to some per cent; scores below -1.5 to 1.5 to less than 1 % of all."""
    grid = GRIDS[name]
    data = Lognormal(grid, 768).load().select(split="train")
    made = Wrong(grid, SPACE, degree=1, widths=(4,), reach=3.0, logarithmic=logarithmic, calibrated=True)
    made.fit(data)
    params = torch.full((1000, 1), 0.3)
    white = torch.randn(1000, made.copula.white_size(grid.shape), generator=torch.Generator().manual_seed(3))
    fields = {
        "real": data.values[(data.params[:, 0] - 0.3).abs() < 0.01],
        "wrong": made.from_white(white, params),
    }
    made.calibrate(data)
    fields["right"] = made.from_white(white, params)
    k = (grid.wavenumber() / grid.k_fundamental).round()
    power = {which: tapered_power(grid, x) for which, x in fields.items()}
    scores = {which: made.copula.marginal.inverse(x, params[: len(x)]) for which, x in fields.items()}
    error, off = {}, {}
    for which in ("right", "wrong"):
        ratio = [power[which][k == b].mean() / power["real"][k == b].mean() for b in range(2, 8)]
        error[which] = float(torch.stack(ratio).log().square().mean().sqrt())
        below = [
            [float((scores[of] < level).float().mean()) for level in (-1.5, -0.5, 0.5, 1.5)]
            for of in (which, "real")
        ]
        off[which] = max(abs(a - b) for a, b in zip(*below, strict=True))
    assert error["right"] < 0.1 < 0.15 < error["wrong"]
    assert off["right"] < 0.015 < 0.05 < off["wrong"]


class WrongDecoder(LatentDiffusion):
    """Latents whose closed form, too, is off, stretched and skewed."""

    def scores(self, y: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        right = super().scores(y, params, white)
        return 0.2 + 1.1 * right + 0.05 * right.square()


def test_a_decoder_gets_the_law_of_the_training_fields_though_its_closed_form_has_another() -> None:
    grid = GRIDS["torus"]
    data = Lognormal(grid, 768).load().select(split="train")
    coding = replace(QUARTER, widths=(4, 4), channels=2)
    made = WrongDecoder(grid, SPACE, coding=coding, widths=(4,), steps=4, calibrated=True)
    made.fit(data)
    made.eval()
    at = (data.params[:, 0] - 0.3).abs() < 0.01
    params = data.params[at]
    fields = {"real": data.values[at], "wrong": made.sample(params, seed=1).values}
    made.calibrate(data)
    fields["right"] = made.sample(params, seed=1).values
    below = {}
    for which, x in fields.items():
        scores = made.closed_form.marginal.inverse(x, params)
        below[which] = torch.stack([(scores < level).float().mean() for level in (-1.5, -0.5, 0.5, 1.5)])
    off = {which: float((below[which] - below["real"]).abs().max()) for which in ("right", "wrong")}
    assert off["right"] < 0.03 < 0.06 < off["wrong"]


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
    assert made.filter is not None and made.score_law is not None
    made.filter.log_power.coefficients[0] += 0.5
    made.score_law.shift.coefficients[0] += torch.linspace(-0.2, 0.4, made.closed_form.marginal.n_nodes)
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
        slopes = [_log_slope(m, x, params) for m, x in ((again, values), (plain, unfiltered))]
        change = slopes[0] - slopes[1] - again.filter.log_determinant(values.shape[2:], params)  # pyright: ignore[reportOptionalMemberAccess]
        ours, theirs = (
            log_likelihood(m, x, params, probes=None) for m, x in ((again, values), (plain, unfiltered))
        )
        assert torch.allclose(ours.nats, theirs.nats + change, atol=0.05)


def _log_slope(made: CopulaDiffusion, values: Tensor, params: Tensor) -> Tensor:
    x = values.clone().requires_grad_()
    (slope,) = torch.autograd.grad(made.mended(x, params).sum(), x)
    return slope.double().log().flatten(1).sum(1)
