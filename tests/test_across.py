"""Conditional truth in the report: planted answers to the parameters, at its own cosmologies or at more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from report_fields import SPACE, file_of, grid_of, with_changes
from report_fields import thresholds as all_thresholds

from evaluation.paired import Pairing
from evaluation.report import report, restricted
from gen.cli import main
from gen.io import FieldFile

GRID = grid_of(16)
FEW = [(0.2, 0.7), (0.2, 0.9), (0.4, 0.7), (0.4, 0.9), (0.3, 0.8)]
MANY = [(om, s8) for om in (0.15, 0.3, 0.45) for s8 in (0.65, 0.75, 0.85, 0.95)]
OUTSIDE = (0.55, 0.8)


def thresholds():
    """Few statistics: the page draws each at each cosmology."""
    return all_thresholds(statistics=("power", "pdf"))


def answering(points: list[tuple[float, float]], n: int, seed: int, answer: float, per_box: int = 1):
    """Fields of amplitude (sigma_8 / 0.8)^answer."""
    parts = [
        file_of(GRID, [p], n, 100 * seed + i, per_box=per_box, amplitude=(p[1] / 0.8) ** answer)
        for i, p in enumerate(points)
    ]
    values, params = (torch.cat([getattr(f, name) for f in parts]) for name in ("values", "params"))
    ids = None
    if per_box > 1:
        ids = np.concatenate([1000 * i + np.asarray(f.simulation) for i, f in enumerate(parts)])
    return FieldFile(values, params, ids, None, GRID, SPACE, parts[0].attributes)


def sets(points, n: int, answer: float = 1.0) -> dict[str, FieldFile]:
    return {"answers": answering(points, n, 2, answer), "ignores": answering(points, n, 3, 0.0)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Judged at few cosmologies, one of them outside; answers at those."""
    points, out = [*FEW, OUTSIDE], tmp_path_factory.mktemp("across")
    reference = answering(points, 48, 1, 1.0, per_box=4)
    return report(sets(points, 48), reference, thresholds(), out, provenance={}), out


def slope(found, name: str, statistic: str, parameter: str) -> tuple[float, float]:
    c = next(c for c in found["conditional"] if c["samples"] == name)
    row = next(r for r in c["responses"] if (r["statistic"], r["parameter"]) == (statistic, parameter))
    return row["slope"], row["slope_std"]


def test_the_slope_is_that_planted(written):
    for name, planted in (("answers", 1.0), ("ignores", 0.0)):
        value, error = slope(written[0], name, "power", "sigma_8")
        assert value == pytest.approx(planted, abs=4 * error) and error < 0.25
    for c in written[0]["conditional"]:
        test = next(t for t in c["tests"] if t["test"] == "response: power")
        assert test["state"] == ("consistent" if c["samples"] == "answers" else "differs")


def test_cosmologies_outside_the_trained_range_are_left_out(written):
    (first, _) = written[0]["conditional"]
    assert sorted(map(tuple, first["params"])) == sorted(FEW)


def test_what_needs_more_cosmologies_says_so(written):
    reasons = {t["test"]: t["text"] for t in written[0]["conditional"][0]["tests"] if t["p"] is None}
    assert "10 sets of parameters or more, got 5" in reasons["answers: fields"]


def test_the_page_and_the_file_hold_the_section(written):
    document, out = written
    page = (out / "index.html").read_text(encoding="utf-8")
    assert 'id="conditional"' in page and "over 5 cosmologies" in page
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == document
    alone = restricted(document, ["answers"])
    assert [c["samples"] for c in alone["conditional"]] == ["answers"]


def test_many_cosmologies_of_their_own_teach_a_regressor(tmp_path):
    """Amplitude is sigma_8 cubed, which statistics tell; samples that ignore it mislead an analysis."""
    points = [FEW[-1]]
    document = report(
        sets(points, 48),
        answering(points, 48, 1, 1.0, per_box=4),
        all_thresholds(),
        tmp_path,
        over_parameters=(sets(MANY, 24, 3.0), answering(MANY, 24, 7, 3.0, per_box=4)),
        provenance={},
    )
    found = {c["samples"]: c for c in document["conditional"]}
    (told,) = (
        i
        for i in found["answers"]["inferences"]
        if (i["regressor"], i["parameter"]) == ("statistics", "sigma_8")
    )
    assert told["sigma"] < 0.9 * told["prior"], "it knows more than the range"
    for name, state in (("answers", "consistent"), ("ignores", "differs")):
        tests = {t["test"]: t["state"] for t in found[name]["tests"]}
        assert tests["answers: statistics"] == tests["response: power"] == state
    assert "over 12 cosmologies" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert len(document["cosmologies"]) == 1, "the page's own cosmologies stay what they were"


def test_too_few_cosmologies_and_paired_fields_have_no_section(tmp_path):
    points = FEW[:3]
    reference = answering(points, 24, 1, 1.0, per_box=4)
    document = report(sets(points, 24), reference, thresholds(), tmp_path, provenance={})
    assert document["conditional"] == []
    assert 'id="conditional"' not in (tmp_path / "index.html").read_text(encoding="utf-8")
    points = FEW[:4]
    reference = answering(points, 24, 1, 1.0, per_box=4)
    noise = 1e-3 * torch.randn(reference.values.shape, generator=torch.Generator().manual_seed(0))
    made = {"close": with_changes(reference, values=reference.values + noise, simulation=None)}
    document = report(made, reference, thresholds(), tmp_path, paired=Pairing(), provenance={})
    assert document["paired"] and document["conditional"] == []


def test_files_cannot_be_sampled_elsewhere(tmp_path, capsys):
    file = Path(tmp_path) / "a.npz"
    code = main(["report", "--samples", str(file), "--reference", str(file), "--across", "x.yaml"])
    said = capsys.readouterr().err
    assert code == 2 and len(said.strip().splitlines()) == 1
