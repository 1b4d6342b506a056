"""What a trained sampler's fields are off by in mean power and one-point law, measured and undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.emulators.conditioning import evenly
from gen.emulators.regression import Polynomial
from gen.emulators.sharpened import BATCH, change_of_power, drawn, powers_at_nodes, unit_of_contrast

if TYPE_CHECKING:
    from gen.data.base import SimulationSet
    from gen.emulators.diffusion import Diffusion
    from gen.emulators.power_filter import PowerFilter

DRAWS, DRAWN_CELLS = 1024, 2**24
"""Fields of the sampler at most, and cells of all of them."""
FEWEST, MOST, CELLS = 512, 8192, 2**25
"""Of the closed form that it starts from: fields, and cells of all that are drawn between these."""
ROUNDS = 3
"""The filter moves the law, and the law the power, each a little."""

FromWhite = Callable[[Tensor, Tensor], Tensor]
"""Of white noise ``(B, N)`` and parameters ``(B, P)`` to scores ``(B, 1, *shape)``."""


@torch.no_grad()
def calibrate(sampler: Diffusion, data: SimulationSet) -> None:
    """Measure the filter and the law of scores that give a sampler's fields those of training fields.

    The power of logarithmic fields is that of their logarithm: that of values is in a few peaks, which waves
    of scores do not move. Where it is asked for (``contrast_power``), it is that of density contrasts.

    A drawn field is compared with the closed form's of the same noise, which takes most of the scatter from
    their difference; the closed form, of which many fields cost little, with the training's. If it is far off
    itself, drawn fields are compared with the training's. Scores are compared with the closed form's where
    these are normal. The sampler is solved but once, for scores before they are filtered.
    """
    copula, power, law = sampler.closed_form, sampler.filter, sampler.score_law
    assert power is not None and law is not None
    params, n_cells = data.params.float().to(power.log_power.coefficients), sampler.grid.n_cells
    power.log_power.coefficients.zero_()
    law.shift.coefficients.zero_()

    def made(of: FromWhite, theta: Tensor) -> Tensor:
        fields = drawn(
            lambda given, noise: of(sampler.white_latent(noise), given),
            theta,
            "calibration",
            sampler.micro_batch,
        )
        return torch.cat(list(fields))

    def of_fields(values: Tensor, theta: Tensor) -> Tensor:
        if copula.contrast_power:
            return powers_at_nodes(copula, values / unit_of_contrast(copula, theta, values))
        return powers_at_nodes(copula, copula.marginal.of_values(values))

    def powers(scores: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        parts = zip(scores.split(BATCH), theta.split(BATCH), strict=True)
        return torch.cat([of_fields(sampler.finished(y, t), t) for y, t in parts]), theta

    def change(wanted: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> Tensor:
        return change_of_power(copula, wanted, found, power.degree).coefficients

    wanted, closed = (of_fields(data.values.float(), params), params), 0.0
    theta = params[evenly(len(params), min(DRAWS, DRAWN_CELLS // n_cells))]
    plain, scores = made(sampler.plain_scores, theta), made(sampler.raw_scores, theta)
    if sampler.plainly_near:
        many = params[evenly(len(params), max(FEWEST, min(MOST, CELLS // n_cells)))]
        closed = change(wanted, powers(made(sampler.plain_scores, many), many))
        wanted = powers(plain, theta)
    for _ in range(ROUNDS):
        power.fit(lambda: closed + change(wanted, powers(scores, theta)))
        _keep_scatter(power, scores, theta)
        law.fit(copula.marginal, theta, [*power(scores, theta)], [*plain] if sampler.plainly_normal else None)


def _keep_scatter(power: PowerFilter, scores: Tensor, params: Tensor) -> None:
    """Let a filter leave the scatter of scores ``(N, 1, *shape)``: one amplitude of all waves is the law's.

    Asked of both, it would run away where the law does not allow what power wants.
    """
    before, after = (x.flatten(1).double().var(1) for x in (scores, power(scores, params)))
    grown = Polynomial(power.log_power.space, 1, power.degree).to(params)
    grown.fit(params, (after / before).log()[:, None])
    power.log_power.coefficients[: len(grown.coefficients)] -= grown.coefficients
