"""An autoencoder that keeps some waves of a field and draws the others: nothing is blurred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from gen.emulators.autoencoder import Autoencoder, Coding
from gen.emulators.completion import completed
from gen.emulators.critic import field_critic, joined, views
from gen.emulators.gap import SummaryGap
from gen.emulators.power_filter import PowerFilter
from gen.emulators.sharpened import BATCH, drawn
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels
from gen.nets.summaries import Summaries
from gen.nets.unet import UNet
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

MOST_FIELDS, MOST_DRAWN = 4096, 1024
"""Of the training set: that the summaries' gap, and the filter of power, are measured from."""
ROUNDS = 12
"""Of the filter: the waves that are kept answer only by way of the one-point law."""


class CompletedAutoencoder(Autoencoder):
    r"""``z = T y``, the longest waves of blocks; ``y' = y0 + U(y0; theta)``, less its change of these waves.

    y0 has the waves z, and others drawn as the copula has them given z (``gen.emulators.completion``): the
    power and the one-point law of what latents do not tell are right by construction, and many fields belong
    to the same latents. A U-Net, zero at the start, adds the morphology. It learns against a critic and the
    gap between the summaries of real fields and of y0 of the same latents (``gen.emulators.gap``), as
    ``CopulaGAN`` does; without a loss this is a closed form. Once it is trained, y' is filtered until it has
    the power of training fields (``gen.emulators.power_filter``) in all but the waves z.

    Args:
        coding: with ``completed``; ``widths`` are those of the U-Net.
        summary_weight: of the gap; with 0 it is not measured.
        summary_bin: see ``CopulaGAN``.
        critic_channels, critic_kernel, critic_tail, critic_spectrum: of the critic, see ``CopulaGAN``.

    Raises:
        InputError: for a coding that is not completed.
    """

    #: Its own fields are what it is given to learn from.
    reconstructs: ClassVar[bool] = True

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        coding: Coding | None = None,
        summary_weight: float = 0.0,
        summary_bin: float | None = None,
        critic_channels: Sequence[int] = (32, 64, 128, 128),
        critic_kernel: int = 5,
        critic_tail: bool = True,
        critic_spectrum: bool = True,
    ) -> None:
        super().__init__(grid, space, field, unit, coding or Coding(completed=True))
        self.arguments: dict[str, Any] = {
            "summary_weight": summary_weight,
            "summary_bin": summary_bin,
            "critic_channels": list(critic_channels),
            "critic_kernel": critic_kernel,
            "critic_tail": critic_tail,
            "critic_spectrum": critic_spectrum,
        }
        summaries = Summaries(grid, bin_width=summary_bin) if summary_weight else None
        self.filter = PowerFilter(self.copula, most=10.0)
        self.gap = None if summaries is None else SummaryGap(summaries, space, self.coding.degree)

    def _build(self, coding: Coding) -> None:
        if not coding.completed:
            raise InputError("the coding of a CompletedAutoencoder is completed; set it, or take Autoencoder")
        grid = self.grid
        padding = "circular" if grid.periodic else "zeros"
        self.margin = 0 if grid.periodic else 2 * coding.factor
        self.generator = UNet(grid.dim, 1, 1, len(self.space), coding.widths, padding)

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), "coding": self.coding.to_dict(), **self.arguments}

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        super().fit(data)
        if self.gap is None:
            return
        rows = torch.arange(0, len(data), max(1, len(data) // MOST_FIELDS))
        real, plain = [], []
        for i in rows.split(64):
            values, params = data.values[i].float(), data.params[i].float()
            real.append(self._views(self.to_working(values, params), params))
            y = self.draw_latent(params, [sample_generator(0, int(j), "gap") for j in i], values)
            plain.append(self._views(self._cut(y), params))
        self.gap.fit(joined(real), joined(plain), data.params[rows].float())

    @torch.no_grad()
    def calibrate(self, data: SimulationSet) -> None:
        """Give what is drawn the power that training fields have in its place."""
        self.filter.log_power.coefficients.zero_()
        rows = torch.arange(len(data))[:: max(1, len(data) // MOST_DRAWN)]
        values, params = data.values[rows].float().to(self.device), data.params[rows].float().to(self.device)

        pairs = zip(values.split(BATCH), params.split(BATCH), strict=True)
        z = torch.cat([self.encode(v, p) for v, p in pairs])

        def unfiltered(i: Tensor, noise: list[torch.Generator]) -> Tensor:
            white = self.white_detail(noise, values.shape[2:])
            return self.decode(self._completed(z[i], params[i], white), params[i])

        y = torch.cat(list(drawn(unfiltered, torch.arange(len(rows)), "calibration")))

        def draw(i: Tensor, noise: list[torch.Generator]) -> Tensor:
            del noise
            return self.copula.marginal(self._filtered(y[i], z[i], params[i]), params[i])

        self.filter.fit_given(self.copula, values, params, draw, rounds=ROUNDS, alike=True)
        super().calibrate(data)

    def _views(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return views(self.copula.marginal, y, params)

    def _encoded(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor | None]:
        del params
        return self.blocks(y), None

    def scores(self, z: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        if white is None:
            cells = [n * self.coding.factor for n in z.shape[2:]]
            white = z.new_zeros(1, self.copula.white_size(cells, self.margin)).expand(len(z), -1)
        return self._filtered(self.decode(self._completed(z, params, white), params), z, params)

    def _filtered(self, y: Tensor, z: Tensor, params: Tensor) -> Tensor:
        """Scores through the filter, in all but the waves z."""
        y = self.filter(y, params)
        return y + self.blocks.inverse(z - self.blocks(y))

    def _completed(self, z: Tensor, params: Tensor, white: Tensor) -> Tensor:
        return completed(self.copula, self.blocks, z, params, white, self.margin)

    def white_detail(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind the waves that latents do not tell, as rows ``(B, N)``."""
        return self.copula.white(generators, shape, self.margin).flatten(1)

    def _white_shape(self, shape: Sequence[int] | None) -> tuple[int, ...]:
        return (self.copula.white_size(self.grid.shape if shape is None else shape),)

    def gaussian(self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Standardised latents of the copula's fields, so that with what is drawn they are these fields."""
        g = self.copula.gaussian(params, white, shape)
        return self.blocks(g) / to_channels(self.law.scale[None], g)

    def covariance(self, y: Tensor, params: Tensor) -> Tensor:
        scale = to_channels(self.law.scale[None], y)
        fields = self.copula.covariance(self.blocks.adjoint(y / scale), params)
        return self.blocks(fields) / scale

    # As an adversary of a critic

    def draw_latent(self, params: Tensor, generators: Sequence[torch.Generator], coarse: Tensor) -> Tensor:
        """y0 of the latents of fields ``coarse``, with a margin, ``(B, 1, *(shape + 2 margin))``."""
        white = self.white_detail(generators, coarse.shape[2:])
        return self._completed(self.encode(coarse, params), params, white)

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """y' of y0: normal scores ``(B, 1, *shape)``."""
        change = self._cut(self.generator(latent, self.space.normalise(params)).float())
        return self._cut(latent) + change - self.blocks.inverse(self.blocks(change))

    def _cut(self, y: Tensor) -> Tensor:
        """Without the margin."""
        return y[(..., *(slice(self.margin, n - self.margin) for n in y.shape[2:]))]

    def make_critic(self) -> nn.Module:
        """A fresh critic of normal scores."""
        spectra = self.gap.summaries if self.gap and self.arguments["critic_spectrum"] else None
        return field_critic(self.grid, self.space, self.copula.marginal, spectra, self.arguments)

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The weighted gap between the summaries of generated and real fields."""
        if self.gap is None:
            return {}
        made, plain = (self._views(y, params) for y in (y_fake, self._cut(latent)))
        return {"summaries": self.arguments["summary_weight"] * self.gap(made, plain, params)}


def autoencoder_of(grid: Grid, space: ParameterSpace, field: str, unit: str, coding: Coding) -> Autoencoder:
    """The autoencoder of a coding."""
    kind = CompletedAutoencoder if coding.completed else Autoencoder
    return kind(grid, space, field, unit, coding)
