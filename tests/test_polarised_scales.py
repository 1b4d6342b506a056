"""Small scales of I, Q and U together: alignment, the frame of the field, spectra, and what is held."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from evaluation.polarisation import Polarisation
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.beams import beam, filtered
from gen.emulators.local_frame import FrameStrength, direction_of, turned
from gen.emulators.polarised_scales import PolarisedSmallScales
from gen.emulators.steering import Steering, aligned_share, spin_two
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.polarised_summaries import PolarisedSummaries
from gen.simulate.dust import Dust
from gen.training.base import TrainingRecipe, train
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

PATCH = Grid((64, 64), 8.0, "deg", periodic=False)
TORUS = replace(PATCH, periodic=True)
SPACE = ParameterSpace(("slope", "lam", "f_M"), (-3.4, 0.0, 0.3), (-2.8, 6.0, 0.7))
COARSE, FINE = 80.0, 20.0


def dust(n: int, seed: int, lam: float | None = None) -> SimulationSet:
    source = Dust(fine_beam=FINE, coarse_beam=COARSE, depth=16)
    draws = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed))
    params = SPACE.restore(2 * draws - 1)
    if lam is not None:
        params[:, 1] = lam
    made = [
        source.fields(dict(zip(SPACE.names, row, strict=True)), PATCH, 1000 * seed + i)
        for i, row in enumerate(params.tolist())
    ]
    split = np.where(np.arange(n) < n - 8, "train", "validation")
    return SimulationSet(
        PATCH, SPACE, torch.cat([m.values for m in made]), params, torch.arange(n), split,
        np.full(n, "interior"), "dust", "1", torch.cat([m.coarse for m in made if m.coarse is not None]),
        PATCH, spin_channels=((1, 2),),
    ).check()  # fmt: skip


def emulator(**changes: object) -> PolarisedSmallScales:
    arguments = {"coarse_beam": COARSE, "fine_beam": FINE, "widths": (4, 8), "critic_channels": (4, 8)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PolarisedSmallScales(PATCH, SPACE, **{**arguments, **changes})  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def learnt() -> SimulationSet:
    return dust(32, 1)


@pytest.fixture(scope="module")
def fitted(learnt: SimulationSet) -> PolarisedSmallScales:
    made = emulator(summary_weight=0.0)
    made.fit(learnt)
    return made.eval()


# Alignment and frames


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.8])
def test_steered_fields_keep_their_variance_and_tell_how_they_were_steered(alpha: float) -> None:
    space = ParameterSpace((), (), ())
    g = torch.randn(64, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    angle = torch.linspace(0, math.pi, 64)[:, None].expand(64, 64)
    n = torch.stack([angle.cos(), angle.sin()]).expand(64, 2, 64, 64)
    steering, params = Steering(space), torch.zeros(64, 0)
    steering.fit(torch.full((64,), alpha / (1 + alpha**2 / 2)), params)
    assert steering.alpha(params).flatten()[0].item() == pytest.approx(alpha, abs=1e-4)
    made = steering(g, n, TORUS, params)
    assert made.var().item() == pytest.approx(1.0, abs=0.02)
    assert aligned_share(made, n, TORUS).mean().item() == pytest.approx(alpha / (1 + alpha**2 / 2), abs=0.03)


def test_steered_waves_times_a_polarisation_have_te_and_more_e_than_b() -> None:
    """Of T = 1 + s g and P = p n T with waves times 1 + alpha cos 2(phi - psi), to first order in s:
    C_TE / C_TT = p <(1 + alpha c)^2 c> / <(1 + alpha c)^2> = p alpha / (1 + alpha^2 / 2), and
    (EE - BB) / (EE + BB) = (alpha^2 / 4) / (1 + alpha^2 / 2)."""
    alpha, p = 1.0, 0.3
    steering, params = Steering(ParameterSpace((), (), ())), torch.zeros(128, 0)
    steering.fit(torch.full((128,), alpha / (1 + alpha**2 / 2)), params)
    g = torch.randn(128, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    n = torch.tensor([math.cos(0.7), math.sin(0.7)]).reshape(1, 2, 1, 1).expand(128, 2, 64, 64)
    t = 1 + 0.1 * steering(g, n, TORUS, params)
    tt, ee, bb, te = Polarisation(TORUS)(torch.cat([t, p * n * t], 1)).mean(0)[:4, 3:-3].mean(1)
    assert te / tt == pytest.approx(p * alpha / (1 + alpha**2 / 2), rel=0.05)
    assert (ee - bb) / (ee + bb) == pytest.approx((alpha**2 / 4) / (1 + alpha**2 / 2), abs=0.02)


def test_spin_two_waves_are_second_derivatives_over_the_laplacian() -> None:
    x = torch.arange(64) * 2 * math.pi / 64
    plane = torch.cos(3 * x[:, None] + 4 * x[None, :])[None, None]
    cos, sin = spin_two(plane, TORUS)[0]
    assert torch.allclose(cos, (9 - 16) / 25 * plane[0, 0], atol=1e-5)
    assert torch.allclose(sin, 24 / 25 * plane[0, 0], atol=1e-5)


def test_frames_are_undone_and_tell_lengths_from_angles() -> None:
    generator = torch.Generator().manual_seed(4)
    f = torch.randn(16, 2, 32, 32, generator=generator)
    r = torch.randn(16, 2, 32, 32, generator=generator)
    n = direction_of(f)
    assert torch.allclose(turned(turned(r, n), n, back=True), r, atol=1e-5)
    assert torch.allclose(turned(f, n)[:, 1], torch.zeros(16, 32, 32), atol=1e-5)
    r = turned(torch.stack([0.1 * r[:, 0] + 0.2, 0.5 * r[:, 1]], 1), n, back=True)
    frame = FrameStrength()
    frame.fit(f, r)
    z = turned(frame.unit(f, r), n)
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(2), atol=0.03)
    assert abs(z[:, 0].mean()) < 0.03
    assert torch.allclose(frame(f, frame.unit(f, r)), r, atol=1e-5)


def test_summaries_tell_e_from_b_and_have_gradients() -> None:
    """Q and U turned by 45 degrees are B where they were E."""
    summaries = PolarisedSummaries(PATCH)
    t = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    e = spin_two(t, PATCH)
    maps = torch.cat([2 + t / t.std(), e / e.std()], 1).requires_grad_(True)
    n = summaries.intensity.n_power
    ee, bb, te = summaries._polarised(maps).mean(0).split(n)
    assert (ee - bb)[3:].min() > 1 and te[3:].min() > 0.8
    turned_maps = torch.stack([maps[:, 0], -maps[:, 2], maps[:, 1]], 1)
    ee, bb, te = summaries._polarised(turned_maps).mean(0).split(n)
    assert (bb - ee)[3:].min() > 1 and te[3:].abs().max() < 0.5
    summaries.fit(maps.detach(), maps.detach())
    (gradient,) = torch.autograd.grad(summaries(maps, maps).square().sum(), maps)
    assert torch.isfinite(gradient).all()


def test_polarisation_that_does_not_grow_with_intensity_is_a_multiple_of_the_maps_unit() -> None:
    """Q and U are Gaussian whatever a strongly lognormal I: their small scales' power, made over real."""
    generator = torch.Generator().manual_seed(6)
    power = (1 / (1 + (PATCH.wavenumber() / (2 * PATCH.k_fundamental)) ** 3)).sqrt()
    white = torch.randn(20, 3, 64, 64, generator=generator)
    g = torch.fft.irfft2(torch.fft.rfft2(white) * power, s=(64, 64)).float()
    g = g / g.std()
    sky = torch.cat([(1.2 * g[:, :1]).exp(), 1.5 * g[:, 1:]], 1)
    values, coarse = (filtered(sky, beam(PATCH, width)) for width in (FINE, COARSE))
    space = ParameterSpace((), (), ())
    data = SimulationSet(
        PATCH, space, values, torch.zeros(20, 0), torch.arange(20), np.full(20, "train"),
        np.full(20, "interior"), "gaussian polarisation", "1", coarse, PATCH, spin_channels=((1, 2),),
    ).check()  # fmt: skip
    ratio = {}
    for whole in ("intensity", "map"):
        made = PolarisedSmallScales(
            PATCH, space, coarse_beam=COARSE, fine_beam=FINE, widths=(4, 8), summary_weight=0.0,
            polarised_by=whole,
        )  # fmt: skip
        made.fit(data)
        maps = made.closed_forms(coarse, data.params)
        small = [(fields - coarse)[:, 1:].square().mean() for fields in (maps, values)]
        ratio[whole] = float(small[0] / small[1])
    assert ratio["intensity"] > 1.3
    assert ratio["map"] == pytest.approx(1, abs=0.08)


