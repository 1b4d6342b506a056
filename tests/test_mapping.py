"""Maps between displacement fields: their closed forms, symmetries, and that they learn what these lack."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from given import Given
from torch import Tensor

import gen
from gen import checkpoint
from gen.data.base import SimulationSet
from gen.data.module import FieldData
from gen.emulators.closed_forms import (
    ClosedForm,
    Hermite,
    NeutrinoFilter,
    SecondOrderInverse,
    Universe,
    from_config,
)
from gen.emulators.field_map import FieldMap
from gen.emulators.perturbation import GrowthTable, second_order
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator
from gen.simulate import displacement as particles
from gen.simulate.field_pairs import Intermediate
from gen.simulate.growth import Growth
from gen.simulate.initial import displacements, linear_modes, white_noise
from gen.simulate.neutrinos import suppression
from gen.simulate.recipe import parse_recipe
from gen.simulate.run import load_simulations, simulate
from gen.simulate.theory import Cosmology
from gen.training.base import TrainingRecipe, train
from gen.training.best import best_record
from gen.training.fidelity import LagrangianEulerian, MeanSquare
from gen.training.optimisation import Adam

BOX = 64.0
CUBE = Grid((8, 8, 8), BOX, "Mpc/h", True)
SQUARE = Grid((8, 8), BOX, "Mpc/h", True)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
SPACE_Z = ParameterSpace(("Omega_m", "sigma_8", "z"), (0.1, 0.6, 0.1), (0.5, 1.0, 0.9))
SPACE_NU = ParameterSpace(("Omega_m", "sigma_8", "z", "m_nu"), (0.2, 0.7, 0.0, 0.0), (0.4, 0.9, 1.0, 0.6))
FORMS: dict[str, tuple[ClosedForm, ParameterSpace]] = {
    "initial": (SecondOrderInverse(), SPACE),
    "intermediate": (Hermite(), SPACE_Z),
    "neutrino_like": (NeutrinoFilter(), SPACE_NU),
}
COSMO = Cosmology(0.3, 0.8)


def cube(n: int) -> Grid:
    return Grid((n, n, n), 4.0 * n, "Mpc/h", True)


def waves(grid: Grid, seed: int = 0) -> Tensor:
    """Smooth random vector fields ``(2, dim, *shape)`` of a few Mpc/h."""
    x = torch.stack(torch.meshgrid(*[torch.arange(n) / n for n in grid.shape], indexing="ij"))
    generator = torch.Generator().manual_seed(seed)
    psi = torch.zeros(2, grid.dim, *grid.shape)
    for k in ((1, 0, 0), (0, 1, 0), (1, 1, 1), (2, 1, 0), (0, 1, 2)):
        phase = sum(n * x[i] for i, n in enumerate(k[: grid.dim]))
        amplitude = torch.randn(2, grid.dim, *(1,) * grid.dim, generator=generator)
        psi += amplitude * torch.sin(2 * math.pi * phase + amplitude.sum(1, keepdim=True))
    return psi


def universe(grid: Grid, **columns: float) -> Universe:
    return Universe({name: torch.tensor([x, x]) for name, x in columns.items()}, GrowthTable(), grid.spacing)


def params(space: ParameterSpace) -> Tensor:
    return torch.tensor([[0.3, 0.8, 0.5, 0.3], [0.25, 0.85, 0.2, 0.1]])[:, : len(space)]


def given(kind: str, grid: Grid = CUBE) -> Tensor:
    """Coarse fields of the kind that a closed form takes."""
    if kind != "intermediate":
        return waves(grid)
    return torch.cat([waves(grid), 60 * waves(grid, 1), 1.6 * waves(grid), 80 * waves(grid, 2)], 1)


def emulator(kind: str, grid: Grid = CUBE) -> FieldMap:
    """One that has learnt something: its last layer is random."""
    form, space = FORMS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = FieldMap(grid, space, form, widths=(4, 8))
        torch.nn.init.normal_(net.network.leave.weight, 0.0, 0.2)
    return net.requires_grad_(False)


# Closed forms


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
@pytest.mark.parametrize("z", [0.15, 0.5, 0.8])
def test_hermite_is_exact_for_cubics_in_the_growth_factor_and_errs_as_it_must_beyond(
    grid: Grid, z: float
) -> None:
    Omega_m, ends = 0.25, (1.0, 0.0)
    growth = Growth(Omega_m)
    powers = [waves(grid, seed).double() for seed in range(5)]

    def at(z: float, degree: int) -> tuple[Tensor, Tensor]:
        """psi of a polynomial in D, and v = a H d psi / d ln a."""
        a = 1 / (1 + z)
        d = float(growth.first(a))
        psi = torch.stack([c * d**i for i, c in enumerate(powers[: degree + 1])]).sum(0)
        slope = torch.stack([i * c * d ** (i - 1) for i, c in enumerate(powers[: degree + 1]) if i]).sum(0)
        rate = float(growth.first_momentum(a)) / (a**2 * float(growth.expansion(a)))  # dD / d ln a
        return psi, 100 * a * float(growth.expansion(a)) * rate * slope

    for degree in (3, 4):
        coarse = torch.cat([part for end in ends for part in at(end, degree)], 1).float()
        made = Hermite(*ends)(coarse, universe(grid, Omega_m=Omega_m, z=z)).made
        early, now, late = (float(growth.first(1 / (1 + at))) for at in (1.0, z, 0.0))
        beyond = powers[4] * (now - early) ** 2 * (now - late) ** 2 if degree == 4 else 0
        # Growth is tabulated to 1e-5, and slopes are of the order of psi over one unit of D.
        assert (at(z, degree)[0] - made - beyond).abs().max() < 1e-4 * made.abs().max()


def test_hermite_knows_second_order_theory() -> None:
    """2LPT of a source without steps: D2 / D1^2 moves by 0.7 % between the ends, and the cubic follows."""
    values, coarse = Intermediate(steps=0).fields(COSMO, 0.4, cube(16), seed=1)
    first, _ = Intermediate(steps=0).fields(Cosmology(0.3, 0.1), 0.4, cube(16), seed=1)
    assert coarse is not None
    columns = {"Omega_m": torch.tensor([0.3]), "z": torch.tensor([0.4])}
    made = Hermite()(coarse, Universe(columns, GrowthTable(), cube(16).spacing)).made
    second = (values - 8 * first).std()  # at sigma_8 = 0.1 there is an eighth of the second order
    assert (made - values).std() < 1e-3 * second


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
def test_a_plane_wave_is_its_own_initial_condition(grid: Grid) -> None:
    n = grid.shape[0]
    psi = torch.zeros(2, grid.dim, *grid.shape)
    psi[:, 0] = torch.sin(2 * math.pi * torch.arange(n) / n).reshape(-1, *(1,) * (grid.dim - 1))
    made = SecondOrderInverse()(psi, universe(grid, Omega_m=0.3)).made
    assert torch.allclose(made, psi, atol=1e-5)


def test_second_order_theory_is_turned_round_up_to_third_order() -> None:
    """Against the simulator's 2LPT: what is left falls as the cube of the amplitude."""
    n, z, Omega_m = 16, 0.5, 0.3
    grid = Grid((n,) * 3, BOX, "Mpc/h", True)
    noise = white_noise([sample_generator(0, i) for i in range(2)], n)
    low = torch.fft.fftfreq(n, 1 / n).abs() < n / 6
    held = low[:, None, None] & low[:, None] & low[: n // 2 + 1]
    delta = linear_modes(noise, BOX, lambda k: 100 * k**-1.5) * held
    growth, a = Growth(Omega_m), 1 / (1 + z)
    left = []
    for scale in (0.5, 0.25):
        true = particles.zeldovich(scale * delta, BOX, growth, a).displacement
        evolved = particles.second_order(scale * delta, BOX, growth, a).displacement
        made = SecondOrderInverse(redshift=z)(evolved, universe(grid, Omega_m=Omega_m)).made
        left.append((made - true).std().item())
        # The leading term: twice the mixed second order of psi1 and its own second order.
        second = float(growth.second(a)) * displacements(scale * delta, BOX)[1]
        ratio = float(growth.second(a) / growth.first(a) ** 2)
        mixed = second_order(true + second, grid.spacing) - second_order(true, grid.spacing)
        assert torch.allclose(made - true, -ratio * mixed, atol=0.02 * left[-1])
    assert left[0] / left[1] == pytest.approx(8, rel=0.1)


def test_the_linear_filter_is_the_root_of_the_ratio_of_linear_powers() -> None:
    h, m_nu, Omega_m = 0.6711, 0.4, 0.3
    f_nu = m_nu / 93.14 / h**2 / Omega_m
    psi = waves(CUBE)
    made = NeutrinoFilter()(psi, universe(CUBE, Omega_m=Omega_m, m_nu=m_nu)).made
    before, after = (torch.fft.rfftn(x, dim=(2, 3, 4)) for x in (psi, made))
    for mode in ((1, 0, 0), (1, 1, 1), (2, 1, 0)):
        k = 2 * math.pi / BOX * math.hypot(*mode)
        start = 0.018 * math.sqrt(Omega_m * m_nu / 3)
        expected = math.exp(-8 * f_nu * k / (k + 17 * start))
        x, y = before[(slice(None), 0, *mode)], after[(slice(None), 0, *mode)]
        assert (y / x).real.square().tolist() == pytest.approx([expected] * 2, rel=1e-3)
        assert 1 - 8 * f_nu < expected < 1
    k = torch.tensor([1e-5, 1e3])
    ends = suppression(k, torch.tensor(Omega_m), torch.tensor(0.03), h)
    assert ends.tolist() == pytest.approx([1, 1 - 8 * f_nu * 0.03 / m_nu], abs=2e-3)
    massless = NeutrinoFilter()(psi, universe(CUBE, Omega_m=Omega_m, m_nu=0.0))
    assert torch.allclose(massless.made, psi, atol=1e-5) and not massless.weight.any()


# The emulator


@pytest.mark.parametrize("grid", [SQUARE, CUBE], ids=["2D", "3D"])
@pytest.mark.parametrize("kind", FORMS)
def test_untrained_it_is_its_closed_form(kind: str, grid: Grid) -> None:
    form, space = FORMS[kind]
    net, coarse, p = FieldMap(grid, space, form, widths=(4, 8)), given(kind, grid), params(space)
    columns = dict(zip(space.names, p.unbind(1), strict=True))
    expected = form(coarse, Universe(columns, GrowthTable(), grid.spacing)).made
    assert torch.allclose(net.sample(p, coarse=coarse).values, expected, atol=1e-5)


@pytest.mark.parametrize("kind", FORMS)
def test_moving_all_matter_alike_moves_the_answer_alike(kind: str) -> None:
    net, coarse = emulator(kind), given(kind)
    p = params(net.space)
    shift = torch.tensor([3.0, -2.0, 1.0])[:, None, None, None]
    made, moved = (net.predict(x, p) for x in (coarse, coarse + shift.repeat(coarse.shape[1] // 3, 1, 1, 1)))
    if kind == "intermediate":  # displaced once and for all: the velocities do not change
        still = torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat_interleave(3)[:, None, None, None]
        moved = net.predict(coarse + still * shift.repeat(4, 1, 1, 1), p)
    assert torch.allclose(moved - made, shift.expand_as(made), atol=2e-3)
    rolled = net.predict(coarse.roll((2, 4), (2, 3)), p)
    assert torch.allclose(rolled, made.roll((2, 4), (2, 3)), atol=1e-3)
    assert (made - net.closed_form(coarse, p)).std() > 0.01


@pytest.mark.parametrize(("z", "channels"), [(1.0, slice(0, 3)), (0.0, slice(6, 9))])
def test_at_the_ends_a_learnt_interpolation_returns_the_snapshots(z: float, channels: slice) -> None:
    net, coarse = emulator("intermediate"), given("intermediate")
    made = net.predict(coarse, torch.tensor([[0.3, 0.8, z]] * 2))
    assert torch.allclose(made, coarse[:, channels], atol=1e-4)


def test_it_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    net, coarse = emulator("intermediate"), given("intermediate")
    checkpoint.save(net, tmp_path / "c", "card")
    again = gen.load(tmp_path / "c")
    p = params(SPACE_Z)
    one, other = (e.sample(p, seed=s, coarse=coarse).values for s, e in ((0, net), (7, again)))
    assert torch.equal(one, other)
    for form, _ in FORMS.values():
        assert from_config(json.loads(json.dumps(form.to_config()))) == form


# Pairs, and learning from them


def content(kind: str) -> dict[str, Any]:
    """A data recipe of a dozen small boxes for training and six for validation."""
    space = FORMS[kind][1]
    return {
        "name": kind,
        "seed": 5,
        "grid": {"shape": [16, 16, 16], "box_size": 64, "unit": "Mpc/h", "periodic": True},
        "space": {"names": list(space.names), "low": list(space.low), "high": list(space.high)},
        kind: {"steps": 4},
        "training": {"cosmologies": 18, "boxes": 1, "validation": 3},
    }


@pytest.fixture(scope="module", params=list(FORMS))
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimulationSet:
    recipe = parse_recipe(content(request.param))
    return load_simulations(simulate(recipe, tmp_path_factory.mktemp("maps"), 1, progress=False)).check()


def test_it_learns_what_the_closed_form_lacks(pairs: SimulationSet, tmp_path: Path) -> None:
    """On boxes and cosmologies that it has not seen, after 60 steps on twelve others."""
    loss = MeanSquare() if pairs.name == "initial" else LagrangianEulerian()
    form, _ = FORMS[pairs.name]
    recipe = TrainingRecipe(
        name="toy",
        data=FieldData(Given(pairs), batch_size=4),
        emulator=lambda grid, space: FieldMap(grid, space, form, widths=(8, 16)),
        loss=loss,
        optimiser=Adam(rate=4e-3, betas=(0.9, 0.99), clip=20.0, schedule="cosine"),
        max_steps=60,
        ema_decay=0.8,
        accelerator="cpu",
        validate_every=30,
        validation_maps=6,
    )
    train(recipe, tmp_path / "run")
    record = best_record(tmp_path / "run")
    assert record is not None and record["score"] < 1
    shipped = gen.load(tmp_path / "run" / "checkpoint")
    held = pairs.select(split="validation")
    assert held.coarse is not None
    made = shipped.sample(held.params, coarse=held.coarse).values
    closed = FieldMap(pairs.grid, pairs.space, form).closed_form(held.coarse, held.params)
    errors = [(x - held.values).square().flatten(1).mean(1).sqrt() for x in (made, closed)]
    assert (errors[0] / errors[1]).mean().item() == pytest.approx(record["score"], rel=1e-3)


# Refusals


def test_bad_input_is_one_sentence() -> None:
    net, psi = emulator("initial"), waves(CUBE)
    far = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * BOX / 3
    for coarse, said in (
        (None, "makes fields from the evolved displacement"),
        (psi[:, :2], r"must have shape \(B, 3, 8, 8, 8\), got"),
        (psi[..., :6], "must have shape"),
        (far, "out of order or of another box"),
    ):
        with pytest.raises(InputError, match=said) as error:
            net.sample(params(SPACE), coarse=coarse)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="periodic box in Mpc/h"):
        FieldMap(Grid((8, 8), 3.5, "deg", False), SPACE, SecondOrderInverse())
    with pytest.raises(InputError, match="Hermite needs the parameter z"):
        FieldMap(CUBE, SPACE, Hermite())
    with pytest.raises(InputError, match="NeutrinoFilter needs the parameter m_nu"):
        FieldMap(CUBE, SPACE_Z, NeutrinoFilter())
    with pytest.raises(InputError, match="between the snapshots at 0 and 0"):
        FieldMap(CUBE, SPACE_Z, Hermite(0.5, 0.0))
    with pytest.raises(InputError, match="below z_early"):
        Hermite(0.0, 1.0)
    with pytest.raises(InputError, match="must be one of SecondOrderInverse, Hermite, Neutrino"):
        from_config({"kind": "Magic"})


def test_pairs_that_do_not_match_are_refused(pairs: SimulationSet) -> None:
    form, space = FORMS[pairs.name]
    net = FieldMap(pairs.grid, space, form, widths=(4, 8))
    assert pairs.coarse is not None
    with pytest.raises(InputError, match="do not match their coarse fields"):
        net.fit(replace(pairs, coarse=pairs.coarse.roll(1, 0)))
    mixed = pairs.coarse.flatten(2)[..., torch.randperm(16**3, generator=torch.Generator().manual_seed(0))]
    with pytest.raises(InputError, match=r"out of order|do not match"):
        net.fit(replace(pairs, coarse=mixed.unflatten(2, (16, 16, 16))))
    with pytest.raises(InputError, match="the emulator is for"):
        FieldMap(cube(8), space, form, widths=(4, 8)).fit(pairs)
    with pytest.raises(InputError, match="no coarse ones"):
        net.fit(replace(pairs, coarse=None, coarse_grid=None))
