"""Displacements and densities: closed forms, conservation, symmetry, gradients, and velocities in km/s."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.data.augment import Isometry, Symmetries
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.simulate.displacement import (
    density,
    from_positions,
    lagrangian,
    motion,
    positions,
    readout,
    second_order,
    zeldovich,
)
from gen.simulate.growth import Growth
from gen.simulate.initial import at_cell_centres, sum_of_squares, wavevector, white_noise
from gen.simulate.particle_mesh import ParticleMesh, Snapshot, even_steps
from gen.simulate.theory import Cosmology
from gen.simulate.theory import growth as ccl_growth

L = 64.0


def random_displacement(n: int, size: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return size * torch.randn(2, 3, n, n, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def wave_modes(n: int, amplitude: float, axis: int, mode: int = 1) -> Tensor:
    """Modes of delta = amplitude cos(k x) at the centres of the cells."""
    k = 2 * math.pi * mode / L
    delta = (amplitude * torch.cos(k * lagrangian(n, L)[axis])).double()
    return torch.fft.rfftn(delta[None], dim=(1, 2, 3)).to(torch.complex64)


def smooth_modes(rms: float, n: int = 32) -> Tensor:
    """Modes of |k| up to twice the fundamental."""
    noise = white_noise([sample_generator(3, 0)], n)
    modes = noise * (sum_of_squares(wavevector(n, L)).sqrt() < 2.1 * 2 * math.pi / L)
    return modes * (rms / torch.fft.irfftn(modes, s=(n,) * 3, dim=(1, 2, 3)).std())


# Density


@pytest.mark.parametrize("mesh", [4, 8, 16])
def test_particles_at_rest_are_uniform_on_meshes_that_nest(mesh: int) -> None:
    assert torch.allclose(density(torch.zeros(1, 3, 8, 8, 8), L, mesh), torch.ones(1), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_particle_that_moves_gives_its_share_to_the_neighbour(axis: int) -> None:
    psi = torch.zeros(1, 3, 4, 4, 4)
    psi[0, axis, 3, 3, 3] = 0.25 * L / 4  # a quarter of a cell, across the face of the box
    expected = torch.ones(4, 4, 4)
    expected[3, 3, 3] -= 0.25
    expected[tuple(0 if i == axis else 3 for i in range(3))] += 0.25
    assert torch.allclose(density(psi, L, 4)[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("mesh", [5, 8, 16])
def test_mass_is_conserved_and_rows_are_their_own(mesh: int) -> None:
    psi = random_displacement(8, 40.0)
    found = density(psi, L, mesh)
    assert found.shape == (2, 1, mesh, mesh, mesh) and (found >= 0).all()
    assert found.mean((1, 2, 3, 4)) == pytest.approx([1, 1], rel=1e-5)
    assert torch.allclose(found[1:], density(psi[1:], L, mesh), atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    psi = random_displacement(3, 10.0, dtype=torch.float64).requires_grad_()
    field = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: density(p, L, 4), psi, eps=1e-6)
    assert torch.autograd.gradcheck(lambda p: readout(field, p, L), psi, eps=1e-6)


def test_readout_is_the_adjoint_of_density_and_exact_for_a_linear_field() -> None:
    psi = random_displacement(6, 20.0)
    field = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    there, back = (density(psi, L, 8) * field).sum(), (8 / 6) ** 3 * readout(field, psi, L).sum()
    assert there.item() == pytest.approx(back.item(), rel=1e-3, abs=1e-2)
    ramp = lagrangian(8, L)[None]  # x, y, z at the cells' centres; a jump at the faces
    inner = readout(ramp, torch.zeros(1, 3, 2, 2, 2) + 3.0, L)
    assert torch.allclose(inner[0], lagrangian(2, L) + 3.0, atol=1e-4)


@pytest.mark.parametrize("mesh", [4, 6, 12])
def test_density_turns_flips_and_moves_with_its_displacement(mesh: int) -> None:
    psi = random_displacement(6, 5.0)[:1]
    group = Symmetries(Grid((6, 6, 6), L, "Mpc/h", periodic=True)).isometries
    for g in group:
        moved = density(g(psi, [(0, 1, 2)]), L, mesh)
        assert torch.allclose(moved, g(density(psi, L, mesh)), atol=1e-4)
    flip = Isometry((0, 1, 2), (True, False, False))
    assert not torch.allclose(density(flip(psi), L, mesh), flip(density(psi, L, mesh)), atol=0.1)
    roll = density(psi.roll((3, -3), (2, 4)), L, mesh)
    assert torch.allclose(roll, density(psi, L, mesh).roll((mesh // 2, -mesh // 2), (2, 4)), atol=1e-4)


# Positions


def test_positions_and_displacements_are_each_others_inverse_across_the_faces() -> None:
    psi = random_displacement(8, 6.0).clamp(-31, 31)
    x = positions(psi, L)
    assert ((x >= 0) & (x < L)).all()
    assert torch.allclose(from_positions(x, L), psi, atol=1e-4)
    assert torch.allclose(from_positions(x - 5 * L, L), psi, atol=1e-3)


def test_particles_in_another_order_are_refused() -> None:
    x = positions(random_displacement(8, 6.0), L)
    shuffled = x[:, :, torch.randperm(512, generator=torch.Generator().manual_seed(0))]
    fortran = x.unflatten(2, (8, 8, 8)).permute(0, 1, 4, 3, 2).flatten(2)
    for wrong in (shuffled, fortran, x.flip(2)):
        with pytest.raises(InputError, match=r"out of order.*sort them by their ids"):
            from_positions(wrong, L)


@pytest.mark.parametrize("shape", [(1, 3, 9), (3, 8), (1, 2, 8)])
def test_particles_that_are_no_lattice_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(B, 3, n\^3\)"):
        from_positions(torch.zeros(shape), L)


@pytest.mark.parametrize("shape", [(1, 2, 4, 4, 4), (1, 3, 4, 4, 2), (3, 4, 4, 4)])
def test_what_is_no_displacement_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(B, 3, n, n, n\)"):
        density(torch.zeros(shape), L, 4)


# Perturbation theory


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_wave_is_zeldovichs_closed_form_until_its_shells_cross(axis: int) -> None:
    """x = q - (A D / k) sin kq, so 1 + delta = 1 / (1 - A D cos kq): exact in one dimension to A D = 1."""
    n, a, top, growth = 64, 0.7, 0.6, Growth(0.3)
    scale = float(growth.first(a))
    k = 2 * math.pi / L
    moved = zeldovich(wave_modes(n, top / scale, axis), L, growth, a)
    expected = -top / k * torch.sin(k * lagrangian(n, L)[axis])
    assert torch.allclose(moved.displacement[0, axis], expected, atol=1e-3)
    others = [i for i in range(3) if i != axis]
    assert moved.displacement[0, others].abs().max() < 1e-3

    q = (np.arange(100_000) + 0.5) * L / 100_000  # the same mass in so many sheets that their number is none
    x = ((q - top / k * np.sin(k * q)) / (L / 8) - 0.5) % 8
    low, share = np.floor(x).astype(int), x - np.floor(x)
    mass = np.bincount(low % 8, 1 - share, 8) + np.bincount((low + 1) % 8, share, 8)
    found = density(moved.displacement, L, 8)[0, 0].mean(others)
    # 64 sheets on 8 cells, up to 1.6/8 of a cell apart: the kinks of the weight cost (1.6 / 8)^2 / 4.
    assert found.numpy() == pytest.approx(mass / mass.mean(), abs=0.01)


@pytest.mark.parametrize("Omega_m", [0.15, 0.3, 0.5])
@pytest.mark.parametrize("a", [0.3, 1.0])
def test_velocity_is_a_h_f_d_psi(Omega_m: float, a: float) -> None:
    """With f of pyccl's growth, another integration, by a difference quotient (step 0.005: error 1e-4)."""
    cosmo, growth = Cosmology(Omega_m, 0.8), Growth(Omega_m)
    d = ccl_growth(cosmo, np.array([a * math.exp(-0.005), a * math.exp(0.005) if a < 1 else 1.0]))
    step = 0.01 if a < 1 else 0.005
    f = math.log(d[1] / d[0]) / step
    if a == 1:  # one-sided: f at exp(-0.0025), corrected by df/dlna from f = Omega_m(a)^0.55
        f *= 1 - 0.55 * 3 * (1 - Omega_m) * 0.0025
    hubble = 100 * math.sqrt(Omega_m / a**3 + 1 - Omega_m)
    moved = zeldovich(smooth_modes(0.5), L, growth, a)
    expected = a * hubble * f * moved.displacement
    assert torch.allclose(moved.velocity, expected, rtol=2e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("theory", [zeldovich, second_order])
def test_velocity_is_the_displacements_change_in_time(theory) -> None:
    """v = a dx/dt = a^2 H(a) dpsi/da, by a central difference."""
    growth, a, step, modes = Growth(0.25), 0.6, 0.01, smooth_modes(1.0)
    later, earlier = (theory(modes, L, growth, a + s).displacement for s in (step, -step))
    hubble = 100 * math.sqrt(0.25 / a**3 + 0.75)
    expected = a**2 * hubble * (later - earlier) / (2 * step)
    found = theory(modes, L, growth, a).velocity
    assert torch.allclose(found, expected, atol=2e-3 * expected.abs().max().item())


def test_second_order_is_first_plus_what_its_growth_says() -> None:
    growth, modes = Growth(0.3), smooth_modes(1.0)
    plus, minus = (second_order(sign * modes, L, growth, 1.0).displacement for sign in (1, -1))
    first = zeldovich(modes, L, growth, 1.0).displacement
    assert torch.allclose((plus - minus) / 2, first, atol=1e-4)
    early = [second_order(sign * modes, L, growth, 0.1).displacement for sign in (1, -1)]
    ratio = float(growth.second(1.0) / growth.second(0.1))
    assert torch.allclose((plus + minus) / 2, (early[0] + early[1]) / 2 * ratio, atol=1e-3)


# The particle mesh


@pytest.mark.parametrize("mesh_factor", [1, 2, 4])
@pytest.mark.parametrize(("Omega_m", "a"), [(0.15, 1.0), (0.3, 0.5), (1.0, 1.0)])
def test_small_waves_of_the_particle_mesh_move_as_zeldovich_says(
    mesh_factor: int, Omega_m: float, a: float
) -> None:
    n = 16
    modes = smooth_modes(0.02, n)
    solver = ParticleMesh(n, L, Omega_m, even_steps(6, end=a), mesh_factor=mesh_factor, sharpening=(0.0, 1.0))
    *_, last = solver.run(modes)
    moved, linear = motion(solver, last), zeldovich(modes, L, solver.growth, a)
    for found, expected in zip(moved, linear, strict=True):
        slope = (found * expected).sum() / expected.square().sum()
        # The four-point gradient and the CIC of waves of 8 particles, as in the test of the force.
        assert slope.item() == pytest.approx(1, abs=0.06 if mesh_factor == 1 else 0.03)
        assert found.mean((2, 3, 4)).abs().max() < 1e-3 * found.abs().max()  # half cells are accounted for


def test_the_particle_meshs_density_is_its_particles() -> None:
    solver = ParticleMesh(16, L, 0.3, even_steps(4))
    *_, last = solver.run(smooth_modes(2.0, 16))
    x = last.positions * (L / solver.mesh) + 0.5 * (L / 16 - L / solver.mesh)
    assert torch.allclose(torch.remainder(x, L), positions(motion(solver, last).displacement, L), atol=1e-3)


def test_a_wave_may_move_the_mesh_s_particles_far() -> None:
    """By 0.45 L, 0.32 L rms: particles of a file so far from their cells would be out of order."""
    n = 8
    solver = ParticleMesh(n, L, 0.3, even_steps(1))
    cell, spacing = solver.box_size / solver.mesh, L / n
    psi = torch.zeros(1, 3, n, n, n)
    psi[:, 1] = 0.45 * L * torch.sin(2 * math.pi * lagrangian(n, L)[0] / L)
    x = (positions(psi, L) - (spacing - cell) / 2) / cell
    moved = motion(solver, Snapshot(1.0, x, torch.zeros_like(x)))
    assert torch.allclose(moved.displacement, psi, atol=1e-4)
    with pytest.raises(InputError, match="out of order"):
        from_positions(positions(psi, L), L)


def test_cell_centres_are_half_a_cell_on() -> None:
    for n in (8, 12):
        nodes = torch.arange(n) * (L / n)
        x, y, z = torch.meshgrid(nodes, nodes, nodes, indexing="ij")
        k = 2 * math.pi / L

        def field(x: Tensor, y: Tensor, z: Tensor, k: float = k) -> Tensor:
            return torch.cos(2 * k * x - k * y + 3 * k * z + 0.7)

        shifted = at_cell_centres(torch.fft.rfftn(field(x, y, z)[None], dim=(1, 2, 3)))
        found = torch.fft.irfftn(shifted, s=(n,) * 3, dim=(1, 2, 3))[0]
        assert torch.allclose(found, field(*lagrangian(n, L)), atol=1e-4)
