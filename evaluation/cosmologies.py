"""What is judged: the maps of every set of samples beside the reference's, cosmology by cosmology."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from evaluation.base import Sample, strata_of
from gen.errors import InputError
from gen.io.rows import selected

if TYPE_CHECKING:
    from gen.io import FieldFile

REGIONS = ("interior", "edge", "extrapolation")
FEWEST_SIMULATIONS = 4  # two halves of two: below, how real differs from real is hardly known
LARGEST_REPORT = 26  # cosmologies, as many as letters


@dataclass(frozen=True, eq=False)
class Cosmology:
    """One set of parameters: its letter in the report, the real maps, and those of each set of samples.

    ``by_maps``: the real maps name no simulations, or one only, so each has to be taken as independent.
    """

    letter: str
    params: dict[str, float]
    region: str
    reference: Sample
    samples: dict[str, Sample]
    by_maps: bool

    def first_channel(self) -> Cosmology:
        """The same of the intensity alone, for what takes one channel."""
        samples = {name: s.first_channel() for name, s in self.samples.items()}
        return replace(self, reference=self.reference.first_channel(), samples=samples)

    @property
    def n_simulations(self) -> int:
        return len(np.unique(self.reference.simulation))


def cosmologies(samples: Mapping[str, FieldFile], reference: FieldFile) -> list[Cosmology]:
    """Group the rows of equal parameters, interior first.

    Rows of the samples whose parameters the reference does not hold are refused, for there is nothing to
    judge them by; so is a cosmology that a set of samples lacks.

    Raises:
        InputError: for sets that do not fit the reference (grid, parameter names, cosmologies, channels), or
            values that are not finite.
    """
    if not samples:
        raise InputError(
            "a report needs at least one set of samples, got none; give a checkpoint or a samples file"
        )
    files = {"the reference": reference, **samples}
    for name, file in files.items():
        _check(name, file, reference)
    strata = np.split(
        strata_of(np.concatenate([_params(f) for f in files.values()])),
        np.cumsum([len(f.values) for f in files.values()])[:-1],
    )
    here = dict(zip(files, strata, strict=True))
    found = np.unique(here["the reference"])
    for name in samples:
        for stratum in np.setdiff1d(here[name], found):
            row = _params(samples[name])[here[name] == stratum][0]
            raise InputError(
                f"{name} holds maps at {_say(reference, row)} and the reference has none; "
                "sample at the reference's parameters"
            )
    if len(found) > LARGEST_REPORT:
        raise InputError(
            f"the reference holds {len(found)} cosmologies, a report takes at most {LARGEST_REPORT}; "
            "select some"
        )
    groups = [_group(stratum, files, here, reference) for stratum in found]
    groups.sort(key=lambda c: (_order(c.region), *c.params.values()))
    return [
        Cosmology(letter, c.params, c.region, c.reference, c.samples, c.by_maps)
        for letter, c in zip(string.ascii_uppercase, groups, strict=False)
    ]


def _group(
    stratum: int, files: Mapping[str, FieldFile], here: Mapping[str, np.ndarray], reference: FieldFile
) -> Cosmology:
    rows = here["the reference"] == stratum
    point = _params(reference)[rows][0]
    taken = {}
    for name, file in files.items():
        mine = here[name] == stratum
        if mine.sum() < 2:
            raise InputError(
                f"{name} holds {mine.sum()} maps at {_say(reference, point)}, at least 2 are needed; "
                "sample at every cosmology of the reference"
            )
        ids = _simulation(file)
        taken[name] = Sample(selected(file.values, mine), None if ids is None else ids[mine])
    real = taken.pop("the reference")
    if len(np.unique(real.simulation)) == 1:
        real = Sample(real.values)
        by_maps = True
    else:
        by_maps = reference.simulation is None or not len(reference.simulation)
    params = dict(zip(reference.space.names, (float(p) for p in point), strict=True))
    return Cosmology("", params, _region(reference, rows, point), real, taken, by_maps)


def _region(reference: FieldFile, rows: np.ndarray, point: np.ndarray) -> str:
    if reference.region is None or not len(reference.region):
        inside = bool(reference.space.inside(torch.as_tensor(point)[None]).all())
        return "interior" if inside else "extrapolation"
    named = np.unique(np.asarray(reference.region)[rows].astype(str))
    if len(named) > 1:
        raise InputError(
            f"the reference calls {_say(reference, point)} both {' and '.join(named)}; give one region"
        )
    return str(named[0])


def _order(region: str) -> tuple[int, str]:
    return (REGIONS.index(region) if region in REGIONS else len(REGIONS), region)


def _check(name: str, file: FieldFile, reference: FieldFile) -> None:
    values = file.values
    if values.ndim != reference.grid.dim + 2 or values.shape[1] not in (1, 3):
        raise InputError(
            f"{name} must hold maps of one channel, (N, 1, *grid), or of I, Q and U, (N, 3, *grid), got "
            f"shape {tuple(values.shape)}; write one channel to a file of its own"
        )
    if values.shape[1] != reference.values.shape[1]:
        raise InputError(
            f"{name} holds {values.shape[1]} channels and the reference {reference.values.shape[1]}; "
            "give both of I alone, or both of I, Q and U"
        )
    if file.grid != reference.grid or tuple(values.shape[2:]) != reference.grid.shape:
        raise InputError(
            f"{name} is on another grid than the reference: {file.grid} against {reference.grid}; "
            "sample on the reference's grid"
        )
    if file.space.names != reference.space.names:
        raise InputError(
            f"{name} has the parameters {', '.join(file.space.names) or 'none'}, the reference "
            f"{', '.join(reference.space.names) or 'none'}; they must be the same in the same order"
        )
    bad = sum(
        int((~torch.isfinite(values[i : i + 64].flatten(1)).all(1)).sum()) for i in range(0, len(values), 64)
    )
    if bad:
        raise InputError(f"{name} holds {bad} maps with values that are not finite; mend or drop them")


def _params(file: FieldFile) -> np.ndarray:
    return np.asarray(file.params, dtype=np.float64).reshape(len(file.values), -1)


def _simulation(file: FieldFile) -> np.ndarray | None:
    if file.simulation is None or not len(file.simulation):
        return None
    ids = np.asarray(file.simulation)
    return None if (ids < 0).all() else ids


def _say(reference: FieldFile, point: np.ndarray) -> str:
    pairs = zip(reference.space.names, point, strict=True)
    return ", ".join(f"{name} = {value:g}" for name, value in pairs) or "no parameters"
