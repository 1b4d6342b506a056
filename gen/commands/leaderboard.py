"""``cosmozoo leaderboard``: the checkpoints of a field ranked by their own reports; the README's table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen.checkpoint_folder import read_config
from gen.commands.zoo import table
from gen.errors import InputError
from gen.io.atomic import write_text

BEGIN, END = "<!-- leaderboard -->", "<!-- end of leaderboard -->"
REGION = "interior"


@dataclass(frozen=True)
class Entry:
    """What a checkpoint's own report says of it at interior cosmologies."""

    name: str
    trained: str
    title: str
    judged: tuple[str, str]  # data set and thresholds: only equal ones can be ranked together
    field: str
    row: Mapping[str, Any]
    statistics: tuple[str, ...]

    @property
    def score(self) -> float:
        """Root mean square excess over the power spectrum and the statistics that thresholds are set for."""
        return math.sqrt(
            sum(self.row["excess"][s]["mean"] ** 2 for s in self.statistics) / len(self.statistics)
        )


def leaderboard(folder: Path, field: str | None, readme: Path | None) -> int:
    """Print the ranking; with ``readme`` put it between the file's two markers as well."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the folder that holds checkpoints")
    boards = rank([e for e in map(entry, sorted(folder.iterdir())) if e is not None], field)
    if not boards:
        raise InputError(
            f"{folder} holds no checkpoint{f' of {field}' if field else ''} with a report of interior "
            "cosmologies; make one with `cosmozoo report CHECKPOINT --record`"
        )
    for board in boards:
        print("\n".join([board[0].title, *table([header(board), *rows(board)])]), end="\n\n")
    if readme is not None:
        insert(readme, "\n\n".join(markdown(board) for board in boards))
        print(f"the table is in {readme}")
    return 0


def entry(folder: Path) -> Entry | None:
    """None for what is no checkpoint, or has no report of held-out interior cosmologies.

    Raises:
        InputError: for a report that is damaged.
    """
    if not (folder / "config.json").is_file() or not (folder / "report.json").is_file():
        return None
    provenance = read_config(folder)["provenance"]
    record = provenance.get("validation") or {}
    try:
        document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        found = [r for r in document["headline"] if (r["samples"], r["region"]) == (folder.name, REGION)]
        if not found:
            return None
        told, thresholds = document["provenance"]["data"], document["thresholds"]
        judges = f"{told.get('set') or told.get('file')} by {thresholds['name']}"
        title = f"{document['field']['name']}, judged on {judges}"
        judged = (str(told.get("cache") or told), thresholds["sha256"])
        asked = ["power", *(s for s, e in found[0]["excess"].items() if e["threshold"] is not None)]
        if any(found[0]["excess"][s]["mean"] is None for s in asked):
            return None
        more = " more" if provenance.get("start") else ""
        trained = f"{record['step']:,} steps{more}" if "step" in record else "closed form"
        return Entry(folder.name, trained, title, judged, document["field"]["name"], found[0], tuple(asked))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / 'report.json'} is not a report; make it again with "
            f"`cosmozoo report {folder} --record`"
        ) from error


def rank(entries: Sequence[Entry], field: str | None) -> list[list[Entry]]:
    """One board for each field, data set and thresholds, its best entry first."""
    boards: dict[tuple[str, ...], list[Entry]] = {}
    for e in entries:
        if field in (None, e.field):
            boards.setdefault((e.field, *e.judged, *e.statistics), []).append(e)
    return [sorted(board, key=lambda e: e.score) for board in boards.values()]


def header(board: Sequence[Entry]) -> list[str]:
    power, *others = board[0].statistics
    names = [f"excess {power}", *others]
    return ["rank", "checkpoint", "trained", "power error", "largest", *names, "differs"]


def rows(board: Sequence[Entry]) -> list[list[str]]:
    return [[str(i), e.name, e.trained, *_figures(e)] for i, e in enumerate(board, 1)]


def _figures(e: Entry) -> list[str]:
    row = e.row
    largest, error = row["power_error"], row["power_error_std"]
    return [
        f"{100 * row['power_error_mean']:.1f} %",
        f"{100 * largest:.1f} ± {100 * error:.1f} %",
        *(f"{row['excess'][s]['mean']:.2f}" for s in e.statistics),
        f"{row['n_differs']} of {row['n_words']}",
    ]


def markdown(board: Sequence[Entry]) -> str:
    """The board as a Markdown table, with what simulations score against each other as its last row."""
    lines = [header(board), ["---"] * len(header(board))]
    for rank_, name, *cells in rows(board):
        lines.append([rank_, f"`{name}`", *cells])
    floor = board[0].row["power_error_floor"]
    ones = ["1"] * len(board[0].statistics)
    lines.append(["", "*simulations against simulations*", "", "", f"{100 * floor:.1f} %", *ones, ""])
    return "\n".join([f"{board[0].title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        InputError: if the file cannot be read or lacks the markers.
    """
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); give the README to write the table into"
        ) from error
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} lacks the lines {BEGIN} and {END} between which the table goes; add them")
    write_text(path, f"{before}{BEGIN}\n{text}\n{END}{after}")
