"""Where pairs of displacement fields and of slabs come from, and which recipes of them are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gen.data.simulated import Simulated
from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.field_pairs import Initial, Intermediate, NeutrinoLike, SuperResolutionSlab
from gen.simulate.nbody_pairs import Displacement, SuperResolution
from gen.simulate.neutrinos import suppression
from gen.simulate.recipe import parse_recipe
from gen.simulate.run import load_simulations, simulate
from gen.simulate.theory import Cosmology

BOX = 64.0
COSMO = Cosmology(0.3, 0.8)
SPACE = {"Omega_m": (0.2, 0.4), "sigma_8": (0.7, 0.9), "z": (0.1, 0.9), "m_nu": (0.0, 0.6)}
PARAMETERS = {"initial": 2, "intermediate": 3, "neutrino_like": 4}


def cube(n: int) -> Grid:
    return Grid((n, n, n), 4.0 * n, "Mpc/h", True)


def content(kind: str, n: int = 16) -> dict[str, Any]:
    """A small data recipe."""
    names = list(SPACE)[: PARAMETERS[kind]]
    low, high = ([SPACE[name][i] for name in names] for i in (0, 1))
    return {
        "name": kind,
        "seed": 5,
        "grid": {"shape": [n] * 3, "box_size": 4 * n, "unit": "Mpc/h", "periodic": True},
        "space": {"names": names, "low": low, "high": high},
        kind: {"steps": 2},
        "training": {"cosmologies": 4, "boxes": 1, "validation": 4},
    }


# Sources


def test_the_inverse_is_the_emulators_pair_turned_round() -> None:
    values, coarse = Initial(steps=3).fields(COSMO, 0.5, cube(16), seed=2)
    evolved, first = Displacement(steps=3).fields(COSMO, 0.5, cube(16), seed=2)
    assert coarse is not None and first is not None
    assert torch.equal(values, first) and torch.equal(coarse, evolved[:, :3])


def test_powers_of_the_two_runs_begin_in_that_ratio() -> None:
    """2LPT at z = 4, where second order is small; mode by mode, since phases are shared."""
    grid = cube(16)
    values, coarse = NeutrinoLike(steps=0).fields(COSMO, 4.0, grid, seed=3, m_nu=0.5)
    assert coarse is not None
    k = grid.wavenumber()
    x, y = (torch.fft.rfftn(f.double(), dim=(2, 3, 4)).abs().square().sum((0, 1)) for f in (coarse, values))
    expected = suppression(k.float(), torch.tensor(0.3), torch.tensor(0.5), COSMO.h).double()
    for low, high in ((0.09, 0.2), (0.2, 0.4), (0.4, 0.7)):
        band = (k > low) & (k < high)
        # A field of rms density below 0.3 has second-order power of 0.3^2 of that of the linear, at most.
        assert (y[band].sum() / x[band].sum()).item() == pytest.approx(expected[band].mean().item(), abs=0.02)


def test_a_snapshot_of_a_run_is_that_of_its_ends() -> None:
    """At the late redshift the wanted snapshot is the late one; between them it lies between them."""
    grid, source = cube(16), Intermediate(steps=3)
    values, coarse = source.fields(COSMO, 0.0, grid, seed=1)
    assert coarse is not None and torch.equal(values, coarse[:, 6:9])
    middle, _ = source.fields(COSMO, 0.5, grid, seed=1)
    early, late = coarse[:, :3].std(), coarse[:, 6:9].std()
    assert early < middle.std() < late


def test_a_slab_is_the_mean_of_its_box_at_both_resolutions() -> None:
    flat = Grid((16, 16), BOX, "Mpc/h", True)
    values, coarse = SuperResolutionSlab(depth=2, steps=2).fields(COSMO, 0.0, flat, seed=4)
    fine, low = SuperResolution(steps=2).fields(COSMO, 0.0, cube(16), seed=4)
    assert coarse is not None and low is not None
    assert torch.equal(values, fine[..., :4].mean(-1)) and torch.equal(coarse, low[..., :2].mean(-1))
    layout = SuperResolutionSlab(depth=2).layout(flat)
    assert (layout.coarse_shape, layout.channels) == ((8, 8), 1) and values.shape == (1, 1, 16, 16)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_pairs_are_simulated_and_read_back_with_their_parameters(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = parse_recipe(content(kind, 8))
    data = load_simulations(simulate(recipe, tmp_path_factory.mktemp(kind), 1, progress=False)).check()
    s = recipe.plan()[1]
    more = {"m_nu": s.m_nu} if kind == "neutrino_like" else {}
    made = recipe.source.fields(s.cosmo(), s.redshift, recipe.grid, s.seed, **more)  # type: ignore[union-attr]
    assert s.m_nu == (s.params[3] if more else 0) and data.coarse is not None
    assert torch.equal(data.values[1:2], made.values) and torch.equal(data.coarse[1:2], made.coarse)
    assert data.params[1].tolist() == pytest.approx(list(s.params)) and len(s.params) == PARAMETERS[kind]


@pytest.mark.parametrize("kind", [*PARAMETERS, "galaxies", "super_resolution_slab"])
def test_a_rehearsal_takes_stand_ins_of_the_same_kind(kind: str, tmp_path: Path) -> None:
    recipe = content(kind if kind in PARAMETERS else "initial", 8)
    if kind not in PARAMETERS:
        recipe = {**recipe, kind: {"steps": 2}}
        recipe.pop("initial")
    if kind == "super_resolution_slab":
        recipe["grid"]["shape"] = [8, 8]
    (tmp_path / "box.yaml").write_text(json.dumps(recipe))
    simulated = Simulated(tmp_path / "box.yaml", tmp_path / "cache", processes=1)
    stand_in = simulated.rehearse()
    assert not (tmp_path / "cache").exists() and "stand-ins" in stand_in.name
    real = simulated.load()
    assert stand_in.coarse is not None and real.coarse is not None
    assert stand_in.values.shape[1:] == real.values.shape[1:] and stand_in.unit == real.unit
    assert stand_in.coarse.shape[1:] == real.coarse.shape[1:]
    assert len(stand_in.rows("train")) >= 6 and len(stand_in.rows("validation"))


# Refusals


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        i = recipe["space"]["names"].index(name)
        recipe["space"] = {key: [*column[:i], *column[i + 1 :]] for key, column in recipe["space"].items()}

    return change


def _test(**more: float) -> Callable[[dict[str, Any]], None]:
    one = {"region": "interior", "Omega_m": 0.3, "sigma_8": 0.8, "boxes": 1, **more}
    return lambda recipe: recipe.update(test=[one])


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("intermediate", _without("z"), r"the space must be \['Omega_m', 'sigma_8', 'z'\], got"),
    ("intermediate", lambda r: r["intermediate"].update(z_early=0.5), "redshifts must lie in 0 to 0.5"),
    ("intermediate", lambda r: r["intermediate"].update(z_late=2.0), "z_late must be 0 or more and below"),
    ("intermediate", _test(z=1.5), "redshifts must lie in 0 to 1"),
    ("neutrino_like", _without("m_nu"), "'m_nu'], got"),
    ("neutrino_like", _test(m_nu=3.0), r"masses \[eV\] must lie in 0 to 2"),
    ("initial", _test(m_nu=0.1), "no parameter m_nu"),
    ("initial", lambda r: r["grid"].update(shape=[16, 16]), "periodic cubic grid"),
]


@pytest.mark.parametrize(("kind", "change", "words"), CHANGES)
def test_wrong_recipes_are_refused_in_a_sentence(
    kind: str, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    recipe = content(kind)
    assert parse_recipe(json.loads(json.dumps(parse_recipe(recipe).to_dict()))) == parse_recipe(recipe)
    change(recipe)
    with pytest.raises(InputError, match=words) as caught:
        parse_recipe(recipe)
    assert "\n" not in str(caught.value)


def test_wrong_slabs_are_refused() -> None:
    flat = Grid((16, 16), BOX, "Mpc/h", True)
    for source, grid, words in (
        (SuperResolutionSlab(), cube(16), "square grid of two axes"),
        (SuperResolutionSlab(depth=9), flat, "depth must be 1 to 8"),
        (SuperResolutionSlab(), Grid((10, 10), BOX, "Mpc/h", True), "multiple of 4"),
    ):
        with pytest.raises(InputError, match=words):
            source.check(grid)
    with pytest.raises(InputError, match="between the redshifts 0 and 1, got 2"):
        Intermediate(steps=1).fields(COSMO, 2.0, cube(8), seed=1)
