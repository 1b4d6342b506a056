"""Everything that the report measures at one cosmology."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
import torch

from evaluation.base import Measured, Sample, Statistic, few, measure, reference_pixels
from evaluation.battery import battery
from evaluation.compare import Comparison, PixelKS, compare_measured, correct
from evaluation.cosmologies import REGIONS, Cosmology
from evaluation.ks import pixel_cdf, pixel_ks_measured, pixel_levels
from evaluation.literature import LiteratureTests, literature_tests
from evaluation.residuals import PowerError, Residual, power_error, residual
from evaluation.spread import spread
from evaluation.stokes import intensity
from evaluation.thresholds import Thresholds
from evaluation.verdict import FAMILIES
from gen.fields import Grid
from gen.io.rows import Rows, Values

PIXELS = "pixels"  # their distribution, measured beside the statistics
BLOCK = 1 << 24  # bytes of fields that are measured as one task


@dataclass(eq=False)
class Evaluated:
    """Everything measured at one cosmology; the inner dictionaries are by set of samples."""

    cosmology: Cosmology
    statistics: list[Statistic]
    real: dict[str, Measured]
    made: dict[str, dict[str, Measured]]
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    residuals: dict[str, dict[str, Residual]] = field(default_factory=dict)
    power: dict[str, PowerError] = field(default_factory=dict)
    pixels: dict[str, PixelKS] = field(default_factory=dict)
    literature: dict[str, LiteratureTests] = field(default_factory=dict)


def regions(evaluated: list[Evaluated]) -> list[str]:
    """The regions that are present, in the report's order."""
    present = dict.fromkeys(e.cosmology.region for e in evaluated)
    return [r for r in REGIONS if r in present] + [r for r in present if r not in REGIONS]


def permutations_needed(n_distances: int, t: Thresholds) -> int:
    """As many as the thresholds ask, or as Holm needs to be able to reject one distance among all."""
    return max(t.measurement.n_permutations, math.ceil(1.2 * FAMILIES * n_distances / t.significance))


@dataclass(frozen=True, eq=False)
class Ruler:
    """What is measured of every map at one cosmology, the bins set by its real maps."""

    statistics: list[Statistic]
    levels: torch.Tensor  # of pixels

    @classmethod
    def of(cls, grid: Grid, reference: torch.Tensor, t: Thresholds) -> Ruler:
        return cls(
            battery(t.statistics, grid, reference, t.measurement),
            pixel_levels(reference_pixels(intensity(reference))),
        )


def measure_block(ruler: Ruler, values: torch.Tensor) -> dict[str, np.ndarray]:
    """``(B, n_bins)`` of every statistic by name, and of the pixels' distribution."""
    found = {name: m.vectors for name, m in measure(ruler.statistics, Sample(values)).items()}
    return {**found, PIXELS: pixel_cdf(intensity(values), ruler.levels)}


def measure_all(
    judged: Sequence[Cosmology], names: Sequence[str], grid: Grid, t: Thresholds, executor: Executor | None
) -> list[Evaluated]:
    """Measure all maps of the reference and of every set of samples, a block at a time.

    What is judged of the fields themselves later on, and shown, is their first channel.
    """
    rulers = spread(
        Ruler.of,
        ((grid, few(c.reference.values), t) for c in judged),
        executor,
        "bins",
        [1] * len(judged),
    )
    pairs = [(r, s) for r, c in zip(rulers, judged, strict=True)
             for s in (c.reference, *(c.samples[name] for name in names))]  # fmt: skip
    measured = iter(measure_samples(pairs, grid, executor))
    return [
        Evaluated(c.first_channel(), r.statistics, next(measured), {name: next(measured) for name in names})
        for r, c in zip(rulers, judged, strict=True)
    ]


