"""Boxes too large for memory, in files: read channel by channel, written chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.io.atomic import replacing
from gen.io.content import Content
from gen.io.fieldfile import described, file_format

WRITTEN = (".h5", ".zarr", ".npy")
Put = Callable[[int, tuple[slice, ...], np.ndarray], None]


@dataclass(frozen=True)
class Box:
    """One field ``(1, C, *shape)`` of an ``.h5``, ``.zarr`` or ``.npy``; ``box[:, i]`` reads its channel i.

    Raises:
        InputError: where the file turns out to be damaged, or holds what is not finite.
    """

    path: Path
    row: int
    shape: tuple[int, ...]

    def __getitem__(self, index: tuple[slice, int]) -> Tensor:
        try:
            values = _reader(file_format(self.path))(self.path, self.row, index[1])
        except (OSError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{self.path} cannot be read at field {self.row}: {reason}") from error
        channel = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        if not torch.isfinite(channel).all():
            raise InputError(f"{self.path} holds values that are not finite in field {self.row}")
        return channel[None]


def _reader(suffix: str) -> Callable[[Path, int, int], np.ndarray]:
    if suffix == ".h5":
        from gen.io.hdf5 import hdf5_channel

        return hdf5_channel
    if suffix == ".zarr":
        from gen.io.zarr_store import zarr_channel

        return zarr_channel
    return lambda path, row, channel: np.array(open_npy(path)[row, channel])


def open_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy``, left in the file.

    Raises:
        InputError: if there is none, or it is no array of numbers.
    """
    if not path.is_file():
        raise InputError(f"no file of fields at {path}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a whole .npy of plain numbers") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} must hold real numbers, got {array.dtype}")
    return array


@contextmanager
def writing_boxes(
    path: Path,
    shape: tuple[int, ...],
    params: Tensor,
    grid: Grid,
    space: ParameterSpace,
    attributes: Mapping[str, Any],
    chunk: int,
    *,
    overwrite: bool = False,
) -> Iterator[Put]:
    """A file of fields ``(N, C, *shape)``, filled by ``put(row, cells, values (C, *cells))`` in any order.

    The file appears when the block ends well. HDF5 and Zarr keep values in cubes of ``chunk`` cells a side.

    Raises:
        InputError: for an existing file, or a format that is only written from front to back.
    """
    suffix = check_written(path)
    told = described(attributes, grid, space)
    chunks = (1, 1, *(min(chunk, n) for n in shape[2:]))
    content = Content(shape, params.shape[1], told, {}, chunks)
    with replacing(path, overwrite=overwrite) as staged:
        if suffix == ".npy":
            np.lib.format.open_memmap(staged, "w+", "<f4", shape)

            def put(row: int, cells: tuple[slice, ...], values: np.ndarray) -> None:
                np.load(staged, mmap_mode="r+", allow_pickle=False)[(row, slice(None), *cells)] = values

            yield put
            return
        with _writer(suffix)(staged, content) as writer:
            writer.params[:] = params.numpy()

            def place(row: int, cells: tuple[slice, ...], values: np.ndarray) -> None:
                writer.values[(row, slice(None), *cells)] = values

            yield place


def check_written(path: Path) -> str:
    """The format of a file to be written chunk by chunk."""
    suffix = file_format(path)
    if suffix not in WRITTEN:
        raise InputError(f"boxes are written in chunks to {', '.join(WRITTEN)}, got {path}")
    return suffix


def _writer(suffix: str) -> Callable[[Path, Content], Any]:
    if suffix == ".h5":
        from gen.io.hdf5 import Hdf5Writer

        return Hdf5Writer
    from gen.io.zarr_store import ZarrWriter

    return ZarrWriter
