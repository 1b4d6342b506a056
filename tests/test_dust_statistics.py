"""Statistics of I, Q and U: Gaussian skies of given spectra, angles in order and at random, areas, beams."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from report_fields import INTERIOR, file_of, thresholds
from scipy import stats
from torch import Tensor

from evaluation.base import Sample, measure
from evaluation.battery import STOKES, battery
from evaluation.compare import compare
from evaluation.cosmologies import cosmologies
from evaluation.dust import AngleDispersion, DustSpectra
from evaluation.evaluate import evaluate
from evaluation.large_scales import judged, large_scale_columns, smoothed
from evaluation.overlap import overlap
from evaluation.paired import Pairing, judge_pairs
from evaluation.polarisation import Polarisation, mode_angle
from evaluation.power import PowerSpectrum
from evaluation.report import report
from evaluation.stokes import polarisation_angle, polarisation_fraction
from evaluation.thresholds import LargeScales
from evaluation.verdict import pair_demands
from gen.errors import InputError
from gen.fields import FWHM, Grid, beam_sigma

SKY = Grid((48, 48), 8.0, "deg", periodic=True)
EE, BB, TE, R_TE = range(4)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sky(grid: Grid, n: int, seed: int, r: float = 0.36, b_over_e: float = 0.5) -> Tensor:
    """``(n, 3, *shape)`` Gaussian T, E, B of C_l = 1/l, 1/l and b_over_e / l, r_TE = r, as I, Q, U."""
    k = grid.wavenumber()
    k[0, 0] = torch.inf
    cell = math.prod(s / m for s, m in zip(grid.k_sides, grid.shape, strict=True))
    root = (1 / k).sqrt() / math.sqrt(cell)
    white = torch.randn(3, n, *grid.shape, generator=drawn(seed), dtype=torch.float64)
    t, x, b = torch.fft.rfft2(white) * root
    e = r * t + math.sqrt(1 - r**2) * x
    b = math.sqrt(b_over_e) * b
    cos, sin = mode_angle(grid)
    cos2, sin2 = cos**2 - sin**2, 2 * cos * sin
    found = (t, cos2 * e - sin2 * b, sin2 * e + cos2 * b)
    return torch.stack([torch.fft.irfft2(y, s=grid.shape) for y in found], dim=1)


def test_gaussian_skies_have_the_spectra_they_were_drawn_from():
    statistic = DustSpectra(Polarisation(SKY))
    n = 200
    found = statistic(sky(SKY, n, 1)).numpy()[:, :, :-1]  # Nyquist's modes have no direction
    spectrum = statistic.polarisation.spectrum
    k = SKY.wavenumber().numpy().ravel()
    shells = [(k >= low) & (k < high) & (k > 0) for low, high in pairwise(spectrum.edges)]
    inverse = np.array([(1 / k[shell]).mean() for shell in shells])[:-1]
    for i, c in ((EE, 1.0), (BB, 0.5), (TE, 0.36)):
        pull = (found[:, i].mean(0) - c * inverse) / (found[:, i].std(0) / math.sqrt(n))
        assert np.abs(pull[2:]).max() < 4, (
            i
        )  # half of a plane of the lattice is counted twice: a little off below
    # the scatter of single maps, and their bias
    r = found[:, R_TE]
    modes = np.asarray(spectrum.n_modes)[:-1]
    error = (1 - 0.36**2) / np.sqrt(modes * n)
    bias = 0.36 * (1 - 0.36**2) / (2 * modes)
    assert (np.abs(r.mean(0) - 0.36 + bias) < 4 * error + 0.2 / modes**2).all()
    np.testing.assert_allclose(r.std(0)[3:], (1 - 0.36**2) / np.sqrt(modes[3:]), rtol=0.25)


def test_a_tapered_patch_keeps_r_and_the_ratio_of_e_to_b():
    """Cut out of a larger sky; where l is well above the taper's width leakage is small."""
    large = Grid((128, 128), 16.0, "deg", periodic=True)
    patch = sky(large, 60, 2)[..., :64, :64]
    grid = Grid((64, 64), 8.0, "deg", periodic=False)
    found = DustSpectra(Polarisation(grid, apodise=0.25))(patch).mean(0).numpy()[:, 8:-1]
    assert found[BB].sum() / found[EE].sum() == pytest.approx(0.5, abs=0.05)
    assert found[R_TE].mean() == pytest.approx(0.36, abs=0.03)


