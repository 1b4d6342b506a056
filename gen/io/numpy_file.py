"""Fields as NumPy files: ``.npy`` with the values only, ``.npz`` with all. Nothing is ever pickled."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from gen.errors import InputError
from gen.io.content import Content, encode


def _header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values, dtype="<f4").view(np.uint8).data


class NpyWriter:
    """A header, then the values as they come."""

    def __init__(self, path: Path, content: Content) -> None:
        self.file = path.open("wb")
        _header(self.file, content.shape)

    def write(self, values: np.ndarray, params: np.ndarray) -> None:
        self.file.write(_bytes(values))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


class NpzWriter:
    """Values stream into the archive; parameters and attributes (one JSON text) follow at the end."""

    def __init__(self, path: Path, content: Content) -> None:
        self.content = content
        self.params: list[np.ndarray] = []
        self.archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self.file = self.archive.open(_member("values"), "w", force_zip64=True)
        _header(self.file, content.shape)

    def write(self, values: np.ndarray, params: np.ndarray) -> None:
        self.file.write(_bytes(values))
        self.params.append(params)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if kind is None:
            arrays = {
                "params": np.concatenate(self.params),
                "attributes": np.array(encode(self.content.told)),
                **self.content.columns,
            }
            for name, array in arrays.items():
                with self.archive.open(_member(name), "w") as member:
                    np.lib.format.write_array(member, _sortable(array), allow_pickle=False)
        self.archive.close()


def _member(name: str) -> zipfile.ZipInfo:
    """An archive entry without the time of day, so that equal content is equal bytes."""
    return zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))


def _sortable(array: np.ndarray) -> np.ndarray:
    return array.astype(str) if array.dtype.kind == "O" else array


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and attributes of an archive."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path} is not a whole .npz archive of plain arrays") from error
    attributes = arrays.pop("attributes", np.array("{}"))
    return arrays, json.loads(str(attributes))
