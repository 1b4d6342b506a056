"""Born maps of the real slab: the sum, its variance, and sectors that share no structure."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from gen.data.planes import BLOCKS, SECTORS, LensingPlanes, Sector
from gen.errors import InputError
from gen.noise import sample_generator

CHI = 80.0 * np.arange(1, 31)


def covered(sector: Sector, n: int = 64) -> np.ndarray:
    """Which pixels of a plane any crop of the sector can show, marked crop by crop."""
    mask = np.zeros((512, 384), dtype=bool)
    for r, c in sector.corners(n):
        mask[r : r + n, c : c + n] = True
    return mask


def made_up(path: Path, seed: int = 0, planes: int = 30) -> Path:
    """A file of the layout of planes.npz with white planes of known variance per plane."""
    rng = np.random.default_rng(seed)
    kappa = rng.normal(size=(planes, 512, 384)) * (1 + np.arange(planes))[:, None, None] / 100
    np.savez(
        path,
        kappa=kappa.astype(np.float16),
        z=0.04 * np.arange(1, planes + 1),
        chi=CHI[:planes],
        angle_deg=3.5,
        npix_full=512,
        omega_m=0.26,
        h=0.7,
    )
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("planes") / "planes.npz")


def directions(sector: Sector) -> tuple[float, float]:
    """Least and greatest column / row over the outlines of all pixels that the sector can show."""
    r, c = np.nonzero(covered(sector))
    return float((c / (r + 1)).min()), float(((c + 1) / r).max())


def places(sector: Sector) -> np.ndarray:
    """Comoving cells seen at any distance, x = (pixel + 1/2) px chi, in cells of a pixel at the last plane.

    Only those more than 60 cells out, where one cell is narrower than the sectors' gaps.
    """
    r, c = np.nonzero(covered(sector))
    cells = [np.floor((np.stack([r, c]) + 0.5) * chi / CHI[-1]).astype(int) for chi in CHI]
    rows, columns = np.concatenate(cells, axis=1)
    return np.unique((1000 * rows + columns)[np.maximum(rows, columns) > 60])


def test_no_two_sectors_share_a_direction_or_a_comoving_place() -> None:
    for a, b in combinations(SECTORS, 2):
        (low_a, high_a), (low_b, high_b) = directions(a), directions(b)
        assert high_a < low_b or high_b < low_a
        assert not np.intersect1d(places(a), places(b)).size


def test_a_split_by_row_shares_both_so_the_oracle_can_fail() -> None:
    upper, lower = Sector("train", (256, 380), (8, 256)), Sector("test", (380, 504), (8, 256))
    assert directions(upper)[0] < directions(lower)[1] and directions(lower)[0] < directions(upper)[1]
    assert np.intersect1d(places(upper), places(lower)).size > 10_000


def test_sectors_lie_in_the_blocks_of_the_readme_with_a_gap_between_them() -> None:
    blocks = {"train": (slice(256, 504), slice(8, 256)), "test": (slice(8, 192), slice(192, 384))}
    blocks["validation"] = blocks["train"]
    masks = [covered(s) for s in SECTORS]
    for sector, mask in zip(SECTORS, masks, strict=True):
        inside = np.zeros_like(mask)
        inside[blocks[sector.split]] = True
        assert mask.any() and not (mask & ~inside).any()
    for a, b in combinations(masks, 2):
        assert np.asarray(distance_transform_edt(~a))[b].min() > 13


def naive_map(path: Path, sector: int, index: int, z_source: float, n: int, seed: int) -> np.ndarray:
    """One Born map, plane by plane in float64, with the documented draws."""
    with np.load(path) as content:
        kappa, z, chi = content["kappa"].astype(np.float64), content["z"], content["chi"]
    chi_s = np.interp(z_source, z, chi)
    used = int((chi < chi_s).sum())
    corners = SECTORS[sector].corners(n)
    g = sample_generator(seed, index, f"planes/{sector}")
    places, turns = torch.randint(len(corners), (used,), generator=g), torch.randint(8, (used,), generator=g)
    total = np.zeros((n, n))
    for i in range(used):
        r, c = corners[places[i]]
        crop = np.rot90(kappa[i, r : r + n, c : c + n], int(turns[i]) % 4)
        total += (1 - chi[i] / chi_s) * (crop.T if turns[i] >= 4 else crop)
    return total


def test_maps_are_the_born_sum_of_turned_crops(file: Path) -> None:
    data = LensingPlanes(file, z_source=0.9, n_pixels=32, maps=(5, 3, 4), seed=3).load()
    assert data.split.tolist() == ["train"] * 5 + ["validation"] * 3 + ["test"] * 8
    assert data.simulation.tolist() == [0] * 5 + [1] * 3 + [2] * 4 + [3] * 4
    for sector, index, row in ((0, 0, 0), (0, 4, 4), (1, 2, 7), (2, 1, 9), (3, 3, 15)):
        expected = naive_map(file, sector, index, 0.9, 32, 3)
        assert np.allclose(data.values[row, 0].numpy(), expected, atol=1e-5)


def test_variance_is_the_sum_over_independent_planes(file: Path) -> None:
    """White planes of variance v_i give sum_i w_i^2 v_i: wrong weights or order would show."""
    data = LensingPlanes(file, z_source=1.0, n_pixels=64, maps=(200, 0, 0)).load()
    chi_s = np.interp(1.0, 0.04 * np.arange(1, 31), CHI)
    expected = sum((1 - x / chi_s) ** 2 * ((1 + i) / 100) ** 2 for i, x in enumerate(CHI) if x < chi_s)
    # 31,000 pixels of the sector, 25 planes of like weight: relative scatter of the variance about 1/400
    assert data.values.var().item() == pytest.approx(expected, rel=0.015)
    adjacent = (data.values[..., 1:] * data.values[..., :-1]).mean().item()
    assert abs(adjacent) < 0.01 * expected  # white planes stay white: no interpolation


def test_more_distant_sources_see_more_planes(file: Path) -> None:
    near, far = (
        LensingPlanes(file, z_source=z, n_pixels=32, maps=(50, 0, 0)).load().values.std() for z in (0.3, 1.1)
    )
    assert far > 3 * near


def test_grid_and_name_say_what_it_is(file: Path) -> None:
    data = LensingPlanes(file, n_pixels=48, maps=(4, 2, 2)).load()
    assert not data.grid.periodic and data.grid.spacing == pytest.approx((3.5 / 512, 3.5 / 512))
    assert "pseudo-independent" in data.name and len(data.space) == 0 and data.unit == "1"
    assert "PSEUDO-INDEPENDENT" in (LensingPlanes.__doc__ or "")


def test_map_i_does_not_depend_on_how_many_are_made(file: Path) -> None:
    few = LensingPlanes(file, n_pixels=32, maps=(3, 2, 2), seed=1).load().select(split="train")
    many = LensingPlanes(file, n_pixels=32, maps=(9, 2, 2), seed=1).load().select(split="train")
    other = LensingPlanes(file, n_pixels=32, maps=(3, 2, 2), seed=2).load().select(split="train")
    assert torch.equal(few.values, many.values[:3]) and not torch.equal(few.values, other.values)
    assert len({v.numpy().tobytes() for v in many.values}) == 9


def test_whole_blocks_allow_larger_maps(file: Path) -> None:
    data = LensingPlanes(file, n_pixels=178, maps=(2, 0, 2), whole_blocks=True).load()
    assert data.values.shape == (4, 1, 178, 178) and data.simulation.tolist() == [0, 0, 1, 1]
    assert all(len(s.corners(178)) >= 100 for s in BLOCKS) and len(BLOCKS[1].corners(179)) < 100
    assert all(len(s.corners(78)) >= 100 for s in SECTORS) and any(len(s.corners(79)) < 100 for s in SECTORS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"z_source": 1.5}, r"\(0.040, 1.200\].*got 1.5"),
        ({"z_source": 0.02}, r"got 0.02"),
        ({"n_pixels": 100}, "maps of 100 pixels have 0 places in sector 1"),
        ({"maps": (1, 2)}, "three numbers"),
        ({"maps": (1, -2, 1)}, "three numbers"),
    ],
)
def test_what_cannot_be_made_is_refused(file: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LensingPlanes(file, **arguments).load()


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        LensingPlanes(tmp_path / "planes.npz").load()
    np.savez(tmp_path / "planes.npz", kappa=np.zeros((3, 8, 8)), z=np.ones(3), chi=np.ones(3))
    with pytest.raises(InputError, match=r"kappa \(n, 512, 384\).*\(3, 8, 8\)"):
        LensingPlanes(tmp_path / "planes.npz").load()
    np.savez(tmp_path / "planes.npz", kappa=np.zeros((3, 8, 8)))
    with pytest.raises(InputError, match="array 'z' is missing"):
        LensingPlanes(tmp_path / "planes.npz").load()


def test_the_real_planes(data_dir: Path) -> None:
    """README: z_s = 1 has chi_s = 2370 Mpc/h and 30 planes; planes as independent give sigma .0094 +- .0002
    over the whole field. A sector is a small part of one slab: its sigma is its own."""
    data = LensingPlanes(data_dir / "lensing/planes.npz", maps=(256, 64, 64)).load()
    with np.load(data_dir / "lensing/planes.npz") as content:
        kappa, z, chi = content["kappa"].astype(np.float32), content["z"], content["chi"]
    assert np.interp(1.0, z, chi) == pytest.approx(2370, abs=1) and (chi < np.interp(1.0, z, chi)).sum() == 30
    weights = 1 - chi[:30] / np.interp(1.0, z, chi)
    for i, sector in enumerate(SECTORS):
        values = data.select(simulations=[i]).values
        corners = sector.corners(64)
        corners = corners[:: len(corners) // 150]
        crops = [np.stack([kappa[p, r : r + 64, c : c + 64] for r, c in corners]) for p in range(30)]
        expected = np.sqrt(sum(w**2 * float(x.var()) for w, x in zip(weights, crops, strict=True)))
        assert values.std().item() == pytest.approx(expected, rel=0.1)
        skewness = ((values - values.mean()) ** 3).mean() / values.std() ** 3
        assert skewness > 0.7  # haloes: far above a Gaussian field's
