"""Conditional truth: planted answers to the parameters come back, on the page too."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from evaluation.answers import Answers, assess
from evaluation.base import Measured, Sample
from evaluation.compare import compare_measured
from evaluation.conditional import Conditional, conditional_tests
from evaluation.page_filters import environment
from evaluation.parameter_space import cosmology_errors, distances
from evaluation.plain import plain
from evaluation.plots import errors_figure, inference_figure, looks, responses_figure
from evaluation.power import PowerSpectrum
from gen.fields import Grid

NAMES = ("Omega_m", "sigma_8")
GRID = Grid((8, 8), 8.0, "deg", True)
STRATA, BOXES = 12, 8
K = PowerSpectrum(GRID).abscissa
PARAMS = np.random.default_rng(0).uniform((0.1, 0.6), (0.5, 1.0), (STRATA, 2))
MIX = {
    s: np.random.default_rng(i).normal(size=(2, len(K)))
    for i, s in enumerate(("power", "V2", "peaks", "pdf"))
}


def measured(seed: int, answer: tuple[float, float] = (1, 1), strata: int = STRATA) -> dict[str, Measured]:
    """Statistics linear in the parameters, about 10 and (V2) about 0, of boxes of two maps, half shared."""
    rng = np.random.default_rng(seed)
    stratum = np.repeat(np.arange(strata), 2 * BOXES)
    box = np.arange(len(stratum)) // 2
    signal = (PARAMS[stratum] - [0.3, 0.8]) * answer
    out = {}
    for s, mix in MIX.items():
        noise = rng.normal(size=(2, len(stratum), len(K)))
        out[s] = Measured(10 * (s != "V2") + signal @ mix + 0.01 * (noise[0] + noise[1][box]), box, stratum)
    return out


def fields(seed: int, strata: int = STRATA) -> Sample:
    """Their scatter is sigma_8."""
    rng = np.random.default_rng(seed)
    stratum = np.repeat(np.arange(strata), 2 * BOXES)
    x = rng.normal(size=(len(stratum), 1, 8, 8)) * PARAMS[stratum, 1, None, None, None]
    return Sample(torch.from_numpy(x.astype(np.float32)), np.arange(len(stratum)) // 2, stratum)


def judged_at(
    seed: int, answer: tuple[float, float] = (1, 1), strata: int = STRATA, **options
) -> Conditional:
    return conditional_tests(
        f"set {answer[1]:g}",
        measured(seed, strata=strata),
        measured(seed + 1, answer, strata),
        fields(seed, strata),
        fields(seed + 1, strata),
        PARAMS[:strata],
        NAMES,
        GRID,
        network_steps=2,
        n_bootstrap=100,
        n_permutations=500,
        **options,
    )


@pytest.fixture(scope="module")
def found() -> Conditional:
    """Samples that do not answer to sigma_8."""
    training = np.random.default_rng(1).uniform((0.1, 0.6), (0.5, 1.0), (30, 2))
    return judged_at(1, (1, 0), training_params=training, limits=((0.1, 0.6), (0.5, 1.0)))


def state(c: Conditional, label: str) -> str:
    return next(t.state for t in c.tests if t.test == label)


@pytest.mark.parametrize("answer", [1.0, 0.5, 0.0])
def test_the_planted_answer_is_the_slope(answer: float) -> None:
    """Nine sets of parameters suffice for derivatives, with which alone this is quick."""
    c = judged_at(20, (1, answer), strata=9)
    rows = c.response_rows
    assert {r.statistic for r in rows} == {"power", "peaks", "V2"} and len(rows) == 6
    for row in rows:
        planted = answer if row.parameter == "sigma_8" else 1
        assert row.slope == pytest.approx(planted, abs=4 * row.slope_std) and row.slope_std < 0.2
    for s in ("power", "peaks", "V2"):
        assert state(c, f"response: {s}") == ("consistent" if answer == 1 else "differs")


def test_samples_that_ignore_a_parameter_mislead_an_analysis(found) -> None:
    x = found.inferences["statistics"]
    assert state(found, "answers: statistics") == state(found, "coverage: statistics") == "differs"
    # samples say sigma_8 = 0.8 wherever they are, and are off by the distance from there
    off = x.samples_by_stratum[:, 1] * x.sigma[1]
    assert np.corrcoef(off, 0.8 - PARAMS[:, 1])[0, 1] > 0.9
    assert x.error_ratio[1] > 2 > 1.3 > x.error_ratio[0]


def test_p_of_answers_and_of_coverage_is_uniform_under_equal_laws() -> None:
    """150 pairs of sets of answers of one law, a third of their variance shared in boxes."""
    params = PARAMS[:6]
    stratum = np.repeat(np.arange(6), 12)
    box = np.arange(72) // 3
    covariance = np.array([[1.0, 0.5], [0.5, 2.0]])

    def answers(rng: np.random.Generator) -> Answers:
        noise = rng.normal(size=(72, 2)) * (2 / 3) ** 0.5 + rng.normal(size=(72, 2))[box] * (1 / 3) ** 0.5
        return Answers(
            Measured(params[stratum] + noise @ np.linalg.cholesky(covariance).T, box, stratum), covariance
        )

    p = []
    for i in range(150):
        rng = np.random.default_rng(i)
        zero = np.zeros(2), np.ones(2)
        x = assess(answers(rng), answers(rng), zero, params, NAMES, 50, 199, i, rng)
        p.append((x.bias_p, x.coverage_p))
    for of in np.transpose(p):
        assert kstest(of, "uniform").pvalue > 0.01


def test_too_few_sets_of_parameters_are_a_reason_and_no_exception() -> None:
    few = judged_at(40, strata=5)
    assert set(few.responses) == {"power", "peaks", "V2"} and not few.inferences
    reasons = {t.test: t.text for t in few.tests if t.p is None}
    assert set(reasons) == {
        f"{kind}: {of}" for kind in ("answers", "coverage") for of in ("statistics", "fields")
    }
    assert all("10 sets of parameters or more, got 5" in text for text in reasons.values())
    fewer = judged_at(41, strata=3)
    assert not fewer.responses and state(fewer, "response: power") == "untested"
    assert "at least 4 sets of parameters" in next(t.text for t in fewer.tests)
    assert len(fewer.errors) == 3


def test_errors_at_each_cosmology_are_those_planted_and_the_reports_own() -> None:
    real, made = measured(50), measured(51)
    here = made["power"].stratum == 4
    made["power"].vectors[here, 1] = 1.2 * real["power"].vectors[here, 1].mean()
    made["power"].vectors[here, -1] *= 3  # beyond the judged range
    training = np.array([[0.1, 0.6], [0.3, 0.8]])
    errors = cosmology_errors(real, made, PARAMS, GRID, training, ((0.1, 0.6), (0.5, 1.0)), 0.8)
    assert [e.params for e in errors] == [tuple(row) for row in PARAMS]
    assert errors[4].power_error == pytest.approx(0.2, abs=1e-9)
    assert all(e.power_error < 5 * max(e.power_error_std, 0.005) for i, e in enumerate(errors) if i != 4)
    statistic = SimpleNamespace(name="V2", label="", abscissa=K, unit="", n_modes=None, log=False)
    pair = (m["V2"].select(m["V2"].stratum == 2) for m in (real, made))
    assert errors[2].excess["V2"] == pytest.approx(
        compare_measured(statistic, *pair, n_permutations=9).excess
    )
    nearest = np.hypot(*((PARAMS[0] - training) / 0.4).T).min()
    assert errors[0].distance == pytest.approx(nearest)
    assert distances(PARAMS, None, None) == [None] * STRATA


def test_of_spectra_that_end_early_the_same_bins_are_judged() -> None:
    """A beam left three of four bins; the third, three times too high, lies beyond 0.6 of Nyquist."""
    real, made = measured(52), measured(53)
    made["power"].vectors[:, 2] *= 3
    short = [
        {"power": replace(m["power"], vectors=m["power"].vectors[:, :n])}
        for m in (real, made)
        for n in (3, 4)
    ]
    few, all_bins = (
        cosmology_errors(short[i], short[i + 2], PARAMS, GRID, None, None, 0.6) for i in range(2)
    )
    assert [e.power_error for e in few] == [e.power_error for e in all_bins]
    assert max(e.power_error for e in few) < 0.05


def svg_of(address: str) -> ET.Element:
    return ET.fromstring(base64.b64decode(address.split(",", 1)[1]))


def test_figures_are_whole_and_show_what_was_found(found) -> None:
    sets = [found, replace(found, samples="other")]
    styles = looks([c.samples for c in sets], None)
    titles, letters = {"power": "power"}, "ABCDEFGHIJKL"
    limits, training = ((0.1, 0.6), (0.5, 1.0)), PARAMS[:3] + 0.01
    draw: list[Callable[[list[Conditional]], str | None]] = [
        lambda of: responses_figure(of, styles, titles, {}),
        lambda of: errors_figure(of, letters, training, limits),
        lambda of: inference_figure(of, styles),
    ]
    for figure in draw:
        address = figure(sets)
        assert address == figure(sets) and address != figure(sets[:1])
        assert address is not None
        tags = {e.tag.split("}")[1] for e in svg_of(address).iter()}
        assert not tags & {"script", "image", "foreignObject"}
    few = judged_at(40, strata=3)
    assert responses_figure([few], looks([few.samples], None), {}, {}) is None
    assert inference_figure([few], {}) is None
    assert errors_figure([few], "ABC", None, limits) is not None


def rendered(sets: list[Conditional], **figures) -> str:
    template = files("evaluation").joinpath("conditional.html.j2").read_text(encoding="utf-8")
    caller = "{% macro name(set) %}<b>{{ set }}</b>{% endmacro %}{{ conditional(d, figures, {}, name) }}"
    drawn = {"responses": None, "errors": None, "inference": None, "letters": None} | figures
    document = {"conditional": [c.to_dict() for c in sets], "thresholds": {"significance": 0.05}}
    document = json.loads(json.dumps(plain(document), allow_nan=False))
    return environment().from_string(template + caller).render(d=document, figures=drawn)


def test_the_section_says_what_was_found(found) -> None:
    html = rendered([found], responses="data:r", letters="ABCDEFGHIJKL")
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    slope = found.response_rows[1]
    assert f"{slope.slope:.2f} ± {slope.slope_std:.2f}" in words
    assert 'src="data:r"' in html and html.count("<h3>") == 2  # no picture was given of the third
    assert words.count("✗") >= 5 and "over 12 cosmologies" in words
    assert f"{found.errors[0].distance:.2g}" in words
    few = rendered([judged_at(40, strata=3)])
    assert "at least 4 sets of parameters" in few and "10 sets of parameters or more, got 3" in few
    assert "got 3" in few and "&lt;" not in few
