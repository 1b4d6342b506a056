"""Bispectra against the bare real FFTs they are made of, one thread each, same fields, same process.

An estimator by transforms needs one of the map and an inverse one for each shell, on the full lattice.

python benchmarks/bispectrum.py [--cells 256] [--maps 8] [--repeats 7]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from turns import alternate

from evaluation.bispectrum import Bispectrum
from gen.fields import Grid


def compare(n: int, dim: int, maps: int, repeats: int) -> None:
    grid = Grid((n,) * dim, 100.0, "Mpc/h", periodic=True)
    field = torch.randn(maps, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    axes = tuple(range(2, dim + 2))
    modes = torch.fft.rfftn(field, dim=axes)
    kinds = [
        Bispectrum.equilateral(grid),
        Bispectrum.isosceles(grid, grid.k_nyquist / 3),
        Bispectrum.squeezed(grid),
    ]
    calls: list[Callable[[], object]] = [
        lambda: torch.fft.rfftn(field, dim=axes),
        lambda: torch.fft.irfftn(modes, s=grid.shape, dim=axes),
        *(lambda kind=kind: kind(field) for kind in kinds),
    ]
    forward, inverse, *ours = (t / maps for t in alternate(calls, repeats))
    print(f"{' x '.join([str(n)] * dim)}, {maps} maps at once, one thread")
    for kind, found in zip(kinds, ours, strict=True):
        n_shells = len({shell for sides in kind.triangles for shell in sides})
        bare = forward + n_shells * inverse
        print(
            f"  {kind.name:24s} {len(kind.triangles):3d} bins  {found * 1e3:8.3f} ms a map   "
            f"bare FFTs {bare * 1e3:8.3f} ms   ours costs {found / bare:.2f} of them"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--maps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args.cells, 2, args.maps, args.repeats)
    compare(64, 2, 8 * args.maps, args.repeats)
    compare(64, 3, 2, args.repeats)


if __name__ == "__main__":
    main()
