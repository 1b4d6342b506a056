"""Is the validator right? Its p-values on equal laws, and what it sees of planted differences.

    python benchmarks/calibration.py null -n 500 -o calibration    # real against real
    python benchmarks/calibration.py power -n 20 -o calibration    # planted differences
    python benchmarks/calibration.py figure -o calibration         # draws what is there

Fast fields: lognormal convergence boxes of 128^2 cells under a beam of 6 arcmin, each cut into 16 maps of
32^2 cells of one "simulation", so that maps of one box share their long waves. 32 boxes of 16 maps (n = 512)
on both sides. ``--side 64`` has as many maps of four times the area, in which smaller differences show.
Where the particle-mesh maps of recipes/data/convergence_2d.yaml are in the cache, halves of them (24 boxes
each) and the zoo's copula against 32 boxes are judged as well. One process a core; a finished repetition is
one line of a file, so a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kstest
from tqdm import tqdm

from evaluation.base import Sample
from evaluation.compare import combined, holm
from evaluation.cosmologies import Cosmology as Judged
from evaluation.evaluate import evaluate
from evaluation.joint import joint_tests
from evaluation.thresholds import Thresholds, load_thresholds
from evaluation.together import p_values as of_statistics
from gen.checkpoint import load
from gen.data.base import SimulationSet
from gen.fields import Grid
from gen.noise import sample_generator
from gen.processes import processes as pool_of
from gen.simulate.lognormal import lognormal_convergence
from gen.simulate.recipe import read_recipe
from gen.simulate.run import default_cache, is_simulated, load_simulations
from gen.simulate.theory import Cosmology

SIDE, BOXES, CUTS = 32, 32, 4
CELL = 7.0 / 128  # [deg]
BEAM = 6.0  # full width at half maximum [arcmin]
FIDUCIAL = Cosmology(0.3, 0.8)
NBODY = Path("recipes/data/convergence_2d.yaml")
COPULA = Path("checkpoints/convergence_2d_copula")
TOGETHER, POOLED = "all together", "pooled pixels"
HALVES, BASELINE = "halves of N-body maps", "copula for N-body maps"
COPIES, FROZEN = "copies of training maps", "frozen noise"
Change = Callable[[torch.Tensor, int], torch.Tensor]


def sky(side: int, *, periodic: bool) -> Grid:
    """A square of cells of one size."""
    return Grid((side, side), side * CELL, "deg", periodic)


def simulations(seed: int, side: int, cosmo: Cosmology = FIDUCIAL) -> torch.Tensor:
    """``(BOXES, 1, n, n)`` independent boxes, to be cut into maps of ``side`` cells a side."""
    box = sky(CUTS * side, periodic=True)
    generators = [sample_generator(seed, i, "calibration") for i in range(BOXES)]
    sigma = BEAM / 60 * math.pi / 180 / math.sqrt(8 * math.log(2))
    beam = torch.exp(-0.5 * (box.wavenumber() * sigma) ** 2).float()
    return torch.fft.irfft2(torch.fft.rfft2(lognormal_convergence(cosmo, box, 1.0, generators)) * beam)


def cut(boxes: torch.Tensor) -> Sample:
    """Each box as 16 maps."""
    side = boxes.shape[-1] // CUTS
    parts = boxes.unfold(2, side, side).unfold(3, side, side).reshape(-1, 1, side, side)
    return Sample(parts.contiguous(), np.repeat(np.arange(BOXES), CUTS**2))


def phases(boxes: torch.Tensor, seed: int) -> torch.Tensor:
    """The power of each box with random phases, taken from white noise."""
    noise = torch.randn(boxes.shape, generator=sample_generator(seed, 0, "phases"))
    modes, white = (torch.fft.rfft2(x) for x in (boxes, noise))
    return torch.fft.irfft2(modes.abs() * white / white.abs().clamp(min=1e-12), s=boxes.shape[-2:])


def less_correlated(boxes: torch.Tensor, seed: int) -> torch.Tensor:
    """Long waves of another box for some: power as it was, its bins correlated about a quarter less.

    A box's amplitude, which all bins share through the lognormal's variance, is mixed with Gaussian scatter
    of each bin: the transform is multiplied in shells by factors of unit mean.
    """
    k = sky(boxes.shape[-1], periodic=True).wavenumber()
    shell = (k.log() * 4).nan_to_num(neginf=0).long()
    shell -= shell.min()
    factor = 1 + 0.15 * torch.randn(
        len(boxes), int(shell.max()) + 1, generator=sample_generator(seed, 1, "mix")
    )
    factor = factor / factor.square().mean(0).sqrt()
    modes = torch.fft.rfft2(boxes[:, 0]) * factor[:, shell.flatten()].reshape(len(boxes), *shell.shape)
    return torch.fft.irfft2(modes, s=boxes.shape[-2:])[:, None]


def one_sided(boxes: torch.Tensor, seed: int) -> torch.Tensor:
    """Peaks above 4 sigma pulled down to half of their excess."""
    top = boxes.mean() + 4 * boxes.std()
    return torch.where(boxes > top, top + (boxes - top) / 2, boxes)


def duplicated(boxes: torch.Tensor, seed: int) -> torch.Tensor:
    """A quarter of the boxes, four times each, mirrored."""
    return torch.cat([boxes[: BOXES // 4].flip(d) for d in ([], [2], [3], [2, 3])])


PLANTED: dict[str, tuple[Cosmology, Change | None]] = {
    "power + 2 %": (FIDUCIAL, lambda x, _: (x - x.mean()) * 1.02**0.5 + x.mean()),
    "sigma_8 + 1 %": (Cosmology(0.3, 0.808), None),
    "random phases": (FIDUCIAL, phases),
    "bins less correlated": (FIDUCIAL, less_correlated),
    "tails cut above 4 sigma": (FIDUCIAL, one_sided),
    "four copies of a quarter": (FIDUCIAL, duplicated),
}


@cache
def nbody() -> SimulationSet:
    """The interior test simulations of the zoo's default data."""
    recipe = read_recipe(NBODY)
    return load_simulations(default_cache() / recipe.folder, splits=("test",)).select(region="interior")


