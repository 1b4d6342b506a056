"""Small scales of a map given its large ones: the closed form's laws, what is held, units, and training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.beams import beam, filtered, undoing, widening
from gen.emulators.contrast import Composition, Ratio, Strength, Sum
from gen.emulators.mirror import Mirror
from gen.emulators.power_law import PowerLaw
from gen.emulators.small_scales import SmallScales
from gen.errors import InputError
from gen.fields import FWHM, Grid, ParameterSpace, beam_sigma
from gen.training.base import TrainingRecipe, train
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

ARCMIN = 1 / 60
PATCH = Grid((64, 64), 64 * 7.5 * ARCMIN, "deg", periodic=False)
TORUS = replace(PATCH, periodic=True)
SPACE = ParameterSpace(("slope",), (-3.5,), (-2.5,))
FINE, COARSE = 20.0, 80.0


def dust(grid: Grid, n: int = 24, seed: int = 0) -> SimulationSet:
    """Exponentials of Gaussian fields of a power law, at the fine beam, and as the wide beam sees them."""
    side = 2 * grid.shape[0]
    torus = replace(grid, periodic=True).resized((side, side))
    generator = torch.Generator().manual_seed(seed)
    params = -2.5 - torch.rand(n, 1, generator=generator)
    k = torus.wavenumber()
    amplitude = torch.where(
        k > 0, (k / torus.k_fundamental).clamp(min=1) ** (params[..., None].double() / 2), 0.0
    )
    white = torch.randn(n, side, side, generator=generator, dtype=torch.float64)
    g = torch.fft.irfftn(torch.fft.rfftn(white, dim=(1, 2)) * amplitude, s=(side, side), dim=(1, 2))
    sky = 100 * torch.exp(0.6 * g / g.std((1, 2), keepdim=True))[:, None].float()
    if grid.periodic:
        sky = sky[..., ::2, ::2]
        torus = grid
    fine = filtered(sky, beam(torus, FINE))
    wide = filtered(fine, beam(torus, widening(torus, FINE, COARSE)))
    rows = (..., slice(grid.shape[0]), slice(grid.shape[1]))
    split = np.where(np.arange(n) < 2 * n // 3, "train", "validation")
    return SimulationSet(
        grid, SPACE, fine[rows].clone(), params, torch.arange(n), split, np.full(n, "interior"), "dust", "1",
        wide[rows].clone(), grid,
    ).check()  # fmt: skip


def emulator(grid: Grid = PATCH, space: ParameterSpace = SPACE, **changes: object) -> SmallScales:
    arguments = {"coarse_beam": COARSE, "fine_beam": FINE, "widths": (4, 8), "critic_channels": (4, 8)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallScales(grid, space, **{**arguments, **changes})  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def fitted() -> SmallScales:
    made = emulator()
    made.fit(dust(PATCH))
    return made.eval()


# Beams


def test_a_beam_has_its_width_at_half_maximum() -> None:
    """A point seen through it falls to half at FWHM / 2."""
    point = torch.zeros(1, 1, 64, 64)
    point[..., 32, 32] = 1.0
    seen = filtered(point, beam(TORUS, 60.0))[0, 0]  # 8 cells of 7.5 arcmin
    assert seen[32, 36] / seen[32, 32] == pytest.approx(0.5, abs=2e-3)
    assert seen.sum() == pytest.approx(1.0, abs=1e-5)
    assert beam_sigma(TORUS, 60.0) == pytest.approx(math.radians(1.0) / FWHM)
    for unit, per_degree in (("arcmin", 60.0), ("rad", math.radians(1.0))):  # arcmin, however the sky is told
        same = Grid((64, 64), 8 * per_degree, unit, periodic=True)
        assert torch.allclose(beam(same, 60.0), beam(TORUS, 60.0))


def test_beams_add_in_squares_and_are_undone() -> None:
    both = beam(TORUS, FINE) * beam(TORUS, widening(TORUS, FINE, COARSE))
    assert torch.allclose(both, beam(TORUS, COARSE))
    b = torch.tensor([1.0, 0.5, 1e-4])
    *_, last = undoing(b, 3)
    assert torch.allclose(last * b, torch.tensor([1.0, 1.0, 0.0]), atol=0.03)
    with pytest.raises(InputError, match="narrower than the coarse one, got 80 and 20 arcmin"):
        widening(TORUS, COARSE, FINE)


def test_mirrors_continue_maps_and_give_them_back() -> None:
    mirror = Mirror.of_beam(PATCH, 80.0, 4)
    maps = torch.randn(2, 1, 64, 64)
    wide = mirror.extended(maps)
    assert mirror.margin == math.ceil(2.5 * 80 / FWHM / 7.5) == 12
    assert wide.shape == (2, 1, 88, 88)
    assert torch.equal(mirror.cut(wide, (64, 64)), maps)
    assert torch.equal(wide[..., 11, 12:76], maps[..., 1, :]), "the edge is not repeated"
    assert Mirror.of_beam(TORUS, 80.0, 4).extended(maps) is maps
    with pytest.raises(InputError, match="give larger maps"):
        Mirror.of_beam(PATCH, 480.0, 4)


# Compositions


@pytest.mark.parametrize("composition", [Ratio(), Sum()], ids=["ratio", "sum"])
def test_compositions_are_undone_and_know_no_unit(composition: Composition) -> None:
    data = dust(PATCH, 3)
    assert data.coarse is not None
    for scale in (1.0, 1e3):
        values, coarse = scale * data.values, scale * data.coarse
        unit = composition.unit(coarse)
        r = composition.small(values, coarse, unit)
        assert torch.allclose(composition.joined(coarse, unit, r), values, rtol=1e-4)
        assert torch.allclose(composition.unflat(composition.flat(values)), values, rtol=1e-4)
        once = data.values, data.coarse, composition.unit(data.coarse)
        assert torch.allclose(r, composition.small(*once), rtol=1e-3, atol=1e-4)
        step = composition.step(values, coarse, unit)
        assert torch.allclose(composition.joined(coarse, unit, step), values, rtol=1e-3)


def test_strength_is_measured_where_it_varies() -> None:
    x = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    white = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    strength = Strength(8)
    strength.fit(x, 0.3 * x + (0.5 + 0.4 * x) * white)
    mean, scatter = strength(torch.tensor([-0.5, 0.0, 0.5]))
    # 16,384 cells in 8 bins: scatter is known to 1.6 per cent of 0.5
    assert torch.allclose(mean, torch.tensor([-0.15, 0.0, 0.15]), atol=0.03)
    assert torch.allclose(scatter, torch.tensor([0.3, 0.5, 0.7]), atol=0.03)
    beyond = strength(torch.tensor([5.0]))[1]
    assert beyond == strength.moments[1, -1], "constant beyond what was seen"


# The closed form


def test_large_scales_are_held(fitted: SmallScales) -> None:
    """To 1 % of the map's fluctuations away from the edges; not so if they are not held."""
    data = dust(PATCH, 8, seed=5)
    assert data.coarse is not None
    off = {}
    for hold in (0, fitted.hold):
        fitted.hold, kept = hold, fitted.hold
        made = fitted.sample(data.params, coarse=data.coarse, seed=1).values
        fitted.hold = kept
        wide = filtered(made, beam(PATCH, fitted.widening))
        inner = (..., slice(20, -20), slice(20, -20))
        spread = data.coarse[inner].std()
        off[hold] = float((wide[inner] - data.coarse[inner]).square().mean().sqrt() / spread)
    assert off[fitted.hold] < 0.01 < 0.05 < off[0]


