"""Autoencoders that draw what they do not keep: the Gaussian law given some waves, the gate, and training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_autoencoder import GRIDS, SPACE, TORUS, Lognormal, gaussian, state_of
from test_autoencoder import autoencoder as blurring
from test_latent_diffusion import power
from torch import Tensor

import gen
from gen.checkpoint import save
from gen.data.module import FieldData
from gen.emulators.autoencoder import Autoencoder, Coding
from gen.emulators.completed_autoencoder import CompletedAutoencoder
from gen.emulators.completion import completed
from gen.emulators.copula import Copula
from gen.emulators.latent_diffusion import LatentDiffusion
from gen.errors import InputError
from gen.fields import Grid
from gen.nets.autoencoder import BlockTransform
from gen.noise import sample_generator
from gen.training.adversarial import AdversarialTraining
from gen.training.base import TrainingRecipe, train
from gen.training.gate import Gate
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam
from gen.training.reconstruction import Reconstruction

QUARTER = Coding(4, (4, 4, 4), completed=True, degree=1, reach=3.0)
"""4 numbers of 16."""
SMALL = {
    "torus": Grid((8, 8), 8.0, "Mpc/h", True),
    "sky": Grid((8, 8), 2.0, "deg", False),
    "box": Grid((4, 4, 4), 4.0, "Mpc/h", True),
}


def copula(grid: Grid) -> Copula:
    made = Copula(grid, SPACE, degree=1, reach=3.0)
    made.fit(Lognormal(grid, 48).load())
    return made


def matrices(law: Copula, blocks: BlockTransform, margin: int) -> tuple[Tensor, Tensor]:
    """The covariance of the copula's g with its margin, and the transform of blocks inside it."""
    shape = [n + 2 * margin for n in law.grid.shape]
    n = torch.tensor(shape).prod()
    unit = torch.eye(int(n)).reshape(-1, 1, *shape)
    covariance = law.covariance(unit, torch.full((len(unit), 1), 0.3)).flatten(1)
    inner = unit[(..., *(slice(margin, m - margin) for m in shape))]
    return covariance, blocks(inner).flatten(1).T


def completing(grid: Grid, coding: Coding = QUARTER, **more: object) -> CompletedAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CompletedAutoencoder(grid, SPACE, coding=coding, **more)  # pyright: ignore[reportArgumentType]
    made.fit(Lognormal(grid).load().select(split="train"))
    return made.eval()


