"""Maps between fields of particles are asked as maps from Zel'dovich displacements to evolved ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.interrogate import saliency
from evaluation.interrogate.asking import CLOSED_FORM, EMULATOR, TRUTH, linear_density, rms, zeldovich
from evaluation.interrogate.waves import plane_wave
from gen.checkpoint import save
from gen.cli import main
from gen.commands.laboratory import Laboratory
from gen.emulators.closed_forms import ClosedForm, Hermite, NeutrinoFilter, SecondOrderInverse, ShortWaves
from gen.emulators.field_map import FieldMap
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.simulate import displacement
from gen.simulate.field_pairs import Initial, Intermediate, NeutrinoLike
from gen.simulate.nbody_pairs import Run
from gen.simulate.neutrinos import suppression
from gen.simulate.theory import Cosmology

SMALL = Grid((8, 8, 8), 64.0, "Mpc/h", True)
BOX = Grid((16, 16, 16), 64.0, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
SPACE_Z = ParameterSpace(("Omega_m", "sigma_8", "z"), (0.1, 0.6, 0.1), (0.5, 1.0, 0.9))
SPACE_NU = ParameterSpace(("Omega_m", "sigma_8", "z", "m_nu"), (0.2, 0.7, 0.0, 0.0), (0.4, 0.9, 1.0, 0.6))
PARAMS = {"Omega_m": 0.3, "sigma_8": 0.8}
FORMS: dict[str, tuple[ClosedForm, ParameterSpace, dict[str, float]]] = {
    "initial": (SecondOrderInverse(), SPACE, PARAMS),
    "intermediate": (Hermite(), SPACE_Z, {**PARAMS, "z": 0.4}),
    "neutrino_like": (NeutrinoFilter(), SPACE_NU, {**PARAMS, "z": 0.5, "m_nu": 0.5}),
}
DRIFT = torch.tensor([3.0, -1.0, 2.0])[:, None, None, None]


def emulator(kind: str, grid: Grid = SMALL, learnt: float = 0.0) -> FieldMap:
    """Without training it is its closed form; ``learnt``: scatter of its last layer's weights."""
    torch.manual_seed(0)
    form, space, _ = FORMS[kind]
    net = FieldMap(grid, space, form, widths=(4, 8)).eval()
    torch.nn.init.normal_(net.network.leave.weight, 0.0, learnt)
    return net.requires_grad_(False)


def laboratory(kind: str, grid: Grid = SMALL, learnt: float = 0.0, steps: int = 3) -> Laboratory:
    return Laboratory(emulator(kind, grid, learnt), FORMS[kind][2], steps)


def first_order(grid: Grid, z: float, seed: int = 4) -> Tensor:
    """The Zel'dovich displacement of the universe that training sets simulate."""
    run = Run(Cosmology(0.3, 0.8), z, grid, seed, "cpu", 3, 2)
    modes = run.modes(grid.shape[0])
    return displacement.zeldovich(modes, grid.box_size[0], run.growth, run.a).displacement


@pytest.mark.parametrize("kind", list(FORMS))
def test_an_emulator_is_given_what_it_was_trained_on(kind: str) -> None:
    """From psi the laboratory makes the very pair that the training data hold of that universe."""
    lab, cosmology = laboratory(kind, BOX), Cosmology(0.3, 0.8)
    z = lab.params.get("z", 0.0)
    psi = lab.route.own(first_order(BOX, z))
    if kind == "initial":
        values, coarse = Initial(3).fields(cosmology, z, BOX, 4)
        assert coarse is not None and torch.allclose(lab.route.given(values), coarse, atol=2e-3)
        values = coarse  # the truth of the round trip
    elif kind == "intermediate":
        values, coarse = Intermediate(steps=3).fields(cosmology, z, BOX, 4)
    else:
        values, coarse = NeutrinoLike(3).fields(cosmology, z, BOX, 4, m_nu=0.5)
    assert coarse is not None
    scale = coarse.std((2, 3, 4), keepdim=True)
    assert ((lab.route.given(psi) - coarse).abs() / scale).max() < 5e-3
    assert torch.allclose(lab.maps()[TRUTH](psi), values, atol=5e-3)


@pytest.mark.parametrize("kind", list(FORMS))
def test_without_training_the_emulator_is_its_closed_form_and_carries_a_drift(kind: str) -> None:
    lab = laboratory(kind)
    maps, psi = lab.maps(), lab.boxes(1, 2)
    assert torch.equal(maps[EMULATOR](psi), maps[CLOSED_FORM](psi))
    learnt = laboratory(kind, learnt=0.1).maps()[EMULATOR]
    assert not torch.allclose(learnt(psi), maps[CLOSED_FORM](psi), atol=1e-2)
    for of in (maps[CLOSED_FORM], learnt):
        assert torch.allclose(of(psi + DRIFT), of(psi) + DRIFT, atol=2e-3)


def test_the_filter_of_neutrinos_is_taken_off_and_put_on_again() -> None:
    """A wave of k0 is divided by s(k0), s = sqrt(P(m_nu) / P(0)); its run is multiplied by s(k).

    Without mass there is nothing to learn, whatever the network: the emulator is the truth."""
    lab = laboratory("neutrino_like")
    psi, k = plane_wave(SMALL, (1, 0, 0), 0.6)[None], SMALL.wavenumber()

    def root(k: Tensor) -> Tensor:
        return suppression(k, torch.tensor(0.3), torch.tensor(0.5), 0.6711).sqrt()

    lifted = psi / root(torch.tensor(SMALL.k_fundamental))
    run = lab.maps()[TRUTH](lifted).double()
    expected = torch.fft.irfftn(torch.fft.rfftn(run, dim=(2, 3, 4)) * root(k), s=SMALL.shape, dim=(2, 3, 4))
    assert torch.allclose(lab.maps()[EMULATOR](psi).double(), expected, atol=1e-4)
    assert not torch.allclose(run, expected, atol=1e-2)
    massless = Laboratory(emulator("neutrino_like", learnt=0.3), {**lab.params, "m_nu": 0.0}, 2)
    maps = massless.maps()
    assert torch.allclose(maps[EMULATOR](psi), maps[TRUTH](psi), atol=1e-5)


