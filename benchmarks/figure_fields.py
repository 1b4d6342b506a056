"""The README's image of neutral hydrogen and dust: baselines, network, simulation.

``python benchmarks/figure_fields.py --hi CHECKPOINT --matter CHECKPOINT --dust CHECKPOINT
[-o checkpoints/fields.png]``. The first interior test simulations of each data recipe, never chosen; one
colour scale a row, but for matter, which is brought to the mean and scatter of its row's simulation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import gen
from gen.commands.painted import painting
from gen.commands.pairs import MISSING_MODES, paired
from gen.data.base import SimulationSet
from gen.emulators.coarse_diffusion import CoarseDiffusion
from gen.emulators.copula_gan import CopulaGAN
from gen.io import FieldFile
from gen.noise import sample_generator
from gen.simulate.recipe import read_recipe
from gen.simulate.run import load_simulations, simulate

HI, IN_MATTER, DUST = (
    Path(f"recipes/data/{name}.yaml") for name in ("hi_3d", "hi_in_matter_3d", "foreground_2d_iqu")
)


def first(recipe: Path, n: int) -> SimulationSet:
    folder = simulate(read_recipe(recipe), splits=("test",))
    return load_simulations(folder, splits=("test",)).select(region="interior").take(torch.arange(n))


def hydrogen(checkpoint: Path) -> dict[str, Tensor]:
    """log10 of the column through a quarter of the box, two boxes of each kind side by side."""
    test, emulator = first(HI, 2), gen.load(checkpoint)
    assert isinstance(emulator, CopulaGAN)
    kinds = {
        "copula": emulator.copula.sample(test.params, seed=0).values,
        "network": emulator.sample(test.params, seed=0).values,
        "simulation": test.values,
    }
    reference = FieldFile(
        test.values, test.params.double(), None, None, test.grid, test.space, {"field": "HI", "units": "1"}
    )
    kinds = {name: file.values[:] for name, file in painting(HI, reference, 0).items()} | kinds
    return {name: torch.cat([column(torch.as_tensor(x)) for x in values]) for name, values in kinds.items()}


def column(box: Tensor) -> Tensor:
    """log10 of the mean of a box ``(1, n, n, n)`` along a quarter of its last axis, ``(n, n)``."""
    return box[0, ..., : box.shape[-1] // 4].mean(-1).log10().T


def in_matter(checkpoint: Path) -> dict[str, Tensor]:
    """As ``hydrogen``, of one box, given its matter."""
    test, emulator = first(IN_MATTER, 1), gen.load(checkpoint)
    assert isinstance(emulator, CoarseDiffusion) and test.coarse is not None
    start = emulator.completed(test.params.float(), [sample_generator(0, 0)], test.coarse)
    draws = [emulator.sample(test.params, coarse=test.coarse, seed=seed).values for seed in (0, 1)]
    kinds = {MISSING_MODES: start, "network": draws[0], "another draw": draws[1], "simulation": test.values}
    made = {name: column(x[0].detach()) for name, x in kinds.items()}
    matter, simulated = column(test.coarse[0]), made["simulation"]
    scaled = (matter - matter.mean()) / matter.std() * simulated.std() + simulated.mean()
    return {"matter": scaled} | made


def dust(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """log10 I, and Q over the mean of I, of one patch of each kind."""
    test = first(DUST, 1)
    found = paired([checkpoint], test, 0)
    assert test.coarse is not None
    again = gen.load(checkpoint).sample(test.params, coarse=test.coarse, seed=1).values
    network = checkpoint.resolve().name
    made = {name.replace(network, "network"): file.values[:1] for name, file in found.samples.items()}
    order = [name for name in reversed(list(made)) if name != "network"]
    kinds = {name: torch.as_tensor(made[name]) for name in [*order, "network"]}
    kinds |= {"another draw": again, "simulation": test.values}
    unit = test.values[0, 0].mean()
    return (
        {name: (x[0, 0] / unit).log10() for name, x in kinds.items()},
        {name: x[0, 1] / unit for name, x in kinds.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hi", type=Path, required=True)
    parser.add_argument("--matter", type=Path, required=True)
    parser.add_argument("--dust", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, default=Path("checkpoints/fields.png"))
    options = parser.parse_args()
    rows = [hydrogen(options.hi), in_matter(options.matter), *dust(options.dust)]
    n = max(map(len, rows))
    shares = [2.0, 1.0, 1.0, 1.0]
    figure, axes = plt.subplots(
        len(rows), n, figsize=(2.0 * n, 2.1 * sum(shares)), layout="constrained", squeeze=False,
        height_ratios=shares,
    )  # fmt: skip
    for line, row in zip(axes, rows, strict=True):
        for axis in line[len(row) :]:
            axis.set_axis_off()
        low, high = torch.quantile(row["simulation"].flatten(), torch.tensor([0.003, 0.997])).tolist()
        for axis, (name, picture) in zip(line, row.items(), strict=False):
            axis.imshow(picture, vmin=low, vmax=high, cmap="inferno", origin="lower")
            axis.set(xticks=[], yticks=[])
            axis.set_title(name, fontsize=9)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
