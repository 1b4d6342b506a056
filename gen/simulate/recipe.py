"""The recipe of a simulated data set: frozen records, strictly read from YAML, and the plan they imply."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import qmc

from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.simulate.dust import Dust
from gen.simulate.field_pairs import Initial, Intermediate, NeutrinoLike, Refinement, SuperResolutionSlab
from gen.simulate.galaxies import Galaxies
from gen.simulate.hi import HI, HIInMatter
from gen.simulate.nbody_pairs import Density, Displacement, SuperResolution
from gen.simulate.reionisation import Reionisation
from gen.simulate.sources import Lognormal, NBody
from gen.simulate.strict import mapping, only, outside, record
from gen.simulate.theory import Cosmology

CODE_VERSION = 3
"""Raise it when the same recipe gives other fields."""

PARAMETERS = ("Omega_m", "sigma_8")
REDSHIFT, MASS = "z", "m_nu"
HIGHEST_REDSHIFT, HIGHEST_MASS = 5.0, 2.0
SOURCES = {
    "nbody": NBody,
    "lognormal": Lognormal,
    "displacement": Displacement,
    "density": Density,
    "super_resolution": SuperResolution,
    "super_resolution_slab": SuperResolutionSlab,
    "refinement": Refinement,
    "initial": Initial,
    "intermediate": Intermediate,
    "neutrino_like": NeutrinoLike,
    "galaxies": Galaxies,
    "hi": HI,
    "hi_in_matter": HIInMatter,
    "reionisation": Reionisation,
    "dust": Dust,
}
"""Keys of a recipe and what they make: maps of the sky, boxes at one redshift, or patches of foregrounds."""
MapSource = NBody | Lognormal
BoxSource = (
    Displacement | Density | SuperResolution | SuperResolutionSlab | Refinement | Initial | Intermediate
    | NeutrinoLike | Galaxies | HI | Reionisation
)  # fmt: skip
REGIONS = ("interior", "edge", "extrapolation")


@dataclass(frozen=True)
class Training:
    """A Sobol set of cosmologies over the parameter space, some of them kept for validation.

    Args:
        cosmologies: how many sets of parameters; validation: every how-manyth of them is for validation (0:
            none).
        boxes: independent simulations of each; maps: fields of each simulation, 1 for boxes.
    """

    cosmologies: int
    boxes: int
    maps: int = 1
    validation: int = 8


@dataclass(frozen=True)
class Test:
    """A held-out cosmology: its region, parameters, independent simulations, and fields of each.

    In a recipe each parameter has its name; a redshift ``z`` or neutrino mass ``m_nu`` [eV] left out is 0.
    """

    region: str
    params: tuple[float, ...]
    boxes: int
    maps: int = 1

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        named = dict(zip(names, self.params, strict=True))
        return {"region": self.region, **named, "boxes": self.boxes, "maps": self.maps}


@dataclass(frozen=True)
class Simulation:
    """One planned simulation; ``seed`` is a pure function of the recipe's seed and ``id``."""

    id: int
    params: tuple[float, ...]
    split: str
    region: str
    seed: int
    cosmology: int
    n_maps: int

    def cosmo(self) -> Cosmology:
        return Cosmology(*self.params[:2])

    @property
    def redshift(self) -> float:
        return self.params[2] if len(self.params) > 2 else 0.0

    @property
    def m_nu(self) -> float:
        return self.params[3] if len(self.params) > 3 else 0.0


