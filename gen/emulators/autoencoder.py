"""An autoencoder of fields: a few channels on a coarser grid, in which other laws can be learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from gen.emulators.coding import Coding
from gen.emulators.conditioning import divisible, fitting_rows
from gen.emulators.copula import Copula
from gen.emulators.latent import LatentSpace
from gen.emulators.latent_law import LatentLaw
from gen.emulators.sharpened import tapered, tapered_power
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.autoencoder import BlockTransform, Decoder, Encoder
from gen.noise import normal

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

NARROW = -8.0
"""ln of the variance of stochastic latents at the start, in units of their scatter."""
LINEAR = 0.95
"""Share of the bound beyond which a clipped latent is read along a straight line."""
CELLS_AT_ONCE = 2**18
"""Of a micro-batch: more take no less time each, and a single field would take that of all."""
MOST_CELLS = 2**25
"""Of the training fields that the latents' law is measured from."""


class Autoencoder(LatentSpace):
    r"""``z = E(y)``, ``y' = D(z)`` of normal scores y of a field at its parameters.

    Both start at the longest waves of blocks of cells, T (``BlockTransform``), and learn the rest:

        z = T y + e(y; theta),   y' = T^-1 z + d(z; theta),

    e and d residual networks that are zero at the start. Without compression that is the identity. Stochastic
    latents are drawn from N(z, s^2) while it learns, s learned too, and are z afterwards; clipped ones are
    read back through the inverse of the clip, beyond 0.95 of the bound along its tangent.

    With fewer numbers than cells, what z does not tell is missing from y'; see ``CompletedAutoencoder``.

    As an emulator it decodes Gaussian latents of the measured mean, scatter and power (``LatentLaw``): poor
    and honest. Given fields as ``coarse`` it returns what it keeps of them.

    Args:
        coding: of the latents.
        kl_weight: of the mean divergence of a latent from N(0, 1), in nats, against mean square errors in
            units of the field's scatter.
        spectral_weight: of the loss in waves, each in units of the field's spectrum, against that in cells.

    Raises:
        InputError: for sides that do not divide by the blocks'.
    """

    micro_batch = 8

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        coding: Coding | None = None,
        kl_weight: float = 1e-4,
        spectral_weight: float = 0.5,
    ) -> None:
        super().__init__(grid, space, field, unit)
        self.micro_batch = max(1, min(self.micro_batch, CELLS_AT_ONCE // grid.n_cells))
        self.coding = coding = Coding() if coding is None else coding
        self.kl_weight, self.spectral_weight = kl_weight, spectral_weight
        self.copula = Copula(
            grid, space, field, unit, coding.degree, logarithmic=coding.logarithmic, reach=coding.reach,
            phases=coding.phases, knots=coding.knots, score_power=coding.score_power,
            contrast_power=coding.contrast_power,
        )  # fmt: skip
        self.blocks = BlockTransform(grid.dim, coding.factor, coding.channels)
        self._build(coding)
        cells = self.latent_shape(grid.shape)
        self.latent_grid = Grid(cells, grid.box_size, grid.unit, grid.periodic)
        self.law = LatentLaw(self.latent_grid, coding.channels)
        self.spectrum: Tensor
        self.register_buffer("spectrum", torch.ones(*grid.shape[:-1], grid.shape[-1] // 2 + 1))

    def _build(self, coding: Coding) -> None:
        """The networks."""
        if coding.completed:
            raise InputError("a completed coding is that of a CompletedAutoencoder; take that, or leave it")
        grid, space = self.grid, self.space
        padding = "circular" if grid.periodic else "zeros"
        outputs = coding.channels * (2 if coding.kind == "kl" else 1)
        self.encoder = Encoder(grid.dim, 1, outputs, len(space), coding.widths, padding)
        self.decoder = Decoder(grid.dim, coding.channels, 1, len(space), coding.widths, padding)

    def to_config(self) -> dict[str, Any]:
        own = {"kl_weight": self.kl_weight, "spectral_weight": self.spectral_weight}
        return {**self._base_config(), "coding": self.coding.to_dict(), **own}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of ``to_config``."""
        return super().from_config({**config, "coding": Coding(**config["coding"])})

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Sides of the latents of fields of ``shape``.

        Raises:
            InputError: for sides that do not divide by the blocks'.
        """
        return tuple(n // self.coding.factor for n in divisible(shape, self.coding.factor))

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """The one-point law, the scatter of the waves of blocks, the spectrum, and the latents' law.

        All of it as it is before training, when the networks add nothing.
        """
        self.copula.fit(data)
        rows = self._some(data)
        pairs = zip(data.values[rows].float().split(64), data.params[rows].float().split(64), strict=True)
        y = torch.cat([self.to_working(*pair) for pair in pairs])
        self.blocks.fit(y)
        spectrum = tapered_power(self.grid, y)
        self.spectrum.copy_(spectrum.clamp(min=1e-6 * float(spectrum.max())))
        self.law.fit(self._clipped(self.blocks(y)))

    def calibrate(self, data: SimulationSet) -> None:
        """The law of the latents, as the networks now are."""
        self.fit_law(data)

    @torch.no_grad()
    def fit_law(self, data: SimulationSet) -> None:
        """The law of the latents of these fields."""
        rows = self._some(data)
        pairs = zip(data.values[rows].float().split(64), data.params[rows].float().split(64), strict=True)
        self.law.fit(torch.cat([self.encode(*(x.to(self.device) for x in pair)) for pair in pairs]))

    def _some(self, data: SimulationSet) -> Tensor:
        return fitting_rows(data, max(64, MOST_CELLS // self.grid.n_cells))

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Normal scores of fields."""
        return self.copula.marginal.inverse(values, params)

    def encode(self, values: Tensor, params: Tensor) -> Tensor:
        """Latents ``(B, C, *(shape / factor))`` of fields ``(B, 1, *shape)`` in physical units; means of
        stochastic ones."""
        return self.latents(self.to_working(values, params), params)

    def latents(self, y: Tensor, params: Tensor) -> Tensor:
        """Latents of normal scores; means of stochastic ones."""
        return self._encoded(y, params)[0]

    def reconstruct(self, latents: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        """Fields ``(B, 1, *shape)`` in physical units of latents ``(B, C, *(shape / factor))``.

        ``white``, of ``white_detail``, is behind what latents do not tell, where that is drawn.
        """
        return self.copula.marginal(self.scores(latents, params, white), params)

    def _encoded(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents of normal scores, and ln of their variance if they are stochastic."""
        learned = self.encoder(y, self.space.normalise(params)).float()
        if self.coding.kind == "clip":
            return self._clipped(self.blocks(y) + learned), None
        mean, log_variance = learned.chunk(2, 1)
        return self.blocks(y) + mean, (NARROW + log_variance).clamp(-20, 4)

    def _clipped(self, z: Tensor) -> Tensor:
        return z if self.coding.kind == "kl" else z / (1 + (z / self.coding.bound).square()).sqrt()

    def _unclipped(self, z: Tensor) -> Tensor:
        return z if self.coding.kind == "kl" else _unclipped(z, self.coding.bound)

    def scores(self, z: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        """Normal scores of latents."""
        del white
        z = self._unclipped(z)
        return self.blocks.inverse(z) + self.decoder(z, self.space.normalise(params)).float()

    def loss(
        self, values: Tensor, params: Tensor, generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """Mean square errors of normal scores in cells and in waves, and the latents' divergence."""
        y = self.to_working(values, params)
        z, log_variance = self._encoded(y, params)
        terms = {}
        if log_variance is not None:
            divergence = (z.square() + log_variance.exp() - 1 - log_variance) / 2
            terms["divergence"] = self.kl_weight * divergence.mean()
            z = z + (log_variance / 2).exp() * normal(generators, z.shape[1:]).to(z)
        error = self.scores(z, params) - y
        w, waves = self.spectral_weight, tapered(self.grid, error) / self.spectrum
        return {"cells": (1 - w) * error.square().mean(), "waves": w * waves.mean(), **terms}

    def white_detail(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind what latents do not tell, as rows ``(B, N)``; none here."""
        del shape
        return torch.zeros(len(generators), 0, device=self.device)

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind the latents, then that behind the rest, as rows ``(B, N)``."""
        white = normal(generators, self._white_shape(shape)).to(self.device).flatten(1)
        return torch.cat([white, self.white_detail(generators, shape)], 1)

    def _white_shape(self, shape: Sequence[int] | None) -> tuple[int, ...]:
        """Of the noise behind the latents of a field of ``shape``."""
        cells = self.latent_shape(self.grid.shape if shape is None else shape)
        return (self.coding.channels, *self.law.torus(cells))

    def white_parts(self, white: Tensor, shape: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """The two parts of ``white_latent``."""
        n = math.prod(self._white_shape(shape))
        return white[:, :n], white[:, n:]

    def gaussian(self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Standardised Gaussian latents of the first of ``white_parts``; their law knows no parameters."""
        del params
        return self.law.gaussian(white, self.latent_shape(self.grid.shape if shape is None else shape))

    def covariance(self, y: Tensor, params: Tensor) -> Tensor:
        """The covariance of ``gaussian`` times standardised latents."""
        del params
        return self.law.covariance(y)

    def from_white(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields ``(B, 1, *shape)`` of Gaussian latents made of white noise ``(B, N)``."""
        of_latents, of_detail = self.white_parts(white, shape)
        y = self.gaussian(params, of_latents, shape)
        return self.reconstruct(self.law.restored(y), params, of_detail)

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Fields of Gaussian latents, or what is kept of the fields ``coarse``, ``(B, 1, *shape)``."""
        if coarse is None:
            return super().generate(params, generators, coarse, shape)
        self.latent_shape(coarse.shape[2:])
        white = self.white_detail(generators, coarse.shape[2:])
        return self.reconstruct(self.encode(coarse.to(params), params), params, white)


def _unclipped(z: Tensor, bound: float) -> Tensor:
    """The inverse of z / sqrt(1 + (z / bound)^2), prolonged by its tangent."""
    u = z / bound
    inner = u.clamp(-LINEAR, LINEAR)
    slope = (1 - LINEAR**2) ** -1.5
    return bound * (inner / (1 - inner.square()).sqrt() + slope * (u - inner))
