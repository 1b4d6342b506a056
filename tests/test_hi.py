"""Neutral hydrogen: the published relation, masses conserved, redshift space, cosmic density, sources."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from evaluation.multipoles import Multipoles
from gen.data.module import FieldData
from gen.data.simulated import Simulated
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.displacement import density, deposited, positions, zeldovich
from gen.simulate.growth import Growth
from gen.simulate.halos import CRITICAL_DENSITY, Halos, friends_of_friends
from gen.simulate.hi import FEWEST, HI, UNIT
from gen.simulate.hi_relation import HIHalos, HIRelation
from gen.simulate.initial import (
    at_cell_centres,
    divergence_modes,
    linear_modes,
    sum_of_squares,
    wavevector,
    white_noise,
)
from gen.simulate.mass_assignment import window
from gen.simulate.nbody_pairs import Density, Run
from gen.simulate.painting import scattered, shared, smoothed
from gen.simulate.photoionised import neutral_fraction
from gen.simulate.recipe import parse_recipe
from gen.simulate.redshift_space import redshift_space
from gen.simulate.run import load_simulations, simulate
from gen.simulate.theory import Cosmology, halo_bias, halo_mass_function, linear_power, nonlinear_power

COSMO = Cosmology(0.3, 0.8)
BOX = Grid((16, 16, 16), 10.0, "Mpc/h", periodic=True)


# The relation and its integrals


@pytest.mark.parametrize(
    ("z", "alpha", "m_0", "m_min"),
    [
        (0, 0.24, 4.3e10, 2.0e12),
        (1, 0.53, 1.5e10, 6.0e11),
        (3, 0.76, 2.9e9, 6.7e10),
        (5, 0.74, 1.9e9, 2.0e10),
    ],
)
def test_the_relation_is_the_published_one(z: float, alpha: float, m_0: float, m_min: float) -> None:
    relation = HIRelation.at(z)
    assert relation(m_min) == pytest.approx(m_0 / math.e)
    assert relation(10 * m_min) == pytest.approx(m_0 * 10**alpha * math.exp(-(10**-0.35)))
    assert relation(relation.M_hard * 0.999) == 0 < relation(relation.M_hard)


def test_between_redshifts_the_relation_lies_between() -> None:
    below, middle, above = (HIRelation.at(z) for z in (3.0, 3.5, 4.0))
    assert middle.alpha == pytest.approx((below.alpha + above.alpha) / 2)
    for name in ("M_0", "M_min", "M_hard"):
        low, mid, high = (getattr(r, name) for r in (below, middle, above))
        assert mid == pytest.approx(math.sqrt(low * high))


def tophat_sigma(mass: np.ndarray, a: float) -> np.ndarray:
    """Of the linear density in balls that hold a mass [Msun/h], by quadrature."""
    k = np.geomspace(1e-4, 400, 8000)
    power = linear_power(COSMO, k, a) * k**3 / (2 * math.pi**2)
    x = k * np.cbrt(mass / (4 / 3 * math.pi * CRITICAL_DENSITY * COSMO.Omega_m))[:, None]
    return np.sqrt(np.trapezoid(power * (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2, np.log(k), axis=1))


@pytest.mark.parametrize("z", [2.0, 5.0])
def test_halos_are_sheth_and_tormens(z: float) -> None:
    a, mass = 1 / (1 + z), np.geomspace(3e8, 3e11, 31)
    sigma = tophat_sigma(mass, a)
    nu2 = 0.707 * (1.686 / sigma) ** 2
    f = 0.3222 * np.sqrt(2 * nu2 / math.pi) * (1 + nu2**-0.3) * np.exp(-nu2 / 2)
    slope = -np.gradient(np.log(sigma), np.log(mass))
    number = CRITICAL_DENSITY * COSMO.Omega_m / mass * f * slope
    assert halo_mass_function(COSMO, mass, a)[1:-1] == pytest.approx(number[1:-1], rel=0.02)
    bias = 1 + (nu2 - 1) / 1.686 + 0.6 / 1.686 / (1 + nu2**0.3)
    assert halo_bias(COSMO, mass, a) == pytest.approx(bias, rel=0.01)


def test_hi_of_light_and_heavy_halos_adds_up() -> None:
    whole, light, heavy = (HIHalos(COSMO, 4.0, *ends) for ends in ((0.0,), (0.0, 3e10), (3e10,)))
    assert light.density() + heavy.density() == pytest.approx(whole.density(), rel=1e-4)
    mixed = light.density() * light.bias() + heavy.density() * heavy.bias()
    assert mixed / whole.density() == pytest.approx(whole.bias(), rel=1e-4)
    assert light.bias() < heavy.bias()
    none = HIHalos(COSMO, 0.0, high=1e10)  # below the cut-off of that redshift
    assert none.density() == 0 and len(none.drawn(1e6, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("z", [1.0, 2.0, 3.0, 4.0, 5.0])
def test_cosmic_hi_is_what_absorption_lines_say_within_a_factor(z: float) -> None:
    """Omega_HI = 4e-4 (1 + z)^0.6 (Crighton et al. 2015, arXiv:1506.02037); measured: 1.1 to 0.6 of it."""
    omega = HIHalos(Cosmology(0.3089, 0.8159), z).density() / CRITICAL_DENSITY
    assert 0.6 < omega / (4e-4 * (1 + z) ** 0.6) < 1.2


def test_halos_are_drawn_from_the_mass_function() -> None:
    halos, volume = HIHalos(COSMO, 5.0, high=3e10), 30000.0
    hi = halos.drawn(volume, np.random.default_rng(1))
    error = math.sqrt(np.square(hi).sum()) / volume
    assert (
        hi.sum() / volume == pytest.approx(halos.density(), abs=4 * error) and error < 0.02 * halos.density()
    )
    mass, number = halos.nodes()
    count = np.trapezoid(number, np.log(mass)) * volume
    assert len(hi) == pytest.approx(count, abs=4 * math.sqrt(count))
    assert halos.relation(mass[0]) <= hi.min() and hi.max() <= halos.relation(mass[-1])


# Painting


def test_each_halo_keeps_its_mass() -> None:
    halo = np.array([2, -1, 0, 0, 1, -1, 2, 2])
    mass = np.array([4.0, 5.0, 9.0])
    painted = shared(mass, Halos(np.zeros(3), np.zeros((3, 3)), halo))
    assert painted.tolist() == [3, 0, 2, 2, 5, 0, 3, 3]


def test_masses_fall_by_the_odds() -> None:
    odds = np.array([0.0, 1.0, 3.0, 0.0, 6.0])
    got = scattered(np.full(20000, 0.5), odds, np.random.default_rng(0))
    assert got.sum() == pytest.approx(10000) and got[0] == got[3] == 0
    share = odds / 10
    assert np.all(np.abs(got / 10000 - share) <= 4 * np.sqrt(share * (1 - share) / 20000))


def test_smoothing_is_a_gaussians() -> None:
    x = (torch.arange(16) + 0.5) * 0.5
    wave = torch.cos(2 * math.pi * 2 * x / 8).expand(1, 1, 16, 16, 16)
    factor = math.exp(-0.5 * (2 * math.pi * 2 / 8 * 0.7) ** 2)
    assert torch.allclose(smoothed(1 + wave, 8.0, 0.7), 1 + factor * wave, atol=1e-5)


def test_gas_is_in_photoionisation_equilibrium() -> None:
    density = np.geomspace(0.03, 1e5, 20)
    x = neutral_fraction(COSMO, 3.0, density, 1e-12)
    atoms = 0.76 * 1.878e-29 * 0.049 * 0.6711**2 * 4**3 * density / 1.6735e-24
    alpha = 4.2e-13 * density**-0.35
    assert x == pytest.approx(alpha * 1.08 * atoms * (1 - x) ** 2 / 1e-12, rel=1e-3)
    assert 4e-6 < neutral_fraction(COSMO, 3.0, 1.0, 1e-12) < 8e-6
    thin = x[density < 1] * density[density < 1]
    assert np.diff(np.log(thin)) / np.diff(np.log(density[density < 1])) == pytest.approx(1.65, abs=1e-3)
    assert neutral_fraction(COSMO, 3.0, 1.0, 1e-30) == pytest.approx(1, abs=1e-6)


def modes_of(field: Tensor) -> Tensor:
    return torch.fft.rfftn(field[0, 0].double(), dim=(0, 1, 2))


def linear(n: int, side: float, seed: int) -> Tensor:
    noise = white_noise([sample_generator(seed, 0, "initial")], n)
    power = linear_modes(noise, side, lambda k: torch.from_numpy(linear_power(COSMO, k.double().numpy())))
    return at_cell_centres(power)


@pytest.mark.parametrize("z", [2.0, 5.0])
def test_linear_modes_grow_by_kaisers_factor_along_the_line_of_sight(z: float) -> None:
    growth, a, side = Growth(0.3), 1 / (1 + z), 64.0
    moved = zeldovich(linear(16, side, 1), side, growth, a)
    seen = redshift_space(moved, growth, a)
    real, distorted = (divergence_modes(d, side)[0] for d in (moved.displacement, seen))
    k = wavevector(16, side, odd=True)
    mu2 = k[2] ** 2 / sum_of_squares(k).clamp(min=1e-30)
    f = float(growth.first_momentum(a) / (a**2 * growth.expansion(a) * growth.first(a)))
    assert f == pytest.approx(float(growth.matter_fraction(a)) ** 0.55, rel=5e-3)
    scale = real.abs().max()
    assert ((distorted - (1 + f * mu2) * real).abs() < 1e-5 * scale).all() and scale > 1
    assert torch.equal(seen[:, :2], moved.displacement[:, :2])


# Boxes


@pytest.fixture(scope="module")
def box() -> Tensor:
    return HI().fields(COSMO, 3.0, BOX, seed=1).values


def test_mass_is_conserved_and_redshift_space_only_moves_it(box: Tensor) -> None:
    seen = HI(redshift_space=1).fields(COSMO, 3.0, BOX, seed=1).values
    assert box.shape == seen.shape == (1, 1, 16, 16, 16) and box.dtype == torch.float32
    assert seen.double().mean().item() == pytest.approx(box.double().mean().item(), rel=1e-6)
    columns = (seen.double().sum(-1) / box.double().sum(-1)).flatten()
    assert torch.allclose(columns, torch.ones(256, dtype=torch.float64), rtol=1e-4)
    assert not torch.allclose(seen, box, rtol=0.1)


def test_painted_masses_are_the_halos_and_no_more() -> None:
    source, run = HI(), Run(COSMO, 3.0, BOX, 1, "cpu", 20, 2)
    moved = source.evolved(run, 32)
    mass = source.masses(COSMO, 3.0, moved, 10.0, 16, np.random.default_rng([1, 2]))
    particle = CRITICAL_DENSITY * 0.3 * (10 / 32) ** 3
    halos = friends_of_friends(
        positions(moved.displacement, 10.0)[0].T.double().numpy(), 10.0, particle, fewest=10
    )
    inside = halos.halo >= 0
    held = np.bincount(halos.halo[inside], mass.flatten()[inside])
    count = np.bincount(halos.halo[inside])
    expected = HIRelation.at(3.0)(particle * count * (1 - count**-0.6))
    assert len(held) > 30 and held == pytest.approx(expected, rel=1e-12)
    outside = mass.flatten()[~inside].sum() / 10**3
    smaller = HIHalos(COSMO, 3.0, high=FEWEST * (1 - FEWEST**-0.6) * particle).density()
    assert 0.8 < outside / smaller < 1.2 and mass.min() > 0
    field = deposited(torch.from_numpy(mass), moved.displacement.double(), 10.0, 16)
    assert field.sum().item() == pytest.approx(mass.sum(), rel=1e-12)


def test_box_holds_the_cosmic_hi_over_many_decades(box: Tensor) -> None:
    omega = box.double().mean().item() / CRITICAL_DENSITY
    assert 0.5 < omega / (4e-4 * 4**0.6) < 1.2
    assert omega * CRITICAL_DENSITY == pytest.approx(HIHalos(COSMO, 3.0).density(), rel=0.2)
    assert box.min() > 0 and torch.log10(box.max() / box.min()) > 6


def test_boxes_are_functions_of_their_seed(box: Tensor) -> None:
    assert torch.equal(HI().fields(COSMO, 3.0, BOX, seed=1).values, box)
    assert not torch.allclose(HI().fields(COSMO, 3.0, BOX, seed=2).values, box)


def boost(delta: Tensor, modes: Tensor, side: float, a: float, low: float, high: float) -> float:
    """Power of a density over that of its own linear modes, and over halofit's boost, between two k."""
    n = modes.shape[1]
    k = sum_of_squares(wavevector(n, side)).sqrt()
    held = (k > low) & (k < high)
    found = (modes_of(delta) / window(n, 3)).abs().square()[held].mean()
    linear = modes[0].abs().square()[held].mean() * float(Growth(0.3).first(a)) ** 2
    middle = np.array([k[held].mean().item()])
    halofit = nonlinear_power(COSMO, middle, a) / linear_power(COSMO, middle, a)
    return float(found / linear / halofit[0])


