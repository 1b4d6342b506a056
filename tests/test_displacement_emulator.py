"""The displacement emulator: its closed form, its symmetries, and velocities along the growth."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gen
from gen import checkpoint
from gen.data.base import SimulationSet
from gen.emulators.displacement import Displacement
from gen.emulators.perturbation import GrowthTable, second_order, strain
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.simulate import displacement as particles
from gen.simulate.growth import Growth
from gen.simulate.initial import displacements, linear_modes, white_noise

BOX = 64.0
CUBE = Grid((8, 8, 8), BOX, "Mpc/h", True)
SQUARE = Grid((8, 8), BOX, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
SPACE_Z = ParameterSpace(("Omega_m", "sigma_8", "z"), (0.1, 0.6, 0.0), (0.5, 1.0, 1.0))
OMEGAS = (0.1, 0.31, 0.5)


def modes(n: int, seed: int = 0) -> Tensor:
    """Of a linear density of the right sort of tilt."""
    noise = white_noise([sample_generator(seed, i) for i in range(2)], n)
    return linear_modes(noise, BOX, lambda k: 300 * k**-1.5)


def long_waves(n: int) -> Tensor:
    """Modes below half the Nyquist wavenumber along each axis, so that their products stay below it."""
    low = torch.fft.fftfreq(n, 1 / n).abs() < n / 4
    return modes(n) * (low[:, None, None] & low[:, None] & low[: n // 2 + 1])


def zeldovich(grid: Grid, seed: int = 0) -> Tensor:
    """Displacements without vorticity: in 2D, gradients of random waves."""
    if grid.dim == 3:
        return displacements(modes(grid.shape[0], seed), BOX)[0]
    x = torch.stack(torch.meshgrid(*[torch.arange(n) / n for n in grid.shape], indexing="ij"))
    generator = torch.Generator().manual_seed(seed)
    psi = torch.zeros(2, 2, *grid.shape)
    for kx, ky in ((1, 0), (0, 1), (1, 1), (2, -1), (0, 2), (3, 1)):
        amplitude, phase = torch.rand(2, 2, generator=generator)
        wave = torch.sin(2 * math.pi * (kx * x[0] + ky * x[1] + phase[:, None, None]))
        psi += torch.stack([kx * wave, ky * wave], 1) * 4 * amplitude[:, None, None, None] / (kx**2 + ky**2)
    return psi


def emulator(grid: Grid = CUBE, space: ParameterSpace = SPACE, **changes: Any) -> Displacement:
    """One that has learnt something: its last layer is random, its residual as large as the second order."""
    torch.manual_seed(1)
    net = Displacement(grid, space, **{"widths": (4, 8), **changes})
    torch.nn.init.normal_(net.network.leave.weight, 0.0, 0.2)
    return net.requires_grad_(False)


def params(space: ParameterSpace = SPACE) -> Tensor:
    return torch.tensor([[0.3, 0.8, 0.5], [0.2, 0.95, 0.1]])[:, : len(space)]


# Closed forms


@pytest.mark.parametrize("dim", [2, 3])
def test_second_order_of_crossed_waves_is_the_closed_form(dim: int) -> None:
    n, a, b = 16, 0.3, 0.2
    k = 2 * math.pi / BOX
    line = (torch.arange(n) + 0.5) * (BOX / n)
    x, y, *_ = torch.meshgrid(*[line] * dim, indexing="ij")
    psi = torch.zeros(1, dim, *(n,) * dim)
    psi[0, 0], psi[0, 1] = -a / k * torch.sin(k * x), -b / k * torch.sin(k * y)
    # delta = a cos kx + b cos ky, so phi2 = -a b cos kx cos ky / (2 k^2).
    expected = torch.zeros_like(psi)
    expected[0, 0] = a * b / (2 * k) * torch.sin(k * x) * torch.cos(k * y)
    expected[0, 1] = a * b / (2 * k) * torch.cos(k * x) * torch.sin(k * y)
    assert torch.allclose(second_order(psi, (BOX / n,) * dim), expected, atol=1e-4)


def test_second_order_and_strain_are_those_of_the_potential() -> None:
    """Against the simulator's, which goes from the density to both."""
    delta = long_waves(16)
    first, second = displacements(delta, BOX)
    spacing = (BOX / 16,) * 3
    assert torch.allclose(second_order(first, spacing), second, atol=1e-5 * second.abs().max().item())
    strains = strain(first, spacing)
    density = torch.fft.irfftn(delta, s=(16,) * 3, dim=(1, 2, 3))
    assert torch.allclose(-strains[:, :3].sum(1), density, atol=1e-4)
    for n, (i, j) in enumerate(combinations(range(3), 2)):
        # Without vorticity d_i psi_j = d_j psi_i: differences of a band-limited field by its own modes.
        freq = torch.fft.fftfreq(16, BOX / 16 / (2 * math.pi))
        freq[8] = 0
        shape = [1, 1, 1]
        shape[i] = 16
        full = torch.fft.fftn(first[:, j], dim=(1, 2, 3)) * (1j * freq.reshape(shape))
        assert torch.allclose(strains[:, 3 + n], torch.fft.ifftn(full, dim=(1, 2, 3)).real, atol=1e-4)


