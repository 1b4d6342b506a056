"""What a run leaves behind: logs, sheets, the best generator, and the reason if it is stopped."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_run import GRID, SPACE, emulator, recipe
from torch import Tensor

import gen
from gen.emulators.base import Emulator
from gen.emulators.copula import Copula
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.training.adversarial import TrainingStopped
from gen.training.base import train
from gen.training.best import best_record, generate
from gen.training.guards import Guard, Watch
from gen.training.logs import CsvLog
from gen.training.losses import NonSaturating
from gen.training.optimisation import Adam
from gen.training.sheet import sheet


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run and what it wrote to the terminal."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stderr)
        train(recipe(), folder, resolved="name: tiny\n")
    return folder, stderr.getvalue()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_logs(finished: tuple[Path, str]) -> None:
    folder, terminal = finished
    training, validation = table(folder / "training.csv"), table(folder / "validation.csv")
    assert [row["step"] for row in training] == [str(s) for s in range(2, 25, 2)]
    assert {"critic", "penalty", "generator", "critic_gradient", "score_real", "rate"} <= set(training[0])
    assert [row["step"] for row in validation] == ["10", "20", "24"]
    assert float(training[0]["rate"]) == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 24)), rel=1e-4)
    assert list((folder / "tensorboard").glob("events.*"))
    assert (folder / "recipe.yaml").read_text() == "name: tiny\n"
    last = terminal.replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"24/24 \[\d\d:\d\d<\d\d:\d\d", last)  # steps, time spent, time left
    assert "score" in last and "diversity" in last


def test_sheets_are_images_on_one_scale(finished: tuple[Path, str]) -> None:
    sheets = sorted((finished[0] / "samples").glob("*.png"))
    assert [p.name for p in sheets] == [f"step_{s:09d}.png" for s in (10, 20, 24)]
    rows = [np.asarray(Image.open(p).convert("RGB")) for p in sheets]
    assert rows[0].shape == (2 * (8 * 16 + 2), 8 * (8 * 16 + 2), 3)
    half = len(rows[0]) // 2
    assert (rows[0][:half] == rows[1][:half]).all()  # the same real fields each time
    assert (rows[0][half:] != rows[2][half:]).any()  # the generator has moved


def test_a_sheet_shows_values() -> None:
    real = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    fake = torch.zeros(1, 1, 8, 8)
    fake[..., 4:, :], fake[0, 0, 0, 0] = 2.0, math.nan
    image = np.asarray(Image.open(io.BytesIO(sheet(real, fake, gap=0))).convert("RGB")).astype(int)
    assert image.shape == (256, 128, 3)
    low, high = image[128 + 16, 64], image[250, 64]
    assert tuple(image[128, 0]) == (0, 255, 0)
    assert low.sum() < 60 and high.sum() > 650
    light = image[:128].sum(2)[::16, ::16].flatten()
    assert (np.diff(light) >= 0).all()  # light grows with the value
    volume = sheet(real[..., None].expand(1, 1, 8, 8, 8), fake[..., None].expand(1, 1, 8, 8, 8))
    assert Image.open(io.BytesIO(volume)).size == (8 * 16 + 2, 2 * (8 * 16 + 2))


def test_the_best_by_validation_is_shipped(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    scores = {int(row["step"]): float(row["score"]) for row in table(folder / "validation.csv")}
    best = best_record(folder)
    assert best is not None
    assert best["step"] == min(scores, key=lambda step: scores[step])
    weights = list((folder / "best").glob("*.safetensors"))
    assert [p.name for p in weights] == [best["weights"]]
    shipped = gen.load(folder / "checkpoint")
    kept = safetensors.torch.load_file(weights[0])
    assert all(torch.equal(value, kept[name]) for name, value in shipped.state_dict().items())
    params = torch.full((4, 1), 0.8)
    assert torch.equal(generate(shipped, params), generate(shipped, params))
    card = (folder / "checkpoint" / "card.md").read_text()
    assert "sigma_8` in [0.6, 1]" in card and "WassersteinGP" in card and "64 fields of 8 sim" in card


def test_altered_best_weights_are_not_shipped(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "checkpoint")
    (path,) = (folder / "best").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="missing or altered"):
        train(recipe(), folder, resume=True)
    assert not (folder / "checkpoint").exists()


class Fading(LatentGAN):
    """A generator that is given away by its own fault from the second validation on."""

    fault = staticmethod(lambda y: y)
    calls = 0

    def generate(self, params: Tensor, generators: Any, coarse: Any = None, shape: Any = None) -> Tensor:
        type(self).calls += 1
        y = super().generate(params, generators, coarse, shape)
        noise = torch.stack([torch.randn(1, 8, 8, generator=g) for g in generators])
        good = noise * params[..., None, None] + 0 * y
        return type(self).fault(good) if type(self).calls > 1 else good


def fading(fault: Any) -> Any:
    kind = type("Faulty", (Fading,), {"fault": staticmethod(fault), "calls": 0})
    return lambda grid, space: kind(
        grid, space, latent_size=4, working="physical", channels=(8,), kernel=3, critic_channels=(8,)
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda y: y[:1].expand_as(y), "the generator has collapsed: for 2 validations"),
        (lambda y: 50 * y, "the generator has diverged: for 2 validations"),
        (lambda y: y * math.inf, "the generated fields are not finite"),
    ],
    ids=["collapse", "divergence", "not finite"],
)
def test_a_lost_run_stops_and_keeps_the_last_good_weights(tmp_path: Path, fault: Any, reason: str) -> None:
    guard = Guard(patience=2, grace=1)
    lost = recipe(emulator=fading(fault), validate_every=2, guard=guard)
    with pytest.raises(TrainingStopped, match=reason) as error:
        train(lost, tmp_path)
    assert "the best generator, of step 2, is kept" in str(error.value)
    assert "\n" not in str(error.value)
    best = best_record(tmp_path)
    assert best is not None and best["step"] == 2
    assert (tmp_path / "best" / best["weights"]).is_file()
    assert not (tmp_path / "checkpoint").exists()


def test_guards_forgive_a_bad_moment() -> None:
    guard, watch = Guard(collapse=0.5, divergence=5, patience=3, grace=2), Watch()

    def judge(score: float, diversity: float) -> str | None:
        return watch.reason(guard, {"score": score, "diversity": diversity}, best=1.0)

    assert [judge(100, 0) for _ in range(2)] == [None, None]  # grace
    assert [judge(1, 0.4), judge(1, 0.4), judge(1, 0.6), judge(1, 0.4), judge(1, 0.4)] == [None] * 5
    assert "collapsed" in str(judge(1, 0.4))
    assert [judge(6, 1), judge(6, 1), judge(4, 1), judge(6, 1), judge(6, 1)] == [None] * 5
    assert "diverged" in str(judge(6, 1))
    assert "not finite" in str(Watch().reason(guard, {"score": math.nan, "diversity": 1.0}, 1.0))
    with pytest.raises(InputError):
        Guard(divergence=0.5)


def test_a_log_is_continued_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, step=0)
    for step in (1, 2, 3, 4):
        log.add(step, {"a": step / 2})
    with path.open("a") as file:
        file.write("5,")  # cut short
    resumed = CsvLog(path, step=3)
    resumed.add(4, {"a": 9.0, "b": 1.0})  # a column that appears late
    assert table(path) == [
        {"step": "1", "a": "0.5", "b": ""},
        {"step": "2", "a": "1", "b": ""},
        {"step": "3", "a": "1.5", "b": ""},
        {"step": "4", "a": "9", "b": "1"},
    ]


def test_a_closed_form_trains_by_the_same_command(tmp_path: Path) -> None:
    made = train(recipe(loss=None, emulator=lambda grid, space: Copula(grid, space)), tmp_path / "copula")
    copula = gen.load(made / "checkpoint")
    assert isinstance(copula, Copula)
    values = copula.sample({"sigma_8": 0.7}, n=256, seed=1).values
    assert values.std().item() == pytest.approx(0.7, rel=0.05)  # the toy's law
    assert "closed form" in (made / "checkpoint" / "card.md").read_text()
    with pytest.raises(InputError, match="already holds a run"):
        train(recipe(loss=None, emulator=lambda grid, space: Copula(grid, space)), tmp_path / "copula")


def test_a_dry_run_reports_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(), tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
    text = capsys.readouterr().out
    net = emulator(GRID, SPACE)
    assert isinstance(net, LatentGAN)
    for module in (net, net.make_critic()):
        assert f"{sum(p.numel() for p in module.parameters()):,} trained weights" in text
    for part in (
        "(1, 8, 8)",
        "scores (8,)",
        "64 train, 64 validation, 0 test",
        "sigma_8 in [0.6, 1]",
        "24 steps",
    ):
        assert part in text
    assert re.search(r"memory +about [\d.]+ kB a device", text)


def test_one_line_makes_a_dcgan_of_a_wgan(tmp_path: Path) -> None:
    folder = train(recipe(loss=NonSaturating(), max_steps=4, validate_every=4), tmp_path / "run")
    config = json.loads((folder / "checkpoint" / "config.json").read_text())
    assert config["class"].endswith("LatentGAN")
    assert "NonSaturating" in (folder / "checkpoint" / "card.md").read_text()


def unitless(grid: Grid, space: ParameterSpace) -> Emulator:
    return LatentGAN(grid, space, unit="uK", latent_size=4, channels=(8,), critic_channels=(8,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emulator": unitless}, "unit '1', the emulator 'uK'"),
        ({"emulator": lambda grid, space: Copula(grid, space)}, "no generator to train"),
        ({"devices": 3, "accelerator": "cpu"}, "must be a multiple of 3"),
        ({"validation_maps": 4}, "at least 8 real and 8 generated"),
    ],
)
def test_recipes_that_do_not_fit_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        train(recipe(**changes), tmp_path / "run")
    with pytest.raises(InputError, match="max_steps must be at least 1"):
        recipe(max_steps=0)
    assert Adam().rate == 2e-4
