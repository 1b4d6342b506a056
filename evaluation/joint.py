"""Everything at once: tests of means, scatter, correlations, fields, variety and copying, over one region."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from evaluation.base import LARGEST_IN_MEMORY, Measured, Sample
from evaluation.compare import holm
from evaluation.covariance import compare_covariance
from evaluation.evaluate import Evaluated
from evaluation.frechet import frechet_distance
from evaluation.hotelling import Pair, hotelling
from evaluation.ks import no_surplus
from evaluation.memorisation import copying, diversity
from evaluation.resampling import Boxes, common_strata
from evaluation.spread import IN_FLIGHT, spread
from evaluation.thresholds import Thresholds
from evaluation.two_sample import field_c2st, summary_c2st
from evaluation.verdict import CONSISTENT, DIFFERS, FAMILIES, UNTESTED
from gen.errors import InputError
from gen.fields import Grid

N_BINS = 8  # joined bins of a statistic whose covariance is inverted
MEANS = ("power", "peaks", "V2", "scattering")
COVARIANCES = ("power", "peaks")
N_TESTS = len(MEANS) + 2 * len(COVARIANCES) + 5  # at most, in one region


@dataclass(frozen=True)
class JointTest:
    """One test of one set of samples in one region of parameters, all its cosmologies together.

    ``p`` as found, ``p_adjusted`` after Holm's correction (1979) over all joint tests of the set. A test that
    cannot be made has the state "untested", and ``text`` says why.
    """

    region: str
    samples: str
    test: str
    p: float | None
    text: str
    numbers: Mapping[str, Any]
    smallest_p: float = 0.0  # that so few simulations allow a permutation test
    p_adjusted: float | None = None
    state: str = UNTESTED

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def joint_tests(
    region: str,
    name: str,
    reference: Sample,
    samples: Sample,
    real: Mapping[str, Measured],
    made: Mapping[str, Measured],
    grid: Grid,
    training: Sample | None = None,
    n_permutations: int = 1000,
    classifier_steps: int = 200,
    seed: int = 0,
) -> list[JointTest]:
    """All tests of one set of samples in one region; strata are its cosmologies.

    Args:
        real, made: statistics of the fields of ``reference`` and ``samples``, by name.
        training: the fields that the samples' emulator was trained on, if they are at hand.
    """
    found: list[JointTest] = []
    least = smallest_p_of(reference, samples)

    def test(label: str, run: Callable[[], tuple[float, str, Mapping[str, Any]]]) -> None:
        try:
            p, text, numbers = run()
            smallest = 0.0 if label.startswith("means") else least
            found.append(JointTest(region, name, label, p, text, numbers, smallest))
        except InputError as error:
            found.append(JointTest(region, name, label, None, str(error), {}))

    for s in MEANS:
        if s in real:
            test(f"means: {s}", lambda s=s: _means(real[s], made[s]))
    for s in COVARIANCES:
        if s in real:
            test(f"scatter: {s}", lambda s=s: _covariance(real[s], made[s], "diagonal", n_permutations, seed))
            test(
                f"correlations: {s}",
                lambda s=s: _covariance(real[s], made[s], "off_diagonal", n_permutations, seed),
            )
    test("classifier: statistics", lambda: _classified(real, made, n_permutations, seed))
    test(
        "classifier: fields",
        lambda: _fields(reference, samples, grid, classifier_steps, n_permutations, seed),
    )
    if "scattering" in real:
        test(
            "Fréchet distance: scattering",
            lambda: _frechet(real["scattering"], made["scattering"], n_permutations, seed),
        )
    test("variety", lambda: _diversity(reference, samples, grid, n_permutations, seed))
    if training is not None:
        test("copying", lambda: _copying(reference, samples, training, grid, n_permutations, seed))
    return found


def judge_regions(
    evaluated: Sequence[Evaluated],
    names: Sequence[str],
    grid: Grid,
    t: Thresholds,
    training: Sample | None,
    seed: int,
    executor: Executor | None = None,
) -> list[JointTest]:
    """All joint tests of all sets, region by region, each set with its own correction."""
    regions = list(dict.fromkeys(e.cosmology.region for e in evaluated))
    n = max(
        t.measurement.n_permutations,
        math.ceil(1.2 * FAMILIES * N_TESTS * len(regions) / t.significance),
    )
    tasks = (
        (
            region,
            name,
            pooled_fields([e.cosmology.reference for e in here]),
            pooled_fields([e.cosmology.samples[name] for e in here]),
            {s: pooled([e.real[s] for e in here]) for s in here[0].real},
            {s: pooled([e.made[name][s] for e in here]) for s in here[0].real},
            grid,
            training,
            n,
            t.measurement.classifier_steps,
            seed,
        )
        for name in names
        for region in regions
        for here in [[e for e in evaluated if e.cosmology.region == region]]
    )
    n_tasks = len(names) * len(regions)
    held = 0 if training is None else len(training)
    size = 4 * grid.n_cells * (held + sum(len(e.cosmology.reference) for e in evaluated))
    in_flight = max(2, min(IN_FLIGHT, 8 * LARGEST_IN_MEMORY // size))
    found = spread(joint_tests, tasks, executor, "joint tests", [1] * n_tasks, in_flight)
    out: list[JointTest] = []
    for i in range(0, len(found), len(regions)):
        mine = [test for of_region in found[i : i + len(regions)] for test in of_region]
        out += corrected(mine, t.significance / FAMILIES)
    return out


def corrected(tests: Sequence[JointTest], significance: float) -> list[JointTest]:
    """States of all joint tests of one set, with Holm's correction over those that were made."""
    made = [t for t in tests if t.p is not None]
    adjusted = dict(zip(map(id, made), holm(np.array([t.p for t in made])), strict=True)) if made else {}
    out = []
    for t in tests:
        p = adjusted.get(id(t))
        state = CONSISTENT if p is None or p >= significance else DIFFERS
        if p is None or t.smallest_p >= significance:
            state = UNTESTED
        values = {**t.__dict__, "p_adjusted": None if p is None else float(p), "state": state}
        out.append(JointTest(**values))
    return out