def disturbed(made: CompletedAutoencoder, strength: float = 0.05) -> CompletedAutoencoder:
    """A network that is no longer zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(made.generator.get_parameter("leave.weight"), std=strength)
    return made


# The law of Gaussian fields of which some waves are given


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("margin", [0, 2])
def test_mean_and_covariance_are_those_of_the_matrices(name: str, margin: int) -> None:
    """Of N draws a covariance c is known to sqrt((c_ii c_jj + c^2) / N)."""
    law = copula(SMALL[name])
    blocks = BlockTransform(law.grid.dim, 2, 2)
    blocks.fit(gaussian(law.grid, 64))
    C, T = matrices(law, blocks, margin)
    K = torch.linalg.solve(T @ C @ T.T, T @ C).T
    n, cells = 3000, law.white_size(law.grid.shape, margin)
    z = blocks(gaussian(law.grid, 1, seed=4))
    params = torch.full((n, 1), 0.3)
    mean = completed(law, blocks, z, params[:1], torch.zeros(1, cells), margin)
    assert torch.allclose(mean.flatten(), K @ z.flatten(), atol=0.02)
    white = torch.randn(n, cells, generator=torch.Generator().manual_seed(5))
    drawn = completed(law, blocks, z.expand(n, *z.shape[1:]), params, white, margin)
    inner = (..., *(slice(margin, margin + m) for m in law.grid.shape))
    assert (blocks(drawn[inner]) - z).abs().max() < 1e-4, "the waves given are the waves that it has"
    residual = (drawn - mean).flatten(1).double()
    wanted = (C - K @ T @ C).double()
    found = residual.T @ residual / n
    spread = wanted.diagonal().clamp(min=1e-4)
    scatter = ((spread[:, None] * spread + wanted**2) / n).sqrt()
    chi2 = ((found - wanted) / scatter).square().mean()
    assert float(chi2) == pytest.approx(1, abs=0.25)


def test_derivatives_of_any_order_are_those_of_the_matrix() -> None:
    law = copula(SMALL["sky"])
    blocks = BlockTransform(2, 2, 2)
    blocks.fit(gaussian(law.grid, 64))
    C, T = matrices(law, blocks, 0)
    K = torch.linalg.solve(T @ C @ T.T, T @ C).T
    z = blocks(gaussian(law.grid, 1, seed=4))
    white = torch.zeros(1, law.white_size(law.grid.shape))

    def fields(z: Tensor) -> Tensor:
        return completed(law, blocks, z, torch.full((1, 1), 0.3), white)

    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(6))
    forward = torch.autograd.functional.jvp(fields, z, v)[1]  # by a derivative of a derivative
    assert torch.allclose(forward.flatten(), K @ v.flatten(), atol=0.03)
    u = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    backward = torch.autograd.functional.vjp(fields, z, u)[1]
    assert torch.allclose(backward.flatten(), K.T @ u.flatten(), atol=0.05)


# The emulator


@pytest.mark.parametrize("name", GRIDS)
def test_at_the_start_it_passes_the_gate_that_blurring_does_not(name: str) -> None:
    """The copula knows all of these lognormal fields; what is drawn scatters, here in 32 of them."""
    grid = GRIDS[name]
    coding = QUARTER if grid.dim == 2 else replace(QUARTER, channels=8)
    data = Lognormal(grid).load().select(split="validation")
    within = Gate(0.12, 2)
    with pytest.raises(InputError, match="loses too much"):
        within.check(blurring(grid, replace(coding, completed=False)), data)
    lost = within.check(completing(grid, coding), data)
    assert lost.power < 0.12 and lost.pdf < 2


def test_a_network_changes_only_what_latents_do_not_tell() -> None:
    made, data = disturbed(completing(GRIDS["sky"])), Lognormal(GRIDS["sky"]).load()
    values, params = data.values[:6], data.params[:6]
    with torch.no_grad():
        back = made.sample(params, coarse=values).values
        z, again = made.encode(values, params), made.encode(back, params)
        other = made.sample(params, coarse=values, seed=1).values
        plain = completing(GRIDS["sky"]).sample(params, coarse=values).values
    assert (z - again).abs().max() < 0.02
    assert (back - other).abs().max() > 0.1, "many fields have these latents"
    assert (back - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["torus", "sky"])
def test_once_calibrated_what_is_drawn_has_the_power_of_the_fields(name: str) -> None:
    """Of a network that adds too much at short waves, where fields and what is made of them are compared."""
    grid = GRIDS[name]
    made, data = disturbed(completing(grid), 0.2), Lognormal(grid, 384).load().select(split="train")
    rows = torch.arange(0, len(data), 2)
    values, params = data.values[rows], data.params[rows]
    real, k = power(values, grid), slice(4, None)

    def error() -> float:
        found = power(made.sample(params, coarse=values, seed=3).values, grid)
        return float((found / real - 1)[k].abs().mean())

    before = error()
    made.calibrate(data)
    assert error() < 0.5 * before and before > 0.05
    with torch.no_grad():
        back = made.sample(params[:6], coarse=values[:6]).values
        z, again = made.encode(values[:6], params[:6]), made.encode(back, params[:6])
    assert (z - again).abs().max() < 0.02


@pytest.mark.parametrize("name", ["torus", "box"])
def test_shifts_are_those_of_blocks_also_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    grid = GRIDS[name]
    save(disturbed(completing(grid, replace(QUARTER, widths=(4, 4)))), tmp_path / "toy", "# toy\n")
    made = gen.load(tmp_path / "toy")
    assert isinstance(made, CompletedAutoencoder)
    one, many = (made.sample({"Omega_m": 0.3}, n=n, seed=9).values for n in (1, 11))
    assert torch.equal(one[0], many[0]) and not torch.allclose(many[0], many[1])
    data, axes = Lognormal(grid).load(), tuple(range(2, 2 + grid.dim))
    white = made.white_detail([sample_generator(0, i) for i in range(4)])
    moved = white.reshape(4, 1, *grid.shape).roll((2,) * grid.dim, axes).flatten(1)
    values, params = data.values[:4], data.params[:4]
    with torch.no_grad():
        there = made.reconstruct(made.encode(values.roll((2,) * grid.dim, axes), params), params, moved)
        back = made.reconstruct(made.encode(values, params), params, white)
    assert (back.roll((2,) * grid.dim, axes) - there).abs().max() < 1e-4 * back.abs().max()


def test_codings_and_losses_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="that of a CompletedAutoencoder"):
        Autoencoder(TORUS, SPACE, coding=QUARTER)
    with pytest.raises(InputError, match="is completed; set it, or take Autoencoder"):
        CompletedAutoencoder(TORUS, SPACE, coding=replace(QUARTER, completed=False))
    with pytest.raises(InputError, match="completed coding are not clipped; leave out kind"):
        replace(QUARTER, kind="clip")
    with pytest.raises(InputError, match="learns against a critic; give it an adversarial loss"):
        train(recipe(loss=Reconstruction()), tmp_path / "a")


# Training, and diffusion of its latents


def recipe(**changes: object) -> TrainingRecipe:
    tiny = TrainingRecipe(
        name="tiny", data=FieldData(Lognormal(), batch_size=8),
        emulator=lambda grid, space: CompletedAutoencoder(
            grid, space, coding=QUARTER, summary_weight=20.0, critic_channels=(8, 16), critic_kernel=3
        ),
        loss=WassersteinGP(n_critic=1), optimiser=Adam(rate=1e-3, critic_rate=1e-4, betas=(0.5, 0.99)),
        max_steps=6, ema_decay=0.8, accelerator="cpu", validate_every=3, validation_maps=24, save_every=2,
    )  # fmt: skip
    return replace(tiny, **changes)  # pyright: ignore[reportArgumentType]


def test_it_trains_against_a_critic_and_stopped_and_resumed_is_the_same_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(), tmp_path / "whole")
    moves = AdversarialTraining.moves_generator

    def broken(module: AdversarialTraining, step: int) -> bool:
        if step == 5:
            raise RuntimeError("pulled the plug")
        return moves(module, step)

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTraining, "moves_generator", broken)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            train(recipe(), tmp_path / "run")
    train(recipe(), tmp_path / "run", resume=True)
    ours, theirs = state_of(tmp_path / "run"), state_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    made = gen.load(tmp_path / "run" / "checkpoint")
    assert isinstance(made, CompletedAutoencoder)
    assert made.generator.get_parameter("leave.weight").abs().sum() > 0
    header = (tmp_path / "run" / "validation.csv").read_text().splitlines()[0].split(",")
    assert {"score", "euler", "power_error", "pdf_error"} <= set(header)


@pytest.mark.parametrize("name", GRIDS)
def test_diffusion_of_its_latents_starts_with_the_fields_spectrum(name: str) -> None:
    """With a quarter of the numbers, and as in ``test_latent_diffusion`` with all."""
    grid = GRIDS[name]
    coding = QUARTER if grid.dim == 2 else replace(QUARTER, channels=8)
    made = LatentDiffusion(grid, SPACE, coding=coding, widths=(4,), steps=16)
    data = Lognormal(grid).load().select(split="train")
    made.fit(data)
    params = torch.full((96, 1), 0.3)
    real = made.autoencoder.to_working(data.values, data.params)
    drawn = made.autoencoder.to_working(made.sample(params, seed=1).values, params)
    assert (power(drawn, grid) / power(real, grid) - 1).abs().max() < 0.3
    assert float(drawn.std()) == pytest.approx(1, abs=0.1)


def test_it_takes_a_trained_one_without_what_that_learned_by_and_meets_data(tmp_path: Path) -> None:
    trained = disturbed(completing(TORUS, summary_weight=20.0))
    save(trained, tmp_path / "ae", "# toy\n")
    made = LatentDiffusion(TORUS, SPACE, coding=QUARTER, widths=(4,), steps=6)
    theirs = gen.load(tmp_path / "ae")
    assert isinstance(theirs, CompletedAutoencoder) and isinstance(made.autoencoder, CompletedAutoencoder)
    made.take(theirs)
    made.fit(Lognormal().load().select(split="train"))
    ours = made.autoencoder.generator.state_dict()
    assert all(torch.equal(w, ours[name]) for name, w in trained.generator.state_dict().items())
    params = torch.full((3, 1), 0.3)
    truth = made.sample(params, seed=5).values
    noise = [sample_generator(0, i) for i in range(3)]

    def means(x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, 4)

    found = made.posterior(means, means(truth), 0.05**2, params, noise, 16)
    free = made.sample(params, seed=6).values
    assert float((means(found) - means(truth)).std()) < 0.5 * float((means(free) - means(truth)).std())
