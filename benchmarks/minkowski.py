"""All thresholds in one pass against quantimpy's loop, one thread each, same fields, same process.

python benchmarks/minkowski.py [--cells 256] [--thresholds 25] [--maps 16] [--repeats 7]
"""

from __future__ import annotations

import argparse

import torch
from turns import alternate

from evaluation.excursion import excursion_functionals
from evaluation.minkowski import Minkowski, quantimpy_functionals
from gen.fields import Grid


def smooth_field(n: int, maps: int, dim: int, radius: float) -> torch.Tensor:
    """Gaussian fields ``(maps, 1, n, ...)`` smoothed over a few cells, as maps of structure are."""
    grid = Grid((n,) * dim, float(n), "Mpc/h", periodic=True)
    axes = tuple(range(1, dim + 1))
    white = torch.randn(maps, *grid.shape, generator=torch.Generator().manual_seed(0))
    kernel = torch.exp(-(grid.wavenumber() ** 2) * radius**2 / 2).float()
    return torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * kernel, s=grid.shape, dim=axes)[:, None]


def compare(n: int, dim: int, maps: int, n_thresholds: int, repeats: int) -> None:
    field = smooth_field(n, maps, dim, 2.0)
    grid = Grid((n,) * dim, float(n), "Mpc/h", periodic=True)
    ours = Minkowski.from_reference(grid, field, n_thresholds, backend=excursion_functionals)
    theirs = Minkowski.from_reference(grid, field, n_thresholds, backend=quantimpy_functionals)
    # chi differs by definition: ours is the mean of both connectivities
    gap = (ours(field[:1]) - theirs(field[:1]))[:, :2].abs().max().item()
    calls = [lambda: theirs(field[:1]), lambda: ours(field[:1]), lambda: ours(field)]
    one, single, batch = alternate(calls, repeats)
    batch /= maps
    size = " x ".join([str(n)] * dim)
    print(f"{size}, {n_thresholds} thresholds, one thread; V0 and V1 agree to {gap:.1e}")
    print(f"  quantimpy loop     {one * 1e3:8.2f} ms a map")
    print(f"  ours, one map      {single * 1e3:8.2f} ms a map   {one / single:5.1f} times faster")
    print(f"  ours, {maps:3d} at once  {batch * 1e3:8.2f} ms a map   {one / batch:5.1f} times faster")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--thresholds", type=int, default=25)
    parser.add_argument("--maps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args.cells, 2, args.maps, args.thresholds, args.repeats)
    compare(64, 2, 64, args.thresholds, args.repeats)
    compare(64, 3, 2, args.thresholds, args.repeats)


if __name__ == "__main__":
    main()
