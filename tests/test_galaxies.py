"""Sparse galaxies: halos and their occupation against slow oracles, and counts in two phases."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import poisson
from torch import Tensor

import gen
from gen import checkpoint
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.counts import GalaxyCounts, log_likelihood, log_truncated
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.simulate.galaxies import Galaxies
from gen.simulate.halos import HOD, Halos, friends_of_friends
from gen.simulate.recipe import parse_recipe
from gen.simulate.run import load_simulations, simulate
from gen.simulate.theory import Cosmology
from gen.training.base import TrainingRecipe, train
from gen.training.best import best_record
from gen.training.counting import CountValidation, TwoPhase
from gen.training.optimisation import Adam

CUBE = Grid((16, 16, 16), 64.0, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.2, 0.7), (0.4, 0.9))
MODEL = HOD(log_M_min=13.0, sigma_log_M=0.3, log_M_0=13.2, log_M_1=14.0, alpha=1.1)


# Halos


def joined_slowly(x: NDArray[np.float64], side: float, length: float) -> NDArray[np.int64]:
    """Labels of groups: each particle takes the lowest label within reach, until nothing changes."""
    away = x[:, None] - x[None]
    away -= side * np.round(away / side)
    near = (away**2).sum(-1) <= length**2
    label = np.arange(len(x))
    while True:
        lower = np.where(near, label[None], len(x)).min(1)
        if (lower == label).all():
            return label
        label = lower


def test_friends_of_friends_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    side, n = 10.0, 216
    clumps = rng.random((12, 3)) * side
    clumps[0] = [0.0, 5.0, side - 1e-3]  # across the faces
    x = np.concatenate([rng.random((72, 3)) * side, np.repeat(clumps, 12, 0) + rng.normal(0, 0.15, (144, 3))])
    x = np.mod(x, side)
    halos = friends_of_friends(x, side, 2.0, linking=0.3, fewest=3)
    slow = joined_slowly(x, side, 0.3 * side / n ** (1 / 3))
    for label in np.unique(slow):
        members = slow == label
        found = np.unique(halos.halo[members])
        assert len(found) == 1
        if members.sum() < 3:
            assert found[0] == -1
            continue
        assert halos.mass[found[0]] == 2.0 * members.sum() == 2.0 * (halos.halo == found[0]).sum()
        angle = np.exp(2j * np.pi * x[members] / side).mean(0)
        centre = np.mod(np.angle(angle) * side / (2 * np.pi), side)  # the mean on a circle, nearly
        off = halos.centre[found[0]] - centre
        assert np.abs(off - side * np.round(off / side)).max() < 0.1
    assert len(halos.mass) >= 10 and ((halos.centre >= 0) & (halos.centre < side)).all()


def test_occupation_is_zhengs() -> None:
    mass = np.array([1e12, 1e13, 10**13.3, 1e14, 1e15])
    # (1 + erf(x)) / 2 at x = -10/3, 0, 1, 10/3 and beyond; erf(1) = 0.8427.
    assert MODEL.central(mass) == pytest.approx([0, 0.5, 0.92135, 1, 1], abs=1e-5)
    expected = [0, 0, *(((m - 10**13.2) / 1e14) ** 1.1 for m in mass[2:])]
    assert MODEL.satellites(mass) == pytest.approx(expected)


def test_drawn_galaxies_have_the_mean_and_scatter_of_the_occupation() -> None:
    n, members = 4000, 5
    mass = np.repeat([10**13.1, 10**14.2], n)
    halo = np.repeat(np.arange(2 * n), members)
    x = np.random.default_rng(2).random((len(halo), 3))
    centre = np.random.default_rng(3).random((2 * n, 3)) + 2  # told apart from members by where they are
    galaxies = MODEL.galaxies(Halos(mass, centre, halo), x, np.random.default_rng(4))
    owner = {tuple(p): i for i, p in [*zip(halo, x, strict=True), *enumerate(centre)]}
    count = np.zeros((2, 2 * n), dtype=int)
    for g in galaxies:
        count[int(g[0] < 2), owner[tuple(g)]] += 1
    for half in (slice(0, n), slice(n, None)):
        p, mean = MODEL.central(mass[half][:1])[0], MODEL.satellites(mass[half][:1])[0]
        assert count[0, half].max() == 1
        assert count[0, half].mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n) + 1e-9)
        assert count[1, half].mean() == pytest.approx(mean, abs=4 * math.sqrt(mean / n))
        # Of a Poisson law: the variance's own scatter is sqrt((2 mean^2 + mean) / n).
        assert count[1, half].var() == pytest.approx(mean, abs=4 * math.sqrt((2 * mean**2 + mean) / n) + 1e-9)


def test_the_source_counts_galaxies_in_the_matter_they_stand_in() -> None:
    source = Galaxies(steps=4)
    counts, density = source.fields(Cosmology(0.3, 0.8), 0.0, CUBE, seed=1)
    again, _ = source.fields(Cosmology(0.3, 0.8), 0.0, CUBE, seed=1)
    other, _ = source.fields(Cosmology(0.3, 0.8), 0.0, CUBE, seed=2)
    assert density is not None and torch.equal(counts, again) and not torch.equal(counts, other)
    assert counts.shape == density.shape == (1, 1, 16, 16, 16)
    assert torch.equal(counts, counts.round()) and 0 < counts.mean() < 0.2
    # Halos of 200 times the mean density, of a few Mpc/h^3 in cells of 64: several times the mean.
    assert (counts * density).sum() / counts.sum() > 3
    few, _ = replace(source, log_M_min=14.0, log_M_0=14.0).fields(Cosmology(0.3, 0.8), 0.0, CUBE, seed=1)
    assert few.sum() < 0.3 * counts.sum()


# The two laws


def test_the_likelihood_is_normalised_and_has_poissons_ratios() -> None:
    for log_rate in (-12.0, -2.0, 0.0, 2.0):
        laws = torch.tensor([-1.3, log_rate], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 1, 60)
        count = torch.arange(60, dtype=torch.float64).reshape(1, 1, 1, 60)
        first, second = log_likelihood(laws, count)
        p = (first + second).exp().flatten()
        assert p.sum().item() == pytest.approx(1, abs=1e-9)
        assert 1 - p[0].item() == pytest.approx(1 / (1 + math.exp(1.3)))
        known = poisson.pmf(np.arange(1, 6), math.exp(log_rate))
        assert (p[2:6] / p[1:5]).tolist() == pytest.approx((known[1:] / known[:-1]).tolist())
    x = torch.tensor([-200.0, -9.3, 3.0], dtype=torch.float64, requires_grad=True)
    log_truncated(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert x.grad.tolist() == pytest.approx([1, 1, 0], abs=1e-3)


def with_laws(p: float, rate: float) -> GalaxyCounts:
    """One that gives every cell the same laws."""
    net = GalaxyCounts(CUBE, SPACE, widths=(4, 8)).requires_grad_(False)
    net.start[0], net.start[1] = math.log(p / (1 - p)), math.log(rate)
    return net


@pytest.mark.parametrize(("p", "rate"), [(0.04, 0.3), (0.5, 2.0)])
def test_galaxies_are_drawn_from_the_laws(p: float, rate: float) -> None:
    params, coarse = torch.tensor([[0.3, 0.8]] * 4), torch.rand(4, 1, 16, 16, 16)
    counts = with_laws(p, rate).sample(params, seed=3, coarse=coarse).values
    n = counts.numel()
    share = (counts > 0).float().mean().item()
    assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))
    held = counts[counts > 0]
    for k in (1, 2, 4):
        known = poisson.pmf(k, rate) / (1 - math.exp(-rate))
        assert (held == k).double().mean().item() == pytest.approx(
            known, abs=4 * math.sqrt(known / len(held))
        )
    again = with_laws(p, rate).sample(params, seed=3, coarse=coarse).values
    other = with_laws(p, rate).sample(params, seed=4, coarse=coarse).values
    assert torch.equal(counts, again) and not torch.equal(counts, other)


def planted(n: int = 12) -> SimulationSet:
    """Poisson counts of a mean that is a function of the cell's density alone, Omega_m (1 + delta) / 4."""
    generator = torch.Generator().manual_seed(0)
    density = torch.exp(torch.randn(n, 1, *CUBE.shape, generator=generator) - 0.5)
    params = SPACE.restore(2 * torch.rand(n, 2, generator=generator) - 1)
    mean = params[:, :1, None, None, None] * density / 4
    split, region = np.full(n, "train"), np.full(n, "interior")
    return SimulationSet(
        CUBE, SPACE, torch.poisson(mean, generator=generator), params, torch.arange(n), split, region,
        "planted", "galaxies", density, CUBE,
    )  # fmt: skip


