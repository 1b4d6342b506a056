"""Autoencoders: the identity without compression, shifts, the gate, and a training run that resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from gen.checkpoint import save
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.autoencoder import Autoencoder, Coding
from gen.emulators.copula import Copula
from gen.emulators.latent_law import LatentLaw
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.nets.autoencoder import BlockTransform, cosine_basis
from gen.noise import sample_generator
from gen.training.base import TrainingRecipe, train
from gen.training.checkpoint_io import AtomicCheckpointIO, newest_valid
from gen.training.gate import Gate, Lost, lost_of
from gen.training.optimisation import Adam
from gen.training.reconstruction import Reconstruction, ReconstructionTraining

SPACE = ParameterSpace(("Omega_m",), (0.2,), (0.4,))
GRIDS = {
    "torus": Grid((16, 16), 16.0, "Mpc/h", True),
    "sky": Grid((16, 16), 2.0, "deg", False),
    "box": Grid((8, 8, 8), 8.0, "Mpc/h", True),
}
TORUS = GRIDS["torus"]


def gaussian(grid: Grid, n: int, seed: int = 0, steep: float = 4) -> Tensor:
    """Unit fields of power ``(1 + (k / 2 k_f)^2)^(-steep / 2)``; open ones cut from twice the side."""
    whole = grid if grid.periodic else grid.resized([2 * m for m in grid.shape])
    white = torch.randn(n, 1, *whole.shape, generator=torch.Generator().manual_seed(seed))
    axes = tuple(range(2, 2 + grid.dim))
    amplitude = (1 + (whole.wavenumber() / (2 * grid.k_fundamental)) ** 2) ** (-steep / 4)
    g = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * amplitude.float(), s=whole.shape, dim=axes)
    return (g / g.std())[(..., *(slice(0, m) for m in grid.shape))]


class Lognormal(Source):
    """Lognormal fields of which a third are held out."""

    def __init__(self, grid: Grid = TORUS, n: int = 96) -> None:
        self.grid, self.n = grid, n

    def load(self) -> SimulationSet:
        n = self.n
        values = torch.exp(0.4 * gaussian(self.grid, n))
        params = torch.linspace(0.21, 0.39, 3).repeat(n // 3)[:, None]
        split = np.where(np.arange(n) % 3 < 2, "train", "validation")
        region = np.full(n, "interior")
        return SimulationSet(self.grid, SPACE, values, params, torch.arange(n), split, region, "toy").check()


def autoencoder(grid: Grid, coding: Coding) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Autoencoder(grid, SPACE, coding=coding)
    made.fit(Lognormal(grid).load().select(split="train"))
    return made.eval()


def disturbed(made: Autoencoder) -> Autoencoder:
    """Networks that are no longer zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for net in (made.encoder, made.decoder):
            torch.nn.init.normal_(net.get_parameter("leave.weight"), std=0.05)
    return made


# The transform of blocks, and the law of latents


