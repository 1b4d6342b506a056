"""``cosmozoo posterior``: of a Gaussian prior its samples are the Wiener posterior's, however seen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gen.checkpoint import load, save
from gen.cli import main
from gen.emulators.copula import Copula
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.fields import Grid, ParameterSpace
from gen.io import read_fields

SPACE = ParameterSpace(("Omega_m",), (0.2,), (0.4,))
GRID = Grid((16, 16), 32.0, "arcmin", periodic=True)
CELL = 2.0  # arcmin
SCATTER, MEAN, NOISE = 0.02, 0.005, 0.01
THETA = ("--params", "Omega_m=0.3")
N = 16


def gaussian(steps: int) -> CopulaDiffusion:
    """Untrained, so its scores are those of a Gaussian field; and values are linear in scores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CopulaDiffusion(GRID, SPACE, degree=0, widths=(4,), steps=steps)
    copula, theta = made.copula, torch.tensor([[0.25], [0.35]], dtype=torch.float64)
    scores = copula.marginal.scores(torch.zeros((), dtype=torch.float64))
    copula.marginal.fit(theta, (MEAN + SCATTER * scores).expand(2, -1))
    k = 12 * torch.expm1(copula.nodes.double())  # in fundamentals, see ``Torus.coordinate``
    copula.log_power.fit(theta, (-2 * torch.log1p((k / 3) ** 2)).expand(2, -1))
    return made.eval()


@pytest.fixture(scope="module")
def prior() -> CopulaDiffusion:
    return gaussian(14)


@pytest.fixture(scope="module")
def checkpoint(prior: CopulaDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "gaussian"
    save(prior, folder, "# gaussian\n")
    return folder


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of few levels, where it does not matter how right samples are."""
    folder = tmp_path_factory.mktemp("checkpoints") / "hasty"
    save(gaussian(3), folder, "# hasty\n")
    return folder


@pytest.fixture(scope="module")
def truth(prior: CopulaDiffusion) -> Tensor:
    """``(16, 16)``, of the prior's law by its closed form."""
    white = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))
    return prior.copula.from_white(white.flatten(1), torch.tensor([[0.3]]))[0, 0]


@pytest.fixture(scope="module")
def covariance(prior: CopulaDiffusion) -> Tensor:
    """Of the prior's values, ``(256, 256)`` float64."""
    unit = torch.eye(256).reshape(256, 1, 16, 16)
    return SCATTER**2 * prior.copula.covariance(unit, torch.full((256, 1), 0.3)).flatten(1).double()


