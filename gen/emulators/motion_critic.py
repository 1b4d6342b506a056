"""A critic of particles' motion given a coarse run: how they moved from their cells, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gen.emulators.particles import eulerian
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic
from gen.nets.layers import to_channels


class MotionCritic(nn.Module):
    """Scores of candidates beside the coarse run, in Lagrangian and Eulerian channels side by side.

    Lagrangian: by how much displacement and velocity differ from the coarse run's at the same particles, over
    ``scale``. Eulerian: ln(1 + delta + 0.1) of the candidate and of the coarse run, by cloud-in-cell; at one
    index of both stand a particle and a cell, as in Li et al. 2021 (arXiv:2010.06608).

    Args:
        scale: ``(2 dim,)`` in whose units candidates are given.
        channels, kernel: of ``gen.nets.dcgan.Critic``.
    """

    def __init__(
        self, grid: Grid, space: ParameterSpace, scale: Tensor, channels: Sequence[int], kernel: int
    ) -> None:
        super().__init__()
        self.grid, self.space = grid, space
        self.scale = nn.Buffer(scale.clone(), persistent=False)
        n_in = 2 * grid.dim + 2
        self.critic = Critic(grid.shape, len(space), n_in, channels, kernel, "none", "circular")

    def forward(self, y: Tensor, params: Tensor, coarse: Tensor) -> Tensor:
        """Scores ``(B,)`` of motions ``(B, 2 dim, *shape)`` in units of ``scale``, at ``(B, P)`` parameters.

        Args:
            coarse: ``(B, C, *shape)``, the coarse run's motion at the fine particles first.
        """
        dim = self.grid.dim
        scale = to_channels(self.scale[None], y)
        run = coarse[:, : 2 * dim]
        stand = [self._standing(x) for x in (scale[:, :dim] * y[:, :dim], run[:, :dim])]
        return self.critic(torch.cat([y - run / scale, *stand], 1), self.space.normalise(params))

    def _standing(self, displacement: Tensor) -> Tensor:
        with torch.autocast(displacement.device.type, enabled=False):
            return (eulerian(displacement.float(), self.grid) + 0.1).log()