def test_polarised_intensity_and_fraction_of_gaussian_q_and_u_are_rayleighs():
    grid = Grid((32, 32), 4.0, "deg", periodic=False)
    x = 0.5 * torch.randn(80, 3, 32, 32, generator=drawn(3), dtype=torch.float64)
    x[:, 0] = 4.0
    m = thresholds().measurement
    pdf, v0, *_ = found = battery(["polarised_pdf", "polarised_minkowski"], grid, x, m)
    assert [s.name for s in found] == ["pdf_P", "V0_P", "V1_P", "V2_P"]
    rayleigh = stats.rayleigh(scale=0.5)
    measured = measure(found, Sample(x))
    width = pdf.abscissa[1] - pdf.abscissa[0]
    expected = (rayleigh.cdf(pdf.abscissa + width / 2) - rayleigh.cdf(pdf.abscissa - width / 2)) / width
    error = np.sqrt(expected / width / x[:, 0].numel())
    assert (np.abs(measured["pdf_P"].vectors.mean(0) - expected) < 4.5 * error).all()
    pixels = np.hypot(*x[:, 1:].transpose(0, 1).numpy())
    nu = pixels.mean() + pixels.std() * v0.abscissa
    np.testing.assert_allclose(measured["V0_P"].vectors.mean(0), rayleigh.sf(nu), atol=0.01)
    (fraction,) = battery(["polarisation_fraction"], grid, x, m)
    p = stats.rayleigh(scale=0.5 / 4)
    step = fraction.abscissa[1] - fraction.abscissa[0]
    expected = (p.cdf(fraction.abscissa + step / 2) - p.cdf(fraction.abscissa - step / 2)) / step
    error = np.sqrt(expected / step / x[:, 0].numel())
    assert (np.abs(fraction(x).mean(0).numpy() - expected) < 4.5 * error).all()
    x[:, 0, :16] = -1.0  # p has no meaning where I is not positive
    assert (fraction(x).sum(1) * step).mean() == pytest.approx(0.5, abs=0.01)
    assert polarisation_fraction(x)[:, 0, :16].eq(-1).all()


def test_angles_turn_with_the_sky():
    x = torch.randn(40, 3, 32, 32, generator=drawn(4), dtype=torch.float64)
    grid = Grid((32, 32), 4.0, "deg", periodic=False)
    (angle,) = battery(["polarisation_angle"], grid, x, thresholds().measurement)
    found = angle(x).numpy()
    np.testing.assert_allclose(found.sum(1) * 15, 1)
    assert np.abs(found.mean(0) * 180 - 1).max() < 4.5 * math.sqrt(12 / x[:, 0].numel())
    # all at 40 degrees, then turned by 60: 100 is -80
    psi = math.radians(40.0)
    ordered = torch.tensor([1.0, math.cos(2 * psi), math.sin(2 * psi)]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    torch.testing.assert_close(polarisation_angle(ordered), torch.full((1, 1, 4, 4), 40.0))
    turn = 2 * math.radians(60.0)
    q, u = ordered[:, 1], ordered[:, 2]
    turned = torch.stack(
        [q, q * math.cos(turn) - u * math.sin(turn), q * math.sin(turn) + u * math.cos(turn)], 1
    )
    torch.testing.assert_close(polarisation_angle(turned), torch.full((1, 1, 4, 4), -80.0))
    ends = torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, -0.0]]).reshape(2, 3, 1, 1)
    assert (polarisation_angle(ends) == -90).all(), "both ends are one direction"


