"""GADGET snapshots: units, sqrt(a), order by id, pairs of initial and evolved, and what can be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from gen.data.gadget import GadgetSnapshots, motion
from gen.data.gadget_file import read_particles
from gen.errors import InputError
from gen.noise import sample_generator
from gen.simulate.displacement import Motion, lagrangian, second_order, zeldovich
from gen.simulate.growth import Growth
from gen.simulate.initial import linear_modes, white_noise

N, L = 8, 64.0
GROWTH = Growth(0.3)


def modes(seed: int) -> Tensor:
    return linear_modes(white_noise([sample_generator(seed, 0)], N), L, lambda k: 20 * k**-2)


def write(path: Path, moved: Motion, z: float, *, first: int = 0, seed: int = 0, files: int = 1) -> Path:
    """A snapshot as GADGET writes it: kpc/h, u = v / sqrt(a), particles in the order of no lattice."""
    x = (lagrangian(N, L) + moved.displacement[0]).flatten(1).T.double().numpy() % L * 1e3
    u = moved.velocity[0].flatten(1).T.numpy() * math.sqrt(1 + z)
    order = np.random.default_rng(seed).permutation(N**3)
    ids = (np.arange(N**3) + first).astype("u4")
    for part, rows in enumerate(np.array_split(order, files)):
        name = path if files == 1 else path.with_name(f"{path.stem}.{part}.hdf5")
        with h5py.File(name, "w") as file:
            header = file.create_group("Header")
            header.attrs.update(
                {
                    "BoxSize": L * 1e3,
                    "Redshift": z,
                    "Time": 1 / (1 + z),
                    "Omega0": 0.3,
                    "NumFilesPerSnapshot": files,
                    "NumPart_ThisFile": [0, len(rows), 0, 0, 0, 0],
                }
            )
            group = file.create_group("PartType1")
            group["Coordinates"], group["Velocities"] = x[rows], u[rows]
            group["ParticleIDs"] = ids[rows]
    return path if files == 1 else path.with_name(f"{path.stem}.0.hdf5")


def evolved(seed: int, z: float = 0.0) -> Motion:
    return second_order(modes(seed), L, GROWTH, 1 / (1 + z))


def change(path: Path, **changes: Any) -> Path:
    """Replace attributes of the header and arrays of the particles; None removes."""
    with h5py.File(path, "r+") as file:
        header, group = file["Header"], file["PartType1"]
        assert isinstance(header, h5py.Group) and isinstance(group, h5py.Group)
        for name, value in changes.items():
            place = group if name in group else header.attrs
            if name in place:
                del place[name]
            if value is not None:
                place[name] = value
    return path


# One snapshot


@pytest.mark.parametrize(("first", "files"), [(0, 1), (1, 1), (1, 3)])
def test_displacement_and_velocity_are_what_was_written(tmp_path: Path, first: int, files: int) -> None:
    expected = evolved(0, z=1.0)
    found = motion(read_particles(write(tmp_path / "snap_1.hdf5", expected, 1.0, first=first, files=files)))
    assert torch.allclose(found.displacement, expected.displacement, atol=1e-3)
    assert torch.allclose(found.velocity, expected.velocity, rtol=1e-4, atol=1e-2)


def test_a_lattice_that_starts_elsewhere_is_the_same(tmp_path: Path) -> None:
    expected = evolved(0)
    on_nodes = Motion(expected.displacement - L / N / 2, expected.velocity)
    found = motion(read_particles(write(tmp_path / "nodes.hdf5", on_nodes, 0.0)))
    assert torch.allclose(found.displacement, expected.displacement, atol=1e-3)


def test_other_units_and_the_scale_factor_for_the_redshift(tmp_path: Path) -> None:
    expected = evolved(0, z=1.0)
    path = write(tmp_path / "mpc.hdf5", expected, 1.0)
    with h5py.File(path, "r") as file:
        x = np.asarray(file["PartType1/Coordinates"]) / 1e3
    change(path, Coordinates=x, BoxSize=L, Redshift=None)
    found = motion(read_particles(path, "Mpc/h"))
    assert torch.allclose(found.displacement, expected.displacement, atol=1e-3)
    assert torch.allclose(found.velocity, expected.velocity, rtol=1e-4, atol=1e-2)


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("no redshift", lambda p: change(p, Redshift=None, Time=None), "tells no redshift"),
    ("no box", lambda p: change(p, BoxSize=None), "BoxSize must be positive, got None"),
    ("wrong box", lambda p: change(p, BoxSize=L * 500), "outside the box"),
    ("ids of another range", lambda p: change(p, ParticleIDs=np.arange(N**3) + 7), "0 to 511 or 1 to 512"),
    ("ids twice", lambda p: change(p, ParticleIDs=np.zeros(N**3, "u8")), "each once"),
    ("ids that are no lattice", lambda p: change(p, ParticleIDs=np.arange(N**3)), "out of order"),
    ("some particles", lambda p: change(p, ParticleIDs=np.arange(500)), "coordinates and velocities of"),
    ("no velocities", lambda p: change(p, Velocities=None), "needs Header and PartType1 with"),
    ("not finite", lambda p: change(p, Velocities=np.full((N**3, 3), np.nan)), "not finite"),
    ("one of many", lambda p: change(p, NumFilesPerSnapshot=4), r"ends in \.0\.hdf5"),
    ("truncated", lambda p: p.write_bytes(p.read_bytes()[:-2000]), "truncated"),
    ("no HDF5", lambda p: p.write_bytes(b"snapshot" * 100), "damaged or not HDF5"),
    ("format 1", lambda p: p.write_bytes((256).to_bytes(4, "little") + bytes(256)), "binary GADGET"),
    ("format 2", lambda p: p.write_bytes((8).to_bytes(4, "big") + b"HEAD"), "SnapFormat 3"),
    ("empty", lambda p: p.write_bytes(b""), "empty"),
]


@pytest.mark.parametrize(("harm", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_snapshots_are_one_sentence(tmp_path: Path, harm: Callable[[Path], object], words: str) -> None:
    path = write(tmp_path / "snap.hdf5", evolved(0), 0.0)
    harm(path)
    with pytest.raises(InputError, match=words) as caught:
        motion(read_particles(path))
    assert "\n" not in str(caught.value) and "snap.hdf5" in str(caught.value)


def test_a_missing_part_of_a_snapshot_and_an_unknown_unit_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "snap.hdf5", evolved(0), 0.0, files=3)
    (tmp_path / "snap.2.hdf5").unlink()
    with pytest.raises(InputError, match=r"snap\.2\.hdf5 does not exist"):
        read_particles(path)
    with pytest.raises(InputError, match="kpc/h, Mpc/h"):
        read_particles(path, "cm")


def test_a_lattice_of_other_than_n_cubed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "snap.hdf5", evolved(0), 0.0)
    part = {name: np.zeros((500, 3)) for name in ("Coordinates", "Velocities")}
    change(path, ParticleIDs=np.arange(500), **part)
    with pytest.raises(InputError, match="500 particles, not the cube of a number"):
        read_particles(path)


# Sets


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Five runs: evolved snapshots at z = 0.5, and the Zel'dovich initial ones at z = 49."""
    for i in range(5):
        folder = tmp_path / str(10 * i)  # "10" sorts after "0", and before "20": by number
        folder.mkdir()
        write(folder / "snap_004.hdf5", evolved(i, 0.5), 0.5, seed=i)
        write(folder / "ics.hdf5", zeldovich(modes(i), L, GROWTH, 0.02), 49.0, seed=i + 50)
    np.savetxt(tmp_path / "table.txt", np.linspace(0.6, 1.0, 5)[:, None], header="sigma_8")
    return tmp_path


