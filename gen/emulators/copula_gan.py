"""Adversarial emulator from the copula field: a network learns the residual of the closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gen.emulators.chunks import white_channels
from gen.emulators.conditioning import Channels
from gen.emulators.copula import Copula, distinct_rows
from gen.emulators.critic import field_critic, joined, views
from gen.emulators.gap import SummaryGap
from gen.emulators.latent import LatentSpace
from gen.emulators.score_law import ScoreLaw
from gen.emulators.sharpened import match_contrast
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.summaries import Summaries
from gen.nets.unet import UNet
from gen.noise import normal, sample_generator

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class CopulaGAN(LatentSpace):
    """The copula field is the latent; a U-Net adds what it cannot know, starting from the identity.

    In the space of normal scores, ``y = g + U(g, noise; theta)`` with U zero at the start: large scales,
    one-point law and their dependence on the parameters are right by construction, and the network learns
    morphology only. Fully convolutional, so one checkpoint makes fields of any number of cells.

    Args:
        widths: channels of the U-Net, finest resolution first.
        patch: of the U-Net: cells along an axis that it takes together.
        noise_channels: white-noise fields given beside g.
        margin: cells generated around a field that is not periodic and cut off again.
        summary_weight: weight of the gap between the summaries of generated and real fields
            (``gen.emulators.gap``), 0 for a purely adversarial generator.
        summary_bin: of ``gen.nets.summaries``, which makes the summaries of volumes several times cheaper.
        logarithmic, reach, phases, knots, contrast_power: of the copula, for fields that span decades.
        calibrated: once trained, measure the law of the scores and undo it, and change P_G until fields have
            the mean power of density contrasts; of logarithmic ones. Then the network's own is morphology.

    Raises:
        InputError: for calibration of fields that are not logarithmic.
    """

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        degree: int = 3,
        widths: Sequence[int] = (16, 32, 64, 64),
        noise_channels: int = 1,
        margin: int = 8,
        summary_weight: float = 50.0,
        critic_channels: Sequence[int] = (32, 64, 128, 128),
        critic_kernel: int = 5,
        critic_norm: Literal["batch", "spectral", "none"] = "none",
        critic_tail: bool = True,
        critic_spectrum: bool = True,
        summary_bin: float | None = None,
        logarithmic: bool = False,
        reach: float = 4.25,
        phases: int = 1,
        knots: Mapping[str, Sequence[float]] | None = None,
        contrast_power: bool = False,
        patch: int = 1,
        calibrated: bool = False,
    ) -> None:
        super().__init__(grid, space, field, unit)
        if calibrated and not logarithmic:
            raise InputError(
                "calibration is for fields that span decades; set logarithmic, or calibrated: false"
            )
        law: dict[str, Any] = {
            "logarithmic": logarithmic,
            "reach": reach,
            "phases": phases,
            "knots": dict(knots or {}),
            "contrast_power": contrast_power,
        }
        self.arguments: dict[str, Any] = {
            "degree": degree,
            "widths": list(widths),
            "noise_channels": noise_channels,
            "margin": margin,
            "summary_weight": summary_weight,
            "critic_channels": list(critic_channels),
            "critic_kernel": critic_kernel,
            "critic_norm": critic_norm,
            "critic_tail": critic_tail,
            "critic_spectrum": critic_spectrum,
            "summary_bin": summary_bin,
            **law,
            "patch": patch,
            "calibrated": calibrated,
        }
        self.noise_channels, self.summary_weight = noise_channels, summary_weight
        self.margin = 0 if grid.periodic else margin
        # Zero padding is seen only by the margin, which is cut off.
        padding = "circular" if grid.periodic else "zeros"
        self.copula = Copula(grid, space, field, unit, degree, **law)
        self.score_law = ScoreLaw(self.copula) if calibrated else None
        self.generator = UNet(grid.dim, 1 + noise_channels, 1, len(space), widths, padding, patch=patch)
        self.gap = SummaryGap(Summaries(grid, bin_width=summary_bin), space, degree)

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    def fit(self, data: SimulationSet) -> None:
        self.copula.fit(data)
        rows = torch.arange(0, len(data.values), max(1, len(data.values) // 8192))
        params = data.params[rows].float()
        real, copula = [], []
        with torch.no_grad():
            for i in rows.split(256):
                theta = data.params[i].float()
                real.append(self._views(self.to_working(data.values[i].float(), theta), theta))
                latent = self.draw_latent(theta, [sample_generator(0, int(j), "gap") for j in i])
                copula.append(self._views(self._cut(latent[:, :1]), theta))
        self.gap.fit(joined(real), joined(copula), params)

    def _views(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return views(self.copula.marginal, y, params)

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        return self.copula.marginal.inverse(values, params)

    def to_physical(self, y: Tensor, params: Tensor) -> Tensor:
        marginal = self.copula.marginal
        places = None if self.score_law is None else self.score_law.places(marginal, params)
        return marginal(y, params, places)

    @torch.no_grad()
    def calibrate(self, data: SimulationSet) -> None:
        """One-point law and power of fields of the trained network, see ``calibrated``."""
        if self.score_law is None:
            return
        cosmologies, _ = distinct_rows(data.params.float())
        for last in (False, False, True):
            made = [self._drawn_scores(theta) for theta in cosmologies]
            self.score_law.fit(self.copula.marginal, cosmologies, made)
            if not last:
                match_contrast(self.copula, data.values, data.params, self.generate, rounds=2)

    def _drawn_scores(self, theta: Tensor) -> Tensor:
        """Of a few fields at parameters ``(P,)``, ``(4, 1, *shape)``."""
        params = theta.expand(4, -1)
        generators = [sample_generator(0, i, f"calibration {theta.tolist()}") for i in range(4)]
        return self.decode(self.draw_latent(params, generators), params)

    def _cells(self, shape: Sequence[int] | None) -> tuple[tuple[int, ...], list[int]]:
        """The field's cells, and the cells that the network works on: with margins, divisible."""
        shape = self.grid.shape if shape is None else tuple(shape)
        factor = self.generator.factor
        worked = [math.ceil((n + 2 * self.margin) / factor) * factor for n in shape]
        if self.grid.periodic and worked != list(shape):
            raise InputError(f"sides of a periodic field must divide by {factor}, got {shape}")
        return shape, worked

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind the copula field, then the network's own, as rows ``(B, N)``."""
        _, worked = self._cells(shape)
        white = self.copula.white(generators, worked)
        noise = normal(generators, (self.noise_channels, *worked)).to(white)
        return torch.cat([white.flatten(1), noise.flatten(1)], 1)

    def from_white(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields ``(B, 1, *shape)`` in physical units of white noise ``(B, N)``."""
        return self.to_physical(self.decode(self._latent(white, params, shape), params, shape), params)

    def _latent(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        _, worked = self._cells(shape)
        n_noise = self.noise_channels * math.prod(worked)
        of_copula, of_network = white.split([white.shape[1] - n_noise, n_noise], 1)
        g = self.copula.gaussian(params, of_copula, worked)
        return torch.cat([g, of_network.unflatten(1, (self.noise_channels, *worked)).to(g)], 1)

    def draw_latent(
        self, params: Tensor, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The copula field and white noise, ``(B, 1 + noise_channels, *worked)``."""
        return self._latent(self.white_latent(generators, shape), params, shape)

    def decode(self, latent: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Normal scores ``(B, 1, *shape)``, differentiable in weights and parameters."""
        return self._cut(self._scores(latent, params), shape)

    def _scores(self, latent: Tensor, params: Tensor) -> Tensor:
        return latent[:, :1] + self.generator(latent, self.space.normalise(params))

    def _cut(self, y: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Without the margin."""
        shape, _ = self._cells(shape)
        return y[(slice(None), slice(None), *(slice(self.margin, self.margin + n) for n in shape))]

    @property
    def network(self) -> UNet:
        return self.generator

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._cells(shape)[1])

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """The channels of ``draw_latent``, one after the other."""
        del coarse
        worked = self.worked(shape)
        yield self.copula.gaussian(params, self.copula.white(generators, worked), worked)[:, 0]
        for channel in white_channels(generators, self.noise_channels, worked):
            yield channel.to(params)

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        return self.to_physical(self._scores(inputs, params), params)

    def make_critic(self) -> nn.Module:
        """A fresh critic of normal scores."""
        a = self.arguments
        spectra = self.gap.summaries if a["critic_spectrum"] else None
        return field_critic(self.grid, self.space, self.copula.marginal, spectra, a, a["critic_norm"])

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The weighted gap between the summaries of generated and real fields."""
        if not self.summary_weight:
            return {}
        made, copula = (self._views(y, params) for y in (y_fake, self._cut(latent[:, :1])))
        return {"summaries": self.summary_weight * self.gap(made, copula, params)}
