"""Grids of HI as IllustrisTNG-like HDF5 files and as the files of CAMELS, written without the readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gen.data.camels import CamelsMaps
from gen.data.density_boxes import DensityBoxes
from gen.errors import InputError

H = 0.6774
SIDE = 75.0
UNIT = "(Msun/h)/(Mpc/h)^3"


def hi(n: int, seed: int = 0) -> np.ndarray:
    """Over nine decades."""
    return 10 ** np.random.default_rng(seed).uniform(0, 9, (n, n, n))


def tng(path: Path, values: np.ndarray, units: str | None = UNIT, header: bool = True, **more: Any) -> Path:
    """One grid, with a snapshot's header: the box in kpc/h, h beside it."""
    with h5py.File(path, "w") as file:
        grid = file.create_dataset("HI", data=values)
        if units is not None:
            grid.attrs["units"] = units
        if header:
            file.create_group("Header").attrs.update(
                {"BoxSize": SIDE * 1e3, "HubbleParam": H, "Redshift": 5.0}
            )
        for name, array in more.items():
            file.create_dataset(name, data=array)
    return path


def test_cubes_of_a_box_hold_out_a_corner(tmp_path: Path) -> None:
    values = hi(16).astype("f4")
    data = DensityBoxes(tng(tmp_path / "a.hdf5", values), crop=4, corner=8).load()
    assert data.unit == UNIT and len(data) == 64 and data.grid.shape == (4, 4, 4)
    assert data.grid.box_size == pytest.approx((SIDE / 4,) * 3) and not data.grid.periodic
    sets = {name: data.select(split=name).values.numpy() for name in ("train", "validation", "test")}
    assert {name: len(s) for name, s in sets.items()} == {"train": 55, "validation": 1, "test": 8}
    assert len(np.unique(data.simulation)) == 3
    corner = np.sort(values[:8, :8, :8], axis=None)
    assert np.array_equal(np.sort(sets["test"], axis=None), corner)
    assert np.array_equal(sets["test"][1, 0], values[:4, :4, 4:8])
    assert np.array_equal(sets["validation"][0, 0], values[12:, 12:, 12:])
    assert not np.isin(corner, np.concatenate([sets["train"].ravel(), sets["validation"].ravel()])).any()


def test_a_few_cubes_of_each_part_are_read(tmp_path: Path) -> None:
    data = DensityBoxes(tng(tmp_path / "a.hdf5", hi(16)), crop=4, corner=8, at_most=3).load()
    assert [(data.split == s).sum() for s in ("train", "validation", "test")] == [3, 1, 3]


def test_several_boxes_are_split_as_simulations(tmp_path: Path) -> None:
    paths = [tng(tmp_path / f"{i}.hdf5", hi(8, i)) for i in range(5)]
    data = DensityBoxes(paths, fractions=(0.6, 0.2, 0.2)).load()
    assert data.grid.periodic and data.grid.box_size == pytest.approx((SIDE,) * 3)
    assert sorted(data.split) == ["test", "train", "train", "train", "validation"]
    cut = DensityBoxes(paths, crop=4, fractions=(0.6, 0.2, 0.2)).load().check()
    assert len(cut) == 40 and cut.n_simulations == 5


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        (UNIT, 1.0),
        ("Msun/h", 1 / (SIDE / 8) ** 3),
        ("1e10 Msun/h", 1e10 / (SIDE / 8) ** 3),
        ("(1e10 Msun/h)/(kpc/h)^3", 1e10 * 1e9),
        ("Msun", H / (SIDE / 8) ** 3),
        ("Msun/Mpc^3", H / H**3),
    ],
)
def test_units_and_their_factors_of_h(tmp_path: Path, unit: str, factor: float) -> None:
    values = hi(8)
    path = tng(tmp_path / "a.hdf5", values, units=unit)
    data = DensityBoxes(path, fractions=(0, 0, 1)).load()
    assert data.unit == UNIT and data.values[0, 0].numpy() == pytest.approx(values * factor, rel=1e-6)


@pytest.mark.parametrize(
    ("unit", "attribute", "side"),
    [("kpc/h", 75e3, 75.0), ("Mpc/h", 75.0, 75.0), ("Mpc", 75.0 / H, 75.0), ("kpc", 75e3 / H, 75.0)],
)
def test_lengths_and_their_factors_of_h(tmp_path: Path, unit: str, attribute: float, side: float) -> None:
    path = tng(tmp_path / "a.hdf5", hi(8), header=False)
    with h5py.File(path, "a") as file:
        file.attrs.update({"BoxSize": attribute, "HubbleParam": H})
    data = DensityBoxes(path, length_unit=unit, fractions=(0, 0, 1)).load()
    assert data.grid.box_size == pytest.approx((side,) * 3)


def test_arguments_stand_in_for_attributes(tmp_path: Path) -> None:
    values = hi(8)
    path = tng(tmp_path / "a.hdf5", values, units=None, header=False, other=np.ones((8, 8, 8)))
    source = DensityBoxes(path, "HI", unit="Msun/Mpc^3", box_size=20.0, h=0.7, fractions=(0, 0, 1))
    data = source.load()
    assert data.grid.box_size == (20.0,) * 3
    assert data.values[0, 0].numpy() == pytest.approx(values / 0.7**2, rel=1e-6)


