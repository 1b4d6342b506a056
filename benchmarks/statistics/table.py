"""One statistic against its peers: timed in turns in one process, compared, laid out as a table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from benchmarks.turns import alternate

Call = Callable[[], object]
Both = Callable[[], tuple[object, object]]

_LEAST = 0.02  # seconds that each call fills in its turn
HEADER = ("statistic", "fields", "ours [ms]", "peer", "peer [ms]", "peer / ours", "largest difference")


@dataclass(frozen=True)
class Peer:
    """What does the same work, or a part of it that no implementation can avoid.

    Args:
        name: of the peer, with what differs.
        run: its whole work; None: not installed.
        n: fields in one run.
        same: our numbers and its own in one definition, not timed; None: the definitions differ.
    """

    name: str
    run: Call | None
    n: int = 1
    same: Both | None = None

    def gap(self) -> str:
        if self.same is None:
            return ""
        gap = difference(*self.same())
        return f"{gap:.0e}" if gap else "none"


@dataclass(frozen=True)
class Case:
    """One statistic on ``n`` fields in one call, with its peers."""

    statistic: str
    fields: str
    run: Call
    n: int
    peers: Sequence[Peer]

    def rows(self, repeats: int) -> list[tuple[str, ...]]:
        """One for each peer; times in ms a field, medians over turns."""
        there = [p for p in self.peers if p.run is not None]
        calls = [self.run, *(p.run for p in there if p.run is not None)]
        ours, *theirs = alternate(calls, repeats, least=_LEAST)
        taken = dict(zip((p.name for p in there), theirs, strict=True))
        ours /= self.n
        rows = []
        for peer in self.peers:
            row = (self.statistic, self.fields, _short(1e3 * ours), peer.name)
            if peer.run is None:
                rows.append((*row, "not installed", "", ""))
                continue
            time = taken[peer.name] / peer.n
            rows.append((*row, _short(1e3 * time), _short(time / ours), peer.gap()))
        return rows


def difference(ours: object, theirs: object) -> float:
    """Largest |ours - theirs|, relative to each of theirs, or to the largest where a curve changes sign.

    Curves lie along the last axis.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (ours, theirs))
    scale = np.where((b > 0).all(-1, keepdims=True), b, np.abs(b).max(-1, keepdims=True))
    return float((np.abs(a - b) / np.where(scale > 0, scale, 1)).max())


def optional(name: str) -> ModuleType | None:
    """A peer that need not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def size(shape: Sequence[int], n: int) -> str:
    """ "256^2, 16 maps"."""
    kind = "map" if len(shape) == 2 else "box"
    plural = {"map": "maps", "box": "boxes"}[kind]
    return f"{n} {kind if n == 1 else plural} of {shape[0]}^{len(shape)}"


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(r) + " |" for r in (HEADER, ("---",) * len(HEADER), *rows)]
    return "\n".join(lines)


def _short(x: float) -> str:
    """Three digits without an exponent."""
    return f"{x:.3g}" if x < 100 else f"{x:,.0f}"
