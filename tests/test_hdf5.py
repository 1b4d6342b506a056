"""HDF5 files: the project's own format, datasets of any name, and what can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from gen.data import arrays
from gen.data.hdf5 import Hdf5File
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.io import write_fields


def ours(path: Path, **changes) -> Path:
    """A file of the project's own format, written dataset by dataset."""
    rng = np.random.default_rng(0)
    ids = np.repeat([4, 9, 2, 7], 3)
    content = {
        "values": rng.normal(size=(12, 1, 8, 8)).astype("f4"),
        "params": np.stack([ids / 20, 1 - ids / 30], axis=1),
        "simulation": ids.astype("i8"),
    }
    attributes = {
        "grid": json.dumps({"shape": [8, 8], "box_size": [3.5, 3.5], "unit": "deg", "periodic": False}),
        "parameter_names": ["Omega_m", "sigma_8"],
        "units": "1",
    }
    with h5py.File(path, "w") as file:
        for name, array in (content | changes).items():
            if name in content and array is not None:
                file.create_dataset(name, data=array)
        for name, value in (attributes | changes).items():
            if name in attributes and value is not None:
                file.attrs[name] = value
    return path


def test_the_projects_own_format_tells_everything(tmp_path: Path) -> None:
    data = Hdf5File(ours(tmp_path / "a.h5")).load()
    values = np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype("f4")
    assert np.array_equal(data.values.numpy(), values)
    ids = np.repeat([4, 9, 2, 7], 3)
    assert np.allclose(data.params.numpy(), np.stack([ids / 20, 1 - ids / 30], axis=1))
    assert data.simulation.tolist() == np.repeat([4, 9, 2, 7], 3).tolist()
    assert data.grid == Grid((8, 8), 3.5, "deg", periodic=False) and data.space.names == (
        "Omega_m",
        "sigma_8",
    )
    homes: dict[int, set[str]] = {}
    for s, where in zip(data.simulation.tolist(), data.split.tolist(), strict=True):
        homes.setdefault(s, set()).add(where)
    assert all(len(h) == 1 for h in homes.values()) and set().union(*homes.values()) == {
        "train",
        "validation",
        "test",
    }


@pytest.mark.parametrize("n_params", [0, 2])
def test_what_this_project_writes_it_reads(tmp_path: Path, n_params: int) -> None:
    g = torch.Generator().manual_seed(0)
    each = torch.rand(4, n_params, generator=g)
    fields = Fields.of(torch.randn(12, 2, 6, 6, 6, generator=g), each.repeat_interleave(3, 0))
    grid = Grid((6, 6, 6), 64.0, "Mpc/h", periodic=True)
    space = ParameterSpace(["Omega_m", "h"][:n_params], [0.0] * n_params, [1.0] * n_params)
    ids = np.repeat([3, 1, 9, 2], 3)
    write_fields(tmp_path / "a.h5", [fields], 12, grid, space, {"units": "Msun/h"}, simulation=ids)
    data = Hdf5File(tmp_path / "a.h5").load()
    assert torch.equal(data.values, fields.values) and torch.equal(data.params, fields.params)
    assert data.grid == grid and data.space.names == space.names and data.simulation.tolist() == ids.tolist()
    assert data.unit == "Msun/h"


def test_names_written_as_json_or_bytes_are_read_alike(tmp_path: Path) -> None:
    for names in ('["Omega_m", "sigma_8"]', np.array([b"Omega_m", b"sigma_8"])):
        data = Hdf5File(ours(tmp_path / "a.h5", parameter_names=names)).load()
        assert data.space.names == ("Omega_m", "sigma_8")


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 8, 8, 8), "compression": "gzip"}])
def test_datasets_of_any_name(tmp_path: Path, options: dict, monkeypatch) -> None:
    values = np.random.default_rng(1).normal(size=(8, 8, 8, 8)).astype("f4")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file.create_dataset("snapshots/density", data=values, **options)
        file["theta"] = np.arange(4.0).repeat(2)[:, None]
    arguments = {"box_size": 100.0, "box_unit": "Mpc/h", "periodic": True, "dim": 3, "unit": "1+delta"}
    source = Hdf5File(
        tmp_path / "b.hdf5",
        "snapshots/density",
        "theta",
        parameters=["Omega_m"],
        per_simulation=2,
        **arguments,
    )
    data = source.load()
    assert np.array_equal(data.values[:, 0].numpy(), values) and data.grid.dim == 3
    assert data.simulation.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and data.space.names == ("Omega_m",)
    monkeypatch.setattr(arrays, "IN_MEMORY", 100)  # mapped if in one piece, read if compressed
    assert torch.equal(source.load().values, data.values)


def test_without_parameters_and_ids_each_field_is_its_own_simulation(tmp_path: Path) -> None:
    data = Hdf5File(ours(tmp_path / "a.h5", params=None, simulation=None)).load()
    assert data.n_simulations == 12 and len(data.space) == 0


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"values": None}, {}, ["'values' is missing", "params, simulation"]),
        ({"grid": None}, {}, ["no attribute 'grid'", "box_size"]),
        ({"grid": "oops"}, {}, ["'grid' is not a grid"]),
        ({"parameter_names": None}, {}, ["'parameter_names'"]),
        ({"units": None}, {}, ["'units'"]),
        ({"params": np.zeros((11, 2))}, {}, ["(12, 2)", "(11, 2)"]),
        ({"simulation": np.zeros(12)}, {}, ["12 whole numbers", "float64"]),
        ({"simulation": np.arange(11)}, {}, ["12 whole numbers", "(11,)"]),
        ({"params": None}, {"parameters": ["Omega_m"]}, ["no dataset 'params'", "Omega_m"]),
        ({}, {"params": "theta"}, ["'theta' is missing"]),
        ({}, {"simulation": "ids"}, ["'ids' is missing"]),
        ({"values": np.full((12, 1, 8, 8), np.nan, "f4")}, {}, ["field 0", "64 values"]),
        ({"values": np.zeros((12, 1, 4, 4), "f4")}, {}, ["(N, C, 8, 8)", "(12, 1, 4, 4)"]),
        ({"simulation": None}, {"per_simulation": 5}, ["12 fields", "5 fields each"]),
    ],
)
def test_bad_files_get_one_sentence(tmp_path: Path, changes: dict, arguments: dict, words: list[str]) -> None:
    source = Hdf5File(ours(tmp_path / "a.h5", **changes), **arguments)
    with pytest.raises(InputError) as error:
        source.load()
    assert all(word in str(error.value) for word in ["a.h5", *words]), str(error.value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda body: body[:-600], "truncated"),
        (lambda body: b"<html>log in</html>", "web page"),
        (lambda body: b"\0" * 4000, "damaged or not HDF5"),
    ],
)
def test_damaged_files_get_one_sentence(tmp_path: Path, spoil, words: str) -> None:
    path = ours(tmp_path / "a.h5")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=words):
        Hdf5File(path).load()