@pytest.mark.parametrize("composition", [Ratio(), Sum()], ids=["ratio", "sum"])
def test_on_a_torus_they_are_held_everywhere(composition: Composition) -> None:
    data = dust(TORUS)
    assert data.coarse is not None
    made = emulator(TORUS, composition=composition, summary_weight=0.0)
    made.fit(data)
    fields = made.eval().sample(data.params, coarse=data.coarse).values
    off = filtered(fields, beam(TORUS, made.widening)) - data.coarse
    assert off.square().mean().sqrt() < 0.01 * data.coarse.std()


def test_small_scales_have_the_measured_laws(fitted: SmallScales) -> None:
    """Spread, tails and roughness of r on other maps, within the scatter of these and of those fitted."""
    data, n_fitted = dust(PATCH, 24, seed=9), 16
    assert data.coarse is not None
    unit = fitted.composition.unit(data.coarse)

    def laws(values: Tensor) -> dict[str, Tensor]:
        r = fitted.composition.small(values, data.coarse, unit)[..., 12:-12, 12:-12]
        each = r.flatten(1)
        steps = (r[..., 1:] - r[..., :-1]).flatten(1)
        return {"spread": each.std(1), "tail": torch.quantile(each, 0.99, 1), "step": steps.std(1)}

    real, made = laws(data.values), laws(fitted.closed_form(data.coarse, data.params))
    for name, value in real.items():
        difference = (made[name] - value) / value.mean()
        error = math.hypot(difference.std() / 24**0.5, value.std() / value.mean() / n_fitted**0.5)
        assert abs(difference.mean()) < 3 * error, name
        assert error < 0.1, "a difference of a third would be seen"


def test_amplitudes_are_those_of_the_map(fitted: SmallScales) -> None:
    """A sky a thousand times as bright has small scales a thousand times as bright: nothing is forgotten."""
    data = dust(PATCH, 2, seed=3)
    assert data.coarse is not None
    once = fitted.sample(data.params, coarse=data.coarse).values
    bright = fitted.sample(data.params, coarse=1000 * data.coarse).values
    assert torch.allclose(bright, 1000 * once, rtol=1e-3)


