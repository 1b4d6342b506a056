"""The embedded source: fields simulated on this machine, once, into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gen.data.base import SimulationSet, Source
from gen.errors import InputError
from gen.simulate.recipe import read_recipe
from gen.simulate.run import SPLITS, load_simulations, simulate


class Simulated(Source):
    """The simulations of a recipe, made if the cache lacks them.

    Args:
        recipe: a YAML file of ``recipes/data``.
        cache: where simulated sets are kept, default ``$COSMOZOO_CACHE`` or ``~/.cache/cosmozoo``.
        processes: at work at once, of one thread each; default one a core.
        splits: which simulations to make and read. Training never sees the test simulations.

    Raises:
        InputError: for a recipe that cannot be read, or an unknown split.
    """

    def __init__(
        self,
        recipe: str | Path,
        cache: str | Path | None = None,
        processes: int | None = None,
        splits: Sequence[str] = ("train", "validation"),
    ) -> None:
        unknown = sorted(set(splits) - set(SPLITS))
        if unknown or not splits:
            raise InputError(f"splits must be some of {', '.join(SPLITS)}, got {list(splits)}")
        self.recipe, self.splits = read_recipe(recipe), tuple(splits)
        self.cache = None if cache is None else Path(cache)
        self.processes = processes

    def prepare(self) -> None:
        simulate(self.recipe, self.cache, self.processes, splits=self.splits)

    def load(self) -> SimulationSet:
        folder = simulate(self.recipe, self.cache, self.processes, splits=self.splits)
        return load_simulations(folder, splits=self.splits).check()