def means(side: int) -> Tensor:
    """Block means over ``side`` cells, as a matrix."""
    blocks = 16 // side
    cells = torch.arange(256)
    block = (cells // 16 // side) * blocks + cells % 16 // side
    return torch.nn.functional.one_hot(block).T.double() / side**2


def beam(fwhm: float) -> Tensor:
    """A Gaussian of so many cells, laid by hand around each cell of the torus, as a matrix."""
    sigma = fwhm / math.sqrt(8 * math.log(2))
    lag = torch.arange(16, dtype=torch.float64)[:, None] - torch.arange(16)
    row = sum(torch.exp(-((lag + 16 * turn) ** 2) / (2 * sigma**2)) for turn in (-1, 0, 1))
    assert isinstance(row, Tensor)
    row = row / row.sum(1, keepdim=True)
    return torch.kron(row, row)


def run(checkpoint: Path, out: Path, observed: np.ndarray, *more: object) -> int:
    np.save(out.with_name("observed.npy"), observed)
    told = ("posterior", checkpoint, "--observed", out.with_name("observed.npy"), "-o", out, *THETA, *more)
    return main([str(a) for a in told])


@pytest.fixture
def without_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes most of a small run's time."""
    monkeypatch.setattr("evaluation.plots.posterior_sheet", lambda sheet: b"")


def in_files(options: list, folder: Path) -> list:
    """The same options, arrays as names of files that hold them."""
    given = []
    for i, option in enumerate(options):
        if isinstance(option, np.ndarray):
            np.save(folder / f"{i}.npy", option)
        given.append(folder / f"{i}.npy" if isinstance(option, np.ndarray) else option)
    return given


MASK = np.random.default_rng(1).random((16, 16)) < 0.5
PATCHY = np.where(np.arange(256).reshape(16, 16) < 128, NOISE, 2 * NOISE)
CASES = {
    "masked": (torch.eye(256, dtype=torch.float64)[MASK.flatten()], NOISE, ["--mask", MASK]),
    "noisy": (torch.eye(256, dtype=torch.float64), PATCHY, []),
    "block means": (means(4), NOISE / 4, ["--mean_of", "4"]),
    "smoothed": (beam(3), NOISE, ["--smooth", str(3 * CELL)]),
}


@pytest.mark.usefixtures("without_picture")
@pytest.mark.parametrize("case", CASES)
def test_mean_and_scatter_are_those_of_the_exact_wiener_posterior(
    case: str, checkpoint: Path, truth: Tensor, covariance: Tensor, tmp_path: Path
) -> None:
    seen, noise, options = CASES[case]
    noise_vector = torch.from_numpy(np.asarray(noise)).flatten().expand(len(seen)).double()
    errors = torch.randn(len(seen), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    data = seen @ truth.flatten().double() + noise_vector * errors
    if case == "masked":
        observed = np.full((16, 16), np.nan)
        observed[MASK] = data.numpy()
    else:
        observed = data.reshape(math.isqrt(len(data)), -1).numpy()
    given = in_files([*options, "--noise", noise], tmp_path)
    out = tmp_path / "fits.h5"
    assert run(checkpoint, out, observed, *given, "-n", N) == 0

    gain = covariance @ seen.T @ torch.linalg.inv(seen @ covariance @ seen.T + noise_vector.square().diag())
    mean = MEAN + gain @ (data - MEAN * seen.sum(1))
    exact = covariance - gain @ seen @ covariance
    scatter = exact.diagonal().sqrt()
    found, spread = (
        torch.as_tensor(read_fields(tmp_path / f"fits_{what}.h5").values[:]).double().flatten()
        for what in ("mean", "std")
    )
    # The mean of N samples has the posterior's covariance over N, so the mean over cells of its square in
    # units of the variance is 1 / N, and scatters by sqrt(2 / independent cells) of that; likewise variances.
    correlation = exact / scatter / scatter[:, None]
    independent = 256**2 / float(correlation.square().sum())
    distance = N * float(((found - mean) / scatter).square().mean())
    assert abs(distance - 1) < 4 * math.sqrt(2 / independent)
    ratio = float((spread / scatter).square().mean())
    assert abs(ratio - 1) < 4 * math.sqrt(2 / independent / N) + 0.01  # and 1 % of sampler's bias


@pytest.mark.usefixtures("without_picture")
def test_the_same_seed_gives_the_same_bits_and_more_samples_begin_alike(
    hasty: Path, truth: Tensor, tmp_path: Path
) -> None:
    files = {}
    for name, n, seed in (("a", 3, 5), ("b", 3, 5), ("c", 18, 5), ("d", 3, 6)):
        files[name] = tmp_path / f"{name}.h5"
        assert run(hasty, files[name], truth.numpy(), "--noise", NOISE, "-n", n, "--seed", seed) == 0
    for end in (".h5", "_mean.h5", "_std.h5"):
        one, two = (tmp_path / f"{name}{end}" for name in "ab")
        assert one.read_bytes() == two.read_bytes()
    a, c, d = (torch.as_tensor(read_fields(files[name]).values[:]) for name in "acd")
    assert torch.equal(a, c[:3])
    assert not torch.equal(a, d)
    found = [torch.as_tensor(read_fields(tmp_path / f"c_{what}.h5").values[:])[0] for what in ("mean", "std")]
    assert torch.allclose(found[0], c.mean(0), rtol=0, atol=1e-8)
    assert torch.allclose(found[1], c.std(0), rtol=1e-4)


def test_files_say_what_was_seen_and_the_picture_shows_it(
    hasty: Path, truth: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "truth.npy", truth.numpy())
    np.save(tmp_path / "mask.npy", MASK)
    options = ("--mask", tmp_path / "mask.npy", "--noise", NOISE, "-n", 2)
    for name, more in (("bare", ()), ("full", ("--truth", tmp_path / "truth.npy"))):
        assert run(hasty, tmp_path / f"{name}.h5", truth.numpy(), *options, *more) == 0
    said = capsys.readouterr().out
    assert "2 fields in" in said and "of the noise" in said
    assert said.count("|truth - mean| < standard deviation in") == 1
    told = read_fields(tmp_path / "full.h5").attributes
    assert (told["observed"], told["mask"], told["noise"]) == ("observed.npy", "mask.npy", str(NOISE))
    assert told["class"].endswith("CopulaDiffusion") and told["units"] == "1"
    assert (
        read_fields(tmp_path / "full_std.h5").attributes["statistic"] == "standard deviation of the samples"
    )
    assert read_fields(tmp_path / "full.h5").params.tolist() == [[0.3], [0.3]]
    with Image.open(tmp_path / "bare.png") as bare, Image.open(tmp_path / "full.png") as full:
        assert full.width > bare.width and full.height == bare.height


@pytest.mark.usefixtures("without_picture")
def test_parameters_and_row_are_those_of_a_file_of_several(hasty: Path, tmp_path: Path) -> None:
    """Of a file that ``sample`` has made."""
    made, out = tmp_path / "made.h5", tmp_path / "fits.npz"
    told = ["sample", hasty, "--params", "Omega_m=0.35", "-n", "3", "-o", made]
    assert main([str(a) for a in told]) == 0
    told = ["posterior", hasty, "--observed", made, "--truth", made, "--row", "1", "--noise", "1e-3"]
    assert main([str(a) for a in [*told, "-n", "2", "-o", out]]) == 0
    assert read_fields(out).params.flatten().tolist() == [0.35, 0.35]
    close = torch.as_tensor(read_fields(out).values[:]) - torch.as_tensor(read_fields(made).values[1:2])
    assert close.std() < 5e-3, "samples are of the chosen field, not of another"


def test_interrupted_it_leaves_nothing(
    hasty: Path, truth: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(sheet: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluation.plots.posterior_sheet", interrupted)
    assert run(hasty, tmp_path / "fits.h5", truth.numpy(), "--noise", NOISE, "-n", 2) == 130
    assert [file.name for file in tmp_path.iterdir()] == ["observed.npy"]


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    told = capsys.readouterr().err
    assert code == 2 and told.startswith("cosmozoo: ") and told.count("\n") == 1
    return told


FLAT = np.zeros((16, 16))
TWOS = np.full((16, 16), 2)
BAD = {
    "shape": (np.zeros((12, 16)), ["--noise", "1"], "one field of 16 x 16 cells"),
    "nan": (np.full((16, 16), np.nan), ["--noise", "1"], "not finite in 256 seen cells"),
    "negative noise": (FLAT, ["--noise", "-0.1"], "--noise must be positive in every seen cell, got -0.1"),
    "no noise": (FLAT, ["--noise", "0"], "say how closely they are to be met"),
    "nonsense": (FLAT, ["--noise", "much"], "--noise must be a number or a file, got 'much'"),
    "noise of another shape": (FLAT, ["--noise", np.ones((8, 8))], "the noise must be one field of 16 x 16"),
    "mask of twos": (
        FLAT,
        ["--noise", "1", "--mask", TWOS],
        "1 where a cell was seen and 0 elsewhere, got 2",
    ),
    "nothing seen": (FLAT, ["--noise", "1", "--mask", FLAT], "says that no cell was seen"),
    "blocks": (FLAT, ["--noise", "1", "--mean_of", "5"], "must divide the emulator's 16 x 16 cells"),
    "fine as coarse": (FLAT, ["--noise", "1", "--mean_of", "2"], "one field of 8 x 8 cells"),
    "beam": (FLAT, ["--noise", "1", "--smooth", "-1"], "--smooth must be the width of a beam"),
    "several": (np.zeros((3, 16, 16)), ["--noise", "1"], "holds 3 fields; choose one by --row"),
    "row": (np.zeros((3, 16, 16)), ["--noise", "1", "--row", "3"], "--row must be 0 to 2"),
    "one sample": (FLAT, ["--noise", "1", "-n", "1"], "2 samples or more"),
    "truth": (FLAT, ["--noise", "1", "--truth", np.full((16, 16), np.inf)], "values that are not finite"),
    "range": (FLAT, ["--noise", "1", "--params", "Omega_m=0.9"], "outside the trained range"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(
    case: str, hasty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observed, options, sentence = BAD[case]
    given = in_files(options, tmp_path)
    assert sentence in refused(capsys, run(hasty, tmp_path / "fits.h5", observed, *given))
    assert not list(tmp_path.glob("*fits*"))


def test_other_emulators_are_told_which_have_a_posterior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(Copula(GRID, SPACE, degree=0), tmp_path / "copula", "# copula\n")
    assert isinstance(load(tmp_path / "copula"), Copula)
    code = run(tmp_path / "copula", tmp_path / "fits.h5", FLAT, "--noise", "1")
    assert "is a Copula, which has no posterior; give" in refused(capsys, code)
    (tmp_path / "there.png").touch()
    assert "there.png exists already" in refused(
        capsys, run(tmp_path / "copula", tmp_path / "there.h5", FLAT, "--noise", "1")
    )
    code = main(
        ["posterior", str(tmp_path / "copula"), "--observed", "none.npy", "--noise", "1", "-o", "a.txt"]
    )
    assert "must end in .h5" in refused(capsys, code)
