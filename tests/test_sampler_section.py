"""The report's section on samplers: the emulator's own steps, the field's own waves, nothing for others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from report_fields import INTERIOR, file_of, thresholds

from evaluation.report import report, restricted
from evaluation.sampler import SamplerBias
from gen.checkpoint import save
from gen.cli import main
from gen.commands.sampler import own_powers, sampler_bias, sampler_biases
from gen.emulators.copula import Copula
from gen.emulators.copula_diffusion import CopulaDiffusion
from gen.fields import Fields, Grid, ParameterSpace
from gen.io import FieldFile, write_fields
from gen.noise import sample_generator

SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))
GRID = Grid((20, 20), 3.5, "deg", periodic=False)
N = 96


@pytest.fixture(scope="module")
def emulator() -> CopulaDiffusion:
    """Untrained: its denoiser is the exact score of waves as strong as its noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CopulaDiffusion(GRID, SPACE, degree=0, widths=(4,), steps=12)
    copula, theta = made.copula, torch.tensor([[0.2, 0.7], [0.4, 0.9]], dtype=torch.float64)
    scores = copula.marginal.scores(torch.zeros((), dtype=torch.float64))
    copula.marginal.fit(theta, (0.02 * scores).expand(2, -1))
    k = 12 * torch.expm1(copula.nodes.double())  # in fundamentals, see ``Torus.coordinate``
    copula.log_power.fit(theta, (-torch.log1p((k / 3) ** 2)).expand(2, -1))
    return made.eval()


@pytest.fixture(scope="module")
def real(emulator: CopulaDiffusion) -> FieldFile:
    """Fields of the emulator's law by its closed form."""
    params = torch.tensor([[0.3, 0.8]], dtype=torch.float64).expand(N, -1)
    with torch.no_grad():
        values = emulator.copula.generate(params.float(), [sample_generator(3, i) for i in range(N)])
    return FieldFile(values, params, np.arange(N), None, GRID, SPACE, {"field": "convergence"})


def test_it_is_the_bias_of_the_emulators_own_samples(emulator: CopulaDiffusion, real: FieldFile) -> None:
    """Waves of the noise's own power, of which the untrained denoiser is the exact score."""
    found = sampler_bias("net", emulator, real)
    params = torch.full((4, 2), 0.5)
    draws = [[sample_generator(1, i) for i in range(4)] for _ in range(2)]
    with torch.no_grad():
        ours, theirs = emulator.generate(params, draws[0]), emulator.copula.generate(params, draws[1])
    ratio = float((ours / theirs).median()) ** 2 - 1
    at_one = np.interp(0, np.log(found.power), found.bias[12])
    assert ratio == pytest.approx(at_one, abs=1e-5)
    assert abs(at_one) > 1e-4, "there is something to see"


def test_more_evaluations_err_less_and_waves_beyond_the_levels_are_lost(
    emulator: CopulaDiffusion, real: FieldFile
) -> None:
    found = sampler_bias("net", emulator, real)
    assert sorted(found.bias) == [10, 12, 20, 32, 64] and found.evaluations == 12
    assert found.power[0] == pytest.approx(1e-4) and found.power[-1] == pytest.approx(1e4)
    inner = (found.power > 0.1) & (found.power < 10)
    errors = [float(np.abs(found.bias[n][inner]).max()) for n in (10, 20)]
    assert errors[1] < errors[0]
    # A wave far stronger than the noise that it starts from keeps that start's power, 1 + 10^2.
    assert found.bias[64][-1] == pytest.approx(101 / 1e4 - 1, abs=2e-4)
    # Of one far weaker than the last level the last estimate is taken, P / (P + low^2) of what is there.
    assert -1 < found.bias[64][0] < -0.8


def test_the_fields_own_range_is_measured(emulator: CopulaDiffusion, real: FieldFile) -> None:
    """1 for fields of the noise's law; four times that if they scatter twice as much."""
    powers = own_powers(emulator, real.values, real.params)
    # Of N fields in shells of 8 independent waves or more, both sides: errors of sqrt(2 * 2 / 8 / N).
    assert np.abs(powers - 1).max() < 4 * (0.5 / N) ** 0.5
    wide = own_powers(emulator, 2 * real.values, real.params)
    assert wide == pytest.approx(4 * powers, rel=1e-4)
    found = sampler_bias("net", emulator, replace(real, values=2 * real.values))
    assert found.own == pytest.approx((wide.min(), wide.max()), rel=1e-6)
    near = [found.largest(*r) for r in ((wide.min(), wide.max()), (1e-4, 1e4))]
    assert near[0] < 0.2 < near[1]
    other = replace(real, grid=Grid((20, 20), 7.0, "deg", periodic=False))
    assert sampler_bias("net", emulator, other).own is None


def test_the_verb_finds_the_diffusion_emulators_among_its_checkpoints(
    emulator: CopulaDiffusion, real: FieldFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(emulator, tmp_path / "net", "# net\n")
    save(emulator.copula, tmp_path / "copula", "# copula\n")
    values = torch.as_tensor(real.values[:])
    write_fields(
        tmp_path / "real.h5", [Fields.of(values, real.params)], N, GRID, SPACE, {"field": "convergence"}
    )
    handed: list[SamplerBias] = []

    def judge(*sets: object, samplers: list[SamplerBias], **more: object) -> dict[str, list]:
        handed.extend(samplers)
        return {"headline": []}

    monkeypatch.setattr("gen.commands.report.judge", judge)
    told = ["report", tmp_path / "net", tmp_path / "copula", "--reference", tmp_path / "real.h5"]
    assert main([str(a) for a in [*told, "-o", tmp_path / "page", "--processes", "1"]]) == 0
    (found,) = handed
    assert found.samples == "net" and found.own is not None
    # Of this law are N real fields: four errors of a shell of 8 independent waves or more, both sides.
    assert np.abs(np.array(found.own) - 1).max() < 4 * (0.5 / N) ** 0.5


def test_only_diffusion_emulators_have_a_section(
    emulator: CopulaDiffusion, real: FieldFile, tmp_path: Path
) -> None:
    save(emulator, tmp_path / "diffusion", "# diffusion\n")
    save(Copula(GRID, SPACE, degree=0), tmp_path / "copula", "# copula\n")
    folders = {name: tmp_path / name for name in ("diffusion", "copula")}
    (found,) = sampler_biases(folders, real)
    samples = {name: file_of(GRID, [INTERIOR], 24, i) for i, name in enumerate(folders, 2)}
    reference = file_of(GRID, [INTERIOR], 24, 1, per_box=4)
    quick = thresholds(statistics=("power", "pdf"), excess={"pdf": 2.0})
    document = report(samples, reference, quick, tmp_path, baseline="copula", samplers=[found], provenance={})
    page = (tmp_path / "index.html").read_text()
    assert page.count("The sampler</h2>") == 1 and "12 evaluations, order 3" in page
    assert "come out wrong" in page
    assert json.loads((tmp_path / "report.json").read_text()) == document
    (row,) = document["samplers"]
    assert (row["samples"], row["evaluations"]) == ("diffusion", 12)
    assert row["own_largest"] < 0.01 < row["largest"]
    assert len(row["power"]) == len(row["bias"]["12"]) == len(row["bias"]["64"])
    assert restricted(document, ["copula"])["samplers"] == []
    assert restricted(document, ["diffusion"])["samplers"] == document["samplers"]
    without = {key: value for key, value in document.items() if key != "samplers"}
    assert "samplers" not in restricted(without, ["copula"]), "reports of before are read as they are"
