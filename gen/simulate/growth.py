"""First- and second-order growth in flat LCDM, with the derivatives that a FastPM step needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]
A_START = 1e-3


@dataclass(frozen=True)
class Growth:
    """Solutions D1(a), D2(a) of the growth equations, D1(1) = 1, D2 -> -3/7 D1^2 at early times.

    With y' = dy/dln a and q = dln(a^2 E)/dln a:

    D1'' + q D1' = 3/2 Omega_m(a) D1,    D2'' + q D2' = 3/2 Omega_m(a) (D2 - D1^2)

    (Bouchet et al. 1995, astro-ph/9406013). Displacements are -D1 grad phi1 + D2 grad phi2.
    """

    Omega_m: float

    def expansion(self, a: ArrayLike) -> Array:
        """E(a) = H(a) / H0."""
        a = np.asarray(a, dtype=np.float64)
        return np.sqrt(self.Omega_m / a**3 + 1 - self.Omega_m)

    def matter_fraction(self, a: ArrayLike) -> Array:
        """Omega_m(a)."""
        a = np.asarray(a, dtype=np.float64)
        return self.Omega_m / (self.Omega_m + (1 - self.Omega_m) * a**3)

    @cached_property
    def _splines(self) -> CubicSpline:
        def slope(x: float, y: Array) -> Array:
            om = float(self.matter_fraction(np.exp(x)))
            q = 2 - 1.5 * om
            d1, f1, d2, f2 = y
            return np.array([f1, 1.5 * om * d1 - q * f1, f2, 1.5 * om * (d2 - d1**2) - q * f2])

        x = np.linspace(np.log(A_START), np.log(1.2), 2000)
        start = [A_START, A_START, -3 / 7 * A_START**2, -6 / 7 * A_START**2]
        y = solve_ivp(slope, (x[0], x[-1]), start, t_eval=x, rtol=1e-10, atol=1e-14, method="DOP853").y
        today = CubicSpline(x, y[0])(0.0)
        return CubicSpline(x, y / np.array([today, today, today**2, today**2])[:, None], axis=1)

    def _at(self, a: ArrayLike) -> Array:
        return self._splines(np.log(np.asarray(a, dtype=np.float64)))

    def first(self, a: ArrayLike) -> Array:
        """D1(a)."""
        return self._at(a)[0]

    def second(self, a: ArrayLike) -> Array:
        """D2(a), negative."""
        return self._at(a)[2]

    def first_momentum(self, a: ArrayLike) -> Array:
        """a^3 E dD1/da: the momentum of a unit linear displacement (H0 = 1)."""
        return np.asarray(a) ** 2 * self.expansion(a) * self._at(a)[1]

    def second_momentum(self, a: ArrayLike) -> Array:
        """a^3 E dD2/da."""
        return np.asarray(a) ** 2 * self.expansion(a) * self._at(a)[3]

    def kick(self, start: float, end: float, at: float) -> float:
        """FastPM kick factor for a force computed at scale factor ``at``.

        1/(a^2 E) [G(end) - G(start)] / G'(at) with G = a^3 E dD1/da, which makes the linear growing
        mode exact at any step (Feng et al. 2016, arXiv:1603.00476, eq. 2-3). As
        dG/da = 3/2 Omega_m D1 / (a^2 E), the factor is [G(end) - G(start)] / (3/2 Omega_m D1(at)).
        """
        change = self.first_momentum(end) - self.first_momentum(start)
        return float(change / (1.5 * self.Omega_m * self.first(at)))

    def drift(self, start: float, end: float, at: float) -> float:
        """FastPM drift factor for momenta of scale factor ``at``: [D1(end) - D1(start)] / (a^3 E dD1/da)."""
        return float((self.first(end) - self.first(start)) / self.first_momentum(at))
