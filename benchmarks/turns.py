"""Timing for the benchmarks: calls in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def alternate(
    calls: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Median time of each call by ``clock``, the CPU time of this process, after one turn of warming up."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for i, call in enumerate(calls):
            start = clock()
            call()
            if turn:
                times[i].append(clock() - start)
    return [statistics.median(t) for t in times]
