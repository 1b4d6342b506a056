"""Pairs of fields with the same phases: correlation coefficient, transfer function, stochasticity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Part, Sample, check_finite
from evaluation.power import PowerSpectrum
from evaluation.resampling import Boxes, bootstrap_weights
from gen.errors import InputError


class PairedSpectra:
    """What a field shares with the truth that it was made for, per pair and shell.

        r(k) = P_st / sqrt(P_ss P_tt),   T(k) = sqrt(P_ss / P_tt),   stochasticity = 1 - r^2

    for samples s and truth t, each spectrum averaged over its shell before the ratio (Tegmark & Peebles 1998,
    astro-ph/9804067). Equal fields have r = 1, negated ones -1; independent ones 0 +- 1/sqrt(n_modes).
    T is the factor by which the sample's amplitudes are too large, and T r what a linear fit of s to t has.
    Of one pair 1 - r^2 of independent fields falls short of 1 by 1/n_modes; ``measure_pairs`` averages
    spectra over maps before the ratio.

    Args:
        spectrum: grid, shells and taper.
    """

    def __init__(self, spectrum: PowerSpectrum) -> None:
        self.spectrum = spectrum

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 2, *shape)`` sample and truth as channels -> ``(B, 3, n_bins)`` float64: r, T, 1 - r^2.

        NaN in shells without power.
        """
        ss, tt, st = self.spectra(values)
        r = st / (ss * tt).sqrt()
        return torch.stack([r, (ss / tt).sqrt(), 1 - r**2], dim=1)

    def spectra(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """P_ss, P_tt and P_st of ``(B, 2, *shape)``, ``(B, n_bins)`` each."""
        if values.ndim < 3 or values.shape[1] != 2:
            raise InputError(
                f"pairs are fields of shape (B, 2, *grid shape), got {tuple(values.shape)}; "
                "join sample and truth with torch.cat((samples, truth), dim=1)"
            )
        sample, truth = values[:, :1], values[:, 1:]
        return self.spectrum(sample), self.spectrum(truth), self.spectrum.cross(sample, truth)

    def statistics(self) -> tuple[Part, Part, Part]:
        """ "coherence", "transfer" and "stochasticity" of samples of pairs, which share one pass."""
        s = self.spectrum
        return (
            Part(self, 0, "coherence", "$r(k)$", s.abscissa, s.unit, s.n_modes),
            Part(self, 1, "transfer", "$T(k)$", s.abscissa, s.unit, s.n_modes),
            Part(self, 2, "stochasticity", "$1 - r^2(k)$", s.abscissa, s.unit, s.n_modes),
        )


@dataclass(frozen=True, eq=False)
class PairedCurve:
    """A mean over maps, ``(n_bins,)`` each, with its error over simulations.

    mean; std: bootstrap standard deviation; low, high: 16th and 84th percentile of the bootstrap.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class PairedPower:
    """Spectra of N pairs ``(N, n_bins)``, with the simulation and the parameters of each.

    The curves are ratios of spectra averaged over the maps of a stratum, then means over strata: without the
    bias of a mean of ratios of few modes. Errors resample whole simulations inside strata; a stratum with a
    single simulation takes its maps for independent.
    """

    samples: np.ndarray
    truth: np.ndarray
    cross: np.ndarray
    simulation: np.ndarray
    stratum: np.ndarray

    @classmethod
    def of_boxes(cls, samples: np.ndarray, truth: np.ndarray, cross: np.ndarray) -> PairedPower:
        """Of independent boxes at one set of parameters."""
        n = len(samples)
        return cls(samples, truth, cross, np.arange(n), np.zeros(n, dtype=np.int64))

    def coherence(self, n_bootstrap: int = 1000, seed: int = 0) -> PairedCurve:
        """r(k)."""
        return self._curve(lambda ss, tt, st: st / np.sqrt(ss * tt), n_bootstrap, seed)

    def transfer(self, n_bootstrap: int = 1000, seed: int = 0) -> PairedCurve:
        """T(k)."""
        return self._curve(lambda ss, tt, st: np.sqrt(ss / tt), n_bootstrap, seed)

    def stochasticity(self, n_bootstrap: int = 1000, seed: int = 0) -> PairedCurve:
        """1 - r^2(k)."""
        return self._curve(lambda ss, tt, st: 1 - st**2 / (ss * tt), n_bootstrap, seed)

    def _curve(
        self, ratio: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], n_bootstrap: int, seed: int
    ) -> PairedCurve:
        names, stratum = np.unique(self.stratum, return_inverse=True)
        boxes = Boxes.of(self.simulation, stratum.reshape(-1), len(names)).single_box_strata_as_maps()
        drawn = bootstrap_weights(boxes, n_bootstrap, np.random.default_rng([seed, 2]))
        weights = np.concatenate([np.ones((1, boxes.n_boxes)), drawn])
        sums = [boxes.sums(x) for x in (self.samples, self.truth, self.cross)]
        with np.errstate(divide="ignore", invalid="ignore"):  # shells without power become NaN
            curves = np.mean(
                [
                    ratio(*(weights[:, rows] @ s[rows] for s in sums))
                    for rows in (boxes.box_stratum == i for i in range(len(names)))
                ],
                axis=0,
            )
        low, high = np.quantile(curves[1:], (0.16, 0.84), axis=0)
        return PairedCurve(curves[0], curves[1:].std(0), low, high)


def measure_pairs(
    spectrum: PowerSpectrum, samples: Tensor, truth: Sample, *, batch_size: int = 64
) -> PairedPower:
    """Spectra of ``samples (N, 1, *shape)``, map i made for map i of the truth.

    Raises:
        InputError: if the two do not pair, or hold values that are not finite.
    """
    if samples.shape != truth.values.shape or len(truth) < 2:
        raise InputError(
            f"pairs need as many samples as true maps, of one shape and at least 2, got "
            f"{tuple(samples.shape)} and {tuple(truth.values.shape)}"
        )
    pairs = PairedSpectra(spectrum)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for s, t in zip(samples.split(batch_size), truth.values[:].split(batch_size), strict=True):
        for values in (s, t):
            check_finite(values)
        rows.append(pairs.spectra(torch.cat([s, t.to(s)], dim=1)))
    ss, tt, st = (torch.cat(column).double().cpu().numpy() for column in zip(*rows, strict=True))
    return PairedPower(ss, tt, st, truth.simulation, truth.stratum)
