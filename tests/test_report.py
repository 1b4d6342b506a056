"""The report says what is planted, says no more than it knows, and is one whole page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from report_fields import INTERIOR, OUTSIDE, file_of, grid_of, thresholds, with_changes

from evaluation import report as report_module
from evaluation.battery import BATTERY, STOKES
from evaluation.report import report, restricted
from evaluation.thresholds import load_thresholds
from gen.errors import InputError

NETWORK, BIASED, BASELINE = "same_law", "ten_per_cent", "convergence_2d_copula"
BOXES, PER_BOX = 28, 6
N = BOXES * PER_BOX


def refuse_constant(text: str) -> float:
    raise AssertionError(f"{text} is not JSON")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Same law, +10 % power and a Gaussian baseline, at two cosmologies."""
    grid, points = grid_of(32), [INTERIOR, OUTSIDE]
    out = tmp_path_factory.mktemp("report") / "new"
    samples = {
        BASELINE: file_of(grid, points, N, 4, gaussian=True),
        NETWORK: file_of(grid, points, N, 2, checkpoint_sha256="ab" * 32),
        BIASED: file_of(grid, points, N, 3, amplitude=math.sqrt(1.10)),
    }
    returned = report(
        samples,
        file_of(grid, points, N, 1, per_box=PER_BOX),
        thresholds(),
        out,
        provenance={
            "split": "by simulation",
            "training_params": [[0.2, 0.7], [0.4, 0.9]],
            "nothing": math.nan,
        },
    )
    return returned, out


@pytest.fixture(scope="module")
def document(written):
    return json.loads((written[1] / "report.json").read_text(), parse_constant=refuse_constant)


@pytest.fixture(scope="module")
def html(written):
    return (written[1] / "index.html").read_text()


@pytest.fixture
def small():
    """A reference and samples of the least size, one cosmology."""
    grid = grid_of(20)
    return file_of(grid, [INTERIOR], 24, 1, per_box=4), file_of(grid, [INTERIOR], 24, 2)


def row(document, name, region="interior"):
    return next(r for r in document["headline"] if (r["samples"], r["region"]) == (name, region))


def test_the_file_holds_what_was_returned(written, document):
    assert document == written[0]
    assert document["sets"] == [NETWORK, BIASED, BASELINE], "the baseline stands last"
    assert document["regions"] == ["interior", "extrapolation"]


@pytest.mark.usefixtures("without_page")
def test_restricted_to_a_set_it_is_the_report_of_that_set_alone(document, tmp_path):
    grid, points = grid_of(32), [INTERIOR, OUTSIDE]
    samples = {
        BASELINE: file_of(grid, points, N, 4, gaussian=True),
        BIASED: file_of(grid, points, N, 3, amplitude=math.sqrt(1.10)),
    }
    reference = file_of(grid, points, N, 1, per_box=PER_BOX)
    alone = report(samples, reference, thresholds(), tmp_path, provenance={})
    part = restricted(document, [BIASED, BASELINE])
    for key in alone.keys() - {"provenance", "field"}:
        assert part[key] == alone[key], key
    assert part["provenance"]["n_maps"] == alone["provenance"]["n_maps"]


@pytest.mark.parametrize("region", ["interior", "extrapolation"])
def test_a_sample_of_the_same_law_is_called_consistent(document, region):
    mine = [w for w in document["words"] if (w["samples"], w["region"]) == (NETWORK, region)]
    assert len(mine) == 10 and {w["text"] for w in mine} == {"consistent at this n"}
    for statistic, excess in row(document, NETWORK, region)["excess"].items():
        assert 0.1 < excess["mean"] < 2.5, statistic
    assert row(document, NETWORK, region)["power_state"] != "missed"


