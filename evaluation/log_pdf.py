"""The density of values that span many decades, in logarithmic bins with one for zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.base import reference_pixels, single_channel
from gen.errors import InputError

MOST_DECADES = 12
PER_DECADE = 4


@dataclass(frozen=True, eq=False)
class LogBins:
    """Bins of equal ratio, the lowest open towards 0 and the highest open above: no value is lost.

    Args:
        edges: ``(n+1,)`` increasing and positive.
        zero: whether values <= 0 have a bin of their own, the first; else they lie in the lowest one.
        per_decade: how many bins are one decade.
    """

    edges: np.ndarray
    zero: bool
    per_decade: int

    @classmethod
    def of(cls, values: np.ndarray, per_decade: int = PER_DECADE, tail: float = 5e-4) -> LogBins:
        """Whole decades from a reference's largest value down to the quantile ``tail`` of its positive ones.

        At most ``MOST_DECADES``. Zeros have their own bin if the reference holds any.

        Raises:
            InputError: for a reference without positive values.
        """
        positive = values[values > 0]
        if not len(positive):
            raise InputError(
                "logarithmic bins need positive values, and the reference holds none; leave log_pdf out of "
                "the statistics"
            )
        top = positive.max() * (1 + 1e-6)
        decades = np.ceil(np.log10(top / np.quantile(positive, tail)))
        n = per_decade * int(np.clip(decades, 1, MOST_DECADES))
        return cls(top * 10.0 ** (np.arange(-n, 1) / per_decade), len(positive) < len(values), per_decade)

    @property
    def centres(self) -> np.ndarray:
        """``(n_bins,)`` geometric; zeros stand a decade below the lowest."""
        found = np.sqrt(self.edges[1:] * self.edges[:-1])
        return np.concatenate([found[:1] / 10, found]) if self.zero else found

    @property
    def decades(self) -> np.ndarray:
        """``(n_bins,)`` the decade of each bin, 0 that of the largest values; -1 for zeros."""
        n = len(self.edges) - 1
        found = (n - 1 - np.arange(n)) // self.per_decade
        return np.concatenate([[-1], found]) if self.zero else found

    def density(self, values: Tensor) -> Tensor:
        """``(B, n)`` values -> ``(B, n_bins)`` their share per decade [1/dex], but for zeros the share."""
        rows = values.detach().cpu().numpy()
        edges = self.edges.astype(rows.dtype)
        edges[0], edges[-1] = -np.inf, np.inf  # the bins at the ends take all that is left
        if self.zero:
            least = np.nextafter(np.zeros((), rows.dtype), np.ones((), rows.dtype))
            edges = np.concatenate([edges[:1], [least], edges[1:]])
        share = np.stack([np.histogram(x, edges)[0] for x in rows]) / rows.shape[1]
        share[:, int(self.zero) :] *= self.per_decade
        return torch.from_numpy(share).to(values.device)


class LogPDF:
    """p(log10 x) of each map [1/dex], x of many decades, such as neutral hydrogen; the first bin is zeros.

    HIGAN's PDF (Zamudio-Fernandez et al. 2019, arXiv:1904.12846) spans nine decades. Over all bins with their
    widths it adds up to 1. Values below the lowest edge belong to the lowest bin, those above what the
    reference reaches to the highest.

    Args:
        bins: logarithmic bins [unit of the field].
        unit: unit of the field.
    """

    name = "log_pdf"
    label = r"$p(\log_{10} x)$ [dex$^{-1}$]"
    n_modes = None
    log = True

    def __init__(self, bins: LogBins, unit: str = "1") -> None:
        self.bins = bins
        self.unit = unit
        self.abscissa = bins.centres

    @classmethod
    def from_reference(cls, values: Tensor, per_decade: int = PER_DECADE, unit: str = "1") -> LogPDF:
        """Bins of the reference's fields ``(N, 1, *shape)``."""
        return cls(LogBins.of(reference_pixels(values), per_decade), unit)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, n_bins)`` float64."""
        return self.bins.density(single_channel(values).flatten(1))
