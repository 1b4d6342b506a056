"""Diffusion: a sampler without bias on Gaussian fields, the copula at the start, and what is learned."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from scipy import stats

import gen
from gen.checkpoint import save
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.diffusion.levels import Ladder
from gen.diffusion.solver import gaussian_bias, solve
from gen.emulators.copula import Copula
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.training.base import TrainingRecipe, train
from gen.training.denoising import Denoising
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

EIGHT_DECADES = torch.logspace(-4, 4, 33, dtype=torch.float64)
TORUS = Grid((16, 16), 16.0, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m",), (0.2,), (0.4,))


# The sampler


def test_default_levels_bias_no_wave_of_eight_decades_by_more_than_a_per_cent() -> None:
    assert gaussian_bias(EIGHT_DECADES, Ladder()).abs().max() < 0.0105
    inner = (EIGHT_DECADES >= 1e-3) & (EIGHT_DECADES <= 1e3)
    assert gaussian_bias(EIGHT_DECADES, Ladder())[inner].abs().max() < 0.001
    assert gaussian_bias(EIGHT_DECADES, Ladder(steps=32)).abs().max() < 0.0105


@pytest.mark.parametrize(
    ("ladder", "order"),
    [
        (Ladder(80, 2e-3, 64), 3),  # starts below the strongest waves
        (Ladder(1e3, 0.1, 64), 3),  # ends above the weakest
        (Ladder(1e3, 1e-3, 64), 1),  # first order, of whatever schedule
        (Ladder(1e3, 1e-3, 20), 2),  # too few steps
    ],
)
def test_mis_set_schedules_fail_the_same_test(ladder: Ladder, order: int) -> None:
    assert gaussian_bias(EIGHT_DECADES, ladder, order).abs().max() > 0.05


def test_twenty_evaluations_do_for_the_range_of_one_field() -> None:
    """Four decades of white noise, or all decades where the noise has the field's own spectrum."""
    own = torch.logspace(-2, 2, 17, dtype=torch.float64)
    assert gaussian_bias(own, Ladder.of_power(1e-2, 1e2, 20)).abs().max() < 0.01
    assert gaussian_bias(torch.ones(1), Ladder(10, 0.03, 20)).abs().max() < 0.012


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_error_falls_at_least_with_its_order(order: int) -> None:
    """Wide ladders, so that their ends are not what is seen."""
    power = torch.ones(1, dtype=torch.float64)
    errors = []
    for steps in (97, 193):
        ladder = Ladder(1e4, 1e-4, steps)
        errors.append(float(gaussian_bias(power, ladder, order) + 1e-8))
    assert math.log2(abs(errors[0] / errors[1])) > order - 0.35


def test_dpm_solver_of_another_hand_comes_to_the_same_fields() -> None:
    """diffusers' EDM DPM-Solver++(2M), on levels so fine that its midpoint rule does not matter."""
    power, n = torch.logspace(-2, 2, 9, dtype=torch.float64), 300
    theirs = EDMDPMSolverMultistepScheduler(
        sigma_min=1e-2, sigma_max=1e2, sigma_data=1.0, sigma_schedule="exponential", solver_order=2,
        final_sigmas_type="zero",
    )  # fmt: skip
    theirs.set_timesteps(n)
    x = torch.full_like(power, 100.0)
    for t, sigma in zip(theirs.timesteps, theirs.sigmas.double(), strict=False):
        d = power / (power + sigma**2) * x
        # the scheduler makes the denoised field from the network's output by its own preconditioning
        skip, out = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1) ** 0.5
        (x,) = theirs.step((d - skip * x) / out, t, x, return_dict=False)
    ours = solve(
        lambda x, s: power / (power + s**2) * x, torch.full_like(power, 100.0), Ladder(100, 0.01, n), 2
    )
    assert torch.allclose(x, ours, rtol=5e-4)


