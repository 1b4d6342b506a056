"""Sparse galaxies in a matter density, in two phases: is there any in a cell, and if so, how many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import lambertw
from scipy.stats import poisson
from torch import Tensor
from torch.nn.functional import logsigmoid

from gen.emulators.base import Emulator
from gen.emulators.chunks import white_channels
from gen.emulators.conditioning import (
    Channels,
    check_coarse,
    divisible,
    fitting_rows,
    own_generators,
    refuse_negative,
)
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels
from gen.nets.unet import UNet
from gen.noise import normal

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

INPUT = "matter density 1 + delta"


class GalaxyCounts(Emulator):
    r"""Galaxies in each cell given the matter density of all cells, in two phases.

    A cell holds galaxies with a probability p (classification); if it does, their number follows a Poisson
    law of rate lambda that knows no zero (counts). In each phase a formula of the cell's own density and a
    U-Net of its surroundings, zero at the start:

    ``logit p = f(x) + U_1``, ``ln lambda = g(x) + U_2``, ``x = ln(Omega_m (1 + delta) + offset)``,

    f and g measured on the training set, at nodes of x: painting galaxies by density alone, as a halo
    occupation distribution of cells would. The two phases are those of Zhang et al. 2019 (arXiv:1902.05965);
    ``gen.training.counting.TwoPhase`` trains both, each network on its own share of the likelihood.

    Args:
        offset: of the logarithm, against empty cells.
        n_nodes: of f and g.
        widths: channels of each U-Net, finest resolution first.

    Raises:
        InputError: for a grid that is not periodic.
    """

    micro_batch = 4
    needs_coarse = True
    margin = 0
    nodes: Tensor
    start: Tensor
    input_scale: Tensor
    output_scale: Tensor

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "galaxy counts",
        unit: str = "galaxies",
        offset: float = 0.02,
        n_nodes: int = 16,
        widths: Sequence[int] = (12, 24, 48),
    ) -> None:
        super().__init__(grid, space, field, unit)
        if not grid.periodic:
            raise InputError("galaxy counts are emulated in periodic boxes, got a grid that is not periodic")
        if offset <= 0 or n_nodes < 2:
            raise InputError(f"offset must be positive and n_nodes at least 2, got {offset:g} and {n_nodes}")
        self.arguments: dict[str, Any] = {"offset": offset, "n_nodes": n_nodes, "widths": list(widths)}
        self.offset, self.n_nodes = offset, n_nodes
        self.occupation = UNet(grid.dim, 2, 1, len(space), widths, "circular")
        self.number = UNet(grid.dim, 2, 1, len(space), widths, "circular")
        self.register_buffer("nodes", torch.linspace(-1, 1, n_nodes))
        self.register_buffer("start", torch.zeros(2, n_nodes))
        self.register_buffer("input_scale", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        self.register_buffer("output_scale", torch.ones(1))

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Measure f and g, and the scales of the networks' input.

        Raises:
            InputError: for another box, values that are no counts, a training set without galaxies, or
                galaxies that do not stand in the matter given.
        """
        if data.grid != self.grid:
            raise InputError(f"the emulator is for {self.grid}, the fields of {data.name} are on {data.grid}")
        if data.coarse is None or data.values.shape[1] != 1:
            given = "no" if data.coarse is None else data.coarse.shape[1]
            raise InputError(
                f"galaxy counts are learnt from one channel and the {INPUT} as coarse fields, got "
                f"{data.values.shape[1]} channels and {given} coarse ones"
            )
        rows = fitting_rows(data, 256)
        density = check_coarse(data.coarse[rows].float(), 1, self.grid.shape, self.network.factor, INPUT)
        refuse_negative(density)
        count, params = data.values[rows].float(), data.params[rows].float()
        _refuse_other_counts(count, density)
        x = self.abscissa(density, params)
        self.nodes.copy_(_nodes(x.flatten(), count.flatten(), self.n_nodes))
        self.start.copy_(_by_density(x.flatten(), count.flatten(), self.nodes))
        views = torch.cat(self._views(x), 1).transpose(0, 1).flatten(1)
        self.input_scale.copy_(torch.stack([views.mean(1), views.std(1).clamp(min=1e-6)], 1))
        parts = zip(density.split(16), params.split(16), count.split(16), strict=True)
        squares = [(self.expected(self.start_of(d, p)) - n).square().mean() for d, p, n in parts]
        self.output_scale.copy_(torch.stack(squares).mean().sqrt().clamp(min=1e-12)[None])

    def abscissa(self, density: Tensor, params: Tensor) -> Tensor:
        """x ``(B, 1, *shape)``; where Omega_m is no parameter it counts as one."""
        columns = dict(zip(self.space.names, params.unbind(1), strict=True))
        om = columns.get("Omega_m", density.new_ones(len(density)))
        return (to_channels(om[:, None], density) * density + self.offset).log()

    def _views(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The density in two ways: x, and what the formula makes of it."""
        return x, _interpolated(x, self.nodes, self.start[0])

    def start_of(self, coarse: Tensor, params: Tensor) -> Tensor:
        """logit p and ln lambda by density alone, ``(B, 2, *shape)``."""
        x = self.abscissa(coarse, params)
        return torch.cat([_interpolated(x, self.nodes, values) for values in self.start], 1)

    def predict(self, coarse: Tensor, params: Tensor) -> Tensor:
        """logit p and ln lambda ``(B, 2, *shape)``, differentiable.

        Args:
            coarse: matter density 1 + delta ``(B, 1, *shape)``.
            params: ``(B, P)``, physical units.
        """
        views = torch.cat(self._views(self.abscissa(coarse, params)), 1)
        centre, spread = (to_channels(x[None], views) for x in self.input_scale.unbind(1))
        inputs = (views - centre) / spread
        style = self.space.normalise(params)
        residual = [net(inputs, style).float() for net in (self.occupation, self.number)]
        return self.start_of(coarse, params) + torch.cat(residual, 1)

    def expected(self, laws: Tensor) -> Tensor:
        """Mean galaxies of a cell, p lambda / (1 - exp(-lambda)), ``(B, 1, *shape)``, of these laws."""
        rate = laws[:, 1:].exp()
        return laws[:, :1].sigmoid() * rate / -torch.expm1(-rate)

    def closed_form(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Galaxies drawn by density alone, ``(B, 1, *shape)``; each box's numbers are its density's own."""
        noise = normal(own_generators(coarse, "by density"), coarse.shape[1:])
        return drawn(self.start_of(coarse, params), noise)

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Each generator another drawing of the galaxies.

        Raises:
            InputError: without matter densities, or with those of another shape.
        """
        shape = self.grid.shape if shape is None else tuple(shape)
        return self.finish(torch.stack(list(self.inputs(params, generators, coarse, shape)), 1), params)

    @property
    def network(self) -> UNet:
        """One of the two, which hear equally far."""
        return self.occupation

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        return divisible(shape, self.network.factor)

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """The matter density, and white noise by which galaxies are drawn."""
        density = check_coarse(coarse, 1, shape, self.network.factor, INPUT)[:, 0].to(params)
        refuse_negative(density)
        yield density
        yield next(white_channels(generators, 1, tuple(shape))).to(params)

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        return drawn(self.predict(inputs[:, :1], params), inputs[:, 1:])


@torch.no_grad()
def drawn(laws: Tensor, white: Tensor) -> Tensor:
    """Counts ``(B, 1, *shape)`` of laws ``(B, 2, *shape)``, each cell's by its own Gaussian number.

    Its rank is that of the count among all that the law allows: zero below 1 - p, above it the quantile of
    the Poisson law without zero.
    """
    p, rate = laws[:, :1].double().sigmoid(), laws[:, 1:].double().clamp(-14, 14).exp()
    rank = ((torch.special.ndtr(white.double()) - (1 - p)) / p).clamp(max=1 - 1e-8)  # 1 is infinitely many
    occupied = rank > 0
    empty = torch.exp(-rate[occupied])
    number = poisson.ppf((empty + rank[occupied] * (1 - empty)).cpu().numpy(), rate[occupied].cpu().numpy())
    count = torch.zeros_like(laws[:, :1])
    count[occupied] = torch.from_numpy(number).clamp(min=1).to(laws)
    return count


def log_truncated(log_rate: Tensor) -> Tensor:
    """ln(1 - exp(-lambda)) of ln lambda, finite for all rates."""
    rate = log_rate.exp()
    # -ln(1 + 1 / (e^lambda - 1)); below 1e-4 it is ln lambda - lambda / 2.
    large = torch.log(-torch.expm1(-rate.clamp(min=1e-4)))
    return torch.where(rate > 1e-4, large, log_rate - rate / 2)


def log_likelihood(laws: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Of each cell: ln P(occupied or not), and ln P(count | occupied), 0 in cells without galaxies.

    Args:
        laws: ``(B, 2, *shape)``, logit p and ln lambda; count: ``(B, 1, *shape)``.
    """
    logit, log_rate = laws[:, :1], laws[:, 1:]
    occupied = count > 0
    first = torch.where(occupied, logsigmoid(logit), logsigmoid(-logit))
    number = count * log_rate - log_rate.exp() - torch.lgamma(count + 1) - log_truncated(log_rate)
    return first, torch.where(occupied, number, 0.0)


def _refuse_other_counts(count: Tensor, density: Tensor) -> None:
    if not bool(((count >= 0) & (count == count.round())).all()):
        raise InputError("galaxy counts must be whole numbers, 0 or more; give counts, not their density")
    total = count.sum()
    if total < 10:
        raise InputError(f"{int(total)} galaxies in the training set are too few to learn from; give more")
    # Galaxies that know nothing of the matter stand at its mean density but for a scatter.
    around = (count * density).sum() / total
    if not around > density.mean() + 5 * density.std() / total.sqrt():
        raise InputError(
            f"the counts do not match their coarse fields: galaxies stand in {around:.2f} times the mean "
            f"density, no more than at random; give pairs of the same box"
        )


def _nodes(x: Tensor, count: Tensor, n: int) -> Tensor:
    """Rising nodes of x: evenly many galaxies, and half as many cells, between neighbours."""
    order = x.argsort()
    weight = (count / count.sum() + 0.5 / len(x))[order].double().cumsum(0)
    edges = torch.linspace(0, 1, n + 1, dtype=torch.float64)[1:-1] * weight[-1]
    inner = x[order][torch.searchsorted(weight, edges).clamp(max=len(x) - 1)]
    ends = torch.stack([x.min(), *inner, x.max()])
    return torch.cummax((ends[1:] + ends[:-1]) / 2 + 1e-5 * torch.arange(n).to(x), 0).values


def _by_density(x: Tensor, count: Tensor, nodes: Tensor) -> Tensor:
    """logit p and ln lambda at the nodes, ``(2, n)``, each from the cells nearest to it."""
    n = len(nodes)
    cell = torch.bucketize(x, (nodes[1:] + nodes[:-1]) / 2)
    cells, occupied, total = (
        torch.bincount(cell, weights=w.double(), minlength=n) for w in (torch.ones_like(x), count > 0, count)
    )
    p = (occupied + 0.5) / (cells + 1)
    # Of a law without zero the mean exceeds 1; where few are occupied the mean is drawn to that of all.
    overall = total.sum() / occupied.sum()
    mean = ((total + overall) / (occupied + 1)).clamp(min=1.001)
    return torch.stack([torch.logit(p), _rate(mean).log()]).float()


def _rate(mean: Tensor) -> Tensor:
    """lambda of the mean lambda / (1 - exp(-lambda)) = m > 1: m + W(-m exp(-m)), W Lambert's function."""
    m = mean.numpy()
    return torch.from_numpy(m + lambertw(-m * np.exp(-m)).real)


def _interpolated(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Linear between the nodes, constant beyond them."""
    right = torch.searchsorted(nodes, x.detach().contiguous()).clamp(1, len(nodes) - 1)
    low, high = nodes[right - 1], nodes[right]
    share = ((x - low) / (high - low)).clamp(0, 1)
    return values[right - 1] + share * (values[right] - values[right - 1])
