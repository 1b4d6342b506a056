"""Sets of the same kind of fields as one: more simulations beside those that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gen.data.base import SimulationSet, Source
from gen.errors import InputError

SAME = (
    "grid", "space", "unit", "coarse_grid", "vector_channels", "coarse_vector_channels", "spin_channels",
    "line_of_sight",
)  # fmt: skip


class Joined(Source):
    """The fields of several sources, one set after the other, each field in the split that it had.

    No two sources may hold the same simulations: the seeds of their recipes differ.

    Args:
        sources: of the same grid, parameters, unit and channels.

    Raises:
        InputError: without sources.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise InputError("a joined source needs at least one source, got none; name some under sources")
        self.sources = list(sources)

    def prepare(self) -> None:
        for source in self.sources:
            source.prepare()

    def load(self) -> SimulationSet:
        return _joined([source.load() for source in self.sources])

    def rehearse(self) -> SimulationSet:
        return _joined([source.rehearse() for source in self.sources])


def _joined(sets: Sequence[SimulationSet]) -> SimulationSet:
    first = sets[0]
    for other in sets[1:]:
        _check_alike(first, other)
    ids, taken = [], 0
    for part in sets:
        ids.append(part.simulation + taken - part.simulation.min())
        taken = int(ids[-1].max()) + 1
    coarse = [part.coarse for part in sets if part.coarse is not None]
    return replace(
        first,
        values=torch.cat([part.values for part in sets]),
        params=torch.cat([part.params for part in sets]),
        simulation=torch.cat(ids),
        split=np.concatenate([part.split for part in sets]),
        region=np.concatenate([part.region for part in sets]),
        name=" + ".join(part.name for part in sets),
        coarse=torch.cat(coarse) if coarse else None,
    ).check()


def _check_alike(one: SimulationSet, other: SimulationSet) -> None:
    """Refuse sets that are not of one kind."""
    alike = {name: (getattr(one, name), getattr(other, name)) for name in SAME}
    alike["channels"] = (one.values.shape[1], other.values.shape[1])
    if one.coarse is not None and other.coarse is not None:
        alike["coarse channels"] = (one.coarse.shape[1], other.coarse.shape[1])
    for what, (ours, theirs) in alike.items():
        if ours != theirs:
            raise InputError(
                f"joined sets are of one kind, but the {what} of {one.name} is {ours} and of {other.name} "
                f"{theirs}; join sets that agree in it"
            )
