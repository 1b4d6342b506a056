"""Beyond two points: bispectrum, scattering transform, three-point multipoles."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import special
from torch import Tensor

from benchmarks.statistics.fields import cube, lognormal, white
from benchmarks.statistics.table import Case, Peer, optional, size
from benchmarks.statistics.two_points import transforms
from evaluation.bispectrum import Bispectrum, Shell, Sides, shells
from evaluation.scattering import Scattering, morlet
from evaluation.three_point import ThreePoint
from gen.fields import Grid


def bispectrum_by_numpy(grid: Grid, triangles: list[Sides]) -> Callable[[np.ndarray], np.ndarray]:
    """The estimator as published (Scoccimarro 2015, arXiv:1506.02729): the full lattice for every shell.

    The number of triangles is known beforehand, as ours is.
    """
    k, shape, axes = grid.wavenumber().numpy(), grid.shape, range(grid.dim)
    names = sorted({shell for sides in triangles for shell in sides})
    masks = {(low, high): (k >= low) & (k < high) & (k > 0) for low, high in names}

    def closed(modes: np.ndarray) -> np.ndarray:
        fields: dict[Shell, np.ndarray] = {}
        for name in names:
            fields[name] = np.fft.irfftn(np.where(masks[name], modes, 0), s=shape, axes=axes)
        return np.array([(fields[a] * fields[b] * fields[c]).sum(dtype=float) for a, b, c in triangles])

    norm = math.prod(grid.k_sides) ** 2 / grid.n_cells**3
    n_triangles = closed(np.ones(k.shape))
    return lambda x: closed(np.fft.rfftn(x - x.mean())) * norm / n_triangles


def bispectrum(n: int, dim: int, maps: int) -> Case:
    """Equilateral triangles on which full lattices do not alias either."""
    grid = cube(n, dim)
    found = shells(grid, 0.0, grid.k_nyquist * (2 / 3 - 2 / n), None)
    ours = Bispectrum(grid, [(s, s, s) for s in found])
    x = white(grid, maps)
    first, by_numpy = x[0, 0].numpy(), bispectrum_by_numpy(grid, list(ours.triangles))
    return Case(
        f"bispectrum, {len(ours.triangles)} equilateral",
        size(grid.shape, maps),
        lambda: ours(x),
        maps,
        [
            Peer(
                "numpy.fft, as Scoccimarro (2015)",
                lambda: by_numpy(first),
                1,
                lambda: (ours(x[:1])[0], by_numpy(first)),
            ),
            Peer(f"{1 + len(found)} bare torch transforms", transforms(x, 1, len(found)), maps),
        ],
    )


def bispectrum_by_angle(n: int, maps: int) -> Case:
    """Fixed k1 = k2 against the angle, in shells two fundamental modes wide as Pylians has them.

    No mode is on the edge of the shells of k1, and no third side reaches down to the mean, which it counts.
    """
    grid = cube(n, 3)
    k1, theta = 8.1 * grid.k_fundamental, np.linspace(0, 0.9 * math.pi, 20)
    third = np.sqrt((k1 * np.sin(theta)) ** 2 + (k1 * np.cos(theta) + k1) ** 2)

    def around(k: float) -> Shell:
        return max(0.0, k - grid.k_fundamental), k + grid.k_fundamental

    ours = Bispectrum(grid, [(around(k1), around(k1), around(float(k))) for k in third], theta, "rad")
    x = white(grid, maps)
    first, by_numpy = x[0, 0].numpy(), bispectrum_by_numpy(grid, list(ours.triangles))
    peers = [
        Peer(
            "numpy.fft, as Scoccimarro (2015)",
            lambda: by_numpy(first),
            1,
            lambda: (ours(x[:1])[0], by_numpy(first)),
        )
    ]
    library = optional("Pk_library")
    name = "Pylians Bk, with its count of triangles"

    def pylians() -> np.ndarray:
        bispectrum = library.Bk  # pyright: ignore[reportOptionalMemberAccess]
        with contextlib.redirect_stdout(io.StringIO()):
            return bispectrum(first - first.mean(), n, k1, k1, theta, "None", 1).B

    peers.append(Peer(name, pylians, 1, lambda: (ours(x[:1])[0], pylians())) if library else Peer(name, None))
    return Case(f"bispectrum, {len(theta)} angles", size(grid.shape, maps), lambda: ours(x), maps, peers)


def scattering_by_numpy(ours: Scattering) -> Callable[[np.ndarray], np.ndarray]:
    """The definition, every response on the full lattice."""
    grid = ours.grid
    k = [
        torch.fft.fftfreq(m, dtype=torch.float64).reshape([-1 if a == axis else 1 for a in range(grid.dim)])
        * 2
        * math.pi
        for axis, m in enumerate(grid.shape)
    ]
    banks = [
        [morlet(k, d, j).numpy().astype(np.float32) for d in ours.directions] for j in range(ours.n_scales)
    ]

    def coefficients(x: np.ndarray) -> np.ndarray:
        modes = np.fft.fftn(x)
        first, second = np.zeros(ours.n_scales), dict.fromkeys(ours.pairs, 0.0)
        for j, bank in enumerate(banks):
            for psi in bank:
                response = np.abs(np.fft.ifftn(modes * psi))
                first[j] += response.mean() / len(bank)
                inner = np.fft.fftn(response) if j < ours.n_scales - 1 else response
                for j2, outer in itertools.product(range(j + 1, ours.n_scales), range(len(bank))):
                    found = np.abs(np.fft.ifftn(inner * banks[j2][outer])).mean()
                    second[j, j2] += found / len(bank) ** 2
        return np.array([*first, *(s / first[j] for (j, _), s in second.items())])

    return coefficients


def kymatio(ours: Scattering, x: Tensor) -> Peer:
    """Its transform of periodic maps, with wavelets like ours; it samples responses more coarsely."""
    scales, n = ours.n_scales, len(ours.directions)
    if not hasattr(special, "sph_harm"):  # gone from SciPy 1.17; only its transform of volumes calls it
        special.sph_harm = special.sph_harm_y  # pyright: ignore[reportAttributeAccessIssue]
    library = optional("kymatio.torch")
    name = "kymatio, coarser responses"
    if library is None:
        return Peer(name, None)
    # maps that are padded already count as larger by this on every side; nothing is cut off again
    margin = 2**scales
    transform = library.Scattering2D(scales, [m - 2 * margin for m in ours.grid.shape], n, pre_pad=True)
    transform.unpad = lambda y: y[..., 0]
    maps = x[:, 0].contiguous()
    paths = [p for p in itertools.product(range(scales * n), repeat=2) if p[0] // n < p[1] // n]

    def means() -> np.ndarray:
        found = transform(maps).mean((-1, -2)).double().numpy()
        first = found[:, 1 : 1 + scales * n].reshape(len(x), scales, n).mean(2)
        second = dict.fromkeys(ours.pairs, np.zeros(len(x)))
        for (a, b), s in zip(paths, found[:, 1 + scales * n :].T, strict=True):
            second[a // n, b // n] = second[a // n, b // n] + s / n**2
        return np.column_stack([first, *(s / first[:, j] for (j, _), s in second.items())])

    return Peer(name, means, len(x), lambda: (ours(x), means()))


def scattering(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = lognormal(grid, maps)
    ours = Scattering(grid)
    scales, orientations = ours.n_scales, len(ours.directions)
    by_numpy, first = scattering_by_numpy(ours), x[0, 0].numpy()
    bare = 1 + (2 * scales - 1) * orientations + len(ours.pairs) * orientations**2
    axes = tuple(range(dim))
    modes = torch.fft.fftn(x[0, 0])

    def transform() -> None:
        for _ in range(bare):
            torch.fft.ifftn(modes, dim=axes)

    peers = [
        Peer(
            "numpy.fft, every response in full",
            lambda: by_numpy(first),
            1,
            lambda: (ours(x[:1])[0], by_numpy(first)),
        ),
        Peer(f"{bare} bare torch.fft.ifftn", transform, 1),
    ]
    if dim == 2:
        peers.insert(0, kymatio(ours, x))
    return Case(f"scattering, {scales} scales", size(grid.shape, maps), lambda: ours(x), maps, peers)


def triplets_by_numpy(ours: ThreePoint) -> Callable[[np.ndarray], np.ndarray]:
    """All triplets counted, as products of the matrix of every cell and its neighbours."""
    grid = ours.grid
    axes = [np.rint(np.fft.fftfreq(m, 1 / m)).astype(int) for m in grid.shape]
    steps = np.stack([m.ravel() for m in np.meshgrid(*axes, indexing="ij")], axis=1)
    r = np.linalg.norm(steps * np.array(grid.spacing), axis=1)
    near = (r >= ours.edges[0]) & (r < ours.edges[-1])
    steps, r = steps[near], r[near]
    shell = np.digitize(r, ours.edges) - 1
    inside = (shell == np.arange(ours.n_shells)[:, None]) / np.bincount(shell)[:, None]
    cosine = np.clip((steps @ steps.T) / np.outer(r, r), -1, 1)
    if grid.dim == 2:
        angular = [(1 + (ell > 0)) * np.cos(ell * np.arccos(cosine)) for ell in range(ours.l_max + 1)]
    else:
        angular = [(2 * ell + 1) * special.eval_legendre(ell, cosine) for ell in range(ours.l_max + 1)]
    pairs = tuple(ours.pairs.T)

    def multipoles(x: np.ndarray) -> np.ndarray:
        delta = x - x.mean()
        moved = np.stack([np.roll(delta, tuple(-s), range(x.ndim)).ravel() for s in steps])
        triplets = (moved * delta.ravel()) @ moved.T / x.size
        return np.stack([(inside @ (triplets * a) @ inside.T)[pairs] for a in angular])

    return multipoles


def three_point(n: int, dim: int, maps: int, reach: float) -> Case:
    """Four shells from one cell to ``reach`` cells."""
    grid = cube(n, dim)
    x = lognormal(grid, maps)
    ours = ThreePoint(grid, np.linspace(0.9, reach, 5))
    by_numpy, first = triplets_by_numpy(ours), x[0, 0].numpy()
    harmonics = sum(1 if ell == 0 else 2 if dim == 2 else 2 * ell + 1 for ell in range(ours.l_max + 1))
    bare = harmonics * ours.n_shells
    return Case(
        f"three-point multipoles to {reach:g} cells",
        size(grid.shape, maps),
        lambda: ours(x),
        maps,
        [
            Peer(
                "all triplets by numpy.matmul",
                lambda: by_numpy(first),
                1,
                lambda: (ours(x[:1])[0], by_numpy(first)),
            ),
            Peer(f"{1 + bare} bare torch transforms", transforms(x, 1, bare), maps),
        ],
    )
