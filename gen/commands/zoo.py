"""``cosmozoo list``: the checkpoints at hand, and how well they did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.checkpoint_folder import read_config
from gen.errors import InputError

HEADER = ("checkpoint", "emulator", "field", "grid", "parameters", "power error", "excess pdf", "V2", "peaks")


def show(folder: Path) -> int:
    """Print the table; figures are those of interior cosmologies in each checkpoint's own report."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the folder that holds checkpoints")
    found = sorted(entry for entry in folder.iterdir() if (entry / "config.json").is_file())
    if not found:
        raise InputError(f"{folder} holds no checkpoints; `cosmozoo train` makes them")
    for line in table([HEADER, *(row(entry) for entry in found)]):
        print(line)
    print("power error: largest up to where the report judges; excess: distance to simulations over that")
    print("between simulations (1 is perfect); both at interior test cosmologies, - where not recorded")
    return 0


def row(folder: Path) -> tuple[str, ...]:
    config = read_config(folder)
    init = config["init"]
    grid, space = init.get("grid", {}), init.get("space", {})
    figures = headline(folder)
    return (
        folder.name,
        config["class"].rpartition(".")[2],
        str(init.get("field", "")),
        _grid(grid),
        ", ".join(space.get("names", ())) or "none",
        "-" if figures is None else f"{100 * figures['power_error']:.1f} %",
        *(_excess(figures, name) for name in ("pdf", "V2", "peaks")),
    )


def headline(folder: Path) -> dict[str, Any] | None:
    """The row of the checkpoint's own report for interior cosmologies, or the first region there is."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [r for r in document["headline"] if r["samples"] == folder.name] or document["headline"]
        return next((r for r in rows if r["region"] == "interior"), rows[0])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path} is not a report; make it again with `cosmozoo report {folder} --record`"
        ) from error


def _grid(grid: dict[str, Any]) -> str:
    cells = "x".join(str(n) for n in grid.get("shape", ()))
    side = grid.get("box_size", ("?",))
    edges = ", periodic" if grid.get("periodic") else ""
    return f"{cells}, {max(side)} {grid.get('unit', '')}{edges}"


def _excess(figures: dict[str, Any] | None, name: str) -> str:
    excess = (figures or {}).get("excess", {}).get(name)
    return "-" if excess is None or excess.get("mean") is None else f"{excess['mean']:.2f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