def pooled(parts: Sequence[Measured]) -> Measured:
    """Measurements of several cosmologies as one, a stratum each; bins may mean other heights in each.

    Where one spans more decades than another, its lowest bins are left out.
    """
    n = min(m.vectors.shape[1] for m in parts)
    return Measured(
        np.concatenate([m.vectors[:, -n:] for m in parts]),
        np.concatenate([_unique(i, m.simulation) for i, m in enumerate(parts)]),
        np.repeat(np.arange(len(parts)), [len(m) for m in parts]),
    )


def pooled_fields(parts: Sequence[Sample]) -> Sample:
    """Fields of several cosmologies as one sample, a stratum each; of very many the first boxes."""
    n = LARGEST_IN_MEMORY // (4 * math.prod(parts[0].values.shape[1:])) // len(parts)
    parts = [s if len(s) <= n else first_boxes(s, n) for s in parts]
    return Sample(
        torch.cat([s.values[:] for s in parts]),
        np.concatenate([_unique(i, s.simulation) for i, s in enumerate(parts)]),
        np.repeat(np.arange(len(parts)), [len(s) for s in parts]),
    )


def first_boxes(sample: Sample, n: int) -> Sample:
    """Whole boxes of one cosmology, at most n maps."""
    boxes = Boxes.of(sample.simulation, np.zeros(len(sample), int), 1)
    return sample.select(no_surplus(boxes, np.array([n])))


def _unique(i: int, simulation: np.ndarray) -> np.ndarray:
    return np.unique(simulation, return_inverse=True)[1] + (i << 32)


def smallest_p_of(reference: Sample, samples: Sample) -> float:
    """One over the ways to exchange boxes; independent samples go in groups as large as the real boxes."""
    a, b = (Measured(np.zeros((len(s), 0)), s.simulation, s.stratum) for s in (reference, samples))
    stratum_a, stratum_b, n_strata = common_strata(a, b)
    real, made = Boxes.of(a.simulation, stratum_a, n_strata), Boxes.of(b.simulation, stratum_b, n_strata)
    made = made.grouped(np.rint(real.maps / real.per_stratum).astype(int))
    ways = 1.0
    for n, m in zip(real.per_stratum, made.per_stratum, strict=True):
        ways *= math.comb(int(n) + min(int(n), int(m)), int(n))
    return 1 / ways


