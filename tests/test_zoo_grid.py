"""The zoo is a grid: every family of a kind trains, saves and samples on every field of it, in toy sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.autoencoder import Autoencoder, Coding
from gen.emulators.base import Emulator
from gen.emulators.beams import beam, filtered
from gen.emulators.coarse_diffusion import CoarseDiffusion
from gen.emulators.completed_autoencoder import CompletedAutoencoder
from gen.emulators.copula import Copula
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.latent_diffusion import LatentDiffusion
from gen.emulators.latent_gan import LatentGAN
from gen.emulators.polarised_scales import PolarisedSmallScales
from gen.emulators.small_scales import SmallScales
from gen.emulators.super_resolution import SuperResolution
from gen.fields import Grid, ParameterSpace
from gen.training.base import TrainingRecipe, train
from gen.training.denoising import Denoising
from gen.training.losses import AdversarialLoss, NonSaturating, WassersteinGP
from gen.training.optimisation import Adam
from gen.training.reconstruction import Reconstruction

SPACE = ParameterSpace(("Omega_m",), (0.2,), (0.4,))
SKY = Grid((32, 32), 4.0, "deg", periodic=False)
SLAB = Grid((32, 32), 64.0, "Mpc/h", periodic=True)
BOX = Grid((16, 16, 16), 32.0, "Mpc/h", periodic=True)


def gaussian(grid: Grid, n: int) -> Tensor:
    """Unit fields that are correlated over some cells."""
    white = torch.randn(n, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    axes = tuple(range(2, 2 + grid.dim))
    low = 1 / (1 + (grid.wavenumber() / (3 * grid.k_fundamental)) ** 2)
    g = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * low, s=grid.shape, dim=axes).float()
    return g / g.std()


FIELDS: dict[str, tuple[Grid, Callable[[Tensor], Tensor]]] = {
    "convergence": (SKY, lambda g: 0.01 * (torch.exp(0.5 * g) - 1.13)),
    "dust intensity": (SKY, lambda g: 100 * torch.exp(0.3 * g)),
    "polarised dust": (SKY, lambda g: torch.cat([torch.exp(0.3 * g), 0.1 * g, 0.1 * g.flip(0)], 1)),
    "matter density": (BOX, lambda g: torch.exp(0.5 * g - 0.125)),
    "HI density": (BOX, lambda g: 1e6 * torch.exp(4 * g)),
    "matter density of a slab": (SLAB, lambda g: torch.exp(0.5 * g - 0.125)),
}
DECADES = {"HI density"}


class Toy(Source):
    def __init__(self, field: str, coarse: str = "none") -> None:
        self.field, self.coarse = field, coarse

    def load(self) -> SimulationSet:
        """24 fields; with them what a run of half the cells or a wide beam sees, if wanted."""
        grid, make = FIELDS[self.field]
        values, n = make(gaussian(grid, 24)), 24
        params = torch.linspace(0.21, 0.39, n)[:, None]
        split = np.where(np.arange(n) % 3 < 2, "train", "validation")
        data = SimulationSet(
            grid, SPACE, values, params, torch.arange(n), split, np.full(n, "interior"), self.field
        )
        if self.coarse == "halved":
            shape = tuple(m // 2 for m in grid.shape)
            pool = torch.nn.functional.avg_pool2d if grid.dim == 2 else torch.nn.functional.avg_pool3d
            coarse_grid = Grid(shape, grid.box_size, grid.unit, grid.periodic)
            data = replace(data, coarse=pool(values, 2), coarse_grid=coarse_grid)
        if self.coarse == "beam":
            data = replace(data, coarse=filtered(values, beam(grid, _beam(grid))), coarse_grid=grid)
        return data.check()


def _beam(grid: Grid) -> float:
    """Of three cells [arcmin on the sky, Mpc/h in boxes]."""
    return 3 * grid.spacing[0] * (60 if grid.unit == "deg" else 1)


def copula(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: Copula(grid, space, field, "1", logarithmic=field in DECADES)


def copula_gan(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: CopulaGAN(
        grid, space, field, "1", widths=(4, 8), margin=2, summary_bin=0.05, critic_channels=(4, 8),
        critic_kernel=3, logarithmic=field in DECADES,
    )  # fmt: skip


def diffusion(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: CopulaDiffusion(
        grid, space, field, "1", widths=(4, 8), steps=4, logarithmic=field in DECADES
    )


def coding(field: str) -> Coding:
    """Without compression, so that the gate lets its closed form pass."""
    return Coding(2 ** FIELDS[field][0].dim, (4, 4), logarithmic=field in DECADES)


def autoencoder(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: Autoencoder(grid, space, field, "1", coding(field))


def completed(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    coding = Coding(2, (4, 4), completed=True, logarithmic=field in DECADES)
    return lambda grid, space: CompletedAutoencoder(
        grid, space, field, "1", coding, critic_channels=(4, 8), critic_kernel=3
    )


def latent_diffusion(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: LatentDiffusion(grid, space, field, "1", coding(field), widths=(4, 8), steps=4)


def latent_gan(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: LatentGAN(
        grid, space, field, "1", latent_size=8, working="log" if field in DECADES else "score",
        channels=(8, 4), kernel=4, blocks=1, critic_channels=(4, 8), latent="student_t",
    )  # fmt: skip


def super_resolution(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: SuperResolution(
        grid, space, field, "1", widths=(4, 8), summary_weight=0.0, critic_channels=(4, 8)
    )


def coarse_diffusion(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: CoarseDiffusion(
        grid, space, field, "1", widths=(4, 8), steps=4, logarithmic=field in DECADES
    )


def small_scales(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: SmallScales(
        grid, space, None, field, "1", coarse_beam=_beam(grid), fine_beam=0.0, widths=(4, 8),
        summary_weight=0.0, critic_channels=(4, 8),
    )  # fmt: skip


def polarised(field: str) -> Callable[[Grid, ParameterSpace], Emulator]:
    return lambda grid, space: PolarisedSmallScales(
        grid, space, field, "1", coarse_beam=_beam(grid), fine_beam=0.0, widths=(4, 8),
        summary_weight=0.0, critic_channels=(4, 8),
    )  # fmt: skip


LOSSES = [NonSaturating(), WassersteinGP(n_critic=1)]


def walk(
    source: Source,
    emulator: Callable[[Grid, ParameterSpace], Emulator],
    loss: AdversarialLoss | Denoising | Reconstruction | None,
    out: Path,
) -> None:
    """Train two steps, and draw from the checkpoint: finite, and another field for another seed."""
    recipe = TrainingRecipe(
        name="toy", data=FieldData(source, batch_size=4), emulator=emulator, loss=loss,
        optimiser=Adam(1e-4), max_steps=2, accelerator="cpu", validate_every=2, validation_maps=8,
    )  # fmt: skip
    made = gen.load(train(recipe, out / "run") / "checkpoint")
    data = source.load()
    coarse = None if data.coarse is None else data.coarse[:2]
    fields = [made.sample(data.params[:2], coarse=coarse, seed=seed).values for seed in (0, 1)]
    assert fields[0].shape == data.values[:2].shape
    assert torch.isfinite(fields[0]).all()
    assert not torch.allclose(*fields)
    if data.name in DECADES or coarse is not None:
        assert (fields[0][:, :1] >= 0).all(), "no mass is negative"


@pytest.mark.parametrize("field", sorted(set(FIELDS) - {"polarised dust"}))
@pytest.mark.parametrize("loss", [None, *LOSSES], ids=["closed form", "DCGAN", "WGAN-GP"])
def test_noise_to_field(field: str, loss: AdversarialLoss | None, tmp_path: Path) -> None:
    walk(Toy(field), copula(field) if loss is None else copula_gan(field), loss, tmp_path)
    if loss is not None:
        walk(Toy(field), latent_gan(field), loss, tmp_path / "vector")


@pytest.mark.parametrize("field", sorted(set(FIELDS) - {"polarised dust"}))
def test_noise_to_field_by_diffusion(field: str, tmp_path: Path) -> None:
    walk(Toy(field), diffusion(field), Denoising(), tmp_path)


@pytest.mark.parametrize("field", sorted(set(FIELDS) - {"polarised dust"}))
def test_noise_to_field_by_latents(field: str, tmp_path: Path) -> None:
    walk(Toy(field), autoencoder(field), Reconstruction(), tmp_path)
    walk(Toy(field), completed(field), WassersteinGP(n_critic=1), tmp_path / "completed")
    walk(Toy(field), latent_diffusion(field), Denoising(), tmp_path / "diffusion")


@pytest.mark.parametrize("loss", LOSSES, ids=["DCGAN", "WGAN-GP"])
@pytest.mark.parametrize(
    ("field", "family", "coarse"),
    [
        ("matter density", super_resolution, "halved"),
        ("matter density of a slab", super_resolution, "halved"),
        ("dust intensity", small_scales, "beam"),
        ("polarised dust", polarised, "beam"),
        ("matter density of a slab", small_scales, "beam"),
        ("matter density", small_scales, "beam"),
    ],
)
def test_field_and_noise_to_field(
    field: str,
    family: Callable[[str], Callable[[Grid, ParameterSpace], Emulator]],
    coarse: str,
    loss: AdversarialLoss,
    tmp_path: Path,
) -> None:
    walk(Toy(field, coarse), family(field), loss, tmp_path)


@pytest.mark.parametrize("field", ["matter density", "matter density of a slab", "HI density"])
def test_field_and_noise_to_field_by_diffusion(field: str, tmp_path: Path) -> None:
    walk(Toy(field, "halved"), coarse_diffusion(field), Denoising(), tmp_path)
