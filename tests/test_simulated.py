"""The embedded source: the plan's splits, the cache's content, nothing made twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.base import SPLITS
from gen.data.simulated import Simulated
from gen.errors import InputError

RECIPE = """
name: tiny
seed: 5
grid: {shape: [16, 16], box_size: 3.5, unit: deg, periodic: false}
space: {names: [Omega_m, sigma_8], low: [0.1, 0.6], high: [0.5, 1.0]}
lognormal: {z_source: 1.0}
training: {cosmologies: 6, boxes: 2, maps: 3, validation: 3}
test:
  - {region: interior, Omega_m: 0.3, sigma_8: 0.8, boxes: 2, maps: 2}
  - {region: extrapolation, Omega_m: 0.55, sigma_8: 0.8, boxes: 1, maps: 2}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "tiny.yaml").write_text(RECIPE)
    return Simulated(folder / "tiny.yaml", folder / "cache", processes=1, splits=SPLITS)


def test_every_simulation_of_the_plan_is_there_in_one_split(source: Simulated) -> None:
    data = source.load()
    assert len(data) == 6 * 2 * 3 + 2 * 2 + 2 and data.n_simulations == 6 * 2 + 2 + 1
    homes: dict[int, set[str]] = {}
    for simulation, split in zip(data.simulation.tolist(), data.split.tolist(), strict=True):
        homes.setdefault(simulation, set()).add(split)
    assert all(len(h) == 1 for h in homes.values())
    assert {s: sum(h == {s} for h in homes.values()) for s in ("train", "validation", "test")} == {
        "train": 8,
        "validation": 4,
        "test": 3,
    }


def test_no_cosmology_is_trained_on_and_tested(source: Simulated) -> None:
    data = source.load()
    cosmologies = {
        s: {tuple(p) for p in data.select(split=s).params.tolist()} for s in set(data.split.tolist())
    }
    assert (
        not cosmologies["train"] & cosmologies["validation"]
        and not cosmologies["train"] & cosmologies["test"]
    )
    assert set(data.select(region="extrapolation").split) == {"test"}
    assert np.isclose(data.select(region="extrapolation").params[:, 0], 0.55).all()


def test_row_i_is_the_map_that_the_cache_holds_for_its_simulation(source: Simulated) -> None:
    data = source.load()
    assert source.cache is not None
    (folder,) = source.cache.iterdir()
    planned = {s["id"]: s for s in json.loads((folder / "manifest.json").read_text())["simulations"]}
    for simulation in data.simulation.unique().tolist():
        mine = data.select(simulations=[simulation])
        with np.load(folder / f"sim_{simulation:05d}.npz") as stored:
            assert np.array_equal(mine.values.numpy(), stored["values"])
        assert np.allclose(mine.params.numpy(), planned[simulation]["params"])


def test_training_makes_and_sees_no_test_simulation_unless_asked(source: Simulated, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    data = Simulated(tmp_path / "tiny.yaml", tmp_path / "cache", processes=1).load()
    whole = source.load()
    kept = whole.take(torch.cat([whole.rows("train"), whole.rows("validation")]).sort().values)
    assert set(data.split) == {"train", "validation"} and torch.equal(data.values, kept.values)
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("sim_*.npz"))) == 12
    with pytest.raises(InputError, match="some of train, validation, test"):
        Simulated(tmp_path / "tiny.yaml", splits=["training"])


def test_a_second_load_reads_the_cache(source: Simulated) -> None:
    first = source.load().values
    assert source.cache is not None
    stamps = {p: p.stat().st_mtime_ns for p in source.cache.rglob("*")}
    source.prepare()
    assert torch.equal(source.load().values, first)
    assert {p: p.stat().st_mtime_ns for p in source.cache.rglob("*")} == stamps


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml cannot be read"):
        Simulated(tmp_path / "none.yaml").load()


def test_a_rehearsal_simulates_nothing_and_takes_stand_ins_of_the_grid(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    source = Simulated(tmp_path / "tiny.yaml", cache=tmp_path / "cache")
    found = source.rehearse()
    assert not (tmp_path / "cache").exists()
    assert "stand-ins" in found.name and found.grid == source.recipe.grid
    assert len(found.rows("train")) and len(found.rows("validation"))
    real = source.load()
    assert torch.equal(source.rehearse().values, real.values)
