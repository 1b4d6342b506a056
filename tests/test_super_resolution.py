"""Super-resolution: upsampling, the Gaussian completion, diversity, symmetry, training against a critic."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from gen import checkpoint
from gen.data.base import SimulationSet, Source
from gen.data.module import FieldData
from gen.emulators.missing_modes import MissingModes
from gen.emulators.super_resolution import SuperResolution
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import coarsen_noise, conv, linear_upsample
from gen.nets.periodic import wrap_pad
from gen.nets.unet import UNet
from gen.noise import normal, sample_generator
from gen.training.base import TrainingRecipe, train
from gen.training.best import best_record
from gen.training.losses import WassersteinGP
from gen.training.optimisation import Adam

SPACE = ParameterSpace(("sigma_8",), (0.6,), (1.0,))
SQUARE, COARSE_SQUARE = (Grid((n, n), 32.0, "Mpc/h", True) for n in (32, 16))
CUBE, COARSE_CUBE = (Grid((n, n, n), 32.0, "Mpc/h", True) for n in (16, 8))


def pairs(grid: Grid = SQUARE, n: int = 64) -> SimulationSet:
    """Lognormal densities of a steep spectrum, and as their coarse runs their means over 2^dim cells."""
    generator = torch.Generator().manual_seed(0)
    sigma = 0.6 + 0.4 * torch.rand(n, generator=generator)
    axes = tuple(range(2, 2 + grid.dim))
    k = grid.wavenumber().float()
    amplitude = torch.where(k > 0, 1 / (k + 0.3) ** (0.5 * grid.dim + 0.3), 0.0)
    white = torch.randn(n, 1, *grid.shape, generator=generator)
    g = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * amplitude, s=grid.shape, dim=axes)
    g = sigma.reshape(-1, *(1,) * (grid.dim + 1)) * g / g.std()
    values = torch.exp(g - g.var(axes, keepdim=True) / 2)
    pool = torch.nn.functional.avg_pool2d if grid.dim == 2 else torch.nn.functional.avg_pool3d
    coarse_grid = Grid([m // 2 for m in grid.shape], grid.box_size, grid.unit, True)
    split = np.where(np.arange(n) < n // 2, "train", "validation")
    return SimulationSet(
        grid, SPACE, values, sigma[:, None], torch.arange(n), split, np.full(n, "interior"), "lognormal", "1",
        pool(values, 2), coarse_grid,
    ).check()  # fmt: skip


def emulator(grid: Grid = SQUARE, space: ParameterSpace = SPACE, **changes: Any) -> SuperResolution:
    options: dict[str, Any] = {"widths": (4, 8), "critic_channels": (4, 8), "summary_weight": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SuperResolution(grid, space, **{**options, **changes})


@pytest.fixture(scope="module", params=[SQUARE, CUBE], ids=["2D", "3D"])
def fitted(request: pytest.FixtureRequest) -> tuple[SuperResolution, SimulationSet]:
    data = pairs(request.param)
    net = emulator(request.param)
    net.fit(data.select(split="train"))
    return net.requires_grad_(False), data


def noisy(net: SuperResolution) -> SuperResolution:
    """One that has learnt something."""
    net = copy.deepcopy(net)
    torch.manual_seed(5)
    torch.nn.init.normal_(net.generator.leave.weight, 0.0, 0.1)
    for name, weights in net.generator.named_parameters():
        if name.endswith("amplitude"):
            torch.nn.init.normal_(weights)
    return net


# Layers


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("dim", [2, 3])
def test_periodic_padding_has_torchs_values_and_gradients(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, *(4, 5, 6)[:dim], generator=generator, dtype=torch.float64, requires_grad=True)
    for width in (1, 2):
        known = torch.nn.functional.pad(x, (width, width) * dim, mode="circular")
        assert torch.equal(wrap_pad(x, width), known)
    assert torch.autograd.gradcheck(lambda x: wrap_pad(x, 2), x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: wrap_pad(x, 1) ** 3, x)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2), (1, 1)])
def test_the_periodic_convolution_is_torchs(kernel: int, stride: int) -> None:
    ours = conv(3, 2, 3, kernel, stride)
    theirs = torch.nn.Conv3d(2, 3, kernel, stride, kernel // 2, padding_mode="circular")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, 6, 6, 6)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("dim", [2, 3])
def test_linear_upsampling_is_exact_for_ramps_and_periodic(dim: int) -> None:
    n, factor = 6, 2
    centres = (torch.arange(n) + 0.5) * factor
    fine = (torch.arange(n * factor) + 0.5).reshape(-1, *(1,) * (dim - 1)).expand(*(n * factor,) * dim)
    ramp = centres.reshape(-1, *(1,) * (dim - 1)).expand(*(n,) * dim)
    inner = slice(1, -1)  # beyond the outermost centres it is no ramp
    for padding in ("circular", "zeros"):
        made = linear_upsample(ramp[None, None], factor, padding)[0, 0]
        assert torch.allclose(made[inner], fine[inner])
    x = torch.randn(1, 1, *(n,) * dim)
    axes = tuple(range(2, 2 + dim))
    moved = linear_upsample(x.roll((1,) * dim, axes), factor, "circular")
    assert torch.allclose(
        moved, linear_upsample(x, factor, "circular").roll((factor,) * dim, axes), atol=1e-6
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_noise_stays_white_at_every_resolution(dim: int) -> None:
    noise = normal([sample_generator(0, 0)], (1, *(64,) * dim))
    half = coarsen_noise(noise)
    n = half.numel()
    assert half.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    neighbours = (half * half.roll(1, 2)).mean().item()
    assert neighbours == pytest.approx(0, abs=4 / n**0.5)


@pytest.mark.parametrize("dim", [2, 3])
def test_each_resolution_hears_its_own_noise(dim: int) -> None:
    torch.manual_seed(0)
    net = UNet(dim, 1, 1, 1, (4, 4, 4), noise=True)
    torch.nn.init.normal_(net.leave.weight)
    x, params = torch.randn(1, 1, *(8,) * dim), torch.zeros(1, 1)
    silent, loud = torch.zeros(1, 3, *(8,) * dim), torch.randn(1, 3, *(8,) * dim)
    assert torch.equal(net(x, params, loud), net(x, params, silent))  # amplitudes start at zero
    for level in range(3):
        one = copy.deepcopy(net)
        for block in (one.down[level], one.up[level]) if level < 2 else (one.middle,):
            torch.nn.init.ones_(block.noise.amplitude)  # pyright: ignore
        for channel in range(3):
            noise = silent.clone()
            noise[:, channel] = loud[:, channel]
            changed = not torch.allclose(one(x, params, noise), one(x, params, silent))
            assert changed == (channel == level)


# The closed form


def second_moments(grid: Grid, a: Tensor, b: Tensor) -> Tensor:
    """Cross-power of ``(N, 1, *shape)`` in four bands of k, summed over fields and modes."""
    axes = tuple(range(2, 2 + grid.dim))
    modes = [torch.fft.rfftn(x - x.mean(axes, keepdim=True), dim=axes) for x in (a, b)]
    cross = (modes[0] * modes[1].conj()).real.sum((0, 1)).double()
    band = (4 * grid.wavenumber() / (grid.k_nyquist * (1 + 1e-6))).long().clamp(max=4)
    return torch.zeros(5, dtype=torch.float64).index_add(0, band.flatten(), cross.flatten())[:4]


def test_the_start_has_the_power_and_the_correlation_of_the_truth(
    fitted: tuple[SuperResolution, SimulationSet],
) -> None:
    net, data = fitted
    held = data.select(split="validation")
    noise = [sample_generator(1, i) for i in range(len(held))]
    assert held.coarse is not None
    latent = net.draw_latent(held.params, noise, held.coarse)
    # Before the floor, which lognormal fields do not reach: the smallest of them is above 0.
    x, u, y = latent[:, :1], latent[:, 1:2], net.to_working(held.values, held.params)
    power = second_moments(net.grid, x, x) / second_moments(net.grid, y, y)
    cross = second_moments(net.grid, x, u) / second_moments(net.grid, y, u)
    # 32 boxes with some 4 pi k^2 modes: the lowest band has 32 * 44 / 2 modes in 2D, so 4 sigma is 15 %.
    assert (power - 1).abs().max() < 0.15
    assert (cross[:2] - 1).abs().max() < 0.15
    shift = (x.mean() - y.mean()).abs()
    assert shift < 4 * (x.flatten(1).mean(1).std() / 32**0.5)


def test_without_knowledge_all_is_noise_and_with_it_none() -> None:
    """Limits of the regression: an independent u, and u = x."""
    data = pairs()
    y = data.values.log()
    shuffled = MissingModes(SQUARE, SPACE)
    shuffled.fit(y, y.roll(1, 0), data.params)
    response = shuffled.response(data.params).abs().mean(0)
    # In each box a node averages over some pi k dk modes, a few in the first; the fit over 64 boxes.
    assert response[3:].mean() < 0.1
    known = MissingModes(SQUARE, SPACE)
    known.fit(y, y, data.params)
    made = known(y, normal([sample_generator(0, i) for i in range(len(y))], (1, 32, 32)), data.params)
    assert torch.allclose(made, y, atol=0.02 * y.std().item())


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_vectors_are_completed_as_gradients(grid: Grid) -> None:
    """What is added to a zero field is a potential flow with the measured power, alike in both vectors."""
    dim, n = grid.dim, 24
    axes = tuple(range(2, 2 + dim))
    k = [2 * np.pi * torch.fft.fftfreq(m, s / m) for m, s in zip(grid.shape, grid.box_size, strict=True)]
    mesh = torch.stack(torch.meshgrid(*k, indexing="ij"))
    low = (mesh.abs() < 0.9 * grid.k_nyquist).all(0)
    lattice = tuple(range(1, 1 + dim))
    noise = normal([sample_generator(0, i) for i in range(n)], grid.shape)
    phi = torch.fft.fftn(noise, dim=lattice) * low
    psi = torch.stack([torch.fft.ifftn(1j * ki * phi, dim=lattice).real for ki in mesh], 1)
    true = torch.cat([psi, 30 * psi], 1)
    params = torch.linspace(0.6, 1.0, n)[:, None]
    missing = MissingModes(grid, SPACE, vectors=2)
    missing.fit(true, torch.zeros_like(true), params)
    white = normal([sample_generator(1, i) for i in range(n)], (1, *grid.shape))
    made = missing(torch.zeros_like(true), white, params)
    # Nodes around the waves that were left out hold rounding errors, which are not 30 times as large.
    assert (made[:, dim:] - 30 * made[:, :dim]).std() < 0.02 * made[:, dim:].std()
    modes = torch.fft.fftn(made[:, :dim], dim=axes) * low
    curl = mesh[0] * modes[:, 1] - mesh[1] * modes[:, 0]
    assert curl.abs().max() < 1e-3 * modes.abs().max() * grid.k_nyquist
    assert made[:, :dim].std().item() == pytest.approx(psi.std().item(), rel=0.1)


# The emulator


def test_untrained_it_is_the_closed_form_and_its_realisations_differ(
    fitted: tuple[SuperResolution, SimulationSet],
) -> None:
    net, data = fitted
    assert data.coarse is not None
    params, coarse = data.params[:2], data.coarse[:2]
    made = net.sample(params, n=6, seed=0, coarse=coarse).values.unflatten(0, (2, 6))
    noise = [sample_generator(0, i) for i in range(6)]
    latent = net.draw_latent(params[:1].expand(6, -1), noise, coarse[:1].expand(6, *coarse.shape[1:]))
    assert torch.allclose(
        made[0], net.to_physical(latent[:, :1], params[:1].expand(6, -1)), rtol=1e-4, atol=1e-5
    )
    assert (made >= 0).all()
    # Realisations share what the coarse run knows and differ in what it does not: in the means over coarse
    # cells they agree better than different boxes do, cell by cell they scatter.
    y = net.to_working(made.flatten(0, 1), params.repeat_interleave(6, 0)).unflatten(0, (2, 6))
    within, between = y.var(1).mean(), y.flatten(0, 1).var(0).mean()
    assert 0.02 * between < within < 0.9 * between


def test_diversity_is_that_of_the_truth(fitted: tuple[SuperResolution, SimulationSet]) -> None:
    """The scatter of realisations around their mean is that of the truth around it."""
    net, data = fitted
    held = data.select(split="validation")
    assert held.coarse is not None
    each = 4
    noise = [sample_generator(0, i) for i in range(32 * each)]
    rows = torch.arange(32).repeat_interleave(each)
    started = net.draw_latent(held.params[rows], noise, held.coarse[rows])[:, :1]
    y = started.unflatten(0, (32, each))
    truth = net.to_working(held.values, held.params)
    scatter = y.var(1).mean()
    error = (truth - y.mean(1)).square().mean() / (1 + 1 / each)  # the mean of four scatters too
    # 32 boxes of 512 coarse cells in 3D: the shares of power missing err by some per cent.
    assert (error / scatter).item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_densities_and_empty_cells_are_as_frequent_as_in_the_truth(grid: Grid) -> None:
    """A law with an atom at zero, a twentieth of all cells."""
    data = pairs(grid)
    level = data.values.flatten().quantile(0.05)
    data = replace(data, values=(data.values - level).clamp(min=0))
    net = emulator(grid)
    net.fit(data)
    assert data.coarse is not None
    noise = [sample_generator(0, i) for i in range(len(data))]
    made = net.to_physical(net.draw_latent(data.params, noise, data.coarse)[:, :1], data.params)
    assert made.min() == 0
    # Some fewer, for the moments of the completed field are those of floored ones.
    assert 0.03 < (made == 0).float().mean().item() < 0.06
    at = torch.tensor([0.5, 0.8, 0.95, 0.99])
    ratio = made.flatten().quantile(at) / data.values.flatten().quantile(at)
    # The completed field is a sum of a transformed and a Gaussian field: nearly, not quite, Gaussian.
    assert (ratio - 1).abs().max() < 0.15


def test_shifts_by_its_factor_commute(fitted: tuple[SuperResolution, SimulationSet]) -> None:
    net, data = noisy(fitted[0]), fitted[1]
    assert data.coarse is not None
    dim, params = net.grid.dim, data.params[:1]
    axes = tuple(range(2, 2 + dim))
    latent = net.draw_latent(params, [sample_generator(0, 0)], data.coarse[:1])
    still, moved = net.decode(latent, params), net.decode(latent.roll((2,) * dim, axes), params)
    assert torch.allclose(moved, still.roll((2,) * dim, axes), atol=1e-4)
    u = net.upsampled(data.coarse[:1], params)
    assert torch.allclose(
        net.upsampled(data.coarse[:1].roll((1,) * dim, axes), params), u.roll((2,) * dim, axes), atol=1e-5
    )


def test_samples_do_not_depend_on_their_company_and_boxes_may_be_larger(
    fitted: tuple[SuperResolution, SimulationSet], tmp_path: Path
) -> None:
    net, data = noisy(fitted[0]), fitted[1]
    assert data.coarse is not None
    many = net.sample(data.params[:3], n=2, seed=4, coarse=data.coarse[:3]).values
    assert torch.equal(many[:1], net.sample(data.params[:1], seed=4, coarse=data.coarse[:1]).values)
    dim = net.grid.dim
    wide = data.coarse[:1].repeat(1, 1, 2, *(1,) * (dim - 1))
    shape = (2 * net.grid.shape[0], *net.grid.shape[1:])
    made = net.sample(data.params[:1], coarse=wide, shape=shape).values
    assert made.shape[2:] == shape and torch.isfinite(made).all()
    checkpoint.save(net, tmp_path / "c", "card")
    again = gen.load(tmp_path / "c").sample(data.params[:3], n=2, seed=4, coarse=data.coarse[:3])
    assert torch.equal(again.values, many)


def test_bad_input_is_one_sentence(fitted: tuple[SuperResolution, SimulationSet]) -> None:
    net, data = fitted
    coarse, params = data.coarse, data.params[:2]
    assert coarse is not None
    for given, said in (
        (None, "makes fields from the density"),
        (coarse[:2, :, :-2], "must have shape"),
        (coarse[:2].repeat(1, 2, *(1,) * net.grid.dim), "must have shape"),
        (coarse[:2] - 1, "never negative"),
        (coarse[:1], "1 coarse fields for 2 rows"),
    ):
        with pytest.raises(InputError, match=said) as error:
            net.sample(params, coarse=given)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="needs a periodic grid"):
        SuperResolution(Grid((16, 16), 3.5, "deg", False), SPACE)
    with pytest.raises(InputError, match="a coarse one, got 1 and none"):
        emulator(net.grid).fit(replace(data, coarse=None, coarse_grid=None))


# Training


class Lognormal(Source):
    def __init__(self, grid: Grid = SQUARE) -> None:
        self.grid = grid

    def load(self) -> SimulationSet:
        return pairs(self.grid)


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_a_critic_that_sees_the_coarse_field_trains_it(grid: Grid, tmp_path: Path) -> None:
    """The critic must tell a candidate beside its own coarse field from one beside another."""
    recipe = TrainingRecipe(
        name="tiny",
        data=FieldData(Lognormal(grid), batch_size=8),
        emulator=lambda grid, space: emulator(grid, space, summary_weight=5.0 * (grid.dim == 2)),
        loss=WassersteinGP(n_critic=2),
        optimiser=Adam(rate=1e-3, betas=(0.5, 0.9)),
        max_steps=4,
        accelerator="cpu",
        validate_every=4,
        validation_maps=16,
    )
    train(recipe, tmp_path / "run")
    record = best_record(tmp_path / "run")
    assert record is not None and record["step"] == 4
    shipped = gen.load(tmp_path / "run" / "checkpoint")
    start = emulator(grid)
    data = pairs(grid)
    start.fit(data.select(split="train"))
    moved = [
        name
        for (name, a), b in zip(shipped.named_parameters(), start.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert "generator.leave.weight" in moved
    critic, params = start.make_critic(), data.params[:4]
    assert data.coarse is not None
    y = start.to_working(data.values[:4], params)
    own, other = critic(y, params, data.coarse[:4]), critic(y, params, data.coarse[4:8])
    assert not torch.allclose(own, other)
