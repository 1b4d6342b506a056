"""Reading the simulations of a cache folder: in memory, or from one mapped file if they are many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError

IN_MEMORY = 2 * 1024**3
"""A column above this many bytes is written into one file of the folder, once, and mapped from there."""


def read_one(path: Path, column: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array ``column`` of one simulation's file.

    Raises:
        InputError: for a file that cannot be read or holds another shape.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            values = data[column]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read; remove it and run cosmozoo simulate again") from error
    if values.shape != shape:
        raise InputError(f"{path} holds {values.shape}, expected {shape}; remove it to redo")
    return np.asarray(values, dtype=np.float32)


def gather(
    files: Sequence[tuple[Path, int]], column: str, shape: tuple[int, ...], atomic: Callable[[Path], Any]
) -> Tensor:
    """One column of many simulations, ``(N, *shape)`` float32.

    Args:
        files: each simulation's file and how many fields it holds.
        column: its array, ``(fields, *shape)``.
        atomic: opens a file that appears under its name only when complete.
    """
    total = (sum(n for _, n in files), *shape)
    if 4 * int(np.prod(total, dtype=np.int64)) <= IN_MEMORY:
        out, row = torch.empty(total), 0
        for path, n in files:
            out[row : row + n] = torch.from_numpy(read_one(path, column, (n, *shape)))
            row += n
        return out
    held = hashlib.sha256(repr([path.name for path, _ in files]).encode()).hexdigest()[:12]
    whole = files[0][0].with_name(f"{column}-{held}.npy")
    if not whole.exists():
        with atomic(whole) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": total}
            np.lib.format.write_array_header_1_0(file, header)
            for path, n in files:
                file.write(read_one(path, column, (n, *shape)).astype("<f4").tobytes())
    try:
        mapped = np.load(whole, allow_pickle=False, mmap_mode="c")
    except ValueError as error:
        raise InputError(f"{whole} is damaged; remove it, it is made again") from error
    if mapped.shape != total:
        raise InputError(f"{whole} holds {mapped.shape}, expected {total}; remove it, it is made again")
    return torch.from_numpy(mapped)
