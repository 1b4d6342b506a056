"""Boxes and pairs from the particle mesh: one universe at two resolutions, redshifts, coarse fields kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.data.module import FieldData
from gen.data.simulated import Simulated
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate import columns
from gen.simulate.displacement import density, second_order
from gen.simulate.growth import Growth
from gen.simulate.initial import at_cell_centres, linear_modes, sum_of_squares, wavevector, white_noise
from gen.simulate.mass_assignment import deposit, window
from gen.simulate.nbody_pairs import Density, Displacement, SuperResolution, sharpening_height
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.recipe import parse_recipe, read_recipe
from gen.simulate.run import load_simulations, simulate
from gen.simulate.sources import SHARPENING
from gen.simulate.theory import Cosmology, linear_power, nonlinear_power
from gen.simulate.theory import growth as ccl_growth

COSMO = Cosmology(0.3, 0.8)
GRID = Grid((16, 16, 16), 64.0, "Mpc/h", periodic=True)
FINE = Grid((32, 32, 32), 128.0, "Mpc/h", periodic=True)


def modes_of(x: Tensor) -> Tensor:
    return torch.fft.rfftn(x.double(), dim=(-3, -2, -1))


def shared_waves(a: Tensor, b: Tensor, below: float, side: float) -> tuple[float, float]:
    """Correlation of two fields ``(C, n, n, n)`` over the modes of |k| < below, and amplitude b/a."""
    n = a.shape[-1]
    k = sum_of_squares(wavevector(n, side)).sqrt()
    held = (k > 0) & (k < below)
    x, y = modes_of(a)[:, held], modes_of(b)[:, held]
    cross = (x * y.conj()).sum().real
    power = (x.abs() ** 2).sum(), (y.abs() ** 2).sum()
    return float(cross / (power[0] * power[1]).sqrt()), float(cross / power[0])


# What the sources give


def test_long_waves_of_a_run_are_zeldovichs_and_shorter_ones_are_not() -> None:
    values, coarse = Displacement().fields(COSMO, 0.0, FINE, seed=1)
    assert values.shape == (1, 6, 32, 32, 32) and coarse is not None and coarse.shape == (1, 3, 32, 32, 32)
    r, amplitude = shared_waves(coarse[0], values[0, :3], 0.12, 128.0)
    # Waves of 50 Mpc/h and more: what couples is of the order of the variance there, 0.03.
    assert r > 0.99 and amplitude == pytest.approx(1, abs=0.06)
    assert (values[0, :3] - coarse[0]).square().mean() > 0.01 * coarse.square().mean()


@pytest.mark.parametrize("z", [0.0, 1.0])
def test_long_waves_of_the_velocity_are_a_h_f_times_those_of_the_displacement(z: float) -> None:
    values, _ = Displacement().fields(COSMO, z, FINE, seed=2)
    a = 1 / (1 + z)
    hubble = 100 * math.sqrt(0.3 / a**3 + 0.7)
    f = (0.3 / (0.3 + 0.7 * a**3)) ** 0.55  # within 1 % of the growth rate
    r, amplitude = shared_waves(values[0, :3], values[0, 3:], 0.12, 128.0)
    assert r > 0.99 and amplitude == pytest.approx(a * hubble * f, rel=0.08)


def test_coarse_displacement_follows_the_growth_to_the_redshift() -> None:
    now, then = (Displacement(steps=1).fields(COSMO, z, GRID, seed=3).coarse for z in (0.0, 1.5))
    assert now is not None and then is not None
    d = float(ccl_growth(COSMO, [0.4])[0])
    assert torch.allclose(then, d * now, rtol=1e-3, atol=1e-3)


def test_no_steps_are_second_order_theory() -> None:
    values, _ = Displacement(steps=0).fields(COSMO, 0.5, GRID, seed=4)
    noise = white_noise([sample_generator(4, 0, "initial")], 16)
    modes = linear_modes(noise, 64.0, lambda k: torch.from_numpy(linear_power(COSMO, k.double().numpy())))
    expected = second_order(at_cell_centres(modes), 64.0, Growth(0.3), 1 / 1.5)
    assert torch.equal(values, torch.cat(expected, 1))


def test_density_is_that_of_the_displacement_run_and_oversampling_fills_the_voids() -> None:
    moved = Displacement().fields(COSMO, 0.0, GRID, seed=5).values[:, :3]
    one, none = Density().fields(COSMO, 0.0, GRID, seed=5)
    assert none is None and torch.allclose(one, density(moved, 64.0, 16), atol=1e-5)
    eight = Density(oversampling=2).fields(COSMO, 0.0, GRID, seed=5).values
    assert one.mean().item() == pytest.approx(1, rel=1e-5) == eight.mean().item()
    assert (eight == 0).float().mean() < 0.2 * (one == 0).float().mean()


@pytest.mark.parametrize("field", ["density", "displacement"])
def test_the_runs_of_two_resolutions_are_one_universe(field: str) -> None:
    fine, coarse = SuperResolution(field).fields(COSMO, 0.0, FINE, seed=6)
    assert coarse is not None and coarse.shape[2:] == (16, 16, 16)
    assert fine.shape[1] == coarse.shape[1] == (1 if field == "density" else 6)
    pooled = torch.nn.functional.avg_pool3d(fine, 2)
    r, amplitude = shared_waves(pooled[0, :3], coarse[0, :3], 0.15, 128.0)
    assert r > 0.97 and amplitude == pytest.approx(1, abs=0.12)
    other = SuperResolution(field).fields(COSMO, 0.0, FINE, seed=7).coarse
    assert other is not None
    # Of two universes: about 150 modes of three (parallel) components correlate by 0 +- 0.08.
    assert abs(shared_waves(pooled[0, :3], other[0, :3], 0.15, 128.0)[0]) < 0.4


def drift(a: Tensor, b: Tensor, side: float) -> float:
    """How far b stands from a along (1, 1, 1) in cells of a, from the phase of waves along the axes."""
    x, y = modes_of(a), modes_of(b)
    n = a.shape[-1]
    cross = [(x[:, 1, 0, 0] * y[:, 1, 0, 0].conj()).sum(), (x[:, 0, 1, 0] * y[:, 0, 1, 0].conj()).sum()]
    cross.append((x[:, 0, 0, 1] * y[:, 0, 0, 1].conj()).sum())
    return float(torch.stack(cross).sum().angle()) * n / (2 * math.pi)


def test_coarse_cells_cover_the_fine_ones_that_they_should() -> None:
    """Without the shift to cell centres the coarse universe stands a quarter of its cell off."""
    shifts = []
    for n in (16, 32):
        noise = white_noise([sample_generator(8, 0, "initial")], n)
        noise = noise * (sum_of_squares(wavevector(n, 1.0)) < (2.5 * 2 * math.pi) ** 2)
        modes = linear_modes(noise, 128.0, lambda k: 1e3 + 0 * k)
        shifts.append(
            [second_order(m, 128.0, Growth(0.3), 1.0).displacement for m in (at_cell_centres(modes), modes)]
        )
    (right, wrong), (fine, fine_nodes) = shifts
    pool = torch.nn.functional.avg_pool3d
    assert abs(drift(pool(fine, 2)[0], right[0], 128.0)) < 0.01
    assert abs(abs(drift(pool(fine_nodes, 2)[0], wrong[0], 128.0)) - 0.25) < 0.01
    initial = SuperResolution("displacement", steps=0).fields(COSMO, 0.0, FINE, seed=8)
    assert initial.coarse is not None
    assert abs(drift(pool(initial.values, 2)[0, :3], initial.coarse[0, :3], 128.0)) < 0.05


def test_simulations_are_functions_of_their_seed_and_differ() -> None:
    first, again, other = (Density(steps=2).fields(COSMO, 0.0, GRID, seed=s).values for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.1)


def test_sharpening_is_the_fitted_one_where_it_was_fitted_and_between_them_elsewhere() -> None:
    assert [sharpening_height(s) for s in (1.0, 2.0)] == [SHARPENING[0]] * 2
    assert sharpening_height(4.0) == 1.0 and sharpening_height(8.0) == sharpening_height(16.0) == 0.0
    assert 1.0 < sharpening_height(3.0) < SHARPENING[0]


def test_power_of_the_displacement_emulators_truth_is_near_halofit() -> None:
    """32^3 in 128 Mpc/h; four pairs of boxes of opposite phases and mean amplitudes, z = 0."""
    side, n, mesh = 128.0, 32, 64
    k = sum_of_squares(wavevector(mesh, side)).sqrt()
    twice = torch.where(torch.arange(mesh // 2 + 1) > 0, 2.0, 1.0).expand_as(k)
    noise = white_noise([sample_generator(seed, 0, "power") for seed in range(4)], n)
    noise = torch.where(noise.abs() > 0, noise / noise.abs().clamp(min=1e-20), noise)
    modes = linear_modes(
        torch.cat([noise, -noise]), side, lambda q: torch.from_numpy(linear_power(COSMO, q.double()))
    )
    height = sharpening_height(4.0) * COSMO.sigma_8**2
    solver = ParticleMesh(n, side, 0.3, even_steps(12), sharpening=(height, SHARPENING[1]))
    (last,) = solver.run(modes, [1.0])
    delta = torch.fft.rfftn(deposit(last.positions, mesh), dim=(1, 2, 3)) / n**3 / window(mesh, 3)
    measured = (delta.abs() ** 2 * side**3).mean(0)
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.78)):
        held = (k > low) & (k < high)
        theory = torch.from_numpy(nonlinear_power(COSMO, k[held].double().numpy()))
        ratio = (twice[held] * measured[held]).sum() / (twice[held] * theory).sum()
        # Pairs scatter by 10 %, what the largest waves of a box do to the smaller ones; four by 5 %.
        assert ratio.item() == pytest.approx(1, abs=0.1)


# Recipes


BOX: dict[str, Any] = {
    "name": "box",
    "seed": 3,
    "grid": {"shape": [8, 8, 8], "box_size": 32, "unit": "Mpc/h", "periodic": True},
    "space": {"names": ["Omega_m", "sigma_8", "z"], "low": [0.1, 0.6, 0.0], "high": [0.5, 1.0, 2.0]},
    "super_resolution": {"field": "displacement", "steps": 2},
    "training": {"cosmologies": 4, "boxes": 2, "validation": 4},
    "test": [
        {"region": "interior", "Omega_m": 0.3, "sigma_8": 0.8, "z": 0.5, "boxes": 1},
        {"region": "edge", "Omega_m": 0.3, "sigma_8": 0.8, "boxes": 1},
    ],
}


def test_existing_sets_keep_their_folders(root: Path) -> None:
    """Folders of simulations that people hold; they change with CODE_VERSION or the recipe only."""
    held = {
        "convergence_2d": "aab99251c937",
        "convergence_2d_128": "28525c71fddd",
        "convergence_2d_256": "0b695d668d91",
        "convergence_2d_demo": "a4459f11b840",
        "convergence_2d_lognormal": "b06a385afe8d",
    }
    for name, digest in held.items():
        assert read_recipe(root / f"recipes/data/{name}.yaml").folder == f"{name}-{digest}"


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("recipes/data/*_3d*.yaml")))
def test_shipped_recipes_are_read_and_survive_the_round_trip(path: Path) -> None:
    recipe = read_recipe(path)
    assert parse_recipe(json.loads(json.dumps(recipe.to_dict()))) == recipe
    tests = [s for s in recipe.plan() if s.split == "test"]
    more = path.stem.endswith("_more")  # training boxes beside those of a set that has test boxes
    assert {s.region for s in tests} == (set() if more else {"interior", "edge", "extrapolation"})
    for cosmology in {s.cosmology for s in tests}:
        assert len([s for s in tests if s.cosmology == cosmology]) >= 8


def test_redshifts_fill_the_space_and_reach_the_simulations() -> None:
    recipe = parse_recipe(BOX)
    plan = recipe.plan()
    assert all(len(s.params) == 3 and 0 <= s.redshift <= 2 for s in plan)
    assert [s.redshift for s in plan if s.split == "test"] == [0.5, 0.0]
    assert len({s.redshift for s in plan if s.split != "test"}) == 4
    assert plan[0].cosmo() == Cosmology(*plan[0].params[:2])
    flat = {**BOX, "space": {"names": ["Omega_m", "sigma_8"], "low": [0.1, 0.6], "high": [0.5, 1.0]}}
    flat["test"] = [{k: v for k, v in t.items() if k != "z"} for t in BOX["test"]]
    without = parse_recipe(flat)
    assert all(s.redshift == 0 and len(s.params) == 2 for s in without.plan())
    assert "z" not in without.to_dict()["test"][0] and recipe.to_dict()["test"][1]["z"] == 0.0


def _flat(r: dict[str, Any]) -> None:
    r["space"] = {"names": ["Omega_m", "sigma_8"], "low": [0.1, 0.6], "high": [0.5, 1.0]}


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("a redshift that no parameter is", _flat, "no parameter z"),
    ("too early", lambda r: r["test"][0].update(z=9.0), r"redshifts must lie in 0 to 5"),
    ("the future", lambda r: r["space"].update(low=[0.1, 0.6, -0.5]), r"redshifts must lie in 0 to 5"),
    ("another parameter", lambda r: r["space"].update(names=["Omega_m", "sigma_8", "h"]), "and z if wanted"),
    ("many maps", lambda r: r["training"].update(maps=4), "maps must be 1"),
    ("a patch", lambda r: r["grid"].update(periodic=False), "periodic cubic grid"),
    ("a slab", lambda r: r["grid"].update(shape=[8, 8, 4]), "periodic cubic grid"),
    ("a map", lambda r: r["grid"].update(shape=[8, 8]), "periodic cubic grid"),
    ("degrees", lambda r: r["grid"].update(unit="deg"), "periodic cubic grid"),
    ("cells that do not nest", lambda r: r["grid"].update(shape=[10] * 3), "multiple of 4"),
    ("an unknown field", lambda r: r["super_resolution"].update(field="gas"), "density or displacement"),
    ("particles in a cell", lambda r: r["super_resolution"].update(oversampling=2), "oversampling must be 1"),
    ("negative steps", lambda r: r["super_resolution"].update(steps=-1), "steps must be 0 or more"),
    ("two sources", lambda r: r.update(density={}), "exactly one"),
    ("maps with redshift", lambda r: r.update(nbody=r.pop("super_resolution") and {}), "the space must be"),
]


@pytest.mark.parametrize(("change", "words"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_wrong_recipes_are_refused_in_a_sentence(change: Callable[..., object], words: str) -> None:
    content = json.loads(json.dumps(BOX))
    change(content)
    with pytest.raises(InputError, match=words) as caught:
        parse_recipe(content)
    assert "\n" not in str(caught.value)


# The cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(parse_recipe(BOX), tmp_path_factory.mktemp("boxes"), 1, progress=False)


def test_fields_and_coarse_fields_of_a_simulation_are_read_back_together(folder: Path) -> None:
    recipe, data = parse_recipe(BOX), load_simulations(folder).check()
    assert data.coarse is not None and data.coarse_grid is not None
    assert data.values.shape == (10, 6, 8, 8, 8) and data.coarse.shape == (10, 6, 4, 4, 4)
    assert data.coarse_grid.box_size == data.grid.box_size and data.unit == "Mpc/h and km/s"
    assert data.vector_channels == data.coarse_vector_channels == ((0, 1, 2), (3, 4, 5))
    for s in (recipe.plan()[1], recipe.plan()[8]):
        made = recipe.source.fields(s.cosmo(), s.redshift, recipe.grid, s.seed)  # type: ignore[union-attr]
        row = data.rows(simulations=[s.id])
        assert torch.equal(data.values[row], made.values) and torch.equal(data.coarse[row], made.coarse)
        assert data.params[row[0]].tolist() == pytest.approx(list(s.params))


def test_a_large_set_is_mapped_from_one_file_and_is_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_simulations(folder, splits=("train",))
    monkeypatch.setattr(columns, "IN_MEMORY", 0)
    first = load_simulations(folder, splits=("train",))
    made = {p: p.stat().st_mtime_ns for p in folder.glob("*.npy")}
    again = load_simulations(folder, splits=("train",))
    assert len(made) == 2 and {p: p.stat().st_mtime_ns for p in folder.glob("*.npy")} == made
    assert whole.coarse is not None and again.coarse is not None
    assert torch.equal(first.values, whole.values) and torch.equal(again.coarse, whole.coarse)
    (path,) = folder.glob("coarse-*.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"coarse-.*npy is damaged"):
        load_simulations(folder, splits=("train",))
    for made_file in made:
        made_file.unlink()


def test_a_simulation_without_its_coarse_field_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with np.load(tmp_path / "sim_00004.npz") as held:
        kept = dict(held)
    for wrong in (None, kept["coarse"][:, :3]):
        rest = {k: v for k, v in kept.items() if k != "coarse"}
        np.savez(tmp_path / "sim_00004.npz", **(rest if wrong is None else {**rest, "coarse": wrong}))
        with pytest.raises(InputError, match=r"sim_00004\.npz"):
            load_simulations(tmp_path)


def test_batches_carry_the_coarse_field_moved_with_its_vectors(folder: Path) -> None:
    source = Simulated.__new__(Simulated)
    source.recipe, source.cache, source.processes = parse_recipe(BOX), folder.parent, 1
    source.splits = ("train", "validation")
    data = FieldData(source, batch_size=4)
    whole, batch = data.simulations, next(iter(data.train_dataloader()))
    assert batch.coarse.shape == (4, 6, 4, 4, 4) and whole.coarse is not None

    def cells(displacement: Tensor) -> Tensor:
        """The density's values in rising order: a symmetry of the box only moves them, if vectors turn."""
        return density(displacement[None, :3], 32.0, displacement.shape[-1]).flatten().sort().values

    for values, coarse, params in zip(batch.values, batch.coarse, batch.params, strict=True):
        boxes = [i for i in range(len(whole)) if torch.equal(whole.params[i], params)]
        fit = [i for i in boxes if torch.allclose(cells(values), cells(whole.values[i]), atol=1e-3)]
        assert len(fit) == 1
        assert torch.allclose(cells(coarse), cells(whole.coarse[fit[0]]), atol=1e-3)
    straight = next(iter(data.val_dataloader()))
    assert torch.equal(straight.coarse, whole.coarse[whole.rows("validation")])


@pytest.mark.parametrize("source", ["density", "super_resolution"])
def test_a_rehearsal_takes_stand_ins_of_the_same_shapes(source: str, tmp_path: Path) -> None:
    content = {**BOX, source: {"steps": 2}}
    content.pop("super_resolution") if source != "super_resolution" else None
    (tmp_path / "box.yaml").write_text(json.dumps(content))
    simulated = Simulated(tmp_path / "box.yaml", tmp_path / "cache", processes=1)
    stand_in = simulated.rehearse()
    assert not (tmp_path / "cache").exists() and "stand-ins" in stand_in.name
    real = simulated.load()
    assert stand_in.values.shape[1:] == real.values.shape[1:] and stand_in.unit == real.unit
    assert stand_in.coarse_grid == real.coarse_grid and stand_in.vector_channels == real.vector_channels
    assert (stand_in.coarse is None) == (real.coarse is None)
    assert len(stand_in.rows("train")) >= 16 and len(stand_in.rows("validation"))