def nbody_maps(i: int, boxes: slice) -> tuple[Sample, torch.Tensor]:
    """Maps of some boxes, in an order of their own for every i, at one of the interior cosmologies."""
    data = nbody()
    params = torch.unique(data.params, dim=0)[i % 4]
    here = data.take((data.params == params).all(1).nonzero().flatten())
    ids = np.random.default_rng(i).permutation(np.unique(here.simulation.numpy()))[boxes]
    here = here.select(simulations=ids.tolist())
    return Sample(here.values, here.simulation.numpy()), params


def fields(kind: str, i: int, side: int) -> tuple[Grid, Sample, Sample, Sample | None]:
    """Grid, real maps, maps to be judged, and training maps where there are any."""
    if kind in (HALVES, BASELINE):
        real, params = nbody_maps(i, slice(0, 24 if kind == HALVES else 32))
        if kind == HALVES:
            return nbody().grid, real, nbody_maps(i, slice(24, 48))[0], None
        made = load(COPULA).sample(params[None].double(), n=len(real), seed=i)
        return nbody().grid, real, Sample(made.values), None
    grid = sky(side, periodic=False)
    real = cut(simulations(2 * i, side))
    if kind in (COPIES, FROZEN):
        training = cut(simulations(2 * i + 1, side))
        generator = sample_generator(i, 0, kind)
        rows = torch.randint(len(training) if kind == COPIES else 4, (len(real),), generator=generator)
        gain = 1 + 0.02 * torch.randn(len(real), 1, 1, 1, generator=generator)
        return grid, real, Sample(training.values[:][rows].flip(3) * gain), training
    cosmo, change = PLANTED.get(kind, (FIDUCIAL, None))
    boxes = simulations(2 * i + 1, side, cosmo)
    return grid, real, cut(boxes if change is None else change(boxes, i)), None


KINDS = [*PLANTED, COPIES, FROZEN, BASELINE, HALVES]