# The closed form


def shares(maps: Tensor) -> Tensor:
    """TT, EE, BB and r_TE of the new scales."""
    spectra = Polarisation(PATCH)
    ell = torch.as_tensor(spectra.spectra()[0].abscissa)
    shell = (ell > 350) & (ell < 800)
    tt, ee, bb, te = spectra(maps)[:, :4, shell].mean(2).mean(0)
    return torch.stack([tt, ee, bb, te / (tt * ee).sqrt()])


def test_large_scales_are_held(fitted: PolarisedSmallScales) -> None:
    """To 1 or 2 % of the map's fluctuations away from the edges."""
    data = dust(8, 5)
    assert data.coarse is not None
    made = fitted.sample(data.params, coarse=data.coarse, seed=1).values
    wide = filtered(made, beam(PATCH, fitted.widening))
    inner = (..., slice(18, -18), slice(18, -18))
    off = (wide[inner] - data.coarse[inner]).square().mean((2, 3)).sqrt() / data.coarse[inner].std((2, 3))
    assert off.median(0).values.max() < 0.02


def test_e_is_above_b_and_correlates_with_t_as_in_the_simulations(fitted: PolarisedSmallScales) -> None:
    """Aligned dust: the closed form has EE, BB and r_TE; small scales as of I, or Gaussian, lack r_TE."""
    data = dust(24, 6, lam=5.0)
    assert data.coarse is not None
    real = shares(data.values)
    made = shares(fitted.closed_form(data.coarse, data.params))
    alike = shares(fitted.as_intensity(data.coarse, data.params))
    assert torch.allclose(made[:3], real[:3], rtol=0.35)
    assert real[3] > 0.15
    assert abs(made[3] - real[3]) < 0.1
    assert alike[3] < made[3] - 0.05
    assert shares(fitted.practice(data.coarse, data.params))[3] < made[3] - 0.05