def test_everything_at_once_passes_the_same_law_and_not_the_others(document, html):
    def states(name):
        mine = [j for j in document["joint"] if j["samples"] == name]
        assert {j["region"] for j in mine} == {"interior", "extrapolation"}
        return {(j["region"], j["test"]): j["state"] for j in mine}

    assert set(states(NETWORK).values()) == {"consistent"}
    biased, baseline = states(BIASED), states(BASELINE)
    for region in ("interior", "extrapolation"):
        assert biased[region, "classifier: statistics"] == "differs"
        assert biased[region, "variety"] == baseline[region, "variety"] == "consistent"
        for test in ("means: V2", "means: scattering", "scatter: peaks", "classifier: statistics"):
            assert baseline[region, test] == "differs", test
    assert "classifier of statistics" in html and "Everything at once" in html


@pytest.mark.usefixtures("without_page")
def test_few_simulations_are_judged_by_few_bins(tmp_path):
    grid = grid_of(20)
    reference, same = file_of(grid, [INTERIOR], 48, 6, per_box=8), file_of(grid, [INTERIOR], 48, 7)
    found = report({"net": same}, reference, thresholds(), tmp_path, provenance={})
    means = next(j for j in found["joint"] if j["test"] == "means: power")
    assert means["state"] == "consistent" and len(means["numbers"]["difference"]) == 3  # of 6 boxes


@pytest.mark.usefixtures("without_page")
def test_two_simulations_are_too_few_for_joint_tests(tmp_path):
    grid = grid_of(20)
    reference = file_of(grid, [INTERIOR], 48, 6, per_box=24)
    off = file_of(grid, [INTERIOR], 48, 7, amplitude=3.0)
    found = report({"net": off}, reference, thresholds(), tmp_path, provenance={})
    assert {j["state"] for j in found["joint"]} == {"untested"}
    classifier = next(j for j in found["joint"] if j["test"] == "classifier: statistics")
    assert classifier["smallest_p"] == pytest.approx(1 / 6)


def test_copies_of_the_training_fields_are_seen(tmp_path):
    grid = grid_of(20)
    training, reference = file_of(grid, [INTERIOR], 48, 5), file_of(grid, [INTERIOR], 48, 6, per_box=4)
    copies = with_changes(training, values=training.values.flip(2) * 1.001)
    samples = {"copies": copies, "fresh": file_of(grid, [INTERIOR], 48, 7)}
    found = report(samples, reference, thresholds(), tmp_path, training=training, provenance={})
    state = {j["samples"]: j["state"] for j in found["joint"] if j["test"] == "copying"}
    assert state == {"copies": "differs", "fresh": "consistent"}
    assert "nearer than any held-out field" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("region", ["interior", "extrapolation"])
def test_ten_per_cent_of_power_is_called_different_by_so_much(document, region):
    mine = {w["statistic"]: w for w in document["words"] if (w["samples"], w["region"]) == (BIASED, region)}
    assert mine["power"]["differs"]
    assert re.match(r"differs: \+\d+\.\d ± \d+\.\d % at ", mine["power"]["text"])
    found = row(document, BIASED, region)
    assert found["power_state"] != "met"
    error = next(c["power_error"][BIASED] for c in document["cosmologies"] if c["region"] == region)
    assert error["signed"] > 0 and abs(error["largest"] - 0.10) < 3 * error["largest_std"]
    residual = np.array(
        next(c for c in document["cosmologies"] if c["region"] == region)["statistics"]["power"][BIASED][
            "residual"
        ]["values"]
    )
    assert abs(residual.mean() - 10) < 4, "every bin carries the planted ten per cent"
    assert found["excess"]["power"]["mean"] > 1.5 * row(document, NETWORK, region)["excess"]["power"]["mean"]


def test_a_gaussian_baseline_fails_where_it_must(document):
    found = row(document, BASELINE)
    assert found["excess"]["pdf"]["state"] == found["excess"]["V2"]["state"] == "missed"
    assert found["n_differs"] >= 6


