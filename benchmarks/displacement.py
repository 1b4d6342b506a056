"""An emulator of displacements against the particle mesh that it stands for, and 2LPT, in turns.

python benchmarks/displacement.py [checkpoints/nbody_3d_displacement] [--boxes 4] [--repeats 5] [--device cpu]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from particle_mesh import clock
from turns import alternate

from gen.checkpoint import load
from gen.commands.laboratory import Laboratory, check_emulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("checkpoints/nbody_3d_displacement"))
    parser.add_argument("--boxes", type=int, default=4, help="at a time")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    emulator = check_emulator(load(args.checkpoint).to(args.device), str(args.checkpoint))
    laboratory = Laboratory(emulator, {"Omega_m": 0.3, "sigma_8": 0.8, "z": 0.0})
    boxes = laboratory.boxes(0, args.boxes).to(args.device)
    maps = laboratory.maps()

    def low_precision() -> None:
        with torch.autocast(args.device, dtype=torch.bfloat16):
            maps["emulator"](boxes)

    calls = {name: (lambda of=of: of(boxes)) for name, of in maps.items()}
    calls["emulator, bfloat16"] = low_precision
    with torch.no_grad():
        found = dict(
            zip(calls, alternate(list(calls.values()), args.repeats, lambda: clock(args.device)), strict=True)
        )
    truth = found["particle mesh"]
    cells = "x".join(map(str, emulator.grid.shape))
    print(f"{cells} particles, {args.boxes} boxes at a time, {args.device}, one thread")
    for name, t in found.items():
        print(
            f"  {name:20s} {1e3 * t / args.boxes:9.1f} ms a box, {truth / t:8.2f} times as fast as the mesh"
        )
    print(f"  1000 boxes in {1000 * min(found['emulator'], found['emulator, bfloat16']) / args.boxes:.1f} s")


if __name__ == "__main__":
    main()
