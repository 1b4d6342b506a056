"""Small scales of a whole sky: one noise on the sphere, no seams, and maps that are wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy_healpix import HEALPix
from test_healpix import nested_of_ring, write_map
from test_healpix_iqu import sky_of_e, vectors_of
from test_small_scales import COARSE, FINE, PATCH, dust, emulator
from torch import Tensor

from gen.checkpoint import save
from gen.cli import main
from gen.commands import apply_sky
from gen.commands.apply_sky import apply_to_sky, layout, small_scales
from gen.data.sky_blend import Blend
from gen.data.sky_frames import TangentPlane, cover
from gen.data.sky_gaps import filled, seeing
from gen.data.sky_map import SkyMap, is_sky, read_sky, write_sky
from gen.data.sky_noise import SkyNoise, at
from gen.data.sky_patches import cut, mosaic
from gen.emulators.beams import beam, filtered
from gen.emulators.small_scales import SmallScales
from gen.errors import InputError
from gen.fields import Grid

NSIDE = 256
NPIX = 12 * NSIDE**2
CENTRE = np.array([math.cos(0.3) * 0.6, math.cos(0.3) * 0.8, math.sin(0.3)])
TEXT = "slope=-3"


def place(latitude: float, longitude: float) -> tuple[float, float, float]:
    across = math.cos(latitude)
    return across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude)


def lognormal(radius: float = 7.0) -> np.ndarray:
    """Exponential of bumps of 0.8 to 5 degrees on a disc of a sky, NaN beyond."""
    v = vectors_of(NSIDE)
    seen = v @ CENTRE > math.cos(math.radians(radius))
    rng = np.random.default_rng(0)
    at_ = rng.normal(size=(60000, 3))
    at_ /= np.linalg.norm(at_, axis=1, keepdims=True)
    at_ = at_[at_ @ CENTRE > math.cos(math.radians(radius + 8))]
    width = np.radians(0.8 * 10 ** rng.uniform(0, 0.8, len(at_)))
    g = np.exp((v[seen] @ at_.T - 1) / width**2) @ rng.normal(size=len(at_))
    sky = np.full((1, NPIX), np.nan)
    sky[0, seen] = 100 * np.exp(0.4 * g / g.std())
    return sky


class Kept(Blend):
    """A blend that remembers itself, and a sky in which each patch is pasted over those before.

    In it every other patch has its small scales turned over, as if neighbours shared nothing.
    """

    last: Kept
    pasted: np.ndarray
    count = 0

    def add_scales(self, patch: np.ndarray, small: np.ndarray, plane: TangentPlane) -> None:
        if not self.weight.any():
            Kept.last, self.pasted = self, np.full_like(self.total, np.nan)
        super().add_scales(patch, small, plane)
        pixels, _, (values,) = self.placed([patch - 2 * small * (self.count % 2)], plane)
        self.pasted[:, pixels] = values
        self.count += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted checkpoint, a coarse sky, and the sky made of it, whose blend is kept."""
    folder = tmp_path_factory.mktemp("sky")
    made = emulator(summary_weight=0.0)
    made.fit(dust(PATCH, 12))
    save(made.eval(), folder / "toy", "# toy\n")
    write_sky(folder / "coarse.fits", SkyMap(lognormal(), "RING", "uK_RJ", "G"), {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply_sky, "Blend", Kept)
        apply_to_sky(folder / "toy", folder / "coarse.fits", TEXT, folder / "fine.fits", seed=1)
    return folder


# One noise on the sphere


def test_noise_at_places_is_normal_and_a_function_of_the_place() -> None:
    numbers = at("a", np.arange(10**6))
    assert abs(numbers.mean()) < 4e-3 and numbers.std() == pytest.approx(1, abs=3e-3)
    assert (numbers**4).mean() == pytest.approx(3, abs=0.04)
    assert abs(np.mean(numbers[1:] * numbers[:-1])) < 4e-3
    assert np.array_equal(at("a", np.array([7, 3])), numbers[[7, 3]])
    assert abs(np.corrcoef(at("b", np.arange(10**5)), numbers[: 10**5])[0, 1]) < 0.012


def test_noise_of_a_patch_is_white() -> None:
    """At all wavelengths, to the scatter of 1,100 modes a band, whatever the size that is asked for."""
    plane = TangentPlane(place(0.7, 2.0), 48, 8.0)
    x = SkyNoise(plane, 8, 0).normal((3, 130, 130))
    assert x.std() == pytest.approx(1, abs=0.02)
    own = x[:, :65, :65].double()
    power = torch.fft.fft2(own).abs().square() / 65**2
    k = torch.fft.fftfreq(65).abs()
    k = torch.maximum(k[:, None], k)
    for low, high in ((0.02, 0.15), (0.15, 0.3), (0.3, 0.4), (0.4, 0.51)):
        band = power[:, (k >= low) & (k < high)]
        assert band.mean() == pytest.approx(1, abs=4 / math.sqrt(band.numel() / 2))
    assert np.abs(np.corrcoef(x.flatten(1))[np.triu_indices(3, 1)]).max() < 0.03, "channels are apart"
    beyond = SkyNoise(plane, 8, 0).normal((130, 130))[70:]
    assert not torch.equal(beyond, SkyNoise(plane, 8, 1).normal((130, 130))[70:])


def test_patches_share_their_noise_where_they_overlap() -> None:
    """Seen by a beam of 3 cells; half a cell's offset and a turn of 6 degrees do not matter."""
    cell = math.radians(1 / 8)
    first = TangentPlane(place(0.6, 1.0), 64, 8.0)
    second = TangentPlane(place(0.6 + 10.5 * cell, 1.0 + 20.5 * cell), 64, 8.0)
    grid = Grid((64, 64), 8.0, "deg", periodic=False)

    def smooth(plane: TangentPlane, seed: int) -> Tensor:
        noise = SkyNoise(plane, 0, seed).normal((1, 64, 64))
        return filtered(noise, beam(grid, 22.5))[0]

    row, column = first.pixels(second.directions())
    inner = (row > 6) & (row < 57) & (column > 6) & (column < 57)
    inner[:6] = inner[-6:] = False
    inner[:, :6] = inner[:, -6:] = False
    grid_of = torch.from_numpy(np.stack([column, row], -1) / 63 * 2 - 1).float()[None]

    def correlation(seed: int) -> float:
        seen = torch.nn.functional.grid_sample(
            smooth(first, 0)[None, None], grid_of, mode="bicubic", align_corners=True
        )
        return float(np.corrcoef(seen[0, 0].numpy()[inner], smooth(second, seed).numpy()[inner])[0, 1])

    assert inner.sum() > 500
    assert correlation(0) > 0.96
    assert abs(correlation(1)) < 0.25


# Blending


@pytest.mark.parametrize("rho", [0.0, 0.6, 1.0])
def test_small_scales_keep_their_variance_whatever_patches_share(rho: float) -> None:
    """Patches of correlation rho: it is found, and overlaps are as rough as the middles of patches."""
    nside, n = 32, 16
    planes, rng = cover(n, 20.0), np.random.default_rng(0)
    common = rng.normal(size=(1, 12 * nside**2))
    blend = Blend(nside, channels=1)
    for plane in planes:
        # made at the map's pixels, so that no interpolation comes between
        pixels, w, _ = blend.placed([np.zeros((1, n, n))], plane)
        rest = math.sqrt(rho) * common[:, pixels] + math.sqrt(1 - rho) * rng.normal(size=(1, len(pixels)))
        blend.total[:, pixels] += w * (5 + rest)
        blend.small[:, pixels] += w * rest
        blend.power[:, pixels] += w * rest**2
        blend.weight[pixels] += w
        blend.squares[pixels] += w**2
    assert blend.agreement()[0] == pytest.approx(rho, abs=0.03)
    made, share = blend.map()[0], blend.squares / blend.weight**2
    for low, high in ((0, 0.4), (0.4, 0.6), (0.6, 0.9), (0.9, 1)):
        part = made[(share >= low) & (share < high)]
        assert part.std() == pytest.approx(1, abs=4 / math.sqrt(2 * len(part)))
        assert part.mean() == pytest.approx(5, abs=4 / math.sqrt(len(part)))


@pytest.mark.parametrize("ordering", ["RING", "NESTED"])
def test_a_polarised_sky_comes_back_through_the_patches_frames(ordering: str) -> None:
    """An emulator that adds nothing: Q and U of an analytic sky, turned into each frame and back."""
    sky = sky_of_e(vectors_of(32), 40, 12.0)
    if ordering == "NESTED":
        nested = np.empty_like(sky)
        nested[:, nested_of_ring(32)] = sky
        sky = nested
    planes = cover(32, 30.0)
    blend = Blend(32, ordering)
    for plane in planes:
        patch = cut(sky, ordering, plane)
        blend.add_scales(patch, np.zeros_like(patch), plane)
    back = blend.map()
    assert ((back - sky).std(1) / sky.std(1)).max() < 0.01
    plain = mosaic((cut(sky, ordering, p) for p in planes), planes, 32, ordering, progress=False)
    assert np.allclose(back, plain)


def test_small_scales_of_q_and_u_are_turned_back_too() -> None:
    """Patches that agree wholly are found to do so near the poles, where frames turn against each other."""
    sky = sky_of_e(vectors_of(32), 200, 8.0)
    planes = [p for p in cover(32, 20.0) if p.centre[2] > 0.9]
    blend, untouched = Blend(32), Blend(32)
    for plane in planes:
        patch = cut(sky, "RING", plane)
        blend.add_scales(patch, patch, plane)
        turned = np.stack([patch[0], -patch[1], -patch[2]])  # as if every other frame lay crosswise
        untouched.add_scales(patch, turned if planes.index(plane) % 2 else patch, plane)
    assert blend.agreement().min() > 0.97
    assert untouched.agreement()[1] < 0.6


# The sky


def inside(sky: SkyMap, radius: float) -> np.ndarray:
    return np.flatnonzero(vectors_of(sky.nside) @ CENTRE > math.cos(math.radians(radius)))


def test_overlaps_are_as_rough_as_the_patches_that_meet_there(folder: Path) -> None:
    """Variance of the sky's small scales over that of the patches' own at the same pixels, by overlap.

    Patches share their noise, so little is to be given back: rho is far from 0, and weighted means alone
    would have lost no more than what is seen here.
    """
    blend, inner = Kept.last, inside(read_sky(folder / "coarse.fits", 1), 6.0)
    weight, share = blend.weight[inner], (blend.squares[inner] / blend.weight[inner] ** 2)
    rho = blend.agreement()[0]
    assert rho > 0.7
    mean, own = blend.small[0, inner] / weight, blend.power[0, inner] / weight
    made = blend.map()[0, inner] - blend.total[0, inner] / weight + mean
    for low, high in ((0, 0.5), (0.5, 0.6), (0.6, 0.8), (0.8, 1)):
        part = (share >= low) & (share < high)
        assert part.sum() > 200
        assert (made[part] ** 2).sum() / own[part].sum() == pytest.approx(1, abs=0.06)
    assert (mean**2).sum() < own.sum(), "means alone are smoother, by what patches disagree"


def steps(sky: np.ndarray, pixels: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Squares of those of ln I from pixels to their neighbours."""
    return ((np.log(sky[around]) - np.log(sky[pixels])) ** 2).mean(0)


def test_seams_do_not_show(folder: Path) -> None:
    """Steps along the lines where patches end over those elsewhere: 1, and more if strangers are pasted.

    The floor is the coarse sky's own, which knows nothing of patches.
    """
    sky, made = (read_sky(folder / name, 1) for name in ("coarse.fits", "fine.fits"))
    inner = inside(sky, 6.0)
    vectors, ends = vectors_of(NSIDE)[inner], np.zeros(len(inner), dtype=bool)
    for plane in layout_of(folder, sky).planes:
        row, column = plane.pixels(vectors)
        depth = np.minimum.reduce([row, column, plane.n - 1 - row, plane.n - 1 - column])
        ends |= (vectors @ np.array(plane.centre) > 0.9) & (np.abs(depth) < 1)
    assert 200 < ends.sum() < 0.5 * len(ends)
    around = HEALPix(NSIDE, order="ring").neighbours(inner)
    floor, smooth, pasted = (
        steps(x, inner, around)[ends].mean() / steps(x, inner, around)[~ends].mean()
        for x in (sky.values[0], made.values[0], Kept.last.pasted[0])
    )
    assert smooth == pytest.approx(1, abs=max(0.05, 2 * abs(floor - 1)))
    assert pasted > smooth + 0.05


def test_large_scales_are_those_of_the_coarse_sky(folder: Path) -> None:
    """In a patch that is none of the cover's, under the wide beam, to 2 % of the fluctuations."""
    sky, made = (read_sky(folder / name, 1) for name in ("coarse.fits", "fine.fits"))
    plane = TangentPlane(tuple(CENTRE.tolist()), 72, 9.0)
    fine, coarse = (torch.from_numpy(cut(s.values, "RING", plane))[None] for s in (made, sky))
    toy = emulator()
    wide = filtered(fine, beam(Grid((72, 72), 9.0, "deg", periodic=False), toy.widening))
    deep = (..., slice(22, -22), slice(22, -22))
    off = (wide - coarse)[deep].square().mean().sqrt() / coarse[deep].std()
    assert off < 0.02
    assert (fine - coarse)[deep].std() > 0.05 * coarse[deep].std(), "there are small scales"


def test_the_header_tells_how_the_sky_was_made(folder: Path) -> None:
    with fits.open(folder / "fine.fits") as hdus:
        header: Any = hdus[1].header
    assert (header["ORDERING"], header["NSIDE"], header["COORDSYS"]) == ("RING", NSIDE, "G")
    assert (header["TUNIT1"], header["FWHM"], header["SEED"]) == ("uK_RJ", FINE, 1)
    assert header["PARAM1"] == "slope=-3" and len(header["SHA256"]) == 64
    assert header["CREATOR"].startswith("cosmozoo ") and '"seed": 1' in header["COSMOZOO"]
    sky, made = (read_sky(folder / name, 1) for name in ("coarse.fits", "fine.fits"))
    assert np.array_equal(sky.seen, made.seen), "unseen pixels stay unseen, seen ones are made"
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


class Interrupted(Exception):
    pass


def test_nested_skies_are_the_same_and_a_killed_run_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same disc, smaller, in both orders; the second run is killed in its second batch and goes on."""
    ring = read_sky(folder / "coarse.fits", 1)
    far = np.setdiff1d(np.arange(NPIX), inside(ring, 1.5))
    ring.values[:, far] = np.nan
    order = np.asarray(HEALPix(NSIDE, order="nested").nested_to_ring(np.arange(NPIX)))
    nested = replace(ring, values=ring.values[:, order], ordering="NESTED")
    for name, sky in (("ring", ring), ("nested", nested)):
        write_sky(tmp_path / f"{name}.fits", sky, {}, {})
    monkeypatch.setattr(SmallScales, "micro_batch", 3)
    first = apply_to_sky(folder / "toy", tmp_path / "ring.fits", TEXT, tmp_path / "a.fits")
    made, count = apply_sky.small_scales, []

    def killed(*given: Any) -> Tensor:
        count.append(1)
        if len(count) == 2:
            raise Interrupted
        return made(*given)

    monkeypatch.setattr(apply_sky, "small_scales", killed)
    told = (folder / "toy", tmp_path / "nested.fits", TEXT, tmp_path / "b.fits")
    with pytest.raises(Interrupted):
        apply_to_sky(*told)
    second = apply_to_sky(*told)
    batches = math.ceil(len(layout_of(folder, nested).planes) / 3)
    assert batches > 1 and len(count) == batches + 1, "the first batch was not made again"
    assert np.allclose(second.values, first.values[:, order], rtol=1e-5, equal_nan=True)
    assert read_sky(tmp_path / "b.fits", 1).ordering == "NESTED"


def layout_of(folder: Path, sky: SkyMap) -> apply_sky.Layout:
    toy = apply_sky.load(folder / "toy")
    assert isinstance(toy, SmallScales)
    return layout(toy, sky)


def test_small_scales_are_what_the_wide_beam_does_not_tell() -> None:
    toy = emulator()
    x = torch.arange(64) * 7.5 / 60
    long, short = (torch.sin(2 * math.pi * x / side).expand(1, 1, 64, 64) for side in (8.0, 0.8))
    deep = (..., slice(20, -20), slice(20, -20))
    assert small_scales(toy, 5 + long)[deep].abs().max() < 0.05
    assert (small_scales(toy, 5 + short) - short)[deep].abs().max() < 0.05


def test_gaps_are_filled_from_around_and_patches_in_the_dark_are_skipped() -> None:
    rows = np.arange(32.0)[:, None] + np.zeros((32, 32))
    patch = rows[None].copy()
    patch[0, 12:18, 12:18] = np.nan
    patch[0, :, 28:] = np.nan
    made = filled(patch, 2.0)
    assert np.isfinite(made).all() and np.abs(made - rows)[0].max() < 4
    assert np.array_equal(made[np.isfinite(patch)], patch[np.isfinite(patch)])
    seen = vectors_of(32) @ CENTRE > math.cos(math.radians(3.0))
    planes = cover(16, 20.0)
    found = seeing(planes, seen, "RING")
    assert 1 <= len(found) <= 9 and len(seeing(planes, np.ones_like(seen), "RING")) == len(planes)
    for plane in planes:
        row, column = plane.pixels(vectors_of(32)[seen])
        ahead = CENTRE @ np.array(plane.centre) > 0.9
        holds = ahead and ((row > 0) & (row < 15) & (column > 0) & (column < 15)).any()
        assert holds == (plane in found)


# From the command line


def told(folder: Path, coarse: Path, out: Path, *more: str) -> list[str]:
    return ["apply", str(folder / "toy"), "--coarse", str(coarse), "--params", TEXT, "-o", str(out), *more]


def test_the_verb_knows_a_sky_by_its_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_sky(folder / "coarse.fits") and not is_sky(folder / "toy" / "config.json")
    sky = read_sky(folder / "coarse.fits", 1)
    sky.values[:, np.setdiff1d(np.arange(NPIX), inside(sky, 0.4))] = np.nan
    write_sky(tmp_path / "dot.fits", sky, {}, {})
    out = tmp_path / "fine.fits"
    assert main(told(folder, tmp_path / "dot.fits", out, "--processes", "1")) == 0
    said = capsys.readouterr()
    assert f"a sky of nside {NSIDE} in {out}" in said.out
    assert read_sky(out, 1).seen.sum() == sky.seen.sum() > 0


UNIT = {"TUNIT1": "'K_CMB   '"}


def flat(nside: int = NSIDE) -> np.ndarray:
    return np.full(12 * nside**2, 3.0)


def with_nan() -> np.ndarray:
    sky = flat()
    sky[17] = np.nan
    return sky


@pytest.mark.parametrize(
    ("sky", "cards", "more", "words"),
    [
        (with_nan(), {}, (), "1 values that are not finite; mark unseen pixels by"),
        (flat(), {"TUNIT1": "'        '"}, (), "states no unit of its column 1; set TUNIT1"),
        (flat(), {"ORDERING": "'SPIRAL  '"}, (), "ORDERING = SPIRAL, which must be RING or NESTED"),
        (flat(128), {}, (), "pixels of 27.5 arcmin, larger than the fine beam of 20"),
        (flat(128), {}, (), "give the coarse sky at nside 256 or more"),
        (flat() * 0 - 1.6375e30, {}, (), "unseen"),
        (flat(), {}, ("--shape", "8,8"), "made at its own nside"),
        (flat(), {}, ("--params", "slope=-9"), "slope"),
        (flat(), {"INDXSCHM": "'EXPLICIT'"}, (), "part of the sky"),
    ],
)
def test_wrong_skies_get_one_sentence(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sky: np.ndarray,
    cards: dict[str, str],
    more: tuple[str, ...],
    words: str,
) -> None:
    write_map(tmp_path / "coarse.fits", {"I_STOKES": sky}, **{**UNIT, **cards})
    assert main(told(folder, tmp_path / "coarse.fits", tmp_path / "x.fits", "--processes", "1", *more)) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["coarse.fits"]


def test_skies_of_polarisation_say_their_convention_and_outputs_are_fits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = np.random.default_rng(0).normal(size=(3, 768))
    columns = dict(zip(("I", "Q", "U"), small, strict=True))
    with pytest.raises(InputError, match="no POLCCONV, so the sign of U is not known"):
        read_sky(write_map(tmp_path / "a.fits", columns, TUNIT2="'K_CMB   '"), 3)
    with pytest.raises(InputError, match="must be in one unit"):
        read_sky(write_map(tmp_path / "b.fits", columns, TUNIT2="'uK_CMB  '"), 3)
    iau = read_sky(write_map(tmp_path / "c.fits", columns, POLCCONV="'IAU     '"), 3)
    assert np.allclose(iau.values, small * np.array([1, 1, -1])[:, None], rtol=1e-6)
    write_sky(tmp_path / "back.fits", iau, {}, {})
    with fits.open(tmp_path / "back.fits") as hdus:
        table: Any = hdus[1].data
    assert np.allclose(np.ravel(table["U_STOKES"]), small[2], rtol=1e-6), "written as it was read"
    with pytest.raises(InputError, match=r"has 1 column\(s\), but the emulator takes 3"):
        read_sky(write_map(tmp_path / "d.fits", {"I": small[0]}), 3)
    with fits.open(tmp_path / "a.fits") as hdus:
        other = hdus[1].copy()
        other.header["ORDERING"] = "NESTED"
        fits.HDUList([fits.PrimaryHDU(), hdus[1].copy(), other]).writeto(tmp_path / "two.fits")
    with pytest.raises(InputError, match="tables in NEST and RING order"):
        read_sky(tmp_path / "two.fits", 1)
    assert main(told(folder, folder / "coarse.fits", tmp_path / "x.h5")) == 2
    assert "-o must end in .fits" in capsys.readouterr().err
    assert main(told(folder, folder / "coarse.fits", folder / "fine.fits")) == 2
    assert "give --overwrite" in capsys.readouterr().err


def test_the_beams_of_the_toy_are_those_of_the_tests(folder: Path) -> None:
    toy = apply_sky.load(folder / "toy")
    assert isinstance(toy, SmallScales)
    assert (toy.arguments["fine_beam"], toy.arguments["coarse_beam"]) == (FINE, COARSE)
