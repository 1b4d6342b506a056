"""Adversarial emulator from a vector latent, as CosmoGAN and its kin have it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gen.emulators.copula import Copula
from gen.emulators.critic import FieldCritic, joined, linear_view
from gen.emulators.latent import LatentSpace
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic, DCGANGenerator
from gen.nets.summaries import Summaries
from gen.noise import normal, student_t
from gen.transforms import Log

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class LatentGAN(LatentSpace):
    """A vector latent through a DCGAN generator, conditional on the parameters, in 2D and 3D.

    With ``working="physical"``, ``output="tanh"``, ``condition="none"`` and no parameters it is CosmoGAN
    (Mustafa et al. 2019, arXiv:1706.02390); in 3D with ``latent_size=100``, ``kernel=4``, ``blocks=2`` and
    ``working="log"``, HIGAN (Zamudio-Fernandez et al. 2019, arXiv:1904.12846). The loss, not this class,
    makes it a DCGAN or a WGAN-GP.

    Args:
        latent: ``"gaussian"``, or ``"student_t"`` with ``nu`` degrees of freedom (Feder et al. 2020,
            arXiv:2005.03050).
        condition: ``"modulation"`` of every stage, or ``"norm"``: one latent block per parameter whose
            norm is linear in it (Perraudin et al. 2020, arXiv:2004.08139).
        working: the space of the generator's output: ``"score"`` (the normal score of the marginal law
            at the parameters), ``"log"`` (``log(x + offset) / log(m + offset)``, m the largest value that was
            seen in training, for fields of many decades) or ``"physical"``.
        blocks: further convolutions at the second finest resolution, of generator and critic.
    """

    log_top: Tensor

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        latent_size: int = 64,
        latent: Literal["gaussian", "student_t"] = "gaussian",
        nu: float = 5.0,
        condition: Literal["modulation", "norm"] = "modulation",
        working: Literal["score", "log", "physical"] = "score",
        offset: float = 1e-2,
        channels: Sequence[int] = (512, 256, 128, 64),
        kernel: int = 5,
        blocks: int = 0,
        upsampling: Literal["transposed", "nearest"] = "transposed",
        output: Literal["tanh", "linear"] = "linear",
        critic_channels: Sequence[int] = (64, 128, 256, 512),
        critic_norm: Literal["batch", "spectral", "none"] = "none",
        critic_tail: bool = False,
        critic_spectrum: bool = False,
    ) -> None:
        super().__init__(grid, space, field, unit)
        if condition == "norm" and len(space) and latent_size % len(space):
            raise InputError(
                f"latent_size must divide by the {len(space)} parameters to encode them in norms, "
                f"got {latent_size}"
            )
        if latent == "student_t" and nu <= 2:
            raise InputError(f"nu must exceed 2 for a latent of finite variance, got {nu}")
        self.arguments: dict[str, Any] = {
            "latent_size": latent_size,
            "latent": latent,
            "nu": nu,
            "condition": condition,
            "working": working,
            "offset": offset,
            "channels": list(channels),
            "kernel": kernel,
            "blocks": blocks,
            "upsampling": upsampling,
            "output": output,
            "critic_channels": list(critic_channels),
            "critic_norm": critic_norm,
            "critic_tail": critic_tail,
            "critic_spectrum": critic_spectrum,
        }
        self.latent_size, self.latent, self.nu, self.condition = latent_size, latent, nu, condition
        n_modulating = len(space) if condition == "modulation" else 0
        padding = "circular" if grid.periodic else "zeros"
        self.generator = DCGANGenerator(
            grid.shape, latent_size, n_modulating, channels, kernel, upsampling, output, padding,
            blocks=blocks,
        )  # fmt: skip
        # The copula supplies the marginal law of the working space; as the prior it is not used here.
        self.copula = Copula(grid, space, field, unit) if working == "score" else None
        self.log = Log(offset) if working == "log" else None
        if self.log is not None:
            self.register_buffer("log_top", torch.ones(()))
        self.spectrum = Summaries(grid) if critic_spectrum else None

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    def fit(self, data: SimulationSet) -> None:
        if self.copula is not None:
            self.copula.fit(data)
        if self.log is not None:
            self.log_top.copy_(self.log(data.values.amax().float()))
        if self.spectrum is not None:
            self.spectrum.fit(*fitting_views(self, data))

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        if self.log is not None:
            return self.log(values) / self.log_top
        return values if self.copula is None else self.copula.marginal.inverse(values, params)

    def to_physical(self, y: Tensor, params: Tensor) -> Tensor:
        if self.log is not None:
            return self.log.inverse(y * self.log_top).clamp(min=0)
        return y if self.copula is None else self.copula.marginal(y, params)

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """Numbers ``(B, latent_size)`` of unit variance, see ``gen.emulators.latent``."""
        if shape is not None and tuple(shape) != self.grid.shape:
            raise InputError(
                f"a vector latent makes fields of {self.grid.shape} cells only, got {tuple(shape)}"
            )
        size = (self.latent_size,)
        z = normal(generators, size) if self.latent == "gaussian" else student_t(generators, size, self.nu)
        return z.to(self.device)

    def from_white(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields ``(B, 1, *grid.shape)`` in physical units of numbers ``(B, latent_size)``."""
        del shape
        return self.to_physical(self.decode(self._encoded(white, params), params), params)

    def draw_latent(self, params: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Latent vectors ``(B, latent_size)``, which know the parameters if ``condition`` is ``"norm"``."""
        return self._encoded(self.white_latent(generators), params)

    def _encoded(self, white: Tensor, params: Tensor) -> Tensor:
        z = white.to(params)
        if self.condition == "modulation" or not len(self.space):
            return z
        blocks = z.reshape(len(z), len(self.space), -1)
        length = blocks.shape[-1]
        # Unit range to [0.1, 1] sqrt(n): the norm of a Gaussian block is sqrt(n) on average.
        norm = (0.55 + 0.45 * self.space.normalise(params)) * math.sqrt(length)
        return (blocks * (norm / blocks.norm(dim=-1))[..., None]).flatten(1)

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """Fields in the working space, differentiable in the generator's weights."""
        return self.generator(latent, self.space.normalise(params))

    def make_critic(self) -> nn.Module:
        """A fresh critic of working-space fields."""
        a = self.arguments
        extra = 0 if self.spectrum is None else 2 * self.spectrum.n_power
        padding = "circular" if self.grid.periodic else "zeros"
        critic = Critic(
            self.grid.shape, len(self.space), 1 + a["critic_tail"], a["critic_channels"], a["kernel"],
            a["critic_norm"], padding, extra, blocks=a["blocks"],
        )  # fmt: skip
        marginal = None if self.copula is None else self.copula.marginal
        return FieldCritic(self.space, critic, marginal, self.spectrum, tail=a["critic_tail"])

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """No loss beside the adversarial one."""
        del y_fake, latent, params
        return {}


def fitting_views(emulator: LatentGAN, data: SimulationSet, limit: int = 4096) -> tuple[Tensor, Tensor]:
    """Working-space and linear fields of an evenly spaced subset of a set, for measuring their spectra."""
    rows = torch.arange(0, len(data.values), max(1, len(data.values) // limit))
    parts = []
    with torch.no_grad():
        for i in rows.split(256):
            params = data.params[i].float()
            y = emulator.to_working(data.values[i].float(), params)
            parts.append(
                (y, y if emulator.copula is None else linear_view(emulator.copula.marginal, y, params))
            )
    return joined(parts)
