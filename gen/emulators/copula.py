"""The analytic baseline: a Gaussian field seen through a monotone map, conditional on the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from gen.emulators.latent import LatentSpace
from gen.emulators.log_marginal import LogMarginal
from gen.emulators.marginal import Marginal
from gen.emulators.regression import Polynomial, needed
from gen.emulators.sharpened import match_contrast, match_scores, settle
from gen.emulators.torus import Torus, interpolated, times
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import normal

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

SETTINGS = (
    "degree", "n_k", "logarithmic", "reach", "phases", "knots", "contrast_power", "settled", "score_power",
)  # fmt: skip
DEEPEST = 1e-8
"""Power, in units of its mean, below which none is divided by."""


def correlation_function(values: Tensor, periodic: bool) -> Tensor:
    """Unbiased two-point function ``<x(r') x(r'+r)>`` on the lattice of lags, float64.

    Args:
        values: ``(B, 1, *shape)`` with the ensemble mean already removed.
        periodic: if not, every lag is divided by its own number of pairs, on a lattice of twice the side.
    """
    axes = tuple(range(2, values.ndim))
    shape = values.shape[2:]
    size = shape if periodic else tuple(2 * n for n in shape)
    total = torch.zeros(*size[:-1], size[-1] // 2 + 1, dtype=torch.float64)
    for part in values.split(64):
        total += (
            torch.fft.rfftn(part.float(), s=size, dim=axes).abs().square().sum((0, 1), dtype=torch.float64)
        )
    pairs = torch.ones(shape, dtype=torch.float64)
    counts = torch.fft.irfftn(torch.fft.rfftn(pairs, s=size).abs().square(), s=size)
    return torch.fft.irfftn(total / len(values), s=size) / counts.clamp(min=1)


def taper(grid: Grid) -> Tensor:
    """Weight of each lag on the lattice of twice the side: 1, then a cosine fall to 0 at the side."""
    radius = torch.zeros((), dtype=torch.float64)
    for n in grid.shape:
        lag = torch.fft.fftfreq(2 * n, 1 / (2 * n), dtype=torch.float64).abs() / n
        radius = radius[..., None] + lag**2
    phase = ((radius.sqrt() - 0.6) / 0.4).clamp(0, 1)
    return 0.5 * (1 + torch.cos(torch.pi * phase))


def distinct_rows(params: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of ``(N, P)`` and which of them each row is; one empty row when P = 0."""
    if params.shape[1] == 0:
        return params[:1], torch.zeros(len(params), dtype=torch.long)
    return torch.unique(params, dim=0, return_inverse=True)


