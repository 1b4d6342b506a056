"""Displacements and velocities from HDF5 snapshots of the GADGET family (Springel 2005, astro-ph/0505010)."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.assemble import assemble
from gen.data.base import SimulationSet, Source
from gen.data.gadget_file import Particles, read_particles
from gen.data.tables import read_table
from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.displacement import Motion, from_positions
from gen.simulate.growth import A_START, Growth

SAME_UNIVERSE = 0.5
"""Least correlation of an initial with its evolved displacement; of other universes it is about 0."""


class GadgetSnapshots(Source):
    """Displacement [Mpc/h] and peculiar velocity [km/s] of the particles of snapshots, 6 channels.

    Snapshot j belongs to row j of the table, in the order of the numbers in the files' names. With
    initial snapshots of the same runs the coarse field is the initial displacement, grown by linear
    theory to the redshift of the evolved one: the Zel'dovich displacement, to the initial's second order.
    The mean displacement of a snapshot is taken out, as where its lattice started is not known.

    Args:
        snapshots: HDF5 files, or a pattern such as ``runs/*/snap_004.hdf5``; of a snapshot in many files
            the first.
        initial: of the same runs in the same order; none for no coarse field.
        params: table of the cosmologies, one row a snapshot.
        parameters: those to condition on, default all columns; ``z`` is taken from the snapshots.
        length_unit: of the positions, "kpc/h" or "Mpc/h".
        box_size: what the box must be [Mpc/h], if it shall be checked.
        fractions, seed: of the split by snapshot.

    Raises:
        InputError: for files that are no whole snapshot, boxes or particle numbers that differ, particles
            out of order, an initial snapshot of another run.
    """

    def __init__(
        self,
        snapshots: str | Path | Sequence[str | Path],
        initial: str | Path | Sequence[str | Path] = (),
        params: str | Path | None = None,
        parameters: Sequence[str] | None = None,
        length_unit: str = "kpc/h",
        box_size: float | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        self.snapshots, self.initial = _files(snapshots), _files(initial)
        if self.initial and len(self.initial) != len(self.snapshots):
            raise InputError(
                f"every snapshot needs its initial one, got {len(self.initial)} for {len(self.snapshots)}"
            )
        if not self.snapshots:
            raise InputError(f"no snapshot matches {snapshots}; give HDF5 files or a pattern of them")
        self.params, self.parameters, self.length_unit = params, parameters, length_unit
        self.box_size, self.fractions, self.seed = box_size, fractions, seed

    def load(self) -> SimulationSet:
        values, coarse, redshifts = [], [], []
        grid = None
        for j, path in enumerate(self.snapshots):
            now = read_particles(path, self.length_unit)
            grid = self._grid(now, grid)
            moved = motion(now)
            values.append(torch.cat(moved, 1))
            redshifts.append(now.z)
            if self.initial:
                start = read_particles(self.initial[j], self.length_unit)
                coarse.append(_grown(start, now, moved.displacement))
        assert grid is not None
        names, rows = self._table(np.array(redshifts))
        return assemble(
            f"GADGET {self.snapshots[0].name}",
            torch.cat(values),
            grid,
            np.arange(len(values)),
            rows,
            names,
            self.fractions,
            self.seed,
            "Mpc/h and km/s",
            torch.cat(coarse) if coarse else None,
            grid if coarse else None,
            ((0, 1, 2), (3, 4, 5)),
            ((0, 1, 2),) if coarse else (),
        )

    def _grid(self, now: Particles, before: Grid | None) -> Grid:
        """The lattice's, the same for all snapshots."""
        expected = self.box_size if before is None else before.box_size[0]
        if expected is not None and abs(now.box_size / expected - 1) > 1e-5:
            raise InputError(
                f"{now.path} has a box of {now.box_size:g} Mpc/h, expected {expected:g}; check length_unit "
                f"({self.length_unit}), and read runs of other boxes as sets of their own"
            )
        if before is not None and before.shape[0] != now.n:
            raise InputError(
                f"{now.path} has {now.n}^3 particles, those before it {before.shape[0]}^3; read each as "
                f"a set of its own"
            )
        return before or Grid((now.n,) * 3, now.box_size, "Mpc/h", periodic=True)

    def _table(self, redshifts: np.ndarray) -> tuple[list[str], np.ndarray]:
        n = len(redshifts)
        names = [] if self.parameters is None else list(self.parameters)
        table = None if self.params is None else read_table(self.params).named(self.parameters)
        if table is not None and len(table) != n:
            raise InputError(
                f"{self.params} has {len(table)} rows for {n} snapshots; give one row a snapshot"
            )
        if table is not None and self.parameters is None:
            names = list(table.names)
        if table is None and set(names) - {"z"}:
            raise InputError(f"parameters {', '.join(names)} need a table; give params")
        if "z" not in names and np.ptp(redshifts) > 1e-3:
            raise InputError(
                f"the snapshots have redshifts {redshifts.min():g} to {redshifts.max():g}; make z one of the "
                f"parameters, or read one redshift"
            )
        columns = [redshifts[:, None] if x == "z" or table is None else table.numbers([x]) for x in names]
        return names, np.concatenate([np.empty((n, 0)), *columns], axis=1)


def motion(particles: Particles) -> Motion:
    """Displacement [Mpc/h], of mean zero, and velocity [km/s] of the particles, each ``(1, 3, n, n, n)``.

    Raises:
        InputError: for particles whose order by id is not that of a lattice, first axis slowest.
    """
    n = particles.n
    try:
        moved = from_positions(particles.positions[None], particles.box_size)
    except InputError as error:
        raise InputError(f"{particles.path}: {error}, first axis slowest") from error
    return Motion(_centred(moved), particles.velocities[None].unflatten(2, (n, n, n)))


def _grown(start: Particles, now: Particles, moved: Tensor) -> Tensor:
    """The initial displacement times D(now) / D(start), ``(1, 3, n, n, n)`` [Mpc/h]."""
    pair = f"{start.path} is not the initial snapshot of {now.path}"
    for what, a, b in (("box", start.box_size, now.box_size), ("particles a side", start.n, now.n)):
        if abs(a / b - 1) > 1e-5:
            raise InputError(f"{pair}: {what} {a:g} against {b:g}; give both of one run")
    if start.z <= now.z:
        raise InputError(f"{pair}: its redshift {start.z:g} is not above {now.z:g}; exchange the two")
    matter = now.Omega_m if now.Omega_m is not None else start.Omega_m
    if matter is None or (start.Omega_m is not None and abs(start.Omega_m - matter) > 1e-4):
        raise InputError(
            f"{pair}: Omega0 is {start.Omega_m} against {now.Omega_m}; both headers must tell the same"
        )
    if 1 / (1 + start.z) < A_START:
        raise InputError(f"{start.path} has redshift {start.z:g}; growth is known up to {1 / A_START - 1:g}")
    first = motion(start).displacement
    shared = (first * moved).sum() / (first.norm() * moved.norm())
    if not shared > SAME_UNIVERSE:
        raise InputError(
            f"{pair}: their displacements correlate by {shared.item():.2f} only, so they are of different "
            f"initial conditions; give both of one run"
        )
    growth = Growth(matter)
    return first * float(growth.first(1 / (1 + now.z)) / growth.first(1 / (1 + start.z)))


def _centred(displacement: Tensor) -> Tensor:
    return displacement - displacement.mean((2, 3, 4), keepdim=True)


def _files(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files, a pattern's in the order of the numbers in their names."""
    if not isinstance(given, str | Path):
        return [Path(path).expanduser() for path in given]
    if not glob.has_magic(str(given)):
        return [Path(given).expanduser()]
    found = glob.glob(str(Path(given).expanduser()))
    return [Path(path) for path in sorted(found, key=_natural)]


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path)]
