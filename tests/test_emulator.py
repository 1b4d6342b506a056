"""What holds for every emulator: bits, ranges, shapes, configuration and derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gen.emulators.base import Emulator
from gen.emulators.copula import Copula
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
FLAT = Grid((16, 16), 1.0, "deg", False)
BOX = Grid((8, 8, 8), 50.0, "Mpc/h", True)
SMALL: dict[type[Emulator], dict[str, Any]] = {
    Copula: {},
    LatentGAN: {"latent_size": 8, "channels": (8, 8), "critic_channels": (8, 8), "latent": "student_t"},
    CopulaGAN: {"widths": (4, 8), "critic_channels": (4, 8), "margin": 4},
}
CASES = [(family, grid) for family in SMALL for grid in (FLAT, BOX)]


def make(family: type[Emulator], grid: Grid) -> Emulator:
    """An emulator with random weights everywhere, so that no path is switched off by a zero."""
    torch.manual_seed(0)
    emulator = family(grid, SPACE, **SMALL[family])
    with torch.no_grad():
        for parameter in emulator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        for name, buffer in emulator.named_buffers():
            if name.endswith("coefficients"):
                buffer.add_(0.1 * torch.randn(buffer.shape))
    return emulator


@pytest.mark.parametrize(("family", "grid"), CASES)
def test_bits_depend_on_seed_and_index_alone(family: type[Emulator], grid: Grid) -> None:
    emulator = make(family, grid)
    table = SPACE.restore(torch.rand(21, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    whole = emulator.sample(table, seed=3)
    first = emulator.sample(table[:5], seed=3)
    again = torch.cat([part.values for part in emulator.stream(table, seed=3)])
    assert torch.equal(whole.values[:5], first.values)
    assert torch.equal(whole.values, again)
    assert not torch.equal(whole.values, emulator.sample(table, seed=4).values)
    assert whole.values.shape == (21, 1, *grid.shape)
    assert torch.equal(whole.params, table.to(whole.params))


@pytest.mark.parametrize(("family", "grid"), CASES)
def test_config_and_state_rebuild_the_same_law(family: type[Emulator], grid: Grid) -> None:
    emulator = make(family, grid)
    twin = family.from_config(emulator.to_config())
    twin.load_state_dict(emulator.state_dict())
    params = {"Omega_m": 0.3, "sigma_8": 0.8}
    assert torch.equal(emulator.sample(params, n=2).values, twin.sample(params, n=2).values)


@pytest.mark.parametrize(("family", "grid"), CASES)
def test_fields_differentiate_with_respect_to_parameters(family: type[Emulator], grid: Grid) -> None:
    """Autograd against a central difference of the mean square of one field."""
    emulator = make(family, grid).double()

    def mean_square(params: torch.Tensor) -> torch.Tensor:
        values = emulator.stream(params, seed=1)
        return next(iter(values)).values.double().square().mean()

    params = torch.tensor([[0.3, 0.8]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_square(params), params)
    step = 1e-5
    for i in range(2):
        shift = torch.zeros(1, 2, dtype=torch.float64)
        shift[0, i] = step
        difference = (mean_square(params.detach() + shift) - mean_square(params.detach() - shift)) / (
            2 * step
        )
        assert gradient[0, i].item() == pytest.approx(difference.item(), rel=1e-3, abs=1e-7)


def test_the_same_seed_at_any_number_of_fields() -> None:
    emulator = make(CopulaGAN, FLAT)
    params = {"Omega_m": 0.3, "sigma_8": 0.8}
    assert torch.equal(
        emulator.sample(params, n=40, seed=9).values[:3], emulator.sample(params, n=3, seed=9).values
    )


@pytest.mark.parametrize("family", [Copula, CopulaGAN])
def test_any_number_of_cells_from_one_checkpoint(family: type[Emulator]) -> None:
    emulator = make(family, FLAT)
    assert emulator.sample({"Omega_m": 0.3, "sigma_8": 0.8}, shape=(24, 40)).values.shape == (1, 1, 24, 40)


def test_a_vector_latent_refuses_another_shape() -> None:
    with pytest.raises(InputError, match=r"\(16, 16\) cells only"):
        make(LatentGAN, FLAT).sample({"Omega_m": 0.3, "sigma_8": 0.8}, shape=(32, 32))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"Omega_m": 0.7, "sigma_8": 0.8}, r"Omega_m = 0.7 is outside the trained range \[0.1, 0.5\]"),
        ({"Omega_m": 0.3}, "parameters must be Omega_m, sigma_8, got Omega_m"),
        ({"Omega_m": float("nan"), "sigma_8": 0.8}, "Omega_m holds a value that is not finite"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(Copula, FLAT).sample(params)


def test_extrapolation_must_be_asked_for() -> None:
    emulator = make(Copula, FLAT)
    assert emulator.sample({"Omega_m": 0.52, "sigma_8": 0.8}, extrapolate=True).values.isfinite().all()


def test_a_table_without_columns_asks_for_that_many_fields() -> None:
    emulator = Copula(FLAT, ParameterSpace((), (), ()))
    assert emulator.sample(torch.zeros(3, 0)).values.shape == (3, 1, 16, 16)
    assert emulator.sample({}, n=2).params.shape == (2, 0)