@pytest.mark.parametrize("periodic", [True, False])
def test_dispersion_of_random_ordered_and_turning_angles(periodic):
    """52 degrees, none, and of psi = a x exactly a times the root mean square of the steps along x."""
    grid = Grid((32, 32), 4.0, "deg", periodic)
    dispersion = AngleDispersion(grid, 0.375)  # three cells: steps from 1.5 to 4.5
    side = 32 if periodic else 32 - 2 * 4
    psi = torch.rand(20, 32, 32, generator=drawn(5), dtype=torch.float64) * math.pi
    turning = (
        2 * math.pi / 32 * torch.arange(32.0, dtype=torch.float64)[:, None].expand(32, 32)
    )  # a full turn

    def stokes(angle: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(angle), torch.cos(2 * angle), torch.sin(2 * angle)], dim=-3)

    s = dispersion(stokes(psi))
    assert s.shape == (20, 1, side, side)
    assert s.square().mean().sqrt() == pytest.approx(180 / math.sqrt(12), rel=0.005)
    assert dispersion(stokes(0 * psi)).abs().max() < 1e-10
    steps = [(i, j) for i in range(-4, 5) for j in range(-4, 5) if 1.5 <= math.hypot(i, j) < 4.5]
    assert sorted(dispersion.steps) == sorted(steps)
    expected = math.degrees(2 * math.pi / 32) * math.sqrt(np.mean([i**2 for i, _ in steps]))
    torch.testing.assert_close(
        dispersion(stokes(turning)[None]), torch.full((1, 1, side, side), expected, dtype=torch.float64)
    )
    with pytest.raises(InputError, match="no annulus"):
        AngleDispersion(grid, 0.01)


def test_two_shifted_normal_laws_share_twice_the_tail():
    rng = np.random.default_rng(6)
    shifts = np.array([0.0, 0.5, 1.0, 2.0, 4.0])
    n = 4000
    a, b = rng.normal(size=(n, 5)), rng.normal(size=(n, 5)) + shifts
    blurred = math.hypot(1, 1.06 * n**-0.2)
    expected = 2 * stats.norm.cdf(-shifts / (2 * blurred))
    np.testing.assert_allclose(overlap(a, b), expected, atol=0.02)
    np.testing.assert_allclose(overlap(a, a), 1)
    # of different widths: twice as wide, the area is that between the two crossings
    cross = math.sqrt(2 * math.log(2) / (1 - 1 / 4))
    shared = 2 * (stats.norm.sf(cross) + stats.norm.cdf(cross / 2) - 0.5)
    assert overlap(a[:, :1], 2 * a[:, 1:2])[0] == pytest.approx(shared, abs=0.03)
    constant = np.ones((5, 1))
    assert overlap(constant, constant)[0] == 1 and overlap(constant, 2 * constant)[0] == 0


@pytest.mark.parametrize("periodic", [True, False])
def test_a_beam_damps_a_wave_as_its_transform_says(periodic):
    grid = Grid((64, 64), 8.0, "deg", periodic)
    i = torch.arange(64, dtype=torch.float64) + 0.5
    wave = torch.cos(math.pi * 4 * i / 64).expand(64, 64)[None, None]  # smooth at mirrored edges as well
    sigma = 80 / 60 / FWHM
    damped = math.exp(-((2 * math.pi * 2 / 8.0 * sigma) ** 2) / 2)
    torch.testing.assert_close(smoothed(grid, wave, 80.0), damped * wave)
    with pytest.raises(InputError, match="narrower than the fields"):
        smoothed(grid, wave, 600.0)


