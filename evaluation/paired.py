"""Fields that were made for given initial conditions, against the true fields of the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Sample, strata_of
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
class Error:
    """The mean distance of made vectors from the true ones over all cells, and over boxes.

    ``relative`` is that over the mean length of the true vectors; ``std`` and ``relative_std`` are bootstrap
    errors over simulations.
    """

    name: str
    unit: str
    mean: float
    std: float
    relative: float
    relative_std: float


@dataclass(frozen=True, eq=False)
class PairedErrors:
    """One set of samples in one region: errors of its vectors, and by wavenumber ``k (n_bins,)``.

    ``transfer`` T = sqrt(P_made / P_true) and ``stochasticity`` 1 - r^2 of the fields (see ``pairs``), with
    bootstrap errors over simulations.
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge_pairs(
    samples: Mapping[str, FieldFile],
    reference: FieldFile,
    regions: Sequence[str],
    motions: Sequence[Motion] = (),
    seed: int = 0,
) -> list[PairedErrors]:
    """Row i of every set was made for the initial conditions of row i of the reference.

    Raises:
        InputError: for sets of another number of fields.
    """
    for name, file in samples.items():
        if len(file) != len(reference):
            raise InputError(
                f"pairs need a field of {name} for each of {len(reference)} real ones, got {len(file)}"
            )
    spectrum = PowerSpectrum(reference.grid)
    stratum = strata_of(reference.params)
    simulation = np.arange(len(reference)) if reference.simulation is None else reference.simulation
    named = np.full(len(reference), regions[0]) if reference.region is None else reference.region
    found = []
    for region in regions:
        rows = np.flatnonzero(named == region)
        truth = Sample(reference.values[rows], simulation[rows], stratum[rows])
        for name, file in samples.items():
            power = measure_pairs(spectrum, file.values[rows], truth)
            errors = tuple(_error(m, name, rows, power, seed) for m in motions)
            transfer, stochasticity = power.transfer(seed=seed), power.stochasticity(seed=seed)
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
                )
            )
    return found


def _error(motion: Motion, name: str, rows: np.ndarray, like: PairedPower, seed: int) -> Error:
    true, made = motion.true[rows], motion.made[name][rows]
    columns = np.stack([_length(made - true), _length(true)], axis=1)
    names, stratum = np.unique(like.stratum, return_inverse=True)
    boxes = Boxes.of(like.simulation, stratum.reshape(-1), len(names)).single_box_strata_as_maps()
    drawn = bootstrap_weights(boxes, 1000, np.random.default_rng([seed, 4]))
    weights = np.concatenate([np.ones((1, boxes.n_boxes)), drawn])
    error, size = boxes.means(columns, weights).mean(1).T
    return Error(
        motion.name, motion.unit, float(error[0]), float(error[1:].std()),
        float(error[0] / size[0]), float((error / size)[1:].std()),
    )  # fmt: skip


def _length(vectors: Tensor) -> np.ndarray:
    """``(N,)`` mean length of the vectors of each field ``(N, dim, *shape)``."""
    return torch.linalg.vector_norm(vectors.double(), dim=1).flatten(1).mean(1).numpy()
