"""The command line: verbs do what they say, bad input is one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import gen
from gen.checkpoint import save
from gen.cli import main
from gen.emulators.latent_gan import LatentGAN
from gen.fields import Grid, ParameterSpace
from gen.io import read_fields

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
THETA = "Omega_m=0.3,sigma_8=0.8"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    torch.manual_seed(0)
    grid = Grid((16, 16), 3.5, "deg", False)
    save(
        LatentGAN(grid, SPACE, latent_size=4, channels=(8, 4), working="physical", critic_channels=(4, 8)),
        folder,
        "# tiny\n",
    )
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Standard error of a call that must be refused as bad input."""
    assert main([str(a) for a in arguments]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("cosmozoo: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err


VERBS = (
    "simulate", "train", "sample", "explore", "apply", "report", "compare", "interrogate", "leaderboard",
    "list", "doctor", "posterior",
)  # fmt: skip


def test_help_names_every_verb_in_less_than_a_second_of_work() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from gen.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: cosmozoo {verb}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"cosmozoo {gen.__version__}"


def test_samples_are_those_of_the_library(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps.h5"
    assert (
        main(["sample", str(checkpoint), "--params", THETA, "-n", "40", "--seed", "7", "-o", str(out)]) == 0
    )
    assert "40 fields" in capsys.readouterr().out
    found = read_fields(out)
    expected = gen.load(checkpoint).sample({"Omega_m": 0.3, "sigma_8": 0.8}, n=40, seed=7)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.params, torch.tensor([[0.3, 0.8]], dtype=torch.float64).expand(40, 2))
    assert found.grid == Grid((16, 16), 3.5, "deg", False)
    assert found.space == SPACE
    config = json.loads((checkpoint / "config.json").read_text())
    told = found.attributes
    assert told["checkpoint_sha256"] == config["sha256"]
    assert (told["seed"], told["units"], told["version"], told["extrapolated"]) == (
        7, "1", gen.__version__, False,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".fits", ".zarr"])
def test_every_format_holds_the_same(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    for name in ("a.h5", f"b{suffix}"):
        assert (
            main(["sample", str(checkpoint), "--params", THETA, "-n", "5", "-o", str(tmp_path / name)]) == 0
        )
    one, two = read_fields(tmp_path / "a.h5"), read_fields(tmp_path / f"b{suffix}")
    assert torch.equal(one.values, two.values)
    assert one.attributes == two.attributes


def test_npy_holds_the_values(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["sample", str(checkpoint), "--params", THETA, "-n", "5", "-o", str(tmp_path / "a.npy")]) == 0
    assert np.load(tmp_path / "a.npy", allow_pickle=False).shape == (5, 1, 16, 16)


def test_the_same_command_gives_the_same_bytes_and_more_fields_begin_alike(
    checkpoint: Path, tmp_path: Path
) -> None:
    for name, n in (("a", 20), ("b", 20), ("c", 50)):
        arguments = [
            "sample",
            checkpoint,
            "--params",
            THETA,
            "-n",
            n,
            "--seed",
            3,
            "-o",
            tmp_path / f"{name}.h5",
        ]
        assert main([str(a) for a in arguments]) == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "c.h5") as c:
        assert np.array_equal(np.asarray(a["values"]), np.asarray(c["values"])[:20])


def test_a_table_of_parameters(checkpoint: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("sigma_8, Omega_m\n0.7,0.2\n0.9,0.4\n")
    out = tmp_path / "maps.npz"
    assert main(["sample", str(checkpoint), "--params", str(table), "-n", "3", "-o", str(out)]) == 0
    params = read_fields(out).params
    assert params.tolist() == [[0.2, 0.7]] * 3 + [[0.4, 0.9]] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Omega_m\n0.2\n", "must be Omega_m, sigma_8"),
        ("Omega_m,sigma_8\n", "at least one row"),
        ("Omega_m,sigma_8\n0.2,high\n", "row 2, sigma_8 must be a number"),
        ("Omega_m,sigma_8\n0.2\n", "row 2 has 1 entries"),
        ("Omega_m,Omega_m\n0.2,0.2\n", "twice"),
        ("Omega_m,sigma_8\n0.2,nan\n", "not finite"),
        ("Omega_m,sigma_8,w\n0.2,0.8,-1\n", "must be Omega_m, sigma_8"),
    ],
)
def test_tables_that_do_not_fit(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    assert said in refused(capsys, "sample", checkpoint, "--params", table, "-o", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_extrapolation_is_asked_for_and_marked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = ["sample", checkpoint, "--params", "Omega_m=0.6,sigma_8=0.8", "-o", tmp_path / "a.h5"]
    told = refused(capsys, *outside)
    assert "Omega_m = 0.6" in told
    assert "[0.1, 0.5]" in told
    assert not list(tmp_path.iterdir())
    assert main([str(a) for a in [*outside, "--extrapolate"]]) == 0
    assert read_fields(tmp_path / "a.h5").attributes["extrapolated"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--params", "Omega_m=0.3"], "must be Omega_m, sigma_8"),
        (["--params", "Omega_m=0.3,sigma_8=much"], "must be a number"),
        (["--params", "Omega_m=0.3,Omega_m=0.3,sigma_8=0.8"], "twice"),
        (["--params", "nothing.csv"], "or a CSV file"),
        ([], "give --params Omega_m=...,sigma_8=..."),
        (["--params", THETA, "-n", "0"], "at least 1"),
        (["--params", THETA, "--shape", "many"], "sizes such as 128,128"),
        (["--params", THETA, "--shape", "32,32"], "16"),
        (["--params", THETA, "--bogus"], "--bogus"),
    ],
)
def test_requests_that_do_not_fit(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refused(capsys, "sample", checkpoint, "-o", tmp_path / "a.h5", *arguments)
    assert not list(tmp_path.iterdir())


def test_files_are_kept_and_odd_names_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.h5").write_text("precious")
    assert "--overwrite" in refused(capsys, "sample", checkpoint, "--params", THETA, "-o", tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "precious"
    assert "must end in" in refused(capsys, "sample", checkpoint, "--params", THETA, "-o", tmp_path / "a.txt")
    assert "no checkpoint" in refused(
        capsys, "sample", tmp_path / "x", "--params", THETA, "-o", tmp_path / "b.h5"
    )
    assert "address" in refused(
        capsys, "sample", "https://x.org/c", "--params", THETA, "-o", tmp_path / "b.h5"
    )


def test_an_interruption_is_quiet_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LatentGAN, "generate", interrupted)
    assert main(["sample", str(checkpoint), "--params", THETA, "-o", str(tmp_path / "a.h5")]) == 130
    assert capsys.readouterr().err == "cosmozoo: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_list_shows_the_zoo_with_its_figures(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(checkpoint.parent)]) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert row.split()[:3] == ["tiny", "LatentGAN", "convergence"]
    assert "16x16, 3.5 deg" in row
    assert "Omega_m, sigma_8" in row
    assert row.endswith("-")
    assert len(header) >= header.index("peaks")
    folder = tmp_path / "zoo" / "judged"
    save(gen.load(checkpoint), folder, "# judged\n", {"headline": [
        {"region": "edge", "samples": "judged", "power_error": 0.5, "excess": {}},
        {"region": "interior", "samples": "other", "power_error": 0.4, "excess": {}},
        {"region": "interior", "samples": "judged", "power_error": 0.0312,
         "excess": {"pdf": {"mean": 1.5}, "V2": {"mean": 2.25}}},
    ]})  # fmt: skip
    assert main(["list", str(tmp_path / "zoo")]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[-5:] == ["3.1", "%", "1.50", "2.25", "-"]
    (folder / "report.json").write_text("<html>")
    assert "is not a report" in refused(capsys, "list", tmp_path / "zoo")
    assert "holds no checkpoints" in refused(capsys, "list", tmp_path)
    assert "no folder" in refused(capsys, "list", tmp_path / "nowhere")


def test_training_takes_recipes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no recipe" in refused(capsys, "train", tmp_path / "none.yaml")
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("name: bad\nmax_stepz: 3\n")
    assert "did you mean 'max_steps'" in refused(capsys, "train", recipe)
    assert main(["train", str(recipe), "--keys"]) == 0
    assert "--max_steps" in capsys.readouterr().out


def test_reports_need_something_to_judge(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "needs checkpoints" in refused(capsys, "report", "-o", tmp_path / "r")
    maps = tmp_path / "maps.h5"
    assert main(["sample", str(checkpoint), "--params", THETA, "-n", "2", "-o", str(maps)]) == 0
    capsys.readouterr()
    assert "--reference" in refused(capsys, "report", "--samples", maps, "-o", tmp_path / "r")
    assert "no file" in refused(
        capsys, "report", "--samples", maps, "--reference", tmp_path / "none.h5", "-o", tmp_path / "r"
    )
    assert not (tmp_path / "r").exists()


def test_simulating_takes_recipes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "simulate", tmp_path / "none.yaml")
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("name: bad\n")
    refused(capsys, "simulate", recipe)
    refused(capsys, "simulate", recipe, "--processes", "0")


def test_one_verb_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Simulate, train the closed form, sample, judge, record, list: the whole path on a tiny data set."""
    data = tmp_path / "data.yaml"
    data.write_text("""
name: tiny
seed: 1
grid: {shape: [16, 16], box_size: 3.5, unit: deg, periodic: false}
space: {names: [Omega_m, sigma_8], low: [0.1, 0.6], high: [0.5, 1.0]}
lognormal: {}
training: {cosmologies: 8, boxes: 2, maps: 4, validation: 4}
test:
  - {region: interior, Omega_m: 0.3, sigma_8: 0.8, boxes: 4, maps: 4}
""")
    recipe = tmp_path / "copula.yaml"
    recipe.write_text(f"""
name: tiny_copula
data: {{source: {{class_path: gen.data.simulated.Simulated, init_args: {{recipe: {data}}}}}, batch_size: 8}}
emulator: {{class_path: gen.emulators.copula.Copula}}
""")
    thresholds = tmp_path / "quick.yaml"
    standard = (Path(__file__).parents[1] / "recipes/reports/standard.yaml").read_text()
    for many, few in (("1000 ", "50 "), ("2000 ", "50 "), ("200 ", "20 ")):
        standard = standard.replace(f": {many}", f": {few}")
    thresholds.write_text(standard)
    cache, run, out = tmp_path / "cache", tmp_path / "run", tmp_path / "report"
    assert main(["simulate", str(data), "--processes", "1", "--cache", str(cache)]) == 0
    assert len(list(cache.rglob("sim_*.npz"))) == 20
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    assert (run / "recipe.yaml").is_file()
    made = run / "checkpoint"
    made.rename(tmp_path / "tiny_copula")
    made = tmp_path / "tiny_copula"
    arguments = [
        "report",
        made,
        "--data",
        data,
        "-o",
        out,
        "--cache",
        cache,
        "--thresholds",
        thresholds,
        "--record",
    ]
    assert main([str(a) for a in arguments]) == 0
    assert (out / "index.html").stat().st_size > 10_000
    document = json.loads((out / "report.json").read_text())
    assert document["sets"] == ["tiny_copula"]
    assert document["cosmologies"][0]["n_reference"] == 16
    assert document["provenance"]["data"]["set"] == "tiny"
    assert len(document["provenance"]["training_params"]) == 6  # two of the eight are for validation
    assert json.loads((made / "report.json").read_text()) == document
    capsys.readouterr()
    assert main(["list", str(tmp_path)]) == 0
    assert "%" in capsys.readouterr().out.splitlines()[1]
