"""Losses against their formulas, and against the ways in which they are known to go wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.errors import InputError
from gen.training.losses import (
    R1,
    AdversarialLoss,
    Hinge,
    Minimax,
    NonSaturating,
    WassersteinGP,
    between,
    slope,
)

LOSSES = [NonSaturating(), Minimax(), Hinge(), WassersteinGP(), WassersteinGP(drift=0.1)]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(32, generator=g).double() * 2, torch.randn(32, generator=g).double() * 2 - 1


def test_cross_entropy_of_probabilities(scores: tuple[Tensor, Tensor]) -> None:
    """Scores are logits: the losses are the textbook's in D = sigmoid(score)."""
    real, fake = scores
    d_real, d_fake = sigmoid(real.numpy()), sigmoid(fake.numpy())
    critic = -np.log(d_real).mean() - np.log(1 - d_fake).mean()
    for loss in (NonSaturating(), Minimax()):
        assert loss.critic(real, fake).item() == pytest.approx(critic, rel=1e-12)
    assert NonSaturating().generator(fake).item() == pytest.approx(-np.log(d_fake).mean(), rel=1e-12)
    assert Minimax().generator(fake).item() == pytest.approx(np.log(1 - d_fake).mean(), rel=1e-12)


def test_wasserstein_and_hinge(scores: tuple[Tensor, Tensor]) -> None:
    real, fake = scores
    r, f = real.numpy(), fake.numpy()
    drifting = WassersteinGP(drift=0.1).critic(real, fake).item()
    assert WassersteinGP().critic(real, fake).item() == pytest.approx(f.mean() - r.mean(), rel=1e-12)
    assert drifting == pytest.approx(f.mean() - r.mean() + 0.1 * (r**2).mean(), rel=1e-12)
    hinge = np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean()
    assert Hinge().critic(real, fake).item() == pytest.approx(hinge, rel=1e-12)
    for loss in (WassersteinGP(), Hinge()):
        assert loss.generator(fake).item() == pytest.approx(-f.mean(), rel=1e-12)


def test_a_losing_generator_still_learns_unless_minimax() -> None:
    """At a score of -50 the gradient is -1 without saturation; a second sigmoid would make it 0."""
    for loss, wanted in ((NonSaturating(), -1.0), (WassersteinGP(), -1.0), (Minimax(), 0.0)):
        score = torch.full((1,), -50.0, requires_grad=True)
        loss.generator(score).backward()
        assert score.grad is not None
        assert score.grad.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_extreme_scores_stay_finite(loss: AdversarialLoss) -> None:
    for a, b in ((1e4, -1e4), (-1e4, 1e4)):
        real, fake = torch.full((2,), a, requires_grad=True), torch.full((2,), b, requires_grad=True)
        for value in (loss.critic(real, fake), loss.generator(fake)):
            gradients = torch.autograd.grad(value, [real, fake], allow_unused=True)
            assert torch.isfinite(value)
            assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_directions(loss: AdversarialLoss) -> None:
    """The critic raises real scores and lowers fake ones; the generator raises its own."""
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    at_real, at_fake = torch.autograd.grad(loss.critic(real, fake), [real, fake])
    (of_generator,) = torch.autograd.grad(loss.generator(fake), [fake])
    assert (at_real < 0).all() and (at_fake > 0).all() and (of_generator < 0).all()


