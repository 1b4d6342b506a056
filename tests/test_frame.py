"""Forces that correct proposed trajectories: the limits in which the answer is known, and convergence."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gen import checkpoint
from gen.cli import main
from gen.commands.correction import corrected
from gen.commands.pairs import paired
from gen.data.base import SimulationSet
from gen.emulators.displacement import Displacement
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.simulate import nbody_pairs
from gen.simulate.displacement import Motion, motion, second_order, zeldovich
from gen.simulate.frame import MovingFrame, Reference, proposed
from gen.simulate.growth import Growth
from gen.simulate.initial import linear_modes, sum_of_squares, wavevector, white_noise
from gen.simulate.particle_mesh import ParticleMesh, even_steps
from gen.simulate.theory import Cosmology

N, BOX, OM = 16, 128.0, 0.3
CELL = BOX / (2 * N)
FINE = 128
CUBE = Grid((N,) * 3, BOX, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


def solver(steps: int = 12, sharpening: tuple[float, float] = (0.5, 0.85)) -> ParticleMesh:
    return ParticleMesh(N, BOX, OM, even_steps(steps), sharpening=sharpening)


@lru_cache
def modes() -> Tensor:
    """Two boxes whose particles move by 7 Mpc/h (rms) and whose waves are long, so that few of them cross."""
    noise = white_noise([sample_generator(4, i) for i in range(2)], N)
    return linear_modes(noise, BOX, lambda k: 4000 * k**-0.5 * torch.exp(-((k / 0.15) ** 2)))


@lru_cache
def first_order() -> Tensor:
    return zeldovich(modes(), BOX, Growth(OM), 1.0).displacement


@lru_cache
def truth(steps: int = FINE) -> Motion:
    (last,) = solver(steps).run(modes(), [1.0])
    return motion(solver(steps), last)


@lru_cache
def lacking() -> Tensor:
    """What 2LPT lacks."""
    return truth().displacement - second_order(modes(), BOX, Growth(OM), 1.0).displacement


def smooth_error() -> Tensor:
    """A random displacement of 1 Mpc/h (rms of a component) of waves longer than 40 Mpc/h, curl and all."""
    k = sum_of_squares(wavevector(N, BOX)).sqrt()
    noise = white_noise([sample_generator(9, i) for i in range(6)], N) * (k < 0.15)
    field = torch.fft.irfftn(noise, s=(N,) * 3, dim=(1, 2, 3)).reshape(2, 3, N, N, N)
    return field / field.std()


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def follow(n_forces: int, displacement: Tensor | None = None, *, damped: bool = True) -> Motion:
    return MovingFrame(solver(), proposed(solver(), first_order(), displacement), damped).run(n_forces)


def end(factor: float) -> Tensor:
    """A proposal with so much of what 2LPT lacks."""
    return truth().displacement + (factor - 1) * lacking()


# Limits


def lattice_force(k: float) -> float:
    """Force over displacement of a small wave of k [1 / cell]: a particle every two cells, off their nodes.

    Cloud-in-cell moves 2 i sin(k/2) u of a displacement u from cell to cell and reads a mode as cos(k/2) of
    itself; the kernel is 1 / k^2 over sinc^2(k/2), the gradient (8 sin k - sin 2k) / 6. The lattice of two
    cells adds k - pi.
    """
    q = np.array([k, k - np.pi])
    gradient = (8 * np.sin(q) - np.sin(2 * q)) / 6
    return float((np.sin(q) * gradient / q**2 / np.sinc(q / 2 / np.pi) ** 2).sum())


def test_in_the_linear_regime_one_force_keeps_2lpt_to_the_accuracy_of_the_force() -> None:
    plain = solver(sharpening=(0.0, 0.85))
    for wave in (1, 2):
        only = torch.zeros(1, N, N, N // 2 + 1, dtype=torch.complex64)
        only[0, wave, 0, 0] = only[0, -wave, 0, 0] = 0.5e-3 * N**3
        expected = second_order(only, BOX, plain.growth, 1.0)
        first = zeldovich(only, BOX, plain.growth, 1.0).displacement
        made = MovingFrame(plain, proposed(plain, first)).run(1)
        transfer = lattice_force(2 * np.pi * wave / plain.mesh)
        # One step's kick is D G(1) / D(a) for a force of D(a), and its drift (1 - D(a)) / G(1).
        growth, middle = plain.growth, float(plain.growth.first((plain.start + 1) / 2))
        kicked = 1 - float(growth.first_momentum(plain.start) / growth.first_momentum(1.0))
        wanted = expected.displacement * (1 - (1 - transfer) * kicked * (1 - middle))
        size = expected.displacement.abs().max().item()
        # They move by 4e-4 of a wavelength, and the second order is that much of the first.
        assert torch.allclose(made.displacement, wanted, atol=1e-3 * size)
        assert rms(made.displacement - expected.displacement) < abs(1 - transfer) * rms(expected.displacement)


def test_a_perfect_frame_is_followed_exactly() -> None:
    """A frame made of the particle mesh's own positions, momenta and forces, at three times and the end."""
    forces = 3
    ends = (0.1, *even_steps(forces))
    middles = [(a + b) / 2 for a, b in pairwise(ends)]
    fine = ParticleMesh(N, BOX, OM, tuple(sorted({*even_steps(FINE), *middles})), sharpening=(0.5, 0.85))
    kernels = fine.force_kernels()
    known: dict[float, Reference] = {}
    for at in fine.run(modes(), [*middles, 1.0]):
        force = fine.force(at.positions, at.a, kernels)
        parts = (x.unflatten(2, (N,) * 3) * CELL for x in (at.momenta, force))
        known[at.a] = Reference(motion(fine, at).displacement, *parts)
    made = MovingFrame(fine, known.__getitem__).run(forces)
    lost = rms(follow(forces).displacement - known[1.0].displacement)
    assert rms(made.displacement - known[1.0].displacement) < 1e-4  # single precision in a box of 128
    assert lost > 0.05


