"""A checkpoint gives back the same emulator, bit for bit, and nothing hostile or damaged is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import gen
from gen.checkpoint import SHIPPED_LIMIT, load, record_report, save
from gen.emulators.base import Emulator
from gen.emulators.beams import beam, filtered
from gen.emulators.coarse_diffusion import CoarseDiffusion
from gen.emulators.conditioning import Deterministic
from gen.emulators.copula import Copula
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.counts import GalaxyCounts
from gen.emulators.displacement import Displacement
from gen.emulators.field_map import FieldMap
from gen.emulators.latent_gan import LatentGAN
from gen.emulators.refinement import Refinement
from gen.emulators.super_resolution import SuperResolution
from gen.emulators.wide_beam import FromWideBeam
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
THETA = {"Omega_m": 0.3, "sigma_8": 0.8}
SHIPPED = sorted(p.parent for p in (Path(__file__).parents[1] / "checkpoints").glob("*/config.json"))


def latent_gan(seed: int = 0) -> LatentGAN:
    torch.manual_seed(seed)
    return LatentGAN(
        Grid((16, 16), 3.5, "deg", False), SPACE, latent_size=4, channels=(8, 4), working="physical",
        critic_channels=(4, 8),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "mine"
    save(latent_gan(), path, "# mine\n", {"headline": []}, {"recipe": "mine"})
    return path


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def put_weights(folder: Path, content: bytes) -> None:
    """Other weights with a matching sha256, as someone would who can write to the folder."""
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("kind", ["latent", "copula", "copula_gan", "3d"])
def test_what_is_loaded_is_what_was_saved(kind: str, tmp_path: Path) -> None:
    grid, cube = Grid((16, 16), 3.5, "deg", False), Grid((8, 8, 8), 50.0, "Mpc/h", True)
    torch.manual_seed(1)
    emulator = {
        "latent": latent_gan,
        "copula": lambda: Copula(grid, SPACE, "convergence", "1"),
        "copula_gan": lambda: CopulaGAN(grid, SPACE, widths=(4, 8)),
        "3d": lambda: LatentGAN(cube, SPACE, "delta", "1", 4, channels=(8, 4), working="physical",
                                critic_channels=(4, 8)),
    }[kind]()  # fmt: skip
    with torch.no_grad():
        for tensor in emulator.state_dict().values():
            tensor += 0.01 * torch.randn(tensor.shape) if tensor.is_floating_point() else 0
    save(emulator, tmp_path / "c", "# card\n")
    again = gen.load(tmp_path / "c")
    assert type(again) is type(emulator)
    assert (again.grid, again.space, again.field, again.unit) == (
        emulator.grid, emulator.space, emulator.field, emulator.unit,
    )  # fmt: skip
    assert again.to_config() == emulator.to_config()
    assert not again.training
    one, two = (e.sample(THETA, n=3, seed=5).values for e in (emulator, again))
    assert torch.equal(one, two)
    assert one.std() > 0


@pytest.mark.parametrize("lacking", ["copula.mean_power", "score_law.shift.coefficients"])
def test_a_checkpoint_of_an_earlier_version_draws_what_it_drew(tmp_path: Path, lacking: str) -> None:
    grid = Grid((16, 16), 8.0, "Mpc/h", True)
    emulator = CopulaDiffusion(grid, SPACE, widths=(4,), steps=2, calibrated=True).eval()
    emulator.copula.log_power.coefficients.normal_(generator=torch.Generator().manual_seed(0))
    before = emulator.sample(THETA, n=2, seed=0).values
    old = tmp_path / "old"
    save(emulator, old, "# old\n")
    weights = safetensors.torch.load_file(old / "model.safetensors")
    assert len(weights.pop(lacking).unique()) == 1
    put_weights(old, safetensors.torch.save(weights))
    assert torch.equal(load(old).sample(THETA, n=2, seed=0).values, before)


def test_the_files_are_plain_data(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.md", "config.json", "model.safetensors", "report.json",
    ]  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["class"] == "gen.emulators.latent_gan.LatentGAN"
    assert config["provenance"]["recipe"] == "mine"
    content = (folder / "model.safetensors").read_bytes()
    assert config["sha256"] == hashlib.sha256(content).hexdigest()
    assert config["n_parameters"] == sum(p.numel() for p in latent_gan().parameters())


def test_a_failed_save_leaves_the_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("gen.checkpoint.Path.write_text", fail)
        with pytest.raises(OSError, match="No space"):
            save(latent_gan(1), folder, "# other\n")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]
    save(latent_gan(1), folder, "# other\n")
    assert (folder / "card.md").read_text() == "# other\n"
    assert not (folder / "report.json").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]


def test_saving_never_replaces_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a checkpoint"):
        save(latent_gan(), tmp_path, "# mine\n")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(folder: Path, tmp_path: Path) -> None:
    broken = latent_gan()
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        save(broken, tmp_path / "broken", "")
    put_weights(folder, safetensors.torch.save(broken.state_dict()))
    with pytest.raises(InputError, match="not finite"):
        load(folder)


def test_every_changed_byte_of_the_weights_is_found(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    rng = random.Random(0)
    for position in [0, 7, 8, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(200))]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(InputError):
            load(folder)
    for length in (0, 4, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load(folder)
    path.write_bytes(whole)
    load(folder)


def test_mutated_weights_with_a_matching_sum_never_crash(folder: Path) -> None:
    """Whoever also writes the sha256 gets a refusal or finite numbers of the right shapes, no more."""
    whole = (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(1)
    refused = 0
    for _ in range(200):
        changed = bytearray(whole)
        changed[rng.randrange(header)] = rng.randrange(256)
        put_weights(folder, bytes(changed))
        try:
            emulator = load(folder)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert all(torch.isfinite(t).all() for t in emulator.state_dict().values())
    assert refused > 100


def test_an_oversized_header_is_refused_before_it_is_read(folder: Path) -> None:
    for size in (2**20 + 1, 2**40, 2**63):
        put_weights(folder, size.to_bytes(8, "little") + b"{}" + b" " * 2_000_000)
        with pytest.raises(InputError, match="header"):
            load(folder)


def test_tensors_must_be_those_of_the_class(folder: Path) -> None:
    state = {name: t.clone() for name, t in latent_gan().state_dict().items()}
    name = next(iter(state))
    for change, said in (
        ({k: v for k, v in state.items() if k != name}, f"lacks tensor {name}"),
        ({**state, "extra": torch.zeros(1)}, "unknown tensor extra"),
        ({**state, name: torch.zeros(3, 3)}, "shape"),
        ({**state, name: state[name].double()}, "float64"),
    ):
        put_weights(folder, safetensors.torch.save(change))
        with pytest.raises(InputError, match=said):
            load(folder)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.nn.Linear",
        "gen.emulators.latent_gan.nn.Linear",
        "gen.errors.InputError",
        "gen.checkpoint.load",
        "evaluation.power.PowerSpectrum",
        "subprocess.Popen",
        "",
    ],
)
def test_only_emulators_of_the_project_are_made(folder: Path, path: str) -> None:
    edit(folder, **{"class": path})
    with pytest.raises(InputError, match="is not a class"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "format"),
        ({"init": None}, "init"),
        ({"init": {}}, "does not describe"),
        ({"sha256": 5}, "sha256"),
        ({"class": ["gen.emulators.latent_gan.LatentGAN"]}, "class"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=said) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda init: init.pop("grid"),
        lambda init: init.update(surprise=1),
        lambda init: init.update(channels="many"),
        lambda init: init.update(grid={"shape": [16, 16], "box_size": -1, "unit": "deg", "periodic": False}),
        lambda init: init["space"].update(low=[1.0, 1.0]),
    ],
)
def test_arguments_that_do_not_fit_are_refused(folder: Path, change: Callable[[Any], object]) -> None:
    init = json.loads((folder / "config.json").read_text())["init"]
    change(init)
    edit(folder, init=init)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_json_is_refused(folder: Path) -> None:
    for text in ("", "<html>", "[" * 100_000, "{" + '"a":' * 10, '{"format": 1'):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError):
            load(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError):
        load(folder)
    (folder / "config.json").write_text(" " * (2**20 + 1))
    with pytest.raises(InputError, match="limit"):
        load(folder)


class Canary:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "last.ckpt", "weights.PTH", "deep/x.pkl"])
def test_a_pickle_anywhere_in_the_folder_is_refused_unread(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(InputError, match="pickle"):
        load(folder)
    assert not (tmp_path / "canary").exists()


def test_a_pickle_in_the_place_of_the_weights_is_refused_unread(folder: Path, tmp_path: Path) -> None:
    put_weights(folder, pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(InputError):
        load(folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "address", ["https://example.org/checkpoint", "http://x/y.safetensors", "s3://b/c", "hf://user/model"]
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="address"):
        load(address)
    with pytest.raises(InputError, match="address"):
        load(Path(address))


def test_a_pickle_or_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match="pickle"):
        load(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="no checkpoint folder"):
        load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no config\.json"):
        (tmp_path / "empty").mkdir()
        load(tmp_path / "empty")


def test_links_may_not_lead_out(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    os.symlink(outside, folder / "model.safetensors")
    with pytest.raises(InputError, match="link"):
        load(folder)
    (folder / "model.safetensors").unlink()
    shutil.move(outside, folder / "weights.safetensors")
    os.symlink("weights.safetensors", folder / "model.safetensors")
    load(folder)


def test_a_report_is_recorded_within_the_limit(folder: Path) -> None:
    record_report(folder, {"headline": [1]})
    assert json.loads((folder / "report.json").read_text()) == {"headline": [1]}
    with pytest.raises(InputError, match="limit"):
        record_report(folder, {"text": "x" * SHIPPED_LIMIT})
    assert json.loads((folder / "report.json").read_text()) == {"headline": [1]}


def test_importing_gen_is_light() -> None:
    assert gen.load is load
    with pytest.raises(AttributeError):
        _ = gen.nothing


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_shipped_checkpoints_load_and_sample(shipped: Path) -> None:
    size = sum(f.stat().st_size for f in shipped.rglob("*") if f.is_file())
    assert size <= SHIPPED_LIMIT
    assert (shipped / "card.md").read_text().startswith("#")
    assert {p.name for p in shipped.iterdir()} <= {
        "config.json",
        "model.safetensors",
        "card.md",
        "report.json",
    }
    emulator = load(shipped)
    space = emulator.space
    middle = {n: (a + b) / 2 for n, a, b in zip(space.names, space.low, space.high, strict=True)}
    fields = emulator.sample(middle, n=2, seed=0, coarse=coarse_fields(emulator))
    assert torch.isfinite(fields.values).all()
    assert (fields.values.flatten(1).std(1) > 0).all()
    alike = torch.equal(fields.values[0], fields.values[1])
    drawn = not isinstance(emulator, Deterministic) or isinstance(emulator, Refinement)
    assert alike is not drawn


def coarse_fields(emulator: Emulator) -> Tensor | None:
    """What a field-to-field emulator starts from: a random displacement, or a random density."""
    n, dim = emulator.grid.shape[0], emulator.grid.dim
    generator = torch.Generator().manual_seed(0)
    if isinstance(emulator, Refinement):
        return torch.randn(1, 2 * dim, *(n // emulator.factor,) * dim, generator=generator)
    if isinstance(emulator, Displacement | FieldMap):
        channels = emulator.n_coarse if isinstance(emulator, FieldMap) else dim
        return torch.randn(1, channels, *(n,) * dim, generator=generator)
    if isinstance(emulator, GalaxyCounts):
        return torch.randn(1, 1, *(n,) * dim, generator=generator).exp()
    if isinstance(emulator, SuperResolution | CoarseDiffusion):
        return torch.randn(1, 1, *(n // emulator.factor,) * dim, generator=generator).exp()
    if isinstance(emulator, FromWideBeam):
        noise = torch.randn(1, emulator.n_channels, *(n,) * dim, generator=generator)
        smooth = filtered(noise, beam(emulator.grid, emulator.arguments["coarse_beam"]))
        smooth[:, :1] = (smooth[:, :1] / smooth.std()).mul(0.3).exp()
        return smooth
    return None
