"""Step sizes as a pure function of the step, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gen.errors import InputError


@dataclass(frozen=True)
class Adam:
    """Adam for generator and critic, with a schedule (Kingma & Ba 2015, arXiv:1412.6980).

    Args:
        rate: step size of the generator.
        critic_rate: step size of the critic, default the generator's.
        betas: decay of the two moments.
        schedule: of both step sizes over the run: constant, or to zero linearly or along a half cosine.
        warmup: steps over which the step size first grows linearly from zero.
        clip: largest gradient norm of either network, none by default.
    """

    rate: float = 2e-4
    critic_rate: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    clip: float | None = None

    def __post_init__(self) -> None:
        rates = [self.rate] if self.critic_rate is None else [self.rate, self.critic_rate]
        if not all(0 < rate < 1 for rate in rates):
            raise InputError(f"step sizes of Adam must be in (0, 1), got {rates}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas of Adam must be in [0, 1), got {self.betas}")
        if self.clip is not None and self.clip <= 0:
            raise InputError(f"clip must be a positive gradient norm, or null for none, got {self.clip}")

    def build(self, parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        betas = (self.betas[0], self.betas[1])
        return torch.optim.Adam([p for p in parameters if p.requires_grad], rate, betas, fused=True)

    def factor(self, step: int, max_steps: int) -> float:
        """Share of the full step size at this step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, max_steps - self.warmup))
        if self.schedule == "linear":
            return 1 - progress
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_norm(parameters: list[nn.Parameter], clip: float | None) -> Tensor:
    """Total norm of the gradients, which are then clipped to ``clip`` if it is given."""
    if clip is None:
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return nn.utils.clip_grad_norm_(parameters, clip)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, updates: int) -> None:
    """Move ``average`` towards ``module``; buffers are copied.

    The decay grows as (1 + n) / (10 + n) to its full value, so that the start is soon forgotten.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(module.parameters()), updates)
    for mean, value in zip(average.buffers(), module.buffers(), strict=True):
        mean.copy_(value)
