"""HI boxes of emulators against the particle mesh that they stand for, and halos painted in 2LPT, in turns.

python benchmarks/hi.py [CHECKPOINT ...] [--data recipes/data/hi_3d.yaml] [--batches 1 8 32] [--repeats 5]

Without a checkpoint a fresh network of ``recipes/hi_3d_wgan_gp.yaml`` and the copula beneath it are fitted to
a few stand-ins: times do not depend on what they learnt. The mesh makes one box as ``cosmozoo simulate``
does. Times are medians over turns in which every call comes once, or over and over for 0.3 s if it is short.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from particle_mesh import clock
from turns import alternate

from gen.checkpoint import load
from gen.config import load_recipe
from gen.emulators.base import Emulator
from gen.emulators.copula_gan import CopulaGAN
from gen.noise import sample_generator
from gen.simulate.hi import HI
from gen.simulate.hi_painting import PaintedHI
from gen.simulate.recipe import read_recipe
from gen.simulate.theory import Cosmology
from gen.training.base import TrainingRecipe

FRESH = Path("recipes/hi_3d_wgan_gp.yaml")
POINT = (0.3, 0.8, 3.0)
"""Omega_m, sigma_8, z."""
LEAST = 0.3
"""Seconds of a call in its turn."""


def fresh() -> dict[str, Emulator]:
    """A network that has learnt nothing, and its copula."""
    recipe = load_recipe(TrainingRecipe, FRESH).value
    few = recipe.data.source.rehearse()
    few = few.take(torch.arange(min(8, len(few))))
    network = recipe.emulator(few.grid, few.space)
    network.fit(few)
    copula = {"copula": network.copula} if isinstance(network, CopulaGAN) else {}
    return {"network": network.eval()} | copula


def generate(emulator: Emulator, batch: int, device: str, *, low: bool = False) -> None:
    """A batch of boxes, from their seeds on."""
    params = torch.tensor([POINT], device=device).expand(batch, -1)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=low):
        emulator.generate(params, [sample_generator(0, i) for i in range(batch)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="*")
    parser.add_argument("--data", type=Path, default=Path("recipes/data/hi_3d.yaml"))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of the emulators and of the mesh")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_recipe(args.data)
    source, grid, cosmo, z = recipe.source, recipe.grid, Cosmology(*POINT[:2]), POINT[2]
    if not isinstance(source, HI):
        parser.error(f"{args.data} is no recipe of HI boxes")
    emulators = {p.name: load(p) for p in args.checkpoints} if args.checkpoints else fresh()
    calls: dict[str, Callable[[], object]] = {
        "particle mesh": lambda: source.fields(cosmo, z, grid, 1, args.device),
        "painting": lambda: PaintedHI(source).fields(cosmo, z, grid, 1),
    }
    boxes = dict.fromkeys(calls, 1)
    for name, emulator in emulators.items():
        emulator.to(args.device)
        for low in (False, True) if any(p.requires_grad for p in emulator.parameters()) else (False,):
            for batch in args.batches:
                call = f"{name}, {batch}, {'bfloat16' if low else 'float32'}"
                calls[call] = partial(generate, emulator, batch, args.device, low=low)
                boxes[call] = batch
    with torch.no_grad():
        times = alternate(list(calls.values()), args.repeats, lambda: clock(args.device), LEAST)
    a_box = {name: t / boxes[name] for name, t in zip(calls, times, strict=True)}
    truth = a_box["particle mesh"]
    print(f"HI of {'x'.join(map(str, grid.shape))} cells, {args.device}, one thread, {args.repeats} turns")
    print("  name, boxes at a time, precision")
    for name, t in a_box.items():
        print(f"  {name:36s} {1e3 * t:9.1f} ms a box, {truth / t:8.1f} times as fast as the mesh")


if __name__ == "__main__":
    main()