def test_a_set_pairs_each_run_with_its_zeldovich_displacement(runs: Path) -> None:
    data = GadgetSnapshots(str(runs / "*/snap_004.hdf5"), str(runs / "*/ics.hdf5"), runs / "table.txt").load()
    assert data.values.shape == (5, 6, N, N, N) and data.coarse is not None
    assert data.grid.box_size == (L,) * 3 and data.grid.periodic and data.unit == "Mpc/h and km/s"
    assert data.vector_channels == ((0, 1, 2), (3, 4, 5)) and data.coarse_vector_channels == ((0, 1, 2),)
    assert data.params[:, 0].tolist() == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0])
    for i in range(5):
        expected = zeldovich(modes(i), L, GROWTH, 1 / 1.5).displacement[0]
        # Single precision of positions of 64 Mpc/h, 4e-6, grows by D(0.5) / D(49), about 40 times.
        assert torch.allclose(data.coarse[i], expected, atol=2e-3)
        assert torch.allclose(data.values[i], torch.cat(evolved(i, 0.5), 1)[0], rtol=1e-4, atol=1e-2)


def test_redshift_is_a_parameter_from_the_header(runs: Path) -> None:
    files = [runs / "0/snap_004.hdf5", *(write(runs / f"z{z}.hdf5", evolved(3, z), z) for z in (1.0, 2.0))]
    with pytest.raises(InputError, match=r"redshifts 0\.5 to 2; make z one of the parameters"):
        GadgetSnapshots(files).load()
    data = GadgetSnapshots(files, parameters=["z"], fractions=(1.0, 0.0, 0.0)).load()
    assert data.space.names == ("z",) and data.params[:, 0].tolist() == pytest.approx([0.5, 1.0, 2.0])