@pytest.mark.parametrize(("dim", "n"), [(2, 1), (2, 4), (3, 2)])
def test_the_basis_is_orthonormal_and_begins_with_the_mean(dim: int, n: int) -> None:
    basis = cosine_basis(dim, n)
    assert torch.allclose(basis @ basis.T, torch.eye(n**dim, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(basis[0], torch.full((n**dim,), n ** (-dim / 2), dtype=torch.float64))


def test_fewer_waves_are_the_nearest_field_of_such_waves() -> None:
    """What is left over is orthogonal to all that is kept."""
    x, blocks = gaussian(TORUS, 6), BlockTransform(2, 4, 5)
    blocks.fit(x)
    assert torch.allclose(blocks(x).square().mean((0, 2, 3)), torch.ones(5), rtol=1e-5)
    assert blocks(x - blocks.inverse(blocks(x))).abs().max() < 1e-4


@pytest.mark.parametrize("name", GRIDS)
def test_gaussian_latents_have_the_covariance_of_the_latents(name: str) -> None:
    """Of fields folded into all their waves, whose channels are correlated: power of the field's own waves.

    Power from N fields scatters by sqrt(2 / (N modes)); that of the law as much, of the draw as much again.
    """
    grid = GRIDS[name]
    n = 600 if grid.dim == 2 else 300
    x, blocks = gaussian(grid, n), BlockTransform(grid.dim, 2, 2**grid.dim)
    blocks.fit(x)
    half = Grid(tuple(m // 2 for m in grid.shape), grid.box_size, grid.unit, grid.periodic)
    law = LatentLaw(half, 2**grid.dim)
    law.fit(blocks(x))
    torus = law.torus(half.shape)
    white = torch.randn(n, 2**grid.dim * math.prod(torus), generator=torch.Generator().manual_seed(9))
    y = law.gaussian(white, half.shape)
    assert torch.allclose(y.std((0, *range(2, y.ndim))), torch.ones(2**grid.dim), atol=0.05)
    drawn = blocks.inverse(law.restored(y))
    for axis in range(2, 2 + grid.dim):
        for lag in (1, 2, 3):
            ours, theirs = (float((z.narrow(axis, lag, 5) * z.narrow(axis, 0, 5)).mean()) for z in (drawn, x))
            assert ours == pytest.approx(theirs, abs=0.05), (axis, lag)
    v = torch.randn(1, *y.shape[1:], generator=torch.Generator().manual_seed(8))
    measured = y.flatten(1).T @ (y.flatten(1) @ v.flatten()) / n
    product = law.covariance(v).flatten()
    scatter = ((measured - product).square().sum() / product.square().sum()).sqrt()
    strength = float(v.flatten() @ product / product.square().sum())
    assert float(scatter) == pytest.approx(math.sqrt((y[0].numel() * strength + 1) / n), rel=0.3)
    sides = [2 * m for m in half.shape]
    noise = torch.randn(
        40, 2**grid.dim * math.prod(law.torus(sides)), generator=torch.Generator().manual_seed(7)
    )
    larger = law.gaussian(noise, sides)
    assert larger.shape[2:] == grid.shape
    assert float(larger.square().mean()) == pytest.approx(1, abs=0.1)


# The emulator


@pytest.mark.parametrize("kind", ["kl", "clip"])
@pytest.mark.parametrize("name", GRIDS)
def test_without_compression_it_is_the_identity(name: str, kind: str) -> None:
    """To float32's digits; clipped latents of some sigma lose two of them."""
    grid = GRIDS[name]
    coding = Coding(2**grid.dim, (2, 2), "clip" if kind == "clip" else "kl", degree=1, reach=3.0)
    assert coding.compression(grid.dim) == 1
    made, data = autoencoder(grid, coding), Lognormal(grid).load()
    back = made.sample(data.params, coarse=data.values).values
    assert (back / data.values - 1).abs().max() < 1e-4
    assert Gate().excess(Gate(1e-3, 1e-2).check(made, data.select(split="validation"))) < 0.01


def test_codings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"a block of 2\^2 cells has 1 to 4 channels, got 5"):
        Autoencoder(TORUS, SPACE, coding=Coding(5, (4, 4)))
    with pytest.raises(InputError, match="sides must divide by 32 cells"):
        Autoencoder(TORUS, SPACE, coding=Coding(4, (4,) * 6))
    with pytest.raises(InputError, match="channels and widths of at least 1 and a bound above 1"):
        Coding(0)
    assert Coding(1, (4,) * 4).compression(3) == 512


@pytest.mark.parametrize("kind", ["kl", "clip"])
@pytest.mark.parametrize("name", ["torus", "box"])
def test_circular_ones_commute_with_shifts_by_a_block_also_from_a_checkpoint(
    name: str, kind: str, tmp_path: Path
) -> None:
    grid = GRIDS[name]
    coding = Coding(3, (4, 6), "clip" if kind == "clip" else "kl", degree=1, reach=3.0)
    save(disturbed(autoencoder(grid, coding)), tmp_path / "toy", "# toy\n")
    made = gen.load(tmp_path / "toy")
    assert isinstance(made, Autoencoder) and made.coding == coding
    data = Lognormal(grid).load()
    values, params = data.values[:4], data.params[:4]
    axes = tuple(range(2, 2 + grid.dim))
    with torch.no_grad():
        z = made.encode(values, params)
        moved = made.encode(values.roll((2,) * grid.dim, axes), params)
        assert (z.roll((1,) * grid.dim, axes) - moved).abs().max() < 1e-5
        back, there = made.reconstruct(z, params), made.reconstruct(moved, params)
    assert (back.roll((2,) * grid.dim, axes) - there).abs().max() < 1e-5
    if grid.dim == 2:  # and not with others
        by_one = made.encode(values.roll(1, 2), params).detach()
        assert (z.roll(1, 2) - by_one).abs().max() > 0.1


def test_latents_are_standardised_and_bounded() -> None:
    data = Lognormal().load().select(split="train")
    for kind in ("kl", "clip"):
        coding = Coding(3, (4, 6), kind, bound=2.0, degree=1, reach=3.0)
        made = disturbed(autoencoder(TORUS, coding))
        made.calibrate(data)
        with torch.no_grad():
            z = made.encode(data.values, data.params)
        y = made.law.standardised(z)
        assert y.mean((0, 2, 3)).abs().max() < 1e-5
        assert torch.allclose(y.std((0, 2, 3)), torch.ones(3), atol=1e-4)
        assert torch.allclose(made.law.restored(y), z, atol=1e-5)
        assert (float(z.abs().max()) < 2) == (kind == "clip")
        beyond = made.reconstruct(1.5 * z, data.params)  # of the bound there is a tangent
        assert torch.isfinite(beyond).all()


def test_it_is_a_sampler_of_gaussian_latents_with_a_seed_for_each() -> None:
    made = disturbed(autoencoder(TORUS, Coding(2, (4, 6), degree=1, reach=3.0)))
    one, many = (made.sample({"Omega_m": 0.3}, n=n, seed=9).values for n in (1, 11))
    assert torch.equal(one[0], many[0])
    assert not torch.allclose(many[0], many[1])
    assert made.sample({"Omega_m": 0.3}, shape=(24, 16)).values.shape == (1, 1, 24, 16)


def test_the_loss_moves_both_networks_and_is_what_it_says() -> None:
    """At the start: the share of the waves that are left out, and the divergence of narrow latents."""
    made, data = autoencoder(TORUS, Coding(4, (4, 6, 6), degree=1, reach=3.0)), Lognormal().load()
    values, params = data.values[:48], data.params[:48]
    noise = [sample_generator(0, i) for i in range(48)]
    terms = made.loss(values, params, noise)
    sum(terms.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    for net in (made.encoder, made.decoder):
        assert net.get_parameter("leave.weight").grad.abs().sum() > 0  # pyright: ignore[reportOptionalMemberAccess]
    y = made.to_working(values, params)
    left_out = (y - made.blocks.inverse(made.blocks(y))).square().mean()
    assert float(terms["cells"].detach()) == pytest.approx(0.5 * float(left_out), rel=0.02)
    z2 = float(made.blocks(y).square().mean())
    assert float(terms["divergence"].detach()) == pytest.approx(
        1e-4 * 0.5 * (z2 + math.exp(-8) - 1 + 8), rel=1e-3
    )


# The gate


def test_the_gate_refuses_what_blurs_with_the_figures() -> None:
    """Means of blocks lose power as the mean over a block and its staircase say; here measured by hand."""
    grid = GRIDS["torus"]
    made = autoencoder(grid, Coding(1, (4, 4, 4), degree=1, reach=3.0))
    data = Lognormal(grid).load().select(split="validation")
    with pytest.raises(InputError, match=r"loses too much .*P\(k\) is off by .* % at k = .* h/Mpc"):
        Gate().check(made, data)
    lost = Gate(10.0, 1e9).check(made, data)
    with torch.no_grad():
        back = made.reconstruct(made.encode(data.values, data.params), data.params)
    k = (grid.wavenumber() / grid.k_fundamental).round()
    weight = 1 / data.values.var((1, 2, 3), keepdim=True)
    members = torch.where((torch.arange(9) == 0) | (torch.arange(9) == 8), 1, 2)
    sums = [(weight * torch.fft.rfft2(x).abs().square() * members).sum((0, 1)) for x in (back, data.values)]
    errors = [float((sums[0][k == b].sum() / sums[1][k == b].sum() - 1).abs()) for b in range(1, 5)]
    assert lost.power == pytest.approx(max(errors), rel=1e-3)
    assert lost.k == pytest.approx((1 + int(np.argmax(errors))) * grid.k_fundamental)


def test_the_pdfs_floor_is_what_real_sets_differ_by() -> None:
    """Another realisation of the same law, in place of decoded fields: one floor, in the mean square."""
    made = autoencoder(TORUS, Coding(4, (2, 2), degree=1, reach=3.0))
    found = []
    for seed in range(12):
        real, other = (torch.exp(0.4 * gaussian(TORUS, 64, s)) for s in (100 + seed, 200 + seed))
        found.append(lost_of(made, other, real, torch.full((64, 1), 0.3), torch.arange(64)).pdf)
    assert math.sqrt(np.mean(np.square(found))) == pytest.approx(1, abs=0.35)


def test_a_gate_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="positive limits, got power 0"):
        Gate(power=0)
    assert Gate(0.02, 2).excess(Lost(0.01, 1.0, 3.0)) == 1.5
    made, data = autoencoder(TORUS, Coding(4, (2, 2), degree=1, reach=3.0)), Lognormal().load()
    with pytest.raises(InputError, match="2 held-out simulations or more"):
        Gate().check(made, data.take(torch.arange(1)))


# Training


def recipe(**changes: object) -> TrainingRecipe:
    tiny = TrainingRecipe(
        name="tiny", data=FieldData(Lognormal(), batch_size=8),
        emulator=lambda grid, space: Autoencoder(
            grid, space, coding=Coding(2, (6, 8), degree=1, reach=3.0)
        ),
        loss=Reconstruction(), optimiser=Adam(rate=3e-3, betas=(0.9, 0.99), schedule="cosine", clip=1.0),
        max_steps=40, ema_decay=0.8, accelerator="cpu", validate_every=40, validation_maps=24, save_every=10,
    )  # fmt: skip
    return replace(tiny, **changes)  # pyright: ignore[reportArgumentType]


def test_training_makes_it_lose_less(tmp_path: Path) -> None:
    """Half the numbers of a field, and less error than the longest waves of blocks leave."""
    made = gen.load(train(recipe(), tmp_path / "run") / "checkpoint")
    assert isinstance(made, Autoencoder)
    start = autoencoder(TORUS, made.coding)
    data = Lognormal().load().select(split="validation")

    def error(one: Autoencoder) -> float:
        with torch.no_grad():
            back = one.reconstruct(one.encode(data.values, data.params), data.params)
            scores = [one.to_working(x, data.params) for x in (back, data.values)]
        return float((scores[0] - scores[1]).square().mean())

    assert error(made) < 0.8 * error(start)
    z = made.encode(data.values, data.params).detach()
    assert made.law.standardised(z).std() == pytest.approx(1, abs=0.1), "the law is that of the trained one"


def test_a_loss_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    wrong = recipe(emulator=lambda grid, space: Copula(grid, space))
    with pytest.raises(InputError, match="Copula does not encode fields"):
        train(wrong, tmp_path / "a")


def state_of(folder: Path) -> dict[str, Tensor]:
    """Weights, buffers and moments after the last step."""
    newest = newest_valid(folder / "resume")
    assert newest is not None
    saved = AtomicCheckpointIO().load_checkpoint(newest)
    tensors = dict(saved["state_dict"])
    for j, moments in saved["optimizer_states"][0]["state"].items():
        tensors.update({f"{j}.{name}": value for name, value in moments.items()})
    return tensors


def test_stopped_and_resumed_it_is_the_same_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = recipe(max_steps=12, save_every=4, validate_every=6)
    train(short, tmp_path / "whole")
    terms = ReconstructionTraining.terms

    def broken(module: ReconstructionTraining, batch: Fields, rows: range) -> dict[str, Tensor]:
        if module.step == 7:
            raise RuntimeError("pulled the plug")
        return terms(module, batch, rows)

    with monkeypatch.context() as patch:
        patch.setattr(ReconstructionTraining, "terms", broken)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            train(short, tmp_path / "run")
    train(short, tmp_path / "run", resume=True)
    ours, theirs = state_of(tmp_path / "run"), state_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and len(ours) > 60
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
