"""Networks: symmetry of padding, identity at the start, gradients, summaries against direct counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gen.data.base import SimulationSet
from gen.emulators.copula import Copula
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic, DCGANGenerator
from gen.nets.layers import Modulation, Padding, conv, folded, unfolded, upsample
from gen.nets.summaries import Summaries
from gen.nets.unet import UNet
from gen.noise import sample_generator

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


@pytest.mark.parametrize("dim", [2, 3])
def test_nearest_upsampling_and_circular_convolution_commute_with_shifts(dim: int) -> None:
    """A shift by one coarse cell is a shift by two fine cells; zero padding is the negative control."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, *(8,) * dim)
    axes = tuple(range(2, 2 + dim))
    errors = {}
    for padding in ("circular", "zeros"):
        stage = conv(dim, 3, 2, padding=padding)
        moved = stage(upsample(x.roll((1,) * dim, axes)))
        errors[padding] = (moved - stage(upsample(x)).roll((2,) * dim, axes)).abs().max().item()
    assert errors["circular"] < 1e-5 < 1e-2 < errors["zeros"]


@pytest.mark.parametrize("dim", [2, 3])
def test_blocks_of_cells_become_channels_and_cells_again(dim: int) -> None:
    x = torch.randn(2, 3, *(8, 4, 12)[:dim])
    blocks = folded(x, 2)
    assert blocks.shape == (2, 3 * 2**dim, *(4, 2, 6)[:dim])
    assert torch.equal(blocks.unflatten(1, (3, -1))[:, :, 0], x[(..., *(slice(None, None, 2),) * dim)])
    assert torch.equal(unfolded(blocks, 2), x)


@pytest.mark.parametrize(("dim", "patch"), [(2, 1), (3, 1), (2, 2), (3, 2)])
def test_unet_starts_at_zero_and_commutes_with_coarse_shifts(dim: int, patch: int) -> None:
    torch.manual_seed(0)
    net = UNet(dim, 2, 1, 2, (4, 8), patch=patch)
    x, params = torch.randn(2, 2, *(8,) * dim), torch.rand(2, 2)
    assert net(x, params).abs().max() == 0
    torch.nn.init.normal_(net.leave.weight)
    axes = tuple(range(2, 2 + dim))
    assert torch.allclose(
        net(x.roll((net.factor,) * dim, axes), params),
        net(x, params).roll((net.factor,) * dim, axes),
        atol=1e-5,
    )


def test_modulation_starts_as_the_identity_and_then_feels_the_parameters() -> None:
    modulation = Modulation(2, 5)
    x = torch.randn(3, 5, 4, 4)
    assert torch.equal(modulation(x, torch.rand(3, 2)), x)
    torch.nn.init.normal_(modulation.mlp[-1].weight)
    assert not torch.equal(modulation(x, torch.zeros(3, 2)), modulation(x, torch.ones(3, 2)))


def test_cosmogan_sizes() -> None:
    """12.8 M and 4.4 M weights, as published for 256^2 (arXiv:1706.02390)."""
    generator = DCGANGenerator((256, 256), 64, 0)
    critic = Critic((256, 256), 0, norm="batch")
    count = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (generator, critic)]
    assert count[0] == pytest.approx(12.8, abs=0.1)
    assert count[1] == pytest.approx(4.4, abs=0.1)
    assert [n.momentum for n in generator.norms] == [0.1] * 4
    assert [n.num_features for n in generator.norms] == [512, 256, 128, 64]


def test_higan_layers() -> None:
    """Kernels of 4 that halve and double exactly, and two convolutions at 32^3 (arXiv:1904.12846)."""
    cube = (64, 64, 64)
    generator = DCGANGenerator(cube, 100, 0, kernel=4, blocks=2)
    critic = Critic(cube, 0, kernel=4, blocks=2)
    doublings = 64 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 1) + 256 + 128 + 64 + 1
    blocks = 2 * (27 * 64 * 64 + 64)
    norms = 2 * (512 + 256 + 128 + 64 + 2 * 64)
    seed = (100 + 1) * 512 * 4**3
    assert sum(p.numel() for p in generator.parameters()) == seed + doublings + blocks + norms
    halvings = 64 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 128 + 256 + 512
    assert sum(p.numel() for p in critic.parameters()) == halvings + blocks + 512 * 4**3 + 1
    seen: list[tuple[int, ...]] = []
    for part in (*generator.blocks, *critic.blocks):
        part.register_forward_hook(lambda module, given, made: seen.append(tuple(made.shape)))
    with torch.no_grad():
        y = generator.eval()(torch.randn(1, 100), torch.zeros(1, 0))
        assert y.shape == (1, 1, *cube) and y.abs().max() <= 1
        assert critic(y, torch.zeros(1, 0)).shape == (1,)
    assert seen == [(1, 64, 32, 32, 32)] * 4


