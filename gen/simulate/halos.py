"""Halos of a periodic box by friends-of-friends, and galaxies in them by a halo occupation distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.special import erf

from gen.errors import InputError

Array = NDArray[np.float64]
CRITICAL_DENSITY = 2.7754e11
"""Of today [h^2 Msun / Mpc^3]."""


class Halos(NamedTuple):
    """``mass (H,)`` [Msun/h]; ``centre (H, 3)`` [Mpc/h]; ``halo (P,)`` of each particle, -1 outside all."""

    mass: Array
    centre: Array
    halo: NDArray[np.int64]


def friends_of_friends(
    positions: Array, box_size: float, particle_mass: float, linking: float = 0.2, fewest: int = 20
) -> Halos:
    """Groups of particles that are joined by steps of at most ``linking`` mean separations.

    Args:
        positions: ``(P, 3)`` in [0, L) [Mpc/h], of a periodic cube.
        box_size: L [Mpc/h].
        particle_mass: [Msun/h].
        linking: b, 0.2 for halos of about 200 times the mean density (Davis et al. 1985).
        fewest: particles of a halo.

    Raises:
        InputError: for positions outside the box, or a linking length of half the box or more.
    """
    if (
        positions.ndim != 2
        or positions.shape[1] != 3
        or not ((positions >= 0) & (positions < box_size)).all()
    ):
        raise InputError(
            f"friends-of-friends needs positions (P, 3) in [0, {box_size:g}) Mpc/h, got shape "
            f"{positions.shape} and values outside; wrap them into the box"
        )
    n = len(positions)
    length = linking * box_size / n ** (1 / 3)
    if not 0 < length < box_size / 2:
        raise InputError(f"the linking length must be positive and below half the box, got {length:g} Mpc/h")
    pairs = KDTree(positions, boxsize=box_size).query_pairs(length, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    group = connected_components(links, directed=False)[1].astype(np.int64)
    count = np.bincount(group)
    kept = np.flatnonzero(count >= fewest)
    number = np.full(len(count), -1)
    number[kept] = np.arange(len(kept))
    halo = number[group]
    mass = (count[kept] * particle_mass).astype(np.float64)
    return Halos(mass, _centres(positions, halo, len(kept), box_size), halo)


def _centres(positions: Array, halo: NDArray[np.int64], n: int, box_size: float) -> Array:
    """Means of the members, across the faces: each from the halo's first particle on."""
    inside = np.flatnonzero(halo >= 0)
    first = np.zeros(n, dtype=np.int64)
    first[halo[inside[::-1]]] = inside[::-1]
    anchor = positions[first]
    away = positions[inside] - anchor[halo[inside]]
    away -= box_size * np.round(away / box_size)
    total = np.stack([np.bincount(halo[inside], away[:, i], minlength=n) for i in range(3)], 1)
    count = np.bincount(halo[inside], minlength=n)[:, None]
    return _wrapped(anchor + total / np.maximum(count, 1), box_size)


def _wrapped(x: Array, box_size: float) -> Array:
    x = np.mod(x, box_size)
    return np.where(x >= box_size, 0.0, x)  # a tiny negative number rounds to exactly the side


@dataclass(frozen=True)
class HOD:
    r"""Mean galaxies of a halo of mass M, five numbers (Zheng et al. 2005, astro-ph/0408564).

    ``<N_cen> = (1 + erf((log M - log_M_min) / sigma_log_M)) / 2``, none or one;
    ``<N_sat> = ((M - M_0) / M_1)^alpha`` above M_0, Poisson.

    Args:
        log_M_min, log_M_0, log_M_1: decadic logarithms of masses [Msun/h].
    """

    log_M_min: float
    sigma_log_M: float
    log_M_0: float
    log_M_1: float
    alpha: float

    def central(self, mass: Array) -> Array:
        """Probability of a central galaxy."""
        return 0.5 * (1 + erf((np.log10(mass) - self.log_M_min) / self.sigma_log_M))

    def satellites(self, mass: Array) -> Array:
        """Mean number of satellites."""
        return np.clip((mass - 10**self.log_M_0) / 10**self.log_M_1, 0, None) ** self.alpha

    def galaxies(self, halos: Halos, positions: Array, rng: np.random.Generator) -> Array:
        """Positions ``(G, 3)``: centrals at the halos' centres, satellites at random members' positions."""
        central = halos.centre[rng.random(len(halos.mass)) < self.central(halos.mass)]
        count = rng.poisson(self.satellites(halos.mass))
        inside = np.flatnonzero(halos.halo >= 0)
        members = inside[np.argsort(halos.halo[inside], kind="stable")]
        size = np.bincount(halos.halo[inside], minlength=len(halos.mass))
        start = np.cumsum(size) - size
        owner = np.repeat(np.arange(len(count)), count)
        picked = start[owner] + (rng.random(len(owner)) * size[owner]).astype(np.int64)
        return np.concatenate([central, positions[members[picked]]])
