"""HI painted without a particle mesh: the mass function's mean, theory's bias, seeds, a line of reports."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.integrate import quad
from torch import Tensor

from gen.cli import main
from gen.commands.painted import PAINTING, painting
from gen.fields import Fields, Grid, ParameterSpace
from gen.io import FieldFile, write_fields
from gen.simulate.halos import CRITICAL_DENSITY
from gen.simulate.hi import HI, UNIT
from gen.simulate.hi_painting import PARTS, PaintedHI, in_balls, radius
from gen.simulate.hi_relation import HIHalos, HIRelation
from gen.simulate.nbody_pairs import Run
from gen.simulate.theory import Cosmology, halo_mass_function

COSMO, Z = Cosmology(0.3, 0.8), 4.0
BOX = Grid((16, 16, 16), 10.0, "Mpc/h", periodic=True)
NO_GAS = PaintedHI(HI(oversampling=1, log_rate=-1.0))


def integral(power: float) -> float:
    """int dlnM dn/dlnM M_HI^power, by adaptive quadrature."""
    relation = HIRelation.at(Z)

    def integrand(x: float) -> float:
        number = halo_mass_function(COSMO, [math.exp(x)], 1 / (1 + Z))[0]
        return number * float(relation(math.exp(x))) ** power

    ends = math.log(relation.M_hard), math.log(1e14)
    return quad(integrand, *ends, epsrel=1e-5, limit=200)[0]


def test_boxes_hold_the_integral_of_mass_function_times_relation() -> None:
    boxes, volume = 60, 10.0**3
    found = np.mean([NO_GAS.fields(COSMO, Z, BOX, seed).double().mean().item() for seed in range(boxes)])
    expected = integral(1)
    error = math.sqrt(integral(2) / (boxes * volume))  # of a Poisson sample
    assert error < 0.03 * expected
    assert found == pytest.approx(expected, abs=4 * error)
    assert 1e-4 < found / CRITICAL_DENSITY < 2e-3


def test_gas_fills_what_halos_leave() -> None:
    bare, lit = (PaintedHI(HI(log_rate=rate)).fields(COSMO, Z, BOX, 1) for rate in (-1.0, -12.0))
    gas = (lit - bare).double()
    assert lit.min() > 0 and bare.min() < 1e-6 * lit.min()
    mean = CRITICAL_DENSITY * 0.76 * 0.049
    assert 1e-6 < gas.mean().item() / mean < 1e-3
    assert torch.log10(lit.max() / lit.min()) > 5


def test_on_large_scales_boxes_follow_matter_by_the_bias_of_theory() -> None:
    side = 64.0
    wide = Grid((32, 32, 32), side, "Mpc/h", periodic=True)
    hi = NO_GAS.fields(COSMO, Z, wide, 3)[0, 0].double()
    run = Run(COSMO, Z, wide, 3, "cpu", 0, 1)
    linear = run.modes(32)[0] * float(run.growth.first(run.a))
    modes = torch.fft.rfftn(hi / hi.mean())
    held = (wide.wavenumber() > 0) & (wide.wavenumber() < 0.3)
    bias = ((modes * linear.conj()).real[held].sum() / linear.abs().square()[held].sum()).item()
    assert bias == pytest.approx(HIHalos(COSMO, Z).bias(), rel=0.1)


def test_in_balls_is_the_mean_over_a_ball() -> None:
    n, side, reach = 32, 8.0, 2.0
    noise = torch.randn(n, n, n, generator=torch.Generator().manual_seed(0))
    x = torch.minimum(torch.arange(n), n - torch.arange(n)) * (side / n)
    ball = (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None] ** 2 <= reach**2).float()
    smooth = torch.fft.rfftn(noise)
    k = Grid((n,) * 3, side, "Mpc/h", periodic=True).wavenumber()
    smooth = torch.where(k < 3, smooth, 0)  # waves that cells resolve
    field = torch.fft.irfftn(smooth, s=(n, n, n))
    counted = torch.fft.irfftn(smooth * torch.fft.rfftn(ball / ball.sum()), s=(n, n, n))
    assert (in_balls(smooth, side, reach) - counted).std() < 0.05 * counted.std()
    assert torch.allclose(in_balls(smooth, side, 1e-6), field, atol=1e-4)


def test_halos_are_spheres_of_200_times_the_mean_density_that_keep_their_hi() -> None:
    mass = np.array([1e9, 1e12])
    centres = torch.tensor([[1.0, 5.0]] * 3, dtype=torch.float64)
    rng = np.random.default_rng(0)
    points, weights = NO_GAS._laid_out(centres, COSMO, Z, mass, 0.6, rng)
    hi = HIRelation.at(Z)(mass)
    assert (
        points.shape == (3, 1 + PARTS) and weights[0] == hi[0] and weights[1:].sum() == pytest.approx(hi[1])
    )
    away = (points[:, 1:] - 5).norm(dim=0)
    reach = float(radius(COSMO, 1e12, 200.0))
    assert 4 / 3 * math.pi * reach**3 * 200 * CRITICAL_DENSITY * 0.3 == pytest.approx(1e12)
    assert 0.9 * reach < away.max() <= reach and 0.3 < away.mean() / reach < 0.7


def test_redshift_space_only_moves_mass_along_the_last_axis() -> None:
    real, seen = (
        PaintedHI(HI(redshift_space=moved, log_rate=-1.0)).fields(COSMO, Z, BOX, 5).double()
        for moved in (0, 1)
    )
    assert torch.allclose(real.sum(-1), seen.sum(-1), rtol=1e-3, atol=1e-4 * float(real.max()))
    assert not torch.allclose(real, seen, rtol=0.1)


def reference(boxes: int) -> FieldFile:
    space = ParameterSpace(("Omega_m", "sigma_8", "z"), (0.2, 0.7, 2.0), (0.4, 0.9, 5.0))
    params = torch.tensor([[0.3, 0.8, 3.0]] * boxes, dtype=torch.float64)
    told = {"field": "hi", "units": UNIT}
    return FieldFile(torch.zeros(boxes, 1, 16, 16, 16), params, None, None, BOX, space, told)


def recipe(folder: Path, **changes: object) -> Path:
    content = {
        "name": "hi",
        "seed": 4,
        "grid": BOX.to_dict(),
        "space": {"names": ["Omega_m", "sigma_8", "z"], "low": [0.2, 0.7, 2.0], "high": [0.4, 0.9, 5.0]},
        "hi": {"steps": 2, "mesh_factor": 1},
        "test": [{"region": "interior", "Omega_m": 0.3, "sigma_8": 0.8, "z": 3.0, "boxes": 6}],
    }
    path = folder / "hi.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def test_draws_are_functions_of_seed_and_row(tmp_path: Path) -> None:
    path = recipe(tmp_path)

    def drawn(boxes: int, seed: int) -> Tensor:
        return painting(path, reference(boxes), seed)[PAINTING].values

    three = drawn(3, 0)
    assert torch.equal(drawn(2, 0), three[:2])
    assert not torch.allclose(three[0], three[1]) and not torch.allclose(drawn(1, 1)[0], three[0])


def test_a_report_of_hi_sets_the_painting_beside_samples(tmp_path: Path) -> None:
    path, samples, out = recipe(tmp_path), tmp_path / "copy.h5", tmp_path / "out"
    own = reference(6)
    made = painting(path, own, 7)[PAINTING]
    fields = iter([Fields.of(made.values, own.params)])
    write_fields(samples, fields, 6, BOX, own.space, dict(made.attributes))
    quick = yaml.safe_load(Path("recipes/reports/hi.yaml").read_text())
    quick |= {"statistics": ["power"], "images": 2}
    quick["measurement"] |= {"n_bootstrap": 100, "n_permutations": 100, "n_splits": 20, "classifier_steps": 2}
    judged = tmp_path / "judged.yaml"
    judged.write_text(yaml.safe_dump(quick))
    asked = ["report", "--samples", str(samples), "--data", str(path), "--cache", str(tmp_path / "cache")]
    asked += ["-o", str(out), "--thresholds", str(judged), "--processes", "1"]
    assert main(asked) == 0
    document = json.loads((out / "report.json").read_text())
    assert set(document["sets"]) == {"copy", PAINTING}
    assert PAINTING in document["cosmologies"][0]["power_error"]
