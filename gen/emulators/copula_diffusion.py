"""Diffusion from the copula field: noise has its spectrum, and a network learns what is not Gaussian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gen.emulators.copula import Copula
from gen.emulators.denoisers import network_arguments
from gen.emulators.diffusion import Diffusion
from gen.emulators.power_filter import PowerFilter
from gen.emulators.score_law import ScoreLaw
from gen.fields import Grid, ParameterSpace

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class CopulaDiffusion(Diffusion):
    r"""``y = q^-1(x)``, the normal scores of a field, diffused with noise ``sigma g`` of the copula's law.

    The copula says that y is g, a Gaussian field of spectrum P_G(k; theta). Noise of that spectrum drowns
    all waves at the same sigma, so that 20 levels in 2.5 decades do what white noise needs 6 decades for,
    and the best estimate of a Gaussian y is one number for all waves. The denoiser starts as that and
    learns the rest, see ``Diffusion``: at the start samples are those of the copula, whose power and
    one-point law are right.

    Args:
        widths: channels of the U-Net, finest resolution first.
        high, low, steps: of the ladder of noise levels.
        order: of the solver.
        spectral_weight: of the loss in waves, each in units of its noise, against that in cells.
        logarithmic, reach, phases, knots, contrast_power, settled, score_power: of the copula.
        denoiser: the network; ``widths`` are those of a U-Net,
        width, depth, heads: of a transformer.
        patch: cells along an axis that the network takes together, by default 1 or, a transformer, 4.
        calibrated: once trained, measure what filter and law of samples' scores give them the mean power and
            the one-point law of the training fields.
        shaped: let the network hear what it is given in units of its noise as well, wave by wave, and give
            what it adds in these: of fields whose power falls by decades it could not make short waves else.
    """

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
        denoiser: Literal["unet", "transformer"] = "unet",
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int | None = None,
        calibrated: bool = False,
        settled: bool = False,
        score_power: bool = False,
        shaped: bool = False,
    ) -> None:
        law: dict[str, Any] = {
            "logarithmic": logarithmic,
            "reach": reach,
            "phases": phases,
            "knots": dict(knots or {}),
            "contrast_power": contrast_power,
            "settled": settled,
            "score_power": score_power,
        }
        sizes = {"widths": list(widths), "width": width, "depth": depth, "heads": heads}
        sizes["patch"] = patch or (1 if denoiser == "unet" else 4)
        arguments: dict[str, Any] = {
            "degree": degree,
            "high": high,
            "low": low,
            "steps": steps,
            "order": order,
            "spectral_weight": spectral_weight,
            **law,
            **network_arguments(denoiser, sizes),
            "calibrated": calibrated,
            "shaped": shaped,
        }
        super().__init__(grid, space, field, unit, grid, 1, denoiser, arguments)
        self.arguments = arguments
        self.copula = Copula(grid, space, field, unit, degree, **law)
        if calibrated:
            self.filter, self.score_law = PowerFilter(self.copula), ScoreLaw(self.copula)

    @property
    def closed_form(self) -> Copula:
        return self.copula

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    def fit(self, data: SimulationSet) -> None:
        """The copula, and the spectrum of its noise as the loss sees it."""
        self.copula.fit(data)
        self.fit_noise(data)

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Scores of fields, as they are sampled."""
        return self.sampled(values, params)

    def scores(self, y: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        del params, white
        return y

    def coloured(self, y: Tensor, params: Tensor, *, inverse: bool = False) -> Tensor:
        return self.copula.coloured(y, params, inverse=inverse)

    def gaussian(self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        return self.copula.gaussian(params, white, shape)

    def covariance(self, y: Tensor, params: Tensor) -> Tensor:
        return self.copula.covariance(y, params)

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """The white noise behind the field, as rows ``(B, N)``."""
        return self.copula.white_latent(generators, shape)
