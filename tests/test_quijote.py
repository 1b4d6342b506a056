"""Quijote's density grids: rows of the real table, densities or contrasts, crops, coarse grids, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.patches import cubes
from gen.data.quijote import COLUMNS, QuijoteGrids
from gen.errors import InputError

NAME, COARSE = "df_m_8_CIC_z=0.npy", "df_m_4_CIC_z=127.npy"
N = 12


def contrast(number: int) -> np.ndarray:
    """A positive field of mean 1 less 1, as the suite's grids of 8^3 cells."""
    rng = np.random.default_rng(number)
    x = np.exp(rng.normal(size=(8, 8, 8)))
    return (x / x.mean() - 1).astype("f4")


def pooled(x: np.ndarray) -> np.ndarray:
    return x.reshape(4, 2, 4, 2, 4, 2).mean((1, 3, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(N):
        (tmp_path / "grids" / str(i)).mkdir(parents=True)
        np.save(tmp_path / "grids" / str(i) / NAME, contrast(i))
        np.save(tmp_path / "grids" / str(i) / COARSE, pooled(contrast(i)).astype("f4"))
    rows = np.random.default_rng(0).uniform(0.1, 0.9, size=(20, 5))
    np.savetxt(tmp_path / "table.txt", rows, header="Omega_m Omega_b h n_s sigma_8")
    return tmp_path / "grids"


def table(folder: Path) -> np.ndarray:
    return np.loadtxt(folder.parent / "table.txt")


def test_realisation_i_is_row_i_of_the_table_and_the_field_is_one_plus_delta(folder: Path) -> None:
    data = QuijoteGrids(folder, NAME, folder.parent / "table.txt").load()
    assert data.space.names == COLUMNS and data.values.shape == (N, 1, 8, 8, 8)
    assert data.grid.box_size == (1000.0,) * 3 and data.grid.periodic and data.coarse is None
    for row in range(N):
        number = int(data.simulation[row])
        assert np.allclose(data.params[row], table(folder)[number], rtol=1e-6)
        assert np.allclose(data.values[row, 0], 1 + contrast(number), atol=1e-6)
    assert sorted(data.simulation.tolist()) == list(range(N))  # 10 follows 9, not 1


@pytest.mark.parametrize("factor", [1.0, 512.0, 3.7e11])
def test_densities_of_any_unit_are_the_same_field(folder: Path, factor: float) -> None:
    expected = QuijoteGrids(folder, NAME).load().values
    for i in range(N):
        np.save(folder / str(i) / NAME, (factor * (1 + contrast(i).astype("f8"))).astype("f8"))
    assert torch.allclose(QuijoteGrids(folder, NAME).load().values, expected, atol=1e-5)


def test_a_set_of_one_cosmology_has_no_parameters_and_few_may_be_asked_for(folder: Path) -> None:
    data = QuijoteGrids(folder, NAME, realisations=[7, 3, 4]).load()
    assert data.simulation.tolist() == [3, 4, 7] and len(data.space) == 0
    some = QuijoteGrids(folder, NAME, folder.parent / "table.txt", ["sigma_8", "Omega_m"]).load()
    assert np.allclose(some.params, table(folder)[:N][:, [4, 0]], rtol=1e-6)


def test_coarse_grids_of_the_same_realisation_come_along_and_crops_stay_matched(folder: Path) -> None:
    whole = QuijoteGrids(folder, NAME, coarse=COARSE).load()
    assert whole.coarse is not None and whole.coarse_grid is not None
    assert whole.coarse_grid.shape == (4, 4, 4) and whole.coarse_grid.box_size == whole.grid.box_size
    cut = QuijoteGrids(folder, NAME, coarse=COARSE, crop=4).load()
    assert cut.coarse is not None and cut.coarse_grid is not None
    assert cut.values.shape == (8 * N, 1, 4, 4, 4) and cut.coarse.shape == (8 * N, 1, 2, 2, 2)
    assert cut.grid.box_size == (500.0,) * 3 == cut.coarse_grid.box_size and not cut.grid.periodic
    assert torch.allclose(torch.nn.functional.avg_pool3d(cut.values, 2), cut.coarse, atol=1e-5)
    assert all(len(set(cut.split[cut.simulation.numpy() == i])) == 1 for i in range(N))
    first = whole.values[0, 0]
    assert torch.equal(cut.values[1, 0], first[:4, :4, 4:]) and torch.equal(
        cut.values[4, 0], first[4:, :4, :4]
    )


def test_cubes_cut_without_overlap_or_loss() -> None:
    box = np.arange(6**3).reshape(6, 6, 6)
    cut = cubes(box, 3, "box")
    assert cut.shape == (8, 3, 3, 3) and sorted(cut.ravel()) == list(range(216))
    assert np.array_equal(cut[6], box[3:, 3:, :3])
    with pytest.raises(InputError, match="no whole number of cubes"):
        cubes(box, 4, "box")


def test_the_real_table_is_read(folder: Path, data_dir: Path) -> None:
    data = QuijoteGrids(folder, NAME, data_dir / "nbody" / "quijote_LH_params.txt").load()
    assert data.space.names == COLUMNS
    assert data.params[0].tolist() == pytest.approx([0.1755, 0.06681, 0.7737, 0.8849, 0.6641], rel=1e-4)


def spoil(folder: Path, what: str) -> QuijoteGrids:
    path, params = folder / "3" / NAME, folder.parent / "table.txt"
    match what:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-40])
        case "missing file":
            path.unlink()
        case "other cells":
            np.save(path, np.ones((4, 4, 4), "f4"))
        case "neither":
            np.save(path, contrast(3) - 5)
        case "nan":
            np.save(path, np.full((8, 8, 8), np.nan, "f4"))
        case "copy":
            np.save(path, contrast(2))
        case "few rows":
            np.savetxt(params, table(folder)[:5], header="Omega_m Omega_b h n_s sigma_8")
        case "no redshift":
            return QuijoteGrids(folder, "df_m_8_CIC.npy")
        case "other name":
            return QuijoteGrids(folder, "density_8.npy")
        case "no folder":
            return QuijoteGrids(folder / "nothing", NAME)
        case "finer coarse":
            return QuijoteGrids(folder, NAME, coarse="df_m_16_CIC_z=0.npy")
        case "crop":
            return QuijoteGrids(folder, NAME, crop=3)
        case "coarse crop":
            return QuijoteGrids(folder, NAME, coarse=COARSE, crop=1)
        case "no table":
            return QuijoteGrids(folder, NAME, parameters=["Omega_m"])
    return QuijoteGrids(folder, NAME, params)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("truncated", r"3/df_m_8_CIC_z=0\.npy is truncated"),
        ("missing file", r"3/df_m_8_CIC_z=0\.npy does not exist"),
        ("other cells", r"must hold 8\^3 cells"),
        ("neither", "neither a density nor a contrast"),
        ("nan", "neither a density nor a contrast"),
        ("copy", "is a copy of field"),
        ("few rows", "has 5 rows, but .* holds realisation 11"),
        ("no redshift", "does not tell the number of cells and the redshift"),
        ("other name", "keep the original name"),
        ("no folder", "holds no folders"),
        ("finer coarse", "must have fewer cells"),
        ("crop", "no whole number of cubes"),
        ("coarse crop", "whole coarse cells"),
        ("no table", "need a table"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, what: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        spoil(folder, what).load()
    assert "\n" not in str(caught.value)


def test_prepare_names_the_missing_file(folder: Path) -> None:
    source = QuijoteGrids(folder, NAME, coarse=COARSE)
    source.prepare()
    (folder / "5" / COARSE).unlink()
    with pytest.raises(InputError, match=r"5/df_m_4_CIC_z=127\.npy does not exist"):
        source.prepare()
