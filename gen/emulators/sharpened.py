"""A copula's power, brought to what fields of it show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.emulators.conditioning import evenly
from gen.emulators.log_marginal import LogMarginal
from gen.emulators.regression import Polynomial
from gen.emulators.torus import Torus
from gen.fields import Grid
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.emulators.copula import Copula

Draw = Callable[[Tensor, list[torch.Generator]], Tensor]
"""Of parameters ``(B, P)``, or rows ``(B,)`` of a set, and as many generators to ``(B, C, *shape)``."""
DEEPEST = 1e-4
"""Smallest factor by which power is changed in one round."""
ROUNDS, MOST = 5, 256
"""How often, and by how many maps, a closed form is compared with the training maps."""
BATCH = 64
"""Fields that are drawn at a time."""
SETTLING = 1024
"""Training maps, at most, with whose power that of a copula is settled."""
DRAWS = 1024
"""Fields of a copula, at least, that are compared with the contrasts of its training fields."""


def correct(copula: Copula, real: Tensor, made: Tensor, params: Tensor, degree: int | None = None) -> None:
    """Change the copula's power by the ratio of the mean powers of fields that are real and made.

    Args:
        real: ``(N, n_k)`` of ``powers_at_nodes`` at parameters ``(N, P)``.
        made: ``(M N, n_k)``, the same parameters over and over.
        degree: of the ratio in the parameters, at most the copula's; by default that.
    """
    degree = copula.degree if degree is None else min(degree, copula.degree)
    again = params.repeat(len(made) // len(params), 1)
    ratio = change_of_power(copula, (real, params), (made, again), degree).coefficients
    n_terms, n_knots = len(ratio) - len(copula.log_power.knots), len(copula.log_power.knots)
    copula.log_power.coefficients[:n_terms] += ratio[:n_terms]
    if n_knots:
        copula.log_power.coefficients[-n_knots:] += ratio[-n_knots:]


def change_of_power(
    copula: Copula, wanted: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor], degree: int
) -> Polynomial:
    """ln of the ratio of mean powers, of this degree in the parameters; bounded.

    Args:
        wanted, made: powers ``(N, n_k)`` of ``powers_at_nodes`` and parameters ``(N, P)``.
    """
    params = wanted[1]
    ours, theirs = (_mean_law(copula, *of, degree)(params) for of in (made, wanted))
    change = _bounded((theirs - ours).double())
    if not copula.grid.periodic:
        # A taper sees next to nothing of the first node, of waves that are longer than the field. What is
        # found there is their neighbours', and would be asked for again and again.
        change[:, 0] = change[:, 1]
    return _smooth(copula, change, params, degree)


def _smooth(copula: Copula, values: Tensor, params: Tensor, degree: int) -> Polynomial:
    """The smooth law of values ``(N, n_k)`` at the parameters; it bends where the copula's power does."""
    law = Polynomial(copula.space, copula.n_k, degree, copula.knots).to(params)
    law.fit(params, values)
    return law


def _bounded(change: Tensor) -> Tensor:
    return change.clamp(math.log(DEEPEST), math.log(4))


def _mean_law(copula: Copula, power: Tensor, params: Tensor, degree: int) -> Polynomial:
    """Logarithm of the mean of powers ``(N, n_k)``, smooth in the parameters (Duan 1983: smearing)."""
    logs = power.clamp(min=1e-30).log()
    law = _smooth(copula, logs, params, degree)
    law.coefficients[0] += (logs - law(params)).exp().mean(0).log().to(law.coefficients)
    return law


def powers_at_nodes(copula: Copula, fields: Tensor) -> Tensor:
    """``(N, n_k)`` tapered power at a copula's nodes of fields ``(N, C, *shape)``, means over channels."""
    lattice = Torus(copula.grid, 12 * copula.grid.k_fundamental)
    parts = [tapered(copula.grid, part).mean(1) for part in fields.split(16)]
    return torch.cat([lattice.at_nodes(part, copula.nodes.double()) for part in parts])


def tapered_power(grid: Grid, fields: Tensor) -> Tensor:
    """Mean |modes|^2 on the rfftn lattice of fields, float64; of open ones under a cosine taper.

    The taper's mean square is 1.
    """
    return tapered(grid, fields).mean((0, 1))


