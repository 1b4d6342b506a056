"""Likelihoods of Gaussian fields under their own and under wrong denoisers, against closed forms."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gen.diffusion.gaussian_noise import MatrixNoise, Noise, WaveNoise, WhiteNoise, log_gaussian
from gen.diffusion.levels import Ladder
from gen.diffusion.likelihood import flow_log_likelihood, variational_bound
from gen.diffusion.solver import Denoiser
from gen.errors import InputError

SHAPE, CELLS = (4, 6), 24
LADDER, STEPS = Ladder(100.0, 0.01, 40), Ladder(100.0, 0.01, 20)
TOLERANCE = 1.5 * 0.03 * (math.log(1e4) / 19) ** 4 * CELLS
"""Of Runge and Kutta's method, see ``flow_log_likelihood``."""


def lattice() -> Tensor:
    """|k| on the half lattice."""
    a, b = torch.fft.fftfreq(SHAPE[0], 1 / SHAPE[0]), torch.fft.rfftfreq(SHAPE[1], 1 / SHAPE[1])
    return (a[:, None].square() + b.square()).sqrt().double()


POWER = 1.5 / (1 + (lattice() / 1.5).square())
SHAPED = 1 / (1 + lattice() / 3)


def filtered(x: Tensor, transfer: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=SHAPE)


def matrix(transfer: Tensor) -> Tensor:
    """Of the filter, ``(N, N)``, one cell at a time."""
    cells = torch.eye(CELLS, dtype=torch.float64).reshape(CELLS, *SHAPE)
    return filtered(cells, transfer).flatten(1)


NOISES: dict[str, tuple[Noise, Tensor]] = {
    "white": (WhiteNoise(), torch.ones_like(POWER)),
    "shaped": (WaveNoise(SHAPED), SHAPED),
    "matrix": (MatrixNoise(matrix(SHAPED)), SHAPED),
}


class Case(NamedTuple):
    noise: Noise
    spectrum: Tensor
    fields: Tensor

    def denoiser(self, power: Tensor) -> Denoiser:
        """The Wiener filter of fields of this power."""
        return lambda x, sigma: filtered(x, power / (power + sigma**2 * self.spectrum))

    def exact(self, power: Tensor, sigma: float = 0.0) -> Tensor:
        """By torch's own dense Gaussian, with the noise of a level on it."""
        covariance = matrix(power + sigma**2 * self.spectrum)
        law = torch.distributions.MultivariateNormal(torch.zeros(CELLS, dtype=torch.float64), covariance)
        return law.log_prob(self.fields.flatten(1))


