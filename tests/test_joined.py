"""Several sources as one: every field once, in its split, no simulation in two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from given import Given

from gen.config import load_recipe
from gen.data.joined import Joined
from gen.data.simulated import Simulated
from gen.errors import InputError
from gen.training.base import TrainingRecipe

TINY = """\
name: {name}
seed: {seed}
grid: {{shape: [16, 16], box_size: {size}, unit: deg, periodic: false}}
space: {{names: [Omega_m, sigma_8], low: [0.2, 0.7], high: [0.4, 0.9]}}
lognormal: {{}}
training: {{cosmologies: 4, boxes: 1, maps: 2, validation: 4}}
"""


def tiny(folder: Path, name: str, seed: int, size: float = 3.5) -> Simulated:
    path = folder / f"{name}.yaml"
    path.write_text(TINY.format(name=name, seed=seed, size=size))
    return Simulated(path, folder / "cache", processes=1)


def test_every_field_is_there_once_and_in_the_split_that_it_had(tmp_path: Path) -> None:
    parts = [tiny(tmp_path, "one", 1), tiny(tmp_path, "two", 2)]
    one, two = (part.load() for part in parts)
    data = Joined(parts).load()
    assert torch.equal(data.values, torch.cat([one.values, two.values]))
    assert torch.equal(data.params, torch.cat([one.params, two.params]))
    assert list(data.split) == [*one.split, *two.split]
    assert data.n_simulations == one.n_simulations + two.n_simulations
    ours, theirs = data.simulation[: len(one)], data.simulation[len(one) :]
    assert not set(ours.tolist()) & set(theirs.tolist())
    assert torch.equal(ours.diff(), one.simulation.diff())


def test_nothing_is_lost_of_coarse_fields(tmp_path: Path) -> None:
    data = tiny(tmp_path, "one", 1).load()
    paired = replace(data, coarse=data.values * 2, coarse_grid=data.grid)
    joined = Joined([Given(paired), Given(paired)]).load()
    assert joined.coarse is not None
    assert torch.equal(joined.coarse, torch.cat([paired.values * 2] * 2))
    with pytest.raises(InputError, match=r"coarse_grid of one is .* and of one None"):
        Joined([Given(paired), Given(data)]).load()


def test_sets_of_two_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the grid of one is .* and of wide .*; join sets that agree"):
        Joined([tiny(tmp_path, "one", 1), tiny(tmp_path, "wide", 2, size=7)]).load()
    with pytest.raises(InputError, match="needs at least one source, got none"):
        Joined([])


def test_a_recipe_names_the_parts(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        tiny(tmp_path, name, seed)
    simulated = "{{class_path: gen.data.simulated.Simulated, init_args: {{recipe: {}, cache: {}}}}}"
    each = [simulated.format(tmp_path / f"{name}.yaml", tmp_path / "cache") for name in ("one", "two")]
    (tmp_path / "recipe.yaml").write_text(
        f"""\
name: joined
data:
  source:
    class_path: gen.data.joined.Joined
    init_args: {{sources: [{", ".join(each)}]}}
emulator: {{class_path: gen.emulators.copula.Copula}}
"""
    )
    recipe = load_recipe(TrainingRecipe, tmp_path / "recipe.yaml")
    assert len(recipe.value.data.training_set) == 2 * 3 * 2
    assert recipe.value.data.simulations.name == "one + two"