def test_a_brighter_sky_has_brighter_small_scales_and_each_seed_draws_others(
    fitted: PolarisedSmallScales,
) -> None:
    data = dust(9, 7)
    assert data.coarse is not None
    once = fitted.sample(data.params, coarse=data.coarse).values
    bright = fitted.sample(data.params, coarse=100 * data.coarse).values
    assert (bright / 100 - once).abs().max() < 1e-3 * once[:, 0].mean()
    again = fitted.sample(data.params, coarse=data.coarse, seed=1).values
    assert not torch.allclose(once, again)


def test_bad_input_is_refused(fitted: PolarisedSmallScales, learnt: SimulationSet) -> None:
    assert learnt.coarse is not None
    with pytest.raises(InputError, match="learnt from I, Q and U"):
        emulator().fit(replace(learnt, values=learnt.values[:, :1]))
    with pytest.raises(InputError, match="does not turn the fields into their coarse ones"):
        emulator().fit(replace(learnt, coarse=learnt.coarse.roll(1, 0)))
    with pytest.raises(InputError, match="need positive fields"):
        spot = torch.zeros_like(learnt.values)
        spot[:, 0, 0, 0] = 9
        emulator().fit(replace(learnt, values=learnt.values - spot))
    with pytest.raises(InputError, match="need positive coarse fields"):
        fitted.sample(learnt.params[:1], coarse=-learnt.coarse[:1])
    with pytest.raises(InputError, match="must have shape"):
        fitted.sample(learnt.params[:1], coarse=learnt.coarse[:1, :1])
    with pytest.raises(InputError, match="maps, got a grid of 3 dimensions"):
        PolarisedSmallScales(Grid((16, 16, 16), 10.0, "Mpc/h", periodic=True), SPACE)


class Patches(Source):
    def load(self) -> SimulationSet:
        return dust(18, 1)


def test_it_trains_and_comes_back_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gen.emulators.polarised_scales.ROUNDS", 1)
    recipe = TrainingRecipe(
        name="dust",
        data=FieldData(Patches(), batch_size=4),
        emulator=lambda grid, space: emulator(),
        loss=WassersteinGP(n_critic=1),
        optimiser=Adam(2e-3, 2e-4, (0.5, 0.99)),
        max_steps=2,
        accelerator="cpu",
        validate_every=2,
        validation_maps=8,
    )
    loaded = gen.load(train(recipe, tmp_path / "run") / "checkpoint")
    assert isinstance(loaded, PolarisedSmallScales)
    data = dust(9, 3)
    assert data.coarse is not None
    made = loaded.sample(data.params[:1], coarse=data.coarse[:1]).values
    assert made.shape == (1, 3, 64, 64) and bool((made[:, 0] > 0).all())
