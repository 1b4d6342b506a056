"""A resumed run is the uninterrupted one, bit for bit, however it was stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import run_apart as run

from gen.training.best import best_record
from gen.training.checkpoint_io import AtomicCheckpointIO, newest_valid, states

STEPS = 24


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, buffers and optimiser moments after the last step, by name."""
    state = newest_valid(folder / "resume")
    assert state is not None and state.stem == f"step_{STEPS:09d}"
    saved = AtomicCheckpointIO().load_checkpoint(state)
    tensors = dict(saved["state_dict"])
    for i, optimiser in enumerate(saved["optimizer_states"]):
        for j, moments in optimiser["state"].items():
            tensors.update({f"optimiser{i}.{j}.{name}": value for name, value in moments.items()})
    return tensors


def assert_same(folder: Path, whole: Path) -> None:
    a, b = final_state(folder), final_state(whole)
    assert a.keys() == b.keys()
    assert len(a) > 40  # generator, critic, average, two moments of each
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert best_record(folder) == best_record(whole)  # with the sha256 of the best weights
    assert (folder / "validation.csv").read_text() == (whole / "validation.csv").read_text()
    assert (folder / "training.csv").read_text() == (whole / "training.csv").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = run(folder)
    assert done.code == 0, done.text
    return folder


def test_the_run_trains(whole: Path) -> None:
    """Otherwise equal weights would say nothing."""
    first = torch.load(whole / "resume" / f"step_{STEPS:09d}.ckpt", weights_only=True)
    moments = first["optimizer_states"]
    assert [len(o["state"]) > 0 for o in moments] == [True, True]
    steps = [float(next(iter(o["state"].values()))["step"]) for o in moments]
    assert steps == [STEPS / 2, STEPS]  # n_critic = 2: generator every second step


@pytest.mark.parametrize("kill_at", [7])
def test_kill_and_resume(whole: Path, tmp_path: Path, kill_at: int) -> None:
    killed = run(tmp_path / "run", f"kill_at={kill_at}")
    assert killed.code == -signal.SIGKILL
    assert newest_valid(tmp_path / "run/resume") == tmp_path / "run/resume/step_000000004.ckpt"
    assert run(tmp_path / "run", "resume=1").code == 0
    assert_same(tmp_path / "run", whole)


def test_what_a_run_measures_at_its_start_is_the_same_after_a_kill(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, "net=with_summaries").code == 0
    assert run(killed, "net=with_summaries", "kill_at=7").code == -signal.SIGKILL
    assert run(killed, "net=with_summaries", "resume=1").code == 0
    assert_same(killed, whole)


@pytest.mark.slow
def test_kill_at_random_steps(whole: Path, tmp_path: Path) -> None:
    """Ten runs, each killed two or three times at random steps, some before the first state."""
    draw = np.random.default_rng(5)
    for i in range(10):
        folder = tmp_path / f"run{i}"
        for kill_at in sorted(draw.choice(np.arange(1, STEPS + 1), 2 + i % 2, replace=False)):
            assert run(folder, "resume=1", f"kill_at={kill_at}").code == -signal.SIGKILL
        assert run(folder, "resume=1").code == 0
        assert_same(folder, whole)


def test_torn_and_altered_states_are_passed_over(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder, "kill_at=14").code == -signal.SIGKILL
    older, newest = states(folder / "resume")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert newest_valid(folder / "resume") == older
    assert run(folder, "resume=1").code == 0
    assert_same(folder, whole)


def test_sigterm_saves_and_exits_zero(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped = run(folder, "term_at=9")
    assert stopped.code == 0, stopped.text
    assert "SIGTERM stopped the run after step 9" in stopped.text
    state = newest_valid(folder / "resume")
    assert state is not None and state.stem == "step_000000009"
    assert not (folder / "checkpoint").exists()
    assert run(folder, "resume=1").code == 0
    assert_same(folder, whole)


def test_a_run_is_not_overwritten_or_continued_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder, "kill_at=6").code == -signal.SIGKILL
    again = run(folder)
    assert again.code == 2 and "already holds a run" in again.text
    other = run(folder, "resume=1", "seed=3")
    assert other.code == 2 and "cannot be resumed with another seed" in other.text
    assert "Traceback" not in again.text + other.text
