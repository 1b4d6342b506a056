"""FITS images written card by card: pixels, units, blanks, patches, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gen.data.fits import FitsImages
from gen.errors import InputError

WCS = {
    "CTYPE1": "'RA---TAN'",
    "CTYPE2": "'DEC--TAN'",
    "CDELT1": -0.01,
    "CDELT2": 0.01,
    "CRPIX1": 10.5,
    "CRPIX2": 10.5,
    "CRVAL1": 30.0,
    "CRVAL2": -20.0,
    "CUNIT1": "'deg'",
    "CUNIT2": "'deg'",
}


def write_fits(path: Path, image: np.ndarray, cards: dict | None = None) -> Path:
    """A FITS file by hand: 80-character cards and big-endian data in blocks of 2880 bytes."""
    bitpix = {"f4": -32, "f8": -64, "i2": 16}[image.dtype.str[1:]]
    axes = {f"NAXIS{i + 1}": n for i, n in enumerate(reversed(image.shape))}
    header = {"SIMPLE": "T", "BITPIX": bitpix, "NAXIS": image.ndim, **axes, **(cards or {})}
    text = "".join(f"{key:<8}= {value!s:>20}".ljust(80) for key, value in header.items()) + "END".ljust(80)
    data = image.astype(image.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(
        text.ljust(-(-len(text) // 2880) * 2880).encode() + data.ljust(-(-len(data) // 2880) * 2880, b"\0")
    )
    return path


def image(seed: int, shape: tuple[int, ...] = (20, 26), dtype: str = "f4") -> np.ndarray:
    return (1000 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def images(tmp: Path, n: int = 4, cards: dict | None = None, **kwargs) -> list[Path]:
    cards = {"BUNIT": "'K'", **WCS} if cards is None else cards
    return [write_fits(tmp / f"map_{i}.fits", image(i, **kwargs), cards) for i in range(n)]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_patches_are_the_pixels_of_the_file_and_of_one_image_each(tmp_path: Path, dtype: str) -> None:
    data = FitsImages(images(tmp_path, dtype=dtype), patch=8).load()
    assert data.values.shape == (4 * 2 * 3, 1, 8, 8)
    for i in range(4):
        whole = image(i, dtype=dtype).astype("f4")
        expected = [whole[r : r + 8, c : c + 8] for r in (0, 8) for c in (0, 8, 16)]
        assert np.array_equal(data.values[6 * i : 6 * i + 6, 0].numpy(), expected)
    assert data.simulation.tolist() == np.repeat(range(4), 6).tolist()
    homes = [set(data.split[6 * i : 6 * i + 6]) for i in range(4)]
    assert all(len(h) == 1 for h in homes) and set().union(*homes) == {"train", "validation", "test"}


def test_pixel_size_and_unit_come_from_the_header(tmp_path: Path) -> None:
    data = FitsImages(images(tmp_path), patch=8).load()
    assert data.grid.box_size == pytest.approx((0.08, 0.08)) and data.unit == "K" and not data.grid.periodic


def test_a_cd_matrix_that_turns_the_image_gives_the_same_pixel(tmp_path: Path) -> None:
    c, s = 0.01 * np.cos(0.5), 0.01 * np.sin(0.5)
    cards = {k: v for k, v in WCS.items() if not k.startswith("CDELT")}
    cards |= {"CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c, "BUNIT": "'K'"}
    data = FitsImages(images(tmp_path, cards=cards), patch=8).load()
    assert data.grid.spacing == pytest.approx((0.01, 0.01))


def test_an_image_without_header_words_needs_them_from_the_user(tmp_path: Path) -> None:
    paths = images(tmp_path, cards={})
    with pytest.raises(InputError, match=r"map_0.fits has no celestial WCS; give pixel"):
        FitsImages(paths, patch=8, unit="1").load()
    with pytest.raises(InputError, match=r"map_0.fits states no unit; give unit"):
        FitsImages(paths, patch=8, pixel=0.5).load()
    data = FitsImages(paths, patch=8, pixel=0.5, unit="1").load()
    assert data.grid.box_size == (4.0, 4.0) and data.unit == "1"


def test_a_pixel_or_unit_that_contradicts_the_header_is_refused(tmp_path: Path) -> None:
    paths = images(tmp_path)
    with pytest.raises(InputError, match=r"pixels of 0.01 deg, but pixel is 0.6.*degrees"):
        FitsImages(paths, patch=8, pixel=0.6).load()
    with pytest.raises(InputError, match=r"is in K, but unit is uK"):
        FitsImages(paths, patch=8, unit="uK").load()
    assert len(FitsImages(paths, patch=8, pixel=0.01, unit="K").load()) == 24


def test_a_third_axis_is_channels(tmp_path: Path) -> None:
    data = FitsImages(images(tmp_path, shape=(3, 20, 26)), patch=8).load()
    assert data.values.shape == (24, 3, 8, 8)
    assert np.array_equal(data.values[0].numpy(), image(0, (3, 20, 26))[:, :8, :8])


def test_blank_pixels_are_refused_or_their_patches_left_out(tmp_path: Path) -> None:
    paths = images(tmp_path)
    holed = image(0)
    holed[3, 12] = np.nan
    holed[19, 25] = np.nan  # in the remainder that no patch uses
    write_fits(paths[0], holed, {"BUNIT": "'K'", **WCS})
    with pytest.raises(InputError, match=r"map_0.fits: 1 of 6 patches.*drop_blank"):
        FitsImages(paths, patch=8).load()
    data = FitsImages(paths, patch=8, drop_blank=True).load()
    assert len(data) == 23 and np.bincount(data.simulation.numpy()).tolist() == [5, 6, 6, 6]
    write_fits(paths[1], np.full((20, 26), np.nan, "f4"), {"BUNIT": "'K'", **WCS})
    with pytest.raises(InputError, match=r"map_1.fits: all 6 patches"):
        FitsImages(paths, patch=8, drop_blank=True).load()


def test_parameters_follow_the_file_name_not_the_order(tmp_path: Path) -> None:
    paths = images(tmp_path)
    table = tmp_path / "params.csv"
    table.write_text("file,Omega_m\nmap_3.fits,0.4\nmap_1.fits,0.2\nmap_0.fits,0.1\nmap_2.fits,0.3\n")
    data = FitsImages(paths, patch=8, params=table, parameters=["Omega_m"]).load()
    assert np.allclose(data.params[:, 0], 0.1 * (data.simulation + 1))
    table.write_text("file,Omega_m\nmap_3.fits,0.4\nmap_1.fits,0.2\nmap_0.fits,0.1\n")
    with pytest.raises(InputError, match=r"one row for map_2.fits, got 0"):
        FitsImages(paths, patch=8, params=table, parameters=["Omega_m"]).load()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "map_0.fits is truncated|map_0.fits is damaged"),
        (lambda p: p.write_text("<html>log in</html>"), "map_0.fits is a web page"),
        (lambda p: p.write_bytes(b"\0" * 5000), "map_0.fits is damaged or not FITS"),
        (lambda p: p.unlink(), "map_0.fits does not exist"),
        (lambda p: write_fits(p, image(0)[0]), "no image of 2 or 3 axes"),
        (lambda p: write_fits(p, image(0, (7, 30)), {"BUNIT": "'K'", **WCS}), "7 x 30 pixels, too few"),
        (lambda p: write_fits(p, image(0), {"BUNIT": "'K'", **WCS, "CDELT1": -0.02}), "square pixels"),
        (lambda p: write_fits(p, image(0), {"BUNIT": "'uK'", **WCS}), "images of one set must agree"),
        (
            lambda p: write_fits(p, image(0, (2, 20, 26)), {"BUNIT": "'K'", **WCS}),
            "images of one set must agree",
        ),
        (lambda p: write_fits(p, image(1), {"BUNIT": "'K'", **WCS}), "field 6 is a copy of field 0"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path: Path, spoil, words: str) -> None:
    paths = images(tmp_path)
    spoil(paths[0])
    with pytest.raises(InputError, match=words):
        FitsImages(paths, patch=8).load()


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 simulation\(s\) cannot fill 3 splits"):
        FitsImages(images(tmp_path, 1), patch=8).load()
    assert set(FitsImages(images(tmp_path, 1), patch=8, fractions=(0, 0, 1)).load().split) == {"test"}


def test_the_real_column_density_and_convergence_maps(data_dir: Path) -> None:
    dust = FitsImages(
        data_dir / "foregrounds/magnetar_Taurusfwhm5_logNHmap.fits",
        patch=64,
        unit="log10 cm^-2",
        drop_blank=True,
        fractions=(0, 0, 1),
    ).load()
    assert dust.grid.spacing == pytest.approx((1.72 / 60, 1.72 / 60), rel=1e-3)  # README: 1.72 arcmin
    assert dust.values.min() > 20.5 and dust.values.max() < 22.8 and len(dust) == 64
    kappa = FitsImages(
        data_dir / "lensing/kappatng_360.fits", patch=360, pixel=0.29 / 60, unit="1", fractions=(0, 0, 1)
    ).load()
    x = kappa.values.double()
    assert x.std().item() == pytest.approx(0.0276, abs=1e-4)
    assert (((x - x.mean()) / x.std()) ** 3).mean().item() == pytest.approx(2.53, abs=0.01)
    assert kappa.values.dtype == torch.float32
