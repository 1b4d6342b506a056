"""Theory against quadrature, closed forms and pyccl's own integrals."""

from __future__ import annotations

import math

import numpy as np
import pyccl
import pytest
from scipy.integrate import quad

from gen.errors import InputError
from gen.simulate.growth import Growth
from gen.simulate.theory import (
    HUBBLE_DISTANCE,
    Cosmology,
    comoving_distance,
    convergence_power,
    growth,
    lensing_weight,
    linear_power,
    nonlinear_power,
    scale_factor,
)

COSMOLOGIES = [Cosmology(0.1, 1.0), Cosmology(0.3, 0.8), Cosmology(0.5, 0.6)]


@pytest.mark.parametrize("cosmo", COSMOLOGIES)
def test_linear_power_has_the_sigma_8_that_was_asked_for(cosmo: Cosmology) -> None:
    k = np.geomspace(1e-4, 60, 6000)
    x = 8 * k
    tophat = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    variance = np.trapezoid(linear_power(cosmo, k) * tophat**2 * k**3 / (2 * math.pi**2), np.log(k))
    assert math.sqrt(variance) == pytest.approx(cosmo.sigma_8, rel=1e-4)


@pytest.mark.parametrize("cosmo", COSMOLOGIES)
def test_linear_power_grows_by_the_growth_factor(cosmo: Cosmology) -> None:
    k = np.array([0.01, 0.1, 1.0])
    ratio = linear_power(cosmo, k, 0.5) / linear_power(cosmo, k, 1.0)
    assert ratio == pytest.approx(np.full(3, growth(cosmo, 0.5) ** 2), rel=1e-4)


@pytest.mark.parametrize("cosmo", COSMOLOGIES)
def test_growth_is_heaths_integral(cosmo: Cosmology) -> None:
    def heath(a: float) -> float:
        integral = quad(lambda x: 1 / (x * cosmo.expansion(x)) ** 3, 0, a)[0]
        return float(cosmo.expansion(a)) * integral

    solver = Growth(cosmo.Omega_m)
    for a in (0.1, 0.3, 0.7):
        assert growth(cosmo, a) == pytest.approx(heath(a) / heath(1.0), rel=1e-5)
        assert solver.first(a) == pytest.approx(heath(a) / heath(1.0), rel=1e-6)


def test_second_order_growth_is_the_einstein_de_sitter_one_where_it_must_be() -> None:
    eds = Growth(1.0)
    for a in (0.1, 0.5, 1.0):
        assert eds.first(a) == pytest.approx(a, rel=1e-6)
        assert eds.second(a) == pytest.approx(-3 / 7 * a**2, rel=1e-6)
        assert eds.first_momentum(a) == pytest.approx(a**1.5, rel=1e-6)
    # Bouchet et al. 1995: D2 = -3/7 Omega_m(a)^(-1/143) D1^2 to a few parts in a thousand in flat LCDM.
    lcdm = Growth(0.3)
    fitted = -3 / 7 * lcdm.matter_fraction(1.0) ** (-1 / 143)
    assert lcdm.second(1.0) / lcdm.first(1.0) ** 2 == pytest.approx(fitted, rel=3e-3)


def test_kick_and_drift_carry_the_linear_mode_exactly() -> None:
    g = Growth(0.3)
    x, p, a = float(g.first(0.1)), float(g.first_momentum(0.1)), 0.1
    for end in (0.4, 0.7, 1.0):
        half = math.sqrt(a * end)
        p += 1.5 * 0.3 * g.kick(a, half, a) * x  # in linear theory the force on D1 psi is D1 psi
        x += g.drift(a, end, half) * p
        p += 1.5 * 0.3 * g.kick(half, end, end) * x
        a = end
        assert x == pytest.approx(float(g.first(a)), rel=1e-9)
        assert p == pytest.approx(float(g.first_momentum(a)), rel=1e-9)


def test_kick_and_drift_tend_to_their_integrals_for_short_steps() -> None:
    g, a, b = Growth(0.3), 0.5, 0.501
    kick = quad(lambda x: 1 / (x**2 * g.expansion(x)), a, b)[0]
    drift = quad(lambda x: 1 / (x**3 * g.expansion(x)), a, b)[0]
    assert g.kick(a, b, 0.5005) == pytest.approx(kick, rel=1e-4)
    assert g.drift(a, b, 0.5005) == pytest.approx(drift, rel=1e-4)


def test_distance_is_the_integral_of_the_expansion() -> None:
    cosmo = COSMOLOGIES[1]
    want = HUBBLE_DISTANCE * quad(lambda a: 1 / (a**2 * cosmo.expansion(a)), 0.5, 1)[0]
    assert comoving_distance(cosmo, 0.5) == pytest.approx(want, rel=1e-4)
    chi = np.array([10.0, 500.0, 2000.0])
    assert comoving_distance(cosmo, scale_factor(cosmo, chi)) == pytest.approx(chi, rel=1e-4)


def test_lensing_weight_vanishes_at_both_ends_and_beyond_the_source() -> None:
    cosmo = COSMOLOGIES[1]
    weight = lensing_weight(cosmo, np.array([0.0, 1000.0, 2000.0, 2500.0]), 2000.0)
    assert weight[[0, 2, 3]] == pytest.approx(np.zeros(3))
    want = 1.5 * 0.3 / HUBBLE_DISTANCE**2 * 1000 * 0.5 / scale_factor(cosmo, 1000.0)
    assert weight[1] == pytest.approx(float(want))


@pytest.mark.parametrize("cosmo", COSMOLOGIES)
def test_convergence_power_is_pyccls(cosmo: Cosmology) -> None:
    theirs = pyccl.Cosmology(
        Omega_c=cosmo.Omega_m - cosmo.Omega_b,
        Omega_b=cosmo.Omega_b,
        h=cosmo.h,
        n_s=cosmo.n_s,
        sigma8=cosmo.sigma_8,
        Omega_g=0.0,
        Neff=0.0,
        transfer_function="eisenstein_hu",
    )
    tracer = pyccl.CMBLensingTracer(theirs, z_source=1.0)  # lensing of one source plane
    ell = np.geomspace(100, 5000, 12)
    assert convergence_power(cosmo, ell, 1.0) == pytest.approx(
        pyccl.angular_cl(theirs, tracer, tracer, ell), rel=5e-3
    )


def test_cuts_in_wavenumber_add_up() -> None:
    cosmo, ell = COSMOLOGIES[1], np.array([200.0, 1000.0])
    parts = [convergence_power(cosmo, ell, 1.0, cut, 64) for cut in ((0, 0.5), (0.5, math.inf))]
    assert sum(parts) == pytest.approx(convergence_power(cosmo, ell, 1.0, nodes=64), rel=1e-9)
    assert all((part > 0).all() for part in parts)


def test_nonlinear_power_exceeds_linear_at_small_scales_only() -> None:
    ratio = nonlinear_power(COSMOLOGIES[1], [0.005, 1.0]) / linear_power(COSMOLOGIES[1], [0.005, 1.0])
    assert ratio[0] == pytest.approx(1.0, abs=0.02)
    assert ratio[1] > 3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((math.nan, 0.8), "Omega_m"), ((0.3, 5.0), "sigma_8"), ((0.07, 0.8, 0.08), "Omega_b")],
)
def test_impossible_cosmologies_are_refused(arguments: tuple[float, ...], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Cosmology(*arguments)
