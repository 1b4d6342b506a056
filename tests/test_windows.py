"""Windows leave no seams: weights sum to 1, local denoisers are exact, short waves keep their power."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gen.diffusion.levels import Ladder
from gen.diffusion.solver import solve
from gen.diffusion.windows import Windowed
from gen.errors import InputError


def pointwise(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x) / (1 + sigma)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(
    ("shape", "window", "overlap", "margin"),
    [
        ((37, 23), (16, 12), 6, 2),
        ((16, 17), (16, 16), 8, 0),
        ((41, 100), (13, 31), 12, 6),
        ((19, 9, 14), (8, 8, 8), 4, 1),
        ((50,), (16,), 0, 0),
    ],
)
def test_weights_sum_to_one_and_fall_to_the_margins(
    shape: tuple[int, ...], window: tuple[int, ...], overlap: int, margin: int, periodic: bool
) -> None:
    windowed = Windowed(pointwise, window, overlap, margin, periodic=periodic)
    assert torch.allclose(windowed.weights(shape), torch.ones(shape, dtype=torch.float64), atol=1e-12)
    x = drawn(2, 1, *shape)
    assert torch.allclose(windowed(x, 0.3), pointwise(x, 0.3), atol=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(37, 23), (15, 40), (12, 12, 17)])
def test_a_denoiser_of_short_range_is_exact(shape: tuple[int, ...], periodic: bool) -> None:
    """Two convolutions of three cells with zeros beyond a window's faces, heard two cells deep."""
    dim = len(shape)
    kernel = drawn(2, 2, *(3,) * dim)
    convolve = cast(Callable[..., Tensor], {2: functional.conv2d, 3: functional.conv3d}[dim])

    def local(x: Tensor, sigma: float) -> Tensor:
        return convolve(torch.tanh(convolve(x, kernel, padding=1) + sigma), kernel, padding=1)

    x = drawn(3, 2, *shape)
    around = functional.pad(x, (4, 4) * dim, mode="circular") if periodic else x
    whole = local(around, 0.5)
    if periodic:
        whole = whole[(..., *(slice(4, -4),) * dim)]
    errors = []
    for margin in (2, 1):
        windowed = Windowed(local, (12,) * dim, 6, margin, periodic=periodic, batch=7)
        errors.append(float((windowed(x, 0.5) - whole).abs().max()))
    assert errors[0] < 1e-10 and errors[1] > 1e-2, "a margin of one cell is too thin"


def test_rows_of_windows_are_those_of_the_field() -> None:
    """What is known of row i counts for row i, in batches of any size; derivatives pass."""
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        sizes.append(len(x))
        return x.square() * scale.repeat(len(x) // 3).reshape(-1, 1, 1, 1)

    x = drawn(3, 1, 20, 20).requires_grad_()
    for batch, largest in ((1, 3), (7, 6), (1000, 3 * 3 * 3)):
        sizes: list[int] = []
        made = Windowed(denoise, (8, 8), 2, periodic=False, batch=batch)(x, 1.0)
        assert max(sizes) == largest and sum(sizes) == 27
        want = x.square() * scale.reshape(-1, 1, 1, 1)
        assert torch.allclose(made, want)
        (gradient,) = torch.autograd.grad(made.sum(), x)
        assert torch.allclose(gradient, 2 * x * scale.reshape(-1, 1, 1, 1))


# A Gaussian field on a ring, whose denoisers, of the ring and of a window cut out of it, are matrices


CELLS, WINDOW = 120, 30
WAVE = torch.fft.fftfreq(CELLS, 1 / CELLS, dtype=torch.float64).abs()
LADDER = Ladder(30.0, 0.003, 48)


def ratio(power: Tensor, overlap: int) -> Tensor:
    """Of the powers of waves sampled by windows to those sampled directly, without sampling noise.

    All is linear: the field of unit noise in every cell in turn is the matrix that samples are made with.
    """
    correlation = torch.fft.ifft(power).real
    apart = (torch.arange(WINDOW)[:, None] - torch.arange(WINDOW)).abs()
    covariance, unit = correlation[apart], torch.eye(WINDOW, dtype=torch.float64)

    def of_window(x: Tensor, sigma: float) -> Tensor:
        return x @ torch.linalg.solve(covariance + sigma**2 * unit, covariance)

    def of_ring(x: Tensor, sigma: float) -> Tensor:
        return torch.fft.ifft(torch.fft.fft(x) * power / (power + sigma**2)).real

    windowed = Windowed(of_window, (WINDOW,), overlap, periodic=True, batch=8 * CELLS)
    noise = LADDER.high * torch.eye(CELLS, dtype=torch.float64)[:, None]
    made = [torch.fft.fft(solve(d, noise, LADDER)[:, 0]).abs().square().mean(0) for d in (windowed, of_ring)]
    return made[0] / made[1]


def test_waves_shorter_than_a_window_have_their_power() -> None:
    """And longer ones that of their neighbours, lower in a spectrum that falls."""
    found = ratio(1 / (1 + (WAVE / 4).square()) ** 1.5, WINDOW // 2)
    waves = CELLS // WINDOW  # of which one fits in a window
    assert (found[WAVE.ge(waves)] - 1).abs().max() < 0.06
    assert (found[WAVE.gt(2 * waves) & WAVE.lt(CELLS // 2)] - 1).abs().max() < 0.025
    assert 0.9 < float(found[0]) < 0.95


def test_a_wave_that_the_field_lacks_is_made_of_its_neighbours() -> None:
    power = (WAVE / 6).square() / (1 + (WAVE / 6) ** 4) + 1e-3
    found = ratio(power, WINDOW // 2)
    assert float(found[0]) > 10
    assert (found[WAVE.ge(10) & WAVE.lt(CELLS // 2)] - 1).abs().max() < 0.025


def test_without_correlations_windows_do_not_matter() -> None:
    assert (ratio(torch.full_like(WAVE, 0.5), 8) - 1).abs().max() < 1e-9


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        InputError, match="twice the margin and less than their side of 8 cells, got an overlap of 8"
    ):
        Windowed(pointwise, (8, 12), 8, periodic=True)
    with pytest.raises(InputError, match="an overlap of 2 and a margin of 2"):
        Windowed(pointwise, (8, 8), 2, 2, periodic=True)
    with pytest.raises(InputError, match="batch of windows must be at least 1, got 0"):
        Windowed(pointwise, (8, 8), 2, periodic=True, batch=0)
    with pytest.raises(InputError, match=r"as large as a window of \(8, 8\) or larger, got \(7, 9\)"):
        Windowed(pointwise, (8, 8), 2, periodic=True)(torch.zeros(1, 1, 7, 9), 1.0)