def case(name: str, n: int = 6) -> Case:
    white = torch.randn(n, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Case(*NOISES[name], filtered(white, POWER.sqrt()))


@pytest.mark.parametrize("name", NOISES)
def test_noise_has_the_covariance_that_its_norm_is_of(name: str) -> None:
    noise, spectrum = NOISES[name]
    cells = torch.eye(CELLS, dtype=torch.float64).reshape(CELLS, 1, *SHAPE)
    root = noise.coloured(cells).flatten(1)
    covariance = root.T @ root
    assert torch.allclose(covariance, matrix(spectrum), atol=1e-12)
    x = torch.randn(3, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    law = torch.distributions.MultivariateNormal(torch.zeros(CELLS, dtype=torch.float64), 0.7 * covariance)
    assert torch.allclose(log_gaussian(x, noise, 0.7), law.log_prob(x.flatten(1)), rtol=1e-10)


def test_every_field_may_have_a_spectrum_of_its_own() -> None:
    x = torch.randn(2, 2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    both = log_gaussian(x, WaveNoise(torch.stack([SHAPED, POWER])[:, None]), 1.0)
    for row, power in zip(range(2), (SHAPED, POWER), strict=True):
        assert torch.allclose(both[row], log_gaussian(x[row : row + 1], WaveNoise(power), 1.0)[0])


@pytest.mark.parametrize("name", ["white", "shaped"])
def test_the_flow_gives_the_density_of_a_gaussian_field(name: str) -> None:
    """Of the field with the noise of the lowest level on it, to the error of the steps."""
    made = case(name)
    exact, denoise = made.exact(POWER, STEPS.low), made.denoiser(POWER)
    found = flow_log_likelihood(denoise, made.fields, STEPS, made.noise, probes=None)
    assert torch.allclose(found.nats, exact, atol=TOLERANCE) and not found.error.any()
    drawn = flow_log_likelihood(denoise, made.fields, STEPS, made.noise, probes=8, seed=5)
    # squares of Student's t of 7 degrees of freedom have the mean 7 / 5 and a scatter of 2.8
    deviation = ((drawn.nats - found.nats) / drawn.error).square()
    assert 0.05 < float(deviation.mean()) < 1.4 + 3 * 2.8 / math.sqrt(len(deviation))
    assert 0.02 < float(drawn.error.mean()) < 1.0


def test_the_flow_gives_the_density_of_what_it_makes_and_not_of_the_truth() -> None:
    """A wrong denoiser's samples are another Gaussian field, here four times as strong."""
    made = case("white")
    wrong = flow_log_likelihood(made.denoiser(4 * POWER), made.fields, STEPS, made.noise, 2.0, probes=None)
    assert torch.allclose(wrong.nats, made.exact(4 * POWER, STEPS.low), atol=TOLERANCE)
    assert (wrong.nats - made.exact(POWER)).mean() < -5


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("scatter", [1.0, 0.6])
def test_the_bound_is_met_by_the_exact_denoiser(name: str, scatter: float) -> None:
    made = case(name, 24)
    exact = made.exact(POWER)
    found = variational_bound(made.denoiser(POWER), made.fields, LADDER, made.noise, scatter, draws=8)
    deviation = (found.nats - exact) / found.error
    # squares of Student's t of 7 degrees of freedom have the mean 7 / 5 and a scatter of 2.8
    assert abs(float(deviation.square().mean()) - 1.4) < 3 * 2.8 / math.sqrt(24)
    assert abs(float(deviation.mean())) < 3 * math.sqrt(1.4 / 24)
    assert float(found.error.mean()) < 1.0


def test_of_the_noise_times_a_number_nothing_is_left_to_chance() -> None:
    """A field of the noise's own law: the bound is its log density to rounding, whatever is drawn."""
    made = case("shaped")
    found = variational_bound(made.denoiser(0.36 * SHAPED), made.fields, LADDER, made.noise, 0.6, draws=2)
    assert torch.allclose(found.nats, made.exact(0.36 * SHAPED), rtol=1e-9)
    assert float(found.error.max()) < 1e-6


@pytest.mark.parametrize("name", ["white", "shaped"])
def test_a_wrong_denoiser_is_less_probable_by_what_its_error_says(name: str) -> None:
    """The loss is the integral of its mean square error over that of the exact one, in closed form."""
    made = case(name, 200)
    power = POWER * (0.3 + lattice() / 4)
    found = variational_bound(made.denoiser(power), made.fields, LADDER, made.noise, draws=2)
    right = variational_bound(made.denoiser(POWER), made.fields, LADDER, made.noise, draws=2)
    members = torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64)

    def excess(sigma: Tensor) -> Tensor:
        """Of E |x - D|^2 over the best, in the noise's norm, at levels ``(S,)``."""
        variance = sigma.square()[:, None, None] * made.spectrum
        a, best = power / (power + variance), POWER / (POWER + variance)
        return ((a - best).square() * (POWER + variance) / made.spectrum * members).sum((1, 2))

    sigma = torch.logspace(math.log10(LADDER.low), math.log10(LADDER.high), 4001, dtype=torch.float64)
    want = float(torch.trapezoid(excess(sigma) / sigma.square(), sigma.log()))
    lowest = torch.tensor([LADDER.low], dtype=torch.float64)
    want += 0.5 * (1 + 1 / LADDER.low**2) * float(excess(lowest))
    lost = right.nats - found.nats
    error = float(lost.std()) / math.sqrt(len(lost))
    assert want > 5 * error
    assert float(lost.mean()) == pytest.approx(want, abs=3.5 * error)


def test_rows_do_not_depend_on_the_batch() -> None:
    made = case("white")
    denoise = made.denoiser(POWER)
    for many, one in (
        (
            flow_log_likelihood(denoise, made.fields, LADDER, probes=2),
            flow_log_likelihood(denoise, made.fields[:1], LADDER, probes=2),
        ),
        (
            variational_bound(denoise, made.fields, LADDER, draws=2),
            variational_bound(denoise, made.fields[:1], LADDER, draws=2),
        ),
    ):
        assert torch.allclose(many.nats[:1], one.nats) and torch.allclose(many.error[:1], one.error)


def test_what_cannot_be_is_refused() -> None:
    made = case("white", 1)
    with pytest.raises(InputError, match="2 probes or more to know its error, got 1"):
        flow_log_likelihood(made.denoiser(POWER), made.fields, LADDER, probes=1)
    with pytest.raises(InputError, match="2 draws or more to know its error, got 1"):
        variational_bound(made.denoiser(POWER), made.fields, LADDER, draws=1)
    with pytest.raises(InputError, match="positive and finite, got 0 at the least"):
        WaveNoise(torch.zeros(4, 3))
    with pytest.raises(InputError, match=r"positive definite, got a matrix \(2, 2\) that is not"):
        MatrixNoise(torch.ones(2, 2))