def test_the_practice_of_today_is_a_power_law_in_gaussian_noise() -> None:
    """Slope and amplitude of maps that were made so, on a torus, and no sign of anything else."""
    law = PowerLaw(TORUS, COARSE, FINE)
    law.line.copy_(torch.tensor([9.0, -2.4]))
    coarse = torch.full((64, 1, 64, 64), 50.0)
    white = torch.randn(64, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    values = law(coarse, white)
    refitted = PowerLaw(TORUS, COARSE, FINE)
    refitted.fit(values, coarse)
    # 64 maps of some 1,500 modes, of which the taper leaves a quarter
    assert refitted.line[1] == pytest.approx(-2.4, abs=0.05)
    k = 600.0
    here, there = (x.line[0] + x.line[1] * math.log(k) for x in (refitted, law))
    assert float(here - there) == pytest.approx(0.0, abs=0.05)
    n = values / 50 - 1
    assert abs(n.mean()) < 0.01 and abs((n**3).mean() / n.std() ** 3) < 0.1


def test_each_seed_draws_other_small_scales_and_latent_none_draws_nothing(fitted: SmallScales) -> None:
    data = dust(PATCH, 9, seed=4)
    assert data.coarse is not None
    one, two = (fitted.sample(data.params, coarse=data.coarse, seed=s).values for s in (0, 1))
    assert not torch.allclose(one, two)
    alone = fitted.sample(data.params[:1], coarse=data.coarse[:1], seed=0).values
    assert torch.equal(one[:1], alone), "a sample is a function of its seed and place alone"
    closed = [fitted.closed_form(data.coarse, data.params) for _ in range(2)]
    assert torch.equal(*closed)
    still = emulator(latent="none", summary_weight=0.0)
    still.fit(dust(PATCH, 9))
    one, two = (still.eval().sample(data.params, coarse=data.coarse, seed=s).values for s in (0, 1))
    assert torch.equal(one, two)


def test_maps_of_another_size(fitted: SmallScales) -> None:
    wide = Grid((96, 80), (96 * 7.5 * ARCMIN, 80 * 7.5 * ARCMIN), "deg", periodic=False)
    coarse = dust(replace(PATCH, shape=(96, 96), box_size=(12.0, 12.0)), 3).coarse
    assert coarse is not None
    made = fitted.sample({"slope": -3.0}, n=1, coarse=coarse[:1, :, :, :80], shape=wide.shape)
    assert made.values.shape == (1, 1, 96, 80)


# What cannot be


def test_bad_input_is_refused(fitted: SmallScales) -> None:
    data = dust(PATCH)
    assert data.coarse is not None
    with pytest.raises(InputError, match="does not turn the fields into their coarse ones"):
        emulator().fit(replace(data, coarse=data.coarse.roll(1, 0)))
    with pytest.raises(InputError, match="does not turn the fields into their coarse ones"):
        emulator(coarse_beam=200.0).fit(data)
    with pytest.raises(InputError, match="need positive fields, got values down to -1"):
        emulator().fit(replace(data, values=data.values.where(data.values < 300, -1.0)))
    with pytest.raises(InputError, match="need positive coarse fields"):
        fitted.sample(data.params, coarse=data.coarse - 200)
    with pytest.raises(InputError, match="from one channel and the same at the wide beam"):
        emulator().fit(replace(data, coarse=None, coarse_grid=None))
    with pytest.raises(InputError, match="a coarse field is constant"):
        Sum().unit(torch.ones(1, 1, 4, 4))
    with pytest.raises(InputError, match="give it as coarse"):
        fitted.sample(data.params[:1])


# Training


class Dust(Source):
    def load(self) -> SimulationSet:
        return dust(PATCH)


@pytest.mark.parametrize("paired", [True, False])
def test_the_critic_sees_large_scales_only_in_pairs(paired: bool) -> None:
    data = dust(PATCH, 4)
    assert data.coarse is not None
    made = emulator(paired=paired, critic_spectrum=False, summary_weight=0.0)
    made.fit(data)
    critic = made.make_critic()
    w = made.to_working(data.values, data.params)
    # the same r beside other large scales of the same strength
    flipped = data.coarse.flip(2)
    unit = made.composition.unit(data.coarse)
    with torch.no_grad():
        made.strength.moments.copy_(torch.stack([torch.zeros(12), torch.ones(12)]))
        other = made.composition.joined(flipped, unit, made.composition.small(data.values, data.coarse, unit))
        one = critic(w, data.params, data.coarse)
        two = critic(made.to_working(other, data.params), data.params, flipped)
    assert torch.allclose(one, two, atol=1e-5) != paired


def test_it_trains_and_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    recipe = TrainingRecipe(
        name="dust",
        data=FieldData(Dust(), batch_size=4),
        emulator=lambda grid, space: emulator(grid, space),
        loss=WassersteinGP(n_critic=1),
        optimiser=Adam(2e-3, 2e-4, (0.5, 0.99)),
        max_steps=4,
        accelerator="cpu",
        validate_every=4,
        validation_maps=8,
    )
    out = train(recipe, tmp_path / "run")
    loaded = gen.load(out / "checkpoint")
    data = dust(PATCH, 2, seed=3)
    assert data.coarse is not None
    made = loaded.sample(data.params, coarse=data.coarse).values
    assert isinstance(loaded, SmallScales)
    assert not torch.allclose(made, loaded.made(
        loaded.draw_latent(data.params, [torch.Generator().manual_seed(i) for i in (0, 1)], data.coarse),
        data.params, PATCH.shape, learned=False,
    )), "the network has learned something"  # fmt: skip
    assert loaded.to_config() == emulator().to_config()