def test_large_scales_that_are_kept_or_not():
    """Small scales cost nothing; 3 % of gain in one of three channels costs 0.03 / sqrt(3), and is missed."""
    grid = Grid((64, 64), 8.0, "deg", periodic=False)
    points = [INTERIOR]
    file = file_of(grid, points, 24, 1, per_box=2)
    values = sky(replace_periodic(grid), 24, 7).float()
    true = replace(file, values=values)
    i = torch.arange(64.0)
    small = values + 0.3 * values.std() * torch.cos(math.pi * (i + 0.5) * 40 / 64)
    louder = values.clone()
    louder[:, 0] *= 1.03
    sets = {"fine": replace(true, values=small), "louder": replace(true, values=louder), "same": true}
    t = thresholds(large_scales=LargeScales(80.0, 0.01))
    rows = {r.samples: r for r in judge_pairs(sets, true, ["interior"], beam=80.0)}
    seen = smoothed(grid, values[:, :1], 80.0)
    size = seen[(..., *judged(grid, 80.0))].square().mean(), seen.var((1, 2, 3), correction=0).mean()
    assert rows["same"].large_scales == 0 and rows["fine"].large_scales < 1e-4
    offset = 0.03 * float(size[0] / size[1] / 3) ** 0.5
    assert rows["louder"].large_scales == pytest.approx(offset, rel=0.02)
    states = {d.samples: d.state for d in pair_demands(list(rows.values()), t)}
    assert states == {"fine": "met", "louder": "missed", "same": "met"}
    assert not pair_demands(list(rows.values()), thresholds())
    # spectra are of I: T is the gain
    assert rows["louder"].transfer == pytest.approx(1.03, rel=1e-4)


def continued(x: Tensor) -> Tensor:
    """``(..., n, m)`` and its mirror images, periodic ``(..., 2 n, 2 m)``."""
    x = torch.cat([x, x.flip(-2)], dim=-2)
    return torch.cat([x, x.flip(-1)], dim=-1)


def test_the_border_whose_surroundings_no_one_knows_is_not_judged():
    """Patches cut from skies of twice the side, and fields that keep what 80 arcmin show of whole skies.

    Across all of a patch they are wrong by a fifth of the scatter, since the true sky beyond its edges is not
    its mirror image; where they are judged, by less than a hundredth.
    """
    whole = Grid((128, 128), 16.0, "deg", periodic=True)
    patch = Grid((64, 64), 8.0, "deg", periodic=False)
    cut = (..., slice(32, 96), slice(32, 96))
    maps = sky(whole, 24, 20)
    true, coarse = maps[cut], smoothed(whole, maps, 80.0)[cut]
    seen = smoothed(patch, true, 80.0)
    scatter = (seen - seen.mean((2, 3), keepdim=True)).square().mean().sqrt()
    told = coarse - seen  # of what lies beyond the edges
    beam = torch.exp(-((whole.wavenumber() * beam_sigma(whole, 80.0)) ** 2) / 2)
    undone = torch.fft.irfft2(torch.fft.rfft2(continued(told)) * beam / (beam**2 + 0.04**2))
    made = true + undone[..., :64, :64]

    def error(x: Tensor) -> float:
        wrong, size = (y.mean() for y in large_scale_columns(patch, x, true, 80.0).chunk(2, dim=1))
        return float((wrong / size).sqrt())

    def over_all(x: Tensor) -> float:
        return float(x.square().mean().sqrt() / scatter)

    assert over_all(told) > 0.2 and over_all(told[(..., *judged(patch, 80.0))]) < 0.002
    kept = smoothed(patch, made, 80.0)
    assert over_all(kept - coarse) < 0.05, "to the very edge"
    assert over_all(kept - seen) > 0.2
    assert error(made) < 0.01
    made[..., 28:36, 28:36] += 0.3 * true.std()
    assert error(made) > 0.03, "what is wrong in the middle counts"


