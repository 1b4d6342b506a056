"""Every recipe that is shipped can be read, and a training run from it can be built and rehearsed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.thresholds import load_thresholds
from gen.config import load_recipe
from gen.data.base import SimulationSet, Source
from gen.data.beam_pairs import at_beams
from gen.data.foregrounds import TurbulentDust
from gen.data.joined import Joined
from gen.data.module import FieldData
from gen.data.planes import LensingPlanes
from gen.data.simulated import Simulated
from gen.emulators.base import Emulator
from gen.emulators.copula import Copula
from gen.fields import Grid, ParameterSpace
from gen.simulate.hi import UNIT as HI_UNIT
from gen.simulate.nbody_pairs import Layout
from gen.simulate.recipe import MapSource, read_recipe
from gen.training.base import TrainingRecipe, train

ROOT = Path(__file__).resolve().parents[1]
TRAINING = sorted((ROOT / "recipes").glob("*.yaml"))
SOURCES = [ROOT / "recipes" / "data" / "taurus.yaml"]
DATA = sorted(set((ROOT / "recipes" / "data").glob("*.yaml")) - set(SOURCES))
REPORTS = sorted((ROOT / "recipes" / "reports").glob("*.yaml"))


#: Half a minute or more each on a CPU, and only larger than their siblings.
LARGE = {
    "convergence_2d_128_wgan_gp",
    "convergence_2d_256_wgan_gp",
    "super_resolution_3d_gpu",
    "adversarial_refinement_3d_gpu",
    "displacement_3d_gpu",
    "hi_3d_64_autoencoder",
    "hi_3d_diffusion",
    "hi_3d_higan_64",
    "hi_3d_64_latent_diffusion",
    "nbody_3d_autoencoder",
    "nbody_3d_copula",
    "nbody_3d_latent_diffusion",
}


def name(path: Path) -> str:
    return path.stem


def stand_in(grid: Grid, space: ParameterSpace, n_cosmologies: int = 8, n_maps: int = 2) -> SimulationSet:
    """Correlated positive-tailed fields on a grid: quick to make, and enough to fit and to rehearse with."""
    generator = torch.Generator().manual_seed(0)
    n = n_cosmologies * n_maps
    k = grid.wavenumber()
    amplitude = 1 / (1 + (k / grid.k_fundamental) ** 2)
    white = torch.randn(n, 1, *grid.shape, generator=generator, dtype=torch.float64)
    axes = tuple(range(2, 2 + grid.dim))
    g = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * amplitude, s=grid.shape, dim=axes)
    values = 0.01 * (torch.exp(g / g.std()) - 1.5)
    unit = torch.rand(n_cosmologies, len(space), generator=generator, dtype=torch.float64)
    params = space.restore(2 * unit - 1).repeat_interleave(n_maps, 0)
    ids = torch.arange(n_cosmologies).repeat_interleave(n_maps)
    split = np.array(["train", "train", "train", "validation"])[ids.numpy() % 4]
    region = np.full(n, "interior")
    return SimulationSet(grid, space, values.float(), params.float(), ids, split, region, "stand-in", "1")


def boxes(grid: Grid, space: ParameterSpace, layout: Layout) -> SimulationSet:
    """Stand-ins of simulated boxes: densities, counts, displacements and velocities, and coarse ones."""

    def fill(grid: Grid, channels: int, seed: int, unit: str) -> torch.Tensor:
        fields = stand_in(grid, space).values
        if unit in ("1", HI_UNIT):
            positive = fields - fields.amin(tuple(range(1, fields.ndim)), keepdim=True) + 0.1
            return torch.cat([positive, *(0.1 * fields.roll(i, 0) for i in range(1, channels))], 1)
        mixing = torch.randn(channels, generator=torch.Generator().manual_seed(seed))
        return torch.einsum("nbxyz,c->ncxyz", fields, 100 * mixing)

    vectors = {"vector_channels": layout.vector_channels, "unit": layout.unit}
    counted = layout.unit == "galaxies"
    values = fill(grid, layout.channels, 0, "1" if counted else layout.unit)
    data = replace(stand_in(grid, space), values=values, **vectors)
    if not layout.coarse_channels:
        return data
    coarse_grid = Grid(layout.coarse_shape, grid.box_size, grid.unit, grid.periodic)
    if counted:  # galaxies where the matter is
        coarse, data = values, replace(data, values=(10 * values).round())
    elif layout.unit == "Mpc/h":  # one displacement and others of the same particles
        coarse = values.repeat(1, layout.coarse_channels // layout.channels, 1, 1, 1)
    else:
        coarse = fill(coarse_grid, layout.coarse_channels, 1, layout.unit)
    return replace(
        data,
        coarse=coarse,
        coarse_grid=coarse_grid,
        coarse_vector_channels=layout.coarse_vector_channels,
    )


@pytest.fixture
def quick_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources of the recipes, built as they say, but with a few made-up fields on their own grids."""

    def simulated(source: Simulated) -> SimulationSet:
        recipe = source.recipe
        if isinstance(recipe.source, MapSource):
            return stand_in(recipe.grid, recipe.space)
        return boxes(recipe.grid, recipe.space, recipe.source.layout(recipe.grid))

    def planes(source: LensingPlanes) -> SimulationSet:
        side = 3.5 * source.n_pixels / 512
        grid = Grid((source.n_pixels, source.n_pixels), side, "deg", periodic=False)
        return stand_in(grid, ParameterSpace((), (), ()))

    def turbulence(source: TurbulentDust) -> SimulationSet:
        n, channels = source.patch, len(source.stokes)
        grid = Grid((n, n), n * source.pixel / 60, "deg", periodic=False)
        data = boxes(grid, ParameterSpace((), (), ()), Layout("1", channels))
        both = [
            at_beams(maps, source.pixel, 0.0, source.fine_beam, source.coarse_beam) for maps in data.values
        ]
        fine, coarse = (torch.stack(maps) for maps in zip(*both, strict=True))
        return replace(data, values=fine, coarse=coarse, coarse_grid=grid)

    for module in ("polarised_scales", "small_scales"):
        monkeypatch.setattr(f"gen.emulators.{module}.ROUNDS", 1)
    monkeypatch.setattr("gen.emulators.sharpened.ROUNDS", 1)
    monkeypatch.setattr("gen.emulators.sharpened.DRAWS", 1)
    monkeypatch.setattr(Simulated, "load", simulated)
    monkeypatch.setattr(TurbulentDust, "load", turbulence)
    monkeypatch.setattr(TurbulentDust, "prepare", lambda source: None)
    monkeypatch.setattr(Simulated, "prepare", lambda source: None)
    monkeypatch.setattr(LensingPlanes, "load", planes)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", DATA, ids=name)
