"""A checkpoint of the zoo: a folder of plain data from which an emulator is made again.

``config.json`` names the class, its arguments and the sha256 of the weights; ``model.safetensors`` holds
the weights; ``card.md`` is for people; ``report.json`` holds the figures it was judged by. Nothing in it
is code, and no pickle is ever read. The sha256 finds damage; whom to trust it cannot say.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

import gen
from gen.checkpoint_folder import FORMAT, read_config
from gen.config import resolve_class
from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.io.atomic import replacing, write_text

#: Largest weights that are read, and largest header of them [bytes].
WEIGHTS_LIMIT, HEADER_LIMIT = 4 * 2**30, 2**20
#: Largest folder that the zoo ships [bytes].
SHIPPED_LIMIT = 20 * 10**6


def save(
    emulator: Emulator,
    folder: str | Path,
    card: str,
    report: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write an emulator as a checkpoint folder, replaced whole or not at all.

    Args:
        card: Markdown, for people: what it emulates, from what data, how it was trained, its limits.
        report: what ``report.json`` shall hold.
        provenance: what else to record of its making, JSON-able.

    Raises:
        InputError: if ``folder`` holds something that is no checkpoint, or weights are not finite.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} exists and is not a checkpoint; it would be replaced: give another folder"
        )
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in emulator.state_dict().items()}
    _refuse_not_finite(state, folder)
    weights = safetensors.torch.save(state)
    config = {
        "format": FORMAT,
        "version": gen.__version__,
        "class": f"{type(emulator).__module__}.{type(emulator).__qualname__}",
        "init": emulator.to_config(),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "n_parameters": sum(p.numel() for p in emulator.parameters()),
        "provenance": {"torch": torch.__version__, "python": platform.python_version(), **(provenance or {})},
    }
    with replacing(folder, overwrite=True) as staged:
        staged.mkdir()
        (staged / "model.safetensors").write_bytes(weights)
        (staged / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (staged / "card.md").write_text(card, encoding="utf-8")
        if report is not None:
            (staged / "report.json").write_text(json.dumps(report) + "\n", encoding="utf-8")


def record_report(folder: str | Path, report: Mapping[str, Any]) -> None:
    """Put the figures of a report into a checkpoint."""
    folder = Path(folder)
    read_config(folder)
    text = json.dumps(report) + "\n"
    size = sum(f.stat().st_size for f in folder.iterdir() if f.name != "report.json") + len(text)
    if size > SHIPPED_LIMIT:
        raise InputError(
            f"with this report {folder} would have {size / 1e6:.1f} MB, more than the limit of 20 MB"
        )
    write_text(folder / "report.json", text)


def load(folder: str | Path) -> Emulator:
    """The emulator in a checkpoint folder, on the CPU, ready to sample.

    Raises:
        InputError: for an address, a pickle, a class that is no emulator of this project, weights that
            are damaged, altered, not finite or not of this class.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = resolve_class(config["class"], Emulator)
    weights = _checked_weights(folder, config["sha256"])
    emulator = _constructed(kind, config["init"], folder)
    _supply_later(weights, emulator)
    _refuse_misfit(weights, emulator.state_dict(), folder)
    _refuse_not_finite(weights, folder)
    emulator.load_state_dict(weights)
    return emulator.eval()


def _supply_later(weights: dict[str, Tensor], emulator: Emulator) -> None:
    """What checkpoints of earlier versions lack: a part's ``later`` names it and what it then was."""
    for path, part in emulator.named_modules():
        for name, value in getattr(part, "later", {}).items():
            lacking = torch.full_like(part.get_buffer(name), value)
            weights.setdefault(f"{path}.{name}" if path else name, lacking)


def _checked_weights(folder: Path, expected: str) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} has no model.safetensors; the checkpoint is not whole, copy it again")
    size = path.stat().st_size
    if size > WEIGHTS_LIMIT:
        raise InputError(f"{path} has {size} bytes, more than the limit of {WEIGHTS_LIMIT}")
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    if size < 8 or header > min(HEADER_LIMIT, size - 8):
        raise InputError(
            f"{path} announces a header of {header} bytes, more than the limit or the file; it is damaged"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} has sha256 {found[:12]}..., config.json says {expected[:12]}...; "
            "the weights were altered or damaged, copy the checkpoint again"
        )
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error


def _constructed(kind: type[Emulator], init: Mapping[str, Any], folder: Path) -> Emulator:
    try:
        return kind.from_config(init)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}/config.json does not describe a {kind.__name__}: {reason}") from error


def _refuse_misfit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    for what, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has the unknown", weights.keys() - wanted.keys()),
    ):
        if names:
            raise InputError(
                f"{folder}/model.safetensors {what} tensor {min(names)}; it is not of this class"
            )
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype:
            raise InputError(
                f"{folder}/model.safetensors has {name} of shape {tuple(tensor.shape)} {tensor.dtype}, "
                f"the class needs {tuple(wanted[name].shape)} {wanted[name].dtype}"
            )


def _refuse_not_finite(weights: Mapping[str, Tensor], folder: Path) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"the tensor {name} of {folder} holds values that are not finite; train it again"
            )
