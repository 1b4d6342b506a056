"""Grids, fields and parameter spaces: units, wavenumbers of plane waves, ranges and refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


def test_a_grid_in_lengths() -> None:
    grid = Grid((64, 64, 32), (100.0, 100.0, 50.0), "Mpc/h", periodic=True)
    assert grid.dim == 3 and grid.n_cells == 64 * 64 * 32 and not grid.angular and grid.k_unit == "h/Mpc"
    assert grid.spacing == (1.5625, 1.5625, 1.5625)
    assert grid.k_fundamental == pytest.approx(2 * math.pi / 100)
    assert grid.k_nyquist == pytest.approx(math.pi / 1.5625)


@pytest.mark.parametrize(("unit", "side"), [("deg", 3.5), ("arcmin", 210.0), ("rad", math.radians(3.5))])
def test_angles_give_multipoles_whatever_their_unit(unit: str, side: float) -> None:
    grid = Grid((64, 64), side, unit, periodic=False)
    assert grid.angular and grid.k_unit == "multipole"
    assert grid.k_fundamental == pytest.approx(360 / 3.5)  # a 3.5 deg wave has l = 360/3.5
    assert grid.k_nyquist == pytest.approx(32 * 360 / 3.5)


def test_sides_that_differ_give_the_longest_wave_and_the_coarsest_nyquist() -> None:
    grid = Grid((10, 40), (1.0, 2.0), "Mpc/h", periodic=True)
    assert grid.k_fundamental == pytest.approx(math.pi) and grid.k_nyquist == pytest.approx(10 * math.pi)


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (4, 6, 8), (3, 5, 7)])
@pytest.mark.parametrize("half", [True, False])
def test_wavenumbers_are_those_of_plane_waves(shape: tuple[int, ...], half: bool) -> None:
    """A wave of known k puts its power on lattice points whose wavenumber is |k|."""
    sides = [10.0 * (a + 1) for a in range(len(shape))]
    grid = Grid(shape, sides, "Mpc/h", periodic=True)
    k = grid.wavenumber(half=half)
    transform = np.fft.rfftn if half else np.fft.fftn
    cells = np.meshgrid(*[np.arange(n) * s / n for n, s in zip(shape, sides, strict=True)], indexing="ij")
    for mode in ([1, 0, 0], [0, 1, 0], [1, 2, 1], [-1, 1, 1]):
        vector = [2 * math.pi * m / s for m, s in zip(mode, sides, strict=False)]
        wave = np.cos(sum(v * x for v, x in zip(vector, cells, strict=True)))
        power = np.abs(transform(wave)) ** 2
        assert k.shape == power.shape and k.dtype == torch.float64
        assert np.allclose(k.numpy()[power > 1e-6 * power.max()], math.hypot(*vector), rtol=1e-12)


def test_resizing_keeps_the_spacing() -> None:
    grid = Grid((64, 64), 3.5, "deg", periodic=False)
    large = grid.resized((128, 96))
    assert large.shape == (128, 96) and large.spacing == grid.spacing and large.k_nyquist == grid.k_nyquist
    with pytest.raises(InputError, match="2 sizes"):
        grid.resized((8, 8, 8))


def test_grids_are_values_and_survive_json() -> None:
    grid = Grid([8, 8], 1, "Mpc/h", True)
    assert (
        Grid.from_dict(json.loads(json.dumps(grid.to_dict())))
        == grid
        == Grid((8, 8), (1.0, 1.0), "Mpc/h", True)
    )
    assert hash(grid) == hash(Grid((8, 8), 1.0, "Mpc/h", True)) and grid != Grid((8, 8), 1.0, "Mpc/h", False)
    with pytest.raises(AttributeError):
        grid.periodic = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((8,), 1.0, "deg", True), r"2 or 3 sizes.*\(8,\)"),
        (((8, 8, 8, 8), 1.0, "deg", True), "2 or 3 sizes"),
        (((8, 1), 1.0, "deg", True), "at least 2 cells"),
        (((8, 8), 0.0, "deg", True), "must be positive"),
        (((8, 8), math.inf, "deg", True), "must be positive"),
        (((8, 8), (1.0, 2.0, 3.0), "deg", True), "one or 2 numbers"),
        (((8, 8), 1.0, "kpc", True), "'kpc'"),
    ],
)
def test_grids_that_cannot_be_are_refused(arguments, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Grid(*arguments)


def test_fields_fill_in_what_is_absent() -> None:
    fields = Fields.of(torch.randn(3, 2, 4, 5))
    assert fields.params.shape == (3, 0) and fields.coarse.shape == (3, 0, 4, 5)
    values, params, coarse = Fields.of(fields.values, torch.ones(3, 2), torch.ones(3, 1, 2, 2))
    assert values is fields.values and params.shape == (3, 2) and coarse.shape == (3, 1, 2, 2)
    with pytest.raises(InputError, match="equal rows, got 3, 2, 3"):
        Fields.of(fields.values, torch.ones(2, 2))


def test_normalise_maps_the_range_to_minus_one_and_one_and_back() -> None:
    corners = torch.tensor([[0.1, 0.6], [0.5, 1.0], [0.3, 0.8]], dtype=torch.float64)
    unit = SPACE.normalise(corners)
    assert torch.allclose(unit, torch.tensor([[-1.0, -1], [1, 1], [0, 0]], dtype=torch.float64), atol=1e-15)
    far = torch.tensor([[0.05, 1.3], [0.77, -0.2]], dtype=torch.float64)
    assert torch.allclose(SPACE.restore(SPACE.normalise(far)), far, atol=1e-15)
    assert SPACE.normalise(corners.float()).dtype == torch.float32


def test_inside_forgives_rounding_and_nothing_more() -> None:
    rows = torch.tensor([[0.1, 0.6], [0.5 + 1e-8, 1.0], [0.501, 0.8], [0.3, 0.599]], dtype=torch.float64)
    assert SPACE.inside(rows).tolist() == [True, True, False, False]
    assert SPACE.inside(torch.tensor([[0.1, 0.6], [0.5, 1.0]])).all()  # float32 of the ends


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0.3, 1.2]], r"sigma_8 = 1.2 is outside the trained range \[0.6, 1\].*--extrapolate"),
        ([[0.3, 0.8], [0.05, 0.8]], "Omega_m = 0.05"),
        ([[math.nan, 0.8]], "Omega_m holds a value that is not finite"),
        ([[0.3, math.inf]], "sigma_8 holds"),
        ([[0.3]], r"\(N, 2\) of Omega_m, sigma_8, got shape \(1, 1\)"),
    ],
)
def test_check_names_parameter_value_and_range(rows: list[list[float]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SPACE.check(torch.tensor(rows, dtype=torch.float64))


def test_extrapolation_is_allowed_only_when_asked_and_never_to_infinity() -> None:
    SPACE.check(torch.tensor([[0.05, 1.4]]), extrapolate=True)
    with pytest.raises(InputError, match="not finite"):
        SPACE.check(torch.tensor([[0.3, math.inf]]), extrapolate=True)


def test_table_takes_columns_by_name_in_any_order() -> None:
    table = SPACE.table({"sigma_8": [0.7, 0.8, 0.9], "Omega_m": 0.3})
    assert table.dtype == torch.float64 and table.tolist() == [[0.3, 0.7], [0.3, 0.8], [0.3, 0.9]]
    assert SPACE.table(np.array([0.3, 0.8])).shape == (1, 2)
    assert ParameterSpace((), (), ()).table({}).shape == (1, 0)


@pytest.mark.parametrize(
    "given", [{"Omega_m": 0.3}, {"Omega_m": 0.3, "sigma_8": 0.8, "w": -1.0}, {"Om": 1, "s8": 1}]
)
def test_table_refuses_missing_and_unknown_names(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"must be Omega_m, sigma_8, got {', '.join(given)}"):
        SPACE.table(given)


def test_gradients_pass_through_the_table() -> None:
    params = torch.tensor([[0.3, 0.8]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(SPACE.normalise(SPACE.table(params)).sum(), params)
    assert torch.allclose(slope, torch.full((1, 2), 5.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((("a", "a"), (0, 0), (1, 1)), "must differ"),
        ((("a",), (0, 0), (1, 1)), "as many"),
        ((("a",), (1,), (1,)), "low < high"),
        ((("a",), (0,), (math.inf,)), "finite"),
    ],
)
def test_spaces_that_cannot_be_are_refused(arguments, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ParameterSpace(*arguments)


def test_spaces_survive_json() -> None:
    assert ParameterSpace.from_dict(json.loads(json.dumps(SPACE.to_dict()))) == SPACE
