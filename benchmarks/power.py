"""P(k) against powerbox and against the bare real FFT, one thread each, same fields, same process.

python benchmarks/power.py [--cells 256] [--maps 16] [--repeats 15]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from powerbox import get_power
from turns import alternate

from evaluation.power import PowerSpectrum
from gen.fields import Grid


def compare(n: int, dim: int, maps: int, repeats: int) -> None:
    grid = Grid((n,) * dim, 100.0, "Mpc/h", periodic=True)
    field = torch.randn(maps, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    spectrum = PowerSpectrum(grid)
    first = field[0, 0].numpy()  # single precision, as fields are kept
    axes = tuple(range(2, dim + 2))

    def powerbox() -> np.ndarray:
        return get_power(first, grid.box_size, bins=spectrum.edges, dimensionless=False, nthreads=1).power

    gap = np.abs(powerbox() / spectrum(field[:1])[0].numpy() - 1).max()
    calls = [
        powerbox,
        lambda: spectrum(field[:1]),
        lambda: spectrum(field),
        lambda: torch.fft.rfftn(field, dim=axes),
    ]
    theirs, one, batch, fft = alternate(calls, repeats)
    batch, fft = batch / maps, fft / maps
    print(f"{' x '.join([str(n)] * dim)}, {len(spectrum.abscissa)} shells, one thread; agree to {gap:.1e}")
    print(f"  powerbox           {theirs * 1e3:8.3f} ms a map")
    print(f"  ours, one map      {one * 1e3:8.3f} ms a map   {theirs / one:5.1f} times faster")
    print(f"  ours, {maps:3d} at once  {batch * 1e3:8.3f} ms a map   {theirs / batch:5.1f} times faster")
    print(f"  bare rfftn         {fft * 1e3:8.3f} ms a map   ours costs {batch / fft:.2f} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--maps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args.cells, 2, args.maps, args.repeats)
    compare(64, 2, 4 * args.maps, args.repeats)
    compare(64, 3, 2, args.repeats)


if __name__ == "__main__":
    main()
