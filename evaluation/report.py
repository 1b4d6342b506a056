"""The report: every statistic of samples against a reference, one page to read and one file of numbers.

What is judged by what stands in a file of thresholds fixed beforehand; what the numbers mean is defined in
``compare`` (KS, excess), ``residuals`` (errors) and ``verdict`` (words).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.across import across
from evaluation.base import Sample
from evaluation.conditional import Conditional
from evaluation.cosmologies import FEWEST_SIMULATIONS, cosmologies
from evaluation.decades import decades_of
from evaluation.evaluate import Evaluated, evaluate, permutations_needed, regions
from evaluation.headline import headline
from evaluation.joint import JointTest, judge_regions
from evaluation.page import page
from evaluation.paired import PairedErrors, Pairing, judge_pairs
from evaluation.parameter_space import Limits
from evaluation.plain import plain
from evaluation.sampler import SamplerBias
from evaluation.thresholds import Thresholds, load_thresholds
from evaluation.together import Together, together
from evaluation.verdict import (
    Demand,
    Judged,
    Standing,
    Word,
    excess_demands,
    pair_demands,
    power_demand,
    standing,
    words,
)
from gen.io.atomic import replacing

if TYPE_CHECKING:
    from gen.io import FieldFile

FORMAT = 1
SECTIONS = ("headline", "standings", "demands", "words", "joint", "together", "paired", "conditional")


@dataclass(eq=False)
class Judgement:
    """All verdicts of a report."""

    words: list[Word] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    joint: list[JointTest] = field(default_factory=list)
    together: list[Together] = field(default_factory=list)
    paired: list[PairedErrors] = field(default_factory=list)
    conditional: list[Conditional] = field(default_factory=list)


def report(
    samples: Mapping[str, FieldFile],
    reference: FieldFile,
    thresholds: Thresholds | str | Path,
    out: Path,
    *,
    baseline: str | None = "convergence_2d_copula",
    seed: int = 0,
    training: FieldFile | None = None,
    paired: Pairing | None = None,
    over_parameters: tuple[Mapping[str, FieldFile], FieldFile] | None = None,
    samplers: Sequence[SamplerBias] = (),
    executor: Executor | None = None,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Judge sets of samples against a reference; write ``out/index.html`` and ``out/report.json``.

    Args:
        samples: files of fields by name, the judged emulator first; each must hold every cosmology (row of
            equal parameters) of the reference, on its grid.
        reference: real fields, with the simulation of each map: the unit of every error and every resampling.
        thresholds: what is demanded, or the file that says so.
        out: folder, made if missing; each file is replaced whole or not at all.
        baseline: the set that the others must beat, if it is among them.
        training: the fields that the emulators were trained on, to look for copies of them.
        paired: given if row i of every set was made for row i of the reference.
        over_parameters: samples of the same names and their reference at more cosmologies, to judge answers
            to the parameters by; by default it is done with what else is judged.
        samplers: what the samplers of diffusion emulators among the sets do by themselves.
        executor: where the work is done (``evaluation.spread.workers``); by default in this process. Every
            number is the same wherever.
        provenance: anything JSON-able for the page's last section. ``training_params`` (n, P), if given, is
            drawn with the judged cosmologies; ``training_range`` {low, high} bounds it (default: the
            parameter space).

    Returns:
        The content of ``report.json``: numbers only, null where one is not defined.

    Raises:
        InputError: for sets that cannot be compared.
    """
    t = thresholds if isinstance(thresholds, Thresholds) else load_thresholds(thresholds)
    baseline = baseline if baseline in samples else None
    names = sorted(samples, key=lambda name: name == baseline)
    grid = reference.grid
    judged = cosmologies(samples, reference)
    evaluated = evaluate(judged, names, grid, t, seed, executor)
    judgement = _judge(evaluated, names, baseline, t)
    trained_on = None if training is None else Sample(training.values, training.simulation).first_channel()
    judgement.joint = judge_regions(evaluated, names, grid, t, trained_on, seed, executor)
    judgement.together = together(evaluated, judgement.joint, names, t.significance)
    if paired is not None:
        beam = None if t.large_scales is None else t.large_scales.beam
        where, k_max = regions(evaluated), t.measurement.k_max(grid)
        judgement.paired = judge_pairs(samples, reference, where, paired, seed, baseline, beam, k_max)
        judgement.demands += pair_demands(judgement.paired, t)
    else:
        many = judged if over_parameters is None else cosmologies(*over_parameters)
        many = [c.first_channel() for c in many]
        limits = _limits(reference, provenance)
        known = provenance.get("training_params")
        judgement.conditional = across(many, names, grid, t, known, limits, seed, executor)
    document = _document(evaluated, judgement, names, baseline, t, samples, reference, seed, provenance)
    if samplers:
        document["samplers"] = plain([s.to_dict() for s in samplers])
    text = json.dumps(document, indent=1, allow_nan=False)
    html = page(document, evaluated, t, judgement.paired, judgement.conditional, samplers)
    out = Path(out)
    with (
        replacing(out / "report.json", overwrite=True) as numbers,
        replacing(out / "index.html", overwrite=True) as readable,
    ):
        numbers.write_text(text, encoding="utf-8")
        readable.write_text(html, encoding="utf-8")
    return document


