"""Fields made for given initial conditions: errors field by field, and the report of such emulators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from report_fields import INTERIOR, OUTSIDE, file_of, grid_of, thresholds, with_changes

from evaluation.paired import Motion, Pairing, judge_pairs
from evaluation.verdict import MET, MISSED, UNDECIDED, pair_demands
from gen import checkpoint
from gen.cli import main
from gen.emulators.displacement import Displacement
from gen.emulators.refinement import Refinement
from gen.emulators.super_resolution import SuperResolution
from gen.errors import InputError
from gen.simulate.recipe import read_recipe
from gen.simulate.run import load_simulations, simulate

RECIPE = """\
name: pairs
seed: 3
grid: {shape: [16, 16, 16], box_size: 128, unit: Mpc/h, periodic: true}
space: {names: [Omega_m, sigma_8], low: [0.1, 0.6], high: [0.5, 1.0]}
displacement: {steps: 0}
training: {cosmologies: 8, boxes: 1, validation: 4}
test:
  - {region: interior, Omega_m: 0.30, sigma_8: 0.80, boxes: 8}
"""


def test_amplitude_phases_and_vectors_apart() -> None:
    """T is the planted gain; 1 - r^2 the planted share of noise; a shift of (0.3, 0.4, 0) an error of 0.5."""
    grid, rng = grid_of(16, 3, periodic=True), np.random.default_rng(0)
    true = file_of(grid, [INTERIOR, OUTSIDE], 12, 1, per_box=3)
    louder = with_changes(true, values=1.1 * true.values)
    noise = torch.from_numpy(rng.standard_normal(true.values.shape).astype(np.float32))
    modes = torch.fft.fftn(true.values, dim=(2, 3, 4))
    random = torch.fft.ifftn(modes.abs() * torch.fft.fftn(noise, dim=(2, 3, 4)).sgn(), dim=(2, 3, 4)).real
    mixed = with_changes(true, values=0.8 * true.values + 0.6 * random)
    vectors = torch.from_numpy(rng.standard_normal((24, 3, 4, 4, 4)).astype(np.float32))
    moved = vectors + torch.tensor([0.3, 0.4, 0.0]).reshape(3, 1, 1, 1)
    sets = {"louder": louder, "mixed": mixed}
    motion = Motion("position", "Mpc/h", vectors, {"louder": moved, "mixed": vectors})
    rows = judge_pairs(sets, true, ["interior", "extrapolation"], Pairing([motion]))
    assert [(r.region, r.samples, r.n) for r in rows] == [
        (region, name, 12) for region in ("interior", "extrapolation") for name in sets
    ]
    for row in rows:
        if row.samples == "louder":
            assert row.transfer == pytest.approx(1.1, rel=1e-5)
            assert np.abs(row.stochasticity).max() < 1e-5
            assert row.errors[0].mean == pytest.approx(0.5, abs=1e-6)
            # the mean length of a vector of three unit normal components is sqrt(8 / pi)
            assert row.errors[0].relative == pytest.approx(0.5 / np.sqrt(8 / np.pi), rel=0.05)
        else:
            # of equal power, 0.64 of it with the true phases: r = 0.8 but for chance correlations
            wide = row.k > 4 * grid.k_fundamental
            error = 5 / np.sqrt(12 * 2 * 16**3 * wide.mean() / len(row.k))
            assert row.stochasticity[wide].mean() == pytest.approx(0.36, abs=error)
            assert row.errors[0].mean == 0


def test_position_errors_are_judged_in_units_of_the_baselines() -> None:
    """Planted ratios of mean errors, with a bootstrap error that pairs both sides box by box."""
    grid, rng = grid_of(8, 3, periodic=True), np.random.default_rng(2)
    true = file_of(grid, [INTERIOR], 24, 1, per_box=2)
    drawn = torch.Generator().manual_seed(2)
    vectors = torch.randn(24, 3, 4, 4, 4, generator=drawn)
    # errors of boxes differ by a fifth, and those of the baseline with them
    boxes = torch.randn(12, generator=drawn), torch.from_numpy(rng.standard_normal(12)).float()
    loud, share = (x.repeat_interleave(2).reshape(24, 1, 1, 1, 1) for x in boxes)
    error = (1 + 0.2 * loud) * torch.randn(24, 3, 4, 4, 4, generator=drawn)
    gain = {"good": 0.2, "near": 1 / 3 + 0.02 * share, "bad": 0.5, "2LPT": 1.0}
    made = {name: vectors + g * error for name, g in gain.items()}
    sets = dict.fromkeys(made, true)
    pairing = Pairing([Motion("position", "Mpc/h", vectors, made)])
    rows = judge_pairs(sets, true, ["interior"], pairing, baseline="2LPT")
    ratio = {row.samples: (row.errors[0].of_baseline, row.errors[0].of_baseline_std) for row in rows}
    assert ratio["good"] == (pytest.approx(0.2, rel=1e-5), pytest.approx(0, abs=1e-6)), "scatter cancels"
    assert ratio["bad"][0] == pytest.approx(0.5, rel=1e-5) and ratio["2LPT"] == (1, 0)
    assert ratio["near"][1] == pytest.approx(0.02 / np.sqrt(12), rel=0.5)
    value, std = ratio["near"]
    assert value is not None and std is not None
    asked = thresholds(motion={"position": value - std})
    states = {d.samples: d.state for d in pair_demands(rows, asked)}
    assert states == {"good": MET, "near": UNDECIDED, "bad": MISSED, "2LPT": MISSED}
    assert not pair_demands(rows, thresholds()), "nothing is demanded unless the file says so"


def test_of_a_random_baseline_no_motion_is_demanded() -> None:
    """Where even the baseline draws what it was not given, motion is not determined."""
    grid = grid_of(8, 3, periodic=True)
    true = file_of(grid, [INTERIOR], 12, 1, per_box=3)
    vectors = torch.randn(12, 3, 4, 4, 4)
    motion = Motion("position", "Mpc/h", vectors, {"net": 2 * vectors, "drawn": 3 * vectors})
    pairing = Pairing([motion], {"drawn": torch.randn(12, 1, 8, 8, 8)})
    rows = judge_pairs({"net": true, "drawn": true}, true, ["interior"], pairing, baseline="drawn")
    assert all(row.errors[0].of_baseline is None for row in rows)
    assert not pair_demands(rows, thresholds(motion={"position": 0.1}))


def test_sets_of_other_length_do_not_pair() -> None:
    grid = grid_of(8, 3, periodic=True)
    true = file_of(grid, [INTERIOR], 12, 1, per_box=3)
    with pytest.raises(InputError, match="a field of net for each of 12 real ones, got 6"):
        judge_pairs({"net": file_of(grid, [INTERIOR], 6, 1)}, true, ["interior"])


def report_options(tmp_path: Path, recipe: Path, cache: Path) -> list[str]:
    """Of a report on few statistics, resampled little, into ``tmp_path / "page"``."""
    quick = yaml.safe_load(Path("recipes/reports/standard.yaml").read_text(encoding="utf-8"))
    quick["measurement"] |= {"classifier_steps": 2, "n_permutations": 50, "n_bootstrap": 50}
    quick["statistics"], quick["motion"] = ["power", "pdf"], {"position": 0.3333}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(quick), encoding="utf-8")
    told = ["--data", str(recipe), "--cache", str(cache), "-o", str(tmp_path / "page"), "--processes", "1"]
    return [*told, "--thresholds", str(tmp_path / "quick.yaml")]


def test_an_untrained_emulator_is_reported_as_2lpt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where 2LPT is the truth, the untrained emulator errs as little as 2LPT, and Zel'dovich more."""
    recipe = tmp_path / "pairs.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    cache = tmp_path / "cache"
    data = load_simulations(simulate(read_recipe(recipe), cache, 1, progress=False))
    emulator = Displacement(data.grid, data.space, widths=(4, 8))
    emulator.fit(data.select(split="train"))
    checkpoint.save(emulator, tmp_path / "net", "# net")
    told = report_options(tmp_path, recipe, cache)
    assert main(["report", str(tmp_path / "net"), *told, "--record"]) == 0, capsys.readouterr().err
    document = json.loads((tmp_path / "page" / "report.json").read_text(encoding="utf-8"))
    assert document["sets"] == ["net", "Zel'dovich", "2LPT"] and document["baseline"] == "2LPT"
    rows = {row["samples"]: row for row in document["paired"]}
    position, velocity = ({name: row["errors"][i] for name, row in rows.items()} for i in (0, 1))
    for motion in (position, velocity):
        assert motion["net"]["mean"] == pytest.approx(motion["2LPT"]["mean"], rel=1e-4), "untrained"
        # what is left lies on the Nyquist planes, 3/16 of the modes, where an odd derivative has no value
        assert motion["net"]["relative"] < 0.2 * motion["Zel'dovich"]["relative"]
    below = np.array(rows["net"]["k"]) < 0.8 * data.grid.k_nyquist
    error = {name: np.abs(np.array(row["transfer"]) - 1)[below].max() for name, row in rows.items()}
    assert error["net"] == pytest.approx(error["2LPT"], rel=1e-3) and error["net"] < error["Zel'dovich"] / 3
    # 3/7 of second order at sigma_8 = 0.8 on 8 Mpc/h: some per cent of the displacement
    assert 0.01 < position["Zel'dovich"]["relative"] < 0.3
    assert velocity["Zel'dovich"]["relative"] > 1.5 * position["Zel'dovich"]["relative"], "f2 is about 2 f1"
    judged = {d["samples"]: d for d in document["demands"] if d["quantity"] == "position error"}
    assert judged["2LPT"]["value"] == 1 and judged["2LPT"]["state"] == "missed"
    assert judged["net"]["value"] == pytest.approx(1, rel=1e-4) and judged["net"]["region"] == "interior"
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "Its mean position error is" in page and "of 2LPT’s" in page
    assert "Field by field" in page and "share the initial conditions" in page
    kept = json.loads((tmp_path / "net" / "report.json").read_text(encoding="utf-8"))
    assert len(kept["paired"]) == 3


