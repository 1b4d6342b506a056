"""Diffusion given a coarse field: the Gaussian completion at the start, its law, and what is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from gen.checkpoint import save
from gen.cli import main
from gen.commands.pairs import MISSING_MODES, paired
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.coarse_diffusion import CoarseDiffusion
from gen.emulators.evidence import likelihood_bound
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.io import read_fields, write_fields
from gen.noise import sample_generator
from gen.training.base import TrainingRecipe, train
from gen.training.denoising import Denoising
from gen.training.optimisation import Adam

SPACE = ParameterSpace(("Omega_m",), (0.2,), (0.4,))
FINE, COARSE = (Grid((n, n), 32.0, "Mpc/h", True) for n in (16, 8))
N = 160
STRONG = 1.0
"""Of what a cell's scatter grows with u, in the pairs that are no Gaussian ones."""


def waves(n: int, scale: float, seed: int) -> Tensor:
    """Gaussian fields of unit scatter without waves much beyond ``scale`` fundamentals."""
    white = torch.randn(n, 1, *FINE.shape, generator=torch.Generator().manual_seed(seed))
    low = 1 / (1 + (FINE.wavenumber() / FINE.k_fundamental / scale) ** 2)
    g = torch.fft.irfft2(torch.fft.rfft2(white) * low, s=FINE.shape).float()
    return g / g.std()


