"""Small files of exactly the layout of the CAMELS Multifield Dataset, written without the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.camels import CamelsMaps
from gen.errors import InputError

ORDER = "Omega_m sigma_8 A_SN1 A_AGN1 A_SN2 A_AGN2"
N = 6


def table() -> np.ndarray:
    """Six columns in the dataset's order, each telling its column and row: column c of row r is c + r/100."""
    return np.arange(6)[None, :] + np.arange(N)[:, None] / 100


def folder(
    tmp: Path, suite: str = "IllustrisTNG", field: str = "Mcdm", header: bool = False
) -> tuple[Path, Path]:
    """Maps of 6 simulations: pixel [0, 0] of map i holds i, exactly as the file is laid out."""
    maps = np.random.default_rng(len(field)).lognormal(size=(15 * N, 16, 16)).astype("<f4")
    maps[:, 0, 0] = np.arange(15 * N)
    path = tmp / f"Maps_{field}_{suite}_LH_z=0.00.npy"
    np.save(path, maps)
    params = tmp / f"params_LH_{suite}.txt"
    np.savetxt(params, table(), fmt="%.5f", header=ORDER if header else "", comments="# ")
    return path, params


@pytest.mark.parametrize("header", [False, True])
def test_map_i_has_the_parameters_of_row_i_over_15_by_name(tmp_path: Path, header: bool) -> None:
    maps, params = folder(tmp_path, header=header)
    data = CamelsMaps([maps], params).load()
    assert data.space.names == tuple(ORDER.split())
    for i in range(len(data)):
        index = int(data.values[i, 0, 0, 0])
        assert index == i and data.simulation[i] == index // 15
        by_name = dict(zip(data.space.names, data.params[i].tolist(), strict=True))
        assert by_name["Omega_m"] == pytest.approx(0 + index // 15 / 100, abs=1e-6)
        assert by_name["A_SN1"] == pytest.approx(2 + index // 15 / 100, abs=1e-6)
        assert by_name["A_AGN1"] == pytest.approx(3 + index // 15 / 100, abs=1e-6)
        assert by_name["A_SN2"] == pytest.approx(4 + index // 15 / 100, abs=1e-6)


def test_the_box_is_periodic_and_the_unit_is_the_documented_one(tmp_path: Path) -> None:
    data = CamelsMaps(*folder(tmp_path)).load()
    assert data.grid.periodic and data.grid.box_size == (25.0, 25.0) and data.grid.unit == "Mpc/h"
    assert data.unit == "(Msun/h)/(Mpc/h)^2" and "Mcdm IllustrisTNG_LH z=0.00" in data.name


def test_the_fifteen_maps_of_a_simulation_stay_together(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    for seed in range(10):
        data = CamelsMaps([maps], params, seed=seed).load()
        homes = [set(data.split[15 * s : 15 * s + 15]) for s in range(N)]
        assert all(len(home) == 1 for home in homes)
        assert set().union(*homes) == {"train", "validation", "test"}


def test_parameters_are_chosen_by_name(tmp_path: Path) -> None:
    data = CamelsMaps(*folder(tmp_path), parameters=["A_AGN2", "Omega_m"]).load()
    assert np.allclose(data.params.numpy(), table()[:, [5, 0]].repeat(15, axis=0))
    assert data.space.names == ("A_AGN2", "Omega_m")


@pytest.mark.parametrize("columns", [2, 6])
def test_nbody_maps_have_cosmological_parameters_only(tmp_path: Path, columns: int) -> None:
    maps, params = folder(tmp_path, "Nbody_IllustrisTNG", "Mtot")
    np.savetxt(params, table()[:, :columns], fmt="%.5f")
    data = CamelsMaps([maps], params).load()
    assert data.space.names == ("Omega_m", "sigma_8")
    assert np.allclose(data.params.numpy(), table()[:, :2].repeat(15, axis=0))


def test_a_table_with_names_of_simulations_and_seeds(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    lines = ["#Name Omega_m sigma_8 A_SN1 A_AGN1 A_SN2 A_AGN2 seed"]
    lines += [
        f"LH_{r} " + " ".join(f"{x:.5f}" for x in row) + f" {5000 + r}" for r, row in enumerate(table())
    ]
    params.write_text("\n".join(lines))
    data = CamelsMaps([maps], params).load()
    assert np.allclose(data.params.numpy(), table().repeat(15, axis=0))


def test_fields_of_one_set_become_channels(tmp_path: Path) -> None:
    gas, params = folder(tmp_path, field="Mgas")
    temperature, _ = folder(tmp_path, field="T")
    data = CamelsMaps([gas, temperature], params).load()
    assert data.values.shape == (90, 2, 16, 16)
    assert np.array_equal(data.values[:, 0].numpy(), np.load(gas))
    assert np.array_equal(data.values[:, 1].numpy(), np.load(temperature))
    assert data.unit == "(Msun/h)/(Mpc/h)^2, K"


def test_grids_have_one_row_each(tmp_path: Path) -> None:
    _, params = folder(tmp_path)
    grids = tmp_path / "Grids_Mtot_IllustrisTNG_LH_8_z=1.00.npy"
    np.save(grids, np.random.default_rng(0).lognormal(size=(N, 8, 8, 8)).astype("<f4"))
    data = CamelsMaps([grids], params).load()
    assert data.grid.dim == 3 and data.simulation.tolist() == list(range(N))
    assert np.allclose(data.params.numpy(), table()) and data.unit == "(Msun/h)/(Mpc/h)^3"


def test_a_set_at_one_cosmology_needs_no_parameters(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    np.savetxt(params, np.tile([0.3, 0.8, 1, 1, 1, 1], (N, 1)), fmt="%.5f")
    with pytest.raises(InputError, match=r"Omega_m is 0.3 in every training simulation"):
        CamelsMaps([maps], params).load()
    data = CamelsMaps([maps], params, parameters=[], fractions=(0, 0, 1)).load()
    assert data.params.shape == (90, 0) and set(data.split) == {"test"} and data.n_simulations == N


def test_a_missing_row_or_map_is_refused_with_the_numbers(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    np.savetxt(params, table()[:-1], fmt="%.5f")
    with pytest.raises(InputError, match=r"holds 90 fields, but .*params_LH_IllustrisTNG.txt has 5 rows.*75"):
        CamelsMaps([maps], params).load()


def test_parameters_of_another_suite_are_refused_although_they_fit(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    other = params.rename(tmp_path / "params_LH_SIMBA.txt")
    with pytest.raises(
        InputError, match=r"for SIMBA, but Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy is of IllustrisTNG"
    ):
        CamelsMaps([maps], other).load()


def test_channels_of_two_suites_or_redshifts_are_refused(tmp_path: Path) -> None:
    ours, params = folder(tmp_path)
    theirs, _ = folder(tmp_path, "SIMBA", "T")
    with pytest.raises(InputError, match="suite IllustrisTNG_LH and SIMBA_LH"):
        CamelsMaps([ours, theirs], params).load()


def test_another_name_is_refused_with_the_expected_one(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    with pytest.raises(InputError, match=r"my_maps.npy is not a name.*Maps_<field>_<suite>_<set>_z=<z>.npy"):
        CamelsMaps([maps.rename(tmp_path / "my_maps.npy")], params).load()


def test_wrong_columns_are_refused(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    np.savetxt(params, table()[:, :5])
    with pytest.raises(InputError, match="has 5 columns without names"):
        CamelsMaps([maps], params).load()
    np.savetxt(params, table())
    with pytest.raises(InputError, match="column 'w_0' is missing"):
        CamelsMaps([maps], params, parameters=["w_0"]).load()


def test_a_map_of_another_shape_is_refused(tmp_path: Path) -> None:
    maps, params = folder(tmp_path)
    np.save(maps, np.random.default_rng(0).normal(size=(90, 16, 15)).astype("<f4"))
    with pytest.raises(InputError, match=r"must have shape \(N, n, n\).*\(90, 16, 15\)"):
        CamelsMaps([maps], params).load()
    assert torch.is_tensor(CamelsMaps(*folder(tmp_path)).load().values)
