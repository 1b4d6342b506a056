"""The adversarial step against a plain loop written out by hand, and what must not depend on what."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from gen.emulators.copula import Copula
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.noise import sample_generator
from gen.training.adversarial import AdversarialTraining, TrainingStopped
from gen.training.base import _quiet
from gen.training.losses import R1, AdversarialLoss, Hinge, Minimax, NonSaturating, WassersteinGP
from gen.training.optimisation import Adam, update_average

GRID = Grid((8, 8), 8.0, "Mpc/h", True)
CUBE = Grid((8, 8, 8), 8.0, "Mpc/h", True)
SPACE = ParameterSpace(("sigma_8",), (0.6,), (1.0,))
B = 6


def emulator(grid: Grid = GRID, **changes: Any) -> LatentGAN:
    options: dict[str, Any] = {
        "latent_size": 4,
        "working": "physical",
        "channels": (8,),
        "kernel": 3,
        "critic_channels": (8,),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LatentGAN(grid, SPACE, **{**options, **changes})


def batch(step: int, grid: Grid = GRID) -> Fields:
    g = sample_generator(11, step)
    params = 0.6 + 0.4 * torch.rand(B, 1, generator=g)
    return Fields.of(torch.randn(B, 1, *grid.shape, generator=g), params)


class Batches(LightningDataModule):
    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def train_dataloader(self) -> Iterator[Fields]:
        return (batch(step, self.grid) for step in count())


def trained(
    loss: AdversarialLoss,
    steps: int,
    *,
    kind: type[AdversarialTraining] = AdversarialTraining,
    **changes: Any,
) -> AdversarialTraining:
    grid = changes.pop("grid", GRID)
    precision = changes.pop("precision", "32-true")
    optimiser = changes.pop("optimiser", Adam(rate=1e-3))
    net = changes.pop("emulator", None) or emulator(grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        module = kind(net, loss, optimiser, steps, **changes)
    with _quiet():
        trainer = Trainer(
            accelerator="cpu",
            precision=precision,
            max_epochs=1,
            limit_train_batches=steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=Batches(grid))
    return module


def plain_loop(
    steps: int,
    n_critic: int,
    critic_loss: Callable[[Tensor, Tensor], Tensor],
    generator_loss: Callable[[Tensor], Tensor],
    *,
    penalty: bool,
    decay: float,
    clip: float | None = None,
) -> tuple[LatentGAN, nn.Module, LatentGAN]:
    """The same game without Lightning and without the project's losses."""
    net = emulator()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        critic: nn.Module = net.make_critic()
    average = copy.deepcopy(net)
    for_net = torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.999), fused=True)
    for_critic = torch.optim.Adam(critic.parameters(), 1e-3, (0.5, 0.999), fused=True)
    updates = 0
    for step in range(steps):
        real, params, _ = batch(step)
        noise = [sample_generator(0, step * B + i, "latent") for i in range(B)]
        fake = net.decode(net.draw_latent(params, noise), params)
        for_critic.zero_grad()
        total = critic_loss(critic(real, params), critic(fake.detach(), params))
        if penalty:
            u = torch.rand(B, generator=sample_generator(0, step, "between"))[:, None, None, None]
            middle = (u * real + (1 - u) * fake.detach()).requires_grad_(True)
            (slopes,) = torch.autograd.grad(critic(middle, params).sum(), middle, create_graph=True)
            norms = torch.stack([row.square().sum().sqrt() for row in slopes])
            total = total + 10 * (norms - 1).square().mean()
        total.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(critic.parameters(), clip)
        for_critic.step()
        if step % n_critic == n_critic - 1:
            for_net.zero_grad()
            generator_loss(critic(fake, params)).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            for_net.step()
            d = min(decay, (1 + updates) / (10 + updates))
            for mean, value in zip(average.parameters(), net.parameters(), strict=True):
                mean.data = d * mean.data + (1 - d) * value.data
            updates += 1
    return net, critic, average


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
    return binary_cross_entropy_with_logits(real, ones) + binary_cross_entropy_with_logits(fake, zeros)


