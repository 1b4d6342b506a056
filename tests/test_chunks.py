"""Boxes in chunks: the whole box's result, no seams, the same bytes from any number of processes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.spread import workers
from gen.checkpoint import save
from gen.cli import main
from gen.commands.apply import apply_to_file
from gen.emulators.adversarial_refinement import AdversarialRefinement
from gen.emulators.base import Emulator
from gen.emulators.chunks import generate_in_chunks, local, make, pieces, white_channels
from gen.emulators.closed_forms import ClosedForm, Hermite, NeutrinoFilter, SecondOrderInverse
from gen.emulators.copula import Copula
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.counts import GalaxyCounts
from gen.emulators.displacement import Displacement
from gen.emulators.field_map import FieldMap
from gen.emulators.perturbation import expansion, second_order, strain
from gen.emulators.refinement import Refinement
from gen.emulators.super_resolution import SuperResolution
from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.io import read_fields, write_fields
from gen.nets.unet import UNet
from gen.noise import normal, sample_generator

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
THETA = torch.tensor([[0.3, 0.8], [0.2, 0.95]])
TEXT = "Omega_m=0.3,sigma_8=0.8"


def box(n: int, dim: int, *, periodic: bool = True) -> Grid:
    """Of cells of 4 Mpc/h."""
    return Grid((n,) * dim, 4.0 * n, "Mpc/h", periodic)


def trained(emulator: Emulator) -> Any:
    """As if trained: every weight is random, one-point laws have a width of one, modes a smooth power."""
    generator = torch.Generator().manual_seed(0)

    def random(tensor: Tensor, scale: float) -> None:
        tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, weight in emulator.named_parameters():
            random(weight, 0.0 if name.endswith("bias") else 0.1 if "modulation" in name else 0.25)
        for name, buffer in emulator.named_buffers():
            if name.endswith("coefficients"):
                random(buffer, 0.02)
            if name.endswith("marginal.shape.coefficients"):
                buffer[0, 1:] += math.log(0.065)
            elif name.endswith("response.coefficients"):
                buffer[0] += 0.8
    return emulator.eval().requires_grad_(False)


def displacement(dim: int, widths: tuple[int, ...] = (3, 4), velocity: Any = "network") -> Displacement:
    return trained(Displacement(box(8, dim), SPACE, velocity=velocity, widths=widths))


def super_resolution(dim: int, widths: tuple[int, ...] = (3, 4)) -> SuperResolution:
    return trained(SuperResolution(box(8, dim), SPACE, widths=widths, critic_channels=(4,)))


def field_map(dim: int, form: ClosedForm) -> FieldMap:
    names = ("Omega_m", "sigma_8", *form.needs[1:])
    space = ParameterSpace(names, (0.1, 0.6, 0.1)[: len(names)], (0.5, 1.0, 0.9)[: len(names)])
    return trained(FieldMap(box(8, dim), space, form, widths=(3, 4)))


def refinement(dim: int, widths: tuple[int, ...] = (3, 4)) -> Refinement:
    return trained(Refinement(box(8, dim), SPACE, widths=widths))


def adversarial_refinement(dim: int) -> AdversarialRefinement:
    return trained(AdversarialRefinement(box(8, dim), SPACE, widths=(3, 4), critic_channels=(4,)))


def galaxies(dim: int) -> GalaxyCounts:
    return trained(GalaxyCounts(box(8, dim), SPACE, widths=(3, 4)))


def copula_gan(dim: int, widths: tuple[int, ...] = (3, 4), *, periodic: bool = True) -> CopulaGAN:
    grid = box(8, dim, periodic=periodic)
    return trained(CopulaGAN(grid, SPACE, widths=widths, margin=3, critic_channels=(4,)))


def coarse_for(emulator: Emulator, shape: tuple[int, ...]) -> Tensor | None:
    """Random: what the network makes of it is of no matter here."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(emulator, Displacement):
        return 2 * torch.randn(2, len(shape), *shape, generator=generator)
    if isinstance(emulator, SuperResolution):
        return torch.rand(2, 1, *(n // 2 for n in shape), generator=generator) * 2
    if isinstance(emulator, GalaxyCounts):
        return torch.rand(2, 1, *shape, generator=generator) * 4
    if isinstance(emulator, Refinement):
        return torch.randn(2, 2 * len(shape), *(n // 2 for n in shape), generator=generator)
    if isinstance(emulator, FieldMap):
        return torch.randn(2, emulator.n_coarse, *shape, generator=generator)
    return None


def theta_for(emulator: Emulator) -> Tensor:
    """Two cosmologies, at whatever else the emulator has parameters for."""
    return torch.cat([THETA, torch.full((2, len(emulator.space) - 2), 0.5)], 1)


def generators() -> list[torch.Generator]:
    return [sample_generator(3, i) for i in range(2)]


def worst(made: Tensor, known: Tensor) -> float:
    """The largest error in units of the field's rms, or of the value where that is larger."""
    assert made.shape == known.shape
    return float(((made - known).abs() / torch.maximum(known.abs(), known.square().mean().sqrt())).max())


# The halo


@pytest.mark.parametrize(
    ("dim", "levels", "patch"),
    [(2, 1, 1), (2, 2, 1), (2, 3, 1), (2, 4, 1), (3, 1, 1), (3, 2, 1), (2, 2, 2), (2, 3, 2)],
)
def test_the_halo_is_as_far_as_gradients_reach_and_no_further(dim: int, levels: int, patch: int) -> None:
    torch.manual_seed(0)
    net = UNet(dim, 1, 1, 0, (2,) * levels, noise=patch == 1, patch=patch).double()
    torch.nn.init.normal_(net.leave.weight)
    n = -(-(2 * net.halo + 3 * net.factor) // net.factor) * net.factor
    x = torch.randn(1, 1, *(n,) * dim, dtype=torch.float64, requires_grad=True)
    noise = torch.zeros(1, levels, *(n,) * dim, dtype=torch.float64) if patch == 1 else None
    first = (n // 2) // net.factor * net.factor
    block = (..., *(slice(first, first + net.factor),) * dim)
    (gradient,) = torch.autograd.grad(net(x, torch.zeros(1, 0), noise)[block].sum(), x)
    for axis in range(2, 2 + dim):
        heard = (gradient != 0).any([a for a in range(2 + dim) if a != axis]).nonzero()[:, 0]
        assert heard.tolist() == list(range(first - net.halo, first + net.factor + net.halo))


# The whole box


CASES: dict[str, tuple[Callable[[], Emulator], tuple[int, ...], int]] = {
    "displacement 3D": (lambda: displacement(3), (40, 36, 4), 8),
    "displacement 3D, cubes": (lambda: displacement(3, (3,), "none"), (16, 16, 16), 5),
    "velocity by derivative": (lambda: displacement(3, velocity="derivative"), (40, 6, 4), 8),
    "displacement 2D": (lambda: displacement(2, (3, 4, 4)), (72, 64), 12),
    "initial 3D": (lambda: field_map(3, SecondOrderInverse()), (40, 36, 4), 8),
    "intermediate 2D": (lambda: field_map(2, Hermite()), (40, 36), 8),
    "neutrinos 3D": (lambda: field_map(3, NeutrinoFilter()), (40, 36, 4), 8),
    "particles 3D": (lambda: refinement(3), (40, 36, 4), 8),
    "particles 2D": (lambda: refinement(2, (3, 4, 4)), (72, 64), 12),
    "adversarial particles 3D": (lambda: adversarial_refinement(3), (40, 36, 4), 8),
    "galaxies 3D": (lambda: galaxies(3), (40, 36, 4), 8),
    "super-resolution 3D": (lambda: super_resolution(3), (40, 36, 4), 8),
    "super-resolution 2D": (lambda: super_resolution(2, (3, 4, 4)), (72, 64), 12),
    "copula GAN 3D": (lambda: copula_gan(3), (40, 36, 4), 8),
    "copula GAN 2D": (lambda: copula_gan(2, (3, 4, 4)), (72, 64), 12),
    "copula GAN, open faces": (lambda: copula_gan(2, periodic=False), (61, 42), 9),
}


@pytest.mark.parametrize("case", CASES)
def test_chunks_are_the_whole_box(case: str) -> None:
    factory, shape, chunk = CASES[case]
    emulator = factory()
    coarse = coarse_for(emulator, shape)
    with torch.no_grad():
        whole = emulator.generate(theta_for(emulator), generators(), coarse, shape)
        made = generate_in_chunks(local(emulator), theta_for(emulator), generators(), coarse, shape, chunk)
    plan = pieces(local(emulator), shape, chunk)
    size = max(math.prod(len(r) for r in piece.read) for piece in plan)
    assert len(plan) > 3
    assert size < 0.9 * math.prod(local(emulator).worked(shape)), "a piece is smaller than the box"
    assert worst(made, whole) < 1e-5


def test_without_its_halo_a_chunk_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with a halo a third as wide errors are plain."""
    emulator, shape = displacement(2), (40, 40)
    coarse = coarse_for(emulator, shape)
    with torch.no_grad():
        whole = emulator.generate(THETA, generators(), coarse, shape)
        monkeypatch.setattr(UNet, "halo", 4)
        made = generate_in_chunks(emulator, THETA, generators(), coarse, shape, 8)
    assert worst(made, whole) > 1e-3


def test_a_box_smaller_than_chunk_and_halo_is_made_whole() -> None:
    emulator = copula_gan(2)
    assert len(pieces(emulator, (8, 32), 8)) == 4, "but along axes that are long enough, in chunks"
    with torch.no_grad():
        whole = emulator.generate(THETA, generators())
        assert torch.equal(generate_in_chunks(emulator, THETA, generators(), chunk=4), whole)


def test_upsampling_in_slabs_is_upsampling_at_once() -> None:
    emulator = super_resolution(3)
    coarse = coarse_for(emulator, (16, 8, 8))
    assert coarse is not None
    whole = emulator.upsampled(coarse, THETA)
    emulator.SLAB = 3 * 2 * 4 * 64
    assert torch.equal(emulator.upsampled(coarse, THETA), whole)


@pytest.mark.parametrize("shape", [(12, 10), (8, 6, 10)])
def test_expansion_is_strain_and_second_order(shape: tuple[int, ...]) -> None:
    psi = torch.randn(2, len(shape), *shape, generator=torch.Generator().manual_seed(0))
    spacing = (1.5, 2.0, 1.0)[: len(shape)]
    known = torch.cat([strain(psi, spacing), second_order(psi, spacing)], 1)
    assert worst(torch.stack(list(expansion(lambda i: psi[:, i], spacing)), 1), known) < 2e-6


@pytest.mark.parametrize("shape", [(8, 6), (5, 7)])
def test_white_channels_are_the_same_numbers(shape: tuple[int, ...]) -> None:
    made = torch.stack(list(white_channels(generators(), 3, shape)), 1)
    assert torch.equal(made, normal(generators(), (3, *shape)))


# Seams


def excess_at_seams(fields: Tensor, chunk: int, factor: int) -> float:
    """Mean squared step across chunks' faces over that across other cells' at the same place in the
    network's coarsest cells, less 1, in standard errors of the scatter between fields."""
    steps = (fields - fields.roll(1, 2)).square().mean((1, 3))[:, ::factor]
    seam = torch.arange(0, fields.shape[2], factor) % chunk == 0
    ratio = steps[:, seam].mean(1) / steps[:, ~seam].mean(1) - 1
    return float(ratio.mean() / (ratio.std() / len(ratio) ** 0.5))


def test_there_are_no_seams_and_noise_by_chunk_would_make_some() -> None:
    emulator, shape, chunk, n = copula_gan(2), (96, 96), 16, 24
    params = THETA[:1].expand(n, -1)
    plan = pieces(emulator, shape, chunk)

    def inputs(seed: int) -> list[Tensor]:
        return list(emulator.inputs(params, [sample_generator(seed, i) for i in range(n)], None, shape))

    with torch.no_grad():
        shared = inputs(0)
        one = torch.empty(n, 1, *shape)
        each = torch.empty(n, 1, *shape)
        for number, piece in enumerate(plan):
            one[(..., *piece.field)] = make(emulator, shared, params, piece)
            own = [shared[0], *inputs(number + 1)[1:]]
            each[(..., *piece.field)] = make(emulator, own, params, piece)
    # In standard errors from 24 fields, Student's t: beyond 4 once in 2000, beyond 8 once in 10^7.
    assert abs(excess_at_seams(one, chunk, 2)) < 4
    assert abs(excess_at_seams(each, chunk, 2)) > 8


# From file to file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, and coarse fields for them of another size than the trained one."""
    folder = tmp_path_factory.mktemp("boxes")
    for name, emulator in {
        "displacement": displacement(2),
        "super_resolution": super_resolution(2),
        "copula_gan": copula_gan(2),
        "copula": Copula(box(8, 2), SPACE),
    }.items():
        save(emulator, folder / name, "# tiny\n")
    psi = 2 * torch.randn(2, 2, 40, 32, generator=torch.Generator().manual_seed(5))
    grid = box(8, 2).resized((40, 32))
    for name in ("psi.h5", "psi.zarr", "psi.npz", "psi.npy"):
        write_fields(folder / name, [Fields.of(psi, THETA.double())], 2, grid, SPACE, {})
    return folder


def known(folder: Path, seed: int = 0) -> Tensor:
    file = read_fields(folder / "psi.h5")
    assert isinstance(file.values, Tensor)
    return displacement(2).sample(file.params, 1, seed, file.values, shape=(40, 32)).values


def test_from_the_command_line_the_same_bytes_by_any_number_of_processes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for processes in (1, 2):
        out = tmp_path / f"{processes}.h5"
        told = [
            "apply", folder / "displacement", "--coarse", folder / "psi.h5", "--chunk", 12, "-o", out,
            "--processes", processes,
        ]  # fmt: skip
        assert main([str(word) for word in told]) == 0
        assert "2 fields in" in capsys.readouterr().out
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()
    made = read_fields(tmp_path / "1.h5")
    assert isinstance(made.values, Tensor)
    assert worst(made.values, known(folder)) < 1e-5
    assert (made.grid, made.space) == (box(8, 2).resized((40, 32)), SPACE)
    assert torch.equal(made.params, THETA.double())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.h5", "2.h5"]


@pytest.mark.filterwarnings("ignore::UserWarning:distributed")
def test_by_dask_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is an extra")
    cluster = distributed.LocalCluster(
        1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None
    )
    given = (folder / "displacement", folder / "psi.h5", None)
    with cluster, workers(scheduler=cluster.scheduler_address) as executor:
        apply_to_file(*given, tmp_path / "dask.h5", chunk=12, executor=executor)
    apply_to_file(*given, tmp_path / "here.h5", chunk=12)
    assert (tmp_path / "dask.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()


@pytest.mark.parametrize("coarse", ["psi.zarr", "psi.npz", "psi.npy"])
def test_every_format_holds_the_same_fields(folder: Path, tmp_path: Path, coarse: str) -> None:
    out = tmp_path / f"made{'.zarr' if coarse == 'psi.zarr' else '.npy'}"
    table = tmp_path / "params.csv"
    table.write_text("sigma_8,Omega_m\n" + "".join(f"{s},{o}\n" for o, s in THETA.double().tolist()))
    params = str(table) if coarse == "psi.npy" else None
    assert apply_to_file(folder / "displacement", folder / coarse, params, out, chunk=12) == 2
    values = read_fields(out).values if out.suffix == ".zarr" else torch.from_numpy(np.load(out))
    assert isinstance(values, Tensor)
    assert worst(values, known(folder)) < 1e-5


def test_fields_without_coarse_ones_have_the_shape_asked_for(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps.h5"
    apply_to_file(folder / "copula_gan", None, TEXT, out, shape=(48, 40), chunk=12, seed=7)
    made = read_fields(out).values
    sampled = copula_gan(2).sample(THETA[:1].double(), 1, 7, shape=(48, 40)).values
    assert isinstance(made, Tensor)
    assert worst(made, sampled) < 1e-5


class Interrupted(Executor):
    """Does ``left`` tasks, then is interrupted by the user."""

    def __init__(self, left: int) -> None:
        self.left = left

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def test_an_interrupted_job_goes_on_and_another_one_begins_anew(folder: Path, tmp_path: Path) -> None:
    given = (folder / "displacement", folder / "psi.h5", None, tmp_path / "made.npy")
    with pytest.raises(KeyboardInterrupt):
        apply_to_file(*given, chunk=12, executor=Interrupted(5))
    scratch = tmp_path / ".made.npy.chunks"
    assert [p.name for p in tmp_path.iterdir()] == [scratch.name]
    assert len(list(scratch.glob("*_*.npy"))) == 5
    marked = scratch / "1_0.npy"
    np.save(marked, np.full_like(np.load(marked), 7.0))
    apply_to_file(*given, chunk=12)
    made = torch.from_numpy(np.load(given[-1]))
    assert (made[1, :, :12] == 7).all(), "what was done is kept"
    made[1, :, :12] = known(folder)[1, :, :12]
    assert worst(made, known(folder)) < 1e-5
    assert not scratch.exists()
    with pytest.raises(KeyboardInterrupt):
        apply_to_file(*given, chunk=12, overwrite=True, executor=Interrupted(5))
    np.save(marked, np.full_like(np.load(marked), 7.0))
    apply_to_file(*given, chunk=12, seed=1, overwrite=True)
    assert worst(torch.from_numpy(np.load(given[-1])), known(folder, 1)) < 1e-5


# Bad input


def written(path: Path, values: Tensor, grid: Grid) -> Path:
    params = THETA[:1].double().expand(len(values), -1)
    write_fields(path, [Fields.of(values, params)], len(values), grid, SPACE, {})
    return path


BAD = {
    "cells of 4 x 4 Mpc/h, the emulator takes coarse cells of 8 x 8": ("super_resolution", {}),
    "is a periodic 3D box": ("displacement", {"values": torch.zeros(1, 3, 4, 4, 4), "grid": box(4, 3)}),
    "is a not periodic 2D box": ("displacement", {"grid": box(8, 2, periodic=False)}),
    "sides must divide by 2 cells, got .9, 8.": (
        "displacement", {"values": torch.zeros(1, 2, 9, 8), "grid": box(8, 2).resized((9, 8))}
    ),
    "must have shape .B, 2, 8, 8., got .1, 1, 8, 8.": ("displacement", {"values": torch.zeros(1, 1, 8, 8)}),
    "not finite in field 1": (
        "displacement", {"values": torch.stack([torch.zeros(2, 8, 8), torch.full((2, 8, 8), torch.nan)])}
    ),
    "never negative": (
        "super_resolution", {"values": -torch.ones(1, 1, 8, 8), "grid": Grid((8, 8), 64.0, "Mpc/h", True)}
    ),
    "makes fields from coarse ones; give --coarse": ("displacement", {"coarse": []}),
    "takes no coarse fields; leave out --coarse": ("copula_gan", {}),
    "not a local map": ("copula", {"coarse": ["--params", TEXT]}),
    "sides of a periodic field must divide by 2": (
        "copula_gan", {"coarse": ["--params", TEXT, "--shape", "9,8"]}
    ),
    "shape must be 2 sizes": ("copula_gan", {"coarse": ["--params", TEXT, "--shape", "8"]}),
    "one of --shape and --coarse": ("displacement", {"more": ["--shape", "8,8"]}),
    "chunk must be at least 1 cell": ("displacement", {"more": ["--chunk", "0"]}),
    "--processes must be at least 1": ("displacement", {"more": ["--processes", "0"]}),
    "written in chunks to .h5, .zarr, .npy": ("displacement", {"out": "made.fits"}),
    "outside the trained range": ("displacement", {"more": ["--params", "Omega_m=0.9,sigma_8=0.8"]}),
    "no file of fields": ("displacement", {"coarse": ["--coarse", "nothing.npy"]}),
}  # fmt: skip


@pytest.mark.parametrize("said", BAD)
def test_bad_input_is_one_sentence(
    said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, given = BAD[said]
    file = tmp_path / "coarse.h5"
    written(file, given.get("values", torch.zeros(1, 2, 8, 8)), given.get("grid", box(8, 2)))
    out = tmp_path / given.get("out", "made.h5")
    told = ["apply", folder / name, *given.get("coarse", ["--coarse", file]), "-o", out, "--processes", 1]
    assert main([str(word) for word in (*told, *given.get("more", []))]) == 2
    message = capsys.readouterr().err
    assert message.startswith("cosmozoo: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    assert re.search(said, message), message
    assert [p.name for p in tmp_path.iterdir()] == ["coarse.h5"]


def test_what_is_there_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.h5"
    out.write_text("precious")
    with pytest.raises(InputError, match="give --overwrite"):
        apply_to_file(folder / "displacement", folder / "psi.h5", None, out)
    assert out.read_text() == "precious"


def test_params_must_be_as_many_as_boxes(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "params.csv"
    table.write_text("Omega_m,sigma_8\n" + "0.3,0.8\n" * 3)
    with pytest.raises(InputError, match="one for each of the 2 fields"):
        apply_to_file(folder / "displacement", folder / "psi.h5", str(table), tmp_path / "made.h5")