def test_painting_by_density_is_measured() -> None:
    data = planted()
    assert data.coarse is not None
    net = GalaxyCounts(CUBE, SPACE, widths=(4, 8))
    net.fit(data)
    laws = net.start_of(data.coarse, data.params)
    assert torch.allclose(laws, net.predict(data.coarse, data.params))  # where it starts
    mean = data.params[:, :1, None, None, None] * data.coarse / 4
    for low, high in ((0.01, 0.05), (0.05, 0.2), (0.2, 1.0)):
        held = (mean > low) & (mean < high)
        n, expected = held.sum().item(), -torch.expm1(-mean[held]).mean().item()
        # Means over a wide bin: the sample's own scatter.
        error = 4 * math.sqrt(expected / n)
        assert laws[:, :1][held].sigmoid().mean().item() == pytest.approx(expected, abs=error)
        assert net.expected(laws)[held].mean().item() == pytest.approx(mean[held].mean().item(), abs=error)
    drawn = net.closed_form(data.coarse, data.params)
    assert torch.equal(drawn, net.closed_form(data.coarse, data.params))
    assert drawn.mean().item() == pytest.approx(
        mean.mean().item(), abs=8 * math.sqrt(mean.mean() / drawn.numel())
    )


def test_each_loss_moves_its_own_network() -> None:
    data = planted(4)
    net = GalaxyCounts(CUBE, SPACE, widths=(4, 8))
    net.fit(data)
    terms = TwoPhase().terms(net.predict(data.coarse, data.params), data.values, net.output_scale, CUBE)  # pyright: ignore
    for name, moved, still in (
        ("occupation", net.occupation, net.number),
        ("number", net.number, net.occupation),
    ):
        net.zero_grad()
        terms[name].backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in moved.parameters())
        assert all(p.grad is None or not p.grad.any() for p in still.parameters())


