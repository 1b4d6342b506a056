"""Every statistic of ``evaluation`` against named peers on the same fields, one thread, one process.

    python -m benchmarks.statistics [-o benchmarks/statistics.md] [--repeats 7] [--only bispectrum]

All calls of a case are timed in turns by the CPU time of the process, medians over turns. Peers that are not
among the dependencies are optional: kymatio, Pylians, scikit-image, dcor. A bare transform is no peer, but
the part of the work that no implementation can avoid.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy
import torch
from threadpoolctl import threadpool_limits

from benchmarks.statistics import one_point, shapes, three_points, two_points, two_samples
from benchmarks.statistics.table import Case, markdown

CASES: dict[str, list[Callable[[], Case]]] = {
    "power": [
        lambda: two_points.power(256, 2, 16),
        lambda: two_points.power(256, 2, 1),
        lambda: two_points.power(64, 2, 64),
        lambda: two_points.power(64, 3, 2),
    ],
    "pairs": [lambda: two_points.pairs(256, 2, 16), lambda: two_points.pairs(64, 3, 2)],
    "polarisation": [
        lambda: two_points.polarisation(256, 16, "periodic"),
        lambda: two_points.polarisation(256, 16, "tapered"),
        lambda: two_points.polarisation(256, 16, "pure"),
    ],
    "multipoles": [lambda: two_points.multipoles(64, 2)],
    "angles": [lambda: two_points.angle_dispersion(128, 8)],
    "pdf": [lambda: one_point.pdf(256, 2, 16), lambda: one_point.pdf(64, 3, 2)],
    "decades": [lambda: one_point.log_pdf(64, 2), lambda: one_point.column_density(64, 2)],
    "moments": [
        lambda: one_point.moments(256, 2, 16),
        lambda: one_point.smoothed_moments(256, 2, 16),
        lambda: one_point.smoothed_moments(64, 3, 2),
    ],
    "minkowski": [
        lambda: shapes.minkowski(256, 2, 16),
        lambda: shapes.minkowski(256, 2, 1),
        lambda: shapes.minkowski(64, 2, 64),
        lambda: shapes.minkowski(64, 3, 2),
    ],
    "peaks": [lambda: shapes.peaks(256, 2, 16), lambda: shapes.peaks(64, 3, 2)],
    "voids": [lambda: shapes.voids(256, 2, 16), lambda: shapes.voids(64, 3, 2)],
    "bispectrum": [
        lambda: three_points.bispectrum(256, 2, 8),
        lambda: three_points.bispectrum(64, 3, 2),
        lambda: three_points.bispectrum_by_angle(64, 2),
    ],
    "scattering": [
        lambda: three_points.scattering(128, 2, 8),
        lambda: three_points.scattering(64, 2, 32),
        lambda: three_points.scattering(32, 3, 2),
    ],
    "three_point": [
        lambda: three_points.three_point(64, 2, 16, 12.0),
        lambda: three_points.three_point(32, 3, 2, 5.0),
    ],
    "ks": [lambda: two_samples.kolmogorov_smirnov(256, 20, 99), lambda: two_samples.pixels(64, 64, 99)],
    "anderson": [lambda: two_samples.anderson(256, 20, 99)],
    "energy": [lambda: two_samples.energy(256, 1, 99), lambda: two_samples.energy(256, 20, 99)],
    "classifier": [lambda: two_samples.classifier(256, 20, 19)],
}

LEGEND = """Times are ms of CPU of one field, in the last rows of one test of two samples; what takes many
fields at once is given those of the row at once. The largest difference is relative to each number, or to the
largest of its curve where a curve changes sign; it is empty where the peer measures something else."""


def rows(names: list[str], repeats: int) -> Iterator[tuple[str, ...]]:
    for name in names:
        for case in CASES[name]:
            yield from case().rows(repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, help="write the table here as Markdown")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with threadpool_limits(1):
        for row in rows(args.only, args.repeats):
            print(" | ".join(row), flush=True)
            found.append(row)
    if args.out:
        versions = f"torch {torch.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}"
        busy = f"one thread, {os.cpu_count()} cores under a load of {os.getloadavg()[1]:.1f}"
        made = f"`python -m benchmarks.statistics -o {args.out}`: {busy}; {versions}"
        args.out.write_text(f"# Statistics against peers\n\n{made}.\n\n{LEGEND}\n\n{markdown(found)}\n")


if __name__ == "__main__":
    main()
