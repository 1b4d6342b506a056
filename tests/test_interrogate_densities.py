"""Questions about densities are put to maps whose answers are known in closed form."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import jv
from torch import Tensor

from evaluation.interrogate import density_ball, density_saliency, density_symmetry, density_waves
from evaluation.interrogate.asking import EMULATOR, TRUTH, UNTOLD
from evaluation.interrogate.collapse import SphericalCollapse, from_centre
from evaluation.interrogate.densities import BY_DENSITY, GAUSSIAN, INTERPOLATION
from evaluation.interrogate.density_universes import judge
from evaluation.interrogate.waves import amplitude, plane_wave
from gen.checkpoint import save
from gen.cli import main
from gen.commands.density_laboratory import DensityLaboratory
from gen.data.base import SimulationSet
from gen.emulators.counts import GalaxyCounts
from gen.emulators.super_resolution import SuperResolution
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import linear_upsample
from gen.simulate.displacement import density

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.2, 0.7), (0.4, 0.9))
PARAMS = {"Omega_m": 0.3, "sigma_8": 0.8}
CUBE, COARSE = (Grid((n,) * 3, 64.0, "Mpc/h", True) for n in (16, 8))
SQUARE = Grid((16, 16), 64.0, "Mpc/h", True)
KINDS = ("cube", "slab", "galaxies")


def fitted(kind: str) -> tuple[SuperResolution | GalaxyCounts, Tensor, Tensor]:
    """An emulator that is fitted to nine boxes and untrained, so it is its closed form, and the boxes."""
    torch.manual_seed(0)
    net = (
        GalaxyCounts(CUBE, SPACE, widths=(4, 8))
        if kind == "galaxies"
        else SuperResolution(
            CUBE if kind == "cube" else SQUARE,
            SPACE,
            widths=(4, 8),
            critic_channels=(4, 8),
            summary_weight=0.0,
        )
    )
    universes = [{"Omega_m": om, "sigma_8": 0.8} for om in (0.25, 0.3, 0.35)]
    pairs = [DensityLaboratory(net, params, steps=2).pairs(3, 3) for params in universes]
    given, truth = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    params = torch.tensor([list(params.values()) for params in universes]).repeat_interleave(3, 0)
    split, region = np.full(9, "train"), np.full(9, "interior")
    coarse = DensityLaboratory(net, PARAMS).coarse
    net.fit(
        SimulationSet(
            net.grid, SPACE, truth, params, torch.arange(9), split, region, "a test", "1", given, coarse
        )
    )
    return net.eval().requires_grad_(False), given, truth


@pytest.fixture(scope="module")
def emulators() -> dict[str, tuple[SuperResolution | GalaxyCounts, Tensor, Tensor]]:
    return {kind: fitted(kind) for kind in KINDS}


Emulators = dict[str, tuple[SuperResolution | GalaxyCounts, Tensor, Tensor]]


# Symmetry


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_emulator_has_all_symmetries_and_a_network_those_of_its_cells(
    emulators: Emulators, kind: str
) -> None:
    net, given, truth = emulators[kind]
    lab = DensityLaboratory(net, PARAMS)
    inputs = lab.inputs(given[:2], 0)
    found = density_symmetry.ask(lab.drawings(), inputs, truth[:2], 2)
    assert len(found.names) == (6 if kind == "slab" else 7)
    for broken in found.broken.values():
        assert broken.max() < 1e-4
    learnt = copy.deepcopy(net)
    for unet in (
        (learnt.occupation, learnt.number) if isinstance(learnt, GalaxyCounts) else (learnt.generator,)
    ):
        torch.manual_seed(1)
        torch.nn.init.normal_(unet.leave.weight, 0.0, 0.3)
    again = density_symmetry.ask(DensityLaboratory(learnt, PARAMS).drawings(), inputs, truth[:2], 2)
    of = dict(zip(again.names, again.broken[EMULATOR], strict=True))
    assert of["shift by 2 cells"] < 1e-4
    assert min(of["shift by 1 cell"], of["quarter turn"], of["mirror"]) > 1e-2


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8)])
def test_broken_symmetries_are_measured_by_how_much(shape: tuple[int, ...]) -> None:
    """Cells that alternate by 10 % along x break a shift of one by 0.2; the error is the rms, sqrt(1.01)."""
    sign = 1 - 2.0 * (torch.arange(8) % 2).reshape(-1, *(1,) * (len(shape) - 1))
    x = torch.ones(2, 1, *shape)
    found = density_symmetry.ask({"alternating": lambda x: x * (1 + 0.1 * sign)}, x, 0 * x, 2)
    of = dict(zip(found.names, found.broken["alternating"], strict=True))
    assert found.error["alternating"] == pytest.approx(1.01**0.5, rel=1e-5)
    for name in ("shift by 1 cell", "mirror", "inversion"):
        assert of[name] == pytest.approx(0.2 / 1.01**0.5, rel=1e-5)
    assert of["shift by 2 cells"] == pytest.approx(0, abs=1e-6)
    # along x then along y: of the four combinations of signs half differ, by 0.2
    assert of["quarter turn"] == pytest.approx(0.2 / 2**0.5 / 1.01**0.5, rel=1e-5)


# Saliency


def test_the_identity_hears_its_own_cell_and_interpolation_the_nearest() -> None:
    """Multilinear weights are 3/4 and 1/4 along each axis: the nearest cell has (9/10)^d of the squares."""
    cells = [(3, 4, 5), (0, 15, 8)]

    def upsampled(x: Tensor) -> Tensor:
        return linear_upsample(x, 2, "circular")

    found = density_saliency.ask({"same": lambda x: 3 * x}, torch.rand(1, 1, 16, 16, 16), cells, CUBE, CUBE)
    assert found.reach["same"] == pytest.approx([0, 0]) and found.held["same"] == pytest.approx(np.ones(16))
    for grid, coarse in ((CUBE, COARSE), (SQUARE, Grid((8, 8), 64.0, "Mpc/h", True))):
        given = torch.rand(2, 1, *coarse.shape)
        there = [cell[: grid.dim] for cell in cells]
        found = density_saliency.ask(
            {"up": upsampled, "deaf": lambda x: upsampled(0 * x)}, given, there, grid, coarse
        )
        assert found.radius[:2] == pytest.approx([4, 8]) and found.n_cells == {"up": 4, "deaf": 0}
        assert found.held["up"][0] == pytest.approx(0.9**grid.dim, rel=1e-5)
        assert found.reach["up"][0] == pytest.approx(
            2 * grid.dim**0.5, rel=1e-6
        )  # a quarter of 8 Mpc/h an axis
        assert found.reach_error["up"] == pytest.approx([0, 0]) and np.isnan(found.reach["deaf"]).all()


def test_the_emulators_derivatives_are_difference_quotients(emulators: Emulators) -> None:
    """Of the fitted super-resolution, through its normal scores; and painting by density hears one cell."""
    net, given, _ = emulators["cube"]
    lab, cell, at = DensityLaboratory(net, PARAMS), (5, 6, 7), (0, 0, 2, 3, 3)
    of = lab.means(0)[GAUSSIAN]
    slope = density_saliency.gradient(of, given[:1], cell)[at[2:]]
    step = torch.zeros_like(given[:1])
    step[at] = 2e-3
    high, low = (of(given[:1] + s * step)[(0, 0, *cell)] for s in (1, -1))
    assert float(slope) == pytest.approx(float((high - low) / 4e-3), rel=0.05)
    net, given, _ = emulators["galaxies"]
    by_density = DensityLaboratory(net, PARAMS).means(0)[BY_DENSITY]
    crowded = tuple(int(i) for i in np.unravel_index(int(given[0].argmax()), CUBE.shape))
    around = tuple((i + 1) % 16 for i in crowded)
    found = density_saliency.gradient(by_density, 0.5 * given[:1], crowded)
    assert found[crowded] > 0 and (found != 0).sum() == 1 and found[around] == 0


# Waves


def test_a_density_has_the_harmonics_of_the_zeldovich_approximation() -> None:
    """2 J_m(m A) cos(m k x) before sheets cross, seen through clouds in cells, sinc^2 (k d / 2).

    Clouds are linear in the displacement: harmonics that move no particle by a cell are seen too faintly."""
    a = (0.3, 0.5, 0.7)
    psi = torch.stack([plane_wave(Grid((32,) * 3, 64.0, "Mpc/h", True), (1, 0, 0), x) for x in a])
    for m in (1, 2, 3):
        found = amplitude(density(psi, 64.0, 16)[:, 0], (m, 0, 0))
        expected = 2 * jv(m, m * np.array(a)) * np.sinc(m / 16) ** 2
        assert found.real.numpy() == pytest.approx(expected, abs=0.02)
        assert found.imag.abs().max() < 1e-5


def test_waves_are_held_against_the_truths() -> None:
    """A map of half the contrast in the mean of two drawings has half of all, whatever the harmonic."""

    def seen(psi: Tensor) -> Tensor:
        return density(psi, 64.0, 16)

    def twice(psi: Tensor) -> Tensor:
        delta = seen(psi) - 1
        return torch.cat([1 + 0.4 * delta, 1 + 0.6 * delta], 1)

    found = density_waves.ask({"half": twice, TRUTH: seen}, CUBE, COARSE)
    assert found.modes == ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 1, 1)) and found.harmonics == (1, 2, 3, 4)
    beyond = np.zeros((4, 7, 4), dtype=bool)
    beyond[1, :, 3] = True  # four times the second wave is Nyquist's
    assert (np.isnan(found.truth) == beyond).all()
    there = np.abs(found.truth) > 1e-3
    assert found.ratio["half"][there] == pytest.approx(0.5 + 0 * found.truth[there], rel=1e-3)
    # of two drawings 0.4 and 0.6: 0.1 sqrt 2 / sqrt 2
    assert found.ratio_error["half"][there] == pytest.approx(0.1 + 0 * found.truth[there], rel=1e-3)


def test_crossed_waves_are_held_against_the_truths() -> None:
    def seen(psi: Tensor) -> Tensor:
        return density(psi, 64.0, 16)

    found = density_waves.cross({"more": lambda psi: 1 + 1.5 * (seen(psi) - 1), TRUTH: seen}, CUBE, COARSE)
    assert found.pairs == ((1, 1), (2, 2)) and found.k == pytest.approx(
        2 * math.pi / 64 * np.array([2**0.5, 8**0.5])
    )
    for waves in (found.sum_wave, found.difference_wave):
        assert waves["more"] == pytest.approx(np.full((2, 7), 1.5), rel=1e-3)
    assert found.sum_error["more"].max() == 0
    maps = {"none": lambda psi: 0 * seen(psi), TRUTH: seen}
    assert density_waves.cross(maps, CUBE, COARSE).sum_wave["none"].max() == 0


# A ball


def test_a_balls_centre_is_that_of_spherical_collapse() -> None:
    """Particles that are moved exactly have the exact density; inside it is y^-3 of the linear one, but for
    the ball's smooth edge and the cells; particles moved at first order are exact for small densities."""
    theory, offset = SphericalCollapse(0.3), from_centre(CUBE)

    def seen(psi: Tensor) -> Tensor:
        return density(psi, 64.0, 16)

    def exact(psi: Tensor) -> Tensor:
        linear = -3 * (psi.double() * offset).sum(1) / offset.square().sum(0)
        return seen(density_ball.shells(theory, linear, offset))

    maps = {"exact": exact, "first order": seen, TRUTH: exact}
    found = density_ball.ask(maps, seen, CUBE, COARSE, 0.3, 1.0)
    assert found.radius == pytest.approx([8, 12]) and np.isfinite(found.exact).all()
    assert found.central["exact"] == pytest.approx(found.exact, rel=1e-5)
    assert found.central_error["exact"].max() == 0
    small = np.abs(found.density) < 0.6
    assert found.exact[1][small[1]] == pytest.approx(theory.ratio(found.density[1][small[1]]) ** -3, rel=0.15)
    assert found.central["first order"][small] == pytest.approx(found.exact[small], rel=0.12)
    assert (found.central["first order"][:, -1] < found.exact[:, -1]).all()  # (1 - d/3)^-3 < y^-3