def p_values(kind: str, i: int, side: int, t: Thresholds, joint: bool) -> dict[str, float]:
    """Every p-value that the report's words rest on, and the pooled pixels' for comparison.

    joint: whether joint tests are among them.
    """
    grid, reference, samples, training = fields(kind, i, side)
    c = Judged("A", {}, "interior", reference, {"samples": samples}, by_maps=False)
    (e,) = evaluate([c], ["samples"], grid, t, i)
    found = of_statistics(e, "samples")
    if joint:
        tests = joint_tests(
            "interior", "samples", reference, samples, e.real, e.made["samples"], grid, training,
            n_permutations=t.measurement.n_permutations, classifier_steps=t.measurement.classifier_steps,
            seed=i,
        )  # fmt: skip
        found |= {j.test: j.p for j in tests if j.p is not None}
    found[TOGETHER] = combined(found.values())
    found[POOLED] = e.pixels["samples"].p_pooled
    return found


def rejected(p: dict[str, float], significance: float = 0.05) -> dict[str, list[str]]:
    """What is called different, with Holm's correction over each family at its share of the significance."""
    families = {"distance": [], "KS": [], "joint": []}
    for name in p:
        if name not in (POOLED, TOGETHER):
            kind = name.partition(":")[0]
            families[kind if kind in families else "joint"].append(name)
    return {
        kind: [
            n
            for n, q in zip(names, holm(np.array([p[n] for n in names])), strict=True)
            if q < significance / 3
        ]
        for kind, names in families.items()
    }


def repetition(kind: str, i: int, side: int, t: Thresholds, joint: bool) -> dict[str, object]:
    p = p_values(kind, i, side, t, joint)
    return {"kind": kind, "i": i, "p": p, "rejected": rejected(p)}


def run(
    jobs: list[tuple[str, int]], path: Path, side: int, t: Thresholds, joint: bool, processes: int
) -> None:
    done = {(r["kind"], r["i"]) for r in read(path)}
    todo = [job for job in jobs if job not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        pool_of(processes) as pool,
        path.open("a", encoding="utf-8") as file,
        tqdm(total=len(jobs), initial=len(jobs) - len(todo)) as bar,
    ):
        asked = [pool.submit(repetition, kind, i, side, t, joint) for kind, i in todo]
        for future in as_completed(asked):
            file.write(json.dumps(future.result()) + "\n")
            file.flush()
            bar.update()


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def summary(rows: list[dict]) -> None:
    null = [r for r in rows if r["kind"] == "null"]
    if null:
        print(f"{len(null)} real-against-real pairs; p of the KS test that p is uniform, share below 5 %")
        for name in null[0]["p"]:
            p = np.array([r["p"].get(name, np.nan) for r in null])
            print(f"  {name:32s} {kstest(p, 'uniform').pvalue:8.2g} {(p < 0.05).mean():7.1%}")
        for name, found in (
            (f"p of {TOGETHER} below 5 %", [r["p"][TOGETHER] < 0.05 for r in null]),
            ("some single word different", [any(r["rejected"].values()) for r in null]),
        ):
            share = np.mean(found)
            print(f"  {name}: {share:.1%} ± {np.sqrt(share * (1 - share) / len(null)):.1%}")
    for kind in KINDS:
        mine = [r for r in rows if r["kind"] == kind]
        if mine:
            seen = np.mean([r["p"][TOGETHER] < 0.05 for r in mine])
            names = sorted({n for r in mine for of in r["rejected"].values() for n in of})
            share = {n: np.mean([any(n in of for of in r["rejected"].values()) for r in mine]) for n in names}
            best = sorted(share, key=lambda n: -share[n])[:6]
            told = ", ".join(f"{n} {share[n]:.0%}" for n in best)
            print(f"{kind}: {TOGETHER} in {seen:.0%} of {len(mine)}; by themselves {told or 'none'}")


