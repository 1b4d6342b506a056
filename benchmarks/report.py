"""The standard report on two files of maps: time, and the memory of its largest process.

    python benchmarks/report.py --side 128 -n 512
    python benchmarks/report.py --side 256 -n 10000 -o big

Lognormal convergence maps of one law, 16 of each "simulation" in the reference. The files are written as a
stream and judged by `cosmozoo report --samples --reference`, as a user would.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gen.fields import Fields, Grid, ParameterSpace
from gen.io import write_fields
from gen.noise import sample_generator
from gen.simulate.lognormal import lognormal_convergence
from gen.simulate.theory import Cosmology

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
PER_BOX = 16


def maps(grid: Grid, n: int, seed: int) -> Iterator[Fields]:
    params = torch.tensor([[0.3, 0.8]], dtype=torch.float64)
    for start in tqdm(range(0, n, PER_BOX), desc="maps written", unit_scale=PER_BOX, disable=None):
        generators = [sample_generator(seed, i, "benchmark") for i in range(start, min(start + PER_BOX, n))]
        values = lognormal_convergence(Cosmology(0.3, 0.8), grid, 1.0, generators)
        yield Fields.of(values, params.expand(len(values), 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=128, help="cells")
    parser.add_argument("-n", type=int, default=512, help="maps on either side")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, default=Path("report_benchmark"))
    args = parser.parse_args()
    grid = Grid((args.side, args.side), 3.5, "deg", False)
    args.out.mkdir(parents=True, exist_ok=True)
    files = [args.out / name for name in ("reference.h5", "samples.h5")]
    boxes = np.arange(args.n) // PER_BOX
    for seed, (path, simulation) in enumerate(zip(files, (boxes, None), strict=True)):
        if not path.exists():
            told = {"field": "convergence", "units": "1"}
            write_fields(path, maps(grid, args.n, seed), args.n, grid, SPACE, told, simulation=simulation)
    command = ["report", "--reference", str(files[0]), "--samples", str(files[1]), "-o", str(args.out)]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "gen.cli", *command, "--processes", str(args.processes)], check=True
    )
    wall = time.perf_counter() - start
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{args.n} + {args.n} maps of {args.side}^2 on {args.processes} processes: {wall:.0f} s, "
        f"{1000 * wall / 2 / args.n:.0f} ms a map; largest process {largest:.1f} GiB; "
        f"the files hold {sum(f.stat().st_size for f in files) / 2**30:.2f} GiB"
    )
    words = json.loads((args.out / "report.json").read_text(encoding="utf-8"))["words"]
    print(f"{sum(w['differs'] for w in words)} of {len(words)} statistics of equal laws called different")


if __name__ == "__main__":
    main()
