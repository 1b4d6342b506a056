"""``cosmozoo simulate``."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from gen.errors import InputError
from gen.simulate.recipe import read_recipe
from gen.simulate.run import SPLITS
from gen.simulate.run import simulate as run


def simulate(recipe: Path, processes: int | None, cache: Path | None) -> int:
    folder = simulated(recipe, processes, cache)
    print(f"the data are in {folder}")
    return 0


def simulated(
    recipe: Path, processes: int | None, cache: Path | None, splits: Collection[str] = SPLITS
) -> Path:
    """The cache folder of a data recipe, with all simulations of some splits."""
    if processes is not None and processes < 1:
        raise InputError(f"--processes must be at least 1, got {processes}")
    made = read_recipe(recipe)
    return run(made, cache, processes or len(os.sched_getaffinity(0)), splits=splits)
