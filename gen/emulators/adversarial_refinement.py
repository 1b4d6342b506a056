"""Super-resolution by particles that is trained against a critic, with noise at every resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gen.emulators.chunks import white_channels
from gen.emulators.closed_forms import ShortWaves
from gen.emulators.conditioning import Channels
from gen.emulators.motion_critic import MotionCritic
from gen.emulators.refinement import Refinement
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels


class AdversarialRefinement(Refinement):
    """As ``Refinement``, with white noise at every resolution for what waves do not determine, and a critic.

    A conditional Wasserstein GAN in the displacement and the density at once, as Li et al. 2021
    (arXiv:2010.06608) have it; the waves that the coarse run lacks are part of the generator's noise and are
    drawn anew in training too, so that, unlike regression, it never sees a fine run's own.

    Args:
        critic_channels, critic_kernel: of ``gen.emulators.motion_critic.MotionCritic``.
    """

    noisy = True

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        closed_form: ShortWaves | None = None,
        field: str = "displacement and velocity",
        unit: str = "Mpc/h and km/s",
        widths: Sequence[int] = (32, 64, 128),
        factor: int = 2,
        degree: int = 3,
        critic_channels: Sequence[int] = (16, 32, 64),
        critic_kernel: int = 3,
    ) -> None:
        super().__init__(grid, space, closed_form, field, unit, widths, factor, degree)
        self.critic_layers = {"critic_channels": list(critic_channels), "critic_kernel": critic_kernel}

    def to_config(self) -> dict[str, Any]:
        return {**super().to_config(), **self.critic_layers}

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """A fine run for each generator, whose waves are drawn even where a fine run's own are given."""
        return self._moved(self.draw_latent(params, generators, coarse, shape), params)

    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """The coarse run at the fine particles, drawn waves, noise: ``(B, 3 dim + levels, *shape)``."""
        shape = self.grid.shape if shape is None else tuple(shape)
        known = self.completed(params, generators, self.run_of(self.check(coarse, shape)), shape)
        return torch.cat([known, torch.stack(self._noise(params, generators, shape), 1)], 1)

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """Motions ``(B, 2 dim, *shape)`` in units of what the closed form lacks, with gradients."""
        return self.to_working(self._moved(latent, params), params)

    def _moved(self, latent: Tensor, params: Tensor) -> Tensor:
        """Motions ``(B, 2 dim, *shape)`` in physical units."""
        known, noise = latent.split([3 * self.grid.dim, self._levels], 1)
        return self._improved(self.formula(known, self._universe(params)), params, noise)

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Motions in units of what the closed form lacks."""
        del params
        return values / to_channels(self.output_scale[None], values)

    def make_critic(self) -> nn.Module:
        """A fresh critic of motions given a coarse run."""
        layers = self.critic_layers
        return MotionCritic(
            self.grid, self.space, self.output_scale, layers["critic_channels"], layers["critic_kernel"]
        )

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """None beside the critic."""
        del y_fake, latent, params
        return {}

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """What of the closed form knows the whole box, and the noise of each resolution."""
        yield from super().inputs(params, generators, coarse, shape)
        yield from self._noise(params, generators, shape)

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        known, noise = inputs.split([inputs.shape[1] - self._levels, self._levels], 1)
        return self._improved(self.formula.local(known, self._universe(params)), params, noise)

    @property
    def _levels(self) -> int:
        return len(self.widths)

    def _noise(
        self, params: Tensor, generators: Sequence[torch.Generator], shape: Sequence[int]
    ) -> list[Tensor]:
        return [x.to(params) for x in white_channels(generators, self._levels, tuple(shape))]