def test_every_number_stands_in_the_file(document):
    for c in document["cosmologies"]:
        assert c["n_reference"] == N and c["n_simulations"] == BOXES
        pixels, fourier = {"pdf", "peaks", "minima", "V0", "V1", "V2", "moments"}, {"power", "bispectrum"}
        assert set(c["statistics"]) == pixels | fourier | {"scattering"}
        for of in c["statistics"].values():
            for x in of.values():
                bins = len(x["abscissa"])
                for key in (
                    "reference_mean",
                    "reference_std",
                    "samples_mean",
                    "samples_std",
                    "ks_D",
                    "ks_p",
                    "ks_floor",
                    "ks_p_holm",
                    "relative_error",
                    "relative_error_std",
                    "scatter_ratio",
                ):
                    assert len(x[key]) == bins, key  # fmt: skip
                assert len(x["residual"]["floor"]) == bins
                assert isinstance(x["unit"], str) and x["n_reference"] == x["n_samples"] == N
                assert x["excess"] > 0 and len(x["excess_interval"]) == 2
                assert all(v is None or math.isfinite(v) for v in x["relative_error"])
    assert document["provenance"]["nothing"] is None
    assert document["thresholds"]["power"] == {"k_max": 0.5, "error": 0.05, "aim": 0.02}


def test_power_is_judged_to_half_the_nyquist(document):
    grid = grid_of(32)
    assert document["field"]["k_max"] == pytest.approx(0.5 * grid.k_nyquist)
    x = document["cosmologies"][0]["statistics"]["power"][NETWORK]
    error = document["cosmologies"][0]["power_error"][NETWORK]
    judged = np.array(x["abscissa"]) <= 0.5 * grid.k_nyquist
    relative = np.abs(np.array(x["samples_mean"]) / np.array(x["reference_mean"]) - 1)[judged]
    assert 0 < judged.sum() < len(judged) and error["n_bins"] == judged.sum()
    assert error["largest"] == pytest.approx(relative.max(), abs=1e-6), "means are written to 7 digits"
    assert error["mean"] == pytest.approx(relative.mean())


def test_the_network_beats_a_bad_baseline_and_the_page_says_so(document, html):
    standing = next(s for s in document["standings"] if (s["samples"], s["region"]) == (NETWORK, "interior"))
    assert standing["beats"] and {"pdf", "V1", "V2"} <= set(standing["ahead"]) and not standing["behind"]
    assert "beats the analytic baseline: ahead in" in html


def test_a_network_that_does_not_beat_the_baseline_is_said_not_to(tmp_path, small):
    reference, same = small
    bad = file_of(reference.grid, [INTERIOR], 24, 5, gaussian=True)
    samples = {"bad": bad, "equal": same, "base": same}
    found = report(samples, reference, thresholds(), tmp_path, baseline="base", provenance={})
    bad_text, equal_text = (s["text"] for s in found["standings"])
    assert bad_text.startswith("does not beat the analytic baseline: behind in")
    assert equal_text.startswith("does not beat the analytic baseline: level in")
    html = (tmp_path / "index.html").read_text()
    assert html.index(bad_text) < html.index(equal_text)


def test_four_simulations_are_not_called_consistent(tmp_path):
    grid = grid_of(20)
    reference = file_of(grid, [INTERIOR], 24, 1, per_box=6)
    bad = file_of(grid, [INTERIOR], 24, 2, amplitude=2.0)
    found = report({"net": bad}, reference, thresholds(), tmp_path, provenance={})
    assert {w["state"] for w in found["words"]} == {"untested"}
    assert row(found, "net")["power_state"] == "missed"
    html = (tmp_path / "index.html").read_text()
    assert "<b>cannot be tested with 4 simulations</b>" in html
    assert "consistent with the simulations" not in html


class Page(HTMLParser):
    """Collects addresses and checks that what is opened is closed."""

    VOID = ("meta", "img", "br", "line", "circle", "path", "rect", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [
            (name, value or "") for name, value in attrs if name in ("src", "href", "srcset", "data")
        ]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_fetches_nothing(html):
    parsed = Page(html)
    assert parsed.open == []
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed", "form"}
    for name, address in parsed.addresses:
        cited = name == "href" and address.startswith(("https://arxiv.org/abs/", "#"))
        assert cited or address.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")), address[
            :60
        ]
    assert "url(" not in html and "@import" not in html
    assert len(html) < 10e6
    text = " ".join(parsed.words)
    assert "indistinguishable" not in text and "consistent with the simulations at this" in text
    for word in ("Demands", "Provenance", "seeds", "by simulation", "ab" * 32, "half"):
        assert word in text