class Pairs(Source):
    """Values (u + n) / sqrt(2) of two independent Gaussian fields, beside a density whose scores u are; or
    n scattered more where u is high."""

    def __init__(self, growth: float = 0.0, halved: bool = False) -> None:
        self.growth, self.halved = growth, halved

    def load(self) -> SimulationSet:
        u, rest = waves(N, 3, 1), waves(N, 6, 2)
        values = (u + torch.exp(self.growth * u) * rest) / 2**0.5
        params = torch.linspace(0.21, 0.39, 10).repeat_interleave(N // 10)[:, None]
        split = np.where(np.arange(N) % 8 < 6, "train", "validation")
        density = torch.exp(0.5 * u)
        coarse, grid = (
            (torch.nn.functional.avg_pool2d(density, 2), COARSE) if self.halved else (density, FINE)
        )
        return SimulationSet(
            FINE, SPACE, values, params, torch.arange(N), split, np.full(N, "interior"), "pairs", "1",
            coarse, grid,
        ).check()  # fmt: skip


def emulator(grid: Grid = FINE, space: ParameterSpace = SPACE, factor: int = 1) -> CoarseDiffusion:
    return CoarseDiffusion(grid, space, factor=factor, degree=0, widths=(8, 16), reach=3.0)


@pytest.fixture(scope="module", params=[1, 2], ids=["same cells", "halved"])
def fitted(request: pytest.FixtureRequest) -> tuple[CoarseDiffusion, SimulationSet]:
    data = Pairs(halved=request.param == 2).load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = emulator(factor=request.param)
    made.fit(data)
    return made.eval(), data


def products(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Power of x, and its correlation coefficient with u, in rings of two fundamentals up to 6."""
    a, b = (torch.fft.rfft2(f[:, 0].double()) for f in (x, u))
    ring = (FINE.wavenumber() / FINE.k_fundamental / 2).floor().long()
    found = []
    for r in range(3):
        inside = (ring == r) & (FINE.wavenumber() > 0)
        aa, bb, ab = (p[:, inside].sum() for p in (a.abs() ** 2, b.abs() ** 2, (a * b.conj()).real))
        found.append((aa / inside.sum() / len(x), ab / (aa * bb).sqrt()))
    power, correlation = zip(*found, strict=True)
    return torch.stack(power), torch.stack(correlation)


def test_before_training_samples_have_the_fields_power_and_correlation(
    fitted: tuple[CoarseDiffusion, SimulationSet],
) -> None:
    made, data = fitted
    assert data.coarse is not None
    drawn = made.sample(data.params, coarse=data.coarse, seed=1).values
    u = made.told(data.coarse, data.params.float(), FINE.shape)
    ours, theirs = products(drawn, u), products(data.values, u)
    assert torch.allclose(ours[0], theirs[0], rtol=0.08)
    assert torch.allclose(ours[1], theirs[1], atol=0.03)


def test_the_sampler_comes_to_the_gaussian_completion_of_the_same_noise(
    fitted: tuple[CoarseDiffusion, SimulationSet],
) -> None:
    made, data = fitted
    assert data.coarse is not None
    given, params = data.coarse[:8], data.params[:8].float()
    generators = [[sample_generator(3, i) for i in range(8)] for _ in range(2)]
    with torch.no_grad():
        drawn, closed = (
            made.generate(params, generators[0], given),
            made.completed(params, generators[1], given),
        )
    assert (drawn - closed).std() < 0.012 * (closed - closed.mean(0)).std(), "the ladder's own bias"


def test_the_completion_is_the_exact_law_of_a_gaussian_pair() -> None:
    """Its mean is the Wiener filter of u, P_yu / P_uu, and its scatter what that leaves, by wave."""
    data = Pairs().load()
    assert data.coarse is not None
    made = emulator().eval()
    made.fit(data)
    one, n = data.coarse[:1], 400
    u = 2 * one.log()
    drawn = made.completed(
        data.params[:1].expand(n, 1).float(),
        [sample_generator(7, i) for i in range(n)],
        one.expand(n, 1, 16, 16),
    )
    mean, scatter = drawn.mean(0), drawn.var(0).mean()
    # u and n are independent and equally strong: the filter is 1 / sqrt(2), and what it leaves has 1/2.
    assert (mean - u[0] / 2**0.5).std() < 0.12
    assert float(scatter) == pytest.approx(0.5, rel=0.1)


def test_the_loss_is_one_where_nothing_is_learned(fitted: tuple[CoarseDiffusion, SimulationSet]) -> None:
    made, data = fitted
    assert data.coarse is not None
    levels = torch.logspace(-1, 1, len(data))
    noise = [sample_generator(0, i) for i in range(len(data))]
    with torch.no_grad():
        terms = made.loss(data.values, data.params.float(), noise, levels, data.coarse)
    assert float(sum(terms.values())) == pytest.approx(1, abs=0.08)


def test_it_moves_with_its_box_and_is_the_same_after_reload(tmp_path: Path) -> None:
    data = Pairs().load()
    assert data.coarse is not None
    made = emulator()
    made.fit(data)
    torch.manual_seed(5)
    torch.nn.init.normal_(made.get_parameter("network.leave.weight"), 0, 0.05)
    save(made.eval(), tmp_path / "made", "# made\n")
    again = gen.load(tmp_path / "made")
    assert isinstance(again, CoarseDiffusion) and again.to_config() == made.to_config()
    params, given = data.params[:2].float(), data.coarse[:2]
    white = made.white_latent([sample_generator(0, i) for i in range(2)]).reshape(2, *FINE.shape)
    with torch.no_grad():
        once = again.from_white(white.flatten(1), params, None, given)
        assert torch.equal(once, made.from_white(white.flatten(1), params, None, given))
        moved = again.from_white(
            white.roll((4, 6), (1, 2)).flatten(1), params, None, given.roll((4, 6), (2, 3))
        )
    assert (moved - once.roll((4, 6), (2, 3))).abs().max() < 1e-5 * once.std()
    fields = [made.sample(data.params[:3], coarse=data.coarse[:3], seed=s).values for s in (0, 0, 1)]
    assert torch.equal(fields[0], fields[1]) and not torch.allclose(fields[0], fields[2])


def test_it_learns_that_the_scatter_grows_with_what_it_is_given(tmp_path: Path) -> None:
    """The Gaussian completion cannot: what it adds is the same everywhere."""
    source = Pairs(growth=STRONG)
    recipe = TrainingRecipe(
        name="pairs", data=FieldData(source, batch_size=32), emulator=emulator, loss=Denoising(),
        optimiser=Adam(3e-3), max_steps=150, ema_decay=0.95, accelerator="cpu", validate_every=150,
        validation_maps=16,
    )  # fmt: skip
    made = gen.load(train(recipe, tmp_path / "run") / "checkpoint")
    assert isinstance(made, CoarseDiffusion)
    data = source.load().select(split="validation")
    assert data.coarse is not None
    given, params, n = data.coarse[:4], data.params[:4], 32

    def contrast(fields: Tensor) -> float:
        """Scatter from draw to draw of the cells with the highest u over that of those with the lowest."""
        scatter = fields.unflatten(0, (4, n)).std(1)
        return float(scatter[given > 1.5].mean() / scatter[given < 0.67].mean())

    drawn = made.sample(params, n, seed=2, coarse=given).values
    generators = [sample_generator(2, i) for i in range(4 * n)]
    rows = torch.arange(4).repeat_interleave(n)
    with torch.no_grad():
        closed = made.completed(params[rows].float(), generators, given[rows])
    assert contrast(drawn) > 2 * contrast(closed)


def test_once_calibrated_fields_have_the_power_of_the_training_fields() -> None:
    """Of a network that makes short waves too strong."""
    data = Pairs().load()
    assert data.coarse is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = CoarseDiffusion(
            FINE, SPACE, factor=1, degree=0, widths=(4,), steps=4, reach=3.0, calibrated=True
        )
        torch.nn.init.normal_(made.get_parameter("network.leave.weight"), 0, 0.1)
    made.fit(data)
    made.eval()
    u = data.coarse.log()

    def error() -> float:
        found = products(made.sample(data.params, coarse=data.coarse, seed=5).values, u)[0]
        return float((found / products(data.values, u)[0] - 1).abs().max())

    before = error()
    made.calibrate(data)
    assert error() < 0.06 < 0.2 < before
    again = CoarseDiffusion.from_config(made.to_config())
    again.load_state_dict(made.state_dict())
    values, params = data.values[:4], data.params[:4].float()
    assert torch.allclose(again.to_physical(again.to_working(values, params), params), values, atol=1e-4)


def test_of_fields_of_decades_the_one_point_law_is_mended() -> None:
    """Of a network that spreads scores too far, so that power, all in the peaks, is far too high."""
    plain = Pairs().load()
    data = replace(plain, values=torch.exp(3 * plain.values)).check()
    assert data.coarse is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = CoarseDiffusion(
            FINE,
            SPACE,
            factor=1,
            degree=0,
            widths=(4,),
            steps=4,
            logarithmic=True,
            reach=2.5,
            calibrated=True,
        )
        torch.nn.init.normal_(made.get_parameter("network.leave.weight"), 0, 0.1)
    made.fit(data)
    made.eval()
    shares = torch.tensor([0.001, 0.02, 0.2, 0.5, 0.8, 0.98, 0.999])

    def error() -> float:
        """Of ln of quantiles, in scatters."""
        drawn = made.sample(data.params, coarse=data.coarse, seed=5).values
        ours, theirs = (torch.quantile(x.log().flatten(), shares) for x in (drawn, data.values))
        return float((ours - theirs).abs().max() / data.values.log().std())

    before = error()
    made.calibrate(data)
    assert error() < 0.12 < 0.25 < before
    again = CoarseDiffusion.from_config(made.to_config())
    again.load_state_dict(made.state_dict())
    values, params = data.values[:4], data.params[:4].float()
    assert torch.allclose(again.to_physical(again.to_working(values, params), params), values, rtol=1e-3)


def test_a_posterior_keeps_what_it_is_given(fitted: tuple[CoarseDiffusion, SimulationSet]) -> None:
    """Half of the cells are observed with little noise; the coarse field helps in the others."""
    made, data = fitted
    assert data.coarse is not None
    seen = torch.zeros(FINE.shape, dtype=torch.bool)
    seen[:, :8] = True
    truth, params, given = data.values[:1], data.params[:1].float().expand(6, 1), data.coarse[:1]

    def observe(field: Tensor) -> Tensor:
        return field[..., seen]

    generators = [sample_generator(1, i) for i in range(6)]
    drawn = made.posterior(
        observe, observe(truth).expand(6, 1, -1), 0.01**2, params, generators, 24, given.expand(6, -1, -1, -1)
    )
    error = drawn - truth
    assert error[..., seen].std() < 0.03
    free = made.generate(params, generators, given.expand(6, -1, -1, -1))
    assert error[..., ~seen].std() < 1.05 * (free - truth)[..., ~seen].std()


def test_from_the_command_line(
    fitted: tuple[CoarseDiffusion, SimulationSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, data = fitted
    assert data.coarse is not None and data.coarse_grid is not None
    save(made, tmp_path / "made", "# made\n")
    part = Fields.of(data.coarse[:2], data.params[:2])
    write_fields(tmp_path / "coarse.h5", [part], 2, data.coarse_grid, SPACE, {})
    asked = ["apply", str(tmp_path / "made"), "--coarse", str(tmp_path / "coarse.h5"), "--processes", "1"]
    assert main([*asked, "--seed", "4", "-o", str(tmp_path / "fine.h5")]) == 0
    wanted = made.sample(data.params[:2].double(), coarse=data.coarse[:2], seed=4).values
    assert torch.allclose(read_fields(tmp_path / "fine.h5").values[:], wanted, atol=2e-5)
    assert main(["sample", str(tmp_path / "made"), "-o", str(tmp_path / "none.h5")]) == 2
    assert "cosmozoo apply" in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "made"), "-o", str(tmp_path / "none.png")]) == 2
    assert "has no latent space of independent numbers" in capsys.readouterr().err
    seen = ["posterior", str(tmp_path / "made"), "--observed", str(tmp_path / "fine.h5"), "--noise", "0.1"]
    assert main([*seen, "--params", "Omega_m=0.3", "-o", str(tmp_path / "none.h5")]) == 2
    assert "makes fields from coarse ones, which this command does not take" in capsys.readouterr().err


def test_a_report_sets_its_closed_form_beside_it(
    fitted: tuple[CoarseDiffusion, SimulationSet], tmp_path: Path
) -> None:
    made, data = fitted
    save(made, tmp_path / "made", "# made\n")
    found = paired([tmp_path / "made"], data, seed=0)
    assert found.baseline == MISSING_MODES and set(found.samples) == {"made", MISSING_MODES}
    assert set(found.pairing.twins) == {"made", MISSING_MODES}, "two draws of one coarse field"


def test_what_does_not_fit_is_refused() -> None:
    data = Pairs().load()
    made = emulator()
    made.fit(data)
    with pytest.raises(InputError, match="makes fields from the density 1 \\+ delta of a low-resolution run"):
        made.sample({"Omega_m": 0.3})
    with pytest.raises(InputError, match=r"must have shape \(B, 1, 16, 16\), got \(8, 1, 8, 8\)"):
        made.sample({"Omega_m": 0.3}, coarse=torch.ones(1, 1, 8, 8))
    with pytest.raises(InputError, match="a coarse field needs a periodic grid whose sides divide by factor"):
        emulator(factor=3)
    with pytest.raises(InputError, match="are exactly 0, and such fields have no normal scores"):
        made.fit(replace(data, values=data.values.clamp(min=0)))
    with pytest.raises(InputError, match="the density of fields given others is not known"):
        likelihood_bound(made, data.values[:1], data.params[:1])