def test_without_pairs_a_field_to_field_emulator_cannot_be_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = grid_of(16, 3, periodic=True)
    space = file_of(grid, [INTERIOR], 2, 1).space
    checkpoint.save(Displacement(grid, space, widths=(4, 8)), tmp_path / "net", "# net")
    (tmp_path / "density.yaml").write_text(
        RECIPE.replace("displacement: {steps: 0}", "density: {steps: 0}"), encoding="utf-8"
    )
    told = ["--cache", str(tmp_path / "cache"), "--processes", "1", "-o", str(tmp_path / "page")]
    assert main(["report", str(tmp_path / "net"), "--data", str(tmp_path / "density.yaml"), *told]) == 2
    assert "judged on pairs of coarse and true fields" in capsys.readouterr().err


def test_variety_is_one_where_the_truth_is_one_more_realisation() -> None:
    """Fields of a common part and a part of their own: equal, too small, and the same in all realisations."""
    grid, rng = grid_of(16, 3, periodic=True), np.random.default_rng(1)
    true = file_of(grid, [INTERIOR], 24, 1, per_box=2)

    def noise() -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(true.values.shape).astype(np.float32))

    common, truth = noise(), noise()
    reference = with_changes(true, values=common + truth)
    gain = {"right": 1.0, "timid": 0.5, "none": 0.0}
    sets, twins = (
        {name: with_changes(true, values=common + g * noise()) for name, g in gain.items()} for _ in range(2)
    )
    pairing = Pairing(twins={name: file.values for name, file in twins.items()})
    rows = judge_pairs({**sets, "fixed": sets["none"]}, reference, ["interior"], pairing)
    for row in rows:
        if row.samples == "fixed":
            assert row.variety is None
            continue
        assert row.variety is not None and row.variety_std is not None
        g = gain[row.samples]
        planted = 2 * g**2 / (1 + g**2)  # of unit variance of the truth's own part
        assert np.abs(row.variety - planted).max() < 5 * row.variety_std.max() + 1e-12
        assert row.variety_std[-1] < 0.05