def test_what_is_judged_lies_within_open_edges():
    """2.5 standard deviations of 80 arcmin are 85 arcmin: of 8 deg 5.1 are left, of 3 the middle quarter."""
    patch = Grid((128, 128), 8.0, "deg", periodic=False)
    assert judged(patch, 80.0) == (slice(23, 105),) * 2
    assert judged(Grid((60, 120), (8.0, 3.0), "deg", periodic=False), 80.0) == (slice(11, 49), slice(45, 75))
    assert judged(replace_periodic(patch), 80.0) == (slice(None),) * 2
    box = Grid((32, 32, 32), 64.0, "Mpc/h", periodic=False)
    assert judged(box, 2 * FWHM) == (slice(3, 29),) * 3


def replace_periodic(grid: Grid) -> Grid:
    return replace(grid, periodic=True)


def test_round_off_beyond_the_beam_is_not_judged():
    """Skies of one law, smoothed by 12 arcmin; the made ones have noise of a millionth of their scatter."""
    grid = Grid((64, 64), 2.4, "deg", periodic=True)
    reference, made = (smoothed(grid, sky(grid, 32, seed), 12.0) for seed in (15, 16))
    made += 1e-6 * made.std((0, 2, 3), keepdim=True) * torch.randn(made.shape, generator=drawn(17))
    whole = thresholds().measurement
    ended = replace(whole, beam=12.0)
    excess, k_max = {}, {}
    for m in (whole, ended):
        statistics = battery(["power", "spectra"], grid, reference, m)
        assert [s.name for s in statistics] == ["power", "EE", "BB", "TE", "r_TE"]
        found = [compare(s, Sample(reference), Sample(made), n_permutations=50) for s in statistics]
        excess[m], k_max[m] = [c.excess for c in found], [c.abscissa.max() for c in found]
    assert min(excess[whole]) > 5 and max(excess[whole]) > 1e6
    assert max(excess[ended]) < 1.5
    assert min(k_max[whole]) > 0.97 * grid.k_nyquist > 2.5 * ended.k_max(grid)
    assert max(k_max[ended]) < ended.k_max(grid) < max(k_max[ended]) + 1.5 * grid.k_fundamental


def test_the_page_and_the_joint_tests_take_fewer_bins(tmp_path):
    grid = Grid((32, 32), 2.0, "deg", periodic=False)
    law = replace_periodic(grid)
    reference = replace(file_of(grid, [INTERIOR], 24, 1, per_box=2), values=sky(law, 24, 18).float())
    made = replace(file_of(grid, [INTERIOR], 24, 2), values=sky(law, 24, 19).float())
    t = thresholds(statistics=("power", "peaks", "spectra"), excess={})
    quick = {"n_bootstrap": 50, "n_permutations": 50, "n_splits": 20, "classifier_steps": 1}
    t = replace(t, measurement=replace(t.measurement, **quick, beam=20.0))
    d = report({"net": made}, reference, t, tmp_path, provenance={}, paired=Pairing())
    k_max = t.measurement.k_max(grid)
    n = np.count_nonzero(PowerSpectrum(grid).edges[1:] <= k_max)
    assert 2 <= n < 8, "fewer bins than are joined for a covariance"
    assert d["field"]["k_max"] == pytest.approx(k_max) and k_max < 0.5 * grid.k_nyquist
    (c,) = d["cosmologies"]
    assert c["power_error"]["net"]["n_bins"] == n
    lengths = [len(c["statistics"][s]["net"]["abscissa"]) for s in ("power", "EE", "BB", "TE", "r_TE")]
    assert lengths == [n] * 5
    assert len(d["paired"][0]["k"]) == len(d["paired"][0]["transfer"]) == n
    tested = {j["test"]: j["p"] for j in d["joint"] if "power" in j["test"]}
    assert tested and None not in tested.values()


