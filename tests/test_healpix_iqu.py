"""I, Q, U on the sphere: frames, E of an analytic sky kept pure, there and back, and maps that are wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy_healpix import HEALPix
from test_healpix import nested_of_ring, ring_vectors, write_map

from evaluation.polarisation import Polarisation
from gen.data.healpix import patch_centres
from gen.data.healpix_iqu import HealpixIQU
from gen.data.sky_frames import TangentPlane, cover
from gen.data.sky_patches import Mosaic, cut, mosaic, weight
from gen.errors import InputError
from gen.fields import Grid

NSIDE = 64
PLACES = {"equator": (0.6, 0.8, 0.0), "middle": (0.36, -0.48, 0.8), "pole": (0.06, 0.05, -1.0)}


def vectors_of(nside: int) -> np.ndarray:
    lon, lat = HEALPix(nside, order="ring").healpix_to_lonlat(np.arange(12 * nside**2))
    lon, lat = lon.to_value(u.rad), lat.to_value(u.rad)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


def sky_of_e(v: np.ndarray, n: int = 120, radius: float = 5.0) -> np.ndarray:
    """I = a sum of bumps b_j exp(kappa (c_j - 1)), c_j = v.a_j, and its second spin-raised derivative.

    Of a function of c alone that is (1 - c^2) b''(c) along the radius from a_j, all E. Angles of Q + iU grow
    from south to east, as HEALPix has them.
    """
    rng = np.random.default_rng(0)
    at, height = rng.normal(size=(n, 3)), rng.normal(size=n)
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    kappa = 1 / math.radians(radius) ** 2
    z, across = v[:, 2], np.hypot(v[:, 0], v[:, 1])
    south = np.stack([z * v[:, 0] / across, z * v[:, 1] / across, -across], -1)
    east = np.stack([-v[:, 1] / across, v[:, 0] / across, 0 * z], -1)
    i, p = np.zeros(len(v)), np.zeros(len(v), dtype=complex)
    for a, b in zip(at, height, strict=True):
        c = v @ a
        bump = b * np.exp(kappa * (c - 1))
        radial = v * c[:, None] - a
        angle = np.arctan2((radial * east).sum(1), (radial * south).sum(1))
        i += bump
        p += (1 - c**2) * kappa * bump * np.exp(2j * angle)
    return np.stack([i, np.real(p), np.imag(p)])


@pytest.fixture(scope="module")
def sky() -> np.ndarray:
    return sky_of_e(vectors_of(NSIDE))


def plane(place: str, n: int = 48, size: float = 20.0) -> TangentPlane:
    c = np.array(PLACES[place])
    return TangentPlane(tuple((c / np.linalg.norm(c)).tolist()), n, size)


# Frames


def test_at_the_centre_the_frame_is_the_meridian_s() -> None:
    """North to west is south to east, turned by 180 degrees: Q and U stay as they are."""
    for place in PLACES:
        p = plane(place, 5)
        middle = p.directions()[2, 2]
        assert middle == pytest.approx(np.array(p.centre))
        assert p.turn(middle + 1e-9 * p.axes[0]) == pytest.approx(1, abs=1e-6)
        assert p.turn(middle) == pytest.approx(1, abs=1e-6)
        north, west = p.axes
        assert north[2] > 0 and west @ np.cross(middle, [0, 0, 1]) > 0
        row, column = p.pixels(p.directions())
        assert np.allclose(row, np.arange(5)[:, None]) and np.allclose(column, np.arange(5))


def test_turning_round_a_small_circle_gives_its_holonomy() -> None:
    """Towards the east along a parallel, the meridian turns by sin(latitude) of longitude, in the frame."""
    latitude, step = 0.7, 1e-3
    c = np.array([math.cos(latitude), 0, math.sin(latitude)])
    v = np.array(
        [math.cos(latitude) * math.cos(step), math.cos(latitude) * math.sin(step), math.sin(latitude)]
    )
    turn = TangentPlane(tuple(c.tolist()), 8, 10.0).turn(v)
    assert abs(turn) == pytest.approx(1)
    assert abs(np.angle(turn)) == pytest.approx(2 * math.sin(latitude) * step, rel=1e-4)


@pytest.mark.parametrize("place", PLACES)
def test_a_polarisation_that_is_constant_in_space_is_nearly_so_in_a_patch(place: str) -> None:
    """Q + iU of a fixed direction d: a straight picture of it in a small patch, wherever that lies."""
    p = plane(place, 9, 1.0)
    north, west = p.axes
    v = p.directions().reshape(-1, 3)
    across = np.hypot(v[:, 0], v[:, 1])
    south = np.stack([v[:, 2] * v[:, 0] / across, v[:, 2] * v[:, 1] / across, -across], -1)
    east = np.stack([-v[:, 1] / across, v[:, 0] / across, 0 * across], -1)
    for angle in (0.0, 0.4, 1.3):
        d = math.cos(angle) * north + math.sin(angle) * west
        meridian = (south @ d + 1j * (east @ d)) ** 2
        assert np.abs(meridian * p.turn(v) - np.exp(2j * angle)).max() < 4e-4  # of (0.7 deg)^2


@pytest.mark.parametrize("place", PLACES)
def test_e_stays_e_in_patches(sky: np.ndarray, place: str) -> None:
    p = plane(place)
    grid = Grid((48, 48), 20.0, "deg", periodic=False)

    def spectra(maps: np.ndarray, convention: Any = "COSMO") -> list[float]:
        statistic = Polarisation(grid, apodise="hann", leakage="pure", convention=convention)
        return statistic(torch.from_numpy(cut(maps, "RING", p))[None])[0, :, :12].sum(-1).tolist()

    _, ee, bb, *_ = spectra(sky)
    assert bb < 2e-3 * ee
    _, wrong_ee, wrong_bb, *_ = spectra(sky, "IAU")
    assert wrong_bb > 0.1 * wrong_ee, "the other sign of U makes B of E"
    q_to_u = np.stack([sky[0], -sky[2], sky[1]])  # every direction turned by 45 degrees: E becomes B
    assert spectra(q_to_u)[2] > 0.5 * ee


def test_without_turning_polar_patches_are_not_e(sky: np.ndarray) -> None:
    """The negative control: Q and U of the meridians, taken as they are."""
    p = plane("pole")
    turned = cut(sky, "RING", p)
    raw = np.concatenate([cut(sky[i : i + 1], "RING", p) for i in range(3)])
    statistic = Polarisation(Grid((48, 48), 20.0, "deg", False), apodise="hann", leakage="pure")
    good, bad = (statistic(torch.from_numpy(x)[None])[0, 1:3, :12].sum(-1) for x in (turned, raw))
    assert good[1] / good[0] < 2e-3 < 0.1 < bad[1] / bad[0]


def test_nested_maps_give_the_same_patch() -> None:
    sky = sky_of_e(ring_vectors(16), 40, 15.0)
    nested = np.empty_like(sky)
    nested[:, nested_of_ring(16)] = sky
    assert np.allclose(cut(sky, "RING", plane("middle")), cut(nested, "NESTED", plane("middle")))


# There and back


def test_a_cover_holds_every_direction_and_weights_are_smooth() -> None:
    planes = cover(16, 20.0)
    assert len(planes) == 280
    made = Mosaic(32, channels=1)
    for p in cover(16, 20.0, 0.3):
        made.add(np.ones((1, 16, 16)), p)
    assert made.weight.min() > 0.01
    row = np.linspace(0, 15, 1000)
    w = weight(planes[0], row, np.full(1000, 7.5))
    assert w[0] == 0 and w[-1] < 1e-12 and w.max() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(w)).max() < 4e-3


@pytest.mark.parametrize("ordering", ["RING", "NESTED"])
def test_a_constant_comes_back_to_the_last_digit(ordering: str) -> None:
    planes = cover(16, 20.0)
    back = mosaic((3.7 * np.ones((1, 16, 16)) for _ in planes), planes, 32, ordering, 1, progress=False)
    assert np.abs(back / 3.7 - 1).max() < 1e-12


def test_a_sky_comes_back_to_interpolation_error(sky: np.ndarray) -> None:
    """Pixels of 0.9 degrees and bumps of 5: h^2 / 8 |f''| of both ways is 1 % of the bump or less."""
    planes = cover(40, 30.0)
    back = mosaic((cut(sky, "RING", p) for p in planes), planes, NSIDE, progress=False)
    assert ((back - sky).std(1) / sky.std(1)).max() < 0.02
    near_pole = np.abs(vectors_of(NSIDE)[:, 2]) > 0.99
    assert ((back - sky)[:, near_pole].std(1) / sky.std(1)).max() < 0.03


def test_patches_are_taken_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    planes, asked = cover(8, 30.0), []

    def made() -> Any:
        for p in planes:
            asked.append(p)
            yield np.ones((1, 8, 8))

    stream = made()
    mosaic(stream, planes, 8, channels=1)
    assert len(asked) == len(planes) and f"{len(planes)}/{len(planes)}" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"{len(planes)} planes need as many patches, got 2"):
        mosaic(iter([np.ones((1, 8, 8))] * 2), planes, 8, channels=1, progress=False)
    with pytest.raises(InputError, match="got more"):
        mosaic(iter([np.ones((1, 8, 8))] * 999), planes, 8, channels=1, progress=False)


def test_uncovered_pixels_are_nan() -> None:
    made = Mosaic(16, channels=1)
    made.add(np.ones((1, 8, 8)), plane("middle", 8))
    back = made.map()
    assert 0.006 < np.isfinite(back).mean() < 0.009, "17.5 degrees between outer pixels"
    assert np.allclose(back[np.isfinite(back)], 1)


# The source

CARDS = {"COORDSYS": "'G       '", "POLCCONV": "'COSMO   '"}
ONE: dict[str, Any] = {"own_beam": 90.0, "fine_beam": 90.0, "coarse_beam": 240.0, "patch": 12, "size": 20.0}
ONE |= {"fractions": (0, 0, 1)}


def written(path: Path, sky: np.ndarray, names: str = "IQU", **cards: Any) -> Path:
    stokes = {"I": "I_STOKES", "Q": "Q_STOKES", "U": "U_STOKES"}
    columns = {stokes[s]: sky["IQU".index(s)] for s in names}
    return write_map(path, columns, **{**CARDS, **cards})


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    return sky_of_e(vectors_of(16), 40, 15.0) + np.array([9.0, 0, 0])[:, None]


def test_pairs_are_cut_at_both_beams_in_the_local_frame(tmp_path: Path, small: np.ndarray) -> None:
    data = HealpixIQU(written(tmp_path / "a.fits", small), **ONE).load()
    assert data.coarse is not None and data.values.shape == data.coarse.shape == (len(data), 3, 12, 12)
    assert data.unit == "K_CMB" and data.grid.box_size == (20.0, 20.0) and not data.grid.periodic
    p = TangentPlane(tuple(patch_centres(20.0)[5].tolist()), 12, 20.0)
    assert np.allclose(data.values[5].numpy(), cut(small, "RING", p), atol=1e-5)
    assert data.coarse.std() < data.values.std()
    alone = HealpixIQU(tmp_path / "a.fits", columns=[0], **ONE).load()
    assert torch.allclose(alone.values, data.values[:, :1], atol=1e-6)


def test_u_of_iau_files_is_turned_and_files_may_be_apart(tmp_path: Path, small: np.ndarray) -> None:
    cosmo = HealpixIQU(written(tmp_path / "a.fits", small), **ONE).load().values
    iau = written(tmp_path / "b.fits", small * np.array([1, 1, -1])[:, None], POLCCONV="'IAU     '")
    assert torch.allclose(HealpixIQU(iau, **ONE).load().values, cosmo, atol=1e-6)
    i = written(tmp_path / "i.fits", small, "I")
    qu = written(tmp_path / "qu.fits", small, "QU")
    apart = HealpixIQU(i, columns=("I_STOKES", "Q_STOKES", "U_STOKES"), polarisation=qu, **ONE).load()
    assert torch.equal(apart.values, cosmo)
    np.save(tmp_path / "a.npy", small.astype("f4"))
    array = HealpixIQU(tmp_path / "a.npy", ordering="RING", unit="K_CMB", convention="COSMO", **ONE).load()
    assert torch.allclose(array.values, cosmo, atol=1e-5)


def test_patches_at_unseen_pixels_are_left_out_and_maps_are_the_unit_of_splits(
    tmp_path: Path, small: np.ndarray
) -> None:
    masked = small.copy()
    masked[1, vectors_of(16)[:, 2] > 0.2] = -1.6375e30
    whole = HealpixIQU(written(tmp_path / "a.fits", small), **ONE).load()
    part = HealpixIQU(written(tmp_path / "m.fits", masked), **ONE).load()
    assert 0 < len(part) < 0.5 * len(whole)
    paths = [written(tmp_path / f"{i}.fits", small * (1 + i)) for i in range(3)]
    data = HealpixIQU(paths, **{**ONE, "fractions": (0.34, 0.33, 0.33)}).load()
    assert data.n_simulations == 3 and set(data.split) == {"train", "validation", "test"}


def _plain(path: Path, sky: np.ndarray, **cards: Any) -> Path:
    return write_map(path, dict(zip("IQU", sky, strict=True)), **cards)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (lambda p, s: _plain(p / "a.fits", s), {}, "no POLCCONV, so the sign of U is not known"),
        (lambda p, s: written(p / "a.fits", s), {"convention": "IAU"}, "POLCCONV = COSMO, but convention is"),
        (lambda p, s: written(p / "a.fits", s, POLCCONV="'UPSIDE'"), {}, "must be COSMO or IAU"),
        (
            lambda p, s: written(p / "a.fits", s, COORDSYS="'C       '"),
            {},
            "COORDSYS = C, but coordinates is G",
        ),
        (lambda p, s: written(p / "a.fits", s, TUNIT2="'        '"), {}, "states no unit; give unit"),
        (lambda p, s: written(p / "a.fits", s, TUNIT2="'uK_CMB  '"), {}, "must be in one unit"),
        (
            lambda p, s: written(p / "a.fits", s, ORDERING="'NESTED  '"),
            {"ordering": "RING"},
            "in NESTED order",
        ),
        (
            lambda p, s: written(p / "a.fits", s * 0 - 1.7e30),
            {},
            "all pixels of column 'I_STOKES' are unseen",
        ),
        (
            lambda p, s: written(p / "a.fits", np.where(np.arange(s.shape[1]) % 3, s, -1.7e30)),
            {},
            "touches unseen",
        ),
        (lambda p, s: written(p / "a.fits", s - 9), {"positive": True}, "no logarithm"),
        (lambda p, s: written(p / "a.fits", s, INDXSCHM="'EXPLICIT'"), {}, "part of the sky"),
        (lambda p, s: p / "none.fits", {}, "does not exist"),
    ],
)
def test_wrong_maps_get_one_sentence(
    tmp_path: Path, small: np.ndarray, make, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        HealpixIQU(make(tmp_path, small), **{**ONE, **arguments}).load()
    assert "\n" not in str(caught.value)


def test_files_that_differ_get_one_sentence(tmp_path: Path, small: np.ndarray) -> None:
    i = written(tmp_path / "i.fits", small, "I")
    columns = ("I_STOKES", "Q_STOKES", "U_STOKES")
    for cards, words in (
        ({"ORDERING": "'NESTED  '"}, "differ in their order, RING and NESTED"),
        ({"TUNIT1": "'uK_CMB  '", "TUNIT2": "'uK_CMB  '"}, "differ in their unit"),
    ):
        qu = written(tmp_path / "qu.fits", small, "QU", **cards)
        with pytest.raises(InputError, match=words):
            HealpixIQU(i, columns=columns, polarisation=qu, **ONE).load()
    fine = written(tmp_path / "fine.fits", sky_of_e(vectors_of(8), 4, 15.0), "QU")
    with pytest.raises(InputError, match="differ in their pixels, 3072 and 768"):
        HealpixIQU(i, columns=columns, polarisation=fine, **ONE).load()
    with pytest.raises(InputError, match="agree in their unit"):
        other = written(tmp_path / "k.fits", small, "I", TUNIT1="'uK_CMB  '")
        HealpixIQU([i, other], columns=[0], **ONE).load()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 30.0}, r"\(0, 24\] degrees"),
        ({"columns": (0, 1)}, "one, I, or three"),
        ({"fine_beam": 50.0}, "the data's own 90 arcmin"),
        ({"ordering": "ring"}, "RING or NESTED"),
        ({"coordinates": "Galactic"}, "one of G, C, E"),
        ({"polarisation": ["a", "b"]}, "one file of polarisation"),
    ],
)
def test_wrong_arguments_get_one_sentence(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HealpixIQU("a.fits", **{**ONE, **arguments})
    with pytest.raises(InputError, match="on a pole"):
        TangentPlane((0.0, 0.0, 1.0), 8, 10.0).directions()
    with pytest.raises(InputError, match=r"overlap in 0\.3 to 0\.7"):
        cover(8, 20.0, 0.1)
    with pytest.raises(InputError, match="nside a power of 2"):
        Mosaic(12)
    with pytest.raises(InputError, match="finite values"):
        Mosaic(8).add(np.full((3, 8, 8), np.nan), plane("middle", 8))
