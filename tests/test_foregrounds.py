"""Pairs of dust patches from pictures: beams, guards between splits, borders, units and signs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fits import write_fits

from gen.data.beam_pairs import at_beams
from gen.data.foregrounds import TurbulentDust
from gen.data.planes import data_folder
from gen.data.taurus import TaurusDust
from gen.errors import InputError

N, PIXEL = 96, 5.0
BEAMS: dict[str, Any] = {"fine_beam": 10.0, "coarse_beam": 30.0}
TAN = {"CTYPE1": "'GLON-TAN'", "CTYPE2": "'GLAT-TAN'", "CRPIX1": 60.5, "CRPIX2": 60.5}
TAN |= {"CDELT1": -PIXEL / 60, "CDELT2": PIXEL / 60, "CRVAL1": 172.5, "CRVAL2": -14.5}


def texture(seed: int, n: int = N) -> np.ndarray:
    """Positive periodic noise, correlated over a few pixels."""
    white = np.random.default_rng(seed).normal(size=(n, n))
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n))
    smooth = np.fft.irfft2(np.fft.rfft2(white) * np.exp(-200 * k**2), s=(n, n))
    return (2 * np.exp(smooth / smooth.std() / 2)).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foregrounds")
    for seed, name in enumerate(("I_1", "I_2", "Q_1", "U_1")):
        np.save(folder / f"pywph_{name}.npy", texture(seed))
    return folder


def smoothed_by_hand(x: np.ndarray, fwhm: float) -> np.ndarray:
    """A sum over pixels with a Gaussian's weights, periodic: no Fourier transform."""
    sigma = fwhm / PIXEL / math.sqrt(8 * math.log(2))
    at = np.arange(len(x))
    far = (at[:, None] - at[None, :] + len(x) // 2) % len(x) - len(x) // 2
    w = np.exp(-0.5 * (far / sigma) ** 2)
    w /= w.sum(1, keepdims=True)
    return w @ x @ w.T


def test_intensity_is_at_both_beams_and_split_by_map(folder: Path) -> None:
    data = TurbulentDust(16, PIXEL, **BEAMS, folder=folder).load()
    assert data.coarse is not None and data.coarse.shape == data.values.shape and data.unit == "1"
    assert data.grid.box_size == pytest.approx((16 * PIXEL / 60,) * 2) and not data.grid.periodic
    test = data.select(split="test")
    assert len(test) == 36 and test.n_simulations == 1
    for beam, patches in ((10.0, test.values), (30.0, test.coarse)):
        x = texture(0)
        whole = smoothed_by_hand(x / x.mean(), beam)
        assert patches is not None
        assert np.allclose(patches[7, 0], whole[16:32, 16:32], atol=2e-3)
    assert not set(data.simulation[data.rows("test")].tolist()) & set(
        data.simulation[data.rows("train")].tolist()
    )


def rows_of(folder: Path, stokes: str, split: str, map_: str, step: int | None = None) -> np.ndarray:
    """Which rows of a map a split's patches can show: those where a mark appears."""
    shown = np.zeros(N, dtype=bool)
    source = TurbulentDust(8, PIXEL, stokes, 0.0, 15.0, step=step, folder=folder)
    values = source.load().select(split=split).values[:, 0]
    x = np.load(folder / f"pywph_{map_}.npy")
    x = np.concatenate([x, x[:, :8]], 1) / x.mean(dtype=np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, (8, 8))[:, :N]
    for patch in values.numpy():
        near = np.argwhere(np.abs(windows[:, :, 0, 0] - patch[0, 0]) < 1e-4)
        (r,) = {r for r, c in near if np.abs(windows[r, c] - patch).max() < 1e-4}
        shown[r : r + 8] = True
    return shown


@pytest.mark.parametrize(("stokes", "map_"), [("I", "I_2"), ("IQU", "I_1")])
def test_splits_of_one_map_are_wider_apart_than_two_coarse_beams(
    folder: Path, stokes: str, map_: str
) -> None:
    splits = ("train", "validation") if stokes == "I" else ("train", "validation", "test")
    shown = {s: rows_of(folder, stokes, s, map_) for s in splits}
    assert all(rows.sum() >= 8 for rows in shown.values())
    for a in splits:
        for b in splits:
            if a != b:
                apart = np.abs(np.flatnonzero(shown[a])[:, None] - np.flatnonzero(shown[b]))
                assert np.minimum(apart, N - apart).min() * PIXEL > 2 * 15.0


def test_training_patches_may_overlap_and_go_round_the_columns(folder: Path) -> None:
    far, near = (TurbulentDust(16, PIXEL, **BEAMS, step=s, folder=folder).load() for s in (None, 4))
    assert len(near.rows("train")) > 8 * len(far.rows("train"))
    for split in ("validation", "test"):
        assert torch.equal(near.select(split=split).values, far.select(split=split).values)


def test_u_of_the_other_convention_has_its_sign_turned(folder: Path) -> None:
    cosmo, iau = (
        TurbulentDust(16, PIXEL, "IQU", 0.0, 15.0, convention=c, folder=folder).load().values
        for c in ("COSMO", "IAU")
    )
    assert cosmo.shape[1] == 3
    assert torch.equal(iau, cosmo * torch.tensor([1.0, 1.0, -1.0])[:, None, None])


def test_an_open_picture_is_right_inside_its_border() -> None:
    """What lies outside a picture does not reach inside its border; a plane is left a plane."""
    x = torch.from_numpy(texture(0))[None]
    inside = x[:, 8:-8, 8:-8]
    _, whole = at_beams(x, PIXEL, 0.0, 0.0, 30.0)
    _, cut = at_beams(inside, PIXEL, 0.0, 0.0, 30.0, border=9)
    assert cut.shape[-1] == N - 16 - 18
    assert (cut - whole[:, 17:-17, 17:-17]).abs().max() < 0.003 * whole.std()
    own, _ = at_beams(x, PIXEL, 10.0, 10.0, 30.0)
    assert torch.equal(own, x), "a map of the wanted beam is left as it is"


@pytest.fixture
def taurus(tmp_path: Path) -> Path:
    column = 21 + np.log10(texture(7, 120))
    for name, x in (("5_logNH", column), ("10_Q", texture(8, 120)), ("10_U", texture(9, 120))):
        write_fits(tmp_path / f"magnetar_Taurusfwhm{name}map.fits", x.astype("f4"), TAN)
    return tmp_path


def test_taurus_is_a_column_and_a_test(taurus: Path) -> None:
    data = TaurusDust(16, "1e21 cm^-2", fine_beam=10.0, coarse_beam=30.0, folder=taurus).load()
    assert set(data.split) == {"test"} and data.n_simulations == 1 and data.unit == "1e21 cm^-2"
    assert len(data) == 6 * 6 and data.grid.box_size[0] == pytest.approx(16 * PIXEL / 60)
    wider = math.sqrt(10.0**2 - 5.0**2)
    assert np.allclose(data.values[0, 0], smoothed_by_hand(texture(7, 120), wider)[9:25, 9:25], atol=5e-3)


def test_taurus_polarisation_and_larger_pixels(taurus: Path) -> None:
    wanted: dict[str, Any] = {"fine_beam": 10.0, "coarse_beam": 30.0, "folder": taurus}
    three = TaurusDust(16, "1e21 cm^-2, MJy/sr", "IQU", **wanted).load()
    assert three.values.shape == (36, 3, 16, 16)
    assert torch.allclose(three.values[0, 1], torch.from_numpy(texture(8, 120))[9:25, 9:25], atol=1e-5)
    iau = TaurusDust(16, "MJy/sr", "QU", convention="IAU", **wanted).load()
    assert torch.equal(iau.values[:, 1], -three.values[:, 2])
    large = TaurusDust(8, "1e21 cm^-2, MJy/sr", "IQU", bin=2, coarse_factor=2, **wanted).load()
    assert large.coarse is not None and large.coarse.shape[2:] == (4, 4)
    assert large.values[0, 1, 0, 0].item() == pytest.approx(
        three.values[0, 1, :2, :2].mean().item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: TurbulentDust(16, PIXEL, folder=p / "none"), "set COSMOZOO_DATA"),
        (lambda p: TurbulentDust(40, PIXEL, "IQU", **BEAMS, folder=p), "too few for a patch of 40"),
        (lambda p: TurbulentDust(16, PIXEL, "Q", folder=p), "stokes must be I or IQU"),
        (lambda p: TurbulentDust(16, PIXEL, fine_beam=90, folder=p), "narrower than the coarse"),
        (lambda p: TurbulentDust(16, PIXEL, shares=(1, 1, 1), folder=p), "sum 1"),
        (lambda p: TurbulentDust(16, 0.0, folder=p), "pixel must be above 0"),
        (lambda p: TurbulentDust(16, PIXEL, coarse_factor=3, folder=p), "coarse_factor must divide"),
        (lambda p: TaurusDust(16, " ", folder=p), "state no unit"),
        (lambda p: TaurusDust(16, "K", "IQU", fine_beam=8.0, folder=p), "the data's own 10 arcmin"),
        (lambda p: TaurusDust(16, "K", folder=p), "does not exist"),
    ],
)
def test_what_makes_no_pairs_gets_one_sentence(folder: Path, make, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make(folder).load()
    assert "\n" not in str(caught.value)


def test_a_map_that_is_no_square_or_another_unit_is_refused(folder: Path, taurus: Path) -> None:
    np.save(taurus / "pywph_I_1.npy", np.ones((8, 9), dtype="f4"))
    np.save(taurus / "pywph_I_2.npy", texture(1))
    with pytest.raises(InputError, match=r"squares of one size, got \(8, 9\)"):
        TurbulentDust(8, PIXEL, **BEAMS, folder=taurus).load()
    write_fits(taurus / "magnetar_Taurusfwhm10_Qmap.fits", texture(8, 120), {**TAN, "BUNIT": "'uK'"})
    with pytest.raises(InputError, match="is in uK, but unit is MJy/sr"):
        TaurusDust(16, "MJy/sr", "QU", coarse_beam=30.0, folder=taurus).load()
    with pytest.raises(InputError, match="too small to lose"):
        TaurusDust(16, "uK", "QU", coarse_beam=300.0, folder=taurus).load()


@pytest.mark.skipif(not (data_folder() / "foregrounds").is_dir(), reason="the data files are not here")
def test_the_real_files_are_read() -> None:
    intensity = TurbulentDust(64, 3.75).load()
    assert {s: len(intensity.rows(s)) for s in ("train", "validation", "test")} == {
        "train": 32,
        "validation": 8,
        "test": 64,
    }
    assert intensity.values.mean().item() == pytest.approx(1, abs=0.1)
    assert len(TurbulentDust(64, 3.75, "IQU").load()) == 24 + 8 + 8
    column = TaurusDust(64, "1e21 cm^-2", bin=2).load()
    assert column.grid.spacing[0] * 60 == pytest.approx(3.44, abs=0.01)
    assert column.coarse is not None and column.coarse.std() < column.values.std()
    assert len(column) == 9