def test_power_of_the_mesh_at_redshift_five_is_theorys() -> None:
    """Of one realisation, so long waves of the small box stand apart from the mean by what they couple."""
    a, side = 1 / 6, 128.0
    wide = Grid((32, 32, 32), side, "Mpc/h", periodic=True)
    delta = Density().fields(COSMO, 5.0, wide, seed=3).values
    assert boost(delta, linear(32, side, 3), side, a, 0.04, 0.3) == pytest.approx(1, abs=0.03)
    found = []
    for seed in range(4):
        moved = HI().evolved(Run(COSMO, 5.0, BOX, seed, "cpu", 20, 2), 32)
        fine, waves = density(moved.displacement, 10.0, 32), linear(32, 10.0, seed)
        found.append([boost(fine, waves, 10.0, a, *k) for k in ((1.0, 2.5), (2.5, 5.0), (5.0, 8.0))])
    assert np.mean(found, 0) == pytest.approx(np.full(3, 0.9), abs=0.1)


# Recipes

CONTENT: dict[str, Any] = {
    "name": "hi",
    "seed": 4,
    "grid": BOX.to_dict(),
    "space": {"names": ["Omega_m", "sigma_8", "z"], "low": [0.2, 0.7, 2.0], "high": [0.4, 0.9, 5.0]},
    "hi": {"steps": 2, "mesh_factor": 1},
    "training": {"cosmologies": 4, "boxes": 1, "validation": 2},
}


