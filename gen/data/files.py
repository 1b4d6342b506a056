"""Fields that users have as NumPy files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gen.data.arrays import as_float32, existing, open_array, open_optional
from gen.data.assemble import assemble, blocks, own_or_shared, with_channels
from gen.data.base import SimulationSet, Source
from gen.data.tables import Table, labels, number_labels, read_labels, read_table
from gen.errors import InputError
from gen.fields import Grid


class ArrayFile(Source):
    """Fields in a ``.npy`` or ``.npz`` file, with an optional table of parameters.

    Which fields share a simulation is taken from, in this order: ``per_simulation``; a file or array of
    simulation ids; a column ``simulation`` of a table with one row per field; equal rows of parameters.
    With none of these each field counts as a simulation of its own: then make sure that no two fields
    come from one box.

    A table has one row per field, or one row per simulation. In the second case its column
    ``simulation`` says which simulation a row is for, in any order; without that column row j is for
    simulation j.

    Args:
        path: array ``(N, *shape)`` or ``(N, C, *shape)``; in a ``.npz`` under ``values``, where arrays
            ``params`` and ``simulation`` are used too if present.
        box_size, box_unit, periodic: of the grid, see ``Grid``.
        unit: unit of the values.
        dim: 2 for maps, 3 for volumes.
        params: ``.csv``, ``.txt`` or ``.npy`` table.
        parameters: names to condition on, default all columns of the table's header; if it has no header,
            the names of all its columns in order.
        simulation: file with one id per field (whole numbers or names).
        per_simulation: consecutive fields of one simulation.
        fractions, seed: of the split by simulation.

    Raises:
        InputError: for anything that does not fit, with the file's name.
    """

    def __init__(
        self,
        path: str | Path,
        box_size: float,
        box_unit: str,
        periodic: bool,
        unit: str,
        dim: int = 2,
        params: str | Path | None = None,
        parameters: Sequence[str] | None = None,
        simulation: str | Path | None = None,
        per_simulation: int | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        self.path, self.dim, self.unit = Path(path).expanduser(), dim, unit
        self.box_size, self.box_unit, self.periodic = box_size, box_unit, periodic
        self.params, self.parameters, self.simulation = params, parameters, simulation
        self.per_simulation, self.fractions, self.seed = per_simulation, fractions, seed

    def prepare(self) -> None:
        for path in (self.path, self.params, self.simulation):
            if path is not None:
                existing(path)

    def load(self) -> SimulationSet:
        array = open_array(self.path, "values")
        values = with_channels(as_float32(array, str(self.path)), self.dim, str(self.path))
        ids, table = self._given_ids(len(values)), self._table()
        names = self._names(table)
        params, ids = self._match(table, names, ids, len(values))
        return assemble(
            self.path.name,
            values,
            Grid(values.shape[2:], self.box_size, self.box_unit, self.periodic),
            own_or_shared(params) if ids is None else number_labels(ids),
            params,
            names,
            self.fractions,
            self.seed,
            self.unit,
        )

    def _given_ids(self, n: int) -> np.ndarray | None:
        """Labels ``(n,)`` of the simulations, if anything but the table tells them."""
        if self.per_simulation is not None:
            return labels(blocks(n, self.per_simulation, str(self.path)))
        if self.simulation is None:
            array, source = open_optional(self.path, "simulation"), self.path
        else:
            array, source = read_labels(self.simulation), self.simulation
        if array is not None and array.shape != (n,):
            raise InputError(
                f"{source}: simulation ids must have shape ({n},), one per field, got {array.shape}"
            )
        return None if array is None else labels(array)

    def _table(self) -> Table | None:
        if self.params is not None:
            table = read_table(self.params)
        else:
            array = open_optional(self.path, "params")
            if array is None:
                if self.parameters:
                    raise InputError(
                        f"parameters {', '.join(self.parameters)} need a table, got none; give params"
                    )
                return None
            table = Table.of(self.path, array)
        return table.named(self.parameters)

    def _names(self, table: Table | None) -> list[str]:
        if table is None:
            return []
        if self.parameters is not None:
            return list(self.parameters)
        return [name for name in table.names if name != "simulation"]

    def _match(
        self, table: Table | None, names: Sequence[str], ids: np.ndarray | None, n: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The parameters ``(n, P)`` of each field, and the labels of the simulations if known."""
        if table is None:
            return np.empty((n, 0)), ids
        rows = table.numbers(names)
        own = labels(table.column("simulation")) if "simulation" in table.names else None
        if len(table) == n and (ids is None or own is None):
            return rows, own if ids is None else ids
        if ids is None:
            raise InputError(
                f"{table.path} has {len(table)} rows for {n} fields in {self.path.name}; give one row per "
                "field, or "
                f"say how many consecutive fields a row is for with per_simulation"
            )
        return rows[self._row_of_field(table, own, ids)], ids

    def _row_of_field(self, table: Table, own: np.ndarray | None, ids: np.ndarray) -> np.ndarray:
        known = [str(j) for j in range(len(table))] if own is None else own.tolist()
        position = {label: row for row, label in enumerate(known)}
        if len(position) != len(known):
            raise InputError(
                f"{table.path}: column 'simulation' must name each simulation once, or each field's"
            )
        odd = sorted(set(ids.tolist()) ^ set(known))
        if odd:
            where = "no row in the table" if odd[0] in ids else f"no field in {self.path.name}"
            raise InputError(
                f"{table.path} has {len(known)} rows for {len(np.unique(ids))} simulations in "
                f"{self.path.name}: "
                f"simulation {odd[0]} has {where}; both must hold the same simulations"
            )
        return np.array([position[label] for label in ids.tolist()])