def test_frames_start_where_the_particle_mesh_starts() -> None:
    start = solver().initial(modes())
    line = torch.arange(N) * 2 + 0.5
    lattice = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).flatten(1)
    moved = torch.remainder(start.positions - lattice + N, 2 * N) - N
    for displacement in (None, end(3.0)):
        frame = proposed(solver(), first_order(), displacement)
        at = frame(0.1)
        assert torch.allclose(at.displacement.flatten(2), moved * CELL, atol=1e-4)
        assert torch.allclose(at.momentum.flatten(2), start.momenta * CELL, atol=1e-5)
    assert torch.allclose(frame(1.0).displacement, end(3.0), atol=1e-4)


def test_momenta_and_forces_of_a_frame_are_the_derivatives_of_its_positions() -> None:
    frame, growth, a, step = proposed(solver(), first_order(), end(1.5)), Growth(OM), 0.6, 0.02
    before, now, after = (frame(a + shift) for shift in (-step, 0, step))
    to_momentum = a**3 * float(growth.expansion(a)) / (2 * step)
    to_force = a**2 * float(growth.expansion(a)) / (1.5 * OM) / (2 * step)
    # Central differences of powers up to D^3 err by (step / a)^2 = 1e-3 at most.
    momentum = to_momentum * (after.displacement - before.displacement)
    force = to_force * (after.momentum - before.momentum)
    assert rms(momentum - now.momentum) < 2e-3 * rms(now.momentum)
    assert rms(force - now.force) < 2e-3 * rms(now.force)


# Bounded errors


@pytest.mark.parametrize("damped", [True, False])
@pytest.mark.parametrize(
    "proposal",
    [lambda: None, lambda: end(0.7), lambda: end(0) + smooth_error()],
    ids=["2LPT", "good", "wrong by 1 Mpc/h"],
)
def test_errors_fall_as_the_square_of_the_step(proposal: Callable[[], Tensor | None], damped: bool) -> None:
    forces = (4, 8, 16)
    made = [follow(n, proposal(), damped=damped) for n in forces]
    for errors in (
        [rms(m.displacement - truth().displacement) for m in made],
        [rms(m.velocity - truth().velocity) for m in made],
    ):
        orders = -np.diff(np.log2(errors))
        # Second order, up to forces of cloud-in-cell, whose slopes jump, and steps not yet small.
        assert errors == sorted(errors, reverse=True)
        assert orders.mean() > 1.5, (errors, orders)
    assert rms(made[-1].displacement - truth().displacement) < 0.03


def test_a_better_proposal_errs_less() -> None:
    for forces in (1, 2, 3, 4):
        errors = [rms(follow(forces, end(f)).displacement - truth().displacement) for f in (0, 0.7, 0.9)]
        assert errors == sorted(errors, reverse=True), errors
    # Four forces mend the proposal that lacked 0.3 of it.
    assert errors[1] < 0.3 * rms(lacking())


