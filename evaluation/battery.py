"""What a report can measure: every statistic by the name that a file of thresholds calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Statistic, reference_pixels
from evaluation.bispectrum import Bispectrum, ReducedBispectrum
from evaluation.columns import LINE_OF_SIGHT, ColumnDensity
from evaluation.dust import AngleDispersion, DustSpectra
from evaluation.log_pdf import LogPDF
from evaluation.minkowski import Minkowski
from evaluation.moments import SmoothedMoments
from evaluation.multipoles import Multipoles
from evaluation.pdf import Moments, PixelPDF
from evaluation.peaks import Peaks
from evaluation.polarisation import Polarisation
from evaluation.power import PowerSpectrum
from evaluation.scattering import Scattering
from evaluation.stokes import (
    StatisticOfMap,
    check_channels,
    intensity,
    of_map,
    polarisation_angle,
    polarisation_fraction,
    polarised_intensity,
)
from evaluation.three_point import ThreePoint
from evaluation.voids import VoidSizes
from gen.errors import InputError
from gen.fields import Grid

if TYPE_CHECKING:
    from evaluation.thresholds import Measurement

Build = Callable[[Grid, Tensor, "Measurement"], Sequence[Statistic]]

N_SCALES = 6  # of smoothing
N_SHELLS = 5  # of separation
N_ANGLES = 12  # bins of the half circle
HIGAN_NYQUIST = np.pi / 0.035  # [h/Mpc], of its cells of 35 kpc/h
HIGAN_SIDES = 6.0 / HIGAN_NYQUIST, 6.5 / HIGAN_NYQUIST


def _power(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [PowerSpectrum(grid, apodise=_taper(grid, m), k_max=m.k_max(grid))]


def _pdf(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [PixelPDF.from_reference(reference, n_bins=m.pdf_bins)]


def _peaks(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return Peaks.from_reference(grid, reference, n_bins=m.peak_bins).counts()


def _minkowski(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return Minkowski.from_reference(grid, reference, n_thresholds=m.minkowski_thresholds).functionals()


def _bispectrum(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [Bispectrum.equilateral(grid, bins=m.bispectrum_bins, apodise=_taper(grid, m))]


def _reduced(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    equilateral = Bispectrum.equilateral(grid, bins=m.bispectrum_bins, apodise=_taper(grid, m))
    return [ReducedBispectrum.from_reference(equilateral, reference)]


def _squeezed(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [Bispectrum.squeezed(grid, n_long=2, bins=m.bispectrum_bins, apodise=_taper(grid, m))]


def _isosceles(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    """Sides near a quarter of Nyquist, in HIGAN's ratio of 6 to 6.5."""
    k = grid.k_nyquist / 4
    return [Bispectrum.isosceles(grid, k, k * 6.5 / 6, n_angles=m.bispectrum_bins, apodise=_taper(grid, m))]