def linear(weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A critic whose slope is |weight| everywhere, times the first parameter."""
    return lambda y, params: (y.flatten(1) @ weight) * params[:, 0]


def test_penalty_of_a_linear_critic() -> None:
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(16, generator=g).double()
    real, fake = torch.randn(2, 5, 1, 4, 4, generator=g).double()
    ones, uniform = torch.ones(5, 1).double(), torch.rand(5, generator=g)
    penalty = WassersteinGP(weight=10).penalty(linear(weight), real, fake, ones, uniform)
    assert penalty.item() == pytest.approx(10 * (weight.norm().item() - 1) ** 2, rel=1e-6)
    r1 = R1(gamma=3, every=4).penalty(linear(weight), real, ones)
    assert r1.item() == pytest.approx(0.5 * 3 * 4 * weight.norm().item() ** 2, rel=1e-6)
    unit = WassersteinGP().penalty(linear(weight / weight.norm()), real, fake, ones, uniform)
    assert unit.item() == pytest.approx(0, abs=1e-10)


def test_the_penalty_is_per_sample() -> None:
    """Slopes 0.5 and sqrt(2 - 0.25) have mean square 1: a norm over the batch sees no fault."""
    weight = torch.zeros(16)
    weight[3] = 1
    slopes = torch.tensor([[0.5], [1.75**0.5]])
    real, fake = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    penalty = WassersteinGP(weight=1).penalty(linear(weight), real, fake, slopes, torch.rand(2))
    assert (slopes**2).mean().item() == pytest.approx(1)
    assert penalty.item() == pytest.approx(((0.5 - 1) ** 2 + (1.75**0.5 - 1) ** 2) / 2, rel=1e-5)


def test_the_penalty_is_taken_between_real_and_fake() -> None:
    """Of D = |y|^2 / 2 the slope is |y|: at the mixed point, wherever that is."""
    real, fake = torch.full((3, 1, 2, 2), 1.0), torch.full((3, 1, 2, 2), -1.0)
    share = torch.tensor([0.0, 0.25, 1.0])
    mixed = between(real, fake, share)
    assert mixed[:, 0, 0, 0].tolist() == [-1.0, -0.5, 1.0]
    norms = slope(lambda y, _: y.flatten(1).square().sum(1) / 2, mixed, torch.zeros(3, 0))
    assert norms.tolist() == pytest.approx([2.0, 1.0, 2.0])


def test_the_penalty_moves_the_critic_alone() -> None:
    layers = torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    net = torch.nn.Sequential(*layers)
    real, fake = torch.randn(2, 3, 1, 2, 2).requires_grad_(True)
    params = torch.zeros(3, 0)

    def critic(y: Tensor, _: Tensor) -> Tensor:
        return net(y)[:, 0]

    for value in (
        WassersteinGP().penalty(critic, real, fake, params, torch.rand(3)),
        R1().penalty(critic, real, params),
    ):
        (weight, *_), at_real = (
            torch.autograd.grad(value, list(net.parameters())[:1], retain_graph=True),
            torch.autograd.grad(value, [real, fake], allow_unused=True),
        )
        assert weight.abs().sum() > 0
        assert at_real == (None, None)


def test_the_penalty_has_a_gradient_where_the_slope_is_zero() -> None:
    weight = torch.zeros(4, requires_grad=True)
    real, fake = torch.randn(2, 3, 1, 2, 2)
    WassersteinGP().penalty(linear(weight), real, fake, torch.ones(3, 1), torch.rand(3)).backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


def test_lazy_r1_is_r1_on_average() -> None:
    r1 = R1(gamma=2, every=16)
    assert sum(r1.due(step) for step in range(160)) * r1.every == 160
    assert not any(R1(gamma=0).due(step) for step in range(20))


@pytest.mark.parametrize(
    "loss",
    [
        WassersteinGP(n_critic=1),
        WassersteinGP(n_critic=5),
        WassersteinGP(n_critic=2, burst=7, burst_first=3, burst_every=10),
        WassersteinGP(n_critic=2, burst=7, burst_first=0, burst_every=4),
        WassersteinGP(n_critic=3, burst=5, burst_first=20, burst_every=8),
    ],
    ids=repr,
)
def test_the_critic_is_ahead_by_its_schedule(loss: WassersteinGP) -> None:
    """Against counting batch by batch; bursts come before the first updates and every so-manyth."""
    updates, waited = 0, 0
    for batches in range(400):
        assert loss.generator_updates(batches) == updates
        bursting = loss.burst > 0 and (updates < loss.burst_first or updates % loss.burst_every == 0)
        waited += 1
        if waited == (loss.burst if bursting else loss.n_critic):
            updates, waited = updates + 1, 0


def test_higan_schedule() -> None:
    """100 critic updates for each of the first 5 generator updates and for the 500th, else 5."""
    loss = WassersteinGP(n_critic=5, burst=100)
    assert loss.generator_updates(500) == 5
    assert loss.generator_updates(500 + 5 * 495) == 500
    assert loss.generator_updates(500 + 5 * 495 + 99) == 500
    assert loss.generator_updates(500 + 5 * 495 + 100) == 501


@pytest.mark.parametrize(
    "make",
    [
        lambda: WassersteinGP(weight=-1),
        lambda: WassersteinGP(n_critic=0),
        lambda: WassersteinGP(n_critic=5, burst=4),
        lambda: WassersteinGP(burst=100, burst_every=0),
        lambda: NonSaturating(label_flip=0.7),
        lambda: Minimax(label_flip=-0.1),
        lambda: R1(every=0),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()
