"""A latent space is walked on its sphere, shown on one scale, and judged by numbers with closed forms."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import skew, ttest_ind

from evaluation.course import Course, FieldNumbers
from evaluation.plots import Row, Scale, Sheet, Sweep, Track, latent_sheet
from evaluation.plots.sheets import DPI, TILE
from gen.checkpoint import save
from gen.cli import main
from gen.commands.latent_walk import Explored, Walk, middle_planes
from gen.emulators.base import Emulator
from gen.emulators.copula import Copula
from gen.emulators.copula_gan import CopulaGAN
from gen.emulators.latent import (
    ARITHMETIC,
    fields_of,
    great_circle,
    latent_space,
    straight_line,
)
from gen.emulators.latent_gan import LatentGAN
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
THETA = torch.tensor([[0.3, 0.8]], dtype=torch.float64)
FLAT = Grid((16, 16), 1.0, "deg", False)
BOX = Grid((8, 8, 8), 50.0, "Mpc/h", True)
SMALL: dict[str, tuple[type[Emulator], dict[str, Any]]] = {
    "copula": (Copula, {}),
    "vector": (LatentGAN, {"latent_size": 8, "channels": (8, 8), "critic_channels": (8, 8)}),
    "student_t": (
        LatentGAN,
        {"latent_size": 8, "channels": (8, 8), "critic_channels": (8, 8), "latent": "student_t",
         "condition": "norm"},
    ),
    "residual": (CopulaGAN, {"widths": (4, 8), "critic_channels": (4, 8), "margin": 4}),
}  # fmt: skip
CASES = [(name, grid) for name in SMALL for grid in (FLAT, BOX)]


def make(name: str, grid: Grid) -> Emulator:
    """An emulator with random weights, so that no path is switched off by a zero."""
    torch.manual_seed(0)
    family, arguments = SMALL[name]
    emulator = family(grid, SPACE, **arguments)
    with torch.no_grad():
        for parameter in emulator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        for buffer_name, buffer in emulator.named_buffers():
            if buffer_name.endswith("coefficients"):
                buffer.add_(0.03 * torch.randn(buffer.shape))
    return emulator.eval()


def gaussian() -> tuple[Copula, float]:
    """White Gaussian noise on a periodic map: an unfitted copula, and its standard deviation."""
    emulator = Copula(Grid((16, 16), 1.0, "deg", True), ParameterSpace((), (), ()))
    return emulator, 1 / emulator.marginal.step


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return [sample_generator(seed, i) for i in range(n)]


# The latent space


def test_weights_are_those_of_the_sphere_and_of_the_chord() -> None:
    circle, line = great_circle(9), straight_line(9)
    t = np.linspace(0, 1, 9)
    assert np.allclose(circle.numpy(), np.stack([np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)], 1))
    assert torch.allclose(circle.norm(dim=1), torch.ones(9, dtype=torch.float64))
    assert torch.allclose(line.sum(1), torch.ones(9, dtype=torch.float64))
    assert line[4].norm() == pytest.approx(math.sqrt(0.5))
    assert ARITHMETIC.norm() == pytest.approx(1)
    assert (ARITHMETIC / ARITHMETIC[0]).tolist() == [1, -1, 1]


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_the_latent_is_what_sample_makes_its_fields_of(name: str, grid: Grid) -> None:
    emulator = make(name, grid)
    sampled = emulator.sample(THETA, n=3, seed=5).values
    made = fields_of(emulator, latent_space(emulator).white_latent(generators(3, seed=5)), THETA)
    # equal but for the order in which a convolution adds up in batches of another size
    assert torch.allclose(made, sampled, atol=1e-4 * float(sampled.std()), rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_latents_and_their_mixtures_have_unit_variance_and_no_correlation(name: str) -> None:
    space = latent_space(make(name, FLAT))
    white = space.white_latent(generators(2000)).double()[:, :8]
    halfway = great_circle(3)[1]
    mixed = halfway[0] * white[:1000] + halfway[1] * white[1000:]
    for x, kurtosis in ((white, 9.0), (mixed, 6.0)):
        # the fourth moment is 3 of a Gaussian, 9 of Student's t with nu = 5, (9 + 3) / 2 of half and half
        error = math.sqrt(((kurtosis if name == "student_t" else 3.0) - 1) / len(x))
        covariance = x.T @ x / len(x)
        assert (covariance - torch.eye(8)).abs().max() < 5 * error
        assert x.mean(0).abs().max() < 5 / math.sqrt(len(x))


def test_the_same_latent_at_other_parameters_is_the_same_noise() -> None:
    emulator = make("student_t", FLAT)
    assert isinstance(emulator, LatentGAN)
    white = emulator.white_latent(generators(1))
    low, high = (emulator._encoded(white, THETA.float() * scale) for scale in (0.9, 1.1))
    for block in (slice(0, 4), slice(4, 8)):
        assert torch.allclose(low[0, block] / low[0, block].norm(), high[0, block] / high[0, block].norm())
        assert low[0, block].norm() < high[0, block].norm()


def test_what_has_no_latent_space_is_told_so() -> None:
    class Constant(Emulator):
        def generate(
            self,
            params: torch.Tensor,
            generators: Sequence[torch.Generator],
            coarse: Any = None,
            shape: Any = None,
        ) -> torch.Tensor:
            return params.new_zeros(len(params), 1, *self.grid.shape)

        def to_config(self) -> dict[str, Any]:
            return self._base_config()  # fmt: skip

    with pytest.raises(InputError, match="Constant has no latent space of independent numbers"):
        latent_space(Constant(FLAT, SPACE))


# Walks


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_paths_join_and_sweeps_repeat_the_fields_of_sample(name: str, grid: Grid) -> None:
    emulator, numbers = make(name, grid), FieldNumbers(grid)
    found = Explored.of(Walk(emulator, THETA, 3, numbers), paths=8, steps=3, shown=(2, 1))
    ends = emulator.sample(THETA, n=16, seed=3).values
    slack = {"atol": 1e-4 * float(ends.std()), "rtol": 0}
    for i, planes in enumerate(found.paths.planes):
        assert np.allclose(planes[[0, -1]], middle_planes(ends[2 * i : 2 * i + 2]), **slack)
    for values in (found.circle.values, found.line.values):
        assert np.allclose(values[:, [0, -1]].reshape(16, -1), numbers(ends), rtol=1e-3)
    for i, sweep in enumerate(found.sweeps):
        table = THETA.repeat(3, 1)
        table[:, i] = torch.tensor([SPACE.low[i], THETA[0, i].item(), SPACE.high[i]])
        assert np.allclose(sweep.values, table[:, i])
        fields = torch.cat([emulator.sample(row[None], seed=3).values for row in table])
        assert np.allclose(sweep.planes, middle_planes(fields), **slack)
        assert np.allclose(sweep.numbers, numbers(fields), rtol=1e-3)


def test_a_gaussian_field_keeps_its_closed_form_on_the_sphere_and_halves_it_on_the_chord() -> None:
    """Of N cells, std has scatter sigma / sqrt(2 N), a band of n modes P sqrt(2/n): all errors are known."""
    emulator, sigma = gaussian()
    numbers, n = FieldNumbers(emulator.grid), 64
    found = Explored.of(Walk(emulator, torch.zeros(1, 0), 0, numbers), paths=n, steps=5, shown=(1, 1))
    cells, modes = emulator.grid.n_cells, numbers.power.n_modes
    power = sigma**2 * math.prod(emulator.grid.k_sides) / cells
    expected = np.array([sigma * math.sqrt(1 - 1 / cells), 0, *[power] * 3])
    scatter = np.array([sigma / math.sqrt(2 * cells), math.sqrt(6 / cells), *(power * np.sqrt(2 / modes))])
    # five numbers at five steps, and draws: 4.5 errors keep the chance of any beyond below 1e-3
    draws = found.sums.draws
    assert (np.abs(draws.mean(0) - expected) < 4.5 * scatter / math.sqrt(3 * n)).all()
    assert (np.abs(found.circle.values.mean(0) - expected) < 4.5 * scatter / math.sqrt(n)).all()
    t = np.linspace(0, 1, 5)
    variance = (1 - t) ** 2 + t**2
    factor = np.stack([np.sqrt(variance), np.ones(5), *[variance] * 3], 1)
    off = np.abs(found.line.values.mean(0) - expected * factor)
    assert (off < 4.5 * factor * scatter / math.sqrt(n)).all()
    assert found.line.shift[0] == pytest.approx((math.sqrt(0.5) - 1) * math.sqrt(2 * cells), rel=0.25)
    assert found.line.verdict == "differs"
    assert found.circle.verdict == "consistent at this n"


def test_arithmetic_of_a_linear_map_is_arithmetic_of_its_fields() -> None:
    emulator, sigma = gaussian()
    n = 64
    sums = Walk(emulator, torch.zeros(1, 0), 1, FieldNumbers(emulator.grid)).sums(n, shown=n)
    for a, b, c, sum_ in sums.planes:
        assert np.allclose(sum_, (a - b + c) / math.sqrt(3), atol=1e-4 * sigma)
    # a chance correlation of two maps of N cells has scatter 1/sqrt(N), here of each with the two others
    error = math.sqrt(1 / 256 / n)
    assert (np.abs(sums.correlation.mean(0) - [0.5774, -0.5774, 0.5774]) < 4.5 * error).all()
    assert abs(sums.unrelated.mean()) < 4.5 * error


def test_three_dimensional_fields_show_their_middle_slice() -> None:
    fields = torch.arange(2 * 3 * 4 * 5 * 6.0).reshape(2, 3, 4, 5, 6)
    assert np.array_equal(middle_planes(fields), fields[:, 0, :, :, 3].numpy())
    assert np.array_equal(middle_planes(fields[..., 0]), fields[:, 0, :, :, 0].numpy())


# Numbers and their judgement


@pytest.mark.parametrize("grid", [Grid((12, 16), (2.0, 3.0), "deg", True), BOX])
def test_numbers_are_those_of_slow_independent_code(grid: Grid) -> None:
    x = torch.randn(3, 1, *grid.shape, generator=torch.Generator().manual_seed(0)).double().exp()
    numbers = FieldNumbers(grid)
    found = numbers(x)
    k = grid.wavenumber(half=False).numpy()
    for field, row in zip(x[:, 0].numpy(), found, strict=True):
        assert row[:2] == pytest.approx([field.std(), skew(field, None)], rel=1e-9)
        power = np.abs(np.fft.fftn(field)) ** 2 * math.prod(grid.k_sides) / grid.n_cells**2
        for (low, high), value in zip(numbers.bands, row[2:], strict=True):
            assert value == pytest.approx(power[(k >= low) & (k < high) & (k > 0)].mean(), rel=1e-9)
    assert len(numbers.to_list()) == len(numbers) == found.shape[1] == 5
    assert numbers.bands[-1][1] == pytest.approx(grid.k_nyquist)


def test_the_middle_is_judged_as_by_welch() -> None:
    rng = np.random.default_rng(0)
    values, draws = rng.normal(size=(40, 5, 1)), rng.normal(0.3, 2, size=(90, 1))
    course = Course.of(values, draws)
    welch = ttest_ind(values[:, 2, 0], draws[:, 0], equal_var=False)
    assert course.p == pytest.approx(welch.pvalue, rel=1e-6)
    assert course.shift[0] / course.error[0] == pytest.approx(welch.statistic, rel=1e-9)
    assert course.shift[0] == pytest.approx((values[:, 2].mean() - draws.mean()) / draws.std(ddof=1))
    assert course.mean(0)[:, 1] == pytest.approx(
        [values[:, 1].mean(), values[:, 1].std(ddof=1) / math.sqrt(40)]
    )


def test_p_values_of_equal_laws_are_uniform() -> None:
    n = 200
    rng = np.random.default_rng(1)
    p = [Course.of(rng.normal(size=(16, 3, 5)), rng.normal(size=(48, 5))).p for _ in range(n)]
    for level in (0.1, 0.5, 0.9):  # binomial scatter, 4 standard deviations
        assert abs(np.mean(np.array(p) < level) - level) < 4 * math.sqrt(level * (1 - level) / n)


def test_a_course_without_a_middle_is_refused() -> None:
    with pytest.raises(InputError, match="odd number of steps to have a middle, got 4"):
        Course.of(np.zeros((9, 4, 2)), np.zeros((9, 2)))


# The sheet


def test_the_sheet_shows_every_plane_on_one_scale() -> None:
    """Constant planes: each level of the scale covers as many pixels as its tiles have."""
    level = {v: np.full((8, 8), v) for v in (0.0, 0.25, 1.0, 7.0)}
    ones = np.ones((2, 3))
    track = Track("std", "std", (1.0, 0.1), np.ones((1, 3)), ones, ones, ("", ""))
    sheet = Sheet(
        "t", ("", "", "", "", ""), [Row("a", [level[0.0], level[0.25], level[1.0]])], [track], ("", ""),
        [Row("", [level[0.25], None, level[0.25]], ["x", "", "y"])],
        [Sweep(Row("p", [level[0.25], level[7.0]]), np.array([0.0, 1.0]), {"s": np.array([0.5, 1.0])}, "p")],
        Scale(0.0, 1.0, log=False), "delta",
    )  # fmt: skip
    data = latent_sheet(sheet)
    assert data == latent_sheet(sheet)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3)
    side = TILE * DPI
    for value, tiles in ((0.25, 4), (1.0, 2)):  # 7 is beyond the scale and drawn as its end
        colour = np.round(255 * np.array(matplotlib.colormaps["inferno"](value)[:3]))
        count = (np.abs(pixels - colour).max(1) <= 1).sum()
        # a tile's rim lies between pixels; the colour bar has each colour once
        assert abs(count - tiles * side**2) < tiles * 4 * side + 400


# The command line


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save(make("vector", FLAT), folder, "# tiny\n")
    return folder


def explore(checkpoint: Path, out: Path, *more: str) -> int:
    few = ("--pairs", "1", "--steps", "3", "--paths", "8")
    return main(["explore", str(checkpoint), "-o", str(out), *few, *more])


def test_a_sheet_and_its_numbers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    assert explore(checkpoint, out, "--params", "Omega_m=0.2,sigma_8=0.9", "--seed", "4") == 0
    told = capsys.readouterr().out
    document = json.loads(out.with_suffix(".json").read_text())
    assert out.read_bytes().startswith(b"\x89PNG")
    assert document["params"] == {"Omega_m": 0.2, "sigma_8": 0.9}
    assert document["checkpoint_sha256"] == json.loads((checkpoint / "config.json").read_text())["sha256"]
    assert (document["seed"], document["latent_size"], document["draws"]["n"]) == (4, 8, 24)
    fields = make("vector", FLAT).sample({"Omega_m": 0.2, "sigma_8": 0.9}, n=2, seed=4).values
    shown = np.array(document["paths"]["shown"])
    assert shown.shape == (1, 3, 5)
    assert shown[0, [0, 2], 0] == pytest.approx(fields.flatten(1).std(1, correction=0).numpy(), rel=1e-3)
    middle = document["paths"]["great_circle"]["middle"]
    assert f"{middle['shift'][0]:+.2f} ± {middle['error'][0]:.2f}".replace("-", "−") in told
    assert f"great circles: {middle['verdict']}" in told
    assert set(document["sweeps"]) == {"Omega_m", "sigma_8"}

    before = out.read_bytes(), out.with_suffix(".json").read_bytes()
    assert explore(checkpoint, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out.read_bytes(), out.with_suffix(".json").read_bytes()) == before
    assert explore(checkpoint, out, "--overwrite") == 0
    assert json.loads(out.with_suffix(".json").read_text())["params"] == pytest.approx(
        {"Omega_m": 0.3, "sigma_8": 0.8}
    )


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("a.pdf", [], "must end in .png"),
        ("a.png", ["--steps", "4"], "--steps must be odd, so that a path has a middle, and 3 to 33, got 4"),
        ("a.png", ["--pairs", "0"], "--pairs must be 1 to 24"),
        ("a.png", ["--paths", "7"], "--paths must be at least 8"),
        ("a.png", ["--pairs", "12"], "--paths must be at least 12"),
        ("a.png", ["--params", "Omega_m=0.3"], "must be Omega_m, sigma_8"),
        ("a.png", ["--params", "Omega_m=0.7,sigma_8=0.8"], "--extrapolate"),
        ("a.png", ["--params", "TABLE"], "one set of parameters, got 2 rows"),
    ],
)
def test_requests_that_do_not_fit(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    more: list[str],
    said: str,
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("Omega_m,sigma_8\n0.2,0.7\n0.4,0.9\n")
    assert explore(checkpoint, tmp_path / name, *(str(table) if m == "TABLE" else m for m in more)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == [table]
