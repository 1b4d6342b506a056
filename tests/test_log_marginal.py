"""The one-point law over decades: its two phases, its tail, and what the parameters do to them."""

from __future__ import annotations

import pytest
import torch
from torch.special import ndtr, ndtri

from gen.emulators.copula import Copula
from gen.emulators.log_marginal import TABLE, LogMarginal
from gen.emulators.marginal import empirical_quantiles
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

SPACE = ParameterSpace(("a",), (0.5,), (1.0,))
LEVELS = torch.linspace(-2.5, 3.5, 49, dtype=torch.float64)


def share(a: torch.Tensor) -> torch.Tensor:
    """Of the lower phase: from a hundredth to a third, as neutral gas outside halos has."""
    return ndtr(-2.3 + 3.8 * (a - 0.5))


def fields(n: int, cells: int, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """ln x ~ N(8 a, 0.3^2) of the lower phase and N(18, 2^2) of the upper."""
    generator = torch.Generator().manual_seed(seed)
    a = 0.5 + 0.5 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    made = []
    for value in a[:, 0]:
        noise = torch.randn(cells, generator=generator, dtype=torch.float64)
        lower = torch.rand(cells, generator=generator, dtype=torch.float64) < share(value)
        made.append(torch.where(lower, 8 * value + 0.3 * noise, 18 + 2 * noise).exp())
    return a, made


def fitted(phases: int, n: int = 200, cells: int = 8000) -> tuple[LogMarginal, torch.Tensor]:
    params, made = fields(n, cells)
    law = LogMarginal(SPACE, reach=3.0, degree=2, phases=phases).double()
    law.fit_fields(params, made)
    return law, params


def test_two_phases_whose_shares_change_are_told_apart() -> None:
    """Between training parameters, away from the step itself; one phase smears the step over its places."""
    off = {}
    for phases in (1, 2):
        law, _ = fitted(phases)
        worst = []
        for a in (0.6, 0.75, 0.9):
            theta = torch.tensor([[a]], dtype=torch.float64)
            p, f = ndtr(LEVELS), share(theta)[0, 0]
            lower = 8 * a + 0.3 * ndtri((p / f).clamp(max=1 - 1e-9))
            upper = 18 + 2 * ndtri(((p - f) / (1 - f)).clamp(min=1e-9))
            told = (p < 0.8 * f) | (p > 1.2 * f + 0.02)
            truth = torch.where(p < f, lower, upper)
            worst.append(float((law.variable(LEVELS[None], theta)[0] - truth)[told].abs().max()))
        off[phases] = max(worst)
    assert off[2] < 0.15 < 2 < off[1]


def test_it_is_increasing_and_the_inverse_undoes_it() -> None:
    law, params = fitted(2, n=40)
    x = torch.linspace(-5, 6, 301, dtype=torch.float64).expand(len(params), -1)
    values = law(x, params)
    assert bool((values.diff(dim=-1) > 0).all())
    assert torch.allclose(law.inverse(law.variable(x, params).exp(), params), x, atol=1e-6)
    places = law.places(params)
    spacing = float((places[:, -1] - places[:, 0]).max()) / (TABLE - 1)
    assert torch.allclose(law.inverse(values, params), x, atol=spacing)
    theta = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    at = torch.tensor([[-2.2, 0.3, 2.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(law.variable, (at, theta))


def test_the_mean_and_the_scatter_of_all_fields_together_are_theirs() -> None:
    """Their power is the square of few cells: a law that is the mean of their quantiles has too little."""
    params, made = fields(200, 8000)
    law = LogMarginal(SPACE, reach=3.0, degree=2, phases=2).double()
    law.fit_fields(params, made)
    assert float((torch.stack([x.mean() for x in made]) / law.mean(params)).mean()) == pytest.approx(
        1, abs=0.02
    )
    seen = torch.cat([law.inverse(x[None], theta[None])[0] for x, theta in zip(made, params, strict=True)])
    scores = torch.tensor([-2.0, 0.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert torch.allclose(empirical_quantiles(seen, scores), scores, atol=0.03)


def test_a_law_may_bend_where_its_recipe_says() -> None:
    """ln x shifts by 4 |a - 0.7|: a parabola misses it by 0.4 in the middle, a knot does not."""
    generator = torch.Generator().manual_seed(1)
    a = 0.5 + 0.5 * torch.rand(200, 1, generator=generator, dtype=torch.float64)
    made = [(4 * abs(float(v) - 0.7) + torch.randn(4000, generator=generator)).exp() for v in a[:, 0]]
    medians = {}
    for name, knots in (("smooth", {}), ("bent", {"a": (0.7,)})):
        law = LogMarginal(SPACE, degree=2, knots=knots).double()
        law.fit_fields(a, made)
        theta = torch.tensor([[0.7]], dtype=torch.float64)
        medians[name] = abs(float(law.variable(torch.zeros_like(theta), theta)))
    assert medians["bent"] < 0.05 < 0.15 < medians["smooth"]
    with pytest.raises(InputError, match="knots belong to parameters, here a, got z"):
        LogMarginal(SPACE, knots={"z": (1.0,)})


def test_phases_need_logarithms() -> None:
    grid = Grid((8, 8, 8), 1.0, "Mpc/h", True)
    with pytest.raises(InputError, match="1 or 2 phases, got 3"):
        Copula(grid, SPACE, logarithmic=True, phases=3)
    with pytest.raises(InputError, match="for laws of logarithms; set logarithmic"):
        Copula(grid, SPACE, phases=2)