# Other universes


def test_bands_know_amplitudes_and_phases() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4, 1, 16, 16, 16, generator=generator)
    axes = (2, 3, 4)
    low = torch.fft.irfftn(
        torch.fft.rfftn(truth, dim=axes) * (CUBE.wavenumber() <= CUBE.k_nyquist / 2 + 1e-9),
        s=CUBE.shape,
        dim=axes,
    ).float()
    fields = {"twice": 2 * truth, "opposite": -truth, "long": low + 1e-6 * truth}
    found = judge(fields, truth, CUBE, CUBE.k_nyquist / 2, PARAMS, 1.0, trained=True)
    assert found.bands == pytest.approx((math.pi / 8, math.pi / 4))
    assert found.errors["twice"].transfer == pytest.approx([2, 2], rel=1e-4)
    assert found.errors["opposite"].coherence == pytest.approx([-1, -1], rel=1e-4)
    assert found.errors["long"].transfer[0] == pytest.approx(1, abs=0.05)
    assert found.errors["long"].transfer[1] < 0.25  # the shell that is cut through


# The command


@pytest.mark.parametrize(
    ("kind", "closed", "said"),
    [
        ("cube", GAUSSIAN, "that of a coarse run in 8 × 8 × 8"),
        ("slab", GAUSSIAN, "these fields are slabs"),
        ("galaxies", BY_DENSITY, "halos of such universes are artefacts"),
    ],
)
def test_without_training_every_line_is_the_closed_forms(
    emulators: Emulators,
    kind: str,
    closed: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(emulators[kind][0], tmp_path / "net", "# untrained\n")
    told = [
        "interrogate",
        str(tmp_path / "net"),
        "-o",
        str(tmp_path / "page"),
        "--boxes",
        "2",
        "--steps",
        "2",
    ]
    assert main(told) == 0
    assert "phases, r: emulator" in capsys.readouterr().out
    found = json.loads((tmp_path / "page" / "interrogation.json").read_text(encoding="utf-8"))
    for line in found["headline"]:
        assert line["values"][EMULATOR] == line["values"][closed], line["question"]
    answers = found["answers"]
    assert (answers["waves"] is None) == (kind != "cube")
    # at Omega_m = 0.5 particles are too heavy for the smallest halos
    assert len(answers["universes"]) == (8 if kind == "galaxies" else 9)
    assert answers["universes"][0]["params"] == PARAMS
    errors = answers["universes"][1]["errors"]
    assert errors[UNTOLD] != errors[EMULATOR]  # a universe of Omega_m = 0.1, told the middle
    if kind != "galaxies":
        assert answers["symmetry"]["broken"][INTERPOLATION] == pytest.approx(
            [0] * len(answers["symmetry"]["names"]), abs=1e-4
        )
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert said in html and "<script" not in html
    assert html.count('src="data:image/svg+xml;base64,') == (5 if kind == "cube" else 2)
