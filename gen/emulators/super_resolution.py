"""Adversarial emulator of small scales: a high-resolution field given a low-resolution run of its box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gen.emulators.base import Emulator
from gen.emulators.conditioning import check_coarse, fitting_rows
from gen.emulators.gap import SummaryGap
from gen.emulators.missing_modes import MissingModes
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic
from gen.nets.layers import linear_upsample
from gen.nets.summaries import Summaries
from gen.nets.unet import UNet
from gen.noise import normal, sample_generator
from gen.transforms import Chain, Log, Standardise

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class SuperResolution(Emulator):
    r"""Matter density 1 + delta on ``factor`` times as many cells a side, given that of a coarse run.

    In y = ln(1 + delta + offset), standardised: ``y = x + U(x, u, noise; theta)``, where u is the coarse
    density by multilinear interpolation, x the Gaussian completion of u by its missing modes
    (``gen.emulators.missing_modes``), and U a U-Net with white noise at every resolution, zero at the start.
    Where y falls below the value of an empty cell, the cell is empty. The critic sees the candidate beside u
    (conditional WGAN-GP with a U-Net: Schaurecker et al. 2021, arXiv:2111.06393; noise at every level: Li et
    al. 2020, arXiv:2010.06608).

    Args:
        factor: ratio of the cells along a side; 2 is 8 times in mass in 3D.
        offset: of the logarithm, against empty cells.
        widths: channels of the U-Net, finest resolution first.
        summary_weight: weight of the gap between the summaries of generated and real fields
            (``gen.emulators.gap``), 0 for a purely adversarial generator.
        critic_spectrum: whether the critic is also given the candidate's power spectra.

    Raises:
        InputError: for a grid that is not periodic or does not divide by ``factor``.
    """

    micro_batch = 4
    needs_coarse = True

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "density",
        unit: str = "1",
        factor: int = 2,
        offset: float = 0.1,
        degree: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        summary_weight: float = 50.0,
        critic_channels: Sequence[int] = (16, 32, 64),
        critic_kernel: int = 3,
        critic_spectrum: bool = True,
    ) -> None:
        super().__init__(grid, space, field, unit)
        if not grid.periodic or factor < 2 or any(n % factor for n in grid.shape):
            raise InputError(
                f"super-resolution needs a periodic grid whose sides divide by factor, at least 2, got "
                f"{grid.shape} cells, periodic {grid.periodic}, factor {factor}"
            )
        self.arguments: dict[str, Any] = {
            "factor": factor,
            "offset": offset,
            "degree": degree,
            "widths": list(widths),
            "summary_weight": summary_weight,
            "critic_channels": list(critic_channels),
            "critic_kernel": critic_kernel,
            "critic_spectrum": critic_spectrum,
        }
        self.factor, self.summary_weight, self.n_noise = factor, summary_weight, len(widths)
        self.transform = Chain([Log(offset), Standardise()])
        self.missing = MissingModes(grid, space, degree=degree)
        self.generator = UNet(grid.dim, 2, 1, len(space), widths, "circular", noise=True)
        self.gap = SummaryGap(grid, space, degree, bin_width=0.05)

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Measure transform, missing modes and what the summaries of their completion lack.

        Raises:
            InputError: without coarse fields of ``factor`` times fewer cells a side.
        """
        if data.coarse is None or data.values.shape[1] != 1:
            raise InputError(
                f"super-resolution learns from one channel and a coarse one, got {data.values.shape[1]} "
                f"and {'none' if data.coarse is None else data.coarse.shape[1]}"
            )
        self._check(data.coarse, self.grid.shape)
        rows = fitting_rows(data, max(64, 2**24 // self.grid.n_cells))
        values, params = data.values[rows].float(), data.params[rows].float()
        coarse = data.coarse[rows].float()
        self.transform.fit(values)
        y, u = self.transform(values), self.upsampled(coarse)
        self.missing.fit(y, u, params)
        if not self.summary_weight:
            self.gap.summaries.fit(*self._views(y))
            return
        started = []
        for i in torch.arange(len(rows)).split(64):
            noise = [sample_generator(0, int(j), "gap") for j in rows[i]]
            started.append(self.draw_latent(params[i], noise, coarse[i])[:, :1])
        self.gap.fit(self._views(y), self._views(torch.cat(started)), params)

    def _check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        if any(n % math.lcm(self.factor, self.generator.factor) for n in shape):
            raise InputError(
                f"sides must divide by {math.lcm(self.factor, self.generator.factor)} cells, got "
                f"{tuple(shape)}"
            )
        cells = tuple(n // self.factor for n in shape)
        coarse = check_coarse(coarse, 1, cells, 1, "density 1 + delta of a low-resolution run")
        if not bool((coarse >= 0).all()):
            raise InputError("coarse must be a density 1 + delta, which is never negative; add 1 to delta")
        return coarse

    def upsampled(self, coarse: Tensor) -> Tensor:
        """u: coarse densities ``(B, 1, *coarse_shape)`` in y on the fine grid, ``(B, 1, *shape)``."""
        return self.transform(linear_upsample(coarse.float(), self.factor, "circular"))

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        del params
        return self.transform(values)

    def to_physical(self, y: Tensor) -> Tensor:
        """1 + delta, at least 0 but for rounding, of floored y."""
        return self.transform.inverse(y).clamp(min=0)

    def _floored(self, y: Tensor) -> Tensor:
        """No lower than the value of an empty cell."""
        empty = self.transform(y.new_zeros(1, 1, *(1,) * self.grid.dim))
        return torch.maximum(y, empty)

    def _views(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """A field of y, and its density."""
        return y, self.to_physical(y)

    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """x, u and the noise of each resolution, ``(B, 2 + levels, *shape)``."""
        cells = self.grid.shape if shape is None else tuple(shape)
        noise = normal(generators, (1 + self.n_noise, *cells)).to(params)
        u = self.upsampled(coarse)
        x = self._floored(self.missing(u, noise[:, :1], params))
        return torch.cat([x, u, noise[:, 1:]], 1)

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """y ``(B, 1, *shape)``, differentiable in weights and parameters."""
        residual = self.generator(latent[:, :2], self.space.normalise(params), latent[:, 2:])
        return self._floored(latent[:, :1] + residual.float())

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Each generator another realisation of the small scales.

        Raises:
            InputError: without low-resolution densities, or with those of another shape.
        """
        coarse = self._check(coarse, self.grid.shape if shape is None else tuple(shape)).to(params)
        return self.to_physical(self.decode(self.draw_latent(params, generators, coarse, shape), params))

    def make_critic(self) -> nn.Module:
        """A fresh critic of pairs of y and u."""
        a = self.arguments
        spectra = self.gap.summaries if a["critic_spectrum"] else None
        extra = 0 if spectra is None else 2 * spectra.n_power
        critic = Critic(
            self.grid.shape, len(self.space), 4, a["critic_channels"], a["critic_kernel"], "none", "circular",
            extra, hidden=64 if extra else 0,
        )  # fmt: skip
        return PairCritic(self, critic, spectra)

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The weighted gap between the summaries of generated and real fields."""
        if not self.summary_weight:
            return {}
        made, started = self._views(y_fake), self._views(latent[:, :1])
        return {"summaries": self.summary_weight * self.gap(made, started, params)}


class PairCritic(nn.Module):
    """A critic of candidates y beside the upsampled coarse field u, each also as bounded linear density."""

    def __init__(self, emulator: SuperResolution, critic: Critic, spectra: Summaries | None) -> None:
        super().__init__()
        self.critic = critic
        # Fitted parts of the emulator, not trained here: kept out of the critic's own state.
        self.fitted = (emulator, spectra)

    def forward(self, y: Tensor, params: Tensor, coarse: Tensor) -> Tensor:
        """Scores ``(B,)`` of ``(B, 1, *shape)`` given ``coarse``, at ``(B, P)`` physical parameters."""
        emulator, spectra = self.fitted
        with torch.no_grad():
            u = emulator.upsampled(coarse)
        views = [part for field in (y, u) for part in (field, torch.tanh(emulator.to_physical(field) / 10))]
        extra = None if spectra is None else spectra.spectra(y, emulator.to_physical(y))
        return self.critic(torch.cat(views, 1), emulator.space.normalise(params), extra)