def same(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.allclose(x, y, rtol=1e-4, atol=2e-6), (name, (x - y).abs().max())


@pytest.mark.parametrize("clip", [None, 0.05])
def test_wgan_gp_is_the_plain_loop(clip: float | None) -> None:
    module = trained(WassersteinGP(n_critic=3), 9, optimiser=Adam(1e-3, clip=clip), ema_decay=0.5)
    net, critic, average = plain_loop(
        9, 3, lambda r, f: f.mean() - r.mean(), lambda f: -f.mean(), penalty=True, decay=0.5, clip=clip
    )
    same(module.emulator, net)
    same(module.critic, critic)
    same(module.average, average)
    moved = emulator()
    assert any((x - y).abs().max() > 1e-3 for x, y in zip(net.parameters(), moved.parameters(), strict=True))


def test_dcgan_is_the_plain_loop() -> None:
    module = trained(NonSaturating(), 6, ema_decay=0.9)
    net, critic, average = plain_loop(
        6,
        1,
        cross_entropy,
        lambda f: binary_cross_entropy_with_logits(f, torch.ones_like(f)),
        penalty=False,
        decay=0.9,
    )
    same(module.emulator, net)
    same(module.critic, critic)
    same(module.average, average)


class Spy(AdversarialTraining):
    """Records whom each term of each update would move."""

    moved: dict[str, dict[str, set[str]]]

    def _update(
        self, optimiser: Optimizer, terms: Mapping[str, Tensor], parameters: list[nn.Parameter], who: str
    ) -> None:
        named = {name: p for name, p in self.named_parameters() if p.requires_grad}
        self.moved = getattr(self, "moved", {})
        for term, value in terms.items():
            gradients = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
            reached = {
                name for name, g in zip(named, gradients, strict=True) if g is not None and g.abs().sum() > 0
            }
            self.moved.setdefault(who, {})[term] = reached
        before = {name: p.detach().clone() for name, p in self.named_parameters()}
        super()._update(optimiser, terms, parameters, who)
        changed = {name for name, p in self.named_parameters() if not torch.equal(p, before[name])}
        self.moved[who]["step"] = changed


class Pulled(LatentGAN):
    """With a regularisation that ties the mean of the fields to that of the latents."""

    def regularisation(self, y_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        return {"mean": (y_fake.mean() - latent.mean()).square()}


@pytest.mark.parametrize("loss", [NonSaturating(), Minimax(), Hinge(), WassersteinGP(n_critic=1)], ids=repr)
def test_each_term_moves_whom_it_should(loss: AdversarialLoss) -> None:
    net = Pulled(GRID, SPACE, latent_size=4, working="physical", channels=(8,), critic_channels=(8,))
    module = trained(loss, 1, kind=Spy, emulator=net, r1=R1(every=1))
    assert isinstance(module, Spy)
    weights = {name for name, p in module.named_parameters() if p.ndim > 1 and p.requires_grad}
    critic = {name for name in weights if name.startswith("critic.")}
    generator = {name for name in weights if name.startswith("emulator.")}
    expected = {"critic": {"critic", "r1"}, "generator": {"generator", "mean"}}
    if isinstance(loss, WassersteinGP):
        expected["critic"].add("penalty")
    for who, own in (("critic", critic), ("generator", generator)):
        assert own
        assert set(module.moved[who]) == expected[who] | {"step"}
        for term, reached in module.moved[who].items():
            prefix = "critic." if who == "critic" else "emulator."
            assert all(name.startswith(prefix) for name in reached), (who, term)
            if term == "mean":
                assert reached
            else:
                assert reached >= {name for name in own if "modulat" not in name.lower()}, (who, term)


def test_the_generator_waits_for_the_critic() -> None:
    start = emulator()
    waiting = trained(WassersteinGP(n_critic=5), 4)
    assert all(
        torch.equal(a, b) for a, b in zip(start.parameters(), waiting.emulator.parameters(), strict=True)
    )
    assert "generator" not in waiting.scalars
    moved = trained(WassersteinGP(n_critic=5), 5)
    assert not torch.equal(next(start.parameters()), next(moved.emulator.parameters()))


def test_the_state_of_the_random_stream_does_not_matter() -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(trained(WassersteinGP(n_critic=1), 3))
    a, b = (run.state_dict() for run in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = trained(WassersteinGP(n_critic=1), 3, seed=1)
    assert not torch.equal(next(other.emulator.parameters()), next(runs[0].emulator.parameters()))


class Recording(LatentGAN):
    """Keeps the latents that it was asked for."""

    latents: list[Tensor]

    def draw_latent(self, params: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        z = super().draw_latent(params, generators)
        self.latents = [*getattr(self, "latents", []), z]
        return z


def test_no_latent_is_drawn_twice() -> None:
    net = Recording(GRID, SPACE, latent_size=4, working="physical", channels=(8,), critic_channels=(8,))
    trained(NonSaturating(), 5, emulator=net)
    rows = torch.cat(net.latents)
    assert len(rows) == 5 * B
    assert len(rows.unique(dim=0)) == 5 * B


def test_labels_are_flipped_once_a_batch_at_the_given_rate() -> None:
    module = AdversarialTraining(emulator(), NonSaturating(label_flip=0.2), Adam(), 10)
    flips = []
    for module.step in range(2000):
        flips.append(module._flips_labels())
    assert sum(flips) / 2000 == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 2000))
    step = flips.index(True)
    loss = NonSaturating(label_flip=0.2)
    kept, flipped = trained(NonSaturating(), step + 1), trained(loss, step + 1)
    real, fake = kept.scalars["score_real"], kept.scalars["score_fake"]
    assert torch.equal(flipped.scalars["score_real"], real)
    assert torch.equal(flipped.scalars["score_fake"], fake)
    assert not torch.equal(flipped.scalars["critic"], kept.scalars["critic"])


def test_the_average_is_exponential_and_copies_buffers() -> None:
    mean, net = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(net.weight, 5.0)
    net.running_mean = torch.full((3,), 7.0)
    for _ in range(2):
        update_average(mean, net, 0.9, updates=10_000)
    assert mean.weight.tolist() == pytest.approx([5 - 4 * 0.81] * 3)
    assert mean.running_mean is not None
    assert mean.running_mean.tolist() == [7.0] * 3
    young = nn.BatchNorm1d(3)
    update_average(young, net, 0.9, updates=0)  # the decay starts at 1/10
    assert young.weight.tolist() == pytest.approx([5 - 4 * 0.1] * 3)
    copied = trained(NonSaturating(), 2, ema_decay=0.0)
    same(copied.average, copied.emulator)


def test_schedules() -> None:
    assert [Adam().factor(s, 100) for s in (0, 50, 99)] == [1, 1, 1]
    assert [Adam(schedule="linear").factor(s, 100) for s in (0, 50, 100, 130)] == [1, 0.5, 0, 0]
    cosine = Adam(schedule="cosine", warmup=10)
    assert [cosine.factor(s, 110) for s in (0, 4, 9)] == [0.1, 0.5, 1]
    assert cosine.factor(60, 110) == pytest.approx(0.5)
    assert cosine.factor(110, 110) == pytest.approx(0)
    module = trained(NonSaturating(), 4, optimiser=Adam(1e-3, critic_rate=4e-3, schedule="linear"))
    optimisers = module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimisers, list)
    assert [o.param_groups[0]["lr"] for o in optimisers] == pytest.approx([1e-3 / 4, 4e-3 / 4])


@pytest.mark.parametrize("loss", [NonSaturating(), WassersteinGP(n_critic=1)], ids=repr)
def test_volumes_and_bf16(loss: AdversarialLoss) -> None:
    cube = trained(loss, 2, grid=CUBE, emulator=emulator(CUBE))
    assert torch.isfinite(cube.scalars["generator"])
    full, mixed = trained(loss, 3), trained(loss, 3, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 for p in mixed.parameters())
    a, b = full.scalars["generator"].item(), mixed.scalars["generator"].item()
    assert a != b
    assert a == pytest.approx(b, abs=0.05)


class Breaking(LatentGAN):
    """Fails at its third batch."""

    calls = 0

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        self.calls += 1
        y = super().decode(latent, params)
        return y * (math.nan if self.calls == 3 else 1.0)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    net = Breaking(GRID, SPACE, latent_size=4, working="physical", channels=(8,), critic_channels=(8,))
    sound = copy.deepcopy(net)
    with pytest.raises(
        TrainingStopped, match="stopped at step 2: the critic's loss or gradient is not finite"
    ):
        trained(NonSaturating(), 6, emulator=net)
    good = trained(NonSaturating(), 2, emulator=sound)
    same(net, good.emulator)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match="batch normalisation"):
        AdversarialTraining(
            emulator(critic_norm="batch", critic_channels=(8, 8)), WassersteinGP(), Adam(), 10
        )
    AdversarialTraining(emulator(critic_norm="batch", critic_channels=(8, 8)), NonSaturating(), Adam(), 10)
    with pytest.raises(InputError, match="Copula has no generator"):
        AdversarialTraining(Copula(GRID, SPACE), NonSaturating(), Adam(), 10)
    for bad in ({"rate": 0.0}, {"betas": (0.5, 1.0)}, {"clip": -1.0}):
        with pytest.raises(InputError):
            Adam(**bad)  # pyright: ignore[reportArgumentType]


def test_a_copula_gan_starts_as_the_copula_and_trains() -> None:
    net = CopulaGAN(GRID, SPACE, widths=(4, 8), critic_channels=(8,), critic_kernel=3)
    module = trained(WassersteinGP(n_critic=1), 2, emulator=net)
    assert {"critic", "penalty", "generator", "summaries"} <= set(module.scalars)
    assert all(torch.isfinite(value) for value in module.scalars.values())