def test_ladders_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="must fall from high to low > 0, got 1 to 2"):
        Ladder(1, 2)
    with pytest.raises(InputError, match="powers must be positive, lowest first"):
        Ladder.of_power(0, 1)
    with pytest.raises(InputError, match="orders 1 to 4, got 5"):
        solve(lambda x, s: x, torch.ones(1), Ladder(), order=5)


# The emulator


def waves(n: int, scale: float, seed: int) -> torch.Tensor:
    white = torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    k = TORUS.wavenumber() / TORUS.k_fundamental
    g = torch.fft.irfft2(torch.fft.rfft2(white) * torch.exp(-((k / scale) ** 2)).float(), s=(16, 16))
    return g / g.std()


class Ridges(Source):
    """High along the lines where a Gaussian field is zero, of which a copula makes blobs."""

    def load(self) -> SimulationSet:
        n = 192
        values = 0.5 * waves(n, 3, 3) - waves(n, 2, 4).abs() + 0.8
        split = np.where(np.arange(n) < 144, "train", "validation")
        params = torch.linspace(0.21, 0.39, 12).repeat(16)[:, None]
        return SimulationSet(
            TORUS, SPACE, values, params, torch.arange(n), split, np.full(n, "interior"), "ridges"
        ).check()


def emulator(grid: Grid = TORUS, space: ParameterSpace = SPACE) -> CopulaDiffusion:
    return CopulaDiffusion(grid, space, degree=1, widths=(8, 16), reach=3.0)


@pytest.fixture(scope="module")
def fitted() -> CopulaDiffusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = emulator()
    made.fit(Ridges().load())
    return made.eval()


def test_before_training_samples_are_the_copulas(fitted: CopulaDiffusion) -> None:
    """To the sampler's bias of a wave, 0.6 % of its amplitude."""
    params = torch.full((8, 1), 0.3)
    generators = [[sample_generator(1, i) for i in range(8)] for _ in range(2)]
    ours, theirs = fitted.generate(params, generators[0]), fitted.copula.generate(params, generators[1])
    scores = [fitted.to_working(x, params) for x in (ours, theirs)]
    assert (scores[0] / scores[1] - 1).abs().median() < 0.006
    assert isinstance(fitted.copula, Copula)


def test_the_loss_is_one_where_nothing_is_learned(fitted: CopulaDiffusion) -> None:
    """Of a Gaussian field, at all levels: its best estimate is what the denoiser starts from."""
    params = torch.full((512, 1), 0.3)
    draws = [[sample_generator(0, i, stream) for i in range(512)] for stream in ("field", "noise")]
    with torch.no_grad():
        field = fitted.copula.marginal(fitted.noise(params, draws[0]), params)
        for level in (0.05, 1.0, 8.0):
            found = fitted.loss(field, params, draws[1], torch.full((512,), level))
            assert float(sum(found.values())) == pytest.approx(1, abs=0.06)


def test_levels_about_a_centre_are_those_of_a_cut_normal_law() -> None:
    ladder, share = Ladder(10, 0.03, 20), torch.arange(1, 100) / 100
    found = Denoising(centre=0.6, spread=1.1).levels(ladder, share)
    ends = [(math.log(x) - math.log(0.6)) / 1.1 for x in (ladder.low, ladder.high)]
    law = stats.truncnorm(*ends, loc=math.log(0.6), scale=1.1)
    assert np.allclose(found.log(), law.ppf(share), atol=1e-6)
    outermost = Denoising(0.6, 1.1).levels(ladder, torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64))
    assert outermost.tolist() == pytest.approx([ladder.low, ladder.high], rel=1e-6)
    for wrong in ({"centre": 0.0}, {"centre": 1.0, "spread": 0.0}, {"mirrored": -1.0}):
        with pytest.raises(InputError, match="centre and a spread above 0"):
            Denoising(**wrong)


