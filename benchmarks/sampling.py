"""Sampling into a file against the bare forward pass of the same emulator, in turns in one run.

``python benchmarks/sampling.py [CHECKPOINT] [-n 2000]`` prints fields a second of the bare ``generate``
on ready parameters, of ``sample_to_file`` for each format (the checkpoint's loading included), and their
ratio. Times are those of the processor, so that a busy machine does not count; ``--wall`` takes the clock
on the wall, which also counts waiting for the disk. With ``--memory`` it also streams 100,000 fields and
prints by how much the peak memory grew over that of the first files.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from gen.checkpoint import load
from gen.emulators.base import Emulator
from gen.noise import sample_generator
from gen.sampling import sample_to_file

Clock = Callable[[], float]
FORMATS = (".h5", ".npy", ".npz", ".fits", ".zarr")


def middle(emulator: Emulator) -> dict[str, float]:
    space = emulator.space
    return {n: (a + b) / 2 for n, a, b in zip(space.names, space.low, space.high, strict=True)}


def bare(emulator: Emulator, n: int, clock: Clock) -> float:
    """Seconds of the forward pass alone: no file, nothing kept."""
    size = emulator.micro_batch
    params = emulator.space.table(middle(emulator)).float().expand(size, -1)
    begin = clock()
    with torch.no_grad():
        for start in range(0, n, size):
            emulator.generate(params, [sample_generator(0, start + i) for i in range(size)])
    return clock() - begin


def to_file(checkpoint: Path, emulator: Emulator, n: int, out: Path, clock: Clock) -> float:
    """Seconds of sampling into a file, loading the checkpoint included."""
    params = ",".join(f"{name}={value}" for name, value in middle(emulator).items()) or None
    begin = clock()
    sample_to_file(checkpoint, params, n, 0, out, overwrite=True)
    return clock() - begin


def in_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every run once a round, so that a busy moment of the machine strikes all alike."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=Path("checkpoints/convergence_2d_wgan_gp")
    )
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock: Clock = time.perf_counter if options.wall else time.process_time
    emulator = load(options.checkpoint)
    n = options.n - options.n % emulator.micro_batch
    with tempfile.TemporaryDirectory() as scratch:
        runs: dict[str, Callable[[], float]] = {"bare": lambda: bare(emulator, n, clock)}
        for suffix in FORMATS:
            out = Path(scratch) / f"maps{suffix}"
            runs[suffix] = lambda out=out: to_file(options.checkpoint, emulator, n, out, clock)
        bare(emulator, 64, clock)
        taken = in_turns(runs, options.rounds)
        reference = median(taken["bare"])
        what = f"{n} fields of {emulator.grid.shape}"
        print(f"{options.checkpoint.name}: {what}, one thread, {options.rounds} rounds")
        print(f"  bare forward {n / reference:8.0f} fields/s")
        for suffix in FORMATS:
            ratios = [one / other for one, other in zip(taken["bare"], taken[suffix], strict=True)]
            rate = n / median(taken[suffix])
            print(f"  {suffix:<12} {rate:8.0f} fields/s, {median(ratios):.3f} of the bare forward")
        if options.memory:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            to_file(options.checkpoint, emulator, 100_000, Path(scratch) / "many.h5", clock)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
            print(f"  100,000 fields: peak memory grew by {grown / 1024:.1f} MiB over that of {n} fields")


if __name__ == "__main__":
    main()
