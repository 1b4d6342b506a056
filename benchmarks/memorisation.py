"""Does the copying test see a network that was trained too long on too few maps?

    python benchmarks/memorisation.py            # 32 training maps, and 2048 for comparison

A vector-latent WGAN-GP of the zoo is trained without augmentation on lognormal convergence maps of 32^2
cells, each a simulation of its own, and judged at the end by `evaluation.memorisation` against 512 held-out
maps.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from evaluation.base import Sample
from evaluation.memorisation import copying, diversity
from gen.checkpoint import load
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.latent_gan import LatentGAN
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.simulate.lognormal import lognormal_convergence
from gen.simulate.theory import Cosmology
from gen.training.base import TrainingRecipe, train
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

GRID = Grid((32, 32), 3.5, "deg", False)
N_HELD_OUT = 512


def maps(n: int, seed: int) -> torch.Tensor:
    generators = [sample_generator(seed, i, "memorisation") for i in range(n)]
    return lognormal_convergence(Cosmology(0.3, 0.8), GRID, 1.0, generators)


class Few(Source):
    """n training maps, and 64 for validation."""

    def __init__(self, n: int) -> None:
        self.n = n

    def load(self) -> SimulationSet:
        split = np.array(["train"] * self.n + ["validation"] * 64)
        values = maps(len(split), 0)
        n = len(values)
        return SimulationSet(
            GRID, ParameterSpace((), (), ()), values, torch.zeros(n, 0), torch.arange(n), split,
            np.full(n, "interior"), f"{self.n} lognormal maps",
        ).check()  # fmt: skip


def trained(n: int, steps: int, folder: Path) -> LatentGAN:
    recipe = TrainingRecipe(
        name="memorisation",
        data=FieldData(Few(n), batch_size=32, augment=False),
        emulator=partial(
            LatentGAN,
            latent_size=16,
            channels=(64, 32, 16),
            upsampling="nearest",
            critic_channels=(16, 32, 64),
        ),
        loss=WassersteinGP(n_critic=2),
        optimiser=Adam(rate=1e-3, critic_rate=1e-3, betas=(0.0, 0.9)),
        max_steps=steps,
        ema_decay=0.99,
        validate_every=steps,
        validation_maps=64,
        save_every=steps,
    )
    train(recipe, folder)
    emulator = load(folder / "checkpoint")
    assert isinstance(emulator, LatentGAN)
    return emulator


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, nargs="+", default=[32, 2048])
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    held_out = Sample(maps(N_HELD_OUT, 1))
    for n in args.maps:
        with TemporaryDirectory() as folder:
            emulator = trained(n, args.steps, Path(folder) / "run")
        samples = Sample(emulator.sample(torch.zeros(1, 0), n=N_HELD_OUT, seed=1).values)
        training = Sample(Few(n).load().select(split="train").values)
        found, among = copying(held_out, samples, training, GRID), diversity(held_out, samples, GRID)
        near, held = np.median(found.nearest_samples), np.median(found.nearest_held_out)
        print(
            f"{n} training maps, {args.steps} steps: nearer to them than held-out maps in {found.closer:.0%} "
            f"of pairs (p {found.p:.3f}), {found.copies:.0%} nearer than any held-out map; correlation with "
            f"the nearest training map {near:.2f}, of held-out maps {held:.2f}; "
            f"{among.duplicates:.0%} have a twin (p of variety {among.p:.3f})"
        )


if __name__ == "__main__":
    main()
