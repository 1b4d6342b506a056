"""Timing for the benchmarks: calls in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence


def alternate(
    calls: Sequence[Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
    least: float = 0.0,
) -> list[float]:
    """Median time of each call by ``clock``, the CPU time of this process, after one turn of warming up.

    least: seconds that a call fills in its turn, over and over if need be, so that it finds the caches as
        itself left them and not as the one before.
    """

    def timed(call: Callable[[], object], n: int) -> float:
        start = clock()
        for _ in range(n):
            call()
        return (clock() - start) / n

    first = [timed(call, 1) for call in calls]
    often = [max(1, math.ceil(least / t)) if t > 0 else 1 for t in first]
    turns = [[timed(call, n) for call, n in zip(calls, often, strict=True)] for _ in range(repeats)]
    return [statistics.median(t) for t in zip(*turns, strict=True)]
