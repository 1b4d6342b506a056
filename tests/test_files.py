"""NumPy files of every kind that people have, written by hand, and all that can be wrong with them."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data import arrays
from gen.data.arrays import open_array
from gen.data.base import SPLITS, SimulationSet
from gen.data.files import ArrayFile
from gen.data.tables import read_table
from gen.errors import InputError

BOX = {"box_size": 3.5, "box_unit": "deg", "periodic": False, "unit": "1"}
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


def fields(n: int = 12, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype("<f4")


def write_npy(path: Path, array: np.ndarray, descr: str | None = None, order: bool = False) -> Path:
    """The .npy format by hand: magic, version, header length, header, raw bytes."""
    text = f"{{'descr': '{descr or array.dtype.str}', 'fortran_order': {order}, 'shape': {array.shape}, }}"
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    body = array.tobytes(order="F" if order else "C")
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body)
    return path


def leaks(data: SimulationSet) -> set[int]:
    """Simulations in two splits, counted without the code under test."""
    homes: dict[int, set[str]] = {}
    for simulation, split in zip(data.simulation.tolist(), data.split.tolist(), strict=True):
        homes.setdefault(simulation, set()).add(split)
    return {s for s, where in homes.items() if len(where) > 1}


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i4"])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_of_every_number_type_arrive_as_float32(tmp_path: Path, dtype: str, fortran: bool) -> None:
    original = (100 * fields()).astype(dtype)
    data = ArrayFile(write_npy(tmp_path / "a.npy", original, order=fortran), **BOX).load()
    assert data.values.dtype == torch.float32 and data.values.shape == (12, 1, 8, 8)
    assert np.array_equal(data.values[:, 0].numpy(), original.astype(np.float32))
    assert data.grid.spacing == (3.5 / 8, 3.5 / 8) and not data.grid.periodic and len(data.space) == 0


def test_channels_and_volumes_are_told_apart_by_dim(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a.npy", fields(12, (8, 8, 8)))
    volumes = ArrayFile(path, **BOX, dim=3).load()
    maps = ArrayFile(path, **BOX).load()
    assert volumes.values.shape == (12, 1, 8, 8, 8) and volumes.grid.dim == 3
    assert maps.values.shape == (12, 8, 8, 8) and maps.grid.dim == 2


def test_large_files_are_mapped_not_read_and_give_the_same_set(tmp_path: Path, monkeypatch) -> None:
    path = write_npy(tmp_path / "a.npy", fields())
    small = ArrayFile(path, **BOX).load()
    monkeypatch.setattr(arrays, "IN_MEMORY", 100)
    assert isinstance(open_array(path), np.memmap)
    large = ArrayFile(path, **BOX).load()
    assert torch.equal(large.values, small.values)
    large.values.zero_()  # copy on write: the file must not change
    assert torch.equal(ArrayFile(path, **BOX).load().values, small.values)


def test_a_table_with_one_row_per_field_and_a_simulation_column(tmp_path: Path) -> None:
    values, ids = fields(), np.arange(12) // 3
    lines = [f"{0.1 * i},{s},{0.6 + 0.1 * s}" for i, s in enumerate(ids)]
    table = tmp_path / "p.csv"
    table.write_text("shuffled,simulation,sigma_8\n" + "\n".join(lines))
    data = ArrayFile(
        write_npy(tmp_path / "a.npy", values), **BOX, params=table, parameters=["sigma_8"]
    ).load()
    assert data.simulation.tolist() == ids.tolist() and data.space.names == ("sigma_8",)
    assert np.allclose(data.params[:, 0], 0.6 + 0.1 * ids) and not leaks(data)
    training = data.params[data.split == "train", 0]
    assert data.space.low[0] == training.min() and data.space.high[0] == training.max()


def test_a_table_with_one_row_per_simulation_is_matched_by_name_in_any_order(tmp_path: Path) -> None:
    names = np.array([f"LH_{s}" for s in (10, 2, 7, 1)])
    true = {"LH_10": 0.1, "LH_2": 0.2, "LH_7": 0.3, "LH_1": 0.4}
    ids, table = tmp_path / "ids.txt", tmp_path / "p.txt"
    ids.write_text("\n".join(np.repeat(names, 3)))
    table.write_text(
        "# simulation Omega_m\n" + "\n".join(f"{k} {true[k]}" for k in ("LH_7", "LH_1", "LH_10", "LH_2"))
    )
    data = ArrayFile(write_npy(tmp_path / "a.npy", fields()), **BOX, params=table, simulation=ids).load()
    assert np.allclose(data.params[:, 0], [true[n] for n in np.repeat(names, 3)])
    assert data.n_simulations == 4 and not leaks(data)
    assert [len(set(data.simulation[3 * i : 3 * i + 3].tolist())) for i in range(4)] == [1] * 4


def test_blocks_of_consecutive_fields_take_the_rows_in_order(tmp_path: Path) -> None:
    table = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    data = ArrayFile(
        write_npy(tmp_path / "a.npy", fields()),
        **BOX,
        params=write_npy(tmp_path / "p.npy", table),
        parameters=["a", "b"],
        per_simulation=3,
    ).load()
    assert data.simulation.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert np.allclose(data.params, table.repeat(3, axis=0)) and not leaks(data)


def test_fields_of_equal_parameters_share_a_simulation_if_nothing_else_is_said(tmp_path: Path) -> None:
    rows = np.array([0.3, 0.1, 0.5, 0.2, 0.3, 0.1, 0.5, 0.2, 0.3, 0.1, 0.5, 0.2])
    table = tmp_path / "p.csv"
    table.write_text("Omega_m\n" + "\n".join(map(str, rows)))
    data = ArrayFile(write_npy(tmp_path / "a.npy", fields()), **BOX, params=table).load()
    assert data.n_simulations == 4 and not leaks(data)
    assert all(len(set(data.simulation[rows == r].tolist())) == 1 for r in rows)


def test_npz_with_all_in_one_file(tmp_path: Path) -> None:
    values, ids = fields(), np.repeat([5, 3, 8, 1], 3)
    np.savez(tmp_path / "a.npz", values=values, params=ids[:, None] / 10, simulation=ids)
    data = ArrayFile(tmp_path / "a.npz", **BOX, parameters=["Omega_m"]).load()
    assert data.simulation.tolist() == ids.tolist() and np.allclose(data.params[:, 0], ids / 10)
    assert np.array_equal(data.values[:, 0], values) and not leaks(data)


def test_no_split_leaks_over_many_seeds(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a.npy", fields(60))
    for seed in range(20):
        data = ArrayFile(path, **BOX, per_simulation=4, seed=seed).load()
        assert not leaks(data) and set(data.split) == set(SPLITS)


def test_a_test_simulation_outside_the_training_range_is_flagged(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("Omega_m\n" + "\n".join(str(0.1 + 0.01 * i) for i in range(12)))
    found = set()
    for seed in range(10):
        data = ArrayFile(write_npy(tmp_path / "a.npy", fields()), **BOX, params=table, seed=seed).load()
        outside = (data.params[:, 0] < data.space.low[0]) | (data.params[:, 0] > data.space.high[0])
        assert (data.region == "extrapolation").tolist() == outside.tolist()
        assert not (data.region[data.split == "train"] == "extrapolation").any()
        found |= set(data.region)
    assert found == {"interior", "edge", "extrapolation"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Omega_m,sigma_8\n0.3,0.8\n0.2,0.9\n", ("Omega_m", "sigma_8")),
        ("# Omega_m sigma_8\n0.3 0.8\n0.2 0.9\n", ("Omega_m", "sigma_8")),
        ("# made on Monday\n#Omega_m   sigma_8\n  3e-1\t0.8\n\n# end\n0.2 0.9\n", ("Omega_m", "sigma_8")),
        ("\ufeffOmega_m,sigma_8\r\n0.3,0.8\r\n0.2,0.9\r\n", ("Omega_m", "sigma_8")),
        ("0.3 0.8\n0.2 0.9\n", ()),
        ("# a comment of many words\n0.3 0.8\n0.2 0.9\n", ()),
    ],
)
def test_tables_people_write(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    table = read_table(tmp_path / "p.txt")
    assert table.names == names
    assert table.named(["Omega_m", "sigma_8"]).numbers(["sigma_8", "Omega_m"]).tolist() == [
        [0.8, 0.3],
        [0.9, 0.2],
    ]


def test_the_real_table_of_the_quijote_latin_hypercube(data_dir: Path) -> None:
    table = read_table(data_dir / "nbody/quijote_LH_params.txt")
    assert table.names == ("Omega_m", "Omega_b", "h", "n_s", "sigma_8") and len(table) == 2000
    rows = table.numbers(["sigma_8", "Omega_m"])  # README: sigma_8 in .6 to 1, Omega_m in .1 to .5
    assert np.allclose([rows.min(0), rows.max(0)], [[0.6, 0.1], [1.0, 0.5]], atol=1e-3)


class Canary:
    """A pickle that would leave a mark if it ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def spoilt(case: str, tmp: Path) -> ArrayFile:
    """A reader of a file with one thing wrong."""
    values, path, table = fields(), tmp / "a.npy", tmp / "p.csv"
    table.write_text("Omega_m\n" + "\n".join(str(0.1 + 0.01 * i) for i in range(12)))
    extra: dict = {}
    match case:
        case "missing":
            return ArrayFile(tmp / "nowhere.npy", **BOX)
        case "folder":
            return ArrayFile(tmp, **BOX)
        case "empty":
            path.touch()
            return ArrayFile(path, **BOX)
        case "web page":
            path.write_text(PAGE)
            return ArrayFile(path, **BOX)
        case "pickle":
            path.write_bytes(pickle.dumps(Canary(tmp / "mark")))
            return ArrayFile(path, **BOX)
        case "objects":
            np.save(path, np.array([Canary(tmp / "mark")] * 12, dtype=object), allow_pickle=True)
            return ArrayFile(path, **BOX)
        case "objects in npz":
            np.savez(tmp / "a.npz", values=np.array([Canary(tmp / "mark")], dtype=object))
            return ArrayFile(tmp / "a.npz", **BOX)
        case "truncated":
            write_npy(path, values)
            path.write_bytes(path.read_bytes()[:-100])
            return ArrayFile(path, **BOX)
        case "too long":
            write_npy(path, values)
            path.write_bytes(path.read_bytes() + b"\0" * 8)
            return ArrayFile(path, **BOX)
        case "header":
            path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': oops}\n")
            return ArrayFile(path, **BOX)
        case "truncated npz":
            np.savez(tmp / "a.npz", values=values)
            (tmp / "a.npz").write_bytes((tmp / "a.npz").read_bytes()[:-200])
            return ArrayFile(tmp / "a.npz", **BOX)
        case "other key":
            np.savez(tmp / "a.npz", kappa=values, z=np.ones(3))
            return ArrayFile(tmp / "a.npz", **BOX)
        case "nan":
            values[7, 2, 3] = np.nan
        case "infinite":
            values[7, 2, 3] = np.inf
        case "too large":
            values = values.astype("<f8")
            values[0, 0, 0] = 1e39
        case "complex":
            values = values.astype("<c8")
        case "boolean":
            values = values > 0
        case "constant":
            values[4] = 0.5
        case "duplicate":
            values[9] = values[2]
        case "one map":
            values = values[0]
        case "channels last":
            values = fields(12, (8, 8, 3))
        case "rows":
            table.write_text("Omega_m\n" + "\n".join(str(0.1 * i) for i in range(6)))
            extra = {"params": table, "per_simulation": 3}
        case "rows without ids":
            values, extra = fields(24), {"params": table}
        case "blocks":
            extra = {"per_simulation": 5}
        case "no names":
            table.write_text("0.1\n" * 12)
            extra = {"params": table}
        case "missing column":
            extra = {"params": table, "parameters": ["sigma_8"]}
        case "fixed parameter":
            table.write_text("Omega_m\n" + "0.3\n" * 12)
            extra = {"params": table, "per_simulation": 2}
            table.write_text("Omega_m\n" + "0.3\n" * 6)
        case "nan parameter":
            table.write_text("Omega_m\n" + "\n".join(["0.1"] * 5 + ["nan"] + ["0.2"] * 6))
            extra = {"params": table}
        case "word parameter":
            table.write_text("name,Omega_m\n" + "\n".join([f"a,{i}" for i in range(11)] + ["a,n/a"]))
            extra = {"params": table, "parameters": ["Omega_m"]}
        case "ragged":
            table.write_text("a,b\n" + "0.1,0.2\n" * 11 + "0.1\n")
            extra = {"params": table}
        case "page table":
            table.write_text(PAGE)
            extra = {"params": table}
        case "binary table":
            table.write_bytes(bytes(range(128, 256)))
            extra = {"params": table}
        case "no table":
            extra = {"parameters": ["Omega_m"]}
        case "ids":
            extra = {"simulation": write_npy(tmp / "ids.npy", np.arange(11))}
        case "two parameters in one simulation":
            extra = {"params": table, "simulation": write_npy(tmp / "ids.npy", np.arange(12) // 2)}
        case "unknown simulation":
            table.write_text("simulation,Omega_m\n" + "\n".join(f"{i},{i}" for i in range(6)))
            extra = {"params": table, "simulation": write_npy(tmp / "ids.npy", np.arange(12) // 2 + 1)}
        case "one simulation":
            extra = {"per_simulation": 12}
    return ArrayFile(write_npy(path, values), **BOX, **extra)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", ["nowhere.npy does not exist"]),
        ("folder", ["is a folder"]),
        ("empty", ["a.npy is empty", "again"]),
        ("web page", ["a.npy", "web page", "download it again"]),
        ("pickle", ["a.npy", "pickle", "numpy.save"]),
        ("objects", ["a.npy", "pickle", "float32"]),
        ("objects in npz", ["a.npz", "'values'", "pickle"]),
        ("truncated", ["a.npy is truncated", "(12, 8, 8)", "3200", "3100"]),
        ("too long", ["a.npy is too long", "3208"]),
        ("header", ["header of", "a.npy"]),
        ("truncated npz", ["a.npz", "truncated"]),
        ("other key", ["'values' is missing", "kappa, z"]),
        ("nan", ["a.npy", "field 7", "1 values"]),
        ("infinite", ["a.npy", "field 7", "1 values"]),
        ("too large", ["a.npy", "1e+39", "3.4e38"]),
        ("complex", ["complex64", "real"]),
        ("boolean", ["bool", "real"]),
        ("constant", ["field 4", "0.5 everywhere"]),
        ("duplicate", ["field 9 is a copy of field 2"]),
        ("one map", ["(N, H, W)", "(8, 8)"]),
        ("channels last", ["channels last", "(12, 8, 8, 3)"]),
        ("rows", ["p.csv has 6 rows for 4 simulations", "no field", "both must hold"]),
        ("rows without ids", ["p.csv has 12 rows for 24 fields", "per_simulation"]),
        ("blocks", ["12 fields", "5 fields each"]),
        ("no names", ["p.csv has 1 columns without names"]),
        ("missing column", ["p.csv", "'sigma_8' is missing", "Omega_m"]),
        ("fixed parameter", ["Omega_m is 0.3 in every training simulation", "leave it out"]),
        ("nan parameter", ["p.csv: row 5", "'nan'", "finite number"]),
        ("word parameter", ["p.csv: row 11", "'n/a'", "finite number"]),
        ("ragged", ["p.csv: row 11 has 1 columns", "2"]),
        ("page table", ["p.csv", "web page"]),
        ("binary table", ["p.csv is not a text table"]),
        ("no table", ["Omega_m need a table"]),
        ("ids", ["ids.npy", "(12,)", "(11,)"]),
        ("two parameters in one simulation", ["simulation 0 has more than one set of parameters"]),
        ("unknown simulation", ["simulation 0 has no field", "p.csv"]),
        ("one simulation", ["1 simulation(s) cannot fill 3 splits", "[0, 0, 1]"]),
    ],
)
def test_bad_files_get_one_sentence(case: str, words: list[str], tmp_path: Path) -> None:
    source = spoilt(case, tmp_path)
    with pytest.raises(InputError) as error:
        source.load()
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and "Traceback" not in message and "allow_pickle" not in message
    assert not (tmp_path / "mark").exists()
