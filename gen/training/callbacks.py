"""What happens beside the steps: progress, logs, validation, the best generator, states, signals.

They act after a step, in the order of ``gen.training.base``: the state is saved last, so that it holds
what validation has found. Only rank 0 writes; decisions to stop are shared by all ranks.
"""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from gen.training.best import best_record, generate, save_best
from gen.training.checkpoint_io import prune, state_path, write_atomic
from gen.training.guards import Guard, Watch
from gen.training.logs import Logs
from gen.training.paired_validation import PairedValidation
from gen.training.sheet import sheet
from gen.training.stepping import Training, TrainingStopped
from gen.training.validation import Validation, one_line


class AfterStep(Callback):
    """A callback that acts on an emulator in training after each step."""

    def after_step(self, trainer: Trainer, module: Training) -> None:
        raise NotImplementedError

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        del outputs, batch, batch_idx
        assert isinstance(pl_module, Training)
        self.after_step(trainer, pl_module)


class Progress(AfterStep):
    """A bar with steps, speed and the time left; sparse lines where there is no terminal."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.note = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Training)
        if trainer.is_global_zero:
            interval = 0.5 if sys.stderr.isatty() else 30.0
            self.bar = tqdm(
                total=pl_module.max_steps,
                initial=pl_module.step,
                unit="step",
                mininterval=interval,
                desc="train",
            )

    def after_step(self, trainer: Trainer, module: Training) -> None:
        if self.bar is None:
            return
        if module.step % 20 == 0:
            losses = {k: float(v) for k, v in module.scalars.items() if k in ("critic", "generator", "loss")}
            text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            self.bar.set_postfix_str(text + self.note, refresh=False)
        self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class StepLog(AfterStep):
    """Losses, scores and gradient norms of every ``every``-th step."""

    def __init__(self, logs: Logs | None, every: int) -> None:
        self.logs, self.every = logs, every

    def after_step(self, trainer: Trainer, module: Training) -> None:
        if self.logs is not None and module.step % self.every == 0:
            rate = module.optimiser.rate * module.optimiser.factor(module.step - 1, module.max_steps)
            scalars = {name: float(value) for name, value in module.scalars.items()}
            self.logs.add("training", module.step, {**scalars, "rate": rate})


class Validate(AfterStep):
    """Judges the averaged generator, keeps the best, draws a sheet, stops a lost run.

    Args:
        validation: the statistics.
        real: a real field at the parameters of each generated one, for the upper row of sheets.
        folder: of the run; ``best/`` and ``samples/`` are written in it.
        every: steps from one validation to the next.
    """

    def __init__(
        self,
        validation: Validation | PairedValidation,
        real: Tensor,
        folder: Path,
        every: int,
        guard: Guard,
        logs: Logs | None,
        progress: Progress,
    ) -> None:
        self.validation, self.real, self.folder, self.every = validation, real, folder, every
        self.guard, self.logs, self.progress, self.watch = guard, logs, progress, Watch()

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.watch)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.watch = Watch(**state_dict)

    def after_step(self, trainer: Trainer, module: Training) -> None:
        if module.step % self.every and module.step != module.max_steps:
            return
        reason = self._validate(module) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            best = best_record(self.folder)
            kept = f"the best generator, of step {best['step']}, is kept" if best else "no good one was seen"
            raise TrainingStopped(
                f"training stopped at step {module.step}: {reason}; {kept} in {self.folder / 'best'}, "
                f"start anew with smaller step sizes or more regularisation"
            )

    def _validate(self, module: Training) -> str | None:
        assert self.logs is not None
        values = generate(module.average, self.validation.params, self.validation.coarse)
        statistics = self.validation(values)
        self.logs.add("validation", module.step, statistics)
        self.progress.note = f", {one_line(statistics)}"
        picked = torch.arange(8) * len(values) // 8
        real, made = (self.validation.shown(fields[picked]) for fields in (self.real, values))
        image = sheet(real, made)
        write_atomic(self.folder / "samples" / f"step_{module.step:09d}.png", lambda file: file.write(image))
        best = best_record(self.folder)
        if best is None or statistics["score"] < best["score"]:
            save_best(self.folder, module.average, module.step, statistics)
        best = best_record(self.folder) or {"score": float("inf")}
        return self.watch.reason(self.guard, statistics, best["score"])


class States(AfterStep):
    """Saves resume states, at intervals, at the end and on request, and ends the run.

    SIGTERM, SIGUSR1 and Ctrl-C ask for it: the step is finished, the state saved, training ends as if
    it were done. A second Ctrl-C interrupts at once.
    """

    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, folder: Path, every: int, keep: int = 2) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self.requested: str | None = None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take over the signals; what they did before comes back with ``release``."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.signals:
            previous = signal.signal(number, self._request)
            self._before.setdefault(number, previous)

    def release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning has put its own handler over ours; it would raise after the step.
        self.listen()

    def after_step(self, trainer: Trainer, module: Training) -> None:
        asked = trainer.strategy.reduce_boolean_decision(self.requested is not None, all=False)
        done = module.step >= module.max_steps
        if asked or done or module.step % self.every == 0:
            trainer.save_checkpoint(state_path(self.folder, module.step))
            if trainer.is_global_zero:
                prune(self.folder, self.keep)
        if asked or done:
            trainer.should_stop = True
