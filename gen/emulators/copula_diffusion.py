"""Diffusion from the copula field: noise has its spectrum, and a network learns what is not Gaussian."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen.diffusion.levels import Ladder
from gen.diffusion.posterior import Observe, conditioned
from gen.diffusion.solver import solve
from gen.emulators.copula import Copula
from gen.emulators.latent import LatentSpace
from gen.emulators.sharpened import tapered, tapered_power
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels
from gen.nets.unet import UNet
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

DRAWS = 1024
"""Noises of which the spectrum of the loss is the mean."""


class CopulaDiffusion(LatentSpace):
    r"""``y = q^-1(x)``, the normal scores of a field, diffused with noise ``sigma g`` of the copula's law.

    The copula says that y is g, a Gaussian field of spectrum P_G(k; theta). Noise of that spectrum drowns
    all waves at the same sigma, so that 20 levels in 2.5 decades do what white noise needs 6 decades for,
    and the best estimate of a Gaussian y is one number for all waves. The denoiser starts as that and
    learns the rest,

        D(y, sigma; theta) = y / s^2 + sigma / s U(y / s, sigma; theta),   s^2 = 1 + sigma^2,

    U a U-Net that is zero at the start: then samples are those of the copula, whose power and one-point law
    are right. The preconditioning is that of Karras et al. 2022 (arXiv:2206.00364), for a scatter of 1.
    Samples solve the probability flow (``gen.diffusion.solver``), so the noise that a field is made from is
    a latent like any other, and fields of one seed change smoothly with the parameters.

    Args:
        widths: channels of the U-Net, finest resolution first.
        high, low, steps: of the ladder of noise levels.
        order: of the solver.
        spectral_weight: of the loss in waves, each in units of its noise, against that in cells.
        logarithmic, reach, phases, knots, contrast_power: of the copula.
    """

    micro_batch = 32

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        degree: int = 3,
        widths: Sequence[int] = (16, 32, 64, 64),
        high: float = 10.0,
        low: float = 0.03,
        steps: int = 20,
        order: int = 3,
        spectral_weight: float = 0.5,
        logarithmic: bool = False,
        reach: float = 4.25,
        phases: int = 1,
        knots: Mapping[str, Sequence[float]] | None = None,
        contrast_power: bool = False,
    ) -> None:
        super().__init__(grid, space, field, unit)
        law: dict[str, Any] = {
            "logarithmic": logarithmic,
            "reach": reach,
            "phases": phases,
            "knots": dict(knots or {}),
            "contrast_power": contrast_power,
        }
        self.ladder, self.order, self.spectral_weight = Ladder(high, low, steps), order, spectral_weight
        self.arguments: dict[str, Any] = {
            "degree": degree,
            "widths": list(widths),
            "high": high,
            "low": low,
            "steps": steps,
            "order": order,
            "spectral_weight": spectral_weight,
            **law,
        }
        self.copula = Copula(grid, space, field, unit, degree, **law)
        padding = "circular" if grid.periodic else "zeros"
        self.network = UNet(grid.dim, 1, 1, len(space) + 1, widths, padding)
        self.spectrum: Tensor
        self.register_buffer("spectrum", torch.ones(*grid.shape[:-1], grid.shape[-1] // 2 + 1))

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    def fit(self, data: SimulationSet) -> None:
        """The copula, and the spectrum of its noise as the loss sees it."""
        self.copula.fit(data)
        rows = torch.arange(DRAWS) % len(data)
        with torch.no_grad():
            drawn = [
                self.noise(data.params[i].float(), [sample_generator(0, int(j), "spectrum") for j in i])
                for i in rows.split(128)
            ]
        spectrum = tapered_power(self.grid, torch.cat(drawn))
        self.spectrum.copy_(spectrum.clamp(min=1e-6 * float(spectrum.max())))

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Normal scores of fields."""
        return self.copula.marginal.inverse(values, params)

    def noise(self, params: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """g of unit variance, ``(B, 1, *grid.shape)``."""
        return self.copula.gaussian(params, self.copula.white(generators))

    def correction(self, y: Tensor, sigma: Tensor, params: Tensor) -> Tensor:
        """U of noised scores ``(B, 1, *shape)`` at levels ``(B,)`` and parameters ``(B, P)``."""
        centre, half = (0.5 * math.log(self.ladder.high * (self.ladder.low**s)) for s in (1, -1))
        level = (sigma.log() - centre) / half
        heard = torch.cat([self.space.normalise(params), level[:, None].to(params)], 1)
        return self.network(y / to_channels((1 + sigma.square()).sqrt()[:, None], y), heard)

    def denoised(self, y: Tensor, sigma: float, params: Tensor) -> Tensor:
        """The mean of the scores whose noised version y is, as it was learned."""
        levels = params.new_full((len(y),), sigma)
        return y / (1 + sigma**2) + sigma / math.sqrt(1 + sigma**2) * self.correction(y, levels, params)

    def loss(
        self, values: Tensor, params: Tensor, generators: Sequence[torch.Generator], sigma: Tensor
    ) -> dict[str, Tensor]:
        """Mean square errors of U at levels of noise ``(B,)``, 1 where nothing is learned.

        U's aim, ``(sigma y - g) / sqrt(1 + sigma^2)``, has the spectrum of g. In cells its short waves hardly
        count; in waves under a taper, each in units of that spectrum, all count alike.
        """
        y, g = self.to_working(values, params), self.noise(params, generators)
        s = to_channels(sigma[:, None], y)
        error = self.correction(y + s * g, sigma, params).float() - (s * y - g) / (1 + s.square()).sqrt()
        waves = tapered(self.grid, error) / self.spectrum
        w = self.spectral_weight
        return {"cells": (1 - w) * error.square().mean(), "waves": w * waves.mean()}

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind the field, as rows ``(B, N)``."""
        return self.copula.white_latent(generators, shape)

    def from_white(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields ``(B, 1, *shape)`` in physical units of white noise ``(B, N)``."""
        start = math.sqrt(1 + self.ladder.high**2) * self.copula.gaussian(params, white, shape)
        y = solve(lambda x, sigma: self.denoised(x, sigma, params), start, self.ladder, self.order)
        return self.copula.marginal(y, params)

    def posterior(
        self,
        observe: Observe,
        data: Tensor,
        variance: Tensor | float,
        params: Tensor,
        generators: Sequence[torch.Generator],
        iterations: int = 64,
    ) -> Tensor:
        """Fields that fit ``data = observe(field) + noise``, without any training for it.

        Inpainting, denoising, super-resolution: see ``gen.diffusion.posterior``, of which the prior is this
        emulator's law at ``params``. Where the map of scores to values bends within their scatter given the
        noised field, it is as approximate as that.

        Args:
            observe: of fields ``(B, 1, *shape)`` in physical units, differentiable.
            data: as ``observe`` gives them, ``(B, ...)``.
            variance: of their noise.
            params: ``(B, P)``.
            generators: one a sample.
            iterations: of conjugate gradients at each level.

        Returns:
            ``(B, 1, *grid.shape)`` in physical units.
        """
        prior = conditioned(
            lambda y, sigma: self.denoised(y, sigma, params),
            lambda y: observe(self.copula.marginal(y, params)),
            data,
            variance,
            lambda v: self.copula.covariance(v, params),
            iterations,
        )
        start = math.sqrt(1 + self.ladder.high**2) * self.noise(params, generators)
        return self.copula.marginal(solve(prior, start, self.ladder, self.order).detach(), params)
