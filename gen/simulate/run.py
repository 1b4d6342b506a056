"""Fill a cache folder with the simulations of a recipe: parallel, resumable, atomic."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.processes import processes
from gen.simulate.columns import gather
from gen.simulate.dust import Dust
from gen.simulate.field_pairs import NeutrinoLike
from gen.simulate.nbody_pairs import Layout, Pair
from gen.simulate.recipe import CODE_VERSION, Simulation, SimulationRecipe
from gen.simulate.sources import Lognormal, NBody

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

SPLITS = ("train", "validation", "test")
LATER = ("spin_channels", "line_of_sight")
"""Parts of a layout that sets of older caches do not name, so they are named only where there is one."""


def default_cache() -> Path:
    """``$COSMOZOO_CACHE``, else ``~/.cache/cosmozoo``."""
    return Path(os.environ.get("COSMOZOO_CACHE") or Path.home() / ".cache" / "cosmozoo")


def simulate(
    recipe: SimulationRecipe,
    cache: Path | None = None,
    processes: int | None = None,
    *,
    splits: Collection[str] = SPLITS,
    device: str = "cpu",
    progress: bool = True,
) -> Path:
    """Simulate what the cache lacks of a recipe and return its folder ``<cache>/<name>-<hash>``.

    Only the simulations of ``splits`` are made. Each process uses one thread, which also makes the fields
    independent of the machine's cores. A finished simulation is one file, put in place by a rename, so an
    interruption costs at most the simulations under way and the next call goes on from there. On a GPU
    (``device="cuda"``) take one process; its sums run in no fixed order, so last bits differ between runs.

    Raises:
        InputError: when the folder holds another recipe, or cannot be written.
    """
    folder = (default_cache() if cache is None else Path(cache)) / recipe.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache {folder} cannot be made ({error.strerror}); set COSMOZOO_CACHE to a folder of yours"
        ) from error
    plan = recipe.plan()
    _write_manifest(folder, recipe, plan)
    wanted = [sim for sim in plan if sim.split in splits]
    todo = [sim for sim in wanted if not _path(folder, sim.id).exists()]
    if not todo:
        return folder
    workers = min(processes or os.cpu_count() or 1, len(todo))
    with tqdm(
        total=len(wanted), initial=len(wanted) - len(todo), desc=recipe.name, unit="sim", disable=not progress
    ) as bar:
        if workers == 1:
            _alone(recipe, todo, folder, device, bar)
        else:
            _together(recipe, todo, folder, device, workers, bar)
    return folder


def _alone(
    recipe: SimulationRecipe, todo: list[Simulation], folder: Path, device: str, bar: tqdm[Any]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for sim in todo:
            run_one(recipe, sim, folder, device)
            bar.update()
    finally:
        torch.set_num_threads(threads)


def _together(
    recipe: SimulationRecipe,
    todo: list[Simulation],
    folder: Path,
    device: str,
    workers: int,
    bar: tqdm[Any],
) -> None:
    pool = processes(workers)
    try:
        for future in as_completed([pool.submit(run_one, recipe, sim, folder, device) for sim in todo]):
            future.result()
            bar.update()
    except BrokenProcessPool as error:
        raise InputError(
            f"a process that simulated {recipe.name} was killed, most likely for want of memory; "
            "give --processes 1, or take a machine with more"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_one(recipe: SimulationRecipe, sim: Simulation, folder: Path, device: str = "cpu") -> None:
    """Simulate and save one simulation."""
    made = {k: v.numpy() for k, v in _made(recipe, sim, device)._asdict().items() if v is not None}
    if not all(np.isfinite(array).all() for array in made.values()):
        raise FloatingPointError(f"simulation {sim.id} at {sim.params} gave values that are not finite")
    made = {k: v.astype(np.float32) for k, v in made.items()}
    with _atomic(_path(folder, sim.id)) as file:
        np.savez(file, **made, params=np.asarray(sim.params), seed=sim.seed)


def _made(recipe: SimulationRecipe, sim: Simulation, device: str) -> Pair:
    source = recipe.source
    if isinstance(source, Dust):
        named = dict(zip(recipe.space.names, sim.params, strict=True))
        return source.fields(named, recipe.grid, sim.seed, device)
    cosmo = sim.cosmo()
    if isinstance(source, NBody | Lognormal):
        return Pair(source.maps(cosmo, recipe.grid, sim.seed, sim.n_maps, device), None)
    more = {"m_nu": sim.m_nu} if isinstance(source, NeutrinoLike) else {}
    return source.fields(cosmo, sim.redshift, recipe.grid, sim.seed, device, **more)


def _layout(recipe: SimulationRecipe) -> Layout:
    source = recipe.source
    return Layout() if isinstance(source, NBody | Lognormal) else source.layout(recipe.grid)


class _atomic:
    """A file that appears under its name only when complete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        self.name = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self.file = self.name.open("wb")
        return self.file

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.file.flush()
            os.fsync(self.file.fileno())
        self.file.close()
        if kind is None:
            os.replace(self.name, self.path)
        else:
            os.unlink(self.name)