# Learning


class Boxes(Source):
    """Simulations that were made already."""

    def __init__(self, data: SimulationSet) -> None:
        self.data = data

    def load(self) -> SimulationSet:
        return self.data


CONTENT: dict[str, Any] = {
    "name": "galaxies",
    "seed": 6,
    "grid": CUBE.to_dict(),
    "space": {"names": list(SPACE.names), "low": list(SPACE.low), "high": list(SPACE.high)},
    "galaxies": {"steps": 4},
    "training": {"cosmologies": 18, "boxes": 1, "validation": 3},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> SimulationSet:
    """Twelve boxes for training, six for validation."""
    folder = simulate(parse_recipe(CONTENT), tmp_path_factory.mktemp("galaxies"), 1, progress=False)
    return load_simulations(folder).check()


def test_surroundings_say_more_than_density_alone(pairs: SimulationSet, tmp_path: Path) -> None:
    recipe = TrainingRecipe(
        name="toy",
        data=FieldData(Boxes(pairs), batch_size=4),
        emulator=lambda grid, space: GalaxyCounts(grid, space, widths=(8, 16)),
        loss=TwoPhase(),
        optimiser=Adam(rate=4e-3, betas=(0.9, 0.99), clip=20.0, schedule="cosine"),
        max_steps=60,
        ema_decay=0.8,
        accelerator="cpu",
        validate_every=30,
        validation_maps=6,
    )
    train(recipe, tmp_path / "run")
    record = best_record(tmp_path / "run")
    assert record is not None and record["score"] < 1 and record["occupation"] < 1
    shipped, held = gen.load(tmp_path / "run" / "checkpoint"), pairs.select(split="validation")
    assert isinstance(shipped, GalaxyCounts) and held.coarse is not None
    with torch.no_grad():
        said = CountValidation(held, 6, shipped)(shipped.sample(held.params, coarse=held.coarse).values)
    assert said["score"] == pytest.approx(record["score"], rel=1e-4)


def test_it_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    data = planted(2)
    net = GalaxyCounts(CUBE, SPACE, widths=(4, 8))
    net.fit(data)
    checkpoint.save(net, tmp_path / "c", "card")
    one, other = (e.sample(data.params, seed=1, coarse=data.coarse) for e in (net, gen.load(tmp_path / "c")))
    assert torch.equal(one.values, other.values)


# Refusals


def test_bad_input_is_one_sentence() -> None:
    data = planted(2)
    net = GalaxyCounts(CUBE, SPACE, widths=(4, 8))
    assert data.coarse is not None
    shuffled: Tensor = data.coarse.flatten()[torch.randperm(data.coarse.numel())].reshape(data.coarse.shape)
    for wrong, said in (
        (replace(data, values=data.values * 0.5), "must be whole numbers"),
        (replace(data, values=data.values - 1), "whole numbers, 0 or more"),
        (replace(data, values=data.values * 0), "0 galaxies in the training set are too few"),
        (replace(data, coarse=data.coarse - 1), "never negative; add 1"),
        (replace(data, coarse=shuffled), "do not match their coarse fields"),
        (replace(data, coarse=None, coarse_grid=None), "no coarse ones"),
    ):
        with pytest.raises(InputError, match=said) as error:
            net.fit(wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="the emulator is for"):
        GalaxyCounts(Grid((8, 8, 8), 32.0, "Mpc/h", True), SPACE, widths=(4, 8)).fit(data)
    with pytest.raises(InputError, match="makes fields from the matter density"):
        net.sample(data.params)
    with pytest.raises(InputError, match="not periodic"):
        GalaxyCounts(Grid((8, 8), 3.5, "deg", False), SPACE)
    with pytest.raises(InputError, match="offset must be positive"):
        GalaxyCounts(CUBE, SPACE, offset=0.0)
    with pytest.raises(InputError, match="the two laws of GalaxyCounts"):
        TwoPhase().terms(data.values, data.values, net.output_scale, CUBE)
    with pytest.raises(InputError, match="wrap them into the box"):
        friends_of_friends(np.full((8, 3), 11.0), 10.0, 1.0)
    with pytest.raises(InputError, match=r"hold 1\.9 particles, fewer than the 10"):
        Galaxies(steps=1, oversampling=1).fields(Cosmology(0.3, 0.8), 0.0, CUBE, seed=1)
    with pytest.raises(InputError, match="sigma_log_M and alpha must be positive"):
        Galaxies(alpha=0.0).check(CUBE)
