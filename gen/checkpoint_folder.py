"""The folder of a checkpoint: which files it may hold, and what its ``config.json`` says.

Light to import: nothing here needs the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gen.errors import InputError

FORMAT = 1
CONFIG_LIMIT = 2**20
#: Names of files that can run code when they are read.
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".dill")


def read_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint folder that holds nothing dangerous.

    Raises:
        InputError: as ``load`` does, but for the weights.
    """
    if ":/" in str(folder):
        raise InputError(f"a checkpoint must be a folder on this machine, got the address {folder}")
    folder = Path(folder)
    if folder.suffix.lower() in PICKLES:
        raise InputError(
            f"{folder} is a pickle, which can run code; give a checkpoint folder with model.safetensors"
        )
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder at {folder}; `cosmozoo list` shows those at hand")
    _refuse_dangerous_files(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no config.json, so it is not a checkpoint; `cosmozoo list` shows those at hand"
        )
    if path.stat().st_size > CONFIG_LIMIT:
        raise InputError(f"{path} has {path.stat().st_size} bytes, more than the limit of {CONFIG_LIMIT}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON; the checkpoint is damaged, copy it again") from error
    return _checked_config(config, path)


def _checked_config(config: Any, path: Path) -> dict[str, Any]:
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        told = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise InputError(f"{path} has format {told!r}, this version reads format {FORMAT}; update cosmozoo")
    for key, kind in (("class", str), ("init", dict), ("sha256", str)):
        if not isinstance(config.get(key), kind):
            raise InputError(f"{path} must name {key} as a {kind.__name__}, got {config.get(key)!r}")
    return config


def _refuse_dangerous_files(folder: Path) -> None:
    inside = folder.resolve()
    for entry in sorted(folder.rglob("*")):
        if entry.suffix.lower() in PICKLES:
            raise InputError(
                f"{folder} holds the pickle {entry.name}, which can run code; remove it, none is ever read"
            )
        if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
            raise InputError(f"{entry} is a link that leads out of the checkpoint; copy the file itself")
