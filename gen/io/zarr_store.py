"""Fields as a Zarr group that ``xarray.open_zarr`` reads: dimensions sample, channel, the axes, parameter."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr

from gen.errors import InputError
from gen.io.content import BLOCK, Content, rows_within

AXES = ("z", "y", "x")


class ZarrWriter:
    """Writes whole chunks, uncompressed: noise does not compress."""

    def __init__(self, path: Path, content: Content) -> None:
        self.group = zarr.create_group(path, zarr_format=2, attributes=content.told)
        shape = content.shape
        chunks = content.chunks or (rows_within(BLOCK, shape), *shape[1:])
        axes = AXES[len(AXES) - (len(shape) - 2) :]
        self.values = self._array("values", shape, "f4", chunks, ("sample", "channel", *axes))
        self.params = np.zeros((shape[0], content.n_params))
        self.content = content
        self.row = 0

    def _array(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        chunks: tuple[int, ...],
        dimensions: tuple[str, ...],
    ) -> zarr.Array:
        attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": list(dimensions)}
        if np.dtype(dtype).kind == "S":
            attributes["_Encoding"] = "ascii"
        # With a fill value, xarray would read values that equal it as missing.
        return self.group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            compressors=None,
            fill_value=None,
            attributes=attributes,
        )

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
        if kind is not None:
            return
        shape = self.params.shape
        if shape[1]:
            self._array("params", shape, "f8", shape, ("sample", "parameter"))[:] = self.params
            self._text("parameter", np.array(self.content.told["parameter_names"], dtype=str), ("parameter",))
        for name, column in self.content.columns.items():
            if column.dtype.kind in "iu":
                self._array(name, column.shape, "i8", column.shape, ("sample",))[:] = column
            else:
                self._text(name, column.astype(str), ("sample",))
        zarr.consolidate_metadata(self.group.store)

    def _text(self, name: str, column: np.ndarray, dimensions: tuple[str, ...]) -> None:
        # Fixed-width ASCII is in the Zarr 2 specification, which text of variable width is not.
        array = column.astype("S")
        self._array(name, array.shape, array.dtype, array.shape, dimensions)[:] = array


def read_zarr(path: Path, *, whole: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and attributes of a group; the values only ``whole``, else their shape."""
    group = zarr.open_group(path, mode="r")
    told = dict(group.attrs)
    arrays: dict[str, Any] = {}
    for name in ("values", "params", "simulation", "region"):
        if name in group:
            found = group[name]
            if not isinstance(found, zarr.Array):
                raise InputError(f"{path}: {name} must be an array, not a group")
            arrays[name] = np.asarray(found[...]) if whole or name != "values" else found.shape
    if "region" in arrays:
        arrays["region"] = np.char.decode(arrays["region"], "ascii")
    if "params" not in arrays and "values" in arrays:
        arrays["params"] = np.zeros((len(arrays["values"]) if whole else arrays["values"][0], 0))
    return arrays, told


def zarr_rows(path: Path, start: int, stop: int) -> np.ndarray:
    """Some consecutive fields of a group."""
    values = zarr.open_group(path, mode="r")["values"]
    assert isinstance(values, zarr.Array)
    return np.asarray(values[start:stop])


def zarr_channel(path: Path, row: int, channel: int) -> np.ndarray:
    """One channel of one field of a group."""
    values = zarr.open_group(path, mode="r")["values"]
    assert isinstance(values, zarr.Array)
    return np.asarray(values[row, channel])
