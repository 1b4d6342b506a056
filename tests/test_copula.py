"""The copula field: its laws against closed forms in 2D and 3D, periodic and not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gen.emulators.copula import Copula, correlation_function
from gen.emulators.sharpened import powers_at_nodes
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import normal, sample_generator

NONE = ParameterSpace((), (), ())


@dataclass
class Set:
    """What ``fit`` reads of a simulation set."""

    values: Tensor
    params: Tensor
    name: str = "a set"


def lognormal(grid: Grid, n: int, seed: int, s: float = 0.5) -> Tensor:
    """exp(s g) - mean on a torus, g of unit variance and spectrum exp(-(k/k0)^2)."""
    white = normal([sample_generator(seed, i) for i in range(n)], grid.shape)
    axes = tuple(range(1, white.ndim))
    power = torch.exp(-((grid.wavenumber() / (6 * grid.k_fundamental)) ** 2)).float()
    g = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * power.sqrt(), s=grid.shape, dim=axes)
    g = g / g.std()
    return (torch.exp(s * g) - torch.exp(torch.tensor(s**2 / 2)))[:, None]


def spectrum(values: Tensor, grid: Grid) -> Tensor:
    axes = tuple(range(2, values.ndim))
    power = torch.fft.rfftn(values, dim=axes).abs().square().mean((0, 1))
    shell = (grid.wavenumber() / grid.k_fundamental).round().long()
    return torch.stack([power[shell == i].mean() for i in range(1, 11)])


@pytest.mark.parametrize(
    "grid", [Grid((32, 32), 100.0, "Mpc/h", True), Grid((24, 24, 24), 100.0, "Mpc/h", True)]
)
def test_power_and_pdf_of_a_lognormal_come_back(grid: Grid) -> None:
    """A lognormal field *is* a copula field, so its laws must be recovered."""
    n = 400 if grid.dim == 2 else 64
    truth = lognormal(grid, n, seed=0)
    emulator = Copula(grid, NONE)
    emulator.fit(Set(truth, torch.zeros(n, 0)))
    made = emulator.sample({}, n=n, seed=1).values
    # Shell i holds some 2 pi i or 4 pi i^2 modes per map: the first ratio is uncertain to 3.5 %.
    ratio = spectrum(made, grid) / spectrum(truth, grid)
    assert (ratio - 1).abs().max() < 0.12
    assert (ratio - 1).abs().mean() < 0.05
    assert made.std().item() == pytest.approx(truth.std().item(), rel=0.03)
    skewness = [(((x - x.mean()) ** 3).mean() / x.std() ** 3).item() for x in (made, truth)]
    assert skewness[0] == pytest.approx(skewness[1], rel=0.1)


@pytest.mark.parametrize("fixed", [True, False])
def test_means_of_periodic_boxes_scatter_as_theirs_do(fixed: bool) -> None:
    """Boxes of one mass have one mean, and the longest waves their power; waves would make it 0.09."""
    grid = Grid((32, 32), 100.0, "Mpc/h", True)
    truth = lognormal(grid, 1600, seed=5, s=0.05)
    if fixed:
        truth = truth - truth.mean((2, 3), keepdim=True)
    emulator = Copula(grid, NONE)
    emulator.fit(Set(truth, torch.zeros(len(truth), 0)))
    made = emulator.sample({}, n=1600, seed=1).values
    scatter = (made.mean((2, 3)).std() / made.std()).item()
    assert scatter == pytest.approx((truth.mean((2, 3)).std() / truth.std()).item(), rel=0.1, abs=5e-3)
    # Of four waves in each of 1,600 boxes; counting the mean among them would leave 0.83.
    assert (spectrum(made, grid) / spectrum(truth, grid))[0].item() == pytest.approx(1, abs=0.08)


def test_fields_of_many_decades_by_their_logarithm() -> None:
    """exp(4 g): sixteen decades. Of ln the spectrum and all quantiles come back; they do not without."""
    grid = Grid((24, 24, 24), 100.0, "Mpc/h", True)
    truth = (lognormal(grid, 32, seed=0) + torch.exp(torch.tensor(0.125))) ** 8
    levels = torch.tensor([1e-3, 0.1, 0.5, 0.9, 0.999])
    want = torch.quantile(truth.log().flatten(), levels)
    off = {}
    for logarithmic in (True, False):
        emulator = Copula(grid, NONE, logarithmic=logarithmic)
        emulator.fit(Set(truth, torch.zeros(32, 0)))
        made = emulator.sample({}, n=32, seed=1).values
        off[logarithmic] = (torch.quantile(made.abs().log().flatten(), levels) - want).abs().max()
        if logarithmic:
            logs = [x.log() - x.log().mean() for x in (made, truth)]
            ratio = spectrum(logs[0], grid) / spectrum(logs[1], grid)
            assert (ratio - 1).abs().mean() < 0.05
    # ln has a scatter of 4: the outer quantiles of 32 boxes are uncertain to some per cent of it
    assert off[True] < 0.4 < off[False]
    with pytest.raises(InputError, match="copula of logarithms needs positive values"):
        Copula(grid, NONE, logarithmic=True).fit(Set(truth - 1, torch.zeros(32, 0)))


def test_no_rows_of_parameters_are_no_fields() -> None:
    with pytest.raises(InputError, match="params has no rows; give one at least"):
        Copula(Grid((8, 8), 1.0, "deg", False), NONE).sample(torch.zeros(0, 0))


def test_of_logarithms_a_few_empty_cells_count_as_the_least_that_are_not() -> None:
    """Four of half a million, each in another box; the law, the spectrum and the scores are as without."""
    grid = Grid((24, 24, 24), 100.0, "Mpc/h", True)
    truth = lognormal(grid, 32, seed=0) + torch.exp(torch.tensor(0.125))
    emptied = truth.clone()
    for i in range(4):
        emptied[i].view(-1)[truth[i].argmin()] = 0
    laws = Copula(grid, NONE, logarithmic=True), Copula(grid, NONE, logarithmic=True)
    for emulator, values in zip(laws, (truth, emptied), strict=True):
        emulator.fit(Set(values, torch.zeros(32, 0)))
    whole, few = (emulator.sample({}, n=4, seed=1).values for emulator in laws)
    assert (few / whole - 1).abs().max() < 0.02
    scores = laws[1].marginal.inverse(emptied, torch.zeros(32, 0))
    assert (
        torch.isfinite(scores).all() and scores[0].min() == scores[0].flatten().topk(2, largest=False)[0][1]
    )
    emptied[:, :, :2] = 0
    with pytest.raises(InputError, match=r"cells empty, got values down to 0 and 0\.083 of all cells"):
        Copula(grid, NONE, logarithmic=True).fit(Set(emptied, torch.zeros(32, 0)))


def test_gaussian_field_has_the_inverted_correlation() -> None:
    """For exp(s g), 1 + xi = exp(s^2 rho_g): the fitted P_G must be that of g, not of the field."""
    grid = Grid((32, 32), 100.0, "Mpc/h", True)
    truth = lognormal(grid, 600, seed=0, s=0.8)
    emulator = Copula(grid, NONE)
    emulator.fit(Set(truth, torch.zeros(600, 0)))
    white = emulator.white([sample_generator(5, i) for i in range(600)])
    g = emulator.gaussian(torch.zeros(600, 0), white)
    assert g.std().item() == pytest.approx(1.0, abs=0.02)
    measured, expected = spectrum(g, grid), torch.exp(-((torch.arange(1, 11) / 6.0) ** 2))
    ratio = measured / expected
    assert (ratio[:8] / ratio[:8].mean() - 1).abs().max() < 0.15


def test_a_cut_field_is_not_periodic_and_keeps_its_correlation() -> None:
    """Patches cut from larger tori: neighbouring cells correlate, opposite edges do not, means fluctuate."""
    torus = Grid((96, 96), 300.0, "Mpc/h", True)
    patch = Grid((32, 32), 100.0, "Mpc/h", False)
    white = normal([sample_generator(0, i) for i in range(500)], torus.shape)
    smooth = torch.exp(-((torus.wavenumber() / (12 * torus.k_fundamental)) ** 2)).float().sqrt()
    g = torch.fft.irfft2(torch.fft.rfft2(white) * smooth, s=torus.shape)
    values = (g / g.std())[:, None, :32, :32]
    emulator = Copula(patch, NONE)
    emulator.fit(Set(values, torch.zeros(500, 0)))
    made = emulator.sample({}, n=500, seed=3).values
    for x in (values, made):
        across = (x[..., 0] * x[..., -1]).mean() / x.var()
        assert abs(across) < 0.08
    beside = [((x[..., :-1] * x[..., 1:]).mean() / x.var()).item() for x in (values, made)]
    assert beside[1] == pytest.approx(beside[0], abs=0.01)
    means = [x.mean((1, 2, 3)).std().item() for x in (values, made)]
    assert means[1] == pytest.approx(means[0], rel=0.2)


def test_of_a_steep_open_field_the_weakest_power_is_settled() -> None:
    """Through the correlation function, beside waves 10^5 times as strong, it comes out a third of it."""
    grid, whole = Grid((32, 32), 8.0, "deg", False), Grid((64, 64), 16.0, "deg", True)
    white = normal([sample_generator(9, i) for i in range(256)], whole.shape)
    k = (whole.wavenumber() / whole.k_fundamental).float()
    amplitude = torch.where(k > 0, k.clamp(min=1) ** -1.7 * torch.exp(-((k / 16) ** 2)), 0.0)
    g = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=whole.shape)[:, None, :32, :32]
    data = Set(g / g.std(), torch.zeros(256, 0))

    def error(*, settled: bool) -> float:
        """Largest of ln of power at nodes where the field has more than 5 10^-6 of its strongest."""
        emulator = Copula(grid, NONE, settled=settled)
        emulator.fit(data)
        fields = (emulator.sample({}, n=256, seed=1).values, data.values)
        ours, theirs = (powers_at_nodes(emulator, x).mean(0) for x in fields)
        return float((ours / theirs).log()[theirs > 5e-6 * theirs.max()].abs().max())

    assert error(settled=True) < 0.2 < 0.8 < error(settled=False)


def test_correlation_function_counts_pairs() -> None:
    """White noise: variance at lag 0 and nothing else, cut or periodic, and against a direct sum."""
    x = normal([sample_generator(0, i) for i in range(50)], (1, 8, 8))
    direct = (x[..., :-2, :] * x[..., 2:, :]).mean()
    assert correlation_function(x, periodic=False)[2, 0].item() == pytest.approx(direct.item(), abs=1e-6)
    wrapped = (x * x.roll(3, -1)).mean()
    assert correlation_function(x, periodic=True)[0, 3].item() == pytest.approx(wrapped.item(), abs=1e-6)


def test_conditional_amplitude_is_interpolated() -> None:
    """Fields scaled by the parameter: the emulator at an unseen value has the unseen amplitude."""
    grid = Grid((16, 16), 50.0, "Mpc/h", True)
    space = ParameterSpace(("amplitude",), (1.0,), (3.0,))
    a = torch.linspace(1, 3, 13)
    values = torch.cat([x * lognormal(grid, 60, seed=i) for i, x in enumerate(a)])
    emulator = Copula(grid, space)
    emulator.fit(Set(values, a.repeat_interleave(60)[:, None]))
    stds = [emulator.sample({"amplitude": x}, n=200, seed=2).values.std().item() for x in (1.37, 2.6)]
    assert stds[1] / stds[0] == pytest.approx(2.6 / 1.37, rel=0.05)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_what_is_found_once_for_equal_parameters_is_the_same_bits(logarithmic: bool) -> None:
    """A field is a function of its noise and parameters, whatever the others of its batch are."""
    grid, space = Grid((16, 16), 100.0, "Mpc/h", True), ParameterSpace(("Omega_m",), (0.2,), (0.4,))
    values = lognormal(grid, 48, seed=2) + 2
    emulator = Copula(grid, space, degree=1, logarithmic=logarithmic)
    emulator.fit(Set(values, torch.linspace(0.2, 0.4, 48)[:, None]))
    alike = torch.full((8, 1), 0.3)
    mixed = torch.cat([alike[:-1], torch.tensor([[0.35]])])
    one, other = (emulator.generate(p, [sample_generator(0, i) for i in range(8)]) for p in (alike, mixed))
    assert torch.equal(one[:-1], other[:-1])
    assert not torch.equal(one[-1], other[-1])


def test_refuses_fields_of_another_shape() -> None:
    emulator = Copula(Grid((16, 16), 50.0, "Mpc/h", True), NONE)
    with pytest.raises(InputError, match=r"one channel of \(16, 16\) cells, got \(1, 8, 8\)"):
        emulator.fit(Set(torch.zeros(4, 1, 8, 8), torch.zeros(4, 0)))
