"""Simulations that were made already, as a source."""

from __future__ import annotations

from gen.data.base import SimulationSet, Source


class Given(Source):
    def __init__(self, data: SimulationSet) -> None:
        self.data = data

    def load(self) -> SimulationSet:
        return self.data
