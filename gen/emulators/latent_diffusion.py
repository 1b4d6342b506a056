"""Diffusion of an autoencoder's latents, decoded: large fields at the cost of small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from gen.emulators.autoencoder import Autoencoder, Coding
from gen.emulators.completed_autoencoder import autoencoder_of
from gen.emulators.denoisers import network_arguments
from gen.emulators.diffusion import Diffusion
from gen.emulators.power_filter import PowerFilter
from gen.emulators.score_law import ScoreLaw
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

if TYPE_CHECKING:
    from gen.data.base import SimulationSet
    from gen.emulators.copula import Copula

MOST = 100.0
"""Factor of power of the filter. What networks leave beyond a beam it would be asked to cut ever more, and
in vain, for the one-point law, which bends what it is given, comes after it."""


class LatentDiffusion(Diffusion):
    r"""``y``, the standardised latents of an autoencoder, diffused with noise of their own law, and decoded.

    Rombach et al. 2022 (arXiv:2112.10752). The noise has the measured power of the latents and between their
    channels, so that it drowns all waves at the same level and 16 to 20 evaluations do. A network that has
    learned nothing gives Gaussian latents: of a completed coding those of the copula's fields at the
    parameters, so that decoded they are these, and of others those of all training fields (``LatentLaw``).

    The autoencoder is a part of this emulator and of its checkpoints, and is not trained any more. It is that
    of a checkpoint, which the recipe of a training run names, or its closed form.

    Args:
        coding: of the latents, as the autoencoder was trained with.
        widths: channels of the U-Net on the latents' grid, finest resolution first.
        high, low, steps: of the ladder of noise levels.
        order: of the solver.
        spectral_weight: of the loss in waves, each in units of its noise, against that in cells.
        denoiser: the network; ``widths`` are those of a U-Net,
        width, depth, heads: of a transformer.
        patch: cells along an axis that the network takes together, by default 1 or, a transformer, 2.
        calibrated: once trained, measure what filter and law of samples' scores give them the mean power and
            the one-point law of the training fields.
        shaped: let the network hear and answer wave by wave in units of the latents' power, see
            ``CopulaDiffusion``.
    """

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        coding: Coding | None = None,
        widths: Sequence[int] = (32, 64, 64),
        high: float = 10.0,
        low: float = 0.03,
        steps: int = 20,
        order: int = 3,
        spectral_weight: float = 0.5,
        denoiser: Literal["unet", "transformer"] = "unet",
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int | None = None,
        calibrated: bool = False,
        shaped: bool = False,
    ) -> None:
        autoencoder = autoencoder_of(grid, space, field, unit, coding or Coding()).requires_grad_(False)
        sizes = {"widths": list(widths), "width": width, "depth": depth, "heads": heads}
        sizes["patch"] = patch or (1 if denoiser == "unet" else 2)
        arguments: dict[str, Any] = {
            "high": high,
            "low": low,
            "steps": steps,
            "order": order,
            "spectral_weight": spectral_weight,
            **network_arguments(denoiser, sizes),
            "calibrated": calibrated,
            "shaped": shaped,
        }
        channels = autoencoder.coding.channels
        super().__init__(grid, space, field, unit, autoencoder.latent_grid, channels, denoiser, arguments)
        self.arguments, self.autoencoder, self.taken = arguments, autoencoder, False
        self.micro_batch = autoencoder.micro_batch
        # Gaussian latents know the parameters only where they are the copula's.
        self.plainly_near = autoencoder.coding.completed
        # Unless all waves are kept they have come through the autoencoder's network.
        self.plainly_normal = self.plainly_near and autoencoder.coding.compression(grid.dim) == 1
        if calibrated:
            self.filter, self.score_law = PowerFilter(self.closed_form, most=MOST), ScoreLaw(self.closed_form)

    @property
    def closed_form(self) -> Copula:
        return self.autoencoder.copula

    def to_config(self) -> dict[str, Any]:
        coding = self.autoencoder.coding.to_dict()
        return {**self._base_config(), "coding": coding, **self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of ``to_config``."""
        return super().from_config({**config, "coding": Coding(**config["coding"])})

    def take(self, autoencoder: Autoencoder) -> None:
        """Take over the weights and scales of a trained autoencoder, which ``fit`` then leaves alone.

        Raises:
            InputError: if it is of another coding, other fields, or another grid or range of parameters.
        """
        theirs, ours = autoencoder.to_config(), self.autoencoder.to_config()
        for key in ("coding", "grid", "space", "unit"):
            if theirs[key] != ours[key]:
                raise InputError(
                    f"the autoencoder has {key} = {theirs[key]}, the latent diffusion {ours[key]}; give both "
                    "recipes the same"
                )
        trained = autoencoder.state_dict()  # with what it learned by, which is not needed any more
        self.autoencoder.load_state_dict({name: trained[name] for name in self.autoencoder.state_dict()})
        self.taken = True

    def fit(self, data: SimulationSet) -> None:
        """The latents' law, and, unless the autoencoder was trained before, its closed form."""
        if self.taken:
            self.autoencoder.fit_law(data)
        else:
            self.autoencoder.fit(data)
        self.fit_noise(data)

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Standardised latents ``(B, C, *(shape / factor))`` of fields, before these were filtered."""
        latents = self.autoencoder.latents(self.sampled(values, params), params)
        return self.autoencoder.law.standardised(latents)

    def scores(self, y: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        """Of standardised latents; ``white`` as in ``Autoencoder.reconstruct``."""
        return self.autoencoder.scores(self.autoencoder.law.restored(y), params, white)

    def coloured(self, y: Tensor, params: Tensor, *, inverse: bool = False) -> Tensor:
        del params
        return self.autoencoder.law.coloured(y, inverse=inverse)

    def gaussian(self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """g of the autoencoder's Gaussian latents."""
        return self.autoencoder.gaussian(params, self.autoencoder.white_parts(white, shape)[0], shape)

    def covariance(self, y: Tensor, params: Tensor) -> Tensor:
        return self.autoencoder.covariance(y, params)

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind the latents, then that behind what they do not tell, as rows ``(B, N)``."""
        return self.autoencoder.white_latent(generators, shape)

    def detail(self, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        return self.autoencoder.white_parts(white, shape)[1]
