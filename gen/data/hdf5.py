"""Fields that users have as HDF5 files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from gen.data import arrays
from gen.data.arrays import as_float32, existing, refuse_web_page
from gen.data.assemble import assemble, blocks, own_or_shared, with_channels
from gen.data.base import SimulationSet, Source
from gen.errors import InputError
from gen.fields import Grid

_ATTRIBUTES = ("grid", "parameter_names", "units")


class Hdf5File(Source):
    """Fields in an HDF5 file: this project's own ``.h5`` format, or datasets of any name.

    Our format has datasets ``values`` (N, C, *shape), ``params`` (N, P), ``simulation`` (N,) and
    attributes ``grid`` (JSON) and ``parameter_names``. Where they are absent, give the arguments.

    Args:
        path: the file.
        values, params, simulation: paths of the datasets inside; the last two may be absent.
        parameters: names of the columns of ``params``, default attribute ``parameter_names``.
        box_size, box_unit, periodic, dim: of the grid, default attribute ``grid``.
        per_simulation: consecutive fields of one simulation, where there is no ``simulation``.
        fractions, seed: of the split by simulation.
        unit: unit of the values, default attribute ``units``.

    Raises:
        InputError: for anything that does not fit, with the file's name.
    """

    def __init__(
        self,
        path: str | Path,
        values: str = "values",
        params: str = "params",
        simulation: str = "simulation",
        parameters: Sequence[str] | None = None,
        box_size: float | None = None,
        box_unit: str | None = None,
        periodic: bool | None = None,
        dim: int = 2,
        per_simulation: int | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
        unit: str | None = None,
    ) -> None:
        self.path, self.parameters, self.dim, self.unit = Path(path).expanduser(), parameters, dim, unit
        self.values, self.params, self.simulation = values, params, simulation
        self.box = (box_size, box_unit, periodic)
        self.per_simulation, self.fractions, self.seed = per_simulation, fractions, seed

    def prepare(self) -> None:
        existing(self.path)

    def load(self) -> SimulationSet:
        content = self._read()
        grid = self._grid(content)
        dim = self.dim if grid is None else grid.dim
        what = f"{self.path}: dataset {self.values!r}"
        values = with_channels(as_float32(content.values, what), dim, what)
        if grid is None:
            size, unit, periodic = self.box
            if size is None or unit is None or periodic is None:
                raise InputError(f"{self.path} has no attribute 'grid'; give box_size, box_unit and periodic")
            grid = Grid(values.shape[2:], size, unit, periodic)
        names, params = self._params(content, len(values))
        return assemble(
            self.path.name,
            values,
            grid,
            self._ids(content, params),
            params,
            names,
            self.fractions,
            self.seed,
            self._unit(content),
        )

    def _read(self) -> _Content:
        path = existing(self.path)
        refuse_web_page(path)
        try:
            with h5py.File(path, "r") as file:
                params = (
                    _find(file, self.params)
                    if self.params == "params"
                    else _required(file, self.params, path)
                )
                ids = _find(file, self.simulation)
                if ids is None and self.simulation != "simulation":
                    ids = _required(file, self.simulation, path)
                return _Content(
                    _content(_required(file, self.values, path), path),
                    None if params is None else params[()],
                    None if ids is None else ids[()],
                    {key: file.attrs[key] for key in _ATTRIBUTES if key in file.attrs},
                )
        except InputError:
            raise
        except Exception as error:  # damaged bytes reach the HDF5 library, which may raise anything
            reason = "truncated" if "truncated" in str(error) else "damaged or not HDF5"
            raise InputError(f"{path} is {reason}; copy or download it again") from None

    def _grid(self, content: _Content) -> Grid | None:
        text = content.attributes.get("grid")
        if text is None or any(part is not None for part in self.box):
            return None
        try:
            return Grid.from_dict(json.loads(text))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.path}: attribute 'grid' is not a grid ({error}); give box_size and the like"
            ) from None

    def _params(self, content: _Content, n: int) -> tuple[list[str], np.ndarray]:
        if content.params is None or content.params.shape[-1] == 0:
            if self.parameters:
                raise InputError(
                    f"{self.path} has no dataset {self.params!r} for {', '.join(self.parameters)}"
                )
            return [], np.empty((n, 0))
        names = self.parameters
        if names is None:
            names = _names(content.attributes.get("parameter_names"))
        if names is None:
            raise InputError(
                f"{self.path} has no attribute 'parameter_names'; give parameters, the names of the columns"
            )
        if content.params.shape != (n, len(names)):
            raise InputError(
                f"{self.path}: dataset {self.params!r} must have shape ({n}, {len(names)}) for {n} fields "
                "and "
                f"{', '.join(names)}, got {content.params.shape}"
            )
        return list(names), content.params

    def _ids(self, content: _Content, params: np.ndarray) -> np.ndarray:
        n = len(params)
        if content.simulation is not None:
            if content.simulation.shape != (n,) or content.simulation.dtype.kind not in "iu":
                raise InputError(
                    f"{self.path}: dataset {self.simulation!r} must hold {n} whole numbers, got shape "
                    f"{content.simulation.shape} of {content.simulation.dtype}"
                )
            return content.simulation
        return (
            own_or_shared(params)
            if self.per_simulation is None
            else blocks(n, self.per_simulation, str(self.path))
        )

    def _unit(self, content: _Content) -> str:
        unit = self.unit if self.unit is not None else content.attributes.get("units")
        if unit is None:
            raise InputError(f"{self.path} has no attribute 'units'; give unit, '1' if dimensionless")
        return unit.decode() if isinstance(unit, bytes) else str(unit)


class _Content(NamedTuple):
    values: np.ndarray
    params: np.ndarray | None
    simulation: np.ndarray | None
    attributes: dict[str, Any]


def _find(file: h5py.File, name: str) -> h5py.Dataset | None:
    found = file.get(name)
    return found if isinstance(found, h5py.Dataset) else None


def _required(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    found = _find(file, name)
    if found is None:
        names: list[str] = []
        file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
        raise InputError(f"{path}: dataset {name!r} is missing, it holds {', '.join(names[:20]) or 'none'}")
    return found


def _content(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    """In memory, or mapped if it is large and stored in one piece."""
    offset = dataset.id.get_offset()
    if dataset.nbytes <= arrays.IN_MEMORY or offset is None:
        return dataset[()]
    return np.memmap(path, dataset.dtype, mode="c", offset=offset, shape=dataset.shape)


def _names(attribute: Any) -> list[str] | None:
    """An attribute that is a list of strings, or JSON of one."""
    if attribute is None:
        return None
    if isinstance(attribute, str | bytes):
        return [str(name) for name in json.loads(attribute)]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in attribute]
