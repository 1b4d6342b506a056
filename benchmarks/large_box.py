"""Memory and speed of `cosmozoo apply` on a box that no memory needs to hold.

    python benchmarks/large_box.py                       # 512^3 particles, until 4 chunks are made
    python benchmarks/large_box.py --cells 256 --all     # to the end

The displacements given are white noise, which costs what any other costs. The command runs as a user would
run it, in one process with one thread, and is interrupted like one; what it would take in all is what a chunk
took times their number.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gen.checkpoint import load
from gen.emulators.chunks import local, pieces


def write_noise(path: Path, channels: int, cells: int) -> None:
    """White noise of unit variance, a plane at a time."""
    shape = (1, channels, cells, cells, cells)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    rng = np.random.default_rng(0)
    for c in range(channels):
        for i in range(cells):
            out[0, c, i] = rng.standard_normal((cells, cells), dtype=np.float32)
    out.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("checkpoints/nbody_3d_displacement"))
    parser.add_argument("--cells", type=int, default=512, help="of the box, along an axis")
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--pieces", type=int, default=4, help="to wait for")
    parser.add_argument("--all", action="store_true", help="wait for all")
    options = parser.parse_args()
    emulator = local(load(options.checkpoint))
    total = len(pieces(emulator, (options.cells,) * 3, options.chunk))
    wanted = total if options.all else min(options.pieces, total)
    with TemporaryDirectory() as folder:
        coarse, out = Path(folder) / "given.npy", Path(folder) / "made.npy"
        write_noise(coarse, emulator.grid.dim, options.cells)
        command = ["apply", str(options.checkpoint), "--coarse", str(coarse), "--params"]
        command += [
            "Omega_m=0.3,sigma_8=0.8",
            "--chunk",
            str(options.chunk),
            "--processes",
            "1",
            "-o",
            str(out),
        ]
        begun, first = time.perf_counter(), 0.0
        process = subprocess.Popen(
            [sys.executable, "-m", "gen.cli", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        scratch = out.with_name(f".{out.name}.chunks")
        while process.poll() is None:
            time.sleep(0.2)
            done = len(list(scratch.glob("0_*.npy"))) if scratch.is_dir() else 0
            if done and not first:
                first = time.perf_counter()
            if done >= wanted and not options.all:
                process.send_signal(signal.SIGINT)
                break
        process.wait()
        wall = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    each = (time.perf_counter() - first) / max(1, wanted - 1)
    print(
        f"{options.cells}^3 particles in {total} chunks of {options.chunk}^3: {wanted} made in {wall:.0f} s, "
        f"{each:.1f} s each after the first, {first - begun:.0f} s until then; in all "
        f"{(first - begun + (total - 1) * each) / 60:.0f} minutes on one core; largest memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
