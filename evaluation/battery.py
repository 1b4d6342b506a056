"""What a report can measure: every statistic by the name that a file of thresholds calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from evaluation.base import Statistic
from evaluation.bispectrum import Bispectrum, ReducedBispectrum
from evaluation.columns import LINE_OF_SIGHT, ColumnDensity
from evaluation.log_pdf import LogPDF
from evaluation.minkowski import Minkowski
from evaluation.moments import SmoothedMoments
from evaluation.multipoles import Multipoles
from evaluation.pdf import Moments, PixelPDF
from evaluation.peaks import Peaks
from evaluation.power import PowerSpectrum
from evaluation.scattering import Scattering
from evaluation.three_point import ThreePoint
from evaluation.voids import VoidSizes
from gen.errors import InputError
from gen.fields import Grid

if TYPE_CHECKING:
    from evaluation.thresholds import Measurement

Build = Callable[[Grid, Tensor, "Measurement"], Sequence[Statistic]]

N_SCALES = 6  # of smoothing
N_SHELLS = 5  # of separation
HIGAN_NYQUIST = np.pi / 0.035  # [h/Mpc], of its cells of 35 kpc/h
HIGAN_SIDES = 6.0 / HIGAN_NYQUIST, 6.5 / HIGAN_NYQUIST


def _power(grid: Grid, reference: Tensor, m: Measurement) -> Sequence[Statistic]:
    return [PowerSpectrum(grid, apodise=_taper(grid, m))]


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
    """The statistics of these names, their bins and thresholds set by the reference of one cosmology."""
    return [statistic for name in names for statistic in BATTERY[name](grid, reference, m)]