def test_hostile_names_are_text(tmp_path, small):
    reference, same = small
    evil = "<script>alert(1)</script>"
    space = type(reference.space)(("$\\frac{", '"><img src=x>'), (0.1, 0.6), (0.5, 1.0))
    reference = with_changes(
        reference,
        space=space,
        attributes={"units": "<b>", "field": "${", "note": evil},
        region=np.array([evil] * 24),
    )
    found = report(
        {evil: with_changes(same, space=space)},
        reference,
        thresholds(),
        tmp_path,
        provenance={evil: {evil: [evil]}},
    )
    html = (tmp_path / "index.html").read_text()
    assert found["sets"] == [evil] and "&lt;script&gt;" in html
    assert "<script" not in html and "<img src=x" not in html and "<b>]" not in html


def test_the_same_input_gives_the_same_bytes_and_a_crash_leaves_them(tmp_path, small, monkeypatch):
    reference, same = small

    def content(folder):
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    for name in ("a", "b"):
        report({"network": same}, reference, thresholds(), tmp_path / name, seed=3, provenance={})
    before = content(tmp_path / "a")
    assert set(before) == {"index.html", "report.json"} and before == content(tmp_path / "b")

    real = Path.write_text

    def fails_at_the_page(self, *args, **kwargs):
        if self.name == "index.html":
            real(self, "<html>half")
            raise OSError("disk full")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", fails_at_the_page)
    with pytest.raises(OSError, match="disk full"):
        report({"network": same}, reference, thresholds(), tmp_path / "a", seed=9, provenance={})
    assert content(tmp_path / "a") == before


def test_nothing_is_written_where_the_page_fails(tmp_path, small, monkeypatch):
    def fails(*_):
        raise RuntimeError("no page")

    monkeypatch.setattr(report_module, "page", fails)
    with pytest.raises(RuntimeError):
        report({"network": small[1]}, small[0], thresholds(), tmp_path / "out", provenance={})
    assert not (tmp_path / "out").exists()


def test_three_dimensions(tmp_path):
    grid = grid_of(12, dim=3, periodic=True)
    reference = file_of(grid, [INTERIOR], 24, 1, per_box=2)
    found = report(
        {"network": file_of(grid, [INTERIOR], 24, 2)}, reference, thresholds(), tmp_path, provenance={}
    )
    excess = row(found, "network")["excess"]
    assert excess["V3"]["threshold"] == 2.0 and 0.1 < excess["V3"]["mean"] < 2.5
    assert row(found, "network")["n_differs"] == 0


def test_the_page_says_what_it_could_not_know(tmp_path, small):
    reference, same = small
    found = report(
        {"n": same}, with_changes(reference, simulation=None), thresholds(), tmp_path, provenance={}
    )
    html = (tmp_path / "index.html").read_text()
    assert "taken as independent" in html and "No analytic baseline" in html
    assert found["baseline"] is None and found["standings"] == []


def broken(file, where):
    values = file.values.clone()
    values[where] = torch.nan
    return with_changes(file, values=values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r, s: (r, {}), "at least one set of samples"),
        (
            lambda r, s: (r, {"net": with_changes(s, grid=grid_of(20, periodic=True))}),
            "net is on another grid",
        ),
        (
            lambda r, s: (r, {"net": with_changes(s, params=s.params + 0.05)}),
            "net holds maps at Omega_m = 0.35",
        ),
        (lambda r, s: (r, {"net": broken(s, 3)}), "net holds 1 maps with values that are not finite"),
        (lambda r, s: (broken(r, slice(0, 2)), {"net": s}), "the reference holds 2 maps with values"),
        (lambda r, s: (r, {"net": with_changes(s, values=s.values.repeat(1, 2, 1, 1))}), "one channel"),
        (
            lambda r, s: (r, {"net": with_changes(s, space=type(s.space)(("a", "b"), (0, 0), (1, 1)))}),
            "net has the parameters a, b",
        ),
        (
            lambda r, s: (with_changes(r, region=np.array(["interior", "edge"] * 12)), {"net": s}),
            "both edge and interior",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, small, change, said):
    reference, samples = change(*small)
    with pytest.raises(InputError, match=said):
        report(samples, reference, thresholds(), tmp_path / "out", provenance={})
    assert not (tmp_path / "out").exists()