def restricted(document: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A report's document with the figures of some of its sets only; each set was judged for itself."""

    def rows(key: str) -> list[Any]:
        return [row for row in document[key] if row["samples"] in names]

    def among(by_set: Mapping[str, Any], *kept: str) -> dict[str, Any]:
        return {name: value for name, value in by_set.items() if name in names or name in kept}

    def numbers(c: Mapping[str, Any]) -> dict[str, Any]:
        by_set = {
            key: among(c[key]) for key in ("n_samples", "power_error", "pixel_ks", "literature", "decades")
        }
        return {**c, **by_set, "statistics": {s: among(of) for s, of in c["statistics"].items()}}

    provenance = dict(document["provenance"])
    for key in ("n_maps", "files", "checkpoints"):
        if key in provenance:
            provenance[key] = among(provenance[key], "reference")
    return {
        **document,
        "sets": [name for name in document["sets"] if name in names],
        **{key: rows(key) for key in (*SECTIONS, "samplers") if key in document},
        "cosmologies": [numbers(c) for c in document["cosmologies"]],
        "provenance": provenance,
    }


def _judge(evaluated: list[Evaluated], names: list[str], baseline: str | None, t: Thresholds) -> Judgement:
    found = Judgement()
    for name in names:
        found.words += words(
            [
                Judged(e.cosmology.letter, e.cosmology.region, name, c, e.residuals[name][s])
                for e in evaluated
                for s, c in e.comparisons[name].items()
            ],
            t.significance,
        )
        for e in evaluated:
            where = e.cosmology.letter, e.cosmology.region
            found.demands.append(power_demand(*where, name, e.power[name], t))
            found.demands += excess_demands(*where, e.comparisons[name], name, t)
    for region in regions(evaluated):
        here = [e for e in evaluated if e.cosmology.region == region]
        judged = ["power", *(s for s in t.excess if s in here[0].comparisons[names[0]])]
        for name in names:
            if baseline is not None and name != baseline:
                pair = [e.comparisons[name] for e in here], [e.comparisons[baseline] for e in here]
                found.standings.append(standing(region, name, *pair, judged))
    return found


def _document(
    evaluated: list[Evaluated],
    judgement: Judgement,
    names: list[str],
    baseline: str | None,
    t: Thresholds,
    samples: Mapping[str, FieldFile],
    reference: FieldFile,
    seed: int,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    grid = reference.grid
    files = {"reference": reference, **{name: samples[name] for name in names}}
    return plain(
        {
            "format": FORMAT,
            "sets": names,
            "baseline": baseline,
            "regions": regions(evaluated),
            "field": {
                "name": samples[names[0]].attributes.get("field")
                or reference.attributes.get("field", "field"),
                "unit": reference.attributes.get("units", ""),
                "grid": grid.to_dict(),
                "k_unit": grid.k_unit,
                "k_nyquist": grid.k_nyquist,
                "k_max": t.judged_to(grid),
                "parameters": list(reference.space.names),
            },
            "notes": _notes(evaluated, baseline, judgement),
            "thresholds": t.to_dict(),
            "headline": headline(evaluated, judgement.words, judgement.demands, judgement.standings),
            "standings": [s.to_dict() for s in judgement.standings],
            "demands": [d.to_dict() for d in judgement.demands],
            "words": [w.to_dict() for w in judgement.words],
            "joint": [j.to_dict() for j in judgement.joint],
            "together": [x.to_dict() for x in judgement.together],
            "paired": [x.to_dict() for x in judgement.paired],
            "conditional": [x.to_dict() for x in judgement.conditional],
            "cosmologies": [_numbers(e, t) for e in evaluated],
            "provenance": {
                "seed": seed,
                "n_permutations": permutations_needed(sum(len(e.statistics) for e in evaluated), t),
                "n_maps": {name: len(file.values) for name, file in files.items()},
                **provenance,
                "training_range": dict(zip(("low", "high"), _limits(reference, provenance), strict=True)),
                "files": {name: dict(file.attributes) for name, file in files.items()},
            },
        }
    )


def _limits(reference: FieldFile, provenance: Mapping[str, Any]) -> Limits:
    told = provenance.get("training_range", {})
    return told.get("low", reference.space.low), told.get("high", reference.space.high)


def _numbers(e: Evaluated, t: Thresholds) -> dict[str, Any]:
    c = e.cosmology
    first = next(iter(e.comparisons.values()))
    return {
        "letter": c.letter,
        "params": c.params,
        "region": c.region,
        "n_reference": len(c.reference),
        "n_simulations": c.n_simulations,
        "n_samples": {name: len(s) for name, s in c.samples.items()},
        "statistics": {
            s: {
                name: {**of[s].to_dict(), "residual": e.residuals[name][s].to_dict()}
                for name, of in e.comparisons.items()
            }
            for s in first
        },
        "power_error": {name: p.to_dict() for name, p in e.power.items()},
        "pixel_ks": {name: p.to_dict() for name, p in e.pixels.items()},
        "literature": {name: x.to_dict() for name, x in e.literature.items()},
        "decades": {name: x.to_dict() for name, x in decades_of(e, t).items()},
    }


def _notes(evaluated: list[Evaluated], baseline: str | None, judgement: Judgement) -> list[str]:
    found = []
    alone = [e.cosmology.letter for e in evaluated if e.cosmology.by_maps]
    few = [e.cosmology.letter for e in evaluated if e.cosmology.n_simulations < FEWEST_SIMULATIONS]
    if alone:
        found.append(
            f"At {', '.join(alone)} the reference names no simulations, or only one, so its maps are taken "
            "as independent; if they share structures, every error and floor there is too small."
        )
    if few:
        found.append(
            f"At {', '.join(few)} there are fewer than {FEWEST_SIMULATIONS} simulations: floors are rough."
        )
    if judgement.paired:
        found.append(
            "The samples share the initial conditions of the reference, so the scatter of both cancels: they "
            "come closer than independent simulations can, and tests of their law see little. What they "
            "err by stands under “Field by field”."
        )
    if baseline is None:
        found.append(
            "No analytic baseline is among the samples, so whether a network improves on one is not known."
        )
    return found
