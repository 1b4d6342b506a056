"""A recipe builds exactly what it says, or is refused in one sentence before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from gen.config import build, describe, load_recipe, resolve_class
from gen.emulators.base import Emulator
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.training.losses import AdversarialLoss, NonSaturating, WassersteinGP
from gen.yaml_text import parse_yaml, read_yaml

BUILT: list[str] = []


@dataclass(frozen=True)
class Part:
    """A nested record.

    Args:
        rate: how fast.
    """

    rate: float = 0.1
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Whole:
    """A recipe with every kind of key that recipes have."""

    name: str
    emulator: Callable[[Grid, ParameterSpace], Emulator]
    grid: Grid
    loss: AdversarialLoss | None = None
    part: Part = field(default_factory=Part)
    steps: int = 10
    pair: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        BUILT.append(self.name)


GRID: dict[str, Any] = {"shape": [8, 8], "box_size": 3.5, "unit": "deg", "periodic": False}
EMULATOR = {
    "class_path": "gen.emulators.latent_gan.LatentGAN",
    "init_args": {"latent_size": 4, "channels": [8, 4], "working": "physical"},
}
RECIPE: dict[str, Any] = {
    "name": "mine",
    "emulator": EMULATOR,
    "grid": GRID,
    "loss": {"class_path": "gen.training.losses.WassersteinGP", "init_args": {"weight": 5}},
}
TEXT = """
name: mine
emulator:
  class_path: gen.emulators.latent_gan.LatentGAN
  init_args: {latent_size: 4, channels: [8, 4], working: physical}
grid: {shape: [8, 8], box_size: 3.5, unit: deg, periodic: false}
loss: {class_path: gen.training.losses.WassersteinGP, init_args: {weight: 5}}
part: {rate: 1e-4}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    return path


def test_a_recipe_builds_what_it_says(recipe: Path) -> None:
    made = load_recipe(Whole, recipe).value
    assert made.name == "mine"
    assert made.grid == Grid((8, 8), 3.5, "deg", False)
    assert made.loss == WassersteinGP(weight=5.0)
    assert made.part == Part(rate=1e-4)
    assert made.steps == 10
    space = ParameterSpace(("a",), (0.0,), (1.0,))
    emulator = made.emulator(made.grid, space)
    assert isinstance(emulator, LatentGAN)
    assert emulator.latent_size == 4
    assert emulator.space is space


def test_flags_override_the_file(recipe: Path) -> None:
    flags = ["--steps", "30", "--part.rate=2e-5", "--loss.weight", "7", "--emulator.latent_size=6"]
    made = load_recipe(Whole, recipe, flags)
    assert made.value.steps == 30
    assert made.value.part.rate == 2e-5
    assert made.value.loss == WassersteinGP(weight=7.0)
    assert made.resolved["emulator"]["init_args"]["latent_size"] == 6


def test_one_flag_swaps_the_loss(recipe: Path) -> None:
    made = load_recipe(Whole, recipe, ["--loss", "gen.training.losses.NonSaturating"])
    assert made.value.loss == NonSaturating()


def test_the_resolved_recipe_is_complete_and_builds_the_same(recipe: Path, tmp_path: Path) -> None:
    first = load_recipe(Whole, recipe, ["--steps=3"])
    assert first.resolved["pair"] == [0.5, 0.999]
    assert first.resolved["loss"]["init_args"]["n_critic"] == 5
    again = tmp_path / "resolved.yaml"
    again.write_text(first.text)
    second = load_recipe(Whole, again)
    assert second.resolved == first.resolved
    assert (second.value.loss, second.value.part, second.value.grid, second.value.steps) == (
        first.value.loss,
        first.value.part,
        first.value.grid,
        first.value.steps,
    )


WRONG = [
    ({"stepz": 3}, "'stepz'.*did you mean 'steps'"),
    ({"steps": "many"}, "steps: expected int, got many"),
    ({"steps": 2.5}, "steps: expected int, got 2.5"),
    ({"steps": [1]}, r"steps: expected int"),
    ({"name": ["a"]}, "name: expected str"),
    ({"pair": [1, 2, 3]}, "pair: expected tuple with 2 elements"),
    ({"part": {"rat": 1}}, "part: 'rat'"),
    ({"part": {"rate": "fast"}}, r"part\.rate: expected float, got fast"),
    ({"part": {"kind": "c"}}, r"part\.kind: .*'a'.*'b'.* got c"),
    ({"grid": {**GRID, "unit": "miles"}}, "grid: .*unit must be.*miles"),
    ({"grid": {"shape": [8, 8]}}, "grid: .*box_size"),
    ({"grid": 4}, "grid: .*mapping"),
    ({"loss": {"class_path": "gen.training.losses.Wasserstein"}}, "loss: .*no attribute 'Wasserstein'"),
    (
        {"loss": {"class_path": "gen.training.losses.WassersteinGP", "init_args": {"wieght": 1}}},
        "loss: 'wieght'.*did you mean 'weight'",
    ),
    (
        {"loss": {"class_path": "gen.training.losses.WassersteinGP", "init_args": {"weight": "x"}}},
        r"loss\.weight: expected float, got x",
    ),
    ({"loss": {"class_path": "gen.emulators.copula.Copula"}}, "Copula is not a AdversarialLoss"),
    ({"emulator": {**EMULATOR, "init_args": {"latnt": "x"}}}, "emulator: 'latnt'.*did you mean 'latent'"),
    ({"emulator": {**EMULATOR, "init_args": {"latent": "x"}}}, r"emulator\.latent: .*'gaussian'.* got x"),
]