def test_super_resolution_is_reported_beside_what_it_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Untrained it is the Gaussian completion; interpolation lacks small scales and is but one."""
    recipe = tmp_path / "fine.yaml"
    recipe.write_text(RECIPE.replace("displacement:", "super_resolution:"), encoding="utf-8")
    cache = tmp_path / "cache"
    data = load_simulations(simulate(read_recipe(recipe), cache, 1, progress=False))
    emulator = SuperResolution(data.grid, data.space, widths=(4, 8), summary_weight=0.0, degree=1)
    emulator.fit(data.select(split="train"))
    checkpoint.save(emulator, tmp_path / "net", "# net")
    told = report_options(tmp_path, recipe, cache)
    assert main(["report", str(tmp_path / "net"), *told]) == 0, capsys.readouterr().err
    document = json.loads((tmp_path / "page" / "report.json").read_text(encoding="utf-8"))
    assert document["sets"] == ["net", "interpolated", "Gaussian missing modes"]
    assert document["baseline"] == "Gaussian missing modes"
    rows = {row["samples"]: row for row in document["paired"]}
    assert rows["net"]["transfer"] == pytest.approx(rows["Gaussian missing modes"]["transfer"], rel=1e-4)
    assert rows["interpolated"]["variety"] is None and rows["interpolated"]["transfer"][-1] < 0.3
    assert rows["net"]["transfer"][-1] > 0.5 and rows["net"]["variety"][-1] > 0.5
    assert "Variety" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_fine_runs_are_reported_with_waves_drawn_and_with_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Untrained, at second order: with the true waves nearly the truth, with others only its large scales."""
    recipe = tmp_path / "fine.yaml"
    recipe.write_text(RECIPE.replace("displacement:", "refinement:"), encoding="utf-8")
    cache = tmp_path / "cache"
    data = load_simulations(simulate(read_recipe(recipe), cache, 1, progress=False))
    emulator = Refinement(data.grid, data.space, widths=(4, 8), degree=1)
    emulator.fit(data.select(split="train"))
    checkpoint.save(emulator, tmp_path / "net", "# net")
    told = report_options(tmp_path, recipe, cache)
    told += ["--record"]
    assert main(["report", str(tmp_path / "net"), *told]) == 0, capsys.readouterr().err
    document = json.loads((tmp_path / "net" / "report.json").read_text(encoding="utf-8"))
    assert document["sets"] == ["net", "net with own waves", "coarse run", "Gaussian missing modes"]
    assert document["baseline"] == "Gaussian missing modes"
    rows = {row["samples"]: row for row in document["paired"]}
    assert rows["net"]["transfer"] == pytest.approx(rows["Gaussian missing modes"]["transfer"], rel=1e-4)
    last = {name: row["stochasticity"][-1] for name, row in rows.items()}
    assert last["net with own waves"] < 0.3 < 0.9 < last["net"]
    assert rows["coarse run"]["transfer"][-1] < 0.7 * rows["net"]["transfer"][-1]
    assert rows["net"]["variety"][-1] > 0.7
    own, drawn = (rows[name]["errors"][0]["mean"] for name in ("net with own waves", "net"))
    assert own < 0.3 * drawn
