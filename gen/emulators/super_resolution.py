"""Adversarial emulator of small scales: a high-resolution field given a low-resolution run of its box."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gen.emulators.base import Emulator
from gen.emulators.chunks import white_channels
from gen.emulators.conditioning import C, Channels, check_coarse, divisible, fitting_rows, refuse_negative
from gen.emulators.gap import SummaryGap
from gen.emulators.marginal import Marginal
from gen.emulators.missing_modes import MissingModes
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic
from gen.nets.layers import linear_upsample
from gen.nets.summaries import Summaries
from gen.nets.unet import UNet
from gen.noise import sample_generator
from gen.transforms import Log

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class SuperResolution(Emulator):
    r"""Matter density 1 + delta on ``factor`` times as many cells a side, given that of a coarse run.

    In y, the normal score of ln(1 + delta + offset) at the parameters: ``y = x + U(x, u, noise; theta)``,
    where u is the coarse density by multilinear interpolation, x the Gaussian completion of u by its missing
    modes (``gen.emulators.missing_modes``), and U a U-Net with white noise at every resolution, zero at the
    start. Where y falls below the score of an empty cell, the cell is empty. The critic sees the candidate
    beside u (conditional WGAN-GP with a U-Net: Schaurecker et al. 2021, arXiv:2111.06393; noise at every
    level: Li et al. 2020, arXiv:2010.06608).

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
    margin = 0
    #: Cells that are upsampled at a time.
    SLAB = 2**20

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
        self.transform = Log(offset)
        # One box tells the scores of its cells up to about 4; beyond it is prolonged.
        self.marginal = Marginal(space, n_nodes=113, reach=3.5, degree=degree)
        self.missing = MissingModes(grid, space, degree=degree)
        self.generator = UNet(grid.dim, 2, 1, len(space), widths, "circular", noise=True)
        self.gap = SummaryGap(Summaries(grid, bin_width=0.05), space, degree)

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
        refuse_negative(data.coarse)
        rows = fitting_rows(data, max(64, 2**24 // self.grid.n_cells))
        values, params = data.values[rows].float(), data.params[rows].float()
        coarse = data.coarse[rows].float()
        empty = self.transform(torch.zeros(1)).item()
        self.marginal.fit_boxes(params, list(self.transform(values)), empty)
        y, u = self.to_working(values, params), self.upsampled(coarse, params)
        self.missing.fit(y, u, params)
        if not self.summary_weight:
            self.gap.summaries.fit(*self._views(y, params))
            return
        started = []
        for i in torch.arange(len(rows)).split(64):
            noise = [sample_generator(0, int(j), "gap") for j in rows[i]]
            started.append(self.draw_latent(params[i], noise, coarse[i])[:, :1])
        self.gap.fit(self._views(y, params), self._views(torch.cat(started), params), params)

    @property
    def network(self) -> UNet:
        return self.generator

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        return divisible(shape, math.lcm(self.factor, self.generator.factor))

    def _check(self, coarse: C | None, shape: Sequence[int]) -> C:
        cells = tuple(n // self.factor for n in self.worked(shape))
        return check_coarse(coarse, 1, cells, 1, "density 1 + delta of a low-resolution run")

    def upsampled(self, coarse: Tensor, params: Tensor) -> Tensor:
        """u: coarse densities ``(B, 1, *coarse_shape)`` in y on the fine grid, ``(B, 1, *shape)``."""
        n, f = coarse.shape[2], self.factor
        layers = max(1, self.SLAB * n // (coarse.numel() * f**self.grid.dim))
        if layers >= n:
            return self.to_working(linear_upsample(coarse.float(), f, "circular"), params)
        parts = []
        for start in range(0, n, layers):  # a large box in slabs, each with a layer of its neighbours
            index = torch.arange(start - 1, min(start + layers, n) + 1, device=coarse.device) % n
            fine = linear_upsample(coarse.index_select(2, index).float(), f, "circular")[:, :, f:-f]
            parts.append(self.to_working(fine, params))
        return torch.cat(parts, 2)

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        return self.marginal.inverse(self.transform(values), params)

    def to_physical(self, y: Tensor, params: Tensor) -> Tensor:
        """1 + delta of y, empty where y is below the score of an empty cell."""
        return self.transform.inverse(self.marginal(y, params)).clamp(min=0)

    def _floored(self, y: Tensor, params: Tensor) -> Tensor:
        """No lower than the score of an empty cell."""
        return torch.maximum(y, self.to_working(y.new_zeros(len(y), 1, *(1,) * self.grid.dim), params))

    def _views(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """A field of y, and its density."""
        return y, self.to_physical(y, params)

    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """x, u and the noise of each resolution, ``(B, 2 + levels, *shape)``."""
        cells = self.grid.shape if shape is None else tuple(shape)
        return torch.stack(list(self.inputs(params, generators, coarse, cells)), 1)

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """x, u and the noise of each resolution, one after the other."""
        density = self._check(coarse, shape)[:, 0].unsqueeze(1).to(params)
        refuse_negative(density)
        noise = white_channels(generators, 1 + self.n_noise, shape)
        u: Tensor | None = self.upsampled(density, params)
        known = self.missing.known(u, params)
        if u.numel() > self.SLAB:  # a large box has no room for it and x: it is made again
            u = None
        x = self.missing.completed(*known, next(noise).to(params).unsqueeze(1), params)
        del known
        yield self._floored(x, params)[:, 0]
        del x
        yield (self.upsampled(density, params) if u is None else u)[:, 0]
        for channel in noise:
            yield channel.to(params)

    def completed(self, params: Tensor, generators: Sequence[torch.Generator], coarse: Tensor) -> Tensor:
        """Where samples start: densities ``(B, 1, *shape)`` of coarse ones and a Gaussian rest."""
        return self.to_physical(self.draw_latent(params, generators, coarse)[:, :1], params)

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """y ``(B, 1, *shape)``, differentiable in weights and parameters."""
        residual = self.generator(latent[:, :2], self.space.normalise(params), latent[:, 2:])
        return self._floored(latent[:, :1] + residual.float(), params)

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
        coarse = self._check(coarse, self.grid.shape if shape is None else tuple(shape))
        return self.finish(self.draw_latent(params, generators, coarse, shape), params)

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        return self.to_physical(self.decode(inputs, params), params)

    def make_critic(self) -> nn.Module:
        """A fresh critic of pairs of y and u."""
        a = self.arguments
        spectra = self.gap.summaries if a["critic_spectrum"] else None
        extra = 0 if spectra is None else spectra.n_spectra
        critic = Critic(
            self.grid.shape, len(self.space), 4, a["critic_channels"], a["critic_kernel"], "none", "circular",
            extra, hidden=64 if extra else 0,
        )  # fmt: skip
        return PairCritic(self, critic, spectra)

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The weighted gap between the summaries of generated and real fields."""
        if not self.summary_weight:
            return {}
        made, started = (self._views(y, params) for y in (y_fake, latent[:, :1]))
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
            u = emulator.upsampled(coarse, params)
        densities = [emulator.to_physical(field, params) for field in (y, u)]
        views = [y, u, *(torch.tanh(density / 10) for density in densities)]
        extra = None if spectra is None else spectra.spectra(y, densities[0])
        return self.critic(torch.cat(views, 1), emulator.space.normalise(params), extra)