def test_shifts_by_a_particle_commute() -> None:
    made = follow(2, end(0.7))
    frame = proposed(solver(), *(x.roll((3, -1, 5), (2, 3, 4)) for x in (first_order(), end(0.7))))
    moved = MovingFrame(solver(), frame).run(2)
    for one, other in zip(made, moved, strict=True):
        assert torch.allclose(one.roll((3, -1, 5), (2, 3, 4)), other, atol=1e-4 * one.abs().max().item())


# Emulators


def emulator(space: ParameterSpace = SPACE, redshift: float = 0.0) -> Displacement:
    """Untrained: 2LPT."""
    return Displacement(CUBE, space, redshift=redshift, widths=(4, 8)).requires_grad_(False)


def test_forces_bring_an_emulator_to_the_particle_mesh_at_its_redshift() -> None:
    """Two universes at z = 0.5 in one batch, each against its own run of the training data's source."""
    source, p = nbody_pairs.Displacement(steps=48), torch.tensor([[0.3, 0.8], [0.2, 0.9]])
    runs = [source.fields(Cosmology(*row), 0.5, CUBE, seed=3) for row in p.tolist()]
    values, coarse = (torch.cat([r[i] for r in runs]) for i in (0, 1))  # pyright: ignore
    net = emulator(redshift=0.5)
    made = corrected(net, coarse, p, 24)
    closed = net.closed_form(coarse, p)
    for channels in (slice(0, 3), slice(3, 6)):
        lost = (closed - values)[:, channels].square().mean((1, 2, 3, 4)).sqrt()
        left = (made - values)[:, channels].square().mean((1, 2, 3, 4)).sqrt()
        assert (left < 0.2 * lost).all(), (left, lost)


def held_out(n: int = 4) -> SimulationSet:
    p = torch.tensor([[0.3, 0.8]] * n)
    runs = [nbody_pairs.Displacement().fields(Cosmology(0.3, 0.8), 0.0, CUBE, seed) for seed in range(n)]
    values, coarse = (torch.cat([r[i] for r in runs]) for i in (0, 1))  # pyright: ignore
    return SimulationSet(
        CUBE, SPACE, values, p, torch.arange(n), np.full(n, "test"), np.full(n, "interior"), "pairs",
        "Mpc/h and km/s", coarse, CUBE, nbody_pairs.VECTORS, nbody_pairs.VECTORS[:1],
    )  # fmt: skip


def test_a_report_sets_corrected_fields_beside_the_others(tmp_path: Path) -> None:
    checkpoint.save(emulator(), tmp_path / "net", "card")
    found = paired([tmp_path / "net"], held_out(), 0, n_forces=3)
    names = {"net", "net + 3 forces", "2LPT", "2LPT + 3 forces", "Zel'dovich"}
    assert set(found.samples) == names
    position = found.pairing.motions[0]
    errors = {name: rms(made - position.true) for name, made in position.made.items()}
    assert errors["net"] == pytest.approx(errors["2LPT"], rel=1e-3)  # it is untrained
    assert max(errors["net + 3 forces"], errors["2LPT + 3 forces"]) < 0.6 * errors["2LPT"]
    assert found.samples["net + 3 forces"].attributes["force_evaluations"] == 3
    assert found.baseline == "2LPT"


# Refusals


def test_bad_input_is_one_sentence() -> None:
    psi, wrong = first_order(), first_order().clone()
    wrong[:, 0] += 5 * (-1.0) ** torch.arange(N)
    refusals: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: follow(0), "at least 1 force evaluation, got 0"),
        (lambda: proposed(solver(), psi[..., :8]), r"16\^3 particles must be \(2, 3, 16, 16, 16\), got"),
        (lambda: proposed(solver(), psi, psi[:1]), "must be"),
        (lambda: proposed(solver(), wrong), "Nyquist"),
        (lambda: proposed(solver(), psi + 1), "without mean"),
        (lambda: proposed(solver(), psi, psi / 0), "must be finite"),
        (lambda: corrected(emulator(), psi, torch.tensor([[0.3, 0.8]] * 2), -1), "got -1"),
    )
    for refused, said in refusals:
        with pytest.raises(InputError, match=said) as error:
            refused()
        assert "\n" not in str(error.value)


def test_the_command_line_corrects_displacements_only(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(emulator(), tmp_path / "net", "card")
    maps = root / "checkpoints" / "convergence_2d_copula"
    for folder, forces, said in (
        (maps, "3", "convergence_2d_copula is a Copula; leave it out"),
        (tmp_path / "net", "0", "at least 1 force evaluation, got 0"),
    ):
        assert main(["report", str(folder), "--correct", forces, "-o", str(tmp_path / "page")]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
        assert not (tmp_path / "page").exists()
