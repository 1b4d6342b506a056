"""Training of deterministic emulators: losses by hand, the step as a plain loop, resuming, and validation."""

from __future__ import annotations

import copy
import csv
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, product
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer
from tiny_run import SignalAt
from torch import Tensor, nn

import gen
from gen.checkpoint_folder import read_config
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.copula import Copula
from gen.emulators.displacement import Displacement
from gen.emulators.latent_gan import LatentGAN
from gen.emulators.particles import eulerian
from gen.emulators.perturbation import strain
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.noise import sample_generator
from gen.simulate.displacement import density
from gen.training import base
from gen.training.base import TrainingRecipe, _quiet, train
from gen.training.best import best_record
from gen.training.building import build
from gen.training.checkpoint_io import AtomicCheckpointIO, newest_valid
from gen.training.fidelity import LagrangianEulerian, MeanSquare, RegressionLoss
from gen.training.losses import NonSaturating
from gen.training.optimisation import Adam
from gen.training.paired_validation import BANDS, PairedValidation
from gen.training.regression import RegressionTraining

CUBE = Grid((8, 8, 8), 32.0, "Mpc/h", True)
SQUARE = Grid((16, 16), 64.0, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
VECTORS = {2: ((0, 1), (2, 3)), 3: ((0, 1, 2), (3, 4, 5))}


def waves(grid: Grid, n: int, seed: int = 0) -> Tensor:
    """Displacements without vorticity ``(n, dim, *shape)``: a few long waves, of rms about a cell."""
    generator = torch.Generator().manual_seed(seed)
    k = [torch.fft.fftfreq(m, s / m / (2 * math.pi)) for m, s in zip(grid.shape, grid.box_size, strict=True)]
    mesh = torch.meshgrid(*k, indexing="ij")
    k2 = torch.stack(mesh).square().sum(0)
    axes = tuple(range(1, 1 + grid.dim))
    white = torch.fft.fftn(torch.randn(n, *grid.shape, generator=generator), dim=axes)
    low = (k2 > 0) & (k2 < (0.6 * grid.k_nyquist) ** 2)
    potential = torch.where(low, white / k2.clamp(min=1e-12), 0.0)
    psi = torch.stack([torch.fft.ifftn(-1j * ki * potential, dim=axes).real for ki in mesh], 1)
    return grid.spacing[0] * psi / psi.std()


def pairs(grid: Grid, n: int = 16) -> SimulationSet:
    """A truth that a small network can learn: 2LPT, plus what the strain of each particle's cell says."""
    psi = waves(grid, n)
    unit = torch.rand(n, 2, generator=torch.Generator().manual_seed(5))
    params = SPACE.restore(2 * unit - 1)
    lpt = emulator(grid).closed_form(psi, params)
    delta = -strain(psi, grid.spacing)[:, : grid.dim].sum(1, keepdim=True)
    values = lpt - 0.2 * torch.tanh(delta) * torch.cat([psi, 100 * psi], 1)
    split = np.where(np.arange(n) < n // 2, "train", "validation")
    return SimulationSet(
        grid, SPACE, values, params, torch.arange(n), split, np.full(n, "interior"), "waves",
        "Mpc/h and km/s", psi, grid, VECTORS[grid.dim], VECTORS[grid.dim][:1],
    ).check()  # fmt: skip


class Waves(Source):
    def __init__(self, grid: Grid = SQUARE) -> None:
        self.grid = grid

    def load(self) -> SimulationSet:
        return pairs(self.grid)


def emulator(grid: Grid, space: ParameterSpace = SPACE) -> Displacement:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Displacement(grid, space, widths=(8, 8))


def recipe(**changes: object) -> TrainingRecipe:
    tiny = TrainingRecipe(
        name="tiny",
        data=FieldData(Waves(), batch_size=4),
        emulator=emulator,
        loss=LagrangianEulerian(),
        optimiser=Adam(rate=3e-3, betas=(0.9, 0.99), schedule="cosine", clip=10.0),
        max_steps=12,
        ema_decay=0.9,
        accelerator="cpu",
        validate_every=5,
        validation_maps=8,
        save_every=4,
        log_every=2,
    )
    return replace(tiny, **changes)  # pyright: ignore[reportArgumentType]


# Losses


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_eulerian_fields_are_those_of_each_particle_in_turn(grid: Grid) -> None:
    dim, n, cell = grid.dim, grid.shape[0], grid.spacing[0]
    fields = torch.cat([3 * waves(grid, 2), 100 * torch.randn(2, dim, *grid.shape)], 1).double()
    expected = np.zeros((2, 1 + dim, *grid.shape))
    for b, q in product(range(2), product(range(n), repeat=dim)):
        x = np.array(q) + fields[(b, slice(0, dim), *q)].numpy() / cell
        low = np.floor(x).astype(int)
        carried = np.array([1.0, *fields[(b, slice(dim, None), *q)].tolist()])
        for corner in product((0, 1), repeat=dim):
            at = low + corner
            share = np.prod(1 - np.abs(x - at))
            expected[(b, slice(None), *(at % n))] += share * carried
    assert np.allclose(eulerian(fields, grid).numpy(), expected, atol=1e-9)
    if dim == 3:
        assert torch.allclose(
            eulerian(fields[:, :3], grid), density(fields[:, :3], grid.box_size[0], n), atol=1e-9
        )


def test_gradients_of_the_loss_are_its_slopes() -> None:
    grid = Grid((4, 4), 8.0, "Mpc/h", True)
    made, true = (torch.randn(2, 4, 4, 4, dtype=torch.float64) for _ in range(2))
    made.requires_grad_(True)
    scale = torch.tensor([1.0, 1.0, 3.0, 3.0], dtype=torch.float64)
    for loss in (LagrangianEulerian(), MeanSquare()):

        def total(made: Tensor, loss: RegressionLoss = loss) -> Tensor:
            return torch.stack(list(loss.terms(made, true, scale, grid).values())).sum()

        assert torch.autograd.gradcheck(total, made)


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_lagrangian_eulerian_is_the_log_of_the_product(grid: Grid) -> None:
    dim = grid.dim
    made, true = (torch.cat([waves(grid, 2, s), 50 * waves(grid, 2, s + 2)], 1) for s in (0, 1))
    scale = torch.tensor([2.0] * dim + [70.0] * dim)
    logs = []
    for a, b in zip(made, true, strict=True):
        psi, v = ((a - b)[:dim] / 2).square().mean(), ((a - b)[dim:] / 70).square().mean()
        d = (eulerian(a[None], grid) - eulerian(b[None], grid))[0]
        density, momentum = d[0].square().mean(), (d[1:] / 70).square().mean()
        logs.append(torch.log((psi * v) ** 2 * density * momentum))
    terms = LagrangianEulerian(lagrangian=2.0).terms(made, true, scale, grid)
    assert torch.stack(list(terms.values())).sum().item() == pytest.approx(
        torch.stack(logs).mean().item(), rel=1e-4
    )
    alone = LagrangianEulerian(lagrangian=2.0).terms(made[:, :dim], true[:, :dim], scale[:dim], grid)
    assert set(alone) == {"displacement", "density"}
    assert alone["density"].item() == pytest.approx(terms["density"].item(), rel=1e-5)
    simple = MeanSquare().terms(made, true, scale, grid)["mean_square"].item()
    by_hand = [((made - true)[:, i] / scale[i]).square().mean().item() for i in range(2 * dim)]
    assert simple == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_what_a_loss_cannot_use_is_refused() -> None:
    scale = torch.ones(5)
    with pytest.raises(InputError, match="needs 2 channels of displacement, or 4"):
        LagrangianEulerian().terms(torch.zeros(1, 5, 16, 16), torch.zeros(1, 5, 16, 16), scale, SQUARE)
    with pytest.raises(InputError, match="needs a periodic cube"):
        eulerian(torch.zeros(1, 2, 8, 16), Grid((8, 16), 32.0, "Mpc/h", True))
    with pytest.raises(InputError, match="lagrangian must be positive"):
        LagrangianEulerian(lagrangian=0.0)


# The step


class Batches(LightningDataModule):
    def __init__(self, data: SimulationSet) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Iterator[Fields]:
        return (self.data.fields(torch.arange(4) + 4 * (step % 2)) for step in count())


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_a_step_is_the_plain_loop_and_moves_every_weight(grid: Grid) -> None:
    data, net = pairs(grid), emulator(grid)
    net.fit(data)
    plain, steps = copy.deepcopy(net), 6
    average = copy.deepcopy(plain)
    module = RegressionTraining(
        net, MeanSquare(), Adam(1e-3, betas=(0.9, 0.99), clip=0.5), steps, ema_decay=0.5
    )
    with _quiet():
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, limit_train_batches=steps, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=Batches(data))
    optimiser = torch.optim.Adam(plain.parameters(), 1e-3, (0.9, 0.99), fused=True)
    scale = plain.output_scale[(None, slice(None), *(None,) * grid.dim)]
    for step in range(steps):
        rows = torch.arange(4) + 4 * (step % 2)
        made = plain.predict(data.coarse[rows], data.params[rows])  # pyright: ignore[reportOptionalSubscript]
        optimiser.zero_grad()
        ((made - data.values[rows]) / scale).square().mean().backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimiser.step()
        d = min(0.5, (1 + step) / (10 + step))
        for mean, value in zip(average.parameters(), plain.parameters(), strict=True):
            mean.data = d * mean.data + (1 - d) * value.data
    for ours, theirs in ((module.emulator, plain), (module.average, average)):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6), name
    for (name, a), b in zip(net.named_parameters(), emulator(grid).parameters(), strict=True):
        assert not torch.equal(a, b), name