def tapered(grid: Grid, fields: Tensor) -> Tensor:
    """|modes|^2 ``(N, C, *half lattice)``, float64, of fields less their means, see ``tapered_power``."""
    window = torch.ones((), dtype=torch.float64)
    for n in grid.shape:
        fall = torch.hann_window(n, periodic=False, dtype=torch.float64)
        window = window[..., None] * (torch.ones_like(fall) if grid.periodic else fall)
    window = window / window.square().mean().sqrt()
    axes = tuple(range(2, fields.ndim))
    centred = (fields.double() - fields.double().mean(axes, keepdim=True)) * window.to(fields.device)
    return torch.fft.rfftn(centred, dim=axes).abs().square()


def drawn(draw: Draw, given: Tensor, stream: str, batch: int = BATCH) -> Iterator[Tensor]:
    """Fields of what ``given (N, ...)`` says of each, a batch at a time; the noise of row i is its own."""
    for rows in torch.arange(len(given)).split(batch):
        yield draw(given[rows], [sample_generator(0, int(i), stream) for i in rows])


@torch.no_grad()
def settle(copula: Copula, values: Tensor, params: Tensor) -> None:
    """Give fields of a copula the mean power of the training fields, wave by wave under a taper.

    The two-point function of fields without periodicity, from which a copula's power is found, cannot tell
    power that is some 10^-4 of the largest; a taper's leakage falls faster.

    Args:
        values: ``(N, 1, *shape)``; params: ``(N, P)``.
    """
    _match(copula, values, params, lambda x, theta: x, copula.generate, "settling")


def unit_of_contrast(copula: Copula, params: Tensor, like: Tensor) -> Tensor:
    """E[x] of a ``LogMarginal`` at parameters ``(N, P)``, what fields ``(N, C, *shape)`` are divided by."""
    assert isinstance(copula.marginal, LogMarginal)
    return copula.marginal.mean(params).reshape(-1, *[1] * (like.ndim - 1))


@torch.no_grad()
def match_contrast(
    copula: Copula, values: Tensor, params: Tensor, draw: Draw | None = None, rounds: int = ROUNDS
) -> None:
    """Give fields of a ``LogMarginal`` the mean power of density contrasts x / E[x] of the training fields.

    A P_G that has the power of ln x leaves that of x, which is in the peaks, too flat: HI boxes have a third
    less of it at low wavenumbers. The ratio is of first degree in the parameters: fields of one cosmology
    are few. The same white noise is used in all rounds.

    Args:
        values: ``(N, 1, *shape)``; params: ``(N, P)``.
        draw: what makes fields of the copula, itself by default.
    """
    draw = draw or copula.generate
    params = params.to(copula.log_power.coefficients)
    mean = unit_of_contrast(copula, params, values)
    real = powers_at_nodes(copula, values / mean)
    rows = evenly(len(values), math.ceil(DRAWS / len(values)) * len(values))
    for _ in range(rounds):
        fields = zip(drawn(draw, params[rows], "contrast"), mean[rows].split(BATCH), strict=True)
        made = [powers_at_nodes(copula, x / unit) for x, unit in fields]
        correct(copula, real, torch.cat(made), params, degree=1)


@torch.no_grad()
def match_scores(copula: Copula, values: Tensor, params: Tensor) -> None:
    """Give a copula's Gaussian field the mean power of the normal scores of the training fields.

    Args:
        values: ``(N, 1, *shape)``; params: ``(N, P)``.
    """

    def gaussian(theta: Tensor, generators: list[torch.Generator]) -> Tensor:
        return copula.gaussian(theta, copula.white(generators))

    _match(copula, values, params, copula.marginal.inverse, gaussian, "scores")


def _match(
    copula: Copula,
    values: Tensor,
    params: Tensor,
    seen: Callable[[Tensor, Tensor], Tensor],
    draw: Draw,
    stream: str,
) -> None:
    """Change P_G until what is drawn has the mean power of what is seen of training fields."""
    rows = evenly(len(values), min(len(values), SETTLING))
    params = params[rows].to(copula.log_power.coefficients)
    parts = zip(values[rows].float().split(BATCH), params.split(BATCH), strict=True)
    real = torch.cat([powers_at_nodes(copula, seen(*part)) for part in parts])
    for _ in range(ROUNDS):
        made = [powers_at_nodes(copula, part) for part in drawn(draw, params, stream)]
        correct(copula, real, torch.cat(made), params)
