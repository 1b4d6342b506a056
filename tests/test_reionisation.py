"""Boxes of reionisation by 21cmFAST where it is installed, and one sentence where it is not."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from gen.cli import main
from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.recipe import parse_recipe
from gen.simulate.reionisation import Reionisation, py21cmfast
from gen.simulate.theory import Cosmology

COSMO = Cosmology(0.3, 0.8)
BOX = Grid((16, 16, 16), 48.0, "Mpc/h", periodic=True)
CONTENT: dict[str, Any] = {
    "name": "eor",
    "seed": 4,
    "grid": BOX.to_dict(),
    "space": {"names": ["Omega_m", "sigma_8", "z"], "low": [0.2, 0.7, 7.0], "high": [0.4, 0.9, 11.0]},
    "reionisation": {},
    "training": {"cosmologies": 2, "boxes": 1, "validation": 2},
}
installed = pytest.mark.skipif(
    importlib.util.find_spec("py21cmfast") is None, reason="21cmFAST is not installed: cosmozoo[reionisation]"
)


def box(z: float = 8.0, seed: int = 1, cosmo: Cosmology = COSMO, **source: Any) -> Tensor:
    return Reionisation(**{"oversampling": 2, **source}).fields(cosmo, z, BOX, seed).values


@installed
def test_neutral_gas_has_the_mean_brightness_temperature_of_the_formula() -> None:
    """27 mK x_HI (Omega_b h^2 / 0.023) sqrt(0.15 / (Omega_m h^2) (1 + z) / 10), of hot spins."""
    values = box(10.0, efficiency=1e-3).double()
    h2 = COSMO.h**2
    expected = 27 * COSMO.Omega_b * h2 / 0.023 * math.sqrt(0.15 / (COSMO.Omega_m * h2) * 11 / 10)
    assert values.mean().item() == pytest.approx(expected, rel=0.05)
    assert values.shape == (1, 1, 16, 16, 16) and values.std() > 1


@installed
def test_more_efficient_halos_leave_less_neutral_gas_and_seeds_are_kept() -> None:
    few, many, again = (box(10.0, 2**40 + 1, efficiency=e, field="neutral_fraction") for e in (15, 40, 15))
    assert all(x.min() >= 0 and x.max() <= 1 for x in (few, many))
    assert few.mean() > many.mean() + 0.05
    assert again.equal(few) and not box(10.0, 2, efficiency=15, field="neutral_fraction").equal(few)


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py21cmfast", None)


@pytest.mark.usefixtures("lacking")
def test_without_it_one_sentence_says_what_to_install(tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError, match=r"apt install gcc g\+\+ libfftw3-dev libgsl-dev, then pip install"):
        py21cmfast()
    path = tmp_path / "eor.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    assert main(["simulate", str(path), "--processes", "1", "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert "cosmozoo[reionisation]" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reionisation": {"field": "hi"}}, "brightness_temperature or neutral_fraction"),
        ({"reionisation": {"efficiency": 0.0}}, "efficiency in"),
        ({"space": {"names": ["Omega_m", "sigma_8"], "low": [0.2, 0.7], "high": [0.4, 0.9]}}, "'z'"),
        ({"space": CONTENT["space"] | {"low": [0.2, 0.7, 2.0]}}, "redshifts must lie in 5 to 20"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    assert parse_recipe(parse_recipe(CONTENT).to_dict()) == parse_recipe(CONTENT)
    with pytest.raises(InputError, match=said):
        parse_recipe(CONTENT | changes)
