"""The particles of one HDF5 snapshot of the GADGET family, in order of their ids and in our units."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from gen.data.arrays import existing
from gen.errors import InputError

DARK_MATTER = "PartType1"
LENGTHS = {"kpc/h": 1e-3, "Mpc/h": 1.0}


class Particles(NamedTuple):
    """By rising id: comoving ``positions`` [Mpc/h] and peculiar ``velocities`` [km/s], each ``(3, n^3)``."""

    path: Path
    positions: Tensor
    velocities: Tensor
    n: int
    box_size: float
    z: float
    Omega_m: float | None


class _Part(NamedTuple):
    header: dict[str, Any]
    coordinates: np.ndarray
    velocities: np.ndarray
    ids: np.ndarray


def read_particles(path: str | Path, length_unit: str = "kpc/h") -> Particles:
    """The dark matter of an HDF5 snapshot (formats of GADGET-2, -3 and -4, AREPO), also in many files.

    Velocities in the file are u = v / sqrt(a), v the peculiar velocity. Ids must be 0 to n^3 - 1 or 1 to
    n^3 and are only unique labels here; whether they count the lattice is seen from the displacements.

    Args:
        path: the file, or the first ``....0.hdf5`` of many.
        length_unit: of coordinates and box, "kpc/h" or "Mpc/h".

    Raises:
        InputError: for a file that is not HDF5, damaged, without redshift, box or particles; ids that are
            no such labels; positions outside the box.
    """
    if length_unit not in LENGTHS:
        raise InputError(f"length_unit must be one of {', '.join(LENGTHS)}, got {length_unit!r}")
    path = existing(path)
    first = _read(path)
    count = int(_number(first.header, "NumFilesPerSnapshot", 1))
    parts = [first, *(_read(_sibling(path, i)) for i in range(1, count))]
    ids = np.concatenate([part.ids for part in parts])
    order = _order(ids, path)
    n = round(len(ids) ** (1 / 3))
    box_size = LENGTHS[length_unit] * _needed(first.header, "BoxSize", path)
    z = _redshift(first.header, path)
    x = np.concatenate([part.coordinates for part in parts])[order].astype(np.float64) * LENGTHS[length_unit]
    if not (x.min() >= -1e-3 * box_size and x.max() <= 1.001 * box_size):
        raise InputError(
            f"{path}: particles lie at {x.min():.4g} to {x.max():.4g}, outside the box of {box_size:g} Mpc/h;"
            f" BoxSize and Coordinates must share the unit {length_unit}"
        )
    u = np.concatenate([part.velocities for part in parts])[order] / math.sqrt(1 + z)
    matter = _number(first.header, "Omega0", math.nan)
    return Particles(path, _columns(x), _columns(u), n, box_size, z, None if math.isnan(matter) else matter)


def _read(path: Path) -> _Part:
    _refuse_binary(existing(path))
    try:
        with h5py.File(path, "r") as file:
            header = {**_attributes(file, "Parameters"), **_attributes(file, "Header")}
            group = file.get(DARK_MATTER)
            wanted = ("Coordinates", "Velocities", "ParticleIDs")
            if "Header" not in file or not isinstance(group, h5py.Group) or set(wanted) - set(group):
                raise InputError(
                    f"{path} is no snapshot with dark matter; it needs Header and {DARK_MATTER} with "
                    f"{', '.join(wanted)}"
                )
            arrays = [np.asarray(group[name]) for name in wanted]
    except InputError:
        raise
    except Exception as error:  # damaged bytes reach the HDF5 library, which may raise anything
        reason = "truncated" if "truncated" in str(error) else "damaged or not HDF5"
        raise InputError(f"{path} is {reason}; copy or download it again") from None
    n = len(arrays[2])
    if arrays[0].shape != (n, 3) or arrays[1].shape != (n, 3):
        raise InputError(
            f"{path}: {n} particles need coordinates and velocities of shape ({n}, 3), got "
            f"{arrays[0].shape} and {arrays[1].shape}"
        )
    if not (np.isfinite(arrays[0]).all() and np.isfinite(arrays[1]).all()):
        raise InputError(f"{path} holds coordinates or velocities that are not finite; write it again")
    return _Part(header, *arrays)


def _refuse_binary(path: Path) -> None:
    """Formats 1 and 2 start with the length of a Fortran record, 256 or 8, in either byte order."""
    with path.open("rb") as file:
        head = file.read(4)
    if head in {n.to_bytes(4, order) for n in (8, 256) for order in ("little", "big")}:
        raise InputError(
            f"{path} is a binary GADGET snapshot (SnapFormat 1 or 2), which is not supported; write it as "
            f"HDF5 (SnapFormat 3)"
        )


def _attributes(file: h5py.File, group: str) -> dict[str, Any]:
    return dict(file[group].attrs) if group in file else {}


def _sibling(path: Path, index: int) -> Path:
    if not path.name.endswith(".0.hdf5"):
        raise InputError(f"{path} is one of many files of a snapshot; give the first, which ends in .0.hdf5")
    return path.with_name(f"{path.name.removesuffix('.0.hdf5')}.{index}.hdf5")


def _order(ids: np.ndarray, path: Path) -> np.ndarray:
    """Indices that sort the particles by id."""
    n = round(len(ids) ** (1 / 3))
    if not len(ids) or n**3 != len(ids) or ids.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds {len(ids)} particles, not the cube of a number; a displacement needs all "
            f"particles of a lattice, so give the whole snapshot"
        )
    order = np.argsort(ids, kind="stable")
    first = int(ids[order[0]])
    if first not in (0, 1) or not np.array_equal(ids[order], np.arange(first, first + len(ids))):
        raise InputError(
            f"{path}: particle ids must be 0 to {len(ids) - 1} or 1 to {len(ids)}, each once, to tell where "
            f"a particle started; they run from {first} to {int(ids[order[-1]])}"
        )
    return order


def _redshift(header: dict[str, Any], path: Path) -> float:
    """Of the header, from Redshift, else from the scale factor in Time."""
    if "Redshift" in header:
        z = _number(header, "Redshift", math.nan)
    else:
        a = _number(header, "Time", math.nan)
        z = 1 / a - 1 if a > 0 else math.nan
    if not -0.01 < z < math.inf:
        raise InputError(
            f"{path}: the header tells no redshift (Redshift, or the scale factor as Time), without which "
            f"velocities have no unit; add it"
        )
    return max(z, 0.0)


def _needed(header: dict[str, Any], name: str, path: Path) -> float:
    value = _number(header, name, math.nan)
    if not 0 < value < math.inf:
        raise InputError(f"{path}: the header's {name} must be positive, got {header.get(name)}")
    return value


def _number(header: dict[str, Any], name: str, default: float) -> float:
    return float(np.asarray(header.get(name, default)).reshape(-1)[0])


def _columns(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows.T, dtype=np.float32))
