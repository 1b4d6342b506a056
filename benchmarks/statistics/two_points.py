"""Spectra: of one field, of pairs with one phase, of polarised patches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from powerbox import get_power
from torch import Tensor

from benchmarks.statistics.fields import cube, white
from benchmarks.statistics.table import Case, Peer, optional, size
from evaluation.dust import AngleDispersion
from evaluation.multipoles import Multipoles
from evaluation.pairs import PairedSpectra
from evaluation.polarisation import Polarisation
from evaluation.power import PowerSpectrum
from gen.fields import Grid


def transforms(x: Tensor, forward: int, back: int = 0) -> Callable[[], None]:
    """The bare real transforms of each field of ``(B, C, *shape)``, there and back so many times."""
    axes = tuple(range(1, x.ndim - 1))

    def run() -> None:
        for one in x:
            modes = torch.fft.rfftn(one[:1], dim=axes)
            for _ in range(forward - 1):
                torch.fft.rfftn(one[:1], dim=axes)
            for _ in range(back):
                torch.fft.irfftn(modes, s=x.shape[2:], dim=axes)

    return run


def power(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = white(grid, maps)
    spectrum, first = PowerSpectrum(grid), x[0, 0].numpy()
    axes = tuple(range(2, dim + 2))

    def powerbox() -> np.ndarray:
        return get_power(first, grid.box_size, bins=spectrum.edges, dimensionless=False, nthreads=1).power

    return Case(
        "power spectrum",
        size(grid.shape, maps),
        lambda: spectrum(x),
        maps,
        [
            Peer("powerbox", powerbox, 1, lambda: (spectrum(x[:1])[0], powerbox())),
            Peer("bare torch.fft.rfftn", lambda: torch.fft.rfftn(x, dim=axes), maps),
            Peer("bare numpy.fft.rfftn", lambda: np.fft.rfftn(x.numpy(), axes=axes), maps),
        ],
    )


def pairs(n: int, dim: int, maps: int) -> Case:
    grid = cube(n, dim)
    x = white(grid, maps, 2)
    x[:, 1] += x[:, 0]
    spectra = PairedSpectra(PowerSpectrum(grid))
    a, b = x[0].numpy()

    def powerbox() -> np.ndarray:
        how = {"bins": spectra.spectrum.edges, "dimensionless": False, "nthreads": 1}
        ss, tt = (get_power(y, grid.box_size, **how).power for y in (a, b))
        st = get_power(a, grid.box_size, deltax2=b, **how).power
        r = st / np.sqrt(ss * tt)
        return np.stack([r, np.sqrt(ss / tt), 1 - r**2])

    return Case(
        "pairs: r, T, 1 - r^2",
        size(grid.shape, maps),
        lambda: spectra(x),
        maps,
        [
            Peer("powerbox", powerbox, 1, lambda: (spectra(x[:1])[0], powerbox())),
            Peer("2 bare torch.fft.rfftn", transforms(x, 2), maps),
        ],
    )


def multipoles_by_numpy(grid: Grid, edges: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """P_0, P_2 and P_4 of a box: the least-squares fit to the modes of each shell, shell by shell."""
    k = [2 * math.pi * np.fft.fftfreq(m, s / m) for m, s in zip(grid.shape, grid.k_sides, strict=True)]
    length = np.sqrt(sum(q**2 for q in np.meshgrid(*k, indexing="ij", sparse=True)))
    mu = np.divide(k[2], length, out=np.zeros_like(length), where=length > 0)
    shell = np.digitize(length, edges).ravel()
    fits = []
    for b in range(1, len(edges)):
        mine = np.flatnonzero((shell == b) & (length.ravel() > 0))
        basis = [np.polynomial.legendre.Legendre.basis(ell)(mu.ravel()[mine]) for ell in (0, 2, 4)]
        fits.append((mine, np.linalg.pinv(np.stack(basis, axis=1))))
    norm = math.prod(grid.k_sides) / grid.n_cells**2

    def multipoles(x: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.fftn(x - x.mean())).ravel() ** 2 * norm
        return np.stack([fit @ power[mine] for mine, fit in fits], axis=1)

    return multipoles


def multipoles(n: int, maps: int) -> Case:
    grid = cube(n, 3)
    x = white(grid, maps)
    ours, first = Multipoles(grid), x[0, 0].numpy()
    by_numpy = multipoles_by_numpy(grid, ours.spectrum.edges)
    library = optional("Pk_library")
    pylians = None
    if library is not None:
        pylians = partial(library.Pk, first, grid.box_size[0], axis=2, MAS="None", threads=1, verbose=False)
    peers = [
        Peer("numpy.fft.fftn, fit by shell", lambda: by_numpy(first), 1,
             lambda: (ours(x[:1])[0], by_numpy(first))),
        Peer("Pylians Pk, plain sums of Legendre", pylians),
        Peer("bare torch.fft.rfftn", transforms(x, 1), maps),
    ]  # fmt: skip
    return Case("P_0, P_2, P_4", size(grid.shape, maps), lambda: ours(x), maps, peers)


def dispersion_by_numpy(dispersion: AngleDispersion) -> Callable[[np.ndarray], np.ndarray]:
    """S of one periodic patch, differences of angles brought to (-90, 90] step by step."""

    def of(iqu: np.ndarray) -> np.ndarray:
        psi = np.arctan2(iqu[2], iqu[1]) / 2
        total = np.zeros_like(psi)
        for step in dispersion.steps:
            d = np.roll(psi, step, (0, 1)) - psi
            total += (d - np.pi * np.rint(d / np.pi)) ** 2
        return np.degrees(np.sqrt(total / len(dispersion.steps)))

    return of


def angle_dispersion(n: int, maps: int) -> Case:
    grid = cube(n, 2)
    x = white(grid, maps, 3)
    ours, first = AngleDispersion(grid, 4.0), x[0].numpy()
    by_numpy = dispersion_by_numpy(ours)
    peer = Peer(
        "numpy.roll of angles", lambda: by_numpy(first), 1, lambda: (ours(x[:1])[0, 0], by_numpy(first))
    )
    return Case("dispersion of angles", size(grid.shape, maps), lambda: ours(x), maps, [peer])


def e_and_b_by_numpy(grid: Grid, edges: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """TT, EE, BB, TE, EB, TB of one periodic patch, as the definition has it, mode by mode."""
    k0, k1 = (2 * math.pi * np.fft.fftfreq(m, s / m) for m, s in zip(grid.shape, grid.k_sides, strict=True))
    shell = np.digitize(np.hypot(k0[:, None], k1), edges).ravel()
    count = np.bincount(shell)[1 : len(edges)]
    turn = np.exp(-2j * np.arctan2(k1, k0[:, None]))
    norm = math.prod(grid.k_sides) / grid.n_cells**2

    def spectra(iqu: np.ndarray) -> np.ndarray:
        t, q, u = np.fft.fft2(iqu - iqu.mean((1, 2), keepdims=True))
        e, b = turn.real * q - turn.imag * u, turn.real * u + turn.imag * q
        found = []
        for x, y in ((t, t), (e, e), (b, b), (t, e), (e, b), (t, b)):
            product = (x.real * y.real + x.imag * y.imag).ravel()
            found.append(np.bincount(shell, product)[1 : len(edges)] / count * norm)
        return np.stack(found)

    return spectra


def polarisation(n: int, maps: int, kind: str) -> Case:
    """``kind``: "periodic", "tapered" or "pure"."""
    grid = cube(n, 2) if kind == "periodic" else Grid((n, n), 10.0, "deg", periodic=False)
    x = white(grid, maps, 3)
    if kind == "periodic":
        ours = Polarisation(grid)
        by_numpy = e_and_b_by_numpy(grid, ours.spectrum.edges)
        first = x[0].numpy()
        peers = [
            Peer(
                "numpy.fft.fft2, mode by mode",
                lambda: by_numpy(first),
                1,
                lambda: (ours(x[:1])[0], by_numpy(first)),
            )
        ]
    else:
        ours = Polarisation(grid, apodise="hann", leakage="pure" if kind == "pure" else "tapered")
        peers = []
    forward = 6 if kind == "pure" else 3
    peers.append(Peer(f"{forward} bare torch.fft.rfftn", transforms(x, forward), maps))
    return Case(f"E and B, {kind}", size(grid.shape, maps), lambda: ours(x), maps, peers)