@dataclass(frozen=True)
class SimulationRecipe:
    """All that fixes a data set; see ``read_recipe``."""

    name: str
    seed: int
    grid: Grid
    space: ParameterSpace
    source: MapSource | BoxSource | Dust
    training: Training | None
    test: tuple[Test, ...]

    def plan(self) -> list[Simulation]:
        """Every simulation, box by box so that the first ones already cover the parameter space."""
        out: list[Simulation] = []

        def add(params: tuple[float, ...], split: str, region: str, cosmology: int, maps: int) -> None:
            i = len(out)
            out.append(Simulation(i, params, split, region, simulation_seed(self.seed, i), cosmology, maps))

        count = 0
        if self.training is not None:
            t, count = self.training, self.training.cosmologies
            points = sobol_points(self.space, count)
            for _ in range(t.boxes):
                for c, params in enumerate(points):
                    held = t.validation > 0 and c % t.validation == t.validation - 1
                    add(params, "validation" if held else "train", "interior", c, t.maps)
        for c, test in enumerate(self.test, count):
            for _ in range(test.boxes):
                add(test.params, "test", test.region, c, test.maps)
        return out

    def to_dict(self) -> dict[str, Any]:
        """The content, JSON-able, with the source under its own key."""
        (key,) = (key for key, kind in SOURCES.items() if type(self.source) is kind)
        return {
            "name": self.name,
            "seed": self.seed,
            "grid": self.grid.to_dict(),
            "space": self.space.to_dict(),
            "training": None if self.training is None else asdict(self.training),
            "test": [t.to_dict(self.space.names) for t in self.test],
            key: asdict(self.source),
        }

    @property
    def folder(self) -> str:
        """``<name>-<hash>``; the hash covers the content and the code version."""
        text = json.dumps([CODE_VERSION, self.to_dict()], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def simulation_seed(seed: int, simulation: int) -> int:
    """A 63-bit seed for one simulation of a recipe."""
    digest = hashlib.sha256(f"cosmozoo/simulation/{seed}/{simulation}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def sobol_points(space: ParameterSpace, count: int) -> list[tuple[float, ...]]:
    """The first ``count`` points of a scrambled Sobol sequence over the space (Owen 1998), ever the same."""
    sampler = qmc.Sobol(len(space), scramble=True, rng=0)
    unit = sampler.random_base2(max(1, (count - 1).bit_length()))[:count]
    return [tuple(round(float(x), 6) for x in row) for row in qmc.scale(unit, space.low, space.high)]


def read_recipe(path: str | Path) -> SimulationRecipe:
    """Read a YAML recipe; refuse what it does not know.

    Raises:
        InputError: for a missing file, broken YAML, an unknown or missing key, a value of wrong type.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"recipe {path} cannot be read ({error.strerror}); give the path of a YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(content, str(path))


def parse_recipe(content: Any, where: str = "recipe") -> SimulationRecipe:
    """A recipe from a mapping, as ``read_recipe`` finds it in a file or ``to_dict`` gives it."""
    top = mapping(content, where)
    known = {"name", "seed", "grid", "space", *SOURCES, "training", "test"}
    only(top, known, {"name", "seed", "grid", "space"}, where)
    sources = [key for key in SOURCES if key in top]
    if len(sources) != 1:
        raise InputError(f"{where} needs exactly one of {', '.join(SOURCES)}, got {sources or 'none'}")
    source = record(SOURCES[sources[0]], top[sources[0]] or {}, f"{where}: {sources[0]}")
    training, tests = top.get("training"), top.get("test") or []
    if not isinstance(tests, list):
        raise InputError(f"{where}: test must be a list of cosmologies, got {type(tests).__name__}")
    name, seed = top["name"], top["seed"]
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise InputError(f"{where}: name must be letters, digits, - and _, got {name!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"{where}: seed must be a whole number, got {seed!r}")
    space = outside(ParameterSpace, top["space"], {"names", "low", "high"}, f"{where}: space", {"units"})
    _check_names(source, space.names, where)
    recipe = SimulationRecipe(
        name=name,
        seed=seed,
        grid=outside(Grid, top["grid"], {"shape", "box_size", "unit", "periodic"}, f"{where}: grid"),
        space=space,
        source=source,
        training=None if training is None else record(Training, training, f"{where}: training"),
        test=tuple(_test(t, space.names, f"{where}: test {i}") for i, t in enumerate(tests)),
    )
    _check(recipe, where)
    return recipe


def _test(content: Any, names: tuple[str, ...], where: str) -> Test:
    """A test from a mapping that gives each parameter by its name."""
    content = dict(mapping(content, where))
    for name in {REDSHIFT, MASS} - set(names):
        if content.pop(name, 0):
            raise InputError(f"{where} gives {name}, but the space has no parameter {name}; add it")
    parameters = [(n, "float", field(default=0.0)) if n in (REDSHIFT, MASS) else (n, "float") for n in names]
    slots = [("region", "str"), *parameters, ("boxes", "int"), ("maps", "int", field(default=1))]
    given = asdict(record(make_dataclass("Given", slots, kw_only=True), content, where))
    return Test(given["region"], tuple(given[n] for n in names), given["boxes"], given["maps"])


def _check(recipe: SimulationRecipe, where: str) -> None:
    _check_source(recipe, where)
    for test in recipe.test:
        if test.region not in REGIONS:
            raise InputError(f"{where}: region must be one of {list(REGIONS)}, got {test.region!r}")
        if test.boxes < 1 or test.maps < 1:
            raise InputError(f"{where}: tests need at least 1 box and map, got {test.boxes} and {test.maps}")
    t = recipe.training
    if t is not None and (min(t.cosmologies, t.boxes, t.maps) < 1 or t.validation < 0):
        raise InputError(f"{where}: training needs at least 1 cosmology, box and map, got {t}")
    if t is None and not recipe.test:
        raise InputError(f"{where} has neither training nor test simulations; give at least one")


def _check_names(source: MapSource | BoxSource | Dust, names: tuple[str, ...], where: str) -> None:
    """That the space has the parameters that the source needs, in their order."""
    needed = tuple(source.ranges) if isinstance(source, Dust) else PARAMETERS
    if isinstance(source, Intermediate | NeutrinoLike | Reionisation):
        needed += (REDSHIFT, MASS) if isinstance(source, NeutrinoLike) else (REDSHIFT,)
    more = needed == PARAMETERS and not isinstance(source, MapSource)
    if names != needed and not (more and names == (*PARAMETERS, REDSHIFT)):
        wanted = f", and {REDSHIFT} if wanted" if more else ""
        raise InputError(f"{where}: the space must be {list(needed)}{wanted}, got {list(names)}")


def _check_source(recipe: SimulationRecipe, where: str) -> None:
    """That grid and parameters are such that the source can make them."""
    source = recipe.source
    if isinstance(source, MapSource):
        return
    try:
        source.check(recipe.grid)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if isinstance(source, Dust):
        for name, ends in source.ranges.items():
            _check_range(recipe, where, name, name, ends)
    else:
        between = getattr(source, "redshifts", (0.0, HIGHEST_REDSHIFT))
        _check_range(recipe, where, REDSHIFT, "redshifts", between)
        _check_range(recipe, where, MASS, "masses [eV]", (0.0, HIGHEST_MASS))
    if any(part.maps != 1 for part in (recipe.training, *recipe.test) if part is not None):
        raise InputError(f"{where}: a simulation is one field, so maps must be 1 or left out")


def _check_range(
    recipe: SimulationRecipe, where: str, name: str, what: str, ends: tuple[float, float]
) -> None:
    """That a parameter's range and its values at the tests lie between two numbers."""
    if name not in recipe.space.names:
        return
    i = recipe.space.names.index(name)
    asked = [recipe.space.low[i], recipe.space.high[i], *(test.params[i] for test in recipe.test)]
    if not all(ends[0] <= x <= ends[1] for x in asked):
        raise InputError(
            f"{where}: {what} must lie in {ends[0]:g} to {ends[1]:g}, got {min(asked)} to {max(asked)}"
        )