def test_samples_must_cover_every_cosmology(tmp_path):
    grid = grid_of(20)
    reference = file_of(grid, [INTERIOR, OUTSIDE], 24, 1, per_box=4)
    with pytest.raises(InputError, match=r"net holds 0 maps at Omega_m = 0\.55, sigma_8 = 0\.7"):
        report({"net": file_of(grid, [INTERIOR], 24, 2)}, reference, thresholds(), tmp_path, provenance={})


def test_provenance_must_be_data(tmp_path, small):
    with pytest.raises(InputError, match="provenance may hold"):
        report({"net": small[1]}, small[0], thresholds(), tmp_path, provenance={"x": object()})


@pytest.mark.parametrize("dim, n", [(2, 32), (3, 16)])
def test_the_thorough_report_measures_all_there_is(tmp_path, dim, n):
    grid = grid_of(n, dim, periodic=dim == 3)
    t = replace(thresholds(), statistics=load_thresholds("recipes/reports/thorough.yaml").statistics)
    # others are of boxes that span decades, or of I, Q and U
    others = load_thresholds("recipes/reports/hi.yaml").statistics
    assert {*BATTERY} == {*t.statistics, *others, *STOKES, "column_density_los"}
    reference, same, louder = (
        file_of(grid, [INTERIOR], 24, seed, per_box=boxes, amplitude=gain)
        for seed, boxes, gain in ((1, 4, 1.0), (2, 1, 1.0), (3, 1, 1.3))
    )
    found = report({"same": same, "louder": louder}, reference, t, tmp_path, provenance={})
    of = found["cosmologies"][0]["statistics"]
    assert len(of) == 20 + dim
    unit_free = {"smoothed_skewness", "smoothed_kurtosis", "bispectrum_reduced"}
    for name, sets in of.items():
        assert sets["same"]["excess"] < 4
        if name in ("power", "smoothed_variance", "scattering", "pdf"):
            assert sets["louder"]["excess"] > 4, name
        if name in unit_free - {"bispectrum_reduced"}:
            assert sets["louder"]["excess"] < 4, f"{name} does not depend on the amplitude"
    differs = {x["samples"]: x["state"] == "differs" for x in found["together"]}
    assert differs == {"same": False, "louder": True}


@pytest.mark.usefixtures("without_page")
def test_sparse_counts_are_judged_by_their_own_thresholds(tmp_path):
    """No strict extrema and few distinct values: the standard statistics say what to do, these do it."""

    def counts(seed: int, per_box: int = 1):
        rate = 0.05 * torch.exp(40 * (field := file_of(grid, [INTERIOR], 48, seed, per_box=per_box)).values)
        return with_changes(field, values=torch.poisson(rate, torch.Generator().manual_seed(seed)))

    grid = grid_of(16, 3, periodic=True)
    real, made = counts(1, 4), {"galaxies": counts(2)}
    with pytest.raises(InputError, match=r"counts\.yaml"):
        report(made, real, thresholds(statistics=("power", "peaks")), tmp_path, provenance={})
    own = load_thresholds("recipes/reports/counts.yaml")
    coarse = replace(own, measurement=thresholds().measurement)
    document = report(made, real, coarse, tmp_path, provenance={})
    found = row(document, "galaxies")["excess"]
    assert set(own.excess) <= set(found) and all(math.isfinite(e["mean"]) for e in found.values())
    assert {w["state"] for w in document["words"]} == {"consistent"}
