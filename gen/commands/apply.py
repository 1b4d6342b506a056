"""``cosmozoo apply``: boxes of any size, chunk by chunk, over processes and machines.

What is global is made first, by this process, and lies in a folder beside the output, one file a channel;
so do the chunks that are done, each under its own name, whoever made it. The same command goes on where it
was interrupted; when all are there, they become the output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.spread import spread, workers
from gen.checkpoint import load
from gen.checkpoint_folder import read_config
from gen.commands.coarse_boxes import CoarseBoxes, coarse_boxes
from gen.commands.sample import parse_shape
from gen.emulators.base import Emulator
from gen.emulators.chunks import Piece, local, make, pieces
from gen.errors import InputError
from gen.io.atomic import replacing, write_text
from gen.io.boxes import check_written, writing_boxes
from gen.noise import sample_generator
from gen.sampling import checked_device, describe_sampling, parse_params


def apply(options: argparse.Namespace) -> int:
    if options.processes is not None and options.processes < 1:
        raise InputError(f"--processes must be at least 1, got {options.processes}")
    with workers(options.processes or os.cpu_count() or 1, options.scheduler) as executor:
        total = apply_to_file(
            options.checkpoint,
            options.coarse,
            options.params,
            options.out,
            shape=parse_shape(options.shape),
            chunk=options.chunk,
            seed=options.seed,
            extrapolate=options.extrapolate,
            device=options.device,
            overwrite=options.overwrite,
            executor=executor,
        )
    print(f"{total} fields in {options.out}")
    return 0


@dataclass(frozen=True, eq=False)
class _Job:
    """One output: its emulator, a row of parameters for each field, its pieces, and where they lie."""

    emulator: Emulator
    checkpoint: Path
    sha256: str
    table: Tensor
    boxes: CoarseBoxes | None
    shape: tuple[int, ...]
    plan: list[Piece]
    seed: int
    device: str
    scratch: Path

    def inputs(self, row: int) -> Path:
        return self.scratch / f"{row}"

    def piece(self, row: int, number: int) -> Path:
        return self.scratch / f"{row}_{number}.npy"

    def missing(self, row: int) -> list[int]:
        return [number for number in range(len(self.plan)) if not self.piece(row, number).exists()]


def apply_to_file(
    checkpoint: Path,
    coarse: Path | None,
    params: str | None,
    out: Path,
    *,
    shape: Sequence[int] | None = None,
    chunk: int = 64,
    seed: int = 0,
    extrapolate: bool = False,
    device: str = "cpu",
    overwrite: bool = False,
    executor: Executor | None = None,
) -> int:
    """One field for each coarse field, or for each row of parameters, into a file; how many.

    Field i is, to rounding, that of ``Emulator.sample`` with the same seed; its bits do not depend on
    how many processes there are. Memory is that of a piece of ``chunk`` cells a side and its halo, and of
    half a dozen channels of one box while its Fourier transforms are taken.

    Raises:
        InputError: for coarse fields or a shape that do not fit the emulator, an emulator that is no local
            map, and as ``sample_to_file``.
    """
    check_written(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; give --overwrite to replace it, or another name")
    checked_device(device)
    emulator = load(checkpoint)
    boxes = coarse_boxes(emulator, coarse)
    table = _table(emulator, params, boxes)
    emulator.space.check(table, extrapolate=extrapolate)
    cells = _cells(emulator, boxes, shape)
    job = _Job(
        emulator, checkpoint.resolve(), read_config(checkpoint)["sha256"], table, boxes, cells,
        pieces(local(emulator), cells, chunk), seed, device, out.resolve().with_name(f".{out.name}.chunks"),
    )  # fmt: skip
    told = describe_sampling(emulator, checkpoint, table, 1, seed) | {"chunk": chunk, "device": device}
    begin(job.scratch, {**told, "params": table.tolist(), "shape": cells, "coarse": boxes and boxes.stamp()})
    try:
        _make_pieces(job, executor)
    except InputError:
        shutil.rmtree(job.scratch)
        raise
    _gather(job, out, told, chunk, overwrite=overwrite)
    shutil.rmtree(job.scratch)
    return len(table)


def _table(emulator: Emulator, params: str | None, boxes: CoarseBoxes | None) -> Tensor:
    """A row of parameters for each field."""
    if boxes is None:
        return parse_params(params, emulator.space)
    if params is None and boxes.params is not None:
        return boxes.params
    table = parse_params(params, emulator.space)
    if len(table) not in (1, boxes.count):
        raise InputError(
            f"--params must be one row, or one for each of the {boxes.count} fields of {boxes.path}, got "
            f"{len(table)} rows"
        )
    return table.expand(boxes.count, -1)


def _cells(emulator: Emulator, boxes: CoarseBoxes | None, shape: Sequence[int] | None) -> tuple[int, ...]:
    if boxes is None:
        return emulator.grid.shape if shape is None else tuple(shape)
    if shape is not None:
        raise InputError("--shape is that of the coarse fields; give one of --shape and --coarse")
    return boxes.shape


def begin(scratch: Path, task: dict[str, Any]) -> None:
    """A folder for the pieces; those of the same task, interrupted, are kept.

    Raises:
        InputError: if it cannot be made.
    """
    told, record = json.dumps(task, sort_keys=True), scratch / "task.json"
    if record.is_file() and record.read_text(encoding="utf-8") == told:
        return
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot write beside {scratch}: {error.strerror}; give another place with -o"
        ) from error
    write_text(record, told)


def _make_pieces(job: _Job, executor: Executor | None) -> None:
    missing = {row: numbers for row in range(len(job.table)) if (numbers := job.missing(row))}
    sizes = [1] * sum(map(len, missing.values()))
    spread(_made, _tasks(job, missing), executor, "chunks", sizes)


def _tasks(job: _Job, missing: dict[int, list[int]]) -> Iterator[tuple[object, ...]]:
    """A task for each missing piece; a box's global part is made when the first of its pieces is due."""
    for row, numbers in missing.items():
        for other in range(row):
            if not job.missing(other):
                shutil.rmtree(job.inputs(other), ignore_errors=True)
        _prepare(job, row)
        for number in numbers:
            yield (
                job.checkpoint, job.sha256, job.device, job.inputs(row), job.table[row].tolist(),
                job.plan[number], job.piece(row, number),
            )  # fmt: skip


