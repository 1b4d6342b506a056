"""Files and folders that appear under their name complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gen.errors import InputError


@contextmanager
def replacing(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path to write to that takes the name ``path`` when the block ends well, and is gone otherwise.

    It lies in the destination's own folder, since a rename across file systems is a copy that a kill can
    cut short. It may become a file or a folder.

    Raises:
        InputError: if ``path`` exists and may not be overwritten, or its folder cannot be written to.
    """
    path = Path(path)
    _refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give another place with -o") from error
    try:
        yield staging / path.name
        _sync(staging / path.name)
        _refuse_existing(path, overwrite=overwrite)
        if path.is_dir() or (path.exists() and (staging / path.name).is_dir()):
            os.replace(path, staging / "old")
        os.replace(staging / path.name, path)
        _sync_entry(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with replacing(path, overwrite=True) as staged:
        staged.write_text(text, encoding="utf-8")


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; give --overwrite to replace it, or another name")


def _sync(path: Path) -> None:
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        _sync_entry(entry)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