class Copula(LatentSpace):
    r"""Gaussian copula field: ``kappa = q(g; theta)``, g a unit Gaussian field of spectrum P_G(k; theta).

    The monotone map q is the measured one-point law; P_G is found in closed form, by inverting Mehler's
    relation ``xi(r) = sum_n a_n^2 rho_G(r)^n`` between the correlation of g and that of the field, so that
    the field has the measured one-point law and the measured two-point function together. Both are
    interpolated smoothly over the training simulations. The lognormal field is the special case
    ``q = exp`` (Coles & Jones 1991; Xavier, Abdalla & Joachimi 2016, arXiv:1602.08503).

    What it cannot know is morphology: its level sets are those of a Gaussian field. On a grid that is not
    periodic, g is drawn on a larger torus and cut, so that opposite edges are independent and the map's
    mean fluctuates as it should; the mean of a periodic box has a power of its own. Works in 2D and 3D, at
    any number of cells of the fitted spacing.

    Args:
        n_k: nodes of P_G in wavenumber.
        logarithmic: interpolate the one-point law, and take the two-point function, of the logarithm: for
            positive fields that span decades, of which one field's own two-point function says little.
        contrast_power: of logarithmic ones, change P_G so that the mean power of density contrasts is right,
            at the cost of that of the logarithm; with score_power it is samplers that are calibrated to it.
        reach, phases: of the one-point law, see ``LogMarginal``.
        knots: values of parameters where all laws may bend, see ``Polynomial``.
        settled: change P_G until fields have the mean power of the training fields under a taper, for open
            fields whose spectrum falls by more than four decades.
        score_power: let P_G be the mean power of the training fields' normal scores, which is a Gaussian
            field's that resembles these, and not one whose image under the one-point law is right: noise for
            what learns the rest. Short waves of peaks have a hundred times more of it.

    Raises:
        InputError: for what belongs to logarithmic fields without them, and for two aims of P_G.
    """

    later: ClassVar[Mapping[str, float]] = {"mean_power": 1.0}

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "convergence",
        unit: str = "1",
        degree: int = 3,
        n_k: int = 24,
        *,
        logarithmic: bool = False,
        reach: float = 4.25,
        phases: int = 1,
        knots: Mapping[str, Sequence[float]] | None = None,
        contrast_power: bool = False,
        settled: bool = False,
        score_power: bool = False,
    ) -> None:
        super().__init__(grid, space, field, unit)
        if score_power and settled:
            raise InputError("P_G has one aim: set score_power, or settled, not both")
        if not logarithmic and (phases != 1 or contrast_power):
            raise InputError("two phases and contrast_power are for laws of logarithms; set logarithmic")
        self.degree, self.n_k, self.reach, self.phases = degree, n_k, reach, phases
        self.logarithmic, self.contrast_power, self.settled = logarithmic, contrast_power, settled
        self.score_power = score_power
        self.knots = {name: [float(k) for k in values] for name, values in (knots or {}).items()}
        self.marginal = (
            LogMarginal(space, reach, degree, phases, self.knots)
            if logarithmic
            else Marginal(space, reach=reach, degree=degree)
        )
        self.log_power = Polynomial(space, n_k, degree, self.knots)
        self.nodes = nn.Buffer(self._torus().nodes(n_k).float())
        #: Power of the mean of a periodic box over that of its longest waves.
        self.mean_power = nn.Buffer(torch.ones(()))

    def to_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in SETTINGS}
        return {**self._base_config(), **own}

    def _torus(self, shape: Sequence[int] | None = None, margin: int = 0) -> Torus:
        """The periodic lattice on which fields of ``shape`` are drawn."""
        wanted = [n + 2 * margin for n in (self.grid.shape if shape is None else shape)]
        if not self.grid.periodic:
            wanted = [n + m for n, m in zip(wanted, self.grid.shape, strict=True)]
        return self._lattice(wanted)

    def _lattice(self, shape: Sequence[int]) -> Torus:
        return Torus(self.grid.resized(list(shape)), 12 * self.grid.k_fundamental)

    def fit(self, data: SimulationSet) -> None:
        """Measure the one- and two-point laws at each cosmology of ``data``, then interpolate.

        Raises:
            InputError: for fields of several channels or of another shape than the grid's, and for values of
                which there is no logarithm.
        """
        if data.values.shape[1:] != (1, *self.grid.shape):
            raise InputError(
                f"the copula takes one channel of {self.grid.shape} cells, got {tuple(data.values.shape[1:])}"
            )
        cosmologies, group = distinct_rows(data.params.double())
        members = [data.values[group == i] for i in range(len(cosmologies))]
        self.marginal.fit_fields(cosmologies, members)
        taken = [self.marginal.of_values(m) for m in members]
        variance = self.marginal.hermite(cosmologies)
        spectra = [self._spectrum(m, a2) for m, a2 in zip(taken, variance, strict=True)]
        self.log_power.fit(cosmologies, torch.stack(spectra))
        self._fit_mean(data)
        if self.contrast_power and not self.score_power:
            match_contrast(self, data.values, data.params)
            self._fit_mean(data)
        if self.settled:
            settle(self, data.values, data.params)
        if self.score_power:
            match_scores(self, data.values, data.params)

    def _fit_mean(self, data: SimulationSet) -> None:
        """Let means of boxes scatter as they do: far less than waves, where all boxes hold the same mass."""
        if not self.grid.periodic:
            return
        pairs = zip(data.values.split(64), data.params.split(64), strict=True)
        means = torch.cat([self.marginal.inverse(*pair).flatten(1).mean(1) for pair in pairs])
        cosmologies, _ = distinct_rows(data.params)
        self.mean_power.fill_(1)
        longest = self.power(cosmologies).flatten(1)[:, 0] / self.grid.n_cells
        self.mean_power.copy_(means.square().mean() / longest.mean())

    def _spectrum(self, values: Tensor, a2: Tensor, iterations: int = 8) -> Tensor:
        """Logarithm of P_G at the nodes for one cosmology, ``(n_k,)`` (unit variance, lattice units)."""
        torus = self._torus()
        xi = correlation_function(values - values.mean(dtype=torch.float64), self.grid.periodic)
        target = xi / xi.flatten()[0]
        if not self.grid.periodic:
            target = target * taper(self.grid)
        nodes = self.nodes.double()
        wanted = torus.at_nodes(torus.power(target), nodes)
        rho = torch.linspace(-1, 1, 2001, dtype=torch.float64)
        mapped = _mehler(rho, a2)
        power = torus.at_nodes(torus.power(interpolated(target, mapped, rho)), nodes).clamp(
            min=wanted.max() * 1e-9
        )
        for _ in range(iterations):
            covariance = torus.covariance(torus.on_lattice(power.log()[None], nodes)[0].exp())
            made = torus.at_nodes(torus.power(_mehler(covariance, a2)), nodes)
            power = power * (wanted.clamp(min=wanted.max() * 1e-9) / made.clamp(min=1e-30)).clamp(0.7, 1.4)
        return power.log()

    def _power(self, torus: Torus, params: Tensor, rows: slice = slice(None)) -> Tensor:
        """P_G ``(B, *half lattice)`` of mean 1 over the modes of the torus, of some rows of parameters."""
        log_power = torus.on_lattice(self.log_power(params)[rows], self.nodes.to(params))
        if self.grid.periodic:
            log_power[(slice(None), *[0] * self.grid.dim)] += self.mean_power.log()
        power = log_power.exp()
        return power / torus.mean(power)

    def power(self, params: Tensor) -> Tensor:
        """P_G ``(B, *half lattice)`` of the torus of fields of the grid's shape; the mean over modes is 1."""
        return self._power(self._torus(), params)

    def gaussian(
        self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None, margin: int = 0
    ) -> Tensor:
        """The unit Gaussian field g ``(B, 1, *(shape + 2 margin))`` made from white noise on the torus.

        ``white`` is ``(B, *torus)``, or the same as rows ``(B, N)``.
        """
        torus = self._torus(shape, margin)
        white = white.reshape(len(white), *torus.grid.shape)
        amplitude = self._power(torus, params, needed(params)).sqrt()
        del torus  # of a large box each is as large as the field
        axes = tuple(range(1, white.ndim))
        g = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * amplitude, s=white.shape[1:], dim=axes)
        keep = [slice(0, n + 2 * margin) for n in (self.grid.shape if shape is None else shape)]
        return g[(slice(None), *keep)].unsqueeze(1)

    def coloured(self, y: Tensor, params: Tensor, *, inverse: bool = False) -> Tensor:
        """Each wave of fields ``(B, 1, *shape)`` times the root of P_G, or over it."""

        def amplitude(lattice: Sequence[int]) -> Tensor:
            root = (
                self._power(self._lattice(lattice), params, needed(params))
                .clamp(min=DEEPEST)
                .sqrt()
                .unsqueeze(1)
            )
            return 1 / root if inverse else root

        return times(self.grid, y, amplitude)

    def covariance(self, field: Tensor, params: Tensor) -> Tensor:
        """The covariance of ``gaussian`` times fields ``(B, 1, *shape)``."""
        return self.covariance_at(params, field.shape[2:])(field)

    def covariance_at(self, params: Tensor, shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Multiplies fields ``(B, 1, *shape)`` by that covariance, over and over for one look at P_G."""
        torus = self._torus(shape)
        axes, size, power = tuple(range(1, 1 + len(shape))), torus.grid.shape, self._power(torus, params)

        def product(field: Tensor) -> Tensor:
            modes = torch.fft.rfftn(field[:, 0], s=size, dim=axes) * power
            whole = torch.fft.irfftn(modes, s=size, dim=axes)
            return whole[(slice(None), *(slice(0, n) for n in shape))].unsqueeze(1)

        return product

    def white(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None, margin: int = 0
    ) -> Tensor:
        """White noise ``(B, *torus)`` for ``gaussian``."""
        return normal(generators, self._torus(shape, margin).grid.shape).to(self.device)

    def white_latent(
        self, generators: Sequence[torch.Generator], shape: Sequence[int] | None = None
    ) -> Tensor:
        """White noise on the torus as rows ``(B, N)``, see ``gen.emulators.latent``."""
        return self.white(generators, shape).flatten(1)

    def white_size(self, shape: Sequence[int], margin: int = 0) -> int:
        """Numbers of one field's ``white``."""
        return math.prod(self._torus(shape, margin).grid.shape)

    def from_white(self, white: Tensor, params: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields ``(B, 1, *shape)`` in physical units of white noise ``(B, N)``."""
        return self.marginal(self.gaussian(params, white, shape), params)


def _mehler(rho: Tensor, a2: Tensor) -> Tensor:
    """Correlation of the mapped field for the Gaussian correlation ``rho``, 1 at 1."""
    result = torch.zeros_like(rho)
    for a in a2.flip(0):
        result = (result + a) * rho
    return result / a2.sum()