def test_neutrinos_lower_the_boxes_that_are_drawn() -> None:
    with_mass = laboratory("neutrino_like")
    without = Laboratory(with_mass.emulator, {**with_mass.params, "m_nu": 0.0})
    ratio = rms(with_mass.boxes(2, 2)) / rms(without.boxes(2, 2))
    ends = suppression(torch.tensor([0.1, 1.0]), torch.tensor(0.3), torch.tensor(0.5), 0.6711).sqrt()
    assert (ends[1] < ratio).all() and (ratio < ends[0]).all()


def test_a_round_trip_from_the_right_initial_conditions_is_the_truth() -> None:
    """And 2LPT turned round finds better ones than no inversion at all, and better ones of weaker fields."""
    lab = laboratory("initial", BOX)
    maps, psi = lab.maps(), 0.4 * lab.boxes(1, 2)
    truth = maps[TRUTH](psi)
    assert torch.allclose(lab.route.answer(psi), truth, atol=1e-4)
    returned = rms(maps[EMULATOR](psi) - truth)
    assert (returned < 0.7 * rms(lab.route.answer(truth) - truth)).all()
    weaker = rms(maps[EMULATOR](psi / 2) - maps[TRUTH](psi / 2))
    assert (weaker < 0.5 * returned).all()


def test_the_cubic_between_two_snapshots_is_nearly_exact_for_a_wave() -> None:
    """A plane wave that has not crossed grows as D, a straight line; the mesh's own error is left, 0.5 %."""
    lab = laboratory("intermediate", steps=12)
    psi = plane_wave(SMALL, (1, 0, 0), 0.5)[None]
    found, truth = (lab.maps()[name](psi) for name in (CLOSED_FORM, TRUTH))
    assert rms(found - truth) < 5e-3 * rms(truth)
    assert rms(lab.route.given(psi)[:, :3]) < 0.9 * rms(truth)  # at z = 1 it is smaller


def test_answers_are_kept_and_are_those_that_were_asked_for() -> None:
    lab = laboratory("initial")
    run, psi = lab.route.run, lab.boxes(1, 2)
    first, other = run(psi), run(2 * psi)
    assert run(psi.clone()) is first and not torch.equal(first, other)
    assert torch.equal(first, laboratory("initial").route.run(psi))
    for i in range(run.keep):
        run((1 + 0.01 * i) * psi[:1])
    assert len(run.kept) == run.keep and run(psi) is not first


def test_saliency_leads_through_both_runs_of_a_round_trip() -> None:
    """The difference quotient of two runs; forces have kinks where particles change their cells."""
    of, particle, cell = laboratory("initial", steps=2).maps()[EMULATOR], (2, 3, 4), (1, 0, 7)
    delta = 0.2 * linear_density(first_order(SMALL, 0.0), SMALL)[0]
    lump = torch.zeros(1, *SMALL.shape, dtype=torch.float64)
    lump[(0, *((p + c) % 8 for p, c in zip(particle, cell, strict=True)))] = 1
    step = 0.02 * saliency.smoothed(lump, SMALL)[0].float()
    high, low = (
        of(zeldovich((delta + sign * step)[None], SMALL))[0][(slice(None), *particle)] for sign in (1, -1)
    )
    slope = saliency.gradients(of, delta, particle, SMALL)[(slice(None), *cell)]
    assert torch.allclose(slope, ((high - low) / 0.04).double(), atol=0.06 * float(slope.abs().max()))


@pytest.mark.parametrize(
    ("kind", "said", "middle"),
    [
        ("initial", "the round trip", {}),
        ("intermediate", "the snapshot between two", {"z": 0.5}),
        ("neutrino_like", "without massive neutrinos", {"z": 0.0, "m_nu": 0.3}),
    ],
)
def test_every_closed_form_has_a_page(kind: str, said: str, middle: dict[str, float], tmp_path: Path) -> None:
    save(emulator(kind), tmp_path / "net", "# untrained\n")
    told = [
        "interrogate",
        str(tmp_path / "net"),
        "-o",
        str(tmp_path / "page"),
        "--boxes",
        "2",
        "--steps",
        "1",
    ]
    assert main(told) == 0
    found = json.loads((tmp_path / "page" / "interrogation.json").read_text(encoding="utf-8"))
    assert found["params"] == pytest.approx({**PARAMS, **middle}) and found["redshift"] == middle.get("z", 0)
    for line in found["headline"]:
        assert line["values"][EMULATOR] == line["values"][CLOSED_FORM], line["question"]
    answers = found["answers"]
    assert set(answers["transverse"]["shear"]) == {"2LPT", "Zel'dovich"}  # runs know of no shear
    assert answers["symmetry"]["broken"][TRUTH][-1] is None
    assert answers["symmetry"]["broken"][EMULATOR][-1] < 1e-3  # a drift
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert said in page and "The emulator is not asked: the run" in page and "closed form" in page


def test_a_map_without_a_route_is_refused() -> None:
    net = FieldMap(SMALL, SPACE, ShortWaves(), widths=(4, 8))
    with pytest.raises(InputError, match="no way to ask a FieldMap that starts from ShortWaves"):
        _ = Laboratory(net, PARAMS).route
