"""Fields as HDF5: datasets by name, attributes as numbers and texts (records as JSON)."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from gen.io.content import Content, rows_within

#: A chunk that fits in the library's own cache [bytes].
CHUNK = 2**20
COLUMNS = ("values", "params", "simulation", "region")


class Hdf5Writer:
    """Appends blocks to chunked datasets of known length."""

    def __init__(self, path: Path, content: Content) -> None:
        self.file = h5py.File(path, "w", libver="v110")
        shape = content.shape
        chunks = content.chunks or (rows_within(CHUNK, shape), *shape[1:])
        self.values = self.file.create_dataset("values", shape, "f4", chunks=chunks)
        self.params = self.file.create_dataset("params", (shape[0], content.n_params), "f8")
        for name, column in content.columns.items():
            text = column.dtype.kind in "OU"
            self.file.create_dataset(name, data=column.astype(object if text else "i8"),
                                     dtype=h5py.string_dtype() if text else "i8")  # fmt: skip
        for key, value in content.told.items():
            self.file.attrs[key] = _attribute(value)
        self.row = 0

    def write(self, values: np.ndarray, params: np.ndarray) -> None:
        rows = slice(self.row, self.row + len(values))
        self.values[rows] = values
        self.params[rows] = params
        self.row = rows.stop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def _attribute(value: Any) -> Any:
    """Numbers and texts as they are, all else as JSON; so is a text that would be taken for JSON."""
    if isinstance(value, bool | int | float) or (isinstance(value, str) and not _looks_like_json(value)):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return np.array(value, dtype=h5py.string_dtype())
    return json.dumps(value)


def read_hdf5(path: Path, *, whole: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """The datasets and attributes of a file; the values only ``whole``, else their shape."""
    with h5py.File(path, "r") as file:
        found = {name: file[name] for name in COLUMNS if name in file}
        arrays: dict[str, Any] = {
            name: np.asarray(item[()]) if whole or name != "values" else item.shape
            for name, item in found.items()
            if isinstance(item, h5py.Dataset)
        }
        told = {key: _plain(value) for key, value in file.attrs.items()}
    if "region" in arrays:
        arrays["region"] = np.array([text.decode() for text in arrays["region"]])
    return arrays, told


def hdf5_rows(path: Path, start: int, stop: int) -> np.ndarray:
    """Some consecutive fields of a file."""
    with h5py.File(path, "r") as file:
        values = file["values"]
        assert isinstance(values, h5py.Dataset)
        return np.asarray(values[start:stop])


def hdf5_channel(path: Path, row: int, channel: int) -> np.ndarray:
    """One channel of one field of a file."""
    with h5py.File(path, "r") as file:
        values = file["values"]
        assert isinstance(values, h5py.Dataset)
        return np.asarray(values[row, channel])


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str) and _looks_like_json(value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _looks_like_json(text: str) -> bool:
    return text == "null" or text[:1] in ("{", "[", '"')
