"""Conditional truth for the report: all cosmologies of the trained range, measured by one ruler."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from evaluation.base import LARGEST_IN_MEMORY, few
from evaluation.conditional import Conditional, conditional_tests
from evaluation.cosmologies import Cosmology
from evaluation.evaluate import Ruler, measure_samples
from evaluation.joint import first_boxes, pooled, pooled_fields
from evaluation.parameter_space import Limits
from evaluation.spread import spread
from evaluation.thresholds import Thresholds
from gen.fields import Grid

MEASURED = ("power", "pdf", "peaks", "minkowski", "bispectrum", "scattering")
OUTSIDE = "extrapolation"
MAPS = 96  # of each cosmology and set: answers to the parameters come from many cosmologies


def trained(judged: Sequence[Cosmology]) -> list[Cosmology]:
    """The cosmologies at which an emulator should answer to its parameters; none if those are too few."""
    inside = [c for c in judged if c.region != OUTSIDE]
    n_parameters = len(judged[0].params)
    return inside if n_parameters and len(inside) >= n_parameters + 2 else []


def across(
    judged: Sequence[Cosmology],
    names: Sequence[str],
    grid: Grid,
    t: Thresholds,
    training_params: ArrayLike | None,
    limits: Limits,
    seed: int,
    executor: Executor | None = None,
) -> list[Conditional]:
    """Responses, answers of regressors and errors of every set, over the trained range.

    Whole boxes of at most ``MAPS`` maps of each cosmology are taken. Bins are those of all real maps
    together, for bins that follow each cosmology's own would hide how counts and thresholds answer.

    Args:
        training_params: ``(n, P)`` of the fields that the emulators were trained on, if known.
        limits: lowest and highest of the parameters.
    """
    inside = trained(judged)
    if not inside:
        return []
    references = [first_boxes(c.reference, MAPS) for c in inside]
    samples = {name: [first_boxes(c.samples[name], MAPS) for c in inside] for name in names}
    statistics = tuple(s for s in MEASURED if s in t.statistics)
    share = LARGEST_IN_MEMORY // 2 // len(references)
    fields = torch.cat([few(r.values, share) for r in references])
    ruler = Ruler.of(grid, fields, replace(t, statistics=statistics))
    sets = [references, *samples.values()]
    parts = iter(measure_samples([(ruler, s) for of in sets for s in of], grid, executor))
    measured: list[dict[str, Any]] = []
    for of in sets:
        each = [next(parts) for _ in of]
        measured.append({s: pooled([part[s] for part in each]) for s in each[0]})
    real, made = measured[0], dict(zip(names, measured[1:], strict=True))
    params = np.array([list(c.params.values()) for c in inside])
    options = {
        "network_steps": t.measurement.classifier_steps,
        "n_bootstrap": t.measurement.n_bootstrap // 2,
        "n_permutations": t.measurement.n_permutations,
        "significance": t.significance,
        "abscissae": {s.name: s.abscissa for s in ruler.statistics},
        "training_params": None if training_params is None else np.asarray(training_params, dtype=float),
        "limits": limits,
        "k_max": t.power.k_max,
        "seed": seed,
    }
    tasks = (
        (name, real, made[name], pooled_fields(references), pooled_fields(samples[name]), params,
         tuple(inside[0].params), grid, options)
        for name in names
    )  # fmt: skip
    return spread(_conditional, tasks, executor, "parameters", [1] * len(names))


def _conditional(*args: Any) -> Conditional:
    *rest, options = args
    return conditional_tests(*rest, **options)
