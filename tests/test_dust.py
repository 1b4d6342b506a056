"""Synthetic dust against closed forms: signs of Q and U, E of aligned waves, spectra, beams; recipes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.polarisation import Polarisation
from gen.data.simulated import Simulated
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import normal, sample_generator
from gen.simulate.beam import between, binned, smoothed
from gen.simulate.dust import Dust, lognormal, solenoidal, stokes, wave_lattice
from gen.simulate.recipe import parse_recipe, read_recipe
from gen.simulate.run import load_simulations, simulate

N, DEPTH = 48, 24
PERIODIC = Grid((N, N), 3.0, "deg", periodic=True)
PATCH = Grid((N, N), 3.0, "deg", periodic=False)
KOLMOGOROV = -11 / 3


def noise(box: tuple[int, ...], seed: int = 0, n: int = 1) -> Tensor:
    return normal([sample_generator(seed, i, "test") for i in range(n)], box)


def field_along(angle: float, tilt: float = 0.0) -> Tensor:
    """A uniform field ``(1, 3, 8, 8, 4)`` at that angle from axis 0 to axis 1, and to the plane [deg]."""
    a, t = math.radians(angle), math.radians(tilt)
    b = torch.tensor([math.cos(t) * math.cos(a), math.cos(t) * math.sin(a), math.sin(t)])
    return b[None, :, None, None, None].expand(1, 3, 8, 8, 4)


# Signs and units of the line-of-sight integral


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 90.0, 160.0])
def test_a_uniform_field_gives_q_and_u_across_it(angle: float) -> None:
    density = 2 * torch.ones(1, 8, 8, 4)
    i, q, u = stokes(density, field_along(angle), 0.2)[0].flatten(1).T[0].tolist()
    across = math.radians(angle + 90)
    assert i == pytest.approx(2 * (1 - 0.2 / 3))
    assert q == pytest.approx(2 * 0.2 * math.cos(2 * across), abs=1e-6)
    assert u == pytest.approx(2 * 0.2 * math.sin(2 * across), abs=1e-6)
    iau = stokes(density, field_along(angle), 0.2, "IAU")[0].flatten(1).T[0].tolist()
    assert iau == pytest.approx([i, q, -u])


def test_a_field_along_the_sight_does_not_polarise_and_tilts_go_as_cos_squared() -> None:
    i, q, u = stokes(torch.ones(1, 8, 8, 4), field_along(0, 90), 0.2)[0].flatten(1).T[0].tolist()
    assert i == pytest.approx(1 + 2 * 0.2 / 3) and abs(q) < 1e-6 and abs(u) < 1e-6
    q = stokes(torch.ones(1, 8, 8, 4), field_along(0, 60), 0.2)[0, 1, 0, 0].item()
    assert q == pytest.approx(-0.2 / 4)


@pytest.mark.parametrize(("turn", "sign"), [(90, 1.0), (0, -1.0)])
@pytest.mark.parametrize("convention", ["COSMO", "IAU"])
def test_waves_across_the_field_are_positive_te_and_no_b(turn: int, sign: float, convention: Any) -> None:
    """Density waves at 90 degrees to the field, structures along it, have E = +; waves along it E = -."""
    n, m = 32, (2, 3)
    x, y = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    density = 1 + 0.1 * torch.cos(2 * math.pi * (m[0] * x + m[1] * y) / n)
    wave = math.degrees(math.atan2(m[1], m[0]))
    b = field_along(wave + turn)[..., :1, :1, :1].expand(1, 3, n, n, 1)
    iqu = stokes(density[None, :, :, None], b, 0.2, convention)
    grid = Grid((n, n), 1.0, "deg", periodic=True)
    tt, ee, bb, te, eb, tb = Polarisation(grid, convention=convention)(iqu.double())[0].sum(-1).tolist()
    assert te == pytest.approx(sign * math.sqrt(tt * ee), rel=1e-4)
    assert max(abs(bb), abs(eb), abs(tb)) < 1e-6 * tt
    iqu = stokes(density[None, :, :, None], field_along(wave + 45)[..., :1, :1, :1].expand(b.shape), 0.2)
    tt, ee, bb, *_ = Polarisation(grid)(iqu.double())[0].sum(-1).tolist()
    assert ee < 1e-6 * bb, "waves at 45 degrees to the field are B"


# Density and field


@pytest.mark.parametrize("lam", [0.0, 3.0])
def test_density_has_the_spectrum_that_it_says(lam: float) -> None:
    box, slope, width = (32, 32, 16), -3.0, 0.7
    waves, mean = wave_lattice(box), torch.tensor([0.6, 0.0, 0.8])
    density = torch.cat([lognormal(noise(box, s), waves, slope, lam, mean, width) for s in range(24)])
    g = (density.log() + width**2 / 2).double() / width
    assert g.var().item() == pytest.approx(1, abs=0.15)
    assert density.mean().item() == pytest.approx(1, abs=0.1)
    power = torch.fft.rfftn(g, dim=(1, 2, 3)).abs().square().mean(0)
    mu2 = torch.einsum("i,ixyz->xyz", mean, waves.k).square() / waves.square.clamp(min=1e-9)
    model = waves.square.double().clamp(min=1e-9) ** (slope / 2) * torch.exp(-lam * mu2)
    ratio = (power / model)[waves.held]
    k, mu2 = waves.square.sqrt()[waves.held], mu2[waves.held]
    for part in (k < k.median(), k >= k.median(), mu2 < 0.3, mu2 > 0.7):
        # modes are drawn with a scatter of 1 each: 24 boxes of some thousand modes
        assert (ratio[part].mean() / ratio.mean()).item() == pytest.approx(1, abs=0.05)


def test_the_field_has_no_divergence_and_its_length() -> None:
    box = (32, 24, 16)
    waves = wave_lattice(box)
    fields = torch.stack([solenoidal(noise(box, s, 3), waves, -3.0, 0.4) for s in range(24)])
    modes = torch.fft.rfftn(fields.double(), dim=(2, 3, 4))
    divergence = (waves.k * modes).sum(1)
    assert divergence.abs().max() < 1e-5 * modes.abs().max()
    assert fields.square().sum(1).mean().sqrt().item() == pytest.approx(0.4, rel=0.03)
    assert (fields.square().mean((0, 2, 3, 4)) / 0.16).tolist() == pytest.approx([1 / 3] * 3, rel=0.2)


def skies(seeds: int, **params: float) -> Tensor:
    source = Dust(depth=DEPTH)
    wanted = {"slope": KOLMOGOROV, "lam": 0.0, "f_M": 0.5} | params
    return torch.cat([source.sky(wanted, (N, N), seed) for seed in range(seeds)])


def te_and_bb(iqu: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """r_TE and ln(BB/EE), each with its error, from the scatter of whole patches."""
    statistic = Polarisation(PERIODIC)
    spectra = statistic(iqu.double())[..., 1:16]
    weight = torch.as_tensor(statistic.spectrum.n_modes)[1:16].double()
    tt, ee, bb, te = spectra[:, :4].unbind(1)
    r = (te / (tt * ee).sqrt()) @ weight / weight.sum()
    ratio = (bb / ee).log() @ weight / weight.sum()
    out = [(x.mean().item(), x.std().item() / math.sqrt(len(x))) for x in (r, ratio)]
    return out[0], out[1]


def test_without_alignment_te_is_zero_and_bb_is_ee() -> None:
    (r, r_error), (ratio, ratio_error) = te_and_bb(skies(40))
    assert r_error < 0.03 and abs(r) < 3 * r_error
    assert ratio_error < 0.04 and abs(ratio) < 3 * ratio_error


def test_alignment_makes_te_positive_and_bb_small() -> None:
    (weak, weak_error), _ = te_and_bb(skies(24, lam=1.5))
    (strong, strong_error), (ratio, ratio_error) = te_and_bb(skies(24, lam=6.0, f_M=0.3))
    assert weak > 4 * weak_error and strong > weak + 4 * math.hypot(weak_error, strong_error)
    assert 0.5 < strong < 0.9 and ratio < -5 * ratio_error and ratio < math.log(0.8)


@pytest.mark.parametrize("slope", [KOLMOGOROV, -2.8])
def test_projected_spectra_keep_the_slope(slope: float) -> None:
    """The mean along a periodic sight holds the waves across it alone: a weak density keeps its slope."""
    source = Dust(width=0.1, depth=8)
    iqu = torch.cat([source.sky({"slope": slope, "lam": 0, "f_M": 0.05}, (N, N), s) for s in range(24)])
    statistic = Polarisation(PERIODIC)
    tt = statistic(iqu.double())[:, 0, 1:16].mean(0).log()
    ell = torch.as_tensor(np.asarray(statistic.spectrum.abscissa))[1:16].log()
    fitted = np.polyfit(ell.numpy(), tt.numpy(), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.12)


def test_the_polarisation_fraction_is_about_a_tenth() -> None:
    for f_m, lowest, highest in ((0.3, 0.12, 0.16), (0.9, 0.05, 0.10)):
        i, q, u = skies(8, lam=2.0, f_M=f_m).mean((2, 3)).T
        p = (torch.hypot(q, u) / i).mean().item()
        assert lowest < p < highest, "a tangled field depolarises"


# Beams and patches


def test_the_beam_is_a_gaussian_of_its_width() -> None:
    point = torch.zeros(1, 64, 64, dtype=torch.float64)
    point[0, 32, 32] = 1
    seen = smoothed(point, 3.75, 30.0)[0]
    assert seen.sum().item() == pytest.approx(1)
    assert (seen[32, 36] / seen[32, 32]).item() == pytest.approx(0.5), "15 arcmin off, half of the peak"
    twice = smoothed(smoothed(point, 3.75, 30.0), 3.75, between(30.0, 50.0))
    assert torch.allclose(twice, smoothed(point, 3.75, 50.0), atol=1e-12)


def test_patches_are_cut_after_smoothing_and_are_not_periodic() -> None:
    source, params = Dust(depth=8, coarse_beam=40.0), {"slope": -3.0, "lam": 2.0, "f_M": 0.5}
    made = source.fields(params, PATCH, 5)
    assert source.box(PATCH) == (72, 72)
    sky = source.sky(params, (72, 72), 5)
    fine, coarse = (smoothed(sky, 3.75, beam)[..., :N, :N] for beam in (12.0, 40.0))
    assert torch.allclose(made.values, fine, atol=1e-5)
    assert made.coarse is not None and torch.allclose(made.coarse, coarse, atol=1e-5)
    step = made.coarse.diff(dim=-1).abs().mean()
    assert (made.coarse[..., 0] - made.coarse[..., -1]).abs().mean() > 5 * step
    whole = source.fields(params, PERIODIC, 5).coarse
    assert (
        whole is not None
        and (whole[..., 0] - whole[..., -1]).abs().mean() < 2 * whole.diff(dim=-1).abs().mean()
    )


def test_intensity_alone_is_the_first_channel_and_coarse_pixels_are_means() -> None:
    params = {"slope": -3.0, "lam": 2.0, "f_M": 0.5}
    three = Dust(depth=8, coarse_beam=60.0).fields(params, PATCH, 1)
    one = Dust("I", depth=8, coarse_beam=60.0, coarse_factor=4).fields(params, PATCH, 1)
    assert three.coarse is not None and one.coarse is not None
    assert torch.allclose(one.values, three.values[:, :1], atol=1e-5)
    assert one.coarse.shape == (1, 1, N // 4, N // 4)
    assert torch.allclose(one.coarse, binned(three.coarse[:, :1], 4))
    assert one.coarse[0, 0, 1, 2].item() == pytest.approx(
        three.coarse[0, 0, 4:8, 8:12].mean().item(), rel=1e-5
    )


def test_a_seed_is_a_sky_and_a_parameter_moves_it() -> None:
    params = {"slope": -3.0, "lam": 2.0, "f_M": 0.5}
    source = Dust(depth=8, coarse_beam=40.0)
    first = source.fields(params, PATCH, 1).values
    assert torch.equal(first, source.fields(params, PATCH, 1).values)
    assert not torch.equal(first, source.fields(params, PATCH, 2).values)
    near = source.fields({**params, "f_M": 0.51}, PATCH, 1).values
    assert 0 < (near - first).abs().max() < 0.1 * first.std()


# Recipes

CONTENT: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "grid": {"shape": [32, 32], "box_size": 2.0, "unit": "deg", "periodic": False},
    "space": {"names": ["slope", "lam", "f_M"], "low": [-3.8, 0, 0.2], "high": [-2.8, 6, 0.8]},
    "dust": {"depth": 4, "coarse_beam": 40.0},
    "training": {"cosmologies": 3, "boxes": 1, "validation": 3},
    "test": [{"region": "interior", "slope": -3.2, "lam": 2.0, "f_M": 0.4, "boxes": 2}],
}


def test_a_recipe_is_simulated_and_read_back(tmp_path: Path) -> None:
    recipe = parse_recipe(CONTENT)
    assert parse_recipe(recipe.to_dict()) == recipe
    data = load_simulations(simulate(recipe, tmp_path, 1, progress=False)).check()
    assert data.space.names == ("slope", "lam", "f_M")
    assert data.values.shape == (5, 3, 32, 32) and data.coarse is not None and data.coarse_grid == data.grid
    assert data.params[-1].tolist() == pytest.approx([-3.2, 2.0, 0.4])
    s = recipe.plan()[-1]
    made = Dust(depth=4, coarse_beam=40.0).fields(
        dict(zip(data.space.names, s.params, strict=True)), data.grid, s.seed
    )
    assert torch.equal(data.values[-1:], made.values)


def test_a_rehearsal_takes_seconds(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(str(CONTENT))
    data = Simulated(tmp_path / "small.yaml", cache=tmp_path / "none").rehearse()
    assert data.values.shape[1:] == (3, 32, 32) and "stand-ins" in data.name
    assert set(data.split) == {"train", "validation"}


def test_tests_of_cosmologies_are_written_as_before(root: Path) -> None:
    """What a recipe is known by in a cache: its content, parameters by name."""
    (first, *_) = read_recipe(root / "recipes/data/convergence_2d.yaml").to_dict()["test"]
    assert first == {"region": "interior", "Omega_m": 0.3, "sigma_8": 0.8, "boxes": 48, "maps": 16}
    (first, *_) = read_recipe(root / "recipes/data/hi_3d.yaml").to_dict()["test"]
    assert first == {"region": "interior", "Omega_m": 0.3, "sigma_8": 0.8, "z": 3.0, "boxes": 48, "maps": 1}


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("space", {"names": ["Omega_m", "lam", "f_M"]}, r"space must be \['slope', 'lam', 'f_M'\], got"),
        ("space", {"low": [-7, 0, 0.2]}, "slope must lie in -5 to -2, got -7"),
        ("dust", {"coarse_beam": 10.0}, "fine beam must be narrower"),
        ("dust", {"coarse_beam": 80.0}, "box must be larger than a patch by the coarse beam of 80 arcmin"),
        ("dust", {"stokes": "QU"}, "stokes must be I or IQU"),
        ("dust", {"convention": "healpix"}, "convention COSMO or IAU"),
        ("dust", {"coarse_factor": 5}, "coarse_factor divide"),
        ("dust", {"inclination": 100.0}, "inclination in 0 to 90 degrees"),
        ("grid", {"unit": "Mpc/h"}, "flat patch of sky"),
        ("grid", {"box_size": [2.0, 4.0]}, "square pixels"),
        ("training", {"maps": 2}, "maps must be 1"),
    ],
)
def test_wrong_recipes_are_refused_in_a_sentence(key: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_recipe(CONTENT | {key: CONTENT[key] | change})
    assert "\n" not in str(caught.value)


def test_tests_need_every_parameter_by_name() -> None:
    test = CONTENT["test"][0]
    for changed, words in (
        ({k: v for k, v in test.items() if k != "lam"}, "lacks lam"),
        (test | {"sigma_8": 0.8}, "unknown key 'sigma_8'"),
        (test | {"f_M": "much"}, "f_M must be float"),
        (test | {"z": 1.0}, "no parameter z; add it"),
        (test | {"lam": 20.0}, "lam must lie in 0 to 10"),
    ):
        with pytest.raises(InputError, match=words):
            parse_recipe(CONTENT | {"test": [changed]})