def _path(folder: Path, simulation: int) -> Path:
    return folder / f"sim_{simulation:05d}.npz"


def _write_manifest(folder: Path, recipe: SimulationRecipe, plan: list[Simulation]) -> None:
    layout = _layout(recipe)
    manifest = {
        "format": 1,
        "code_version": CODE_VERSION,
        "name": recipe.name,
        "unit": layout.unit,
        "recipe": recipe.to_dict(),
        "grid": recipe.grid.to_dict(),
        "space": recipe.space.to_dict(),
        "simulations": [asdict(sim) for sim in plan],
    }
    if layout != Layout():
        manifest["layout"] = {
            k: v for k, v in asdict(layout).items() if k not in LATER or v not in ((), None)
        }
    text = json.dumps(manifest, indent=1)
    path = folder / "manifest.json"
    if path.exists():
        if json.loads(path.read_text()) != json.loads(text):
            raise InputError(f"{path} belongs to another recipe; remove that folder or choose another cache")
        return
    with _atomic(path) as file:
        file.write(text.encode())


def is_simulated(folder: Path, recipe: SimulationRecipe, split: str) -> bool:
    """Whether a cache folder holds all simulations of a split, and the recipe has any."""
    wanted = [sim for sim in recipe.plan() if sim.split == split]
    return bool(wanted) and all(_path(folder, sim.id).exists() for sim in wanted)


def load_simulations(
    folder: str | Path, *, splits: Collection[str] = SPLITS, partial: bool = False
) -> SimulationSet:
    """The simulations of some splits of a cache folder; ``partial`` takes those that are there.

    Raises:
        InputError: when the folder is no cache, or simulations are missing or unreadable.
    """
    from gen.data.base import SimulationSet

    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        planned = [Simulation(**{**s, "params": tuple(s["params"])}) for s in manifest["simulations"]]
        grid, space = Grid.from_dict(manifest["grid"]), ParameterSpace.from_dict(manifest["space"])
        layout = Layout(**{k: _tuples(v) for k, v in manifest.get("layout", {}).items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is not a simulated set; make it with cosmozoo simulate RECIPE") from error
    planned = [sim for sim in planned if sim.split in splits]
    there = [sim for sim in planned if _path(folder, sim.id).exists()]
    if not there or (len(there) < len(planned) and not partial):
        raise InputError(
            f"{folder} holds {len(there)} of {len(planned)} simulations; run cosmozoo simulate to finish it"
        )
    repeats = [sim.n_maps for sim in there]
    files = list(zip([_path(folder, sim.id) for sim in there], repeats, strict=True))
    coarse, coarse_grid = None, None
    if layout.coarse_channels:
        coarse = gather(files, "coarse", (layout.coarse_channels, *layout.coarse_shape), _atomic)
        coarse_grid = Grid(layout.coarse_shape, grid.box_size, grid.unit, grid.periodic)
    params = np.repeat([sim.params for sim in there], repeats, axis=0)
    return SimulationSet(
        grid=grid,
        space=space,
        values=gather(files, "values", (layout.channels, *grid.shape), _atomic),
        params=torch.from_numpy(params.astype(np.float32)),
        simulation=torch.from_numpy(np.repeat([sim.id for sim in there], repeats).astype(np.int64)),
        split=np.repeat([sim.split for sim in there], repeats),
        region=np.repeat([sim.region for sim in there], repeats),
        name=manifest["name"],
        unit=manifest["unit"],
        coarse=coarse,
        coarse_grid=coarse_grid,
        vector_channels=layout.vector_channels,
        coarse_vector_channels=layout.coarse_vector_channels,
        spin_channels=layout.spin_channels,
        line_of_sight=layout.line_of_sight,
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
