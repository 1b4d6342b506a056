"""Adversarial losses: which way the critic and the generator are pushed.

A critic gives every field one unbounded score. A loss turns scores into the two objectives and may add a
penalty on the critic's slope; nothing else distinguishes a DCGAN from a WGAN-GP here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from gen.errors import InputError

Critic = Callable[[Tensor, Tensor], Tensor]


def slope(critic: Critic, points: Tensor, params: Tensor) -> Tensor:
    """Norm of the critic's gradient at each point, ``(B,)``, itself differentiable.

    Args:
        critic: scores ``(B,)`` of fields ``(B, C, *shape)`` at parameters ``(B, P)``, each from its own
            row alone.
        points: fields at which the slope is taken; no gradient flows into them.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        scores = critic(points, params)
        (gradient,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
    return gradient.flatten(1).float().norm(dim=1)


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """The point on the line from each fake field (``share`` 0) to its real one (1), ``share (B,)``."""
    return torch.lerp(fake, real, share.to(real).reshape(-1, *(1,) * (real.ndim - 1)))


class AdversarialLoss(ABC):
    """What a pair of generator and critic minimises, as functions of scores ``(B,)``."""

    #: Probability that a batch's labels are swapped for the critic, drawn once per batch.
    label_flip: float = 0.0
    #: Whether the penalty needs each score to depend on its own field alone.
    per_sample: ClassVar[bool] = False

    def generator_updates(self, batches: int) -> int:
        """How many of the first ``batches`` train the generator too; all of them train the critic."""
        return batches

    @abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises, a scalar."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """What the generator minimises, a scalar."""

    def penalty(
        self, critic: Critic, real: Tensor, fake: Tensor, params: Tensor, uniform: Tensor
    ) -> Tensor | None:
        """A term added to the critic's loss, or none; ``uniform (B,)`` is all its randomness, in [0, 1)."""
        del critic, real, fake, params, uniform
        return None


@dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """Cross-entropy on logits; the generator maximises log D (Goodfellow et al. 2014, arXiv:1406.2661).

    With ``label_flip=0.01`` it is CosmoGAN's (Mustafa et al. 2019, arXiv:1706.02390).
    """

    label_flip: float = 0.0

    def __post_init__(self) -> None:
        _check_flip(self.label_flip)

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


@dataclass(frozen=True)
class Minimax(AdversarialLoss):
    """Cross-entropy on logits; the generator minimises log(1 - D), the game of arXiv:1406.2661.

    Its gradient fades when the critic wins; kept as the published baseline.
    """

    label_flip: float = 0.0

    def __post_init__(self) -> None:
        _check_flip(self.label_flip)

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -softplus(fake).mean()


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)); the generator maximises D (arXiv:1705.02894)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


@dataclass(frozen=True)
class WassersteinGP(AdversarialLoss):
    r"""Wasserstein distance with gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028).

    ``E D(fake) - E D(real) + weight * E (||grad D|| - 1)^2`` at points between real and fake, the norm
    taken **per sample**: of the batch mean of the norms it would vanish for slopes that cancel.

    Args:
        weight: of the penalty.
        n_critic: critic updates for each generator update.
        burst: of them, before each of the first ``burst_first`` generator updates and before every
            ``burst_every``-th (HIGAN: 100, 5 and 500; Zamudio-Fernandez et al. 2019, arXiv:1904.12846); 0 for
            none.
        drift: weight of ``E D(real)^2``, which keeps scores near zero (Karras et al. 2018, arXiv:1710.10196).
    """

    weight: float = 10.0
    n_critic: int = 5
    drift: float = 0.0
    burst: int = 0
    burst_first: int = 5
    burst_every: int = 500
    per_sample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.weight < 0 or self.drift < 0:
            raise InputError(
                f"weight and drift of WassersteinGP must not be negative, got {self.weight} and {self.drift}"
            )
        if self.n_critic < 1:
            raise InputError(f"n_critic of WassersteinGP must be at least 1, got {self.n_critic}")
        if self.burst and (self.burst < self.n_critic or self.burst_first < 0 or self.burst_every < 1):
            raise InputError(
                f"a burst of WassersteinGP must be 0 or at least n_critic, burst_first at least 0 and "
                f"burst_every at least 1, got {self.burst}, {self.burst_first} and {self.burst_every}"
            )

    def generator_updates(self, batches: int) -> int:
        if not self.burst:
            return batches // self.n_critic
        return bisect_right(range(batches + 1), batches, key=self._batches) - 1

    def _batches(self, updates: int) -> int:
        """Batches that so many generator updates take; the last of each trains the generator."""
        first = min(updates, self.burst_first)
        later = max(0, (updates - 1) // self.burst_every - (self.burst_first - 1) // self.burst_every)
        bursts = first + (later if updates > self.burst_first else 0)
        return self.burst * bursts + self.n_critic * (updates - bursts)

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        distance = fake.mean() - real.mean()
        return distance + self.drift * real.square().mean() if self.drift else distance

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, params: Tensor, uniform: Tensor) -> Tensor:
        slopes = slope(critic, between(real, fake, uniform), params)
        return self.weight * (slopes - 1).square().mean()


@dataclass(frozen=True)
class R1:
    r"""``gamma / 2 * E ||grad D(real)||^2`` (Mescheder et al. 2018, arXiv:1801.04406), for any loss.

    Lazy: taken at every ``every``-th critic update and multiplied by ``every`` (Karras et al. 2020,
    arXiv:1912.04958).
    """

    gamma: float = 1.0
    every: int = 16

    def __post_init__(self) -> None:
        if self.gamma < 0 or self.every < 1:
            raise InputError(
                f"R1 needs gamma of at least 0 and every of at least 1, got {self.gamma} and {self.every}"
            )

    def due(self, step: int) -> bool:
        return self.gamma > 0 and step % self.every == 0

    def penalty(self, critic: Critic, real: Tensor, params: Tensor) -> Tensor:
        return 0.5 * self.gamma * self.every * slope(critic, real, params).square().mean()


def _check_flip(label_flip: float) -> None:
    if not 0 <= label_flip < 0.5:
        raise InputError(
            f"label_flip, the probability to swap a batch's labels, must be in [0, 0.5), got {label_flip}"
        )
