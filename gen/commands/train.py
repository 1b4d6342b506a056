"""``cosmozoo train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gen.config import describe, load_recipe
from gen.training.base import TrainingRecipe
from gen.training.base import train as run


def train(
    recipe: Path, flags: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool, keys: bool
) -> int:
    if keys:
        print(describe(TrainingRecipe))
        return 0
    made = load_recipe(TrainingRecipe, recipe, flags)
    folder = Path("runs") / made.value.name if out is None else out
    run(made.value, folder, resume=resume, dry_run=dry_run, resolved=made.text)
    if not dry_run and (folder / "checkpoint").is_dir():
        print(f"the checkpoint is {folder / 'checkpoint'}")
    return 0
