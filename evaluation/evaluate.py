"""Everything that the report measures at one cosmology."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from evaluation.base import Measured, Statistic, measure
from evaluation.bispectrum import Bispectrum
from evaluation.compare import Comparison, PixelKS, compare_measured, correct, pixel_ks
from evaluation.cosmologies import REGIONS, Cosmology
from evaluation.literature import LiteratureTests, literature_tests
from evaluation.minkowski import Minkowski
from evaluation.pdf import Moments, PixelPDF
from evaluation.peaks import Peaks
from evaluation.power import PowerSpectrum
from evaluation.residuals import PowerError, Residual, power_error, residual
from evaluation.scattering import Scattering
from evaluation.thresholds import Measurement, Thresholds
from evaluation.verdict import FAMILIES
from gen.fields import Grid

N_STATISTICS = 12  # at most, of ``statistics``


@dataclass(eq=False)
class Evaluated:
    """Everything measured at one cosmology; the inner dictionaries are by set of samples."""

    cosmology: Cosmology
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    residuals: dict[str, dict[str, Residual]] = field(default_factory=dict)
    power: dict[str, PowerError] = field(default_factory=dict)
    pixels: dict[str, PixelKS] = field(default_factory=dict)
    literature: dict[str, LiteratureTests] = field(default_factory=dict)
    real: dict[str, Measured] = field(default_factory=dict)  # by statistic
    made: dict[str, dict[str, Measured]] = field(default_factory=dict)


def regions(evaluated: list[Evaluated]) -> list[str]:
    """The regions that are present, in the report's order."""
    present = dict.fromkeys(e.cosmology.region for e in evaluated)
    return [r for r in REGIONS if r in present] + [r for r in present if r not in REGIONS]


def statistics(grid: Grid, reference: torch.Tensor, m: Measurement) -> list[Statistic]:
    """The report's statistics, their bins and thresholds set by the reference of one cosmology."""
    peaks, minima = Peaks.from_reference(grid, reference, n_bins=m.peak_bins).counts()
    apodise = None if grid.periodic else m.apodise
    return [
        PowerSpectrum(grid, apodise=apodise),
        PixelPDF.from_reference(reference, n_bins=m.pdf_bins),
        peaks,
        *Minkowski.from_reference(grid, reference, n_thresholds=m.minkowski_thresholds).functionals(),
        minima,
        Bispectrum.equilateral(grid, bins=m.bispectrum_bins, apodise=apodise),
        Scattering(grid),
        Moments(),
    ]


def permutations_needed(n_cosmologies: int, t: Thresholds) -> int:
    """As many as the thresholds ask, or as Holm needs to be able to reject one distance among all."""
    return max(
        t.measurement.n_permutations,
        math.ceil(1.2 * FAMILIES * N_STATISTICS * n_cosmologies / t.significance),
    )


def evaluate(
    c: Cosmology, names: list[str], grid: Grid, t: Thresholds, n_permutations: int, seed: int
) -> Evaluated:
    """Measure the reference and every set of samples once, and compare them."""
    m = t.measurement
    chosen = statistics(grid, c.reference.values, m)
    real = measure(chosen, c.reference)
    e = Evaluated(c, real=real)
    for name in names:
        made = e.made[name] = measure(chosen, c.samples[name])
        e.comparisons[name] = {
            s.name: compare_measured(
                s,
                real[s.name],
                made[s.name],
                n_bootstrap=m.n_bootstrap,
                n_permutations=n_permutations,
                seed=seed,
            )
            for s in chosen
        }
        e.residuals[name] = {
            s.name: residual(e.comparisons[name][s.name], real[s.name], made[s.name]) for s in chosen
        }
        e.power[name] = power_error(
            e.comparisons[name]["power"],
            e.residuals[name]["power"],
            real["power"],
            t.power.k_max * grid.k_nyquist,
            m.n_splits,
            seed,
        )
        e.pixels[name] = pixel_ks(c.reference, c.samples[name], n_permutations=m.n_bootstrap, seed=seed)
        e.literature[name] = literature_tests(c.reference, c.samples[name], real, made, seed=seed)
    return e


def correct_ks(evaluated: list[Evaluated], name: str) -> None:
    """Adjust the KS p-values of one set over all its bins, statistics and cosmologies."""
    flat = [(e, s) for e in evaluated for s in e.comparisons[name]]
    for (e, s), c in zip(flat, correct([e.comparisons[name][s] for e, s in flat]), strict=True):
        e.comparisons[name][s] = c
