"""Tables of parameters: text with or without a header, or ``.npy``; columns are found by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gen.data.arrays import existing, open_array, refuse_web_page
from gen.errors import InputError


@dataclass(frozen=True)
class Table:
    """Columns of a file: names, if it told them, and cells as text (simulations may have names)."""

    path: Path
    names: tuple[str, ...]
    cells: np.ndarray  # (rows, columns) of str

    @classmethod
    def of(cls, path: Path, array: np.ndarray) -> Table:
        """A nameless table of a ``(rows, columns)`` array of numbers.

        Raises:
            InputError: for another shape or type.
        """
        if array.ndim != 2 or array.dtype.kind not in "iuf" or not array.size:
            raise InputError(
                f"{path}: a table of parameters needs numbers of shape (rows, columns), got shape "
                f"{array.shape} "
                f"of {array.dtype}"
            )
        return cls(path, (), np.array([[repr(x) for x in row] for row in array.tolist()]))

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def width(self) -> int:
        return self.cells.shape[1]

    def named(self, names: Sequence[str] | None) -> Table:
        """The table with ``names`` in the file's order, unless the file told its own.

        Raises:
            InputError: for no names at all, or names that do not fit.
        """
        if self.names:
            return self
        if not names:
            raise InputError(
                f"{self.path} has {self.width} columns without names; give their names in its order"
            )
        if len(names) != self.width or len(set(names)) != self.width:
            raise InputError(
                f"{self.path} has {self.width} columns without names; give as many different names, "
                f"got {', '.join(names)}"
            )
        return replace(self, names=tuple(names))

    def column(self, name: str) -> np.ndarray:
        """The text of a column.

        Raises:
            InputError: if it is missing.
        """
        if name not in self.names:
            raise InputError(f"{self.path}: column {name!r} is missing, it holds {', '.join(self.names)}")
        return self.cells[:, self.names.index(name)]

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """``(rows, len(names))`` float64 in the order asked, whatever the order in the file.

        Raises:
            InputError: for a missing column, or a cell that is not a finite number.
        """
        columns = [self._numbers(name) for name in names]
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0))

    def _numbers(self, name: str) -> np.ndarray:
        text = self.column(name)
        for row, cell in enumerate(text):
            if not _is_number(cell) or not np.isfinite(float(cell)):
                raise InputError(
                    f"{self.path}: row {row} of column {name!r} is {str(cell)!r}, but every parameter must "
                    "be a finite "
                    f"number; mend or drop that row"
                )
        return text.astype(np.float64)


def read_table(path: str | Path) -> Table:
    """Read a ``.csv``, ``.txt``, ``.dat`` or ``.npy`` table.

    Text columns are separated by commas or blanks. The last line of words above the numbers, with or
    without ``#``, names the columns if it has as many; other lines that start with ``#`` are comments.

    Raises:
        InputError: for a missing, empty or ragged file, or one that is not a table.
    """
    path = existing(path)
    if path.suffix == ".npy":
        return Table.of(path, open_array(path))
    header, rows = _header_and_rows(_text(path).splitlines())
    if not rows:
        raise InputError(
            f"{path} holds no rows of numbers; give one row of parameters per simulation or field"
        )
    width = len(rows[0])
    ragged = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if ragged is not None:
        raise InputError(
            f"{path}: row {ragged} has {len(rows[ragged])} columns, the first has {width}; "
            f"the file may be truncated, so mend that row"
        )
    names = tuple(header) if len(header) == width else ()
    if len(set(names)) != len(names):
        raise InputError(f"{path}: column names must differ, got {', '.join(names)}")
    return Table(path, names, np.array(rows))


def read_labels(path: str | Path) -> np.ndarray:
    """Simulation ids ``(n,)`` of a ``.npy`` array or of a text file with one id, number or name, a line.

    Raises:
        InputError: for a file that is not such a list.
    """
    path = existing(path)
    if path.suffix == ".npy":
        return labels(open_array(path))
    lines = [line.strip() for line in _text(path).splitlines()]
    return labels(np.array([line for line in lines if line and not line.startswith("#")], dtype=str))


def labels(ids: np.ndarray) -> np.ndarray:
    """Simulation ids, numbers or names, as text in which 3, 3.0 and "3" are the same."""
    text = ids.astype(str)
    return np.array(
        [str(int(float(t))) if _is_number(t) and float(t).is_integer() else t for t in text.tolist()]
    )


def number_labels(text: np.ndarray) -> np.ndarray:
    """Whole-number ids: the labels themselves if all are, else their ranks among the sorted labels."""
    try:
        return text.astype(np.int64)
    except ValueError:
        return np.unique(text, return_inverse=True)[1].reshape(-1)


def _text(path: Path) -> str:
    refuse_web_page(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text table; give .csv, .txt or .npy") from None


def _header_and_rows(lines: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    header: list[str] = []
    rows: list[list[str]] = []
    for line in lines:
        bare = line.strip().lstrip("#").strip()
        cells = [cell.strip() for cell in bare.split(",")] if "," in bare else bare.split()
        if not cells or not bare:
            continue
        if not rows and not any(map(_is_number, cells)):
            header = cells
        elif not line.strip().startswith("#"):
            rows.append(cells)
    return header, rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