def test_noise_of_both_signs_leaves_the_loss_and_quiets_its_gradient(fitted: CopulaDiffusion) -> None:
    """For as many evaluations, at a low level; of levels above the mark nothing changes."""
    made = copy.deepcopy(fitted)
    torch.nn.init.normal_(made.network.get_parameter("leave.weight"), std=0.05)
    values, params = Ridges().load().values[:16].float(), torch.full((16, 1), 0.3)
    noise = [made.noise(params, [sample_generator(0, i, f"{j}") for i in range(16)]) for j in range(16)]

    def found(g: torch.Tensor, level: float, mirrored: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        made.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(made, "noise", lambda *_: g)
            n = len(g)
            loss = sum(
                made.loss(values[:n], params[:n], [], torch.full((n,), level), mirrored=mirrored).values()
            )
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])

    both = found(noise[0], 0.1, mirrored=0.5)[0]
    assert float(both) == pytest.approx(
        float(found(noise[0], 0.1)[0] + found(-noise[0], 0.1)[0]) / 2, rel=1e-5
    )
    assert torch.equal(found(noise[0], 0.5, mirrored=0.5)[0], found(noise[0], 0.5)[0])
    single = torch.stack([found(g, 0.1)[1] for g in noise]).var(0).sum()
    mirror = torch.stack([found(g[:8], 0.1, mirrored=0.5)[1] for g in noise]).var(0).sum()
    assert mirror < 0.5 * single


def test_it_learns_what_the_copula_cannot_know(tmp_path: Path) -> None:
    """Ridges bend sharply across: the skewness of the Laplacian comes halfway to the truth or nearer."""

    def curvature(x: torch.Tensor) -> float:
        around = sum(x.roll(s, a) for s in (1, -1) for a in (2, 3))
        bend = around - 4 * x
        return float(((bend - bend.mean()) ** 3).mean() / bend.std() ** 3)

    recipe = TrainingRecipe(
        name="ridges", data=FieldData(Ridges(), batch_size=24), emulator=emulator, loss=Denoising(),
        optimiser=Adam(rate=3e-3, betas=(0.9, 0.99), schedule="cosine", clip=1.0), max_steps=300,
        ema_decay=0.98, accelerator="cpu", validate_every=300, validation_maps=16,
    )  # fmt: skip
    made = gen.load(train(recipe, tmp_path / "run") / "checkpoint")
    assert isinstance(made, CopulaDiffusion)
    truth = Ridges().load()
    params = truth.params[:64]
    learned = made.sample(params, seed=2).values
    copula = made.copula.sample(params, seed=2).values
    want, have, start = (curvature(x) for x in (truth.values, learned, copula))
    assert abs(have - want) < 0.5 * abs(start - want)
    assert float(learned.std()) == pytest.approx(float(truth.values.std()), rel=0.1)


def test_a_checkpoint_is_periodic_and_its_bits_do_not_depend_on_the_batch(
    fitted: CopulaDiffusion, tmp_path: Path
) -> None:
    torch.nn.init.normal_(fitted.network.get_parameter("leave.weight"), std=0.05)
    save(fitted, tmp_path / "toy", "# toy\n")
    made = gen.load(tmp_path / "toy")
    assert isinstance(made, CopulaDiffusion)
    params = torch.full((2, 1), 0.3)
    white = made.copula.white([sample_generator(4, i) for i in range(2)])
    with torch.no_grad():
        once, again = (made.denoised(x[:, None], 0.5, params) for x in (white, white.roll((4, 8), (1, 2))))
    assert (once.roll((4, 8), (2, 3)) - again).abs().max() < 1e-5
    exact, theta = copy.deepcopy(made).double(), params.double()
    with torch.no_grad():
        whole, moved = (
            exact.to_working(exact.from_white(x.double().flatten(1), theta), theta)
            for x in (white, white.roll((4, 8), (1, 2)))
        )
    assert (whole.roll((4, 8), (2, 3)) - moved).abs().max() < 1e-9
    one, many = (made.sample({"Omega_m": 0.3}, n=n, seed=9).values for n in (1, 40))
    assert torch.equal(one[0], many[0])


