"""Diffusion given a coarse field: super-resolution of densities, one field of matter from another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from gen.emulators.conditioning import check_coarse, divisible, fitting_rows, refuse_negative
from gen.emulators.copula import distinct_rows
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.emulators.marginal import Marginal
from gen.emulators.missing_modes import MissingModes
from gen.emulators.score_law import ScoreLaw
from gen.emulators.sharpened import drawn
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import linear_upsample
from gen.transforms import Log

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

DRAWS = 256
"""Fields by which a trained network is measured."""
MOST_EMPTY = 1e-3
"""Share of cells that may have one and the same value."""


class CoarseDiffusion(CopulaDiffusion):
    r"""``y = B u + r e``: what a coarse density tells of the normal scores of a field, and e, diffused.

    u are the normal scores of the coarse density, interpolated to the cells of the field, B their regression
    wave by wave, and the noise has the spectrum of what it leaves (``gen.emulators.missing_modes``); r makes
    it of unit scatter. At the start samples are the Gaussian completion of u, whose power and correlation
    with u are right; the network hears u beside the noised e and learns the rest. Every seed gives another
    field for one coarse field.

    The conditional diffusion of Saharia et al. 2021 (arXiv:2104.07636), started from a closed form.

    Args:
        factor: ratio of the cells along a side; 1 for fields on the same cells.
        coarse: what the coarse field is, a density, for people to read.
        calibrated: once trained, measure what is drawn for the coarse training fields and mend it.
        others: as of ``CopulaDiffusion``; the network is a U-Net.

    Raises:
        InputError: for a grid that is not periodic or does not divide by ``factor``.
    """

    needs_coarse: ClassVar[bool] = True
    heard: ClassVar[int] = 1
    micro_batch = 8

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "density",
        unit: str = "1",
        factor: int = 2,
        coarse: str = "density 1 + delta of a low-resolution run",
        degree: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        high: float = 10.0,
        low: float = 0.03,
        steps: int = 20,
        order: int = 3,
        spectral_weight: float = 0.5,
        logarithmic: bool = False,
        reach: float = 4.25,
        phases: int = 1,
        knots: Mapping[str, Sequence[float]] | None = None,
        patch: int | None = None,
        calibrated: bool = False,
    ) -> None:
        if not grid.periodic or factor < 1 or any(n % factor for n in grid.shape):
            raise InputError(
                f"a coarse field needs a periodic grid whose sides divide by factor, at least 1, got "
                f"{grid.shape} cells, periodic {grid.periodic}, factor {factor}"
            )
        super().__init__(
            grid, space, field, unit, degree, widths, high, low, steps, order, spectral_weight,
            logarithmic, reach, phases, knots, patch=patch, calibrated=calibrated and not logarithmic,
        )  # fmt: skip
        self.arguments |= {"factor": factor, "coarse": coarse, "calibrated": calibrated}
        for name in ("contrast_power", "settled", "score_power", "shaped"):
            del self.arguments[name]
        self.factor, self.coarse, self.transform = factor, coarse, Log(0.1)
        # One box tells the scores of its cells up to about 4; beyond it is prolonged.
        self.marginal = Marginal(space, n_nodes=113, reach=3.5, degree=degree)
        self.missing = MissingModes(grid, space, degree=degree)
        self.scale = nn.Buffer(torch.ones(()))
        self.score_law = ScoreLaw(self.copula) if calibrated and logarithmic else None

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Both one-point laws, the regression, and the power of what it leaves.

        Raises:
            InputError: without coarse fields of ``factor`` times fewer cells a side, and for fields with many
                cells of one value, such as empty ones.
        """
        coarse = self._check(data.coarse, self.grid.shape)
        _refuse_empty(data)
        self.copula.fit(data)
        rows = fitting_rows(data, max(64, 2**24 // self.grid.n_cells))
        values, params, coarse = data.values[rows].float(), data.params[rows].float(), coarse[rows].float()
        empty = self.transform(torch.zeros(1)).item()
        self.marginal.fit_boxes(params, list(self.transform(coarse)), empty)
        told = self.told(coarse, params, self.grid.shape)
        y = self.to_working(values, params)
        self.missing.fit(y, told, params)
        self.scale.copy_(self.less(y, told, params).std() * self.scale)
        self.fit_noise(data)

    @torch.no_grad()
    def calibrate(self, data: SimulationSet) -> None:
        """What is seen of fields drawn for the coarse training fields is undone: a wrong one-point law, of
        fields of decades, which their power follows; of others a wrong mean power."""
        if self.filter is None and self.score_law is None:
            return
        rows = fitting_rows(data, DRAWS)
        params = data.params[rows].float().to(self.device)
        coarse = self._check(data.coarse, self.grid.shape)[rows]

        def draw(i: Tensor, noise: list[torch.Generator]) -> Tensor:
            return self.generate(params[i], noise, coarse[i])

        each = max(1, DRAWS // len(rows))
        if self.score_law is not None:
            self.score_law.shift.coefficients.zero_()
            again = torch.arange(len(rows)).repeat(each)
            self._fit_scores(
                self.score_law, params[again], drawn(draw, again, "calibration", self.micro_batch)
            )
        else:
            assert self.filter is not None
            self.filter.log_power.coefficients.zero_()
            values = data.values[rows].to(self.device)
            self.filter.fit_given(self.copula, values, params, draw, each, batch=self.micro_batch)

    def _fit_scores(self, law: ScoreLaw, params: Tensor, made: Iterator[Tensor]) -> None:
        """From fields made at parameters ``(N, P)``, in batches."""
        pairs = zip(made, params.split(self.micro_batch), strict=True)
        y = torch.cat([self.to_working(*pair) for pair in pairs])
        cosmologies, group = distinct_rows(params)
        law.fit(self.copula.marginal, cosmologies, [y[group == i] for i in range(len(cosmologies))])

    def _check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        cells = tuple(n // self.factor for n in divisible(shape, self.network.factor))
        checked = check_coarse(coarse, 1, cells, 1, self.coarse)
        refuse_negative(checked)
        return checked

    def told(self, coarse: Tensor | None, params: Tensor, shape: Sequence[int]) -> Tensor:
        """u ``(B, 1, *shape)``."""
        scores = self.marginal.inverse(self.transform(self._check(coarse, shape).to(params)), params)
        return scores if self.factor == 1 else linear_upsample(scores, self.factor, "circular")

    def less(self, y: Tensor, told: Tensor | None, params: Tensor) -> Tensor:
        return (y - self._known(told, params)) / self.scale

    def restored(self, y: Tensor, told: Tensor | None, params: Tensor) -> Tensor:
        return self._known(told, params) + self.scale * y

    def _known(self, told: Tensor | None, params: Tensor) -> Tensor:
        """B u, with its mean."""
        assert told is not None
        modes, mean = self.missing.known(told, params)
        shape = told.shape[2:]
        return torch.fft.irfftn(modes, s=shape, dim=tuple(range(2, told.ndim)), norm="ortho") + mean

    def completed(self, params: Tensor, generators: Sequence[torch.Generator], coarse: Tensor) -> Tensor:
        """Where samples start: fields ``(B, 1, *shape)`` of coarse ones and a Gaussian rest."""
        shape = [n * self.factor for n in coarse.shape[2:]]
        g = self.gaussian(params, self.white_latent(generators, shape), shape)
        return self.copula.marginal(self.restored(g, self.told(coarse, params, shape), params), params)

    def gaussian(self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """g, the waves that the coarse field does not tell."""
        white = white.reshape(len(white), 1, *(self.grid.shape if shape is None else shape))
        return self.missing.rest(white, params) / self.scale

    def covariance(self, y: Tensor, params: Tensor) -> Tensor:
        # The rest is a product of its amplitude with white noise, and symmetric.
        return self.missing.rest(self.missing.rest(y, params), params) / self.scale**2


def _refuse_empty(data: SimulationSet) -> None:
    lowest = data.values.min()
    share = float((data.values == lowest).float().mean())
    if share > MOST_EMPTY:
        raise InputError(
            f"{share:.1%} of the cells of {data.name} are exactly {lowest:g}, and such fields have no normal "
            "scores; deposit more particles in a cell (oversampling), or take SuperResolution"
        )
