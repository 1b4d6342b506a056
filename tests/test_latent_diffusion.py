"""Diffusion of latents: its start, its gate, its own checkpoint, and a training run that resumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_autoencoder import GRIDS, SPACE, TORUS, Lognormal, autoencoder, disturbed, gaussian, state_of
from torch import Tensor

import gen
from gen.checkpoint import save
from gen.data.base import SimulationSet
from gen.data.module import FieldData
from gen.emulators.autoencoder import Autoencoder, Coding
from gen.emulators.base import Emulator
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.emulators.latent_diffusion import LatentDiffusion
from gen.emulators.sharpened import powers_at_nodes
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.noise import sample_generator
from gen.training.base import TrainingRecipe, train
from gen.training.building import build
from gen.training.denoising import Denoising, DenoisingTraining
from gen.training.gate import Gate
from gen.training.optimisation import Adam

FOLDED = {2: Coding(4, (4, 4), degree=1, reach=3.0), 3: Coding(8, (4, 4), degree=1, reach=3.0)}
"""No compression."""
BLURRED = Coding(1, (4, 4, 4), degree=1, reach=3.0)


def latent(coding: Coding, **more: object) -> Callable[[Grid, ParameterSpace], LatentDiffusion]:
    def make(grid: Grid, space: ParameterSpace) -> LatentDiffusion:
        arguments = {"widths": (8, 8), "steps": 16, **more}
        return LatentDiffusion(grid, space, coding=coding, **arguments)  # pyright: ignore[reportArgumentType]

    return make


def fitted(grid: Grid, coding: Coding, **more: object) -> LatentDiffusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = latent(coding, **more)(grid, SPACE)
    made.fit(Lognormal(grid).load().select(split="train"))
    return made.eval()


def power(fields: Tensor, grid: Grid) -> Tensor:
    """Mean power in bins of a fundamental wavenumber, from the second on for open fields' taper."""
    axes = tuple(range(2, fields.ndim))
    window = torch.ones(grid.shape)
    if not grid.periodic:
        window = torch.outer(*(torch.hann_window(n, periodic=False) for n in grid.shape))
    modes = torch.fft.rfftn((fields - fields.mean(axes, keepdim=True)) * window, dim=axes).abs().square()
    k = (grid.wavenumber() / grid.k_fundamental).round().long()
    mean = modes.mean((0, 1))
    return torch.stack([mean[k == b].mean() for b in range(1, grid.shape[0] // 2)])


@pytest.mark.parametrize("name", GRIDS)
def test_having_learned_nothing_it_makes_gaussian_fields_of_the_right_spectrum(name: str) -> None:
    """Over an autoencoder that keeps all, in 16 evaluations.

    64 real and 96 drawn fields tell a bin of m independent waves to 1 / sqrt(64 m) and 1 / sqrt(96 m); m is 4
    at least, so their ratio to 0.08, and to some more under a taper.
    """
    grid = GRIDS[name]
    made = fitted(grid, FOLDED[grid.dim])
    data = Lognormal(grid).load().select(split="train")
    params = torch.full((96, 1), 0.3)
    real = made.autoencoder.to_working(data.values, data.params)
    drawn = made.autoencoder.to_working(made.sample(params, seed=1).values, params)
    ratio = power(drawn, grid) / power(real, grid)
    assert (ratio - 1).abs().max() < 0.3
    assert float((drawn - drawn.mean()).pow(3).mean() / drawn.std() ** 3) == pytest.approx(0, abs=0.2)
    assert float(drawn.std()) == pytest.approx(1, abs=0.1)


def test_the_loss_is_one_where_nothing_is_learned() -> None:
    """Of Gaussian latents of their own law, at all levels."""
    made = fitted(TORUS, FOLDED[2])
    params = torch.full((256, 1), 0.3)
    draws = [[sample_generator(0, i, stream) for i in range(256)] for stream in ("field", "noise")]
    with torch.no_grad():
        values = made.to_physical(made.noise(params, draws[0]), params)
        for level in (0.05, 1.0, 8.0):
            found = made.loss(values, params, draws[1], torch.full((256,), level))
            assert float(sum(found.values())) == pytest.approx(1, abs=0.06)


def test_only_the_denoiser_is_trained() -> None:
    made = fitted(TORUS, BLURRED)
    data = Lognormal().load()
    noise = [sample_generator(0, i) for i in range(8)]
    sum(made.loss(data.values[:8], data.params[:8], noise, torch.ones(8)).values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(p.grad is None for p in made.autoencoder.parameters())
    leave = made.network.get_parameter("leave.weight").grad
    assert leave is not None and leave.abs().sum() > 0


@pytest.mark.parametrize("denoiser", ["unet", "transformer"])
def test_bits_do_not_depend_on_the_batch_and_shifts_are_those_of_blocks(
    denoiser: str, tmp_path: Path
) -> None:
    """Networks that are not zero, and a checkpoint that is all there is."""
    made = fitted(
        TORUS, Coding(2, (4, 4), degree=1, reach=3.0), denoiser=denoiser, width=16, heads=2, depth=1, patch=2
    )
    disturbed(made.autoencoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(made.network.get_parameter("leave.weight"), std=0.05)
    save(made, tmp_path / "toy", "# toy\n")
    again = gen.load(tmp_path / "toy")
    assert isinstance(again, LatentDiffusion)
    one, many = (again.sample({"Omega_m": 0.3}, n=n, seed=9).values for n in (1, 11))
    assert torch.equal(one[0], many[0]) and torch.equal(one, made.sample({"Omega_m": 0.3}, seed=9).values)
    white = again.white_latent([sample_generator(4, i) for i in range(2)]).reshape(2, 2, 8, 8)
    params = torch.full((2, 1), 0.3)
    with torch.no_grad():  # by what both networks take together: four cells of the latents
        whole = again.from_white(white.flatten(1), params)
        moved = again.from_white(white.roll((4, 4), (2, 3)).flatten(1), params)
    assert (whole.roll((8, 8), (2, 3)) - moved).abs().max() < 1e-4 * whole.abs().max()


def test_a_large_field_is_not_made_in_the_time_of_eight() -> None:
    sides = {64: 8, 256: 4, 512: 1, 1024: 1}
    made = {n: latent(FOLDED[2])(TORUS.resized([n, n]), SPACE) for n in sides}
    assert {n: emulator.micro_batch for n, emulator in made.items()} == sides
    assert {n: emulator.autoencoder.micro_batch for n, emulator in made.items()} == sides


def test_data_are_met_without_training() -> None:
    """Half of the cells are seen; of the others a sample without data is sqrt(2) of their scatter away."""
    made = fitted(TORUS, FOLDED[2], steps=6)
    params = torch.full((3, 1), 0.3)
    truth = made.sample(params, seed=5).values
    seen = torch.rand(16, 16, generator=torch.Generator().manual_seed(6)) < 0.5
    noise = [sample_generator(0, i) for i in range(3)]
    found = made.posterior(lambda x: x[:, 0, seen], truth[:, 0, seen], 0.05**2, params, noise, 8)
    residual = (found - truth)[:, 0].square().mean(0)
    assert float(residual[seen].mean().sqrt()) < 2 * 0.05
    assert float(residual[~seen].mean().sqrt()) < 0.7 * math.sqrt(2) * float(truth.std())


def recipe(emulator: Callable[[Grid, ParameterSpace], Emulator], **changes: object) -> TrainingRecipe:
    tiny = TrainingRecipe(
        name="tiny", data=FieldData(Lognormal(), batch_size=8), emulator=emulator, loss=Denoising(),
        optimiser=Adam(rate=1e-3), max_steps=8, ema_decay=0.9, accelerator="cpu", validate_every=4,
        validation_maps=16, save_every=3,
    )  # fmt: skip
    return replace(tiny, **changes)  # pyright: ignore[reportArgumentType]


def test_an_autoencoder_that_blurs_is_refused_before_training(tmp_path: Path) -> None:
    save(autoencoder(TORUS, BLURRED), tmp_path / "ae", "# blurs\n")
    blurred = recipe(latent(BLURRED), autoencoder=tmp_path / "ae")
    with pytest.raises(InputError, match="loses too much to learn from its latents") as told:
        train(blurred, tmp_path / "run")
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()
    wide = replace(blurred, gate=Gate(10, 1e6), max_steps=1, validate_every=1)
    assert (train(wide, tmp_path / "run") / "checkpoint").is_dir(), "the recipe has the thresholds"


def test_autoencoders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save(autoencoder(TORUS, BLURRED), tmp_path / "ae", "# blurs\n")
    with pytest.raises(
        InputError, match=r"the autoencoder has coding = .*'channels': 1.*; give both recipes"
    ):
        train(recipe(latent(FOLDED[2]), autoencoder=tmp_path / "ae"), tmp_path / "a")
    other = recipe(lambda grid, space: CopulaDiffusion(grid, space, widths=(4,)), autoencoder=tmp_path / "ae")
    with pytest.raises(InputError, match="trains a CopulaDiffusion, which has none"):
        train(other, tmp_path / "b")
    with pytest.raises(InputError, match="no checkpoint folder at"):
        train(recipe(latent(FOLDED[2]), autoencoder=tmp_path / "nothing"), tmp_path / "c")


def test_it_trains_on_a_checkpoint_and_stopped_and_resumed_is_the_same_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an autoencoder with weights of its own, which then need not be there."""
    coding = replace(FOLDED[2], widths=(4, 6))
    trained = disturbed(autoencoder(TORUS, coding))
    save(trained, tmp_path / "ae", "# toy\n")
    short = recipe(latent(coding), autoencoder=tmp_path / "ae", gate=Gate(10, 1e6))
    train(short, tmp_path / "whole")
    terms = DenoisingTraining.terms

    def broken(module: DenoisingTraining, batch: Fields, rows: range) -> dict[str, Tensor]:
        if module.step == 5:
            raise RuntimeError("pulled the plug")
        return terms(module, batch, rows)

    with monkeypatch.context() as patch:
        patch.setattr(DenoisingTraining, "terms", broken)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            train(short, tmp_path / "run")
    train(short, tmp_path / "run", resume=True)
    ours, theirs = state_of(tmp_path / "run"), state_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and any(name.endswith("exp_avg") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (tmp_path / "ae").rename(tmp_path / "gone")
    made = gen.load(tmp_path / "run" / "checkpoint")
    assert isinstance(made, LatentDiffusion) and isinstance(made.autoencoder, Autoencoder)
    weights = made.autoencoder.decoder.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in trained.decoder.state_dict().items())
    assert torch.isfinite(made.sample({"Omega_m": 0.3}, n=2).values).all()


@pytest.mark.parametrize("side", [16, 32])
def test_it_goes_on_from_the_weights_of_another(side: int, tmp_path: Path) -> None:
    """Of the denoiser alone: the autoencoder is the one given, and scales are those of its latents."""
    coding, grid = replace(FOLDED[2], widths=(4, 6)), TORUS.resized([side, side])
    trained, given = fitted(TORUS, coding), disturbed(autoencoder(grid, coding))
    torch.nn.init.constant_(trained.network.get_parameter("leave.weight"), 0.01)
    save(trained, tmp_path / "trained", "# toy\n")
    save(given, tmp_path / "ae", "# toy\n")
    fresh = recipe(
        latent(coding), data=FieldData(Lognormal(grid), batch_size=8), autoencoder=tmp_path / "ae",
        gate=Gate(10, 1e6),
    )  # fmt: skip
    data = Lognormal(grid).load().select(split="train")
    wanted = build(fresh, data, "")[0].state_dict()
    made = build(replace(fresh, start=tmp_path / "trained"), data, "")[0].state_dict()
    weights = {name: w for name, w in trained.state_dict().items() if name.startswith("network.")}
    assert wanted.keys() > weights.keys() and wanted["network.leave.weight"].abs().max() == 0
    assert all(torch.equal(made[name], w) for name, w in (wanted | weights).items())


def test_a_dry_run_needs_no_trained_autoencoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = recipe(latent(BLURRED), autoencoder=tmp_path / "later")
    train(later, tmp_path / "run", dry_run=True)
    assert capsys.readouterr().out.startswith("tiny: LatentDiffusion of toy")


def test_the_latents_law_is_that_of_what_it_is_fitted_to() -> None:
    made = fitted(TORUS, FOLDED[2])
    data = Lognormal().load().select(split="train")
    y = made.to_working(data.values, data.params)
    assert y.mean((0, 2, 3)).abs().max() < 1e-4
    assert torch.allclose(y.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    other = torch.exp(0.1 * gaussian(TORUS, 64, 3))
    assert made.to_working(other, data.params[:64]).std() < 0.6


@pytest.mark.parametrize("name", ["torus", "sky"])
def test_once_calibrated_spectra_follow_the_parameters_though_gaussian_latents_do_not(name: str) -> None:
    """Short waves are strong at one end and weak at the other; a closed form knows their mean.

    256 real and 256 drawn fields of an end tell the power at a node to some per cent. One amplitude for all
    waves is left out, which is the one-point law's to give, and of so few cells it is badly known.
    """
    grid = GRIDS[name]
    g = gaussian(grid, 512)
    around = sum(g.roll(s, a) for s in (1, -1) for a in (2, 3))
    short, params = g - around / 4, torch.tensor([[0.21], [0.39]]).repeat(256, 1)
    values = g + torch.where(params < 0.3, 0.0, 2.0)[..., None, None] * short
    labels = np.full(512, "train"), np.full(512, "interior")
    data = SimulationSet(grid, SPACE, values, params, torch.arange(512), *labels, "tilted").check()
    made = fitted(grid, FOLDED[2], calibrated=True)
    made.fit(data)

    def off() -> float:
        drawn = made.sample(params, seed=3).values
        real, ours = (powers_at_nodes(made.closed_form, x.float()) for x in (values, drawn))
        ends = [(ours[e::2].mean(0) / real[e::2].mean(0))[2:].log() for e in (0, 1)]
        return float(torch.stack([(x - x.mean()).abs().max() for x in ends]).max())

    before = off()
    made.calibrate(data)
    assert off() < 0.2 < 1 < before
