"""Fields that stay in their file and are read where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError

Reader = Callable[[Path, int, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a file's ``values``, with so much of a tensor's manner as streaming needs.

    ``rows[2:8]`` and ``rows[numbers]`` read fields, as a float32 tensor; ``select`` reads nothing.

    Args:
        path: of the file.
        index: ``(N,)`` which of the file's rows.
        row_shape: ``(C, *shape)`` of one field.
        read: ``(path, start, stop)`` to an array of consecutive rows of the file.

    Raises:
        InputError: where the file turns out to be damaged.
    """

    path: Path
    index: np.ndarray
    row_shape: tuple[int, ...]
    read: Reader

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: np.ndarray) -> Rows:
        """The fields at a boolean mask or at indices."""
        return replace(self, index=self.index[rows])

    def __getitem__(self, rows: slice | np.ndarray | Tensor) -> Tensor:
        wanted = self.index[rows.numpy() if isinstance(rows, Tensor) else rows]
        out = np.empty((len(wanted), *self.row_shape), dtype=np.float32)
        order = np.argsort(wanted, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(wanted[order]) > 1) + 1)
        for run in runs if len(wanted) else []:
            first = int(wanted[run[0]])
            out[run] = self._consecutive(first, int(wanted[run[-1]]) + 1)[wanted[run] - first]
        return torch.from_numpy(out)

    def _consecutive(self, start: int, stop: int) -> np.ndarray:
        try:
            return self.read(self.path, start, stop)
        except (OSError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{self.path} cannot be read at fields {start} to {stop - 1}: {reason}"
            ) from error


Values = Tensor | Rows
"""Fields ``(N, C, *shape)``, in memory or in a file."""


def selected(values: Values, rows: np.ndarray) -> Values:
    """The fields at a boolean mask or at indices; those in a file stay there."""
    return values.select(rows) if isinstance(values, Rows) else values[torch.as_tensor(rows)]
