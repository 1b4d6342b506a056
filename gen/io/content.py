"""What the writer of a format is given, and what it does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from types import TracebackType

#: Bytes written at a time.
BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class Content:
    """What a file is to hold: values of ``shape``, ``n_params`` numbers a row, attributes, columns.

    ``chunks``: of the values where the format has any, else whole rows.
    """

    shape: tuple[int, ...]
    n_params: int
    told: dict[str, Any]
    columns: dict[str, np.ndarray]
    chunks: tuple[int, ...] | None = None


class Writer(Protocol):
    """Takes blocks of rows in order; complete when its context ends."""

    def write(self, values: np.ndarray, params: np.ndarray) -> None: ...

    def __enter__(self) -> Writer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def rows_within(size: int, shape: tuple[int, ...]) -> int:
    """How many float32 rows of an array of ``shape`` fit in ``size`` bytes, at least 1 and at most all."""
    return min(shape[0], max(1, size // (4 * math.prod(shape[1:]))))


def encode(told: Mapping[str, Any]) -> str:
    """Attributes as one JSON text, for formats that hold text only."""
    return json.dumps(told, sort_keys=True)
