"""The record that a file of fields holds, and the choice of format by the file's name.

Every format but ``.npy`` holds ``values`` (N, C, *shape) float32, ``params`` (N, P) float64, optionally
``simulation`` (N,) and ``region`` (N,), and the attributes, among them the grid and the parameter space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.io.atomic import replacing
from gen.io.content import BLOCK, Content, Writer, rows_within
from gen.io.rows import Rows, Values

FORMATS = (".h5", ".npy", ".npz", ".fits", ".zarr")


@dataclass(frozen=True, eq=False)
class FieldFile:
    """The content of a file of fields, in physical units.

    values: ``(N, C, *shape)`` float32, in memory or (``open_fields``) still in the file; params: ``(N, P)``
    float64; simulation: ``(N,)`` ids of the simulation that each field is from, if known; region: ``(N,)``
    names, if known.
    """

    values: Values
    params: Tensor
    simulation: np.ndarray | None
    region: np.ndarray | None
    grid: Grid
    space: ParameterSpace
    attributes: dict[str, Any]

    def __len__(self) -> int:
        return len(self.values)


def file_format(path: str | Path) -> str:
    """The format that a file's name asks for."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"the name of a file of fields must end in {', '.join(FORMATS)}, got {path}")
    return suffix


def write_fields(
    path: str | Path,
    parts: Iterable[Fields],
    n: int,
    grid: Grid,
    space: ParameterSpace,
    attributes: Mapping[str, Any],
    *,
    simulation: np.ndarray | None = None,
    region: np.ndarray | None = None,
    overwrite: bool = False,
) -> None:
    """Write a stream of ``n`` fields, in memory that does not grow with ``n``.

    The file appears when it is complete; if writing fails nothing is left behind. ``.npy`` holds the
    values only. ``.npz`` and ``.fits`` keep the parameters (8 P bytes a field) in memory to the end.

    Args:
        parts: fields on ``grid`` in order, in blocks of any size.
        attributes: JSON-able values by name, written beside grid and parameter space.

    Raises:
        InputError: for an unknown format, an existing file, or another number of fields than ``n``.
    """
    suffix, told = file_format(path), described(attributes, grid, space)
    extra = {"simulation": simulation, "region": region}
    columns = {name: column for name, column in extra.items() if column is not None}
    for name, column in columns.items():
        if len(column) != n:
            raise InputError(f"{name} must have one entry for each of {n} fields, got {len(column)}")
    with replacing(path, overwrite=overwrite) as staged:
        _write(suffix, staged, iter(parts), n, grid, told, columns)


def described(attributes: Mapping[str, Any], grid: Grid, space: ParameterSpace) -> dict[str, Any]:
    """All that a file tells of its fields."""
    return {
        **attributes,
        "grid": grid.to_dict(),
        "parameter_names": list(space.names),
        "parameter_low": list(space.low),
        "parameter_high": list(space.high),
        "parameter_units": list(space.units),
    }


def _write(
    suffix: str,
    staged: Path,
    parts: Iterator[Fields],
    n: int,
    grid: Grid,
    told: dict[str, Any],
    columns: dict[str, np.ndarray],
) -> None:
    first = next(parts, None)
    if first is None or n < 1:
        raise InputError("there are no fields to write")
    shape = (n, *first.values.shape[1:])
    if shape[2:] != grid.shape:
        raise InputError(f"fields must have the grid's {grid.shape} cells, got {shape[2:]}")
    written = 0
    with _writer(suffix)(staged, Content(shape, first.params.shape[1], told, columns)) as writer:
        for values, params in blocks(_chain(first, parts), rows_within(BLOCK, shape)):
            written += len(values)
            if written > n:
                raise InputError(f"expected {n} fields, got more")
            writer.write(values, params)
        if written < n:
            raise InputError(f"expected {n} fields, got {written}")


def _chain(first: Fields, parts: Iterator[Fields]) -> Iterator[Fields]:
    yield first
    yield from parts


def blocks(parts: Iterable[Fields], rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same rows in blocks of at least ``rows``, a multiple of the parts' size, the last one shorter."""
    held: list[Fields] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part.values)
        if count >= rows:
            yield _joined(held)
            held, count = [], 0
    if held:
        yield _joined(held)


def _joined(held: list[Fields]) -> tuple[np.ndarray, np.ndarray]:
    values = torch.cat([part.values.detach().to("cpu", torch.float32) for part in held])
    params = torch.cat([part.params.detach().to("cpu", torch.float64) for part in held])
    return values.numpy(), params.numpy()