def _prepare(job: _Job, row: int) -> None:
    """The channels of a box's global part, one file each."""
    if job.inputs(row).is_dir():
        return
    params = job.table[row : row + 1].float()
    coarse = None if job.boxes is None else job.boxes.field(row)
    channels = local(job.emulator).inputs(params, [sample_generator(job.seed, row)], coarse, job.shape)
    with replacing(job.inputs(row)) as staged, torch.no_grad():
        staged.mkdir()
        for i, channel in enumerate(tqdm(channels, f"box {row}", leave=False, unit=" maps", disable=None)):
            np.save(staged / f"{i:02d}.npy", channel.numpy())


@lru_cache(maxsize=1)
def loaded(checkpoint: Path, sha256: str, device: str) -> Emulator:
    """The checkpoint, once a process; ``sha256`` is of the weights that are meant.

    Raises:
        InputError: if it is not there, or has changed.
    """
    if not checkpoint.is_dir():
        raise InputError(f"a worker does not see {checkpoint}; all machines must share its folder")
    if read_config(checkpoint)["sha256"] != sha256:
        raise InputError(f"{checkpoint} has changed while it was being applied; start again")
    return load(checkpoint).to(torch.device(device))


@torch.no_grad()
def _made(
    checkpoint: Path, sha256: str, device: str, inputs: Path, params: list[float], piece: Piece, out: Path
) -> None:
    """Make one piece and lay it under its name."""
    emulator = local(loaded(checkpoint, sha256, device))
    if not inputs.is_dir():
        raise InputError(f"a worker does not see {inputs}; all machines must share the folder of the output")
    # Copied on write, which never happens: torch takes no array that it must not write to.
    channels = [
        torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        for path in sorted(inputs.iterdir())
    ]
    made = make(emulator, channels, torch.tensor([params], device=device), piece)
    with replacing(out, overwrite=True) as staged:
        np.save(staged, made[0].float().cpu().numpy())


def _gather(job: _Job, out: Path, told: dict[str, Any], chunk: int, *, overwrite: bool) -> None:
    """The output of all pieces."""
    grid, emulator = job.emulator.grid.resized(job.shape), job.emulator
    channels = np.load(job.piece(0, 0), mmap_mode="r", allow_pickle=False).shape[0]
    shape = (len(job.table), channels, *job.shape)
    with writing_boxes(out, shape, job.table, grid, emulator.space, told, chunk, overwrite=overwrite) as put:
        for row in range(len(job.table)):
            for number, piece in enumerate(job.plan):
                put(row, piece.field, np.load(job.piece(row, number), allow_pickle=False))
