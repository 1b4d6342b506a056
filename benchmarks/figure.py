"""The README's image: simulated maps above those of some checkpoints, on one colour scale.

``python benchmarks/figure.py CHECKPOINT... [--data RECIPE] [-o checkpoints/zoo.png]``. The maps are the
first ones of the test split and of seed 0, never chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from gen.checkpoint import load
from gen.simulate.recipe import read_recipe
from gen.simulate.run import load_simulations, simulate

TITLES = {"Copula": "analytic baseline", "CopulaGAN": "network", "LatentGAN": "network, vector latent"}


def simulated(recipe: Path, maps: int) -> tuple[Tensor, Tensor]:
    """The first map of each of the first test simulations in the interior, and their parameters."""
    folder = simulate(read_recipe(recipe), splits=("test",))
    data = load_simulations(folder, splits=("test",)).select(region="interior")
    firsts = [int((data.simulation == i).nonzero()[0, 0]) for i in data.simulation.unique()[:maps]]
    return data.values[firsts, 0], data.params[firsts].double()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, default=Path("recipes/data/convergence_2d_demo.yaml"))
    parser.add_argument("--maps", type=int, default=6)
    parser.add_argument("-o", "--out", type=Path, default=Path("checkpoints/zoo.png"))
    options = parser.parse_args()
    real, params = simulated(options.data, options.maps)
    rows = {"simulation": real}
    for folder in options.checkpoints:
        emulator = load(folder)
        title = TITLES.get(type(emulator).__name__, folder.name)
        rows[title if title not in rows else folder.name] = emulator.sample(params, seed=0).values[:, 0]
    low, high = torch.quantile(real.flatten(), torch.tensor([0.005, 0.995])).tolist()
    size = (1.3 * len(real) + 0.3, 1.3 * len(rows))
    figure, axes = plt.subplots(len(rows), len(real), figsize=size, layout="constrained", squeeze=False)
    for line, (title, values) in zip(axes, rows.items(), strict=True):
        for axis, field in zip(line, values, strict=True):
            axis.imshow(field, vmin=low, vmax=high, cmap="inferno", origin="lower")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize=8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