def _writer(suffix: str) -> Callable[[Path, Content], Writer]:
    """The writer of a format; each format's library is loaded with it."""
    if suffix == ".h5":
        from gen.io.hdf5 import Hdf5Writer

        return Hdf5Writer
    if suffix == ".zarr":
        from gen.io.zarr_store import ZarrWriter

        return ZarrWriter
    if suffix == ".fits":
        from gen.io.fits_file import FitsWriter

        return FitsWriter
    from gen.io.numpy_file import NpyWriter, NpzWriter

    return NpyWriter if suffix == ".npy" else NpzWriter


def read_fields(path: str | Path) -> FieldFile:
    """Read a file of fields whole.

    Raises:
        InputError: if there is no such file, its format holds no grid (``.npy``), or it is damaged.
    """
    return _read(Path(path), whole=True)


def open_fields(path: str | Path) -> FieldFile:
    """As ``read_fields``, but the values of an ``.h5`` or ``.zarr`` stay in the file until asked for."""
    return _read(Path(path), whole=Path(path).suffix.lower() not in (".h5", ".zarr"))


def _read(path: Path, *, whole: bool) -> FieldFile:
    suffix = file_format(path)
    if not path.exists():
        raise InputError(f"no file of fields at {path}")
    if suffix == ".npy":
        raise InputError(
            f"{path} holds values only, without grid and parameters; give a .h5, .npz, .fits or .zarr"
        )
    try:
        arrays, told = _arrays(suffix, path, whole)
    except (OSError, KeyError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a whole file of fields: {reason}") from error
    return assemble(path, arrays, told)


def _arrays(suffix: str, path: Path, whole: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    if suffix == ".h5":
        from gen.io.hdf5 import hdf5_rows as rows
        from gen.io.hdf5 import read_hdf5

        arrays, told = read_hdf5(path, whole=whole)
    elif suffix == ".zarr":
        from gen.io.zarr_store import read_zarr
        from gen.io.zarr_store import zarr_rows as rows

        arrays, told = read_zarr(path, whole=whole)
    elif suffix == ".fits":
        from gen.io.fits_file import read_fits

        return read_fits(path)
    else:
        from gen.io.numpy_file import read_npz

        return read_npz(path)
    if not whole and "values" in arrays:
        n, *row_shape = arrays["values"]
        arrays["values"] = Rows(path, np.arange(n), tuple(row_shape), rows)
    return arrays, told


def assemble(path: Path, arrays: Mapping[str, Any], told: dict[str, Any]) -> FieldFile:
    """The record of a file's arrays and attributes, checked to fit together."""
    lacking = [name for name in ("values", "params") if name not in arrays]
    if lacking or "grid" not in told or "parameter_names" not in told:
        missing = [*lacking, *(name for name in ("grid", "parameter_names") if name not in told)]
        raise InputError(
            f"{path} lacks {', '.join(missing)}; a file of fields has values, params and their grid"
        )
    values = arrays["values"]
    if not isinstance(values, Rows):
        values = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    params = torch.from_numpy(np.ascontiguousarray(arrays["params"], dtype=np.float64))
    grid = Grid.from_dict(told["grid"])
    if tuple(values.shape[2:]) != grid.shape:
        raise InputError(f"{path} has fields of {tuple(values.shape[2:])} cells on a grid of {grid.shape}")
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise InputError(
            f"{path} has unequal numbers of rows: {', '.join(f'{k} {v}' for k, v in rows.items())}"
        )
    simulation, region = arrays.get("simulation"), arrays.get("region")
    return FieldFile(
        values,
        params,
        None if simulation is None else simulation.astype(np.int64),
        None if region is None else region.astype(str),
        grid,
        _space(told, params),
        {key: value for key, value in told.items() if key != "grid" and not key.startswith("parameter_")},
    )


def _space(told: Mapping[str, Any], params: Tensor) -> ParameterSpace:
    """The parameter space as told, or as wide as the parameters in the file."""
    names = [str(name) for name in told["parameter_names"]]
    if len(names) != params.shape[1]:
        raise InputError(
            f"params must have a column for each of {', '.join(names)}, got {params.shape[1]} columns"
        )
    if "parameter_low" in told and "parameter_high" in told:
        return ParameterSpace(
            names, told["parameter_low"], told["parameter_high"], told.get("parameter_units")
        )
    low, high = params.amin(0), params.amax(0)
    wide = (high - low).clamp(min=1e-6)
    return ParameterSpace(names, low.tolist(), (low + wide).tolist())