def test_a_set_is_made_and_read_back(tmp_path: Path) -> None:
    recipe = parse_recipe(CONTENT)
    assert parse_recipe(recipe.to_dict()) == recipe
    data = load_simulations(simulate(recipe, tmp_path, 1, progress=False)).check()
    assert data.unit == UNIT and data.space.names == ("Omega_m", "sigma_8", "z") and data.coarse is None
    assert (data.values > 0).all() and len(data) == 4


def test_boxes_in_redshift_space_are_never_turned_onto_another_axis(tmp_path: Path) -> None:
    path = tmp_path / "hi.yaml"
    path.write_text(yaml.safe_dump(CONTENT | {"hi": CONTENT["hi"] | {"redshift_space": 1}}))
    data = FieldData(Simulated(path, tmp_path / "cache", 1), batch_size=2)
    data.setup()
    simulations = data.simulations
    assert simulations.line_of_sight == 2 and simulations.select(split="train").line_of_sight == 2
    quadrupole = Multipoles(BOX)
    true = quadrupole(simulations.select(split="train").values / 1e8)[:, 1]
    for batch in islice(data.train_dataloader(), 4):
        for found in quadrupole(batch.values / 1e8)[:, 1]:
            assert min((found - t).abs().max() / t.abs().max() for t in true) < 1e-3
    real = load_simulations(simulate(parse_recipe(CONTENT), tmp_path, 1, progress=False))
    assert real.line_of_sight is None


