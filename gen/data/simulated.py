"""The embedded source: fields simulated on this machine, once, into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gen.data.base import SimulationSet, Source
from gen.errors import InputError
from gen.simulate.dust import Dust
from gen.simulate.field_pairs import SuperResolutionSlab
from gen.simulate.galaxies import Galaxies
from gen.simulate.hi import HI
from gen.simulate.nbody_pairs import Density, SuperResolution
from gen.simulate.recipe import SimulationRecipe, Training, read_recipe
from gen.simulate.reionisation import Reionisation
from gen.simulate.run import SPLITS, default_cache, is_simulated, load_simulations, simulate
from gen.simulate.sources import Lognormal, NBody


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

    def rehearse(self) -> SimulationSet:
        """The simulations if they are all there, else a few lognormal maps or quick boxes on their grid."""
        folder = (default_cache() if self.cache is None else self.cache) / self.recipe.folder
        if all(is_simulated(folder, self.recipe, split) for split in self.splits):
            return self.load()
        with TemporaryDirectory() as cache:
            made = simulate(_stand_in(self.recipe), Path(cache), 1, progress=False)
            data = load_simulations(made)
        if isinstance(self.recipe.source, HI):  # so few particles leave cells without any gas
            data = replace(data, values=data.values.clamp(min=float(data.values[data.values > 0].min())))
        return replace(data, name=f"{self.recipe.name} (not simulated yet: stand-ins)")

    def load(self) -> SimulationSet:
        folder = simulate(self.recipe, self.cache, self.processes, splits=self.splits)
        return load_simulations(folder, splits=self.splits).check()


def _stand_in(recipe: SimulationRecipe) -> SimulationRecipe:
    """A few simulations of the same kind that take seconds: lognormal maps, boxes by 2LPT or two steps."""
    source, training = recipe.source, Training(8, 4, 1, 4)
    fitting = max(1, 64 // recipe.grid.shape[0])
    if isinstance(source, NBody | Lognormal):
        source, training = Lognormal(), Training(8, 2, 8, 4)
    elif isinstance(source, Dust):
        source, training = replace(source, depth=4), Training(4, 2, 1, 4)
    elif isinstance(source, Reionisation):
        source, training = replace(source, oversampling=2), Training(4, 2, 1, 4)
    elif isinstance(source, Galaxies):  # second order makes no halos
        source, training = replace(source, steps=2), Training(4, 2, 1, 4)
    elif isinstance(source, HI):
        few = min(source.oversampling, fitting)
        source = replace(source, steps=2, mesh_factor=1, oversampling=few)
        training = Training(4, 2, 1, 4)
    elif isinstance(source, Density | SuperResolution | SuperResolutionSlab):
        filling = min(source.oversampling, 2 * fitting)  # few particles leave cells empty
        source = replace(source, steps=0, oversampling=filling)
        training = Training(8, 2, 1, 4) if filling > 1 else training
    else:
        source = replace(source, steps=0)
    return replace(recipe, source=source, training=training, test=())