HOSTILE = [
    {"emulator": "os.system"},
    {"emulator": {"class_path": "os.system", "init_args": {"command": "touch CANARY"}}},
    {"emulator": "gen.emulators.latent_gan.torch.load"},
    {"emulator": "gen.io.atomic.os.system"},
    {"emulator": {"class_path": "gen.io.atomic.os.system"}},
    {"emulator": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "CANARY"]}}},
    {"loss": {"class_path": "logging.os.system"}},
    {"loss": {"class_path": "builtins.eval"}},
    {"loss": {"class_path": "gen.io.atomic.shutil.rmtree"}},
    {"loss": {"class_path": "torch.nn.Linear"}},
    {"loss": "https://example.org/loss.yaml"},
    {"name": "http://example.org/weights"},
    {"name": "s3://bucket/x"},
    {"name": "weights.ckpt"},
    {"name": "data/fields.PKL"},
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_what_does_not_fit_is_refused_in_one_sentence(change: dict[str, Any], said: str) -> None:
    BUILT.clear()
    with pytest.raises(InputError, match=said) as caught:
        build(Whole, {**RECIPE, **change}, "mine.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")
    assert not BUILT


@pytest.mark.parametrize("change", HOSTILE)
def test_a_recipe_is_input_not_code(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    BUILT.clear()
    with pytest.raises(InputError) as caught:
        build(Whole, {**RECIPE, **change})
    assert "\n" not in str(caught.value)
    assert not BUILT
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags",
    [
        ["--emulator=os.system"],
        ["--loss", "logging.os.system"],
        ["--name", "http://x"],
        ["--name=a.pt"],
        ["--stps=1"],
    ],
)
def test_flags_are_checked_like_the_file(recipe: Path, flags: list[str]) -> None:
    with pytest.raises(InputError):
        load_recipe(Whole, recipe, flags)


@pytest.mark.parametrize("key", ["name", "emulator", "grid"])
def test_a_missing_key_is_named(key: str) -> None:
    mapping = {k: v for k, v in RECIPE.items() if k != key}
    with pytest.raises(InputError, match=f"missing: {key}"):
        build(Whole, mapping)


def test_keys_are_described_with_types_and_defaults() -> None:
    text = describe(Whole)
    assert "--part.rate" in text
    assert "how fast" in text
    assert "default: 10" in text


class Base:
    """Something that no class of the project is."""


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "gen",
        "gen.",
        "gen.nothing.Here",
        "gen.emulators.latent_gan.nn.Linear",
        "gen.emulators.base.torch.nn.Module",
        "gen.errors.InputError",
        "gen.noise.normal",
        "gen.emulators.latent_gan.LatentGAN.sample",
        "gen.emulators.latent_gan",
        "gen.emulators.latent_gan.LatentGAN()",
        "gen.__import__('os')",
        "generic.module.Class",
        "torch.nn.Linear",
    ],
)
def test_only_classes_of_the_asked_kind_are_resolved(path: str) -> None:
    with pytest.raises(InputError):
        resolve_class(path, Emulator)


def test_a_class_of_the_project_is_resolved() -> None:
    assert resolve_class("gen.emulators.latent_gan.LatentGAN", Emulator) is LatentGAN
    with pytest.raises(InputError):
        resolve_class("gen.emulators.latent_gan.LatentGAN", Base)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("a: {b: 1, b: 2}\n", "'b' is given twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "python/object"),
        ("- 1\n- 2\n", "mapping"),
        ("a: [1\n", "not valid YAML at line"),
        ("1: a\n", "named keys"),
        ("", "mapping"),
    ],
)
def test_yaml_without_surprises(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse_yaml(text, "x.yaml")
    assert "\n" not in str(caught.value)


def test_yaml_numbers_are_numbers() -> None:
    told = parse_yaml("a: 1e-4\nb: 2E5\nc: 1.5\nd: 3\ne: -1.e-3\nf: 1e\ng: .inf\nh: yes\n", "x.yaml")
    assert told == {
        "a": 1e-4,
        "b": 2e5,
        "c": 1.5,
        "d": 3,
        "e": -1e-3,
        "f": "1e",
        "g": float("inf"),
        "h": True,
    }


def test_a_recipe_is_a_small_file_of_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="address"):
        read_yaml("https://example.org/recipe.yaml")
    big = tmp_path / "big.yaml"
    big.write_text("a: " + "x" * 1_000_001)
    with pytest.raises(InputError, match="limit"):
        read_yaml(big)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="text"):
        read_yaml(binary)
