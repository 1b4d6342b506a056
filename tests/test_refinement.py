"""Super-resolution by particles: lattices that nest, waves of given power, fine runs of a coarse one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given import Given
from torch import Tensor

from evaluation.interrogate.asking import EMULATOR, SECOND_ORDER, TRUTH
from gen import checkpoint
from gen.cli import main
from gen.commands.laboratory import Laboratory
from gen.data.base import SimulationSet
from gen.data.module import FieldData
from gen.emulators.adversarial_refinement import AdversarialRefinement
from gen.emulators.motion_critic import MotionCritic
from gen.emulators.refinement import Refinement
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.simulate.displacement import second_order
from gen.simulate.field_pairs import Refinement as Runs
from gen.simulate.growth import Growth
from gen.simulate.initial import at_cell_centres, linear_modes, white_noise
from gen.simulate.lattices import interpolated, lacking, restricted
from gen.simulate.recipe import parse_recipe
from gen.simulate.run import load_simulations, simulate
from gen.simulate.theory import Cosmology, linear_power
from gen.training.base import TrainingRecipe, train
from gen.training.best import best_record
from gen.training.fidelity import LagrangianEulerian
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

N, BOX = 16, 32.0
GRID = Grid((N, N, N), BOX, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


def plane_waves(shape: tuple[int, ...], waves: list[tuple[int, ...]]) -> Tensor:
    """A sum of plane waves at the centres of the cells of a unit box, ``(1, 1, *shape)``."""
    x = torch.meshgrid(*[(torch.arange(n) + 0.5) / n for n in shape], indexing="ij")
    total = torch.full(shape, 0.7)
    for i, k in enumerate(waves):
        total += torch.cos(2 * math.pi * sum(a * b for a, b in zip(k, x, strict=True)) + i)
    return total[None, None]


@pytest.mark.parametrize(
    ("shape", "factor", "waves"),
    [
        ((8, 8, 8), 2, [(1, 2, 0), (-3, 3, 1), (0, -2, 3)]),
        ((6, 12), 3, [(2, -5), (-1, 3)]),
        ((5, 7), 2, [(2, 3), (-2, 1)]),
    ],
)
def test_interpolation_is_exact_below_the_nyquist_planes(shape, factor, waves) -> None:
    fine = tuple(factor * n for n in shape)
    made = interpolated(plane_waves(shape, waves), factor)
    torch.testing.assert_close(made, plane_waves(fine, waves), atol=1e-5, rtol=0)


def test_restriction_keeps_the_waves_that_the_coarse_lattice_holds() -> None:
    long, short = [(1, 2, 0), (-3, 3, 1)], [(4, 1, 0), (5, -6, 2), (0, 0, 4)]
    fine = plane_waves((16, 16, 16), long) + plane_waves((16, 16, 16), short) - 0.7
    torch.testing.assert_close(restricted(fine, 2), plane_waves((8, 8, 8), long), atol=1e-5, rtol=0)
    field = torch.randn(1, 2, 6, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        restricted(interpolated(field, 3), 3), interpolated(field, 1), atol=1e-5, rtol=0
    )


def test_each_wave_is_on_the_coarse_lattice_or_lacking() -> None:
    noise = white_noise([sample_generator(3, 0)], N)
    missing = lacking((N, N, N), 2)
    short = torch.fft.irfftn(at_cell_centres(noise * missing), s=(N, N, N), dim=(1, 2, 3))
    coarse = at_cell_centres(white_noise([sample_generator(3, 0)], N // 2))
    long = torch.fft.irfftn(coarse, s=(N // 2,) * 3, dim=(1, 2, 3)) / 8
    whole = torch.fft.irfftn(at_cell_centres(noise), s=(N, N, N), dim=(1, 2, 3))
    torch.testing.assert_close(interpolated(long[None], 2)[0] + short, whole, atol=1e-5, rtol=0)


def test_the_runs_of_a_pair_are_one_universe() -> None:
    """At second order and small amplitude a fine run is the coarse one and its own short waves."""
    weak = Cosmology(0.3, 0.1)
    pair = Runs(steps=0).fields(weak, 9.0, GRID, seed=4)
    assert pair.values.shape == (1, 6, N, N, N)
    assert pair.coarse is not None
    psi, v, waves = pair.coarse.chunk(3, 1)
    growth, a = Growth(0.3), 0.1
    rate = 100 * float(growth.first_momentum(a)) / a / float(growth.first(a))
    for made, true in ((psi + waves, pair.values[:, :3]), (v + rate * waves, pair.values[:, 3:])):
        assert (made - true).std() < 0.02 * true.std()
    assert waves.std() > 0.2 * psi.std()


def recipe(boxes: int = 12, steps: int = 4):
    return parse_recipe(
        {
            "name": "pairs",
            "seed": 1,
            "grid": {"shape": [N] * 3, "box_size": BOX, "unit": "Mpc/h", "periodic": True},
            "space": SPACE.to_dict(),
            "refinement": {"steps": steps},
            "training": {"cosmologies": boxes, "boxes": 1, "validation": 0},
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulationSet:
    cache = tmp_path_factory.mktemp("refinement")
    return load_simulations(simulate(recipe(), cache, processes=1))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> SimulationSet:
    return load_simulations(simulate(recipe(24), tmp_path_factory.mktemp("many"), processes=1))


@pytest.fixture(scope="module")
def emulator(data: SimulationSet) -> Refinement:
    made = Refinement(GRID, SPACE, widths=(4, 8))
    made.fit(data)
    return made.eval()


def coarse_run(seed: int, n: int = N // 2) -> Tensor:
    """2LPT displacement and velocity of a coarse run, ``(1, 6, n, n, n)``."""
    cosmo = Cosmology(0.3, 0.8)
    noise = white_noise([sample_generator(seed, 0)], n)
    modes = at_cell_centres(
        linear_modes(noise, 4.0 * n, lambda k: torch.from_numpy(linear_power(cosmo, k.double().numpy())))
    )
    return torch.cat(second_order(modes, 4.0 * n, Growth(cosmo.Omega_m), 1.0), 1)


PARAMS = torch.tensor([[0.3, 0.8]])


def test_drawn_waves_have_the_power_of_the_runs(data: SimulationSet, emulator: Refinement) -> None:
    assert data.coarse is not None
    true, params = data.coarse[:, 6:].float(), data.params.float()
    many = 16
    generators = [sample_generator(5, i) for i in range(many * len(true))]
    with torch.no_grad():
        made = emulator.drawn(params.repeat(many, 1), generators, GRID.shape)
    missing = lacking(GRID.shape, 2)
    made_power, true_power = (torch.fft.rfftn(x, dim=(2, 3, 4)).abs().square().sum(1) for x in (made, true))
    assert made_power[:, ~missing].sum() < 1e-9 * made_power.sum()
    k = GRID.wavenumber()
    for low, high in ((0.5, 0.75), (0.75, 1.0), (1.0, 1.8)):
        band = missing & (k > low * GRID.k_nyquist) & (k <= high * GRID.k_nyquist)
        # Twelve boxes of n / 2 independent waves each say this much.
        error = math.sqrt(4 / int(band.sum()) / len(true))
        ratio = float(made_power[:, band].mean() / true_power[:, band].mean())
        assert abs(ratio - 1) < 4 * error + 0.02
    # A displacement of waves is a gradient: it has no curl.
    curl = torch.fft.rfftn(made[:1], dim=(2, 3, 4))
    kx = torch.fft.fftfreq(N)[:, None, None]
    ky = torch.fft.fftfreq(N)[None, :, None]
    assert (kx * curl[:, 1] - ky * curl[:, 0]).abs().max() < 1e-4 * curl.abs().max()


def test_it_starts_as_the_coarse_run_and_zeldovich(emulator: Refinement) -> None:
    run = coarse_run(7)
    with torch.no_grad():
        made = emulator.generate(PARAMS, [sample_generator(0, 0)], run)
        drawn = emulator.drawn(PARAMS, [sample_generator(0, 0)], GRID.shape)
    torch.testing.assert_close(made[:, :3], interpolated(run[:, :3], 2) + drawn)
    growth = Growth(0.3)
    rate = 100 * float(growth.first_momentum(1.0) / growth.first(1.0))
    torch.testing.assert_close(made[:, 3:], interpolated(run[:, 3:], 2) + rate * drawn, atol=0.05, rtol=1e-3)


def test_realisations_share_the_coarse_run_alone(emulator: Refinement) -> None:
    made = emulator.sample({"Omega_m": 0.3, "sigma_8": 0.8}, n=2, seed=1, coarse=coarse_run(7)).values
    one, two = torch.fft.rfftn(made[:, :3], dim=(2, 3, 4))
    missing = lacking(GRID.shape, 2)
    assert (one - two)[:, ~missing].abs().max() < 1e-3 * one.abs().max()
    overlap = (one * two.conj())[:, missing].real.sum() / one[:, missing].abs().square().sum()
    assert abs(overlap) < 0.1
    again = emulator.sample({"Omega_m": 0.3, "sigma_8": 0.8}, n=2, seed=1, coarse=coarse_run(7)).values
    assert torch.equal(made, again)


def test_known_waves_are_kept(data: SimulationSet, emulator: Refinement) -> None:
    assert data.coarse is not None
    rows = slice(0, 2)
    with torch.no_grad():
        made = emulator.generate(
            data.params[rows].float(), [sample_generator(0, i) for i in range(2)], data.coarse[rows].float()
        )
        closed = emulator.closed_form(data.coarse[rows].float(), data.params[rows].float())
    torch.testing.assert_close(made, closed)
    start, true = data.coarse[rows, :3], data.values[rows, :3]
    assert (closed[:, :3] - true).square().mean() < (start - true).square().mean()


def test_a_run_already_interpolated_is_the_same(emulator: Refinement) -> None:
    run = coarse_run(7)
    made = [emulator.sample(PARAMS.double(), seed=3, coarse=x).values for x in (run, interpolated(run, 2))]
    torch.testing.assert_close(*made)


def test_a_larger_box_of_the_same_cells(emulator: Refinement) -> None:
    big = emulator.sample(PARAMS.double(), coarse=coarse_run(7, n=N), shape=(2 * N,) * 3)
    assert big.values.shape == (1, 6, 2 * N, 2 * N, 2 * N)
    small = emulator.sample(PARAMS.double(), n=16, coarse=coarse_run(7))
    powers = []
    for made, n in ((big.values, 2 * N), (small.values, N)):
        k = GRID.resized((n, n, n)).wavenumber()
        band = lacking((n, n, n), 2) & (k > 0.6 * GRID.k_nyquist) & (k < GRID.k_nyquist)
        modes = torch.fft.rfftn(made[:, :3], dim=(2, 3, 4), norm="ortho").abs().square().sum(1)
        powers.append(float((modes * k**4.5)[:, band].mean()))
    assert powers[0] / powers[1] == pytest.approx(1, abs=0.05)


def test_a_checkpoint_is_the_emulator(emulator: Refinement, tmp_path: Path) -> None:
    checkpoint.save(emulator, tmp_path / "kept", "A test.")
    kept = checkpoint.load(tmp_path / "kept")
    run = coarse_run(2)
    assert torch.equal(kept.sample(PARAMS.double(), coarse=run).values,
                       emulator.sample(PARAMS.double(), coarse=run).values)  # fmt: skip


def halves(data: SimulationSet) -> SimulationSet:
    """Every other box for validation."""
    split = np.where(np.arange(len(data)) % 2, "validation", "train")
    return replace(data, split=split)


def toy(data: SimulationSet, **changes: Any) -> TrainingRecipe:
    return TrainingRecipe(
        name="toy",
        data=FieldData(Given(halves(data)), batch_size=4),
        accelerator="cpu",
        validate_every=20,
        validation_maps=8,
        **changes,
    )


def test_it_learns_what_short_waves_lead_to(many: SimulationSet, tmp_path: Path) -> None:
    """On boxes and cosmologies that it has not seen, nearer to the fine run than the closed form."""
    recipe = toy(
        many,
        emulator=lambda grid, space: Refinement(grid, space, widths=(8, 16)),
        loss=LagrangianEulerian(),
        optimiser=Adam(rate=4e-3, betas=(0.9, 0.99), clip=20.0, schedule="cosine"),
        max_steps=60,
        ema_decay=0.8,
    )
    train(recipe, tmp_path / "run")
    record = best_record(tmp_path / "run")
    assert record is not None and record["score"] < 0.95 and record["velocity"] < 0.95


def test_against_a_critic_it_trains_on_waves_of_its_own(many: SimulationSet, tmp_path: Path) -> None:
    recipe = toy(
        many,
        emulator=lambda grid, space: AdversarialRefinement(
            grid, space, widths=(4, 8), critic_channels=(4, 8)
        ),
        loss=WassersteinGP(n_critic=1),
        optimiser=Adam(rate=1e-4, critic_rate=1e-4, betas=(0.5, 0.9)),
        max_steps=4,
        ema_decay=0.0,
    )
    train(recipe, tmp_path / "run")
    made = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert isinstance(made, AdversarialRefinement) and many.coarse is not None
    amplitudes = [p.detach() for n, p in made.named_parameters() if n.endswith("noise.amplitude")]
    assert len(amplitudes) == 3 and all(bool((a != 0).any()) for a in amplitudes), "noise has begun to tell"
    given = many.coarse[:1].float()
    fields = [made.sample(many.params[:1].double(), seed=s, coarse=given).values for s in (0, 1, 0)]
    assert torch.equal(fields[0], fields[2])
    missing = lacking(GRID.shape, 2)
    one, two = (torch.fft.rfftn(x[0, 0])[missing] for x in fields[:2])
    assert abs((one * two.conj()).real.sum() / one.abs().square().sum()) < 0.2, "waves are drawn, not kept"


def test_the_critic_sees_where_particles_stand_and_not_where_the_box_begins() -> None:
    scale, generator = torch.tensor([1.0] * 3 + [100.0] * 3), torch.Generator().manual_seed(1)
    critic = MotionCritic(GRID, SPACE, scale, (4, 8), 3)
    y, run = torch.randn(2, 2, 6, N, N, N, generator=generator)
    coarse = run * scale[:, None, None, None]
    known = critic(y, PARAMS.expand(2, 2), coarse)
    shift = torch.tensor([4.0, -2.0, 2.0, 0, 0, 0])[:, None, None, None]  # whole cells of 2 Mpc/h
    views = [critic._standing((y * scale[:, None, None, None] + s)[:, :3]) for s in (0 * shift, shift)]
    torch.testing.assert_close(views[1], views[0].roll((2, -1, 1), (2, 3, 4)), atol=1e-4, rtol=1e-4)
    assert known.shape == (2,)
    moved = critic(y, PARAMS.expand(2, 2), coarse + 0.5)
    assert (moved - known).abs().max() > 1e-6


def test_asked_like_a_simulation_it_runs_the_long_waves_and_adds_the_short(emulator: Refinement) -> None:
    lab = Laboratory(emulator, {"Omega_m": 0.3, "sigma_8": 0.8}, steps=3)
    psi = lab.boxes(1, 1)
    answers = lab.maps()
    shape, axes = psi.shape[2:], (2, 3, 4)
    missing = lacking(shape, 2)
    short = torch.fft.irfftn(torch.fft.rfftn(psi, dim=axes) * missing, s=shape, dim=axes)
    torch.testing.assert_close(answers[EMULATOR](short), short, atol=1e-3, rtol=0)
    made, waves = answers[EMULATOR](psi), answers[EMULATOR](psi) - answers[EMULATOR](psi - short)
    torch.testing.assert_close(waves, short, atol=1e-3, rtol=0)
    # Even without a network, the run of the long waves brings it nearer to the fine run than they alone.
    truth = answers[TRUTH](psi)
    assert (made - truth).square().mean() < (psi - short - truth).square().mean()
    # 2LPT is of second order whoever is asked: halved, psi2 is quartered.
    second = [answers[SECOND_ORDER](a * psi) - a * psi for a in (1.0, 0.5)]
    torch.testing.assert_close(second[1], second[0] / 4, atol=2e-3, rtol=0)
    drift = torch.tensor([3.0, -1.0, 2.0])[None, :, None, None, None]
    for name in (EMULATOR, SECOND_ORDER):
        torch.testing.assert_close(answers[name](psi + drift), answers[name](psi) + drift, atol=1e-3, rtol=0)
    (gradient,) = torch.autograd.grad(answers[EMULATOR](short.requires_grad_())[0, 0, 1, 2, 3], short)
    assert gradient[0, 0, 1, 2, 3] == gradient.abs().max() > 0


def test_interrogate_asks_it(emulator: Refinement, tmp_path: Path) -> None:
    checkpoint.save(emulator, tmp_path / "net", "A test.")
    told = [
        "interrogate",
        str(tmp_path / "net"),
        "-o",
        str(tmp_path / "page"),
        "--boxes",
        "2",
        "--steps",
        "1",
    ]
    assert main(told) == 0
    found = json.loads((tmp_path / "page" / "interrogation.json").read_text(encoding="utf-8"))
    assert len(found["headline"]) >= 10 and found["checkpoint"] == "net"
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "run of the long waves with 2 times fewer particles" in page


def test_bad_input_is_one_sentence(data: SimulationSet, emulator: Refinement) -> None:
    with pytest.raises(InputError, match="coarse run's particles, must have shape"):
        emulator.sample(PARAMS.double(), coarse=coarse_run(1, n=12))
    with pytest.raises(InputError, match="give it as coarse"):
        emulator.sample(PARAMS.double())
    with pytest.raises(InputError, match="out of order"):
        emulator.sample(PARAMS.double(), coarse=coarse_run(1) + 40 * torch.randn(1, 6, 8, 8, 8))
    with pytest.raises(InputError, match="learns from 6 channels"):
        Refinement(GRID, SPACE, widths=(4, 8)).fit(replace(data, values=data.values[:, :3]))


def test_verbs_say_where_coarse_runs_are_given(
    emulator: Refinement, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(emulator, tmp_path / "net", "A test.")
    told = [
        "sample",
        str(tmp_path / "net"),
        "--params",
        "Omega_m=0.3,sigma_8=0.8",
        "-o",
        str(tmp_path / "x.h5"),
    ]
    assert main(told) == 2
    assert "cosmozoo apply" in capsys.readouterr().err and not (tmp_path / "x.h5").exists()
    assert main(["report", str(tmp_path / "net"), "-o", str(tmp_path / "page")]) == 2
    assert "by --data" in capsys.readouterr().err and not (tmp_path / "page").exists()
    assert main(["apply", str(tmp_path / "net"), "--params", "Omega_m=0.3,sigma_8=0.8", "-o", "y.h5"]) == 2
    assert "--coarse" in capsys.readouterr().err
