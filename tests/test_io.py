"""Files of fields give back what was written, to us and to other software, whatever their size."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray
from astropy.io import fits

from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.io import FieldFile, read_fields, write_fields
from gen.io.content import BLOCK

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
NONE = ParameterSpace((), (), ())
FLAT = Grid((6, 8), (3.0, 4.0), "deg", False)
CUBE = Grid((4, 4, 4), 50.0, "Mpc/h", True)
TOLD = {
    "units": "1",
    "seed": 3,
    "extrapolated": False,
    "note": "long " * 60,
    "parts": {"a": [1, 2.5]},
    "none": None,
}
READABLE = (".h5", ".npz", ".fits", ".zarr")
ALL = (*READABLE, ".npy")
N = 37


def content(grid: Grid, space: ParameterSpace, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(N, channels, *grid.shape, generator=generator)
    values[3, 0].view(-1)[:2] = torch.tensor([0.0, -0.0])  # a value that a format might take for missing
    params = torch.rand(N, len(space), generator=generator, dtype=torch.float64)
    return values, params


def parts(values: torch.Tensor, params: torch.Tensor, size: int) -> Iterator[Fields]:
    for i in range(0, len(values), size):
        yield Fields.of(values[i : i + size], params[i : i + size])


@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize(("grid", "space", "channels"), [(FLAT, SPACE, 1), (CUBE, NONE, 2), (CUBE, SPACE, 1)])
@pytest.mark.parametrize("columns", [False, True])
def test_what_is_read_is_what_was_written(
    tmp_path: Path, suffix: str, grid: Grid, space: ParameterSpace, channels: int, columns: bool
) -> None:
    values, params = content(grid, space, channels)
    simulation = np.arange(N) // 3 if columns else None
    region = np.array(["interior", "edge", "extrapolation"])[np.arange(N) % 3] if columns else None
    path = tmp_path / f"maps{suffix}"
    write_fields(path, parts(values, params, 16), N, grid, space, TOLD, simulation=simulation, region=region)
    found = read_fields(path)
    assert torch.equal(found.values, values)
    assert torch.equal(found.params, params)
    assert (found.grid, found.space) == (grid, space)
    assert found.attributes == TOLD
    assert len(found) == N
    if columns:
        assert np.array_equal(found.simulation, simulation)
        assert np.array_equal(found.region, region)
    else:
        assert found.simulation is None
        assert found.region is None


@pytest.mark.parametrize("suffix", ALL)
def test_the_file_does_not_depend_on_how_the_stream_is_cut(tmp_path: Path, suffix: str) -> None:
    values, params = content(FLAT, SPACE)
    whole = []
    for size in (1, 5, 16, N):
        path = tmp_path / f"{size}" / f"maps{suffix}"
        write_fields(path, parts(values, params, size), N, FLAT, SPACE, TOLD)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        whole.append([(p.relative_to(path), p.read_bytes()) for p in files])
    assert all(w == whole[0] for w in whole)


def test_others_read_hdf5(tmp_path: Path) -> None:
    values, params = content(FLAT, SPACE)
    write_fields(tmp_path / "maps.h5", parts(values, params, 16), N, FLAT, SPACE, TOLD)
    with h5py.File(tmp_path / "maps.h5") as file:
        assert np.array_equal(np.asarray(file["values"]), values.numpy())
        assert np.array_equal(np.asarray(file["params"]), params.numpy())
        assert list(file.attrs["parameter_names"]) == ["Omega_m", "sigma_8"]
        assert json.loads(file.attrs["grid"]) == {
            "shape": [6, 8], "box_size": [3.0, 4.0], "unit": "deg", "periodic": False,
        }  # fmt: skip
        assert file.attrs["units"] == "1"
        assert file.attrs["seed"] == 3


def test_others_read_numpy(tmp_path: Path) -> None:
    values, params = content(CUBE, SPACE)
    for suffix in (".npy", ".npz"):
        write_fields(tmp_path / f"maps{suffix}", parts(values, params, 16), N, CUBE, SPACE, TOLD)
    assert np.array_equal(np.load(tmp_path / "maps.npy", allow_pickle=False, mmap_mode="r"), values.numpy())
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["values"], values.numpy())
        assert np.array_equal(archive["params"], params.numpy())
        assert json.loads(str(archive["attributes"]))["parameter_names"] == ["Omega_m", "sigma_8"]


def test_others_read_fits(tmp_path: Path) -> None:
    values, params = content(FLAT, SPACE)
    path = tmp_path / "maps.fits"
    write_fields(path, parts(values, params, 16), N, FLAT, SPACE, TOLD)
    assert path.stat().st_size % 2880 == 0
    with fits.open(path) as hdus:
        hdus.verify("exception")
        image: Any = hdus[0]
        table: Any = hdus["PARAMS"]
        assert np.array_equal(image.data, values.numpy())
        assert image.header["BUNIT"] == "1"
        assert np.array_equal(table.data["sigma_8"], params[:, 1].numpy())


def test_others_read_zarr(tmp_path: Path) -> None:
    values, params = content(FLAT, SPACE)
    simulation = np.arange(N)
    write_fields(
        tmp_path / "maps.zarr", parts(values, params, 16), N, FLAT, SPACE, TOLD, simulation=simulation
    )
    with xarray.open_zarr(tmp_path / "maps.zarr") as data:
        assert data["values"].dims == ("sample", "channel", "y", "x")
        assert np.array_equal(data["values"], values.numpy())
        assert np.array_equal(data["params"].sel(parameter="sigma_8"), params[:, 1].numpy())
        assert data["simulation"].dtype == np.int64
        assert data.attrs["units"] == "1"


@pytest.mark.parametrize("suffix", ALL)
def test_memory_does_not_grow_with_the_number_of_fields(tmp_path: Path, suffix: str) -> None:
    grid = Grid((64, 64), 3.5, "deg", False)

    def stream(n: int) -> Iterator[Fields]:
        for i in range(0, n, 16):
            yield Fields.of(torch.from_numpy(np.full((16, 1, 64, 64), i, np.float32)), torch.zeros(16, 2))

    write_fields(tmp_path / f"first{suffix}", stream(256), 256, grid, SPACE, {})  # imports what it needs
    n = 4096  # 64 MiB
    tracemalloc.start()
    write_fields(tmp_path / f"maps{suffix}", stream(n), n, grid, SPACE, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BLOCK  # one filling, and Zarr's threads still hold some


@pytest.mark.parametrize("suffix", ALL)
def test_an_existing_file_is_kept_unless_told(tmp_path: Path, suffix: str) -> None:
    values, params = content(FLAT, SPACE)
    path = tmp_path / f"maps{suffix}"
    path.write_text("precious")
    with pytest.raises(InputError, match="--overwrite"):
        write_fields(path, parts(values, params, 16), N, FLAT, SPACE, TOLD)
    assert path.read_text() == "precious"
    for _ in range(2):
        write_fields(path, parts(values, params, 16), N, FLAT, SPACE, TOLD, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("suffix", ALL)
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    values, params = content(FLAT, SPACE)

    def broken() -> Iterator[Fields]:
        yield Fields.of(values[:16], params[:16])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fields(tmp_path / f"maps{suffix}", broken(), N, FLAT, SPACE, TOLD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize("n", [N - 1, N + 1, 0])
def test_the_number_of_fields_is_kept_to(tmp_path: Path, suffix: str, n: int) -> None:
    values, params = content(FLAT, SPACE)
    with pytest.raises(InputError):
        write_fields(tmp_path / f"maps{suffix}", parts(values, params, 16), n, FLAT, SPACE, TOLD)
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    values, params = content(FLAT, SPACE)
    with pytest.raises(InputError, match="must end in"):
        write_fields(tmp_path / "maps.txt", parts(values, params, 16), N, FLAT, SPACE, TOLD)
    with pytest.raises(InputError, match="cells"):
        write_fields(tmp_path / "maps.h5", parts(values, params, 16), N, CUBE, SPACE, TOLD)
    with pytest.raises(InputError, match="simulation"):
        write_fields(
            tmp_path / "maps.h5", parts(values, params, 16), N, FLAT, SPACE, TOLD, simulation=np.arange(3)
        )
    with pytest.raises(InputError, match="no fields"):
        write_fields(tmp_path / "maps.h5", iter(()), 0, FLAT, SPACE, TOLD)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_fields(tmp_path / "file" / "maps.h5", parts(values, params, 16), N, FLAT, SPACE, TOLD)


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".fits"])
def test_damaged_files_are_named_in_one_sentence(tmp_path: Path, suffix: str) -> None:
    values, params = content(FLAT, SPACE)
    path = tmp_path / f"maps{suffix}"
    write_fields(path, parts(values, params, 16), N, FLAT, SPACE, TOLD)
    whole = path.read_bytes()
    for damaged in (
        b"",
        b"<!DOCTYPE html><html></html>",
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-2000],
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"maps") as caught:
            read_fields(path)
        assert "\n" not in str(caught.value)
        assert "pickle" not in str(caught.value)


def test_files_of_others_are_read_or_said_to_lack_something(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.ones((3, 1, 6, 8))
        file["params"] = np.array([[0.2], [0.3], [0.4]])
    with pytest.raises(InputError, match="lacks grid, parameter_names"):
        read_fields(path)
    with h5py.File(path, "a") as file:
        file.attrs["grid"] = json.dumps(FLAT.to_dict())
        file.attrs["parameter_names"] = ["Omega_m"]
    found = read_fields(path)
    assert isinstance(found, FieldFile)
    assert found.values.dtype == torch.float32
    assert found.space == ParameterSpace(["Omega_m"], [0.2], [0.4])
    with h5py.File(path, "a") as file:
        del file["params"]
        file["params"] = np.ones((2, 1))
    with pytest.raises(InputError, match="unequal numbers of rows"):
        read_fields(path)
    with pytest.raises(InputError, match="values only"):
        np.save(tmp_path / "a.npy", np.ones(3))
        read_fields(tmp_path / "a.npy")
    with pytest.raises(InputError, match="no file"):
        read_fields(tmp_path / "none.h5")