def test_open_maps_of_any_larger_size_come_of_windows_that_share_one_noise() -> None:
    """Before training they are the copula's, to the sampler's bias; afterwards a seed has one map too."""
    grid = Grid((16, 16), 16.0, "Mpc/h", periodic=False)
    made = emulator(grid)
    made.fit(replace(Ridges().load(), grid=grid))
    params, shape = torch.full((2, 1), 0.3), (23, 37)
    generators = [[sample_generator(1, i) for i in range(2)] for _ in range(2)]
    with torch.no_grad():
        ours = made.eval().generate(params, generators[0], shape=shape)
    theirs = made.copula.generate(params, generators[1], shape=shape)
    assert ours.shape == (2, 1, *shape)
    scores = [made.to_working(x, params) for x in (ours, theirs)]
    assert (scores[0] / scores[1] - 1).abs().median() < 0.006
    torch.nn.init.normal_(made.network.get_parameter("leave.weight"), std=0.05)
    one, many = (made.sample({"Omega_m": 0.3}, n=n, seed=2, shape=shape).values for n in (1, 3))
    assert torch.equal(one[0], many[0])
    with pytest.raises(InputError, match="as large as a window"):
        made.sample({"Omega_m": 0.3}, shape=(15, 40))


def test_a_loss_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    data = FieldData(Ridges(), batch_size=8)
    wrong = TrainingRecipe(name="a", data=data, emulator=emulator, loss=WassersteinGP(), accelerator="cpu")
    with pytest.raises(InputError, match="no generator to train against a critic"):
        train(wrong, tmp_path / "a")
    other = TrainingRecipe(
        name="b",
        data=data,
        emulator=lambda grid, space: Copula(grid, space),
        loss=Denoising(),
        accelerator="cpu",
    )
    with pytest.raises(InputError, match="Copula has no denoiser"):
        train(other, tmp_path / "b")


def test_a_noisy_map_is_denoised_as_well_as_a_wiener_filter_can() -> None:
    """Of an open Gaussian map, half of it masked: errors of samples are sqrt(2) of the filter's."""
    grid = Grid((12, 12), 3.0, "deg", periodic=False)
    torus = Grid((24, 24), 6.0, "deg", periodic=True)
    k = torus.wavenumber() / torus.k_fundamental
    white = torch.randn(1500, 1, 24, 24, generator=torch.Generator().manual_seed(5))
    g = torch.fft.irfft2(torch.fft.rfft2(white) * torch.exp(-((k / 5) ** 2)).float(), s=(24, 24))
    maps = 0.02 * (g / g.std())[..., :12, :12]
    n = len(maps)
    params, split = torch.full((n, 1), 0.3), np.full(n, "train")
    data = SimulationSet(grid, SPACE, maps, params, torch.arange(n), split, np.full(n, "interior"), "maps")
    made = CopulaDiffusion(grid, SPACE, degree=0, widths=(4, 8)).eval()
    made.fit(data.check())
    seen = torch.rand(12, 12, generator=torch.Generator().manual_seed(6)) < 0.5

    def observe(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, seen]

    truth, noise = maps[:64], 0.01
    noisy = observe(truth) + noise * torch.randn(
        64, int(seen.sum()), generator=torch.Generator().manual_seed(7)
    )
    covariance = torch.cov(maps.flatten(1).double().T)
    rows = seen.flatten()
    gain = covariance[:, rows] @ torch.linalg.inv(
        covariance[rows][:, rows] + noise**2 * torch.eye(int(rows.sum()), dtype=torch.float64)
    )
    wiener = (noisy.double() @ gain.T).reshape(64, 1, 12, 12)
    expected = (covariance - gain @ covariance[rows]).diagonal().mean().sqrt()
    generators = [sample_generator(8, i) for i in range(64)]
    found = made.posterior(observe, noisy, noise**2, params[:64], generators).double()
    rms = [float((found - x).square().mean().sqrt() / expected) for x in (wiener, truth)]
    assert rms[0] == pytest.approx(1, abs=0.06), "scatter about the filter's map is the posterior's"
    assert rms[1] == pytest.approx(math.sqrt(2), abs=0.09)