def _bins(real: Measured, made: Measured) -> int:
    """To how many bins a statistic is joined: those that have a scatter, no more than its boxes can judge."""
    pair = Pair.of(real, made)
    fewest = min(boxes.n_boxes - boxes.n_strata + 1 for boxes in pair.boxes)
    return max(1, min(N_BINS, int((pair.group >= 0).sum()), fewest - 3))


def _means(real: Measured, made: Measured) -> tuple[float, str, Mapping[str, Any]]:
    h = hotelling(real, made, n_bins=_bins(real, made))
    largest = int(np.abs(h.difference).argmax())
    text = f"largest {h.difference[largest]:+.2f} ± {h.difference_std[largest]:.2f} of the map-to-map scatter"
    return h.p, text, h.to_dict()


def _covariance(
    real: Measured, made: Measured, part: str, n_permutations: int, seed: int
) -> tuple[float, str, Mapping[str, Any]]:
    c = compare_covariance(real, made, n_bins=_bins(real, made), n_permutations=n_permutations, seed=seed)
    if part == "diagonal":
        ratio = float(np.exp(np.log(c.diagonal_ratio).mean()))
        return c.diagonal_p, f"variance × {ratio:.2f}, excess {c.diagonal_excess:.1f}", c.to_dict()
    return c.off_diagonal_p, f"{c.off_diagonal_factor}, excess {c.off_diagonal_excess:.1f}", {}


def _classified(
    real: Mapping[str, Measured], made: Mapping[str, Measured], n_permutations: int, seed: int
) -> tuple[float, str, Mapping[str, Any]]:
    together = [
        Measured(
            np.concatenate([m.vectors for m in of.values()], axis=1),
            next(iter(of.values())).simulation,
            next(iter(of.values())).stratum,
        )
        for of in (real, made)
    ]
    found = summary_c2st(together[0], together[1], n_permutations=n_permutations, seed=seed)
    return found.p, f"right in {100 * found.auc:.0f} % of pairs", found.to_dict()


def _fields(
    reference: Sample, samples: Sample, grid: Grid, steps: int, n_permutations: int, seed: int
) -> tuple[float, str, Mapping[str, Any]]:
    found = field_c2st(reference, samples, grid, n_steps=steps, n_permutations=n_permutations, seed=seed)
    return found.p, f"right in {100 * found.auc:.0f} % of pairs", found.to_dict()


def _frechet(
    real: Measured, made: Measured, n_permutations: int, seed: int
) -> tuple[float, str, Mapping[str, Any]]:
    found = frechet_distance(real, made, n_permutations=n_permutations, seed=seed)
    return (
        found.p,
        f"{found.infinite:.3f} ± {found.std:.3f} for n → ∞, excess {found.excess:.1f}",
        found.to_dict(),
    )


def _diversity(
    reference: Sample, samples: Sample, grid: Grid, n_permutations: int, seed: int
) -> tuple[float, str, Mapping[str, Any]]:
    found = diversity(reference, samples, grid, n_permutations=n_permutations, seed=seed)
    text = f"nearest other field r = {found.likeness:.3f}, real {found.reference_likeness:.3f}"
    if found.duplicates:
        text += f"; {100 * found.duplicates:.1f} % have a twin"
    return found.p, text, found.to_dict()


def _copying(
    reference: Sample, samples: Sample, training: Sample, grid: Grid, n_permutations: int, seed: int
) -> tuple[float, str, Mapping[str, Any]]:
    found = copying(reference, samples, training, grid, n_permutations=n_permutations, seed=seed)
    text = f"nearer to training fields than held-out ones in {100 * found.closer:.0f} % of pairs"
    if found.copies:
        text += f"; {100 * found.copies:.1f} % nearer than any held-out field"
    numbers = {k: v for k, v in found.to_dict().items() if not isinstance(v, list)}
    return found.p, text, numbers
