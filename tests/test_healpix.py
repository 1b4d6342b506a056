"""HEALPix maps against the formulae of their pixels: patches, orderings, masks, and damaged maps."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from test_fits import image, write_fits

from gen.data.healpix import HealpixPatches, patch_directions
from gen.errors import InputError

NSIDE = 16
NPIX = 12 * NSIDE**2
EVERY_SECOND = np.where(np.arange(NPIX) % 2, 1.0, -1.6375e30)


def ring_vectors(nside: int) -> np.ndarray:
    """Pixel centres in RING order from the formulae of Gorski et al. 2005 (astro-ph/0409513, section 4).

    Every second equatorial ring starts at longitude 0, as in the files that exist.
    """
    npix, cap = 12 * nside**2, 2 * nside * (nside - 1)
    rows = []
    for p in range(npix):
        if p < cap or p >= npix - cap:
            q = p if p < cap else npix - 1 - p
            i = int(math.sqrt((q + 1) / 2 - math.sqrt((q + 1) // 2))) + 1
            j = q + 1 - 2 * i * (i - 1)
            z, phi = 1 - i * i / (3 * nside**2), math.pi / (2 * i) * (j - 0.5)
            if p >= cap:
                z, phi = -z, 2 * math.pi - phi
        else:
            i, j = (p - cap) // (4 * nside) + nside, (p - cap) % (4 * nside) + 1
            z = 4 / 3 - 2 * i / (3 * nside)
            phi = math.pi / (2 * nside) * (j - (1.0 if (i + nside) % 2 else 0.5))
        rows.append((math.sqrt(1 - z * z) * math.cos(phi), math.sqrt(1 - z * z) * math.sin(phi), z))
    return np.array(rows)


def nested_of_ring(nside: int) -> np.ndarray:
    """The NESTED number of each RING pixel, by position: each face is a tilted square of the projection
    plane (Calabretta & Roukema 2007, arXiv:astro-ph/0412607), its bits interleaved."""
    ring, order = ring_vectors(nside), np.empty(12 * nside**2, dtype=int)
    for p in range(len(ring)):
        face, rest = divmod(p, nside**2)
        i = sum(((rest >> (2 * b)) & 1) << b for b in range(nside.bit_length()))
        j = sum(((rest >> (2 * b + 1)) & 1) << b for b in range(nside.bit_length()))
        row = face // 4
        x = math.pi / 2 * (face % 4) + (0.0 if row == 1 else math.pi / 4) + math.pi / 4 * (i - j) / nside
        y = math.pi / 4 * (1 - row) + math.pi / 4 * (i + j + 1 - nside) / nside
        z, phi = 8 * y / (3 * math.pi), x
        if abs(y) > math.pi / 4 + 1e-12:
            sigma, middle = 2 - 4 * abs(y) / math.pi, math.pi / 2 * (x // (math.pi / 2)) + math.pi / 4
            z, phi = math.copysign(1 - sigma**2 / 3, y), middle + (x - middle) / sigma
        s = math.sqrt(1 - z * z)
        match = ring @ (s * math.cos(phi), s * math.sin(phi), z)
        assert match.max() > 1 - 1e-12
        order[int(np.argmax(match))] = p
    return order


def smooth(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """A field without small scales: its bilinear interpolation is good to the square of the pixel."""
    a = np.random.default_rng(seed).normal(size=(3, 3))
    return vectors @ a[0] + (vectors @ a[1]) * (vectors @ a[2])


def write_map(path: Path, columns: dict[str, np.ndarray], ordering: str | None = "RING", **cards) -> Path:
    """A HEALPix binary table by hand, one pixel a row, float32 columns."""
    fields = {}
    for i, name in enumerate(columns, 1):
        fields |= {f"TTYPE{i}": f"'{name:<8}'", f"TFORM{i}": "'1E      '", f"TUNIT{i}": "'K_CMB   '"}
    n = len(next(iter(columns.values())))
    header = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 4 * len(columns), "NAXIS2": n}
    header |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(columns)} | fields
    header |= {"PIXTYPE": "'HEALPIX '", "NSIDE": math.isqrt(n // 12)}
    header |= {} if ordering is None else {"ORDERING": f"'{ordering:<8}'"}
    header |= cards
    primary = f"{'SIMPLE':<8}= {'T':>20}".ljust(80) + f"{'BITPIX':<8}= {8:>20}".ljust(80)
    primary = (primary + f"{'NAXIS':<8}= {0:>20}".ljust(80) + "END".ljust(80)).ljust(2880)
    text = "".join(f"{k:<8}= {v!s:>20}".ljust(80) for k, v in header.items()) + "END".ljust(80)
    body = np.stack(list(columns.values()), axis=1).astype(">f4").tobytes()
    text = text.ljust(-(-len(text) // 2880) * 2880)
    path.write_bytes((primary + text).encode() + body.ljust(-(-len(body) // 2880) * 2880, b"\0"))
    return path


def skies(tmp: Path, n: int = 4, **kwargs) -> list[Path]:
    vectors = ring_vectors(NSIDE)
    return [write_map(tmp / f"sky_{i}.fits", {"I": smooth(vectors, i)}, **kwargs) for i in range(n)]


def test_the_test_s_own_pixel_numbers_are_a_permutation() -> None:
    assert sorted(nested_of_ring(4)) == list(range(12 * 16))


def test_patches_hold_the_field_at_their_directions(tmp_path: Path) -> None:
    data = HealpixPatches(skies(tmp_path), patch=12, size=20).load()
    directions = patch_directions(12, 20)
    m = len(directions)
    assert len(data) == 4 * m and data.simulation.tolist() == np.repeat(range(4), m).tolist()
    for i in range(4):
        expected = smooth(directions, i)
        got = data.values[i * m : (i + 1) * m, 0].numpy()
        error = np.abs(got - expected) / np.abs(expected).max()
        # h^2 / 8 |f''| with h = 3.7 deg and |f''| of a few f; at the pole four pixels make a ring
        assert error[np.abs(directions[..., 2]) < 0.97].max() < 4e-3 and error.max() < 2e-2
    homes = [set(data.split[i * m : (i + 1) * m]) for i in range(4)]
    assert all(len(h) == 1 for h in homes) and set().union(*homes) == {"train", "validation", "test"}
    assert data.unit == "K_CMB" and data.grid.box_size == (20.0, 20.0) and not data.grid.periodic


def test_ring_and_nested_files_give_the_same_patches(tmp_path: Path) -> None:
    vectors = ring_vectors(NSIDE)
    nested = np.empty(NPIX)
    nested[nested_of_ring(NSIDE)] = smooth(vectors)
    ring = write_map(tmp_path / "r.fits", {"I": smooth(vectors)})
    nest = write_map(tmp_path / "n.fits", {"I": nested}, ordering="NESTED")
    one = {"patch": 8, "size": 15, "fractions": (0, 0, 1)}
    a, b = (HealpixPatches([p], **one).load().values for p in (ring, nest))
    assert np.allclose(a, b, atol=1e-6)
    as_if_ring = HealpixPatches([write_map(tmp_path / "w.fits", {"I": nested})], **one).load().values
    assert not np.allclose(a, as_if_ring, atol=0.1)


def test_patches_are_gnomonic_face_north_and_do_not_overlap() -> None:
    n, size = 9, 10
    directions = patch_directions(n, size)
    centre = directions[:, 4, 4]
    east = np.cross([0, 0, 1.0], centre)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    north = np.cross(centre, east)
    along = np.einsum("mijk,mk->mij", directions, centre)
    x = np.einsum("mijk,mk->mij", directions, east) / along
    y = np.einsum("mijk,mk->mij", directions, north) / along
    step = math.radians(size) / n
    assert np.allclose(x, step * (np.arange(n) - 4)[None, None, :], atol=1e-12)
    assert np.allclose(y, step * (np.arange(n) - 4)[None, :, None], atol=1e-12)
    for m, c in enumerate(centre):  # no pixel of another patch projects into this one's square
        others = np.delete(directions, m, axis=0).reshape(-1, 3)
        front = others[others @ c > 0.5]
        u, v = front @ east[m] / (front @ c), front @ north[m] / (front @ c)
        assert not ((np.abs(u) < math.radians(size) / 2) & (np.abs(v) < math.radians(size) / 2)).any()
    assert len(centre) * math.radians(size) ** 2 / (4 * math.pi) > 0.45  # of the sky


def test_base_pixels_stand_in_for_simulations(tmp_path: Path) -> None:
    data = HealpixPatches(skies(tmp_path, 1), patch=8, size=10, base_pixels=True).load()
    assert "pseudo-independent" in data.name and data.n_simulations == 12
    homes: dict[int, set[str]] = {}
    for s, split in zip(data.simulation.tolist(), data.split.tolist(), strict=True):
        homes.setdefault(s, set()).add(split)
    assert all(len(h) == 1 for h in homes.values())
    with pytest.raises(InputError, match=r"1 simulation\(s\) cannot fill"):
        HealpixPatches(skies(tmp_path, 1), patch=8, size=10).load()


def test_unseen_pixels_leave_out_their_patches_only(tmp_path: Path) -> None:
    vectors = ring_vectors(NSIDE)
    whole = {"patch": 8, "size": 15, "fractions": (0, 0, 1)}
    full = HealpixPatches(skies(tmp_path, 1), **whole).load()
    for mark in (-1.6375e30, np.nan):
        sky = np.where(vectors[:, 2] > 0, smooth(vectors), mark)
        data = HealpixPatches([write_map(tmp_path / "m.fits", {"I": sky})], **whole).load()
        lowest = patch_directions(8, 15)[..., 2].min(axis=(1, 2))
        assert (lowest > 0.1).sum() <= len(data) <= (lowest > 0).sum()
        assert f"{len(data)} of {len(full)} patches" in data.name
        assert all(any(np.array_equal(p, q) for q in full.values) for p in data.values)


def test_columns_become_channels_by_name_or_number(tmp_path: Path) -> None:
    v = ring_vectors(NSIDE)
    path = write_map(tmp_path / "two.fits", {"DUST": smooth(v, 1), "SYNC": smooth(v, 2)})
    one = {"patch": 8, "size": 15, "fractions": (0, 0, 1)}
    data = HealpixPatches([path], columns=["SYNC", 0], **one).load()
    dust = HealpixPatches([path], columns=["DUST"], **one).load()
    assert data.values.shape[1] == 2 and np.array_equal(data.values[:, 1:], dust.values)


def test_arrays_need_ordering_and_unit(tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", smooth(ring_vectors(NSIDE)).astype("f4"))
    one = {"patch": 8, "size": 15, "fractions": (0, 0, 1)}
    with pytest.raises(InputError, match="does not say its ordering"):
        HealpixPatches([tmp_path / "sky.npy"], unit="K", **one).load()
    with pytest.raises(InputError, match="states no unit"):
        HealpixPatches([tmp_path / "sky.npy"], ordering="RING", **one).load()
    array = HealpixPatches([tmp_path / "sky.npy"], ordering="RING", unit="K_CMB", **one).load()
    table = HealpixPatches(skies(tmp_path, 1), **one).load()
    assert np.allclose(array.values, table.values, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (lambda p: skies(p, 1, INDXSCHM="'EXPLICIT'"), {}, "part of the sky"),
        (lambda p: skies(p, 1, NSIDE=8), {}, "NSIDE = 8 does not fit columns of 3072 pixels"),
        (lambda p: skies(p, 1), {"ordering": "NESTED"}, "is in RING order, but ordering is NESTED"),
        (lambda p: skies(p, 1), {"unit": "uK_RJ"}, "is in K_CMB, but unit is uK_RJ"),
        (lambda p: skies(p, 1), {"columns": ["T"]}, "column 'T' is missing, it holds I"),
        (lambda p: skies(p, 1), {"columns": [1]}, "numbers from 0 to 0, got 1"),
        (lambda p: [write_map(p / "q.fits", {"Q_POLARISATION": np.ones(NPIX)})], {}, "polarisation"),
        (lambda p: [write_fits(p / "i.fits", image(0))], {}, "no HEALPix table.*FitsImages"),
        (lambda p: [write_map(p / "c.fits", {"I": np.ones(NPIX)})], {}, "1 everywhere"),
        (lambda p: [write_map(p / "u.fits", {"I": np.full(NPIX, np.nan)})], {}, "all pixels of column 'I'"),
        (lambda p: [write_map(p / "h.fits", {"I": EVERY_SECOND})], {}, "touches unseen pixels"),
        (lambda p: skies(p, 1, ordering="RIGN"), {}, "ORDERING = RIGN, which must be RING or NESTED"),
        (lambda p: skies(p, 1, ordering=None), {}, "does not say its ordering; give ordering"),
        (lambda p: [(p / "none.fits")], {}, "does not exist"),
    ],
)
def test_bad_maps_get_one_sentence(tmp_path: Path, make, arguments: dict, words: str) -> None:
    source = HealpixPatches(make(tmp_path), patch=8, size=15, fractions=(0, 0, 1), **arguments)
    with pytest.raises(InputError, match=words):
        source.load()


def test_an_ordering_that_a_header_lacks_can_be_given(tmp_path: Path) -> None:
    one = {"patch": 8, "size": 15, "fractions": (0, 0, 1)}
    told = HealpixPatches(skies(tmp_path, 1), **one).load()
    given = HealpixPatches(skies(tmp_path, 1, ordering=None), ordering="RING", **one).load()
    assert given.values.equal(told.values)


def test_damaged_files_get_one_sentence(tmp_path: Path) -> None:
    for cut, words in ((lambda b: b[:6000], "truncated|damaged"), (lambda b: b"<html>", "web page")):
        path = skies(tmp_path, 1)[0]
        path.write_bytes(cut(path.read_bytes()))
        with pytest.raises(InputError, match=words):
            HealpixPatches([path], patch=8, size=15).load()


def test_sizes_and_orderings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(0, 30\] degrees"):
        HealpixPatches(["a.fits"], patch=8, size=60)
    with pytest.raises(InputError, match="RING or NESTED"):
        HealpixPatches(["a.fits"], patch=8, size=10, ordering="ring order")
