"""From a checkpoint to a file of fields, as a stream."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import gen
from gen.checkpoint import load
from gen.checkpoint_folder import read_config
from gen.emulators.base import Emulator
from gen.errors import InputError
from gen.fields import Fields, ParameterSpace
from gen.io import write_fields
from gen.io.fieldfile import file_format


def parse_params(text: str | None, space: ParameterSpace) -> Tensor:
    """A table ``(M, P)`` from ``"Omega_m=0.3,sigma_8=0.8"`` or from the path of a CSV file.

    Raises:
        InputError: for names that are not those of ``space``, and for what is no number.
    """
    if text is None:
        if len(space):
            asked = ",".join(f"{n}=..." for n in space.names)
            ranges = ", ".join(
                f"{n} in [{a:g}, {b:g}]" for n, a, b in zip(space.names, space.low, space.high, strict=True)
            )
            raise InputError(f"the emulator depends on parameters; give --params {asked}, with {ranges}")
        return space.table({})
    if "=" not in text:
        return read_table(Path(text), space)
    columns: dict[str, float] = {}
    for pair in text.split(","):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name in columns:
            raise InputError(f"--params gives {name} twice")
        columns[name] = _number(value, f"--params {name}")
    return space.table(columns)


def read_table(path: Path, space: ParameterSpace) -> Tensor:
    """A table ``(M, P)`` from a CSV file whose first row holds the names, in any order."""
    if not path.is_file():
        raise InputError(
            f"--params must be pairs such as Omega_m=0.3,sigma_8=0.8 or a CSV file, got {str(path)!r}"
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file of numbers below a row of names") from error
    if len(rows) < 2:
        raise InputError(
            f"{path} must hold a row of names and at least one row of numbers, got {len(rows)} rows"
        )
    names = [name.strip().lstrip("\ufeff") for name in rows[0]]
    if len(set(names)) != len(names):
        raise InputError(f"{path} names a column twice: {', '.join(names)}")
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise InputError(f"{path} row {number} has {len(row)} entries for {len(names)} names")
        for name, text in zip(names, row, strict=True):
            columns[name].append(_number(text.strip(), f"{path} row {number}, {name}"))
    return space.table(columns)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{where} must be a number, got {text!r}") from error


def sample_to_file(
    checkpoint: Path,
    params: str | None,
    n: int,
    seed: int,
    out: Path,
    *,
    extrapolate: bool = False,
    shape: Sequence[int] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> int:
    """Sample ``n`` fields for each row of parameters into a file; how many.

    Memory does not grow with the number of fields. The file records the checkpoint and its sha256, the
    seed, and whether any parameters lie outside the trained range.
    """
    file_format(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; give --overwrite to replace it, or another name")
    emulator = load(checkpoint).to(checked_device(device))
    if emulator.needs_coarse:
        raise InputError(
            f"{checkpoint} makes fields from other fields; give it those by cosmozoo apply {checkpoint} "
            "--coarse FILE"
        )
    table = parse_params(params, emulator.space)
    total = len(table) * n
    attributes = describe_sampling(emulator, checkpoint, table, n, seed)
    grid = emulator.grid if shape is None else emulator.grid.resized(shape)
    stream = emulator.stream(table, n, seed, extrapolate=extrapolate, shape=shape)
    parts = with_exact_params(stream, table, n)
    with tqdm(total=total, unit=" fields", disable=None) as bar:
        write_fields(out, counted(parts, bar), total, grid, emulator.space, attributes, overwrite=overwrite)
    return total


def checked_device(name: str) -> torch.device:
    """A device that is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available here; use --device cpu")
    return torch.device(name)


def with_exact_params(parts: Iterator[Fields], table: Tensor, n: int) -> Iterator[Fields]:
    """The same fields with their parameters as they were given, not rounded to the network's precision."""
    start = 0
    for part in parts:
        rows = torch.arange(start, start + len(part.values)) // n
        start += len(part.values)
        yield part._replace(params=table[rows].double())


def counted(parts: Iterator[Fields], bar: tqdm) -> Iterator[Fields]:
    for part in parts:
        yield part
        bar.update(len(part.values))


def describe_sampling(
    emulator: Emulator, checkpoint: Path, table: Tensor, n: int, seed: int
) -> dict[str, Any]:
    """What a file of samples says of its making."""
    config = read_config(checkpoint)
    return {
        "field": emulator.field,
        "units": emulator.unit,
        "seed": seed,
        "seeds": "field i is a function of the seed and i alone",
        "fields_per_row": n,
        "extrapolated": not bool(emulator.space.inside(table).all()),
        "checkpoint": Path(checkpoint).resolve().name,
        "checkpoint_sha256": config["sha256"],
        "class": config["class"],
        "device": emulator.device.type,
        "version": gen.__version__,
    }