def figure(rows: list[dict], path: Path) -> None:
    """Cumulative distributions of all p-values on equal laws, and what sees which planted difference."""
    from matplotlib.figure import Figure

    null = [r for r in rows if r["kind"] == "null"]
    kinds = [k for k in KINDS if any(r["kind"] == k for r in rows)]
    fig = Figure(figsize=(12, 6.4), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.5))
    names = [n for n in null[0]["p"] if n not in (POOLED, TOGETHER)]
    grid = np.linspace(0, 1, 201)
    for name in names:
        p = np.sort([r["p"].get(name, np.nan) for r in null])
        left.plot(grid, np.searchsorted(p, grid, side="right") / len(p), color="#0072b2", lw=0.7, alpha=0.6)
    left.plot([], [], color="#0072b2", label=f"{len(names)} tests by simulation")
    for name, colour, label in (
        (TOGETHER, "black", "all of them together"),
        (POOLED, "#b34700", "KS of pooled pixels, as published"),
    ):
        p = np.sort([r["p"][name] for r in null])
        left.plot(grid, np.searchsorted(p, grid, side="right") / len(p), color=colour, lw=2, label=label)
    left.plot([0, 1], [0, 1], "k--", lw=0.8)
    left.set(xlabel="p", ylabel="share of real-against-real pairs below p", xlim=(0, 1), ylim=(0, 1))
    left.set_title(f"equal laws, {len(null)} pairs of 512 maps", loc="left")
    left.legend(loc="lower right", frameon=False)
    table = np.array(
        [
            [
                np.mean([any(n in of for of in r["rejected"].values()) for r in rows if r["kind"] == kind])
                for kind in ["null", *kinds]
            ]
            for n in names
        ]
        + [
            [
                np.mean([r["p"][TOGETHER] < 0.05 for r in rows if r["kind"] == kind])
                for kind in ["null", *kinds]
            ]
        ]
    )
    names = [*names, TOGETHER]
    right.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.set_xticks(range(len(kinds) + 1), ["equal laws", *kinds], rotation=25, ha="right", fontsize=9)
    for (i, j), x in np.ndenumerate(table):
        right.text(
            j, i, f"{x:.0%}", ha="center", va="center", fontsize=7, color="white" if x > 0.5 else "#333333"
        )
    right.set_title("share of repetitions in which a test is called different, after correction", loc="left")
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("null", "power", "figure"))
    parser.add_argument("-n", type=int, default=500, help="repetitions (of each planted difference)")
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("-o", "--out", type=Path, default=Path("calibration"))
    parser.add_argument(
        "--side", type=int, default=SIDE, help="cells of a map; each needs a folder of its own"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="of planted differences; default: all")
    parser.add_argument(
        "--statistics", nargs="+", help="these beside power, and no joint tests; in a folder of their own"
    )
    parser.add_argument("--thresholds", type=Path, default=Path("recipes/reports/standard.yaml"))
    parser.add_argument(
        "--classifier_steps", type=int, help="of the network; fewer save time and cost power, not validity"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    path = args.out / ("p_values.jsonl" if args.side == SIDE else f"p_values_{args.side}.jsonl")
    if args.what != "figure":
        t = load_thresholds(args.thresholds)
        if args.classifier_steps is not None:
            t = replace(t, measurement=replace(t.measurement, classifier_steps=args.classifier_steps))
        if args.statistics:
            t = replace(t, statistics=("power", *args.statistics))
        kinds = ["null"] if args.what == "null" else [*PLANTED, COPIES, FROZEN]
        recipe = read_recipe(NBODY)
        if args.what == "power" and is_simulated(default_cache() / recipe.folder, recipe, "test"):
            kinds += [HALVES, BASELINE]
        if args.what == "power" and args.kinds:
            kinds = args.kinds
        run(
            [(kind, i) for i in range(args.first, args.first + args.n) for kind in kinds],
            path,
            args.side,
            t,
            not args.statistics,
            args.processes,
        )
    rows = read(path)
    summary(rows)
    if any(r["kind"] == "null" for r in rows):
        drawn = path.with_name(path.name.replace("p_values", "calibration")).with_suffix(".png")
        figure(rows, drawn)
        print(f"the figure is {drawn}")


if __name__ == "__main__":
    main()
