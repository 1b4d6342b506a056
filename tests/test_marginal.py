"""The one-point law: monotone, invertible, differentiable, and right for a law known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from gen.emulators.marginal import Marginal, empirical_quantiles
from gen.emulators.regression import Polynomial
from gen.fields import ParameterSpace

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


def lognormal_marginal() -> tuple[Marginal, torch.Tensor]:
    """Fitted on the exact quantiles of exp(s x) - exp(s^2/2) with s = Omega_m sigma_8."""
    marginal = Marginal(SPACE).double()
    unit = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(60, dtype=torch.float64)
    params = SPACE.restore(2 * unit - 1)
    s = params.prod(-1, keepdim=True)
    x = marginal.scores(params)
    marginal.fit(params, torch.exp(s * x) - torch.exp(s**2 / 2))
    return marginal, params


def test_reproduces_a_lognormal_between_the_fitted_cosmologies() -> None:
    marginal, _ = lognormal_marginal()
    params = torch.tensor([[0.3, 0.8], [0.2, 0.95]], dtype=torch.float64)
    x = torch.linspace(-4, 4, 81, dtype=torch.float64).expand(2, -1)
    s = params.prod(-1, keepdim=True)
    truth = torch.exp(s * x) - torch.exp(s**2 / 2)
    # Tolerance: the node spacing h = 0.066 interpolates exp(s x) to s^2 h^2 / 8, the cubic fit adds the rest.
    assert torch.allclose(marginal(x, params), truth, rtol=0, atol=3e-3)


def test_forward_is_increasing_and_inverse_undoes_it() -> None:
    marginal, params = lognormal_marginal()
    x = torch.linspace(-6, 6, 501, dtype=torch.float64).expand(len(params), -1)
    values = marginal(x, params)
    assert (values.diff(dim=-1) > 0).all()
    assert torch.allclose(marginal.inverse(values, params), x, atol=1e-9)


def test_gradients_match_finite_differences() -> None:
    marginal, _ = lognormal_marginal()
    params = torch.tensor([[0.31, 0.83]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[-1.234, 0.511, 2.717]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, p: marginal(x, p), (x, params))
    values = marginal(x, params).detach().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v, p: marginal.inverse(v, p), (values, params))


def test_hermite_variances_of_a_lognormal() -> None:
    """exp(s x) has a_n^2 = exp(s^2) s^(2n) / n! (Coles & Jones 1991)."""
    marginal, _ = lognormal_marginal()
    params = torch.tensor([[0.4, 0.9]])
    s = 0.36
    expected = torch.tensor([math.exp(s**2) * s ** (2 * n) / math.factorial(n) for n in (1, 2, 3)])
    assert torch.allclose(marginal.hermite(params)[0, :3].float(), expected, rtol=0.02)


def test_empirical_quantiles_are_those_of_a_normal() -> None:
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    scores = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert torch.allclose(empirical_quantiles(x, scores).float(), scores, atol=0.02)


def test_polynomial_recovers_a_power_law_and_ignores_degrees_it_cannot_know() -> None:
    law = Polynomial(SPACE, 1, degree=3)
    unit = torch.quasirandom.SobolEngine(2, seed=0).draw(40)
    params = SPACE.restore(2 * unit - 1)
    law.fit(params, (2 * params[:, :1].log() - 3 * params[:, 1:].log()))
    new = torch.tensor([[0.33, 0.77]])
    assert law(new).item() == pytest.approx(2 * math.log(0.33) - 3 * math.log(0.77), abs=1e-4)
    law.fit(params[:4], torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert law(new).item() == pytest.approx(2.5, abs=1e-5), "four rows fix a constant, no more"


def test_steps_of_few_fields_have_the_right_mean() -> None:
    """One small field at each cosmology: outer quantiles are those of the law on average, not too near."""
    space = ParameterSpace(("a",), (0.5,), (1.0,))
    generator = torch.Generator().manual_seed(7)
    params = 0.5 + 0.5 * torch.rand(400, 1, generator=generator, dtype=torch.float64)
    marginal = Marginal(space, reach=3.5, degree=1).double()
    scores = marginal.scores(params)
    fields = torch.randn(400, 4096, generator=generator, dtype=torch.float64)
    quantiles = torch.stack([empirical_quantiles(field, scores) for field in fields])
    marginal.fit(params, quantiles)
    assert float(marginal.nodes(params).mean(0)[-1]) == pytest.approx(float(quantiles.mean(0)[-1]), abs=0.02)


def test_the_middle_of_a_long_tailed_law_does_not_scatter_with_its_tail() -> None:
    """Of lognormal fields with s = 1.5 as many cells as should lie below each quantile, even of thin ones."""
    generator = torch.Generator().manual_seed(3)
    params = SPACE.restore(2 * torch.rand(200, 2, generator=generator, dtype=torch.float64) - 1)
    fields = [torch.exp(1.5 * torch.randn(4096, generator=generator)) for _ in params]
    marginal = Marginal(SPACE, degree=2)
    marginal.fit_fields(params, fields)
    below = marginal(torch.tensor([-2.0, -1.0, 0.0, 1.0]).expand(200, -1), params.float())
    cells = torch.stack(fields)
    share = torch.stack([(cells < q[:, None]).float().mean() for q in below.unbind(1)])
    wanted = torch.special.ndtr(torch.tensor([-2.0, -1.0, 0.0, 1.0]))
    assert torch.allclose(share, wanted, rtol=0.02, atol=0)