def test_fields_of_many_decades_are_worked_on_by_their_logarithm() -> None:
    """The largest value that was seen is 1, zero is log(offset) below it, and all come back."""
    grid = Grid((16, 16), 16.0, "Mpc/h", True)
    values = 10 ** torch.linspace(-3, 9, 2 * 256).reshape(2, 1, 16, 16)
    values[0, 0, 0, 0] = 0.0
    data = SimulationSet(
        grid, SPACE, values, torch.tensor([[0.3, 0.8]] * 2), torch.arange(2), np.array(["train"] * 2),
        np.array(["interior"] * 2), "decades",
    )  # fmt: skip
    gan = LatentGAN(grid, SPACE, working="log", channels=(8, 4), critic_channels=(4, 8), blocks=1)
    gan.fit(data)
    y = gan.to_working(values, data.params)
    assert y.max() == 1 and y.min() == pytest.approx(math.log(1e-2) / math.log(1e9 + 1e-2), rel=1e-5)
    assert torch.allclose(gan.to_physical(y, data.params), values, rtol=1e-4, atol=1e-6)
    assert gan.to_physical(y - 1, data.params).min() == 0, "no mass is negative"


@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize("dim", [2, 3])
def test_even_kernels_halve_exactly(dim: int, padding: Padding) -> None:
    """Ones under a kernel of ones: the kernel's cells, but fewer at faces that are padded by zeros."""
    layer = conv(dim, 1, 1, 4, stride=2, padding=padding)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    made = layer(torch.ones(1, 1, *(8,) * dim))
    assert made.shape == (1, 1, *(4,) * dim)
    inner = made[(..., *(slice(1, -1),) * dim)]
    assert torch.equal(inner, torch.full_like(inner, 4.0**dim))
    corner = made[(0, 0, *(0,) * dim)].item()
    assert corner == (4.0 if padding == "circular" else 3.0) ** dim


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_generator_and_critic_shapes(shape: tuple[int, ...]) -> None:
    generator = DCGANGenerator(shape, 6, 2, (8, 4), 5)
    y = generator(torch.randn(3, 6), torch.rand(3, 2))
    assert y.shape == (3, 1, *shape)
    assert Critic(shape, 2, channels=(4, 8))(y, torch.rand(3, 2)).shape == (3,)


def test_sides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="must divide by 16 for 4 doublings"):
        DCGANGenerator((60, 60), 64, 0)


def test_critic_scores_are_unbounded_logits() -> None:
    torch.manual_seed(0)
    critic = Critic((16, 16), 0, channels=(8, 8))
    assert critic(1e4 * torch.randn(8, 1, 16, 16), torch.zeros(8, 0)).abs().max() > 1


def test_norm_encoding_is_linear_in_the_parameter() -> None:
    """Perraudin et al. 2020: one latent block a parameter, of norm [0.1, 1] sqrt(n)."""
    emulator = LatentGAN(
        Grid((16, 16), 1.0, "deg", False),
        SPACE,
        condition="norm",
        latent_size=32,
        channels=(8, 8),
        critic_channels=(8, 8),
    )
    params = torch.tensor([[0.1, 1.0], [0.3, 0.8]])
    z = emulator.draw_latent(params, [sample_generator(0, i) for i in range(2)]).reshape(2, 2, 16)
    assert torch.allclose(z.norm(dim=-1) / 4, torch.tensor([[0.1, 1.0], [0.55, 0.55]]), atol=1e-5)