def test_other_emulators_and_data_are_refused() -> None:
    gan = LatentGAN(SQUARE, SPACE, latent_size=4, channels=(8,), critic_channels=(8,))
    with pytest.raises(InputError, match="LatentGAN does not map one field to another"):
        RegressionTraining(gan, MeanSquare(), Adam(), 10)
    with pytest.raises(InputError, match="Displacement has no generator"):
        recipe_with = recipe(loss=NonSaturating())
        train(recipe_with, Path("unused"), dry_run=True)


# A run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(), tmp_path_factory.mktemp("runs") / "whole")


def final_state(folder: Path) -> dict[str, Tensor]:
    state = newest_valid(folder / "resume")
    assert state is not None and state.stem == "step_000000012"
    saved = AtomicCheckpointIO().load_checkpoint(state)
    moments = saved["optimizer_states"][0]["state"]
    return {
        **saved["state_dict"],
        **{f"{j}.{name}": value for j, each in moments.items() for name, value in each.items()},
    }


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = base.Trainer
    stop = SignalAt(7, signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(
            base, "Trainer", lambda callbacks, **rest: trainer(callbacks=[stop, *callbacks], **rest)
        )
        train(recipe(), tmp_path / "run")
    state = newest_valid(tmp_path / "run" / "resume")
    assert state is not None and state.stem == "step_000000007"
    train(recipe(), tmp_path / "run", resume=True)
    a, b = final_state(tmp_path / "run"), final_state(whole)
    assert a.keys() == b.keys() and len(a) > 60
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert best_record(tmp_path / "run") == best_record(whole)
    for name in ("training.csv", "validation.csv"):
        assert (tmp_path / "run" / name).read_text() == (whole / name).read_text()
    with pytest.raises(InputError, match="cannot be resumed with another loss"):
        train(recipe(loss=MeanSquare(), max_steps=20), tmp_path / "run", resume=True)


def test_what_a_run_leaves_behind(whole: Path) -> None:
    shipped = gen.load(whole / "checkpoint")
    data = pairs(SQUARE).select(split="validation")
    validation = PairedValidation(data, 8, emulator(SQUARE))
    record = best_record(whole)
    assert record is not None
    values = shipped.sample(data.params, coarse=data.coarse).values
    assert validation(values)["score"] == pytest.approx(record["score"], rel=1e-5)
    with (whole / "training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"loss", "displacement", "velocity", "density", "momentum", "emulator_gradient"} <= set(rows[0])
    parts = sum(float(rows[-1][name]) for name in ("displacement", "velocity", "density", "momentum"))
    assert float(rows[-1]["loss"]) == pytest.approx(parts, rel=1e-4)
    card = (whole / "checkpoint" / "card.md").read_text()
    assert "LagrangianEulerian" in card and "of the critic" not in card
    assert len(list((whole / "samples").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("grid", "loss"), [(SQUARE, LagrangianEulerian()), (CUBE, MeanSquare())], ids=["2D", "3D"]
)
def test_it_learns_what_2lpt_lacks(grid: Grid, loss: RegressionLoss, tmp_path: Path) -> None:
    """On held-out boxes; a network that did nothing would score 1."""
    steps = recipe(data=FieldData(Waves(grid), batch_size=4), loss=loss, max_steps=120, validate_every=120)
    train(
        replace(steps, optimiser=Adam(1e-2, betas=(0.9, 0.99), schedule="cosine", warmup=5)), tmp_path / "run"
    )
    record = best_record(tmp_path / "run")
    assert record is not None and record["step"] == 120
    assert record["score"] < 0.6 and record["velocity"] < 0.6


def test_training_goes_on_from_a_checkpoint(whole: Path, tmp_path: Path) -> None:
    """Its weights and measured scales, on other data too; before the first step it makes the same fields."""
    start = whole / "checkpoint"
    psi, params = waves(SQUARE, 2, seed=9), torch.tensor([[0.3, 0.8], [0.2, 0.9]])
    with_more_boxes = pairs(SQUARE, 24)
    made, _ = build(recipe(start=start), with_more_boxes, "")
    anew, _ = build(recipe(), with_more_boxes, "")
    before = gen.load(start).sample(params, coarse=psi).values
    assert torch.equal(made.sample(params, coarse=psi).values, before)
    assert not torch.allclose(anew.sample(params, coarse=psi).values, before)
    train(recipe(start=start, max_steps=6, validate_every=6), tmp_path / "run")
    text = (tmp_path / "run" / "checkpoint" / "card.md").read_text()
    assert f"- went on from checkpoint, sha256 {read_config(start)['sha256'][:12]}" in text


def test_a_checkpoint_of_something_else_is_no_start(whole: Path) -> None:
    start = whole / "checkpoint"
    data = pairs(SQUARE)
    wider = recipe(start=start, emulator=lambda grid, space: Displacement(grid, space, widths=(8, 12)))
    with pytest.raises(InputError, match=r"made with widths = \[8, 8\], but the recipe has \[8, 12\]"):
        build(wider, data, "")
    other = recipe(start=start, emulator=lambda grid, space: Copula(grid, space, unit="Mpc/h and km/s"))
    with pytest.raises(InputError, match="a Displacement, but the recipe trains a Copula"):
        build(other, data, "")
    renamed = replace(data, space=ParameterSpace(("Omega_m",), (0.1,), (0.5,)), params=data.params[:, :1])
    with pytest.raises(InputError, match=r"of the parameters \['Omega_m', 'sigma_8'\], but the data have"):
        build(recipe(start=start), renamed, "")
    with pytest.raises(InputError, match=r"shape=\(16, 16\).*shape=\(8, 8, 8\).*do not fit; give"):
        build(recipe(start=start), pairs(CUBE), "")


def test_a_dry_run_prints_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(), tmp_path / "run", dry_run=True)
    said = capsys.readouterr().out
    assert "generated (4, 16, 16)" in said and "LagrangianEulerian" in said and "critic" not in said
    assert not (tmp_path / "run").exists()


# Validation


class Given:
    """Stands for an emulator of which only the closed form is asked."""

    grid, output_scale = SQUARE, torch.ones(4)

    def __init__(self, closed: Tensor) -> None:
        self.closed = closed

    def closed_form(self, coarse: Tensor, params: Tensor) -> Tensor:
        del params
        return self.closed[: len(coarse)]


def test_errors_are_relative_to_the_closed_form_and_to_the_displacement() -> None:
    data = pairs(SQUARE)
    closed = torch.zeros_like(data.values)  # a closed form that moves nothing
    judge = PairedValidation(data, 16, Given(closed))  # pyright: ignore[reportArgumentType]
    same = judge(closed)
    assert same["score"] == same["position_error"] == same["closed_form_error"] == pytest.approx(1)
    assert same["velocity"] == same["stochasticity_ratio_middle"] == pytest.approx(1)
    exact = judge(data.values)
    assert max(exact["score"], exact["velocity"], exact["position_error"]) < 1e-6
    assert exact["transfer_small"] == pytest.approx(1)
    assert exact["stochasticity_small"] == pytest.approx(0, abs=1e-6)
    assert judge(0.9 * data.values)["score"] == pytest.approx(0.1, rel=1e-4)


def test_transfer_and_stochasticity_have_their_closed_forms() -> None:
    """Of fields that are no displacements: a factor, and independent noise of equal power."""
    n = 64
    generator = sample_generator(0, 0, "noise")
    true, noise = (torch.randn(n, 1, 16, 16, generator=generator) for _ in range(2))
    data = replace(
        pairs(SQUARE, n), values=true, vector_channels=(), coarse=torch.zeros(n, 1, 16, 16),
        coarse_vector_channels=(),
    )  # fmt: skip
    judge = PairedValidation(data, n, Given(noise))  # pyright: ignore[reportArgumentType]
    scaled = judge(1.1 * true)
    mixed = judge(true + noise)
    for band in BANDS:
        assert scaled[f"transfer_{band}"] == pytest.approx(1.1, rel=1e-5)
        assert scaled[f"stochasticity_{band}"] == pytest.approx(0, abs=1e-5)
        # T^2 = 2 and 1 - r^2 = 1/2 in the mean. The fewest modes are 6 in the first band, of 64 boxes each:
        # 384 independent ones, so both scatter by about 1 / sqrt(384) = 5 %; the bias of r^2 in so few is
        # 1 / (2 * 6) = 8 % more.
        assert mixed[f"transfer_{band}"] == pytest.approx(math.sqrt(2), rel=0.15)
        assert mixed[f"stochasticity_{band}"] == pytest.approx(0.5, abs=0.1)


def test_validation_needs_pairs() -> None:
    data = replace(pairs(SQUARE), coarse=None, coarse_grid=None)
    with pytest.raises(InputError, match="needs held-out pairs"):
        PairedValidation(data, 8, Given(data.values))  # pyright: ignore[reportArgumentType]