def test_data_recipes_are_read_and_keep_their_promises(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    plan = recipe.plan()
    assert len({s.seed for s in plan}) == len(plan)
    where = {s.cosmology: {(t.split, t.region) for t in plan if t.cosmology == s.cosmology} for s in plan}
    assert all(len(kinds) == 1 for kinds in where.values()), "a cosmology is in one split and one region"
    for simulation in plan:
        inside = bool(recipe.space.inside(torch.tensor([simulation.params], dtype=torch.float64)).item())
        assert inside == (simulation.region != "extrapolation")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_recipes_of_a_source_alone_are_read(path: Path) -> None:
    assert isinstance(load_recipe(FieldData, path).value.source, Source)


def test_no_seed_is_shared_between_data_recipes() -> None:
    """Recipes of one seed hold the same initial conditions, so one would train on the test of the other."""
    seeds = [read_recipe(path).seed for path in DATA]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("path", REPORTS, ids=name)
def test_report_recipes_are_read(path: Path) -> None:
    assert load_thresholds(path)


@pytest.mark.usefixtures("quick_data")
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] if p.stem in LARGE else []) for p in TRAINING],
    ids=name,
)
def test_training_recipes_rehearse(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = load_recipe(TrainingRecipe, path)
    assert made.value.name == path.stem
    assert isinstance(made.value.data.source, Source)
    out = tmp_path / "run"
    train(made.value, out, dry_run=True, resolved=made.text)
    said = capsys.readouterr().out
    assert said.startswith(f"{path.stem}: ")
    assert "trained weights" in said
    assert not out.exists()


@pytest.mark.usefixtures("quick_data")
@pytest.mark.parametrize("path", TRAINING, ids=name)
def test_the_resolved_recipe_is_the_same_recipe(path: Path, tmp_path: Path) -> None:
    first = load_recipe(TrainingRecipe, path)
    (tmp_path / "resolved.yaml").write_text(first.text)
    assert load_recipe(TrainingRecipe, tmp_path / "resolved.yaml").resolved == first.resolved


@pytest.mark.usefixtures("quick_data")
def test_one_line_swaps_dcgan_for_wgan_gp() -> None:
    dcgan = load_recipe(TrainingRecipe, ROOT / "recipes" / "convergence_2d_dcgan.yaml")
    swapped = load_recipe(TrainingRecipe, dcgan.path, ["--loss", "gen.training.losses.WassersteinGP"])
    assert type(dcgan.value.loss).__name__ == "NonSaturating"
    assert type(swapped.value.loss).__name__ == "WassersteinGP"
    same = {key: value for key, value in dcgan.resolved.items() if key != "loss"}
    assert same == {key: value for key, value in swapped.resolved.items() if key != "loss"}


@pytest.mark.usefixtures("quick_data")
def test_recipes_make_emulators_of_their_grid() -> None:
    for path in TRAINING:
        recipe = load_recipe(TrainingRecipe, path).value
        source = recipe.data.source
        source = source.sources[0] if isinstance(source, Joined) else source
        grid = Grid((32, 32), 1.75, "deg", periodic=False)
        space = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
        if isinstance(source, Simulated) and not isinstance(source.recipe.source, MapSource):
            grid, space = source.recipe.grid, source.recipe.space
        emulator = recipe.emulator(grid, space)
        assert isinstance(emulator, Emulator)
        assert emulator.grid == grid
        assert (recipe.loss is None) == isinstance(emulator, Copula)
