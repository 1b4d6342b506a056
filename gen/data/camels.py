"""The CAMELS Multifield Dataset (Villaescusa-Navarro et al. 2022, arXiv:2109.10915)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gen.data.arrays import as_float32, existing, open_array
from gen.data.assemble import assemble
from gen.data.base import SimulationSet, Source
from gen.data.tables import Table, read_table
from gen.errors import InputError
from gen.fields import Grid

#: Order of the columns in the dataset's parameter files; supernovae and AGN alternate.
COLUMNS = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
COSMOLOGY = COLUMNS[:2]
MAPS_PER_SIMULATION = 15
BOX_SIZE = 25.0

#: Units by field prefix; A is 2 for maps and 3 for grids. From the dataset's documentation, which
#: corrects Table 1 of the paper.
UNITS = {
    **dict.fromkeys(("Mgas", "HI", "Mcdm", "Mstar", "Mtot"), "(Msun/h)/(Mpc/h)^{A}"),
    **dict.fromkeys(("Vgas", "Vcdm"), "km/s"),
    **dict.fromkeys(("Z", "MgFe"), "1"),
    "T": "K",
    "P": "h^2 Msun (km/s)^2/kpc^3",
    "ne": "h^2/cm^3 (Mpc/h)^(3-{A})",
    "B": "G",
}

_NAME = re.compile(r"(?P<kind>Maps|Grids)_(?P<field>[A-Za-z]+)_(?P<suite>.+)_z=(?P<z>[\d.]+)\.npy")
_SUITES = ("IllustrisTNG", "SIMBA", "Astrid", "EAGLE")


class CamelsMaps(Source):
    """2D maps (15 per simulation) or 3D grids (one per simulation) of the CAMELS Multifield Dataset.

    Field i belongs to simulation ``i // 15`` (maps) or ``i`` (grids), and to that row of the parameter
    file. Files of several fields become channels. The box is periodic, 25 Mpc/h wide. A single file
    larger than 2 GiB is memory-mapped, unless it is cut.

    Args:
        fields: ``Maps_<field>_<suite>_<set>_z=<z>.npy`` files, one per channel, of one suite and set.
        params: ``params_<set>_<suite>.txt``: columns Omega_m, sigma_8, A_SN1, A_AGN1, A_SN2, A_AGN2
            unless its header names them.
        columns: names of that file's columns, for sets of other parameters.
        parameters: those to condition on, default all six; for N-body files Omega_m and sigma_8, as the
            others mean nothing there. Give ``[]`` for a set at one cosmology (CV).
        crop: cut each map into squares, or each grid into cubes, of so many cells a side, which are no
            longer periodic.
        fractions, seed: of the split by simulation.

    Raises:
        InputError: for names that are not the dataset's, suites that differ, or rows that do not fit.
    """

    def __init__(
        self,
        fields: str | Path | Sequence[str | Path],
        params: str | Path,
        columns: Sequence[str] | None = None,
        parameters: Sequence[str] | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
        crop: int | None = None,
    ) -> None:
        self.files = [Path(f).expanduser() for f in ([fields] if isinstance(fields, str | Path) else fields)]
        self.params = Path(params).expanduser()
        self.columns, self.parameters = columns, parameters
        self.fractions, self.seed, self.crop = fractions, seed, crop

    def prepare(self) -> None:
        for path in (*self.files, self.params):
            existing(path)

    def load(self) -> SimulationSet:
        names = [_parse(path) for path in self.files]
        if not names:
            raise InputError("CamelsMaps needs at least one field file, got none")
        self._check_match(names)
        dim = 2 if names[0]["kind"] == "Maps" else 3
        values = self._values(dim)
        simulation = np.arange(len(values)) // (MAPS_PER_SIMULATION if dim == 2 else 1)
        parameters = self._parameters(names[0]["suite"])
        rows = self._table(len(values), dim).numbers(parameters)[simulation]
        values, cells = self._cut(values), values.shape[-1]
        pieces = len(values) // len(simulation)
        title = f"CAMELS {'+'.join(n['field'] for n in names)} {names[0]['suite']} z={names[0]['z']}"
        units = {UNITS.get(n["field"], "unknown").replace("{A}", str(dim)) for n in names}
        return assemble(
            title,
            values,
            Grid(values.shape[2:], BOX_SIZE * values.shape[-1] / cells, "Mpc/h", periodic=self.crop is None),
            simulation.repeat(pieces),
            rows.repeat(pieces, axis=0),
            parameters,
            self.fractions,
            self.seed,
            ", ".join(sorted(units)),
        )

    def _values(self, dim: int) -> torch.Tensor:
        arrays = [as_float32(open_array(path), str(path)) for path in self.files]
        for path, array in zip(self.files, arrays, strict=True):
            if array.ndim != dim + 1 or array.shape != arrays[0].shape or len(set(array.shape[1:])) != 1:
                raise InputError(
                    f"{path} must have shape (N, {', '.join(['n'] * dim)}) like {self.files[0].name}, "
                    f"got {tuple(array.shape)}"
                )
            self._check_sign(path, array)
        return arrays[0].unsqueeze(1) if len(arrays) == 1 else torch.stack(arrays, dim=1)

    def _check_sign(self, path: Path, array: torch.Tensor) -> None:
        """Refuse negative mass, a field at a time so that a mapped file is never in memory at once."""
        if not UNITS.get(_parse(path)["field"], "").startswith("(Msun/h)"):
            return
        for i, field in enumerate(array):
            if field.min() < 0:
                raise InputError(
                    f"{path}: field {i} holds negative mass down to {field.min().item():.3g}; take the "
                    "dataset's own file, not its logarithm or contrast"
                )

    def _cut(self, values: torch.Tensor) -> torch.Tensor:
        """Pieces of ``(N, C, n, n(, n))``, those of one field after another."""
        if self.crop is None:
            return values
        dim, cells = values.ndim - 2, values.shape[-1]
        if self.crop < 2 or cells % self.crop:
            raise InputError(
                f"crop must divide the {cells} cells a side of {self.files[0].name}, got {self.crop}"
            )
        for axis in range(2, 2 + dim):
            values = values.unfold(axis, self.crop, self.crop)
        return values.movedim(1, 1 + dim).reshape(-1, values.shape[1], *(self.crop,) * dim)

    def _table(self, n_fields: int, dim: int) -> Table:
        table = read_table(self.params)
        table = table.named(self.columns or (COSMOLOGY if table.width == 2 else COLUMNS))
        per = MAPS_PER_SIMULATION if dim == 2 else 1
        if n_fields != per * len(table):
            raise InputError(
                f"{self.files[0]} holds {n_fields} fields, but {self.params} has {len(table)} rows and needs "
                f"{per} per row, {per * len(table)}; use the parameter file of the same suite and set"
            )
        return table

    def _parameters(self, suite: str) -> list[str]:
        if self.parameters is not None:
            return list(self.parameters)
        if "Nbody" in suite:
            return list(COSMOLOGY)
        return list(self.columns or COLUMNS)

    def _check_match(self, names: Sequence[dict[str, str]]) -> None:
        for part in ("kind", "suite", "z"):
            found = {n[part] for n in names}
            if len(found) > 1:
                raise InputError(
                    f"the channels of CAMELS fields must be of one simulation set, got {part} "
                    f"{' and '.join(sorted(found))}; choose files that differ in the field only"
                )
        ours = {s for s in _SUITES if s in names[0]["suite"]}
        theirs = {s for s in _SUITES if s in self.params.name}
        if ours and theirs and ours != theirs:
            raise InputError(
                f"{self.params.name} is for {theirs.pop()}, but {self.files[0].name} is of {ours.pop()}; "
                "the rows "
                f"would belong to other simulations, so use the parameter file of the same suite"
            )


def _parse(path: Path) -> dict[str, str]:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(
            f"{path.name} is not a name of the dataset; expected Maps_<field>_<suite>_<set>_z=<z>.npy or "
            f"Grids_<field>_<suite>_<set>_<n>_z=<z>.npy, so keep the original name or read it with ArrayFile"
        )
    return match.groupdict()