def measure_samples(
    pairs: Sequence[tuple[Ruler, Sample]], grid: Grid, executor: Executor | None
) -> list[dict[str, Measured]]:
    """Every sample by its ruler, a block of fields at a time."""
    channels = max((s.values.shape[1] for _, s in pairs), default=1)
    rows = max(1, BLOCK // (4 * channels * grid.n_cells))
    blocks = [(i, start) for i, (_, s) in enumerate(pairs) for start in range(0, len(s), rows)]
    tasks = ((pairs[i][0], own_copy(pairs[i][1].values, start, start + rows)) for i, start in blocks)
    sizes = [min(rows, len(pairs[i][1]) - start) for i, start in blocks]
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in pairs]
    for (i, _), part in zip(blocks, spread(measure_block, tasks, executor, "maps", sizes), strict=True):
        parts[i].append(part)
    return [_joined(of, sample) for of, (_, sample) in zip(parts, pairs, strict=True)]


def own_copy(values: Values, start: int, stop: int) -> torch.Tensor:
    """Some fields in memory of their own: of a view, all that it looks at would be sent to the worker.

    The copy is NumPy's. PyTorch asks for aligned memory, and blocks of that size and kind are not used a
    second time by the C library, so that a process that sends many would grow with every one.
    """
    block = values[start:stop]
    return block if isinstance(values, Rows) else torch.from_numpy(block.cpu().numpy().copy())


def _joined(parts: list[dict[str, np.ndarray]], sample: Sample) -> dict[str, Measured]:
    return {
        name: Measured(np.concatenate([part[name] for part in parts]), sample.simulation, sample.stratum)
        for name in parts[0]
    }


@dataclass(frozen=True, eq=False)
class Found:
    """Everything found of one set of samples at one cosmology."""

    comparisons: dict[str, Comparison]
    residuals: dict[str, Residual]
    power: PowerError
    pixels: PixelKS
    literature: LiteratureTests


def judge(
    statistics: Sequence[Statistic],
    real: Mapping[str, Measured],
    made: Mapping[str, Measured],
    grid: Grid,
    t: Thresholds,
    n_permutations: int,
    seed: int,
) -> Found:
    """Compare what was measured of one set of samples with the same of the reference."""
    m = t.measurement
    comparisons = {
        s.name: compare_measured(
            s,
            real[s.name],
            made[s.name],
            n_bootstrap=m.n_bootstrap,
            n_permutations=n_permutations,
            seed=seed,
        )
        for s in statistics
    }
    residuals = {name: residual(c, real[name], made[name]) for name, c in comparisons.items()}
    power = power_error(
        comparisons["power"],
        residuals["power"],
        real["power"],
        t.judged_to(grid),
        m.n_splits,
        seed,
    )
    pixels = real[PIXELS], made[PIXELS], grid.n_cells
    return Found(
        comparisons,
        residuals,
        power,
        pixel_ks_measured(*pixels, n_permutations=m.n_bootstrap, seed=seed),
        literature_tests(*pixels, real, made, seed=seed),
    )


def evaluate(
    judged: Sequence[Cosmology],
    names: Sequence[str],
    grid: Grid,
    t: Thresholds,
    seed: int,
    executor: Executor | None = None,
) -> list[Evaluated]:
    """Measure the reference and every set of samples once, and compare them, cosmology by cosmology."""
    evaluated = measure_all(judged, names, grid, t, executor)
    n = permutations_needed(sum(len(e.statistics) for e in evaluated), t)
    pairs = [(e, name) for e in evaluated for name in names]
    tasks = ((e.statistics, e.real, e.made[name], grid, t, n, seed) for e, name in pairs)
    found = spread(judge, tasks, executor, "comparisons", [1] * len(pairs))
    for (e, name), j in zip(pairs, found, strict=True):
        e.comparisons[name], e.residuals[name] = j.comparisons, j.residuals
        e.power[name], e.pixels[name], e.literature[name] = j.power, j.pixels, j.literature
    for name in names:
        correct_ks(evaluated, name)
    for e in evaluated:
        for measured in (e.real, *e.made.values()):
            del measured[PIXELS]
    return evaluated


def correct_ks(evaluated: list[Evaluated], name: str) -> None:
    """Adjust the KS p-values of one set over all its bins, statistics and cosmologies."""
    flat = [(e, s) for e in evaluated for s in e.comparisons[name]]
    for (e, s), c in zip(flat, correct([e.comparisons[name][s] for e, s in flat]), strict=True):
        e.comparisons[name][s] = c
