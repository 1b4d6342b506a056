"""The generator that the validation statistics prefer, on disk and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.io.atomic import write_text
from gen.noise import sample_generator
from gen.training.checkpoint_io import write_atomic


@torch.no_grad()
def generate(
    emulator: Emulator, params: Tensor, coarse: Tensor | None = None, stream: str = "validation"
) -> Tensor:
    """One field of each row of ``params``, and of ``coarse`` if it is given, the same noise at every call;
    physical units, on the CPU."""
    was_training = emulator.training
    emulator.eval()
    try:
        parts = []
        for rows in torch.arange(len(params)).split(32):
            generators = [sample_generator(0, int(i), stream) for i in rows]
            given = None if coarse is None else coarse[rows].to(emulator.device)
            fields = emulator.generate(params[rows].to(emulator.device), generators, given)
            parts.append(fields.float().cpu())
    finally:
        emulator.train(was_training)
    return torch.cat(parts)


def save_best(folder: Path, emulator: Emulator, step: int, statistics: Mapping[str, float]) -> None:
    """Write the weights, then the record that names them; the last best goes only after that."""
    old = best_record(folder)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in emulator.state_dict().items()}
    name = f"step_{step:09d}.safetensors"
    data = safetensors.torch.save(tensors)
    digest = write_atomic(folder / "best" / name, lambda file: file.write(data))
    record = {"step": step, "weights": name, "sha256": digest, **statistics}
    write_text(folder / "best" / "best.json", json.dumps(record, indent=1) + "\n")
    if old is not None and old["weights"] != name:
        (folder / "best" / old["weights"]).unlink(missing_ok=True)


def best_record(folder: Path) -> dict[str, Any] | None:
    """Step, score and file of the best generator so far."""
    path = folder / "best" / "best.json"
    return json.loads(path.read_text()) if path.exists() else None


def load_best(folder: Path, emulator: Emulator) -> dict[str, Any]:
    """Put the best weights of a run into ``emulator``; its record.

    Raises:
        InputError: if the weights are not those that were written.
    """
    record = best_record(folder)
    path = folder / "best" / (record["weights"] if record else "best.json")
    data = path.read_bytes() if path.exists() else b""
    if record is None or hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise InputError(f"the best weights {path} are missing or altered; train anew in another folder")
    emulator.load_state_dict(safetensors.torch.load(data))
    return record