def truncated(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def empty(path: Path) -> Path:
    h5py.File(path, "w").close()
    return path


ALONE: Any = {"fractions": (0, 0, 1)}
BAD: list[tuple[str, Callable[[Path], DensityBoxes]]] = [
    ("must be one of .*got 'g/cm", lambda p: DensityBoxes(tng(p, hi(8), units="g/cm^3"))),
    ("has no attribute 'units'; give unit", lambda p: DensityBoxes(tng(p, hi(8), units=None))),
    ("has no attribute 'BoxSize'; give box_size", lambda p: DensityBoxes(tng(p, hi(8), header=False))),
    ("Msun needs h", lambda p: DensityBoxes(tng(p, hi(8), "Msun", header=False), box_size=75.0)),
    ("cannot be meant", lambda p: DensityBoxes(tng(p, hi(8)), length_unit="Mpc/h")),
    ("negative values down to -7", lambda p: DensityBoxes(tng(p, np.where(hi(8) < 9, -7.0, hi(8))))),
    ("is truncated", lambda p: DensityBoxes(truncated(tng(p, hi(16))))),
    ("dataset 'rho' is missing, it holds HI", lambda p: DensityBoxes(tng(p, hi(8)), "rho")),
    ("must be named, it holds", lambda p: DensityBoxes(tng(p, hi(8), other=hi(8)))),
    (r"a 3D dataset is needed, it holds HI \(8, 8\)", lambda p: DensityBoxes(tng(p, hi(8)[0]))),
    ("must hold numbers, got .S1", lambda p: DensityBoxes(tng(p, np.full((4, 4, 4), b"a")))),
    ("a 3D dataset is needed, it holds no dataset; give another file", lambda p: DensityBoxes(empty(p))),
    ("must be a cube", lambda p: DensityBoxes(tng(p, hi(8)[:4]))),
    ("NaN or infinite", lambda p: DensityBoxes(tng(p, np.where(hi(8) < 9, np.nan, hi(8))), **ALONE)),
    ("no whole number of cubes of 3", lambda p: DensityBoxes(tng(p, hi(8)), crop=3)),
    ("corner must be a multiple of crop = 4", lambda p: DensityBoxes(tng(p, hi(8)), crop=4, corner=6)),
    ("cannot fill 3 splits without a leak", lambda p: DensityBoxes(tng(p, hi(8)))),
    ("does not exist", lambda p: DensityBoxes(p)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "source"), BAD, ids=[said for said, _ in BAD])
def test_bad_files_are_one_sentence(
    tmp_path: Path, said: str, source: Callable[[Path], DensityBoxes]
) -> None:
    with pytest.raises(InputError, match=said) as error:
        source(tmp_path / "a.hdf5").load()
    assert "\n" not in str(error.value)


def test_boxes_of_two_sizes_are_refused(tmp_path: Path) -> None:
    paths = [tng(tmp_path / "a.hdf5", hi(8)), tng(tmp_path / "b.hdf5", hi(4))]
    with pytest.raises(InputError, match="of one size"):
        DensityBoxes(paths).load()
    with pytest.raises(InputError, match="crop with corner"):
        DensityBoxes(paths, corner=4)


# CAMELS


def camels(tmp: Path, kind: str, values: np.ndarray, per: int) -> tuple[Path, Path]:
    shape = "" if kind == "Maps" else f"_{values.shape[-1]}"
    path = tmp / f"{kind}_HI_IllustrisTNG_LH{shape}_z=0.00.npy"
    np.save(path, values.astype("<f4"))
    table = np.random.default_rng(1).uniform(0.1, 0.9, (len(values) // per, 6))
    np.savetxt(tmp / "params_LH_IllustrisTNG.txt", table)
    return path, tmp / "params_LH_IllustrisTNG.txt"


def test_hi_grids_of_camels_are_cut_into_cubes(tmp_path: Path) -> None:
    values = np.stack([hi(8, i) for i in range(4)]).astype("f4")
    path, params = camels(tmp_path, "Grids", values, 1)
    whole, cut = (
        CamelsMaps(path, params, fractions=(0.5, 0.25, 0.25), crop=crop).load() for crop in (None, 4)
    )
    assert whole.unit == cut.unit == UNIT and whole.grid.periodic and not cut.grid.periodic
    assert cut.grid.box_size == (12.5,) * 3 and len(cut) == 32 and cut.n_simulations == 4
    assert np.array_equal(cut.values[8 + 5, 0].numpy(), values[1, 4:, :4, 4:])
    assert np.array_equal(cut.params[8 + 5].numpy(), whole.params[1].numpy())
    assert list(cut.split) == list(np.repeat(whole.split, 8))


def test_hi_maps_of_camels_are_cut_into_squares(tmp_path: Path) -> None:
    values = 10 ** np.random.default_rng(0).uniform(0, 9, (60, 8, 8)).astype("f4")
    data = CamelsMaps(*camels(tmp_path, "Maps", values, 15), fractions=(0.5, 0.25, 0.25), crop=4).load()
    assert data.unit == "(Msun/h)/(Mpc/h)^2" and len(data) == 240 and data.n_simulations == 4
    assert np.array_equal(data.values[4 * 17 + 2, 0].numpy(), values[17, 4:, :4].astype("f4"))


def test_camels_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    values = np.stack([hi(8, i) for i in range(4)])
    values[2, 1, 1, 1] = -3.0
    path, params = camels(tmp_path, "Grids", values, 1)
    with pytest.raises(InputError, match="field 2 holds negative mass down to -3"):
        CamelsMaps(path, params).load()
    path, params = camels(tmp_path, "Grids", np.abs(values), 1)
    with pytest.raises(InputError, match="crop must divide the 8 cells"):
        CamelsMaps(path, params, crop=3).load()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        CamelsMaps(path, params).load()
