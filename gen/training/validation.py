"""The few statistics that choose the best generator while it trains, against held-out simulations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.emulators.conditioning import evenly
from gen.errors import InputError
from gen.fields import Grid
from gen.nets.layers import near_maximum

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

QUANTILES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


class Validation:
    r"""Distance of generated fields to the validation simulations, at their own parameters.

    Each field is summarised by its log power spectrum, and at thresholds that are quantiles of the real
    fields at its parameters by the share of cells above (the PDF), the surface and the Euler
    characteristic of the excursion set, and the number of peaks above. For each summary

    ``distance^2 = mean over cosmologies and bins of (mean_fake - mean_real)^2 / scatter^2``,

    scatter the standard deviation from field to field at fixed parameters; ``score`` is the root mean
    square of the distances. It ranks generators of one run; verdicts belong to the report. Noise alone
    gives ``floor`` (were all fields independent), which falls with ``n``; the noise of the generated fields
    is the same at every call, so that smaller differences than the floor can be told apart.

    Args:
        reference: the validation simulations, physical units.
        n: fields to generate, spread evenly over at most n / 8 cosmologies.
        k_max: of the spectrum, where a beam leaves nothing to speak of beyond.

    Raises:
        InputError: for fewer than 8 fields to compare with.
    """

    def __init__(
        self, reference: SimulationSet, n: int = 256, n_power: int = 12, k_max: float = math.inf
    ) -> None:
        if len(reference) < 8 or n < 8:
            raise InputError(
                f"validation needs at least 8 real and 8 generated fields, got {len(reference)} and {n}; "
                f"give the validation split more simulations"
            )
        self.grid = reference.grid
        self.binning = _radial_bins(self.grid, n_power, k_max)
        self.window = _window(self.grid)
        members = _groups(reference.params, n // 8)
        self.thresholds = torch.stack([self._thresholds(reference.values[m]) for m in members])
        each = max(2, n // len(members))
        rows = torch.cat([m[evenly(len(m), each)] for m in members])
        self.params = reference.params[rows].float()
        self.coarse = None if reference.coarse is None else reference.coarse[rows].float()
        #: Real fields at the same parameters as the generated ones, for the eye.
        self.example_rows = rows
        self.group = torch.arange(len(members)).repeat_interleave(torch.tensor([each] * len(members)))
        group = torch.cat([torch.full((len(m),), g) for g, m in enumerate(members)])
        real = self.summaries(reference.values[torch.cat(members)], group)
        self.mean = {name: _group_mean(x, group) for name, x in real.items()}
        self.variance = {name: _pooled_variance(x, group) for name, x in real.items()}
        self.floor = math.sqrt(1 / each + sum(1 / len(m) for m in members) / len(members))

    def __len__(self) -> int:
        return len(self.params)

    def shown(self, values: Tensor) -> Tensor:
        """What of a field is drawn: all."""
        return values

    def __call__(self, values: Tensor) -> dict[str, float]:
        """Statistics of fields ``(len(self), C, *shape)`` generated at ``self.params``, physical units.

        ``power``, ``pdf``, ``surface``, ``euler``, ``peaks``: distances; ``score`` and its ``floor``;
        ``diversity``: variance of log P(k) at fixed parameters over that of the real fields;
        ``power_ratio_large``, ``_middle``, ``_small``: mean power over the real mean in thirds of the bins.
        """
        fake = self.summaries(values, self.group)
        result = {name: self._distance(name, x) for name, x in fake.items()}
        result["score"] = math.sqrt(sum(d**2 for d in result.values()) / len(result))
        result["floor"] = self.floor
        ratio = _pooled_variance(fake["power"], self.group) / self.variance["power"]
        result["diversity"] = float(ratio.mean())
        # The spectrum is a logarithm: the ratio of geometric means, the same for equal laws.
        shift = (_group_mean(fake["power"], self.group) - self.mean["power"]).mean(0).exp()
        thirds = zip(("large", "middle", "small"), shift.tensor_split(3), strict=True)
        result.update({f"power_ratio_{name}": float(part.mean()) for name, part in thirds})
        return result

    def _distance(self, name: str, fake: Tensor) -> float:
        shift = _group_mean(fake, self.group) - self.mean[name]
        # A bin with hardly an event has no scatter to measure by: it must not rule.
        floor = 0.01 * self.variance[name].median() + 1e-30
        return float((shift.square() / (self.variance[name] + floor)).mean().sqrt())

    def _thresholds(self, values: Tensor) -> Tensor:
        """Quantiles of a group's cells, ``(C, T)``."""
        cells = values.transpose(0, 1).flatten(1).double()
        ordered = cells[:, :: max(1, cells.shape[1] // 2_000_000)].sort(1).values
        index = [round(q * (ordered.shape[1] - 1)) for q in QUANTILES]
        return ordered[:, index].float()

    def summaries(self, values: Tensor, group: Tensor) -> dict[str, Tensor]:
        """Summary vectors ``(N, n_bins)`` float64 of fields with their cosmology."""
        parts = []
        for chunk in torch.arange(len(values)).split(128):
            x = values[chunk].detach().float().cpu()
            parts.append({"power": self._log_power(x), **self._excursions(x, self.thresholds[group[chunk]])})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _log_power(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        x = (x - x.mean(axes, keepdim=True)) * self.window
        power = torch.fft.rfftn(x, dim=axes).abs().square().flatten(2).double()
        index, weight = self.binning
        total = power.new_zeros(*x.shape[:2], int(index.max()) + 1).index_add(2, index, power * weight)
        count = weight.new_zeros(total.shape[2]).index_add(0, index, weight)
        # The last bin gathers the mean and the corners.
        return (total / count)[..., :-1].clamp(min=1e-300).log().flatten(1)

    def _excursions(self, x: Tensor, thresholds: Tensor) -> dict[str, Tensor]:
        dim = self.grid.dim
        above = {
            axes: _share_above(_neighbour_maximum(x, axes), thresholds)
            for size in range(dim + 1)
            for axes in combinations(range(dim), size)
        }
        cells = above[()]
        surface = torch.stack([above[(axis,)] - cells for axis in range(dim)]).sum(0)
        euler = torch.stack([(-1) ** (dim - len(axes)) * share for axes, share in above.items()]).sum(0)
        peaks = _share_above(_peak_heights(x), thresholds[..., len(QUANTILES) // 2 :])
        named = {"pdf": cells, "surface": surface, "euler": euler, "peaks": peaks}
        return {name: share.flatten(1) for name, share in named.items()}


def _neighbour_maximum(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Of each cell and the next one along the axes: a face, edge or corner is in a closed set of cells
    if any cell that it touches is."""
    for axis in axes:
        n = x.shape[2 + axis]
        x = torch.maximum(x.narrow(2 + axis, 0, n - 1), x.narrow(2 + axis, 1, n - 1))
    return x


def _peak_heights(x: Tensor) -> Tensor:
    """The field at inner cells above all neighbours, minus infinity elsewhere."""
    inner = x[(..., *(slice(1, -1),) * (x.ndim - 2))]
    return torch.where(inner >= near_maximum(x), inner, -torch.inf)


def _share_above(x: Tensor, thresholds: Tensor) -> Tensor:
    """Share of cells above each of ``(N, C, T)`` thresholds, ``(N, C, T)`` float64."""
    ordered = x.flatten(2).sort(2).values
    below = torch.searchsorted(ordered, thresholds.contiguous(), right=True)
    return 1 - below.double() / ordered.shape[2]


def _radial_bins(grid: Grid, n: int, k_max: float) -> tuple[Tensor, Tensor]:
    """Logarithmic bin of each mode up to the Nyquist wavenumber, numbered without gaps, and its weight."""
    k = grid.wavenumber()
    low, high = 0.99 * grid.k_fundamental, min(1.0001 * grid.k_nyquist, k_max)
    edges = torch.logspace(math.log10(low), math.log10(high), n + 1)
    index = torch.bucketize(k, edges.double()) - 1
    outside = (index < 0) | (index >= n)
    weight = torch.full(k.shape, 2.0, dtype=torch.float64)
    weight[..., 0] = 1.0
    if grid.shape[-1] % 2 == 0:
        weight[..., -1] = 1.0
    used = index[~outside].unique()
    packed = torch.searchsorted(used, index.clamp(0, n - 1))
    return torch.where(outside, len(used), packed).flatten(), weight.flatten()


def _window(grid: Grid) -> Tensor:
    """A Hann taper where the grid is not periodic, against the cross that its edges would leave."""
    window = torch.ones(())
    for n in grid.shape:
        window = window[..., None] * (
            torch.ones(n) if grid.periodic else torch.hann_window(n, periodic=False)
        )
    return window


def _groups(params: Tensor, most: int) -> list[Tensor]:
    """Rows of equal parameters, of at most ``most`` evenly chosen cosmologies; all rows as one group
    where parameters hardly repeat."""
    n = len(params)
    if params.shape[1] == 0:
        return [torch.arange(n)]
    _, label = torch.unique(params, dim=0, return_inverse=True)
    members = [torch.nonzero(label == g).flatten() for g in range(int(label.max()) + 1)]
    members = [m for m in members if len(m) >= 4]
    if not members:
        return [torch.arange(n)]
    return [members[i] for i in evenly(len(members), min(most, len(members))).tolist()]


def _group_mean(x: Tensor, group: Tensor) -> Tensor:
    count = torch.bincount(group).double()[:, None]
    return x.new_zeros(len(count), x.shape[1]).index_add(0, group, x) / count


def _pooled_variance(x: Tensor, group: Tensor) -> Tensor:
    """Unbiased variance within groups, per column."""
    mean = _group_mean(x, group)
    return (x - mean[group]).square().sum(0) / (len(x) - len(mean))


def one_line(statistics: Mapping[str, float]) -> str:
    """For the progress bar."""
    named = {"score": ".3f", "diversity": ".2f", "stochasticity_ratio_middle": ".3f"}
    return ", ".join(
        f"{name.replace('_', ' ')} {statistics[name]:{form}}"
        for name, form in named.items()
        if name in statistics
    )
