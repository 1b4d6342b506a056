"""Files that survive a kill: written aside, synced, renamed, and checked by sha256 when read."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO

from gen.errors import InputError
from gen.io.atomic import replacing, write_text

STATE = re.compile(r"step_(\d{9})\.ckpt")


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> str:
    """Let ``write`` fill a file that appears under ``path`` complete or not at all; its sha256."""
    with replacing(path, overwrite=True) as staged, staged.open("w+b") as file:
        write(file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def sidecar(path: Path) -> Path:
    """Where the sha256 of a file stands."""
    return path.with_name(path.name + ".sha256")


def is_valid(path: Path) -> bool:
    """Whether a file is whole: it has a sidecar, written after it, with its sha256."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sidecar(path).read_text().strip()
    except OSError:
        return False


def state_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:09d}.ckpt"


def states(folder: Path) -> list[Path]:
    """Resume states of a folder, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if STATE.fullmatch(p.name))


def newest_valid(folder: Path) -> Path | None:
    """The newest whole resume state; torn and altered ones are passed over."""
    return next((p for p in reversed(states(folder)) if is_valid(p)), None)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` whole states, and what kills have left behind."""
    whole = [p for p in states(folder) if is_valid(p)]
    kept = set(whole[-keep:])
    for path in states(folder):
        if path not in kept:
            path.unlink()
            sidecar(path).unlink(missing_ok=True)
    for stray in folder.glob(".step_*"):
        shutil.rmtree(stray)


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's own state files, private to a run: atomic, checked, and never unpickled as code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        if storage_options is not None:
            raise InputError(f"resume states take no storage options, got {storage_options!r}")
        target = _local(path)
        # A state of the same step may be there after a resume: invalid until the new sidecar is.
        sidecar(target).unlink(missing_ok=True)
        digest = write_atomic(target, lambda file: torch.save(checkpoint, file))
        write_text(sidecar(target), digest + "\n")

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a state with tensors and plain values only, whatever ``weights_only`` asks.

        Raises:
            InputError: for a URL, a missing, torn or altered file, or one that holds other objects.
        """
        del weights_only
        source = _local(path)
        if not is_valid(source):
            raise InputError(
                f"the resume state {source} is missing or its sha256 does not match; remove it, and the "
                f"newest whole one is used"
            )
        try:
            return torch.load(source, map_location=map_location or "cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"the resume state {source} holds more than tensors and plain values and is not loaded; "
                f"use one that this program has written"
            ) from error

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        target = _local(path)
        target.unlink(missing_ok=True)
        sidecar(target).unlink(missing_ok=True)


def _local(path: str | os.PathLike[str]) -> Path:
    if "://" in os.fspath(path) or re.match(r"[a-z][a-z0-9+.]+:/", os.fspath(path), re.IGNORECASE):
        raise InputError(f"a resume state must be a file on this machine, got the URL {os.fspath(path)}")
    return Path(path)