@pytest.mark.parametrize("Omega_m", OMEGAS)
@pytest.mark.parametrize("a", [0.2, 0.6, 1.0])
def test_growth_is_a_function_of_the_matter_fraction_alone(Omega_m: float, a: float) -> None:
    growth, table = Growth(Omega_m), GrowthTable()
    fraction = float(growth.matter_fraction(a))
    rates = table(torch.tensor([fraction]))
    first, to_rate = float(growth.first(a)), 1 / (a**2 * float(growth.expansion(a)))
    assert rates.second.item() == pytest.approx(float(growth.second(a)) / first**2, rel=1e-5)
    assert rates.first_rate.item() == pytest.approx(
        float(growth.first_momentum(a)) * to_rate / first, rel=1e-5
    )
    assert rates.second_rate.item() == pytest.approx(
        float(growth.second_momentum(a)) * to_rate / first**2, rel=1e-5
    )
    today = table(torch.tensor([Omega_m]))
    assert (rates.log_first - today.log_first).exp().item() == pytest.approx(first, rel=1e-5)
    # The usual fits, good to 2 % down to Omega_m(a) = 0.1.
    assert rates.second.item() == pytest.approx(-3 / 7 * fraction ** (-1 / 143), rel=0.02)
    assert rates.first_rate.item() == pytest.approx(fraction ** (5 / 9), rel=0.02)
    assert (rates.second_rate / rates.second).item() == pytest.approx(2 * fraction ** (6 / 11), rel=0.02)


@pytest.mark.parametrize("velocity", ["network", "derivative"])
def test_untrained_it_is_2lpt(velocity: str) -> None:
    """Displacement and velocity, against the simulator's second order at z = 0.5."""
    delta, a, om = long_waves(8), 1 / 1.5, 0.3
    growth = Growth(om)
    coarse = particles.zeldovich(delta, BOX, growth, a).displacement
    expected = particles.second_order(delta, BOX, growth, a)
    net = Displacement(CUBE, SPACE, redshift=0.5, velocity=velocity, widths=(4, 8))  # pyright: ignore
    made = net.sample(torch.tensor([[om, 0.8]] * 2), coarse=coarse).values
    for got, want in ((made[:, :3], expected.displacement), (made[:, 3:], expected.velocity)):
        assert torch.allclose(got, want, atol=2e-4 * want.std().item())


# Symmetries


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_shifts_by_its_factor_commute_and_others_do_not(grid: Grid) -> None:
    net, psi = emulator(grid), zeldovich(grid)
    axes = tuple(range(2, 2 + grid.dim))
    made = net.predict(psi, params())
    residual = (made - net.closed_form(psi, params())).abs()
    errors = []
    for shift in (2, 1):
        moved = net.predict(psi.roll((shift,) * grid.dim, axes), params())
        difference = (moved - made.roll((shift,) * grid.dim, axes)).abs()
        errors.append((difference.amax((0, *axes)) / residual.amax((0, *axes))).max().item())
    assert errors[0] < 1e-4 < 1e-2 < errors[1]


def test_a_uniform_displacement_changes_positions_only() -> None:
    net, psi = emulator(), zeldovich(CUBE)
    drift = torch.tensor([3.0, -20.0, 7.0])[:, None, None, None]
    still, moving = net.predict(psi, params()), net.predict(psi + drift, params())
    assert torch.allclose(moving[:, :3], still[:, :3] + drift, atol=1e-3)
    # The velocity follows linear growth, which a uniform displacement has too.
    rate = net.closed_form(drift.expand(2, 3, 8, 8, 8), params())[:, 3:]
    assert torch.allclose(moving[:, 3:], still[:, 3:] + rate, atol=1e-3 * rate.abs().max().item())


def test_a_larger_box_of_copies_gives_copies() -> None:
    net, psi = emulator(), zeldovich(CUBE)
    whole = net.sample(params(), coarse=psi.repeat(1, 1, 2, 1, 3), shape=(16, 8, 24)).values
    one = net.sample(params(), coarse=psi).values
    assert torch.allclose(whole, one.repeat(1, 1, 2, 1, 3), atol=1e-4 * one.std().item())


