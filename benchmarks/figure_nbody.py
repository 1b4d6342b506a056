"""The README's image of N-body emulators: what they start from, what they make, and the simulation.

``python benchmarks/figure_nbody.py CHECKPOINT=RECIPE... [-o checkpoints/nbody.png]``, each with the data
recipe that it was made for. Density in a slab of an eighth of the box, of the first interior test
simulation, never chosen; one colour scale a row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from gen.commands.pairs import paired
from gen.simulate.recipe import read_recipe
from gen.simulate.run import load_simulations, simulate


def slabs(checkpoint: Path, recipe: Path) -> dict[str, torch.Tensor]:
    """Of every set ``(n, n)`` mean density along the third axis, the baselines first, the truth last."""
    folder = simulate(read_recipe(recipe), splits=("test",))
    test = load_simulations(folder, splits=("test",)).select(region="interior").take(torch.tensor([0]))
    found = paired([checkpoint], test, 0)
    network = checkpoint.resolve().name
    made = [name for name in found.samples if name.startswith(network)]
    names = [*reversed([name for name in found.samples if name not in made]), *made]
    files = {name: found.samples[name] for name in names} | {"simulation": found.reference}
    depth = test.grid.shape[-1] // 8
    return {
        name.replace(network, "network"): file.values[0, 0, ..., :depth].mean(-1)
        for name, file in files.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", metavar="CHECKPOINT=RECIPE")
    parser.add_argument("-o", "--out", type=Path, default=Path("checkpoints/nbody.png"))
    options = parser.parse_args()
    rows = [slabs(*map(Path, pair.split("=", 1))) for pair in options.pairs]
    n = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows), n, figsize=(2.1 * n, 2.3 * len(rows)), layout="constrained", squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        for axis in line[len(row) :]:
            axis.set_axis_off()
        fields = {name: torch.log10(x.clamp(min=0) + 0.03) for name, x in row.items()}
        low, high = torch.quantile(fields["simulation"].flatten(), torch.tensor([0.005, 0.998])).tolist()
        for axis, (name, field) in zip(line, fields.items(), strict=False):
            axis.imshow(field.T, vmin=low, vmax=high, cmap="inferno", origin="lower")
            axis.set(xticks=[], yticks=[])
            axis.set_title(name, fontsize=9)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
