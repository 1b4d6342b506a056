"""Differentiable summaries of a field, for critics that see them and losses that compare them."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from gen.fields import Grid
from gen.nets.layers import local_maximum, near_maximum


class Summaries(nn.Module):
    r"""Log power spectra, soft Minkowski densities and extrema at several smoothings, ``(B, n)``.

    The spectra are those of the normal scores and of the field in linear space, where the power sits in the
    peaks; everything else is a function of the scores.

    The excursion set above a threshold nu is a complex of closed cells; each of its faces is present when
    the maximum over the cells that touch it exceeds nu. With ``c_S`` the share of positions where the
    maximum over neighbours along the axes S exceeds nu, the densities are ``c_{}``, the boundary
    ``sum_i (c_i - c)``, and the Euler characteristic ``sum_S (-1)^(dim-|S|) c_S``. A sigmoid of width
    ``softness`` in place of the step gives them gradients, and so does ``exp(4 (y - m)/softness)`` instead of
    the test that a cell equals the maximum m of its neighbourhood, for the counts of maxima above and of
    minima below each threshold. Fields are expected near unit variance.

    Args:
        grid: the fields' grid; a non-periodic one is tapered before the Fourier transform.
        n_power: spectrum bins, equidistant in log k up to the Nyquist wavenumber.
        scales: Gaussian smoothing lengths in cells; the smoothed field is brought back to unit variance
            with fixed factors set by ``fit``.
        n_thresholds: thresholds between -3 and 4.
        bin_width: interpolate the sigmoids linearly between nodes of this spacing, which costs the same for
            any number of thresholds: in volumes several times less. The error is below
            ``0.012 (bin_width / softness)^2``. Not at all by default.
        k_max: leave out spectrum bins that reach beyond it: of a field that a beam has smoothed, the
            logarithm of what is left there would rule over all else.
    """

    spectrum_bin: Tensor
    spectrum_count: Tensor
    mean: Tensor
    std: Tensor
    level: Tensor
    window: Tensor
    thresholds: Tensor
    k_cells: Tensor
    spectrum_weight: Tensor
    spectrum_used: Tensor

    def __init__(
        self,
        grid: Grid,
        n_power: int = 16,
        scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0),
        n_thresholds: int = 15,
        softness: float = 0.2,
        bin_width: float | None = None,
        k_max: float = math.inf,
    ) -> None:
        super().__init__()
        self.grid, self.scales, self.softness, self.bin_width = grid, scales, softness, bin_width
        k = grid.wavenumber()
        edges = torch.logspace(
            math.log10(0.5 * grid.k_fundamental), math.log10(grid.k_nyquist * (1 + 1e-9)), n_power + 1
        ).double()
        index = torch.bucketize(k, edges) - 1
        index = torch.where(index < n_power, index, torch.full_like(index, n_power))
        index[(0,) * grid.dim] = n_power
        weight = torch.full((grid.shape[-1] // 2 + 1,), 2.0, dtype=torch.float64)
        weight[0] = 1.0
        if grid.shape[-1] % 2 == 0:
            weight[-1] = 1.0
        weight = weight.expand(k.shape).flatten()
        count = torch.zeros(n_power + 1, dtype=torch.float64).index_add_(0, index.flatten(), weight)
        used = torch.nonzero((count[:n_power] > 0) & (edges[1:] < k_max)).flatten()
        self.register_buffer("spectrum_bin", index.flatten(), persistent=False)
        self.register_buffer("spectrum_weight", weight.float(), persistent=False)
        self.register_buffer("spectrum_count", count.float(), persistent=False)
        self.register_buffer("spectrum_used", used, persistent=False)
        self.register_buffer("window", self._window(), persistent=False)
        self.register_buffer("thresholds", torch.linspace(-3, 4, n_thresholds), persistent=False)
        self.register_buffer("k_cells", (k * grid.k_sides[0] / grid.shape[0]).float(), persistent=False)
        self.n_power = len(used)
        self.n_spectra = 2 * len(used)
        self.n_outputs = 2 * len(used) + len(scales) * (1 + 5 * n_thresholds)
        self.register_buffer("mean", torch.zeros(self.n_outputs))
        self.register_buffer("std", torch.ones(self.n_outputs))
        self.register_buffer("level", torch.ones(len(scales)))

    def _window(self) -> Tensor:
        window = torch.ones(())
        for n in self.grid.shape:
            taper = torch.ones(n) if self.grid.periodic else torch.hann_window(n, periodic=False)
            window = window[..., None] * taper
        return window

    def modes(self, y: Tensor) -> Tensor:
        """Tapered Fourier modes of fields ``(B, C, *shape)`` on the rfftn lattice."""
        axes = tuple(range(2, y.ndim))
        centred = (y - y.mean(axes, keepdim=True)) * self.window
        return torch.fft.rfftn(centred.float(), dim=axes)

    def binned(self, power: Tensor) -> Tensor:
        """Means ``(B, n_power)`` over shells of ``(B, *rfftn lattice)``."""
        power = power.flatten(1)
        total = power.new_zeros(len(power), len(self.spectrum_count))
        total = total.index_add(1, self.spectrum_bin, power * self.spectrum_weight)
        return (total / self.spectrum_count.clamp(min=1))[:, self.spectrum_used]

    def log_power(self, y: Tensor) -> Tensor:
        """Natural logarithm of the tapered spectrum in bins, ``(B, n_power)``."""
        return self.binned(self.modes(y).abs().square().mean(1)).clamp(min=1e-20).log()

    def smoothed(self, y: Tensor, scale: float) -> Tensor:
        """Gaussian smoothing; on a grid that is not periodic the wrapped margin is cut off."""
        if scale == 0:
            return y
        axes = tuple(range(2, y.ndim))
        kernel = torch.exp(-0.5 * (self.k_cells * scale) ** 2)
        result = torch.fft.irfftn(torch.fft.rfftn(y.float(), dim=axes) * kernel, s=y.shape[2:], dim=axes)
        if self.grid.periodic:
            return result
        cut = math.ceil(2 * scale)
        return result[(slice(None), slice(None), *(slice(cut, n - cut) for n in y.shape[2:]))]

    def above(self, y: Tensor) -> Tensor:
        """Which cells exceed which threshold, softly: ``(B, cells, T)``."""
        return torch.sigmoid((y.flatten(1).unsqueeze(-1) - self.thresholds) / self.softness)

    def share_above(self, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean over cells of ``above``, perhaps times a weight ``(B, 1, *shape)``: ``(B, T)``."""
        if self.bin_width is None:
            above = self.above(y)
            return (above if weight is None else weight.flatten(1).unsqueeze(-1) * above).mean(1)
        # Beyond ten widths of the outermost thresholds a sigmoid is 0 or 1.
        low, high = self.thresholds[0] - 10 * self.softness, self.thresholds[-1] + 10 * self.softness
        nodes = torch.arange(int((high - low) / self.bin_width) + 2, device=y.device)
        table = torch.sigmoid((low + nodes[:, None] * self.bin_width - self.thresholds) / self.softness)
        position = ((y.float().flatten(1) - low) / self.bin_width).clamp(0, len(nodes) - 1.001)
        cell = position.detach().floor().long()
        fraction = position - cell
        upper = fraction if weight is None else fraction * weight.flatten(1)
        lower = 1 - fraction if weight is None else weight.flatten(1) - upper
        counts = lower.new_zeros(len(y), len(nodes))
        counts = counts.scatter_add(1, cell, lower).scatter_add(1, cell + 1, upper)
        return counts @ table / cell.shape[1]

    def extrema(self, y: Tensor) -> Tensor:
        """Soft densities of maxima above the thresholds and of minima below their negatives, ``(B, 2 T)``."""
        inner = (slice(None), slice(None), *(slice(1, -1),) * (y.ndim - 2))
        counts = []
        for sign in (1, -1):
            cell = sign * y
            closeness = torch.exp((cell[inner] - near_maximum(cell)) / (0.25 * self.softness))
            counts.append(self.share_above(cell[inner], closeness))
        return torch.cat(counts, 1)

    def minkowski(self, y: Tensor) -> Tensor:
        """Soft volume, boundary and Euler densities, ``(B, 3 T)``."""
        dim = y.ndim - 2
        shares = {
            axes: self.share_above(local_maximum(y, axes) if axes else y)
            for size in range(dim + 1)
            for axes in combinations(range(dim), size)
        }
        volume = shares[()]
        boundary = torch.stack([shares[(axis,)] - volume for axis in range(dim)]).sum(0)
        euler = torch.stack([(-1) ** (dim - len(axes)) * share for axes, share in shares.items()]).sum(0)
        return torch.cat([volume, boundary, euler], 1)

    def raw(self, y: Tensor, linear: Tensor) -> Tensor:
        """The summaries before standardisation."""
        parts = [self.log_power(y), self.log_power(linear)]
        for scale, level in zip(self.scales, self.level, strict=True):
            smooth = self.smoothed(y, scale) / level
            parts += [smooth.flatten(1).std(1, keepdim=True), self.minkowski(smooth), self.extrema(smooth)]
        return torch.cat(parts, 1)

    @torch.no_grad()
    def fit(self, y: Tensor, linear: Tensor) -> None:
        """Set the smoothing levels and the standardisation from real fields ``(N, 1, *shape)``."""
        for i, scale in enumerate(self.scales):
            self.level[i] = torch.stack([self.smoothed(p, scale).var() for p in y.split(32)]).mean().sqrt()
        values = torch.cat([self.raw(*p) for p in zip(y.split(32), linear.split(32), strict=True)])
        self.mean.copy_(values.mean(0))
        # The share of cells above a rare threshold has a scatter near zero: its weight is bounded.
        scatter = values.std(0)
        block = torch.full_like(scatter, 3e-4)
        block[: 2 * self.n_power] = 1e-2
        self.std.copy_(torch.maximum(scatter, block))

    def forward(self, y: Tensor, linear: Tensor) -> Tensor:
        """Standardised summaries ``(B, n)`` of scores and linear fields ``(B, 1, *shape)``."""
        return (self.raw(y, linear) - self.mean) / self.std

    def spectra(self, y: Tensor, linear: Tensor) -> Tensor:
        """The standardised spectra alone, ``(B, n_spectra)``."""
        n = self.n_spectra
        return (torch.cat([self.log_power(y), self.log_power(linear)], 1) - self.mean[:n]) / self.std[:n]
