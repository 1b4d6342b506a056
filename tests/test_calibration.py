"""A trained network's one-point law and power, brought to those of the fields; its morphology stays."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from torch.special import ndtr

from gen import checkpoint
from gen.data.base import SimulationSet
from gen.emulators.copula import Copula
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.log_marginal import LogMarginal
from gen.emulators.score_law import ScoreLaw
from gen.emulators.sharpened import powers_at_nodes
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.training.base import train

SPACE = ParameterSpace(("a",), (0.5,), (1.0,))
GRID = Grid((16, 16), 16.0, "Mpc/h", periodic=True)
LEVELS = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])


def test_a_law_of_scores_is_undone_at_parameters_between_those_it_was_fitted_at() -> None:
    """Scores N(a - 0.7, (1 + a/4)^2) skewed by a square, of 10^4 cells at each of 60 parameters."""
    law = LogMarginal(SPACE, reach=3.0, degree=2)
    a = torch.linspace(0.5, 1.0, 60)[:, None]
    generator = torch.Generator().manual_seed(0)
    law.fit_fields(a, [(x * torch.randn(10_000, generator=generator)).exp() for x in a])
    copula = Copula(GRID, SPACE, degree=2, logarithmic=True, reach=3.0)
    copula.marginal, of_scores = law, ScoreLaw(copula)
    assert torch.allclose(of_scores.places(law, a), law.places(a), rtol=0, atol=1e-6)

    def skewed(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x - 0.7 + (1 + x / 4) * (z + 0.05 * z.square())

    of_scores.fit(law, a, [skewed(x, torch.randn(10_000, generator=generator)) for x in a])
    theta = torch.tensor([[0.63], [0.88]])
    z = torch.linspace(-2.5, 2.5, 101).expand(2, -1)
    wanted, made = law(z, theta).log(), law(skewed(theta, z), theta, of_scores.places(law, theta)).log()
    # The law of 60 x 10^4 cells, three coefficients: 0.004 where 5 % are beyond, twice that at 2.5.
    scatter = (3 / 600_000 * ndtr(z) * ndtr(-z)).sqrt() / (torch.exp(-z.square() / 2) / 2.507)
    assert bool(((made - wanted).abs() < theta * (4 * scatter + 0.02)).all())


@pytest.mark.parametrize("seed", range(6))
def test_beyond_what_scores_tell_their_law_goes_on_as_the_marginal_does(seed: int) -> None:
    """16 fields of 256 normal scores know nothing beyond 3: nodes keep their distances, no tail bursts."""
    copula = Copula(GRID, SPACE, degree=0, logarithmic=True, reach=3.0)
    generator = torch.Generator().manual_seed(seed)
    a = torch.linspace(0.5, 1.0, 16)[:, None]
    copula.marginal.fit_fields(a, [(x * torch.randn(1, 10_000, generator=generator)).exp() for x in a])
    normal = torch.randn(16, 256, generator=generator)
    law = ScoreLaw(copula)
    law.fit(copula.marginal, a, [*(normal + 0.1 * torch.randn(16, 256, generator=generator))], [*normal])
    wanted = copula.marginal.places(a)[0]
    shift = law.places(copula.marginal, a)[0] - wanted
    assert (shift[wanted.abs() > 3.1].abs() < 0.5).all()
    assert torch.allclose(shift[wanted > 3.6].diff(), torch.zeros(()), atol=1e-4)


def lognormal_fields() -> SimulationSet:
    """exp(2 a g) of a red g, 64 parameters with 2 fields each."""
    generator = torch.Generator().manual_seed(1)
    simulation = torch.arange(128)
    params = (0.5 + 0.5 * torch.rand(64, 1, generator=generator)).repeat(2, 1)
    power = 1 / (1 + (GRID.wavenumber() / (3 * GRID.k_fundamental)) ** 2)
    white = torch.fft.rfftn(torch.randn(128, 1, *GRID.shape, generator=generator), dim=(2, 3))
    g = torch.fft.irfftn(white * power.sqrt(), s=GRID.shape, dim=(2, 3)).float()
    values = (2 * params[..., None, None] * g / g.std()).exp()
    split, region = np.full(128, "train"), np.full(128, "interior")
    return SimulationSet(GRID, SPACE, values, params, simulation, split, region, "toy decades").check()


@cache
def trained() -> tuple[CopulaGAN, CopulaGAN, SimulationSet]:
    """A network that has learnt nothing good, before and after its calibration."""
    data = lognormal_fields()
    gan = CopulaGAN(
        GRID, SPACE, degree=2, widths=(4, 8), summary_weight=0.0, logarithmic=True, reach=3.0,
        contrast_power=True, calibrated=True, critic_channels=(8, 8),
    )  # fmt: skip
    gan.fit(data)
    torch.manual_seed(0)
    weight, bias = gan.generator.leave.parameters()
    torch.nn.init.normal_(weight, std=0.15)
    torch.nn.init.constant_(bias, 0.4)
    before = CopulaGAN.from_config(gan.to_config())
    before.load_state_dict(gan.state_dict())
    gan.eval().calibrate(data)
    return before.eval(), gan, data


def excess(gan: CopulaGAN, made: torch.Tensor, real: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    """How many standard errors the mean shares of cells above scores, and mean powers, lie apart."""
    kinds = []
    for values in (made, real):
        y = gan.copula.marginal.inverse(values, params)
        shares = torch.stack([(y > level).float().mean((1, 2, 3)) for level in LEVELS], 1)
        kinds.append(torch.cat([shares, powers_at_nodes(gan.copula, contrast(gan, values, params))], 1))
    one, other = kinds
    error = ((one.var(0) + other.var(0)) / len(params)).sqrt()
    return ((one.mean(0) - other.mean(0)) / error).abs()


def test_fields_of_a_network_get_the_one_point_law_and_the_power_of_the_training_fields() -> None:
    before, after, data = trained()
    params = data.params.float()
    off, calibrated = (
        excess(after, gan.sample(params, seed=7).values, data.values, params) for gan in (before, after)
    )
    # Laws are known from these same fields: what is left is the noise of two means.
    assert float(off.max()) > 10
    assert float(calibrated.max()) < 4


def contrast(gan: CopulaGAN, values: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    marginal = gan.copula.marginal
    assert isinstance(marginal, LogMarginal)
    return values / marginal.mean(params)[:, None, None, None]


def test_level_sets_of_a_score_stay() -> None:
    """The map from scores to fields is increasing; in tails by less than single precision tells."""
    gan = copy.deepcopy(trained()[1]).double()
    y = torch.linspace(-5, 5, 1001, dtype=torch.float64).expand(3, -1)
    values = gan.to_physical(y, torch.tensor([[0.5], [0.7], [1.0]], dtype=torch.float64))
    assert bool((values.diff(dim=-1) > 0).all())


def test_it_survives_the_checkpoint(tmp_path: Path) -> None:
    _, gan, _ = trained()
    checkpoint.save(gan, tmp_path / "checkpoint", "card")
    again = checkpoint.load(tmp_path / "checkpoint")
    one, other = (e.sample({"a": 0.8}, n=2, seed=1).values for e in (gan, again))
    assert torch.equal(one, other)


def test_training_ends_with_the_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(CopulaGAN, "calibrate", lambda self, data: seen.append((self.training, data.name)))
    recipe = replace(tiny_run.recipe(), emulator=tiny_run.without_batch_norm, max_steps=2, validate_every=2)
    train(recipe, tmp_path / "run")
    assert seen == [(False, "toy noise")]


def test_only_fields_that_span_decades_are_calibrated() -> None:
    with pytest.raises(InputError, match="set logarithmic"):
        CopulaGAN(GRID, SPACE, calibrated=True)
