"""State files: whole or absent, checked, and never a way to run code."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import signal
import tempfile
import time
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import forkserver

from gen.errors import InputError
from gen.training.checkpoint_io import (
    AtomicCheckpointIO,
    is_valid,
    newest_valid,
    prune,
    sidecar,
    state_path,
    states,
    write_atomic,
)

IO = AtomicCheckpointIO()


def save(folder: Path, step: int) -> Path:
    path = state_path(folder, step)
    IO.save_checkpoint({"step": step, "weights": torch.full((1000,), float(step))}, path)
    return path


def test_round_trip_with_sidecar(tmp_path: Path) -> None:
    path = save(tmp_path / "resume", 7)
    loaded = IO.load_checkpoint(path)
    assert loaded["step"] == 7
    assert torch.equal(loaded["weights"], torch.full((1000,), 7.0))
    assert sidecar(path).read_text().strip() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, sidecar(path).name]


def test_the_newest_whole_state_is_found(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (100, 20, 3)]
    newest, middle, oldest = paths
    assert newest_valid(tmp_path) == newest
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content)
    assert newest_valid(tmp_path) == middle
    sidecar(middle).unlink()  # killed between file and sidecar
    assert newest_valid(tmp_path) == oldest
    oldest.write_bytes(oldest.read_bytes()[:-1])
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "nowhere") is None
    for path in paths:
        with pytest.raises(InputError, match="sha256 does not match"):
            IO.load_checkpoint(path)


def test_pruning_keeps_whole_states_only(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (1, 2, 3, 4)]
    paths[3].write_bytes(b"torn")
    left_by_a_kill = tmp_path / ".step_000000009.ckpt.abc"
    left_by_a_kill.mkdir()
    (left_by_a_kill / "step_000000009.ckpt").write_bytes(b"half")
    prune(tmp_path, keep=2)
    assert states(tmp_path) == [paths[1], paths[2]]
    assert len(list(tmp_path.iterdir())) == 4
    assert newest_valid(tmp_path) == paths[2]


def test_temporary_files_lie_in_the_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename from another file system would be a copy."""
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    moved: list[tuple[Path, Path]] = []
    replace = os.replace

    def spy(source: str, target: Path) -> None:
        moved.append((Path(source), Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    save(tmp_path / "resume", 1)
    assert len(moved) == 2
    assert all(source.parents[1] == target.parent == tmp_path / "resume" for source, target in moved)
    assert not any(elsewhere.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "url", ["https://example.org/a.ckpt", "s3://bucket/a.ckpt", "file:///tmp/a.ckpt", "hf://x/y", "HTTP:/x"]
)
def test_addresses_are_refused(url: str) -> None:
    for action in (IO.load_checkpoint, lambda u: IO.save_checkpoint({}, u)):
        with pytest.raises(InputError, match="must be a file on this machine"):
            action(url)


class Canary:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("asked", [None, False])
def test_code_in_a_state_is_not_run(tmp_path: Path, asked: bool | None) -> None:
    path, canary = state_path(tmp_path, 1), tmp_path / "canary"
    torch.save({"step": 1, "callbacks": Canary(canary)}, path)
    sidecar(path).write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    assert is_valid(path)
    with pytest.raises(InputError, match="more than tensors and plain values"):
        IO.load_checkpoint(path, weights_only=asked)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()  # it does sing where pickles are trusted


def save_forever(folder: Path, first: int, saved: Connection) -> None:
    torch.set_num_threads(1)
    for step in count(first):
        path = state_path(folder, step)
        IO.save_checkpoint({"w": torch.full((250_000,), float(step))}, path)
        prune(folder, 2)
        saved.send(step)


def kill_while_saving(folder: Path, kills: int) -> None:
    """Each time a process saves without pause, kill it at a random moment; a whole state must be there."""
    context = forkserver()
    first = 1
    for i in range(kills):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=save_forever, args=(folder, first, sender))
        process.start()
        sender.close()
        reported = receiver.recv()
        time.sleep(0.05 + 0.0137 * (i * 7 % 20))
        process.kill()
        with contextlib.suppress(EOFError):
            while True:
                reported = receiver.recv()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        state = newest_valid(folder)
        assert state is not None
        step = int(state.stem.removeprefix("step_"))
        assert step >= reported >= first  # what was reported saved is there
        assert (IO.load_checkpoint(state)["w"] == step).all()
        first = step + 1


def test_a_kill_during_a_save_costs_at_most_that_save(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, kills=1)


@pytest.mark.slow
def test_many_kills_during_saves(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, kills=30)
