"""A small convolutional network on fields of any dimension: its layers, what it sees, how it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, pad

from evaluation.base import check_finite, on_grid, reference_pixels
from gen.fields import Grid


class Convolutions(torch.nn.Module):
    """Convolutions of 3 cells a side in any dimension, circular on a periodic grid, and their mean over it.

    Args:
        channels: of the layers; all but the first halve the resolution.
        first_stride: of the first layer.
        generator: of the weights at the start (He et al. 2015, arXiv:1502.01852).
    """

    def __init__(
        self, grid: Grid, channels: Sequence[int], generator: torch.Generator, first_stride: int = 1
    ) -> None:
        super().__init__()
        self.dim = grid.dim
        self.mode = "circular" if grid.periodic else "replicate"
        self.first_stride = first_stride
        self.weights = torch.nn.ParameterList()
        self.biases = torch.nn.ParameterList()
        for n_in, n_out in pairwise([1, *channels]):
            fan_in = n_in * 3**self.dim
            w = torch.randn(n_out, n_in, *(3,) * self.dim, generator=generator) * math.sqrt(2 / fan_in)
            self.weights.append(torch.nn.Parameter(w))
            self.biases.append(torch.nn.Parameter(torch.zeros(n_out)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, channels[-1])``."""
        none, one = [0] * self.dim, [1] * self.dim
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            step = 2 if i else self.first_stride
            stride = one if min(x.shape[2:]) < 4 else [step] * self.dim
            x = pad(x, (1, 1) * self.dim, mode=self.mode)
            x = leaky_relu(torch.convolution(x, w, b, stride, none, one, False, none, 1), 0.1)
        return x.flatten(2).mean(2)


class Views:
    """Fields as a network sees them: asinh((x - m) / s) with mean m and scatter s of ``values``."""

    def __init__(self, values: Sequence[Tensor], grid: Grid) -> None:
        self.grid = grid
        pixels = [reference_pixels(v) for v in values]
        self.mean = float(np.mean([x.mean() for x in pixels]))
        self.std = math.sqrt(np.mean([((x - self.mean) ** 2).mean() for x in pixels])) or 1.0
        axes = permutations(range(grid.dim))
        self.turns = [p for p in axes if tuple(grid.shape[a] for a in p) == grid.shape]

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Turned, flipped and (periodic) moved at random among the symmetries of the grid, all alike."""
        x = ((x.float() - self.mean) / self.std).asinh()
        turn = self.turns[rng.integers(len(self.turns))]
        x = x.permute(0, 1, *(a + 2 for a in turn))
        axes = tuple(range(2, x.ndim))
        x = x.flip([a for a in axes if rng.random() < 0.5])
        return x.roll(rng.integers(0, self.grid.shape).tolist(), axes) if self.grid.periodic else x


def descend(network: torch.nn.Module, loss: Callable[[], Tensor], n_steps: int, learning_rate: float) -> None:
    """Adam on ``n_steps`` values of ``loss``, the learning rate falling to zero along a cosine."""
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    with torch.enable_grad():
        for step in range(n_steps):
            value = loss()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * (1 + math.cos(math.pi * step / n_steps)) / 2
            optimiser.zero_grad()
            value.backward()
            optimiser.step()


def check_fields(values: Tensor, grid: Grid) -> None:
    """Refuse fields of another grid, or that hold values that are not finite.

    Raises:
        InputError: for either.
    """
    on_grid(values, grid)
    check_finite(values)