# Velocities


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_derivative_velocities_are_the_motion_along_the_growth(grid: Grid) -> None:
    """Central differences in ln a of an emulator that is told the redshift, in double precision."""
    space, p = SPACE_Z, params(SPACE_Z).double()
    psi = zeldovich(grid).double()
    moving = emulator(grid, space, velocity="derivative").double()
    moving.style_ends.copy_(torch.tensor([[0.4, 0.3], [0.7, 0.3]]))
    still = emulator(grid, space, velocity="none").double()
    still.load_state_dict({**moving.state_dict(), "output_scale": moving.output_scale[: grid.dim]})

    def at(shift: float) -> Tensor:
        """The same universes a little later."""
        later, scale = p.clone(), []
        for i, (om, _, z) in enumerate(p.tolist()):
            growth, a = Growth(om), 1 / (1 + z)
            later[i, 2] = (1 + z) * math.exp(-shift) - 1
            scale.append(float(growth.first(a * math.exp(shift)) / growth.first(a)))
        return still.predict(psi * torch.tensor(scale).reshape(-1, *(1,) * (grid.dim + 1)), later)

    step = 0.02
    rate = (at(step) - at(-step)) / (2 * step)
    hubble = [100 / (1 + z) * float(Growth(om).expansion(1 / (1 + z))) for om, _, z in p.tolist()]
    expected = rate * torch.tensor(hubble).reshape(-1, *(1,) * (grid.dim + 1))
    got = moving.predict(psi, p)
    assert torch.allclose(got[:, : grid.dim], at(0.0), rtol=1e-6)
    # strain() works in single precision; the differences err by step^2 / 6 of the third derivative.
    assert (got[:, grid.dim :] - expected).std() < 2e-3 * expected.std()


# Fitting, saving, refusing


def pairs(grid: Grid = CUBE, n: int = 12, channels: int | None = None, factor: float = 1.5) -> SimulationSet:
    """Truth: 2LPT, and half as much again of its second order."""
    psi = torch.cat([zeldovich(grid, seed) for seed in range(n // 2)])
    unit = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    p = SPACE.restore(2 * unit - 1)
    closed = Displacement(grid, SPACE, widths=(4, 8)).closed_form(psi, p)
    first = torch.cat([psi, closed[:, grid.dim :]], 1)
    values = first + factor * (closed - first)
    split = np.where(np.arange(n) < n // 2, "train", "validation")
    return SimulationSet(
        grid, SPACE, values[:, :channels], p, torch.arange(n), split, np.full(n, "interior"), "pairs",
        "Mpc/h and km/s", psi, grid,
    )  # fmt: skip


def test_scales_are_measured_and_shared_by_the_components() -> None:
    data = pairs()
    net = Displacement(CUBE, SPACE, widths=(4, 8))
    net.fit(data)
    second = second_order(data.coarse, CUBE.spacing) * -3 / 7  # pyright: ignore[reportArgumentType]
    assert net.output_scale[0].item() == pytest.approx(0.5 * second.square().mean().sqrt().item(), rel=0.02)
    assert len(net.output_scale[:3].unique()) == len(net.input_scale[:3].unique()) == 1
    style = torch.stack(net._style(net._epoch(data.params)), 1)
    assert ((style - net.style_ends[:, 0]) / net.style_ends[:, 1]).abs().max() == pytest.approx(1, abs=1e-5)
    # On patches that it was not fitted to it sees numbers of order one.
    inputs = strain(zeldovich(CUBE, 99), CUBE.spacing) / net.input_scale[:6, None, None, None]
    assert 0.3 < inputs.std() < 3


def test_it_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    net = emulator(velocity="derivative", redshift=0.3)
    net.style_ends.copy_(torch.tensor([[0.4, 0.3], [0.7, 0.3]]))
    checkpoint.save(net, tmp_path / "c", "card")
    again = gen.load(tmp_path / "c")
    psi = zeldovich(CUBE)
    one, other = (e.sample(params(), seed=s, coarse=psi) for s, e in ((0, net), (7, again)))
    assert torch.equal(one.values, other.values)  # the seed does not matter either
    assert torch.equal(other.coarse, psi)


def test_bad_input_is_one_sentence() -> None:
    net, psi = emulator(), zeldovich(CUBE)
    for coarse, shape, said in (
        (None, None, "makes fields from the Zel'dovich displacement"),
        (psi[:, :2], None, r"must have shape \(B, 3, 8, 8, 8\), got"),
        (psi[..., :6], None, "must have shape"),
        (psi[..., :7], (8, 8, 7), "must divide by 2"),
        (psi[:1], None, "1 coarse fields for 2 rows"),
    ):
        with pytest.raises(InputError, match=said) as error:
            net.sample(params(), coarse=coarse, shape=shape)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="periodic box in Mpc/h"):
        Displacement(Grid((8, 8), 3.5, "deg", False), SPACE)
    with pytest.raises(InputError, match="needs the parameter Omega_m"):
        Displacement(CUBE, ParameterSpace(("sigma_8",), (0.6,), (1.0,)))
    with pytest.raises(InputError, match="learns from 6 channels"):
        Displacement(CUBE, SPACE).fit(pairs(channels=3))
    with pytest.raises(InputError, match="no coarse ones"):
        bare = pairs()
        Displacement(CUBE, SPACE).fit(
            SimulationSet(
                bare.grid, bare.space, bare.values, bare.params, bare.simulation, bare.split, bare.region, "x"
            )
        )