def test_copula_gan_starts_as_its_copula() -> None:
    """Untrained, the network adds nothing: the field is the closed form's on the same white noise."""
    torch.manual_seed(0)
    emulator = CopulaGAN(Grid((16, 16), 50.0, "Mpc/h", True), SPACE, widths=(4, 8), critic_channels=(4, 8))
    emulator.copula.marginal.shape.coefficients.normal_(std=0.1)
    params = torch.tensor([[0.3, 0.8]])
    made = emulator.generate(params, [sample_generator(0, 0)])
    closed = emulator.copula.generate(params, [sample_generator(0, 0)])
    assert torch.allclose(made, closed, atol=1e-5)
    assert isinstance(emulator.copula, Copula)


def test_summaries_count_the_excursion_set() -> None:
    """A sharp step must give the closed complex's counts: a solid block has chi = 1, a ring chi = 0."""
    summaries = Summaries(Grid((16, 16), 1.0, "deg", True), scales=(0.0,), softness=1e-3, n_thresholds=3)
    block, ring = torch.full((1, 1, 16, 16), -9.0), torch.full((1, 1, 16, 16), -9.0)
    block[..., 4:7, 5:7] = 9.0
    ring[..., 3:10, 3:10], ring[..., 5:8, 5:8] = 9.0, -9.0
    # Cells, edges along each axis and vertices of the two shapes, counted by hand.
    for field, cells, edges, vertices, chi in ((block, 6, (8, 9), 12, 1), (ring, 40, (50, 50), 60, 0)):
        assert cells - sum(edges) + vertices - chi == 0
        volume, boundary, euler = summaries.minkowski(field).reshape(3, 3)[:, 1].tolist()
        shares = [cells / 256, edges[0] / 240, edges[1] / 240, vertices / 225]
        assert volume == pytest.approx(shares[0], abs=1e-5)
        assert boundary == pytest.approx(shares[1] + shares[2] - 2 * shares[0], abs=1e-5)
        assert euler == pytest.approx(shares[0] - shares[1] - shares[2] + shares[3], abs=1e-5)


def test_summaries_count_extrema() -> None:
    """Two separate bumps on a flat slope: two maxima, at their heights, and no minimum between -1 and 1."""
    summaries = Summaries(Grid((16, 16), 1.0, "deg", True), scales=(0.0,), softness=1e-3, n_thresholds=8)
    field = -2 - 0.5 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    field[..., 4, 4], field[..., 10, 12] = 1.5, 3.5
    maxima = summaries.extrema(field)[0, :8] * 14**2
    assert summaries.thresholds.tolist() == [-3, -2, -1, 0, 1, 2, 3, 4]
    assert torch.allclose(maxima[3:], torch.tensor([2.0, 2.0, 1.0, 1.0, 0.0]), atol=1e-3)
    minima = summaries.extrema(-field)[0, 8:] * 14**2
    assert torch.allclose(minima[3:], torch.tensor([2.0, 2.0, 1.0, 1.0, 0.0]), atol=1e-3)


def test_every_summary_has_a_gradient_and_the_thresholds_see_the_field() -> None:
    grid = Grid((16, 16), 1.0, "deg", False)
    summaries = Summaries(grid, scales=(0.0, 1.0), n_power=4)
    y = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    summaries.fit(y, y.exp())
    field = y.clone().requires_grad_(True)
    values = summaries(field, field.exp())
    assert values.shape == (8, summaries.n_outputs)
    for column in range(0, summaries.n_outputs, 7):
        (gradient,) = torch.autograd.grad(values[:, column].sum(), field, retain_graph=True)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("grid", [Grid((16, 16), 1.0, "deg", False), Grid((8, 8, 8), 50.0, "Mpc/h", True)])
def test_critic_sees_spectrum_and_tail_and_keeps_them_out_of_its_weights(grid: Grid) -> None:
    """With the convolutions silenced, the score still depends on the spectrum; nothing fitted is trained."""
    torch.manual_seed(0)
    emulator = CopulaGAN(grid, SPACE, widths=(4, 8), critic_channels=(4, 8))
    emulator.copula.marginal.shape.coefficients[:, 1:] = -3.0
    critic = emulator.make_critic()
    assert not any("marginal" in name or "summaries" in name for name in critic.state_dict())
    params = torch.tensor([[0.3, 0.8], [0.2, 0.9]])
    y = torch.randn(2, 1, *grid.shape)
    for stage in critic.critic.stages:
        torch.nn.init.zeros_(stage.weight)
    scores = critic(y, params)
    assert scores.shape == (2,)
    assert not torch.allclose(critic(1.5 * y, params), scores)