def test_what_takes_one_field_takes_the_intensity():
    grid = Grid((32, 32), 4.0, "deg", periodic=False)
    x = sky(replace_periodic(grid), 12, 8)
    m = thresholds().measurement
    names = ["power", "pdf", "minkowski", "peaks", "moments"]
    alone = measure(battery(names, grid, x[:, :1], m), Sample(x[:, :1]))
    of_three = measure(battery(names, grid, x, m), Sample(x))
    assert list(alone) == list(of_three)
    for name, found in alone.items():
        np.testing.assert_array_equal(found.vectors, of_three[name].vectors)
    assert battery([*names, *STOKES], grid, x[:, :1], m)[-1].name == "moments", "of I alone there is no P"
    assert {"EE", "BB", "TE", "r_TE"} <= {s.name for s in battery(["power", "spectra"], grid, x, m)}
    with pytest.raises(InputError, match="one channel, or of the three Stokes parameters I, Q and U, got 2"):
        battery(names, grid, x[:, :2], m)


def test_polarisation_at_random_is_seen_by_what_is_of_polarisation():
    """The same law; and the same law of I with other Q and U, which statistics of I do not show."""
    grid = Grid((24, 24), 6.0, "deg", periodic=False)
    law = replace_periodic(grid)
    reference = replace(file_of(grid, [INTERIOR], 32, 1, per_box=2), values=sky(law, 32, 9).float())
    same = replace(file_of(grid, [INTERIOR], 32, 2), values=sky(law, 32, 10).float())
    random = sky(law, 32, 11, r=0.0, b_over_e=1.0).float()
    wrong = replace(same, values=torch.cat([sky(law, 32, 12)[:, :1].float(), 1.5 * random[:, 1:]], dim=1))
    t = thresholds(statistics=("power", "pdf", "minkowski", *STOKES), excess={})
    t = replace(t, measurement=replace(t.measurement, n_bootstrap=60, n_permutations=60, n_splits=20))
    files = {"same": same, "wrong": wrong}
    (e,) = evaluate(cosmologies(files, reference), list(files), grid, t, seed=0)
    excess = {name: {s: c.excess for s, c in of.items()} for name, of in e.comparisons.items()}
    for name in ("EE", "BB", "pdf_P", "V0_P"):
        assert excess["wrong"][name] > 2.5 > excess["same"][name], name
    assert max(excess["wrong"][s] for s in ("power", "pdf", "V0")) < 2.5
    shared = {name: (x.overlap, x.real_overlap) for name, x in e.literature.items()}
    assert shared["wrong"][0] < shared["same"][0] - 0.1
    assert shared["same"][0] == pytest.approx(shared["same"][1], abs=0.1)
    assert e.cosmology.reference.values.shape[1] == 1, "what is judged of fields later on is I"


def test_the_page_of_stokes_parameters(tmp_path):
    grid = Grid((16, 16), 4.0, "deg", periodic=False)
    law = replace_periodic(grid)
    reference = replace(file_of(grid, [INTERIOR], 16, 1, per_box=2), values=sky(law, 16, 13).float())
    made = replace(file_of(grid, [INTERIOR], 16, 2), values=sky(law, 16, 14).float())
    t = thresholds(statistics=("power", "polarised_pdf"), large_scales=LargeScales(80.0, 0.01), excess={})
    quick = replace(t.measurement, n_bootstrap=50, n_permutations=50, n_splits=20, classifier_steps=1)
    t = replace(t, measurement=quick)
    d = report({"net": made}, reference, t, tmp_path, provenance={}, paired=Pairing())
    (demand,) = (x for x in d["demands"] if not x["letter"])
    assert demand["quantity"] == "large scales" and demand["state"] == "missed"
    assert demand["value"] == pytest.approx(math.sqrt(2), rel=0.3), "fields of no relation"
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Its large scales are wrong by" in html and "Krachmalnicoff" in html
    with pytest.raises(InputError, match="give both of I alone, or both of I, Q and U"):
        report({"net": replace(made, values=made.values[:, :1])}, reference, t, tmp_path, provenance={})
