"""Fields that were made for given initial conditions, against the true fields of the same ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Sample, strata_of
from evaluation.large_scales import large_scale_columns
from evaluation.pairs import PairedPower, measure_pairs
from evaluation.power import PowerSpectrum
from evaluation.resampling import Boxes, bootstrap_weights
from gen.errors import InputError

if TYPE_CHECKING:
    from gen.io import FieldFile


@dataclass(frozen=True, eq=False)
class Motion:
    """Vectors that belong to the fields of a report, set by set: what a density alone does not show.

    Args:
        name: "position" or "velocity"; unit: of the vectors.
        true: ``(N, dim, *shape)`` of the reference's fields, in their order.
        made: the same of every set of samples.
    """

    name: str
    unit: str
    true: Tensor
    made: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Pairing:
    """What is known of fields that were made for given initial conditions, beside the fields.

    Args:
        motions: vectors that belong to them.
        twins: of sets that are random given those conditions, other realisations ``(N, 1, *shape)`` of
            the same rows.
    """

    motions: Sequence[Motion] = ()
    twins: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Error:
    """The mean distance of made vectors from the true ones over all cells, and over boxes.

    ``relative`` is that over the mean length of the true vectors, and ``of_baseline`` that over the mean
    distance of the baseline, if it is determined by the conditions; every ``std`` is a bootstrap error over
    simulations, that of ratios with both sides resampled alike.
    """

    name: str
    unit: str
    mean: float
    std: float
    relative: float
    relative_std: float
    of_baseline: float | None = None
    of_baseline_std: float | None = None


@dataclass(frozen=True, eq=False)
class PairedErrors:
    """One set of samples in one region: errors of its vectors, and by wavenumber ``k (n_bins,)``.

    ``transfer`` T = sqrt(P_made / P_true) and ``stochasticity`` 1 - r^2 of the fields (see ``pairs``), with
    bootstrap errors over simulations. ``variety``, of random sets: the power of the difference of two
    realisations over that of one and the truth. Of the right law given the conditions it is 1, for the truth
    is then one more realisation; less says that realisations are too alike, 0 that they are all one.
    ``large_scales``, where asked for: rms difference of smoothed fields, but at open edges, over the scatter
    of the true ones, in the mean square over channels. Spectra are of the first channel.
    """

    region: str
    samples: str
    n: int
    errors: tuple[Error, ...]
    k: np.ndarray
    transfer: np.ndarray
    transfer_std: np.ndarray
    stochasticity: np.ndarray
    stochasticity_std: np.ndarray
    variety: np.ndarray | None = None
    variety_std: np.ndarray | None = None
    large_scales: float | None = None
    large_scales_std: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge_pairs(
    samples: Mapping[str, FieldFile],
    reference: FieldFile,
    regions: Sequence[str],
    pairing: Pairing | None = None,
    seed: int = 0,
    baseline: str | None = None,
    beam: float | None = None,
    k_max: float = math.inf,
) -> list[PairedErrors]:
    """Row i of every set was made for the initial conditions of row i of the reference.

    Errors of vectors are also given in units of the ``baseline``'s, unless it is random; those of large
    scales after smoothing to a ``beam`` (``large_scales``). Spectra end at ``k_max`` [k_unit].

    Raises:
        InputError: for sets of another number of fields.
    """
    for name, file in samples.items():
        if len(file) != len(reference):
            raise InputError(
                f"pairs need a field of {name} for each of {len(reference)} real ones, got {len(file)}"
            )
    pairing = Pairing() if pairing is None else pairing
    over = None if baseline in pairing.twins else baseline
    spectrum = PowerSpectrum(reference.grid, k_max=k_max)
    stratum = strata_of(reference.params)
    simulation = np.arange(len(reference)) if reference.simulation is None else reference.simulation
    named = np.full(len(reference), regions[0]) if reference.region is None else reference.region
    found = []
    for region in regions:
        rows = np.flatnonzero(named == region)
        true = reference.values[rows]
        truth = Sample(true[:, :1], simulation[rows], stratum[rows])
        for name, file in samples.items():
            values = file.values[rows]
            power = measure_pairs(spectrum, values[:, :1], truth)
            errors = tuple(_error(m, name, over, rows, power, seed) for m in pairing.motions)
            transfer, stochasticity = power.transfer(seed=seed), power.stochasticity(seed=seed)
            twin = pairing.twins.get(name)
            variety = (None, None)
            if twin is not None:
                variety = _variety(spectrum, (values[:, :1], twin[rows][:, :1]), true[:, :1], power, seed)
            columns = None if beam is None else large_scale_columns(reference.grid, values, true, beam)
            found.append(
                PairedErrors(
                    region,
                    name,
                    len(rows),
                    errors,
                    spectrum.abscissa,
                    transfer.mean,
                    transfer.std,
                    stochasticity.mean,
                    stochasticity.std,
                    *variety,
                    *((None, None) if columns is None else _kept(columns.numpy(), power, seed)),
                )
            )
    return found


def _error(
    motion: Motion, name: str, baseline: str | None, rows: np.ndarray, like: PairedPower, seed: int
) -> Error:
    true = motion.true[rows]
    lengths = [true, *(motion.made[s][rows] - true for s in (name, baseline) if s is not None)]
    columns = np.stack([mean_length(vectors) for vectors in lengths], axis=1)
    size, error, *other = _resampled(columns, like, seed).mean(1).T
    found = [(x[0], x[1:].std()) for x in (error, error / size, *(error / x for x in other))]
    return Error(motion.name, motion.unit, *(float(x) for pair in found for x in pair))


def _kept(columns: np.ndarray, like: PairedPower, seed: int) -> tuple[float, float]:
    means = _resampled(columns, like, seed).mean(1)
    wrong, size = np.split(means, 2, axis=1)
    rms = np.sqrt((wrong / size).mean(1))
    return float(rms[0]), float(rms[1:].std())


def _variety(
    spectrum: PowerSpectrum, pair: tuple[Tensor, Tensor], true: Tensor, like: PairedPower, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """P(one - other) over the mean of P(truth - one) and P(truth - other), and its error."""
    one, other = pair
    apart = _powers(spectrum, one, other)
    wrong = (_powers(spectrum, true, one) + _powers(spectrum, true, other)) / 2
    n = apart.shape[1]
    means = _resampled(np.hstack([apart, wrong]), like, seed).mean(1)
    ratio = means[:, :n] / means[:, n:]
    return ratio[0], ratio[1:].std(0)


def _powers(spectrum: PowerSpectrum, a: Tensor, b: Tensor) -> np.ndarray:
    """``(N, n_bins)`` of the difference."""
    return torch.cat([spectrum(x - y) for x, y in zip(a.split(64), b.split(64), strict=True)]).numpy()


def _resampled(columns: np.ndarray, like: PairedPower, seed: int, n: int = 1000) -> np.ndarray:
    """``(1 + n, n_strata, n_columns)`` means over maps: as they are, then of resampled simulations."""
    names, stratum = np.unique(like.stratum, return_inverse=True)
    boxes = Boxes.of(like.simulation, stratum.reshape(-1), len(names)).single_box_strata_as_maps()
    drawn = bootstrap_weights(boxes, n, np.random.default_rng([seed, 4]))
    return boxes.means(columns, np.concatenate([np.ones((1, boxes.n_boxes)), drawn]))


def mean_length(vectors: Tensor) -> np.ndarray:
    """``(N,)`` mean length of the vectors of each field ``(N, dim, *shape)``."""
    return torch.linalg.vector_norm(vectors.double(), dim=1).flatten(1).mean(1).numpy()
