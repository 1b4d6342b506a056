"""One-point statistics: the density of pixel values and the moments of each map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.base import reference_pixels, single_channel
from gen.errors import InputError


class PixelPDF:
    """Density of pixel values of each map in fixed bins: counts / (N width) [1/unit of the field].

    Pixels outside the edges belong to no bin: the integral is below 1 by their share. Minkowski V0 sees them.

    Args:
        edges: ``(n_bins+1,)`` increasing, in the unit of the field.
        unit: unit of the field.
    """

    name = "pdf"
    label = "pixel PDF"
    n_modes = None
    log = False

    def __init__(self, edges: Sequence[float] | np.ndarray, unit: str = "1") -> None:
        self.edges = np.asarray(edges, dtype=np.float64)
        if self.edges.ndim != 1 or len(self.edges) < 2 or not (np.diff(self.edges) > 0).all():
            raise InputError(f"edges must be one increasing list of at least two, got {self.edges.tolist()}")
        self.unit = unit
        self.abscissa = (self.edges[:-1] + self.edges[1:]) / 2

    @classmethod
    def from_reference(
        cls, values: Tensor, n_bins: int = 40, tail: float = 5e-4, unit: str = "1"
    ) -> PixelPDF:
        """Equal bins between the quantiles ``tail`` and ``1 - tail`` of the reference's pixels."""
        low, high = np.quantile(reference_pixels(values), (tail, 1 - tail))
        if not low < high:
            raise InputError(
                f"the reference is constant at {low:g} but for its extremes; it has no PDF to bin"
            )
        return cls(np.linspace(low, high, n_bins + 1), unit)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, n_bins)`` float64."""
        maps = single_channel(values).flatten(1).detach().cpu().numpy()
        edges = self.edges.astype(maps.dtype)
        # to sort a map is faster than to find the bin of each pixel; bins hold low <= x < high
        below = np.array([np.searchsorted(np.sort(x), edges) for x in maps]).reshape(len(maps), len(edges))
        density = np.diff(below) / (maps.shape[1] * np.diff(self.edges))
        return torch.from_numpy(density).to(values.device)


class Moments:
    """Mean, standard deviation, skewness <d^3>/s^3 and excess kurtosis <d^4>/s^4 - 3 of each map.

    d is the deviation from the map's own mean, s^2 = <d^2>; a constant map has skewness and kurtosis 0.
    """

    name = "moments"
    label = "moments"
    n_modes = None
    log = False
    unit = "order"
    abscissa = np.arange(1.0, 5.0)
    names = ("mean", "std", "skewness", "kurtosis")

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, 4)`` float64."""
        x = single_channel(values).flatten(1).double()
        mean = x.mean(1, keepdim=True)
        d = x - mean
        d2 = d * d
        variance = d2.mean(1)
        safe = variance.where(variance > 0, 1.0)
        skewness = (d2 * d).mean(1) / safe**1.5
        kurtosis = ((d2 * d2).mean(1) / safe**2 - 3) * (variance > 0)
        return torch.stack([mean[:, 0], variance.sqrt(), skewness, kurtosis], dim=1)