def _angle(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    """B and Q between HIGAN's two sides, k = 6 and 6.5 h/Mpc of 90 at Nyquist, in units of this grid's."""
    k1, k2 = (grid.k_nyquist * share for share in HIGAN_SIDES)
    angle = Bispectrum.isosceles(grid, k1, k2, m.bispectrum_bins, _taper(grid, m), "bispectrum_angle")
    return ReducedBispectrum.from_reference(angle, reference).parts()


def _log_pdf(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [LogPDF.from_reference(reference)]


def _multipoles(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    """The monopole is ``power``."""
    return Multipoles(grid, apodise=_taper(grid, m)).multipoles()[1:]


def _column_density(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [ColumnDensity.from_reference(grid, reference)]


def _column_density_los(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    name = "column_density_los"
    return [ColumnDensity.from_reference(grid, reference, LINE_OF_SIGHT, name=name)]


def _density_voids(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return VoidSizes.of_density(grid, reference).counts()


def _minkowski_log(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return Minkowski.of_logarithm(grid, reference, n_thresholds=m.minkowski_thresholds).functionals()


def _scattering(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [Scattering(grid)]


def _moments(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [Moments()]


def _smoothed(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    radii = np.geomspace(max(grid.spacing), min(grid.box_size) / 8, N_SCALES)
    return SmoothedMoments(grid, radii).moments()


def _voids(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return VoidSizes.from_reference(grid, reference).counts()


def _three_point(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    edges = np.geomspace(0.9 * max(grid.spacing), min(grid.box_size) / 6, N_SHELLS)
    return ThreePoint(grid, edges, l_max=3).multipoles()


def _spectra(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return DustSpectra(Polarisation(grid, apodise=_taper(grid, m), k_max=m.k_max(grid))).spectra()


def _of_polarised_intensity(build: Build) -> Build:
    def built(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
        return of_map(build(grid, polarised_intensity(reference), m), polarised_intensity, "_P")

    return built


def _fraction(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    p = polarisation_fraction(reference)
    highest = float(np.quantile(reference_pixels(p[p >= 0][None, None]), 1 - 5e-4))
    pdf = PixelPDF(np.linspace(0, highest, m.pdf_bins + 1))
    return _named(of_map([pdf], polarisation_fraction), "polarisation_fraction", "$p(P/I)$", "1")


def _angle_of_polarisation(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    pdf = PixelPDF(np.linspace(-90, 90, N_ANGLES + 1))
    return _named(of_map([pdf], polarisation_angle), "polarisation_angle", r"$p(\psi)$ [deg$^{-1}$]", "deg")


def _angle_dispersion(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    """At the largest of two cells and a 32nd of the side."""
    lag = max(2 * max(grid.spacing), min(grid.box_size) / 32)
    dispersion = AngleDispersion(grid, lag)
    pdf = PixelPDF.from_reference(torch.cat([dispersion(x) for x in reference.split(16)]), m.pdf_bins)
    return _named(of_map([pdf], dispersion), "angle_dispersion", r"$p(\mathcal{S})$ [deg$^{-1}$]", "deg")


def _named(found: list[Statistic], name: str, label: str, unit: str) -> Sequence[Statistic]:
    return [replace(s, name=name, label=label, unit=unit) for s in found if isinstance(s, StatisticOfMap)]


STOKES: dict[str, Build] = {
    "spectra": _spectra,
    "polarised_pdf": _of_polarised_intensity(_pdf),
    "polarised_minkowski": _of_polarised_intensity(_minkowski),
    "polarisation_fraction": _fraction,
    "polarisation_angle": _angle_of_polarisation,
    "angle_dispersion": _angle_dispersion,
}
"""Of fields of three channels, I, Q and U; of one channel there are none of these."""

BATTERY: dict[str, Build] = {
    "power": _power,
    "pdf": _pdf,
    "peaks": _peaks,
    "minkowski": _minkowski,
    "bispectrum": _bispectrum,
    "scattering": _scattering,
    "moments": _moments,
    "squeezed": _squeezed,
    "isosceles": _isosceles,
    "reduced_bispectrum": _reduced,
    "smoothed_moments": _smoothed,
    "voids": _voids,
    "three_point": _three_point,
    "log_pdf": _log_pdf,
    "multipoles": _multipoles,
    "bispectrum_angle": _angle,
    "column_density": _column_density,
    "column_density_los": _column_density_los,
    "density_voids": _density_voids,
    "minkowski_log": _minkowski_log,
    **STOKES,
}


def _taper(grid: Grid, m: Measurement) -> float | None:
    return None if grid.periodic else m.apodise


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse a list of statistics with an unknown or repeated name, or without the power spectrum.

    Raises:
        InputError: naming it.
    """
    for i, name in enumerate(names):
        if name not in BATTERY:
            raise InputError(f"{where}: unknown statistic {name!r}; there are {', '.join(BATTERY)}")
        if name in names[:i]:
            raise InputError(f"{where}: statistic {name!r} is given twice")
    if "power" not in names:
        raise InputError(f"{where}: power must be among the statistics, got {', '.join(names) or 'none'}")


def battery(names: Sequence[str], grid: Grid, reference: Tensor, m: Measurement) -> list[Statistic]:
    """The statistics of these names, their bins and thresholds set by the reference of one cosmology.

    Of fields of I, Q and U those in ``STOKES`` are of all three, all others of I. TT is ``power``.

    Raises:
        InputError: for fields that are neither of one channel nor of three.
    """
    check_channels(reference)
    found: list[Statistic] = []
    for name in names:
        if reference.shape[1] == 1:
            found += [] if name in STOKES else BATTERY[name](grid, reference, m)
        elif name in STOKES:
            found += STOKES[name](grid, reference, m)
        else:
            found += of_map(BATTERY[name](grid, intensity(reference), m), intensity)
    return found