def test_a_rehearsal_takes_quick_boxes(tmp_path: Path) -> None:
    path = tmp_path / "hi.yaml"
    path.write_text(yaml.safe_dump(CONTENT | {"hi": {}}))
    data = Simulated(path, tmp_path / "cache").rehearse()
    assert "stand-ins" in data.name and data.grid == BOX and data.unit == UNIT
    assert not (tmp_path / "cache").exists()


def test_bad_input_is_one_sentence() -> None:
    coarse = Grid((16, 16, 16), 80.0, "Mpc/h", periodic=True)
    late = {"region": "edge", "Omega_m": 0.3, "sigma_8": 0.8, "boxes": 1, "z": 5.5}
    for call, said in (
        (lambda: HIRelation.at(5.5), "known at redshifts 0 to 5, got 5.5"),
        (lambda: HI(steps=0).check(BOX), "needs 1 step or more"),
        (lambda: HI(redshift_space=2).check(BOX), "redshift_space 0 or 1"),
        (lambda: HI(steps=1).fields(COSMO, 5.0, coarse, 1), "take a smaller box"),
        (lambda: parse_recipe(CONTENT | {"test": [late]}), "redshifts must lie in 0 to 5"),
        (lambda: scattered(np.ones(2), np.zeros(3), np.random.default_rng(0)), "positive sum"),
    ):
        with pytest.raises(InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)
