"""Scalars of a run as CSV and TensorBoard files that a resumed run continues."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from gen.io.atomic import write_text


class CsvLog:
    """A table with one row per logged step; rows from ``step`` on are dropped, they will come again."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns: list[str] = []
        rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                # A kill can cut the last row short: what follows the newline of a whole row is complete.
                rows = [row for row in reader if _whole(row) and int(row["step"]) <= step]
                self.columns = list(reader.fieldnames or [])
        if rows:
            write_text(path, self._text(rows, header=True))
        else:
            path.unlink(missing_ok=True)
            self.columns = []

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in scalars.items()}}
        new = [name for name in row if name not in self.columns]
        if new and self.columns:
            self._widen(new)
        elif new:
            self.columns = list(row)
        header = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            file.write(self._text([row], header=header))

    def _widen(self, new: list[str]) -> None:
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.columns += new
        write_text(self.path, self._text(rows, header=True))

    def _text(self, rows: list[dict[str, str]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _whole(row: Mapping[str, str | None]) -> bool:
    return None not in row.values() and (row.get("step") or "").isdigit()


class Logs:
    """``<folder>/<name>.csv`` and TensorBoard event files of the same scalars."""

    def __init__(self, folder: Path, step: int) -> None:
        # TensorBoard takes a second to import, which a dry run need not spend.
        from torch.utils.tensorboard.writer import SummaryWriter

        self.tables = {name: CsvLog(folder / f"{name}.csv", step) for name in ("training", "validation")}
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, table: str, step: int, scalars: Mapping[str, float]) -> None:
        self.tables[table].add(step, scalars)
        for name, value in scalars.items():
            self.board.add_scalar(f"{table}/{name}", value, step)

    def close(self) -> None:
        self.board.close()
