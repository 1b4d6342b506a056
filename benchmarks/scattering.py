"""Scattering coefficients against the bare complex FFTs they are made of, one thread, same fields.

Without sampling coarse responses coarsely, J scales and L orientations need 1 + (J - 1) L transforms and
J L + J (J - 1) / 2 L^2 inverse ones on the full lattice.

python benchmarks/scattering.py [--cells 128] [--maps 8] [--repeats 7]
"""

from __future__ import annotations

import argparse

import torch
from turns import alternate

from evaluation.scattering import Scattering
from gen.fields import Grid


def compare(n: int, dim: int, maps: int, repeats: int) -> None:
    grid = Grid((n,) * dim, 100.0, "Mpc/h", periodic=True)
    field = torch.randn(maps, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    scattering = Scattering(grid)
    axes = tuple(range(2, dim + 2))
    modes = torch.fft.fftn(field, dim=axes)
    ours, bare = alternate([lambda: scattering(field), lambda: torch.fft.ifftn(modes, dim=axes)], repeats)
    scales, orientations = scattering.n_scales, len(scattering.directions)
    transforms = 1 + (2 * scales - 1) * orientations + len(scattering.pairs) * orientations**2
    ours, bare = ours / maps * 1e3, bare * transforms / maps * 1e3
    print(f"{' x '.join([str(n)] * dim)}, {scales} scales, {orientations} orientations, {maps} maps at once")
    print(f"  ours               {ours:8.2f} ms a map")
    print(f"  {transforms:4d} bare FFTs     {bare:8.2f} ms a map   ours costs {ours / bare:.2f} of them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=128)
    parser.add_argument("--maps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args.cells, 2, args.maps, args.repeats)
    compare(64, 2, 4 * args.maps, args.repeats)
    compare(32, 3, args.maps, args.repeats)


if __name__ == "__main__":
    main()
