"""Units of comoving mass that grids on disk come in, with their factors of h, as one density."""

from __future__ import annotations

from gen.errors import InputError

DENSITY = "(Msun/h)/(Mpc/h)^3"
LENGTHS = {"Mpc/h": (1.0, 0), "kpc/h": (1e-3, 0), "Mpc": (1.0, 1), "kpc": (1e-3, 1)}
"""In Mpc/h: a factor, and the power of h that it is to be multiplied by."""
DENSITIES = {DENSITY: (1.0, 0), "(1e10 Msun/h)/(kpc/h)^3": (1e19, 0), "Msun/Mpc^3": (1.0, -2)}
MASSES = {"Msun/h": (1.0, 0), "1e10 Msun/h": (1e10, 0), "Msun": (1.0, 1)}
"""Of each cell."""


def length(unit: str, h: float | None, where: str) -> float:
    """One ``unit`` in Mpc/h.

    Raises:
        InputError: for an unknown unit, or one that needs an h that is not given.
    """
    return _factor(unit, LENGTHS, h, where)


def density(unit: str, h: float | None, cell: float, where: str) -> float:
    """One ``unit``, of density or of mass in a cell of ``cell`` [(Mpc/h)^3], in (Msun/h)/(Mpc/h)^3.

    Raises:
        InputError: as ``length``.
    """
    factor = _factor(unit, DENSITIES | MASSES, h, where)
    return factor / cell if unit in MASSES else factor


def _factor(unit: str, known: dict[str, tuple[float, int]], h: float | None, where: str) -> float:
    if unit not in known:
        raise InputError(f"{where}: unit must be one of {', '.join(known)} (comoving), got {unit!r}")
    factor, power = known[unit]
    if not power:
        return factor
    if h is None or not 0.3 <= h <= 1.2:
        raise InputError(f"{where}: {unit} needs h between 0.3 and 1.2 to become {DENSITY}, got {h}; give h")
    return factor * h**power