def refused(runs: Path, what: str) -> GadgetSnapshots:
    now, start = str(runs / "*/snap_004.hdf5"), str(runs / "*/ics.hdf5")
    last = runs / "40/ics.hdf5"
    match what:
        case "other run":
            write(last, zeldovich(modes(99), L, GROWTH, 0.02), 49.0)
        case "other box":
            x = np.zeros((N**3, 3))
            change(last, BoxSize=2e3 * L, Coordinates=x)
        case "other cosmology":
            change(last, Omega0=0.31)
        case "exchanged":
            return GadgetSnapshots(start, now)
        case "missing":
            return GadgetSnapshots(now, [last])
        case "box":
            return GadgetSnapshots(now, box_size=1000.0)
        case "unit":
            return GadgetSnapshots(now, box_size=L, length_unit="Mpc/h")
        case "box in the set":
            x = np.asarray(h5py.File(runs / "40/snap_004.hdf5")["PartType1/Coordinates"])
            change(runs / "40/snap_004.hdf5", BoxSize=2e3 * L, Coordinates=2 * x)
        case "none":
            return GadgetSnapshots(str(runs / "*/snap_009.hdf5"))
        case "rows":
            np.savetxt(runs / "table.txt", np.ones((4, 1)), header="sigma_8")
        case "no table":
            return GadgetSnapshots(now, parameters=["sigma_8"])
    return GadgetSnapshots(now, start, runs / "table.txt")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "other run",
            "not the initial snapshot .* displacements correlate by .* different initial conditions",
        ),
        ("other box", "not the initial snapshot .* box 128 against 64"),
        ("other cosmology", r"Omega0 is 0\.31 against 0\.3"),
        ("exchanged", "exchange the two"),
        ("missing", "got 1 for 5"),
        ("box", "has a box of 64 Mpc/h, expected 1000"),
        ("unit", "expected 64; check length_unit"),
        ("box in the set", r"40/snap_004\.hdf5 has a box of 128 Mpc/h, expected 64"),
        ("none", "no snapshot matches"),
        ("rows", "4 rows for 5 snapshots"),
        ("no table", "need a table"),
    ],
)
def test_sets_that_do_not_fit_are_one_sentence(runs: Path, what: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        refused(runs, what).load()
    assert "\n" not in str(caught.value)
