"""Recipes, plans and the cache: what is promised about seeds, splits, hashes, resuming and atomicity."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gen.errors import InputError
from gen.simulate import recipe as recipes
from gen.simulate import run
from gen.simulate.recipe import SimulationRecipe, Test, Training, parse_recipe, read_recipe, sobol_points
from gen.simulate.run import load_simulations, simulate
from gen.simulate.sources import Lognormal, NBody

Test.__test__ = False  # type: ignore[attr-defined]  # a record, not a test class

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "grid": {"shape": [16, 16], "box_size": 3.5, "unit": "deg", "periodic": False},
    "space": {"names": ["Omega_m", "sigma_8"], "low": [0.1, 0.6], "high": [0.5, 1.0]},
    "lognormal": {"z_source": 1.0},
    "training": {"cosmologies": 2, "boxes": 2, "maps": 3, "validation": 2},
    "test": [{"region": "extrapolation", "Omega_m": 0.55, "sigma_8": 0.8, "boxes": 1, "maps": 2}],
}


def small(**changes: Any) -> SimulationRecipe:
    return parse_recipe({**SMALL, **changes})


def contents(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: np.load(p)["values"] for p in sorted(folder.glob("sim_*.npz"))}


# Recipes


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("recipes/data/convergence_2d*.yaml")))
def test_shipped_recipes_are_read_and_survive_the_round_trip(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert parse_recipe(json.loads(json.dumps(recipe.to_dict()))) == recipe
    if isinstance(recipe.source, NBody):
        widest = recipe.grid.k_sides[0] * 2000
        assert recipe.source.box_size > 0.95 * widest


def test_default_recipe_is_what_was_promised(root: Path) -> None:
    plan = read_recipe(root / "recipes/data/convergence_2d.yaml").plan()
    training = [s for s in plan if s.split != "test"]
    assert len({s.params for s in training}) >= 64
    for cosmology in {s.cosmology for s in plan}:
        assert len([s for s in plan if s.cosmology == cosmology]) >= 4
    params = np.array([s.params for s in training])
    assert (params >= [0.1, 0.6]).all() and (params <= [0.5, 1.0]).all()
    assert {s.region for s in plan if s.split == "test"} == {"interior", "edge", "extrapolation"}
    for s in plan:
        inside = 0.1 <= s.params[0] <= 0.5 and 0.6 <= s.params[1] <= 1.0
        assert inside == (s.region != "extrapolation")


def test_no_recipes_share_a_seed(root: Path) -> None:
    plans = [read_recipe(p).plan() for p in root.glob("recipes/data/convergence_2d*.yaml")]
    seeds = [s.seed for plan in plans for s in plan]
    assert len(plans) >= 5
    assert len(set(seeds)) == len(seeds)


def test_splits_do_not_share_a_cosmology() -> None:
    by_split: dict[str, set[int]] = {}
    for s in small().plan():
        by_split.setdefault(s.split, set()).add(s.cosmology)
    assert set(by_split) == {"train", "validation", "test"}
    assert len(set.union(*by_split.values())) == sum(map(len, by_split.values()))


def test_sobol_points_fill_the_space_evenly_and_extend() -> None:
    space = small().space
    points = np.array(sobol_points(space, 64))
    cells = np.floor((points - space.low) / (np.array(space.high) - space.low) * 8).astype(int)
    counts = np.unique(cells, axis=0, return_counts=True)[1]
    assert len(counts) == 64, "64 points of a Sobol net lie one in each cell of 8 x 8"
    assert sobol_points(space, 10) == sobol_points(space, 16)[:10]


CHANGES: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("unknown key", lambda r: r.update(colour=1), "colour"),
    ("unknown key inside", lambda r: r["training"].update(cosmology=3), "cosmology"),
    ("missing seed", lambda r: r.pop("seed"), "seed"),
    ("missing number", lambda r: r["training"].pop("boxes"), "boxes"),
    ("text for a number", lambda r: r["training"].update(boxes="four"), "boxes must be int"),
    ("bool for a number", lambda r: r["training"].update(boxes=True), "boxes must be int"),
    ("two sources", lambda r: r.update(nbody={}), "exactly one"),
    ("no source", lambda r: r.pop("lognormal"), "exactly one"),
    ("nothing to do", lambda r: r.update(training=None, test=[]), "neither"),
    ("no boxes", lambda r: r["training"].update(boxes=0), "at least 1"),
    ("no maps", lambda r: r["test"][0].update(maps=0), "at least 1"),
    ("unknown region", lambda r: r["test"][0].update(region="middle"), "region"),
    ("other parameters", lambda r: r["space"].update(names=["a", "b"]), "Omega_m"),
    ("bad grid", lambda r: r["grid"].update(unit="miles"), "unit"),
    ("grid of text", lambda r: r["grid"].update(shape="many"), "grid"),
    ("path as name", lambda r: r.update(name="../x"), "name"),
    ("fraction as seed", lambda r: r.update(seed=0.5), "seed"),
    ("test no list", lambda r: r.update(test={"region": "edge"}), "list"),
]


@pytest.mark.parametrize(("change", "word"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_wrong_recipes_are_refused_in_a_sentence(change: Callable[..., None], word: str) -> None:
    content = json.loads(json.dumps(SMALL))
    change(content)
    with pytest.raises(InputError, match=word) as caught:
        parse_recipe(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "", "\x00", "!!python/object/apply:os.getcwd []"])
def test_files_that_are_no_recipe_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml") as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")


# The key of the cache


def test_hash_follows_the_content_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    base = small()
    variants = [
        small(seed=8),
        small(lognormal={"z_source": 1.1}),
        small(training={**SMALL["training"], "maps": 4}),
        small(test=[]),
        small(grid={**SMALL["grid"], "box_size": 3.6}),
        replace(base, source=NBody()),
        replace(base, training=Training(2, 2, 3, 0)),
    ]
    folders = {base.folder, *(v.folder for v in variants)}
    assert len(folders) == len(variants) + 1
    assert small().folder == base.folder
    monkeypatch.setattr(recipes, "CODE_VERSION", recipes.CODE_VERSION + 1)
    assert small().folder not in folders


# Running


def test_a_set_is_complete_whatever_the_processes(tmp_path: Path) -> None:
    one = simulate(small(), tmp_path / "one", 1, progress=False)
    two = simulate(small(), tmp_path / "two", 2, progress=False)
    first, second = contents(one), contents(two)
    assert first.keys() == second.keys() and len(first) == 5
    assert all(np.array_equal(first[name], second[name]) for name in first)
    loaded = load_simulations(one).check()
    assert len(loaded) == 2 * 2 * 3 + 2
    assert loaded.values.dtype == torch.float32
    for s in small().plan():
        rows = loaded.rows(simulations=[s.id])
        assert len(rows) == s.n_maps
        assert np.array_equal(loaded.values[rows].numpy(), first[f"sim_{s.id:05d}.npz"])
        assert loaded.params[rows[0]].tolist() == pytest.approx(list(s.params))
        assert set(loaded.split[rows.numpy()]) == {s.split}
        assert set(loaded.region[rows.numpy()]) == {s.region}
    assert not torch.equal(loaded.values[0], loaded.values[3])


def test_resuming_makes_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    folder = simulate(small(), tmp_path, 1, progress=False)
    before, lost = contents(folder), folder / "sim_00003.npz"
    times = {p.name: p.stat().st_mtime_ns for p in folder.glob("sim_*.npz")}
    lost.unlink()
    with pytest.raises(InputError, match="4 of 5"):
        load_simulations(folder)
    assert len(load_simulations(folder, partial=True).simulation.unique()) == 4
    assert simulate(small(), tmp_path, 1, progress=False) == folder
    assert all(np.array_equal(before[name], now) for name, now in contents(folder).items())
    changed = [p.name for p in folder.glob("sim_*.npz") if p.stat().st_mtime_ns != times[p.name]]
    assert changed == [lost.name]


def test_a_failure_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: Any, **_: object) -> None:
        file.write(b"PK half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError, match="disk full"):
        simulate(small(), tmp_path, 1, progress=False)
    assert [p.name for p in (tmp_path / small().folder).iterdir()] == ["manifest.json"]
    monkeypatch.undo()
    assert len(contents(simulate(small(), tmp_path, 1, progress=False))) == 5


def test_values_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lognormal, "maps", lambda *_: torch.full((3, 1, 16, 16), float("nan")))
    with pytest.raises(FloatingPointError, match="simulation 0"):
        simulate(small(), tmp_path, 1, progress=False)
    assert not list((tmp_path / small().folder).glob("sim_*"))


def test_threads_are_left_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    simulate(small(training=None), tmp_path, 1, progress=False)
    assert torch.get_num_threads() == before


def test_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / small().folder
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"name": "other"}))
    with pytest.raises(InputError, match="another recipe"):
        simulate(small(), tmp_path, 1, progress=False)


def test_a_damaged_simulation_is_named(tmp_path: Path) -> None:
    folder = simulate(small(), tmp_path, 1, progress=False)
    path = folder / "sim_00002.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[300] ^= 1
    for content in (b"", b"not a zip", whole[:-400], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"sim_00002\.npz"):
            load_simulations(folder)


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cosmozoo simulate"):
        load_simulations(tmp_path)


def test_default_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COSMOZOO_CACHE", str(tmp_path))
    assert run.default_cache() == tmp_path
    monkeypatch.delenv("COSMOZOO_CACHE")
    assert run.default_cache() == Path.home() / ".cache" / "cosmozoo"


SCRIPT = """
import sys
from pathlib import Path
from gen.simulate.recipe import read_recipe
from gen.simulate.run import simulate
if __name__ == "__main__":
    simulate(read_recipe(sys.argv[1]), Path(sys.argv[2]), 2, progress=False)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_and_is_resumed(stop: signal.Signals, tmp_path: Path) -> None:
    content = {**SMALL, "training": {**SMALL["training"], "boxes": 500}}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "long.yaml"), str(tmp_path)],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    folder = tmp_path / parse_recipe(content).folder
    deadline = time.monotonic() + 60
    while len(list(folder.glob("sim_*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = _children(process.pid)
    process.send_signal(stop)
    assert process.wait(30) != 0
    assert len(children) >= 2
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in children), "workers outlive their parent"
    done = contents(folder)  # whatever is there is whole
    assert 3 <= len(done) < 1000
    assert all(values.shape[1:] == (1, 16, 16) for values in done.values())


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
