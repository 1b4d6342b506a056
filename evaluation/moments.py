"""Variance, skewness and kurtosis of a field against the scale on which it is smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.special import j1
from torch import Tensor

from evaluation.base import Part, levelled, on_grid
from gen.errors import InputError
from gen.fields import RADIANS, Grid

_GROUP_CELLS = 1 << 16
_GAUSSIAN_REACH = (
    3.0  # radii within which a Gaussian counts as inside a patch: 0.3 % of its weight on an axis
)

Window = Literal["tophat", "gaussian"]


def smoothing_window(grid: Grid, radius: float, window: Window) -> Tensor:
    """W(kR) on the half lattice of the real transform, 1 at k = 0, float64.

    Top-hat: 3 (sin x - x cos x) / x^3 in 3D, 2 J_1(x) / x in 2D. Gaussian: exp(-x^2 / 2). ``radius`` is in
    the unit of the grid.
    """
    x = (grid.wavenumber() * radius * RADIANS.get(grid.unit, 1.0)).numpy()
    if window == "gaussian":
        return torch.from_numpy(np.exp(-(x**2) / 2))
    safe = np.where(x > 0.01, x, 1.0)
    disc = 2 * j1(safe) / safe if grid.dim == 2 else 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3
    # below 0.01 the closed form cancels and the first term left out of the series is 1e-11
    series = 1 - x**2 / (2 * (grid.dim + 2))
    return torch.from_numpy(np.where(x > 0.01, disc, series))


def interior(grid: Grid, reach: float) -> tuple[slice, ...]:
    """Cells whose centres lie at least ``reach`` from every face of an open grid; all of a periodic one.

    Raises:
        InputError: if no cell is left.
    """
    if grid.periodic:
        return (slice(None),) * grid.dim
    margin = [int(np.ceil(max(0.0, reach / d - 0.5) - 1e-9)) for d in grid.spacing]
    if any(2 * m >= n for m, n in zip(margin, grid.shape, strict=True)):
        raise InputError(
            f"a window that reaches {reach:g} {grid.unit} fits nowhere into a patch of {grid.box_size}; "
            "leave the largest radii out"
        )
    return tuple(slice(m, n - m) for m, n in zip(margin, grid.shape, strict=True))


class SmoothedMoments:
    """Central moments of each map smoothed on several scales; ``moments()`` gives them as statistics.

    With d the deviation of the smoothed map from its own mean,

        variance = <d^2>,   skewness S = <d^3> / <d^2>^(3/2),   kurtosis K = <d^4> / <d^2>^2 - 3.

    S and K are the standardised ones and do not change with the field's unit. For a density contrast the
    hierarchical amplitudes are S_3 = S / sqrt(variance) and S_4 = K / variance (Bernardeau et al. 2002,
    astro-ph/0112551). The variance of a periodic box is sum_k P(k) W^2(kR) / V. A Gaussian field of the
    correlation rho(r) = xi(r)/xi(0) has, with <> over all lags and to leading order,

        mean S = 0,   mean K = -6 <rho^2>,   var S = 6 <rho^3>,   var K = 24 <rho^4>.

    A periodic box is smoothed as it is. In a patch only those cells count whose window lies wholly inside
    (a Gaussian's to 3 R): fewer the larger the scale, and the variance lacks what is constant over them. What
    still leaks in from the opposite face, by the ringing of a band-limited top-hat or the Gaussian's tail,
    changed the variance by under 0.5 % across a step of five standard deviations.

    Args:
        grid: the grid of the fields, 2D or 3D.
        radii: increasing smoothing scales [unit of the grid].
        window: "tophat" or "gaussian", as in ``smoothing_window``.
    """

    def __init__(self, grid: Grid, radii: Sequence[float] | np.ndarray, window: Window = "tophat") -> None:
        self.grid = grid
        self.radii = np.asarray(radii, dtype=np.float64)
        if self.radii.ndim != 1 or not len(self.radii) or not (np.diff(self.radii, prepend=0) > 0).all():
            raise InputError(
                f"radii must be one increasing list of positive scales, got {self.radii.tolist()}"
            )
        if 2 * self.radii[-1] > min(grid.box_size):
            raise InputError(
                f"smoothing radii may be up to half the shortest side, {min(grid.box_size) / 2:g} "
                f"{grid.unit}, got {self.radii[-1]:g}"
            )
        if window not in ("tophat", "gaussian"):
            raise InputError(f"window must be 'tophat' or 'gaussian', got {window!r}")
        self.window = window
        self._windows = [smoothing_window(grid, r, window) for r in self.radii]
        reach = 1.0 if window == "tophat" else _GAUSSIAN_REACH
        self._inside = [interior(grid, reach * r) for r in self.radii]

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, 3, n_radii)`` float64: variance, skewness, kurtosis."""
        x = on_grid(values, self.grid)
        x = x if x.dtype == torch.float64 else x.float()
        groups = x.split(max(1, _GROUP_CELLS // self.grid.n_cells))
        windows = [window.to(x) for window in self._windows]
        return torch.cat([self._moments(group, windows) for group in groups])

    def _moments(self, x: Tensor, windows: list[Tensor]) -> Tensor:
        axes = tuple(range(1, x.ndim))
        modes = torch.fft.rfftn(x - x.mean(axes, keepdim=True), dim=axes)
        rows = []
        for window, inside in zip(windows, self._inside, strict=True):
            smooth = torch.fft.irfftn(modes * window, s=self.grid.shape, dim=axes)
            rows.append(_standardised(smooth[(slice(None), *inside)]))
        return torch.stack(rows, dim=-1)

    def moments(self) -> tuple[Part, Part, Part]:
        """The statistics "smoothed_variance", "smoothed_skewness" and "smoothed_kurtosis", of one pass."""
        unit = self.grid.unit
        return (
            Part(self, 0, "smoothed_variance", r"$\sigma^2(R)$", self.radii, unit, log=True),
            Part(self, 1, "smoothed_skewness", r"$S(R)$", self.radii, unit),
            Part(self, 2, "smoothed_kurtosis", r"$K(R)$", self.radii, unit),
        )


def _standardised(x: Tensor) -> Tensor:
    """``(B, *shape)``, overwritten, -> ``(B, 3)`` variance, skewness, kurtosis; 0 for a constant map."""

    def mean(y: Tensor) -> Tensor:
        # rows are short enough to be added in single precision, their sums are not
        return y.mean(-1).double().flatten(1).mean(1)

    x -= mean(x).to(x).reshape(-1, *[1] * (x.ndim - 1))
    x, level = levelled(x)
    square = x * x
    second = mean(square)
    third = mean(x.mul_(square))
    fourth = mean(square.mul_(square))
    safe = second.where(second > 0, 1.0)
    return torch.stack([second * level**2, third / safe**1.5, (fourth / safe**2 - 3) * (second > 0)], dim=1)
