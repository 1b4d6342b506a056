"""Bispectrum of shells that close to triangles: equilateral, against the angle, squeezed; and reduced."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Part, levelled, on_grid
from evaluation.power import Apodise, shell_edges, taper
from gen.errors import InputError
from gen.fields import Grid

_GROUP_CELLS = 1 << 17

Shell = tuple[float, float]  # [low, high) in the grid's wavenumber
Sides = tuple[Shell, Shell, Shell]


def lattice_of(grid: Grid, sides: Sides) -> tuple[int, ...]:
    """The smallest lattice of 2^a, 3 2^a or 5 2^a cells a side on which no triangle closes by aliasing.

    Three modes alias if their integers on an axis add up to the number of cells.
    """
    reach = [[int(high * length / (2 * math.pi)) for _, high in sides] for length in grid.k_sides]
    need = [max(sum(r) + 1, 2 * max(r) + 2) for r in reach]
    return tuple(min(m << max(0, math.ceil(math.log2(n / m))) for m in (2, 6, 10)) for n in need)


class TriangleSum:
    """Sum of D(k1) D(k2) D(k3) over all k1 + k2 + k3 = 0 with each side in its shell.

    With I_i(x) = sum_{k in shell i} D(k) exp(ikx) on a lattice of M cells it is sum_x I_1 I_2 I_3 / M
    (Scoccimarro 2000, astro-ph/0004086; 2015, arXiv:1506.02729). D = 1 counts the triangles: ordered ones,
    k and -k both. The lattice is as coarse as the shells allow, so low ones cost little. Modes with an
    integer of half the cells have no partner of opposite sign and belong to no shell.

    Args:
        grid: the grid of the fields.
        triangles: ``(T, 3)`` shells (low, high).
    """

    def __init__(self, grid: Grid, triangles: Sequence[Sides]) -> None:
        self.triangles = triangles
        self._lattices = [lattice_of(grid, sides) for sides in triangles]
        k = grid.wavenumber().numpy()
        freq = [np.fft.fftfreq(n, 1 / n) for n in grid.shape[:-1]]
        freq.append(np.fft.rfftfreq(grid.shape[-1], 1 / grid.shape[-1]))
        integers = np.meshgrid(*[np.rint(f).astype(np.int64) for f in freq], indexing="ij")
        usable = (k > 0) & np.all([2 * abs(m) < n for m, n in zip(integers, grid.shape, strict=True)], axis=0)
        self.modes: dict[Shell, Tensor] = {}  # indices into the flattened half lattice
        self._place: dict[tuple[Shell, tuple[int, ...]], Tensor] = {}  # those of the same modes on a lattice
        for sides, lattice in zip(triangles, self._lattices, strict=True):
            for shell in set(sides) - {s for s, m in self._place if m == lattice}:
                where = np.nonzero(usable & (k >= shell[0]) & (k < shell[1]))
                self.modes[shell] = torch.from_numpy(np.ravel_multi_index(where, k.shape))
                signed = tuple(m[where] for m in integers)
                place = np.ravel_multi_index(signed, _half(lattice), mode="wrap")
                self._place[shell, lattice] = torch.from_numpy(place)

    def __call__(self, modes: Tensor) -> Tensor:
        """``(B, n)`` real transforms, flattened -> ``(B, T)`` float64."""
        out = []
        modes, level = levelled(modes)
        fields: dict[tuple[Shell, tuple[int, ...]], Tensor] = {}
        for sides, lattice in zip(self.triangles, self._lattices, strict=True):
            # neighbouring triangles share sides: what the last one used is at hand, the rest is let go
            keys = [(shell, lattice) for shell in sides]
            fields = {key: fields[key] if key in fields else self._filtered(modes, *key) for key in keys}
            a, b, c = (fields[key] for key in keys)
            # rows are short enough to be added in single precision, their sums are not
            out.append((a * b).mul_(c).sum(-1).double().flatten(1).sum(1) / math.prod(lattice))
        return torch.stack(out, dim=1) * level[:, None] ** 3

    def _filtered(self, modes: Tensor, shell: Shell, lattice: tuple[int, ...]) -> Tensor:
        half = _half(lattice)
        kept = modes.new_zeros((len(modes), math.prod(half)))
        kept[:, self._place[shell, lattice].to(modes.device)] = modes[:, self.modes[shell].to(modes.device)]
        axes = tuple(range(1, len(lattice) + 1))
        return torch.fft.irfftn(kept.reshape(-1, *half), s=lattice, dim=axes, norm="forward")


def _half(lattice: tuple[int, ...]) -> tuple[int, ...]:
    return (*lattice[:-1], lattice[-1] // 2 + 1)


def shells(grid: Grid, low: float, high: float, bins: int | None) -> list[Shell]:
    """The shells of ``shell_edges(grid, bins)`` that lie between two wavenumbers [k_unit]."""
    edges = shell_edges(grid, bins).tolist()
    slack = 1e-9 * high
    return [s for s in pairwise(edges) if s[0] >= low - slack and s[1] <= high + slack]


class Bispectrum:
    """B = <Re D(k1) D(k2) D(k3)> V^2 / (N^3 <w^3>) over closed triangles of three shells [1/k_unit^(2 dim)].

    D = FFT(w (x - m)), m the mean of each map weighted by the taper w. A Gaussian field has B = 0 with

        var B = V P1 P2 P3 / n_modes,

    n_modes the triangles that differ by more than the order of their sides, k and -k both (Fry, Melott &
    Shandarin 1993; Scoccimarro 2000, astro-ph/0004086). A taper correlates triangles; ``n_modes`` is then
    None. Triangles of which the lattice holds none are left out.

    Args:
        grid: the grid of the fields, 2D or 3D, sides may differ.
        triangles: ``(T, 3)`` shells (low, high) of the three sides [k_unit], below Nyquist.
        abscissa: ``(T,)`` what they are plotted against; None: the mean k of each first shell.
        unit: unit of the abscissa; None: the wavenumber's.
        apodise: None, "hann" or the tapered fraction of the side, for grids that are not periodic.
    """

    def __init__(
        self,
        grid: Grid,
        triangles: Sequence[Sides],
        abscissa: Sequence[float] | np.ndarray | None = None,
        unit: str | None = None,
        apodise: Apodise = None,
        name: str = "bispectrum",
        label: str = r"$B(k_1, k_2, k_3)$",
        log: bool = False,
    ) -> None:
        self.grid, self.name, self.label, self.log = grid, name, label, log
        self.unit = grid.k_unit if unit is None else unit
        top = max((high for sides in triangles for _, high in sides), default=0.0)
        if not 0 < top <= grid.k_nyquist * (1 + 1e-6):
            raise InputError(
                f"a bispectrum needs shells below the Nyquist wavenumber, {grid.k_nyquist:g} {grid.k_unit}, "
                f"got {len(triangles)} triangles of sides up to {top:g}; take smaller sides or a finer grid"
            )
        ones = torch.ones(1, grid.wavenumber().numel(), dtype=torch.complex128)
        count = TriangleSum(grid, triangles)(ones)[0].round().numpy()
        if not count.any():
            raise InputError("no three modes of the grid close to a triangle of these shells; widen them")
        triangles = [sides for sides, n in zip(triangles, count, strict=True) if n]
        abscissa = abscissa if abscissa is None else np.asarray(abscissa)[count > 0]
        self.triangles, self.n_triangles = triangles, count[count > 0]
        self._sum = TriangleSum(grid, triangles)
        k = grid.wavenumber()
        twice = torch.full_like(k, 2.0)
        twice[..., 0] = 1  # the real transform keeps half of the lattice, this plane whole
        self._twice = twice.reshape(-1)
        if abscissa is None:
            first = [self._sum.modes[sides[0]] for sides in triangles]
            abscissa = [float((twice * k).reshape(-1)[m].sum() / self._twice[m].sum()) for m in first]
        self.abscissa = np.asarray(abscissa, dtype=np.float64)

        self._window = taper(grid, apodise) if apodise else torch.ones((), dtype=torch.float64)
        moment = {p: self._window.pow(p).mean().item() for p in (2, 3)}
        volume = math.prod(grid.k_sides)
        self._norm = torch.from_numpy(volume**2 / grid.n_cells**3 / moment[3] / self.n_triangles)
        self._power_norm = volume / grid.n_cells**2 / moment[2]
        self.n_modes = None if apodise else self._distinct(ones)

    @classmethod
    def equilateral(cls, grid: Grid, bins: int | None = None, apodise: Apodise = None) -> Bispectrum:
        """k1 = k2 = k3 in shells up to 2/3 of Nyquist, beyond which 3 k reaches twice Nyquist."""
        found = [(s, s, s) for s in shells(grid, 0.0, grid.k_nyquist * 2 / 3, bins)]
        return cls(grid, found, None, None, apodise, "bispectrum", r"$B(k, k, k)$", True)

    @classmethod
    def isosceles(
        cls,
        grid: Grid,
        k1: float,
        k2: float | None = None,
        n_angles: int = 20,
        apodise: Apodise = None,
        name: str = "bispectrum_isosceles",
    ) -> Bispectrum:
        """Fixed k1 and k2 (None: the same) against the angle theta between them, evenly from 0 to pi [rad].

        k3^2 = k1^2 + k2^2 + 2 k1 k2 cos theta, all in shells one fundamental mode wide, as in HIGAN
        (Zamudio-Fernandez et al. 2019, arXiv:1904.12846). Near theta = 0 neighbouring shells of k3 overlap.
        """
        k2 = k1 if k2 is None else k2
        if n_angles < 1 or not min(k1, k2) > 0:
            raise InputError(f"k1, k2 and n_angles must be positive, got {k1:g}, {k2:g} and {n_angles}")
        theta = (np.arange(n_angles) + 0.5) * math.pi / n_angles
        half = grid.k_fundamental / 2
        third = np.sqrt(k1**2 + k2**2 + 2 * k1 * k2 * np.cos(theta)).tolist()
        one, two, *others = ((max(0.0, k - half), k + half) for k in (k1, k2, *third))
        found = [(one, two, s) for s in others]
        return cls(grid, found, theta, "rad", apodise, name, r"$B(k_1, k_2, \theta)$")

    @classmethod
    def squeezed(
        cls, grid: Grid, n_long: int = 1, bins: int | None = None, apodise: Apodise = None
    ) -> Bispectrum:
        """k3 in the lowest ``n_long`` shells joined, k1 = k2 in shells above them up to Nyquist."""
        if n_long < 1:
            raise InputError(f"the long side needs at least one shell, got n_long = {n_long}")
        long = (0.5 * grid.k_fundamental, (n_long + 0.5) * grid.k_fundamental)
        found = [(s, s, long) for s in shells(grid, long[1], grid.k_nyquist, bins)]
        return cls(grid, found, None, None, apodise, "bispectrum_squeezed", r"$B(k, k, k_{\rm long})$", True)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, T)`` float64."""
        return torch.cat([self._bispectrum(modes) for modes in self._transforms(values)])

    def with_power(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """B ``(B, T)`` and the power of each side's shell ``(B, T, 3)``, normalised as ``PowerSpectrum``."""
        found = [(self._bispectrum(modes), self._power(modes)) for modes in self._transforms(values)]
        return torch.cat([b for b, _ in found]), torch.cat([p for _, p in found])

    def _transforms(self, values: Tensor) -> Iterator[Tensor]:
        x = on_grid(values, self.grid)
        x = x if x.dtype == torch.float64 else x.float()
        w, axes = self._window.to(x), tuple(range(1, x.ndim))
        for group in x.split(max(1, _GROUP_CELLS // self.grid.n_cells)):
            centred = group - (group * w).mean(axes, keepdim=True) / w.mean()
            yield torch.fft.rfftn(centred * w, dim=axes).flatten(1)

    def _bispectrum(self, modes: Tensor) -> Tensor:
        return self._sum(modes) * self._norm.to(modes.device)

    def _power(self, modes: Tensor) -> Tensor:
        power = {}
        for shell, where in self._sum.modes.items():
            weight = self._twice[where].to(modes.device)
            squares = modes[:, where.to(modes.device)].to(torch.complex128).abs().square()
            power[shell] = squares @ (weight / weight.sum() * self._power_norm)
        return torch.stack([torch.stack([power[s] for s in sides], 1) for sides in self.triangles], 1)

    def _distinct(self, ones: Tensor) -> np.ndarray:
        """N^2 over the number of pairs of triangles with the same sides in any order: 6, 2 or 1 times N."""
        orders = [[_shared(sides, order) for order in permutations(sides)] for sides in self.triangles]
        held = sorted({sides for row in orders for sides in row if all(low < high for low, high in sides)})
        count = dict(zip(held, TriangleSum(self.grid, held)(ones)[0].round().tolist(), strict=True))
        pairs = [sum(count.get(sides, 0.0) for sides in row) for row in orders]
        return self.n_triangles**2 / np.array(pairs)


def _shared(a: Sides, b: Sequence[Shell]) -> Sides:
    one, two, three = ((max(s[0], t[0]), min(s[1], t[1])) for s, t in zip(a, b, strict=True))
    return one, two, three


class ReducedBispectrum:
    """Q = B / (P1 P2 + P2 P3 + P3 P1), to first order about the mean B and P of a reference.

    The ratio of one map's own B and P is biased, for P is noisy and goes with B from map to map: its mean is
    not the Q of the ensemble, at any number of maps. With Q_r and S_r = P1 P2 + P2 P3 + P3 P1 of the mean
    spectra of a reference,

        q = (B - Q_r sum_i P_i dS/dP_i) / S_r + 2 Q_r

    is linear in the map's B and P. Its mean over the reference is Q_r, over other maps their own Q, up to
    (Delta P / P)^2: where the power is 5 % off and Q is right, q is 0.3 % off. What B owes to a map's chance
    excess of power drops out. (Q: Fry 1984, Groth & Peebles 1977; the linear form is the delta method's.)

    Args:
        bispectrum: which triangles.
        mean, power: ``(T,)`` and ``(T, 3)`` of a reference, as ``Bispectrum.with_power`` gives.
    """

    def __init__(self, bispectrum: Bispectrum, mean: np.ndarray, power: np.ndarray) -> None:
        self.bispectrum = bispectrum
        self.name = bispectrum.name + "_reduced"
        self.label = bispectrum.label.replace("$B", "$Q")
        self.abscissa, self.unit, self.n_modes = bispectrum.abscissa, bispectrum.unit, bispectrum.n_modes
        self.log = False
        power = np.asarray(power, dtype=np.float64)
        if power.shape != (len(self.abscissa), 3) or not (power > 0).all():
            raise InputError(
                "the reference must have power in every shell, in rows of three as the triangles"
            )
        self._slope = torch.from_numpy(power.sum(1, keepdims=True) - power)  # dS/dP_i
        self._scale = torch.from_numpy((power * self._slope.numpy()).sum(1) / 2)
        self._reduced = torch.from_numpy(np.asarray(mean, dtype=np.float64)) / self._scale

    @classmethod
    def from_reference(cls, bispectrum: Bispectrum, values: Tensor) -> ReducedBispectrum:
        """About the means over ``(N, 1, *shape)`` reference fields."""
        found = [bispectrum.with_power(v) for v in values.split(64)]
        mean, power = (torch.cat(rows).mean(0).cpu().numpy() for rows in zip(*found, strict=True))
        return cls(bispectrum, mean, power)

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, T)`` float64."""
        return self.joint(values)[:, 1]

    def joint(self, values: Tensor) -> Tensor:
        """``(B, 2, T)``: B and q of one pass."""
        b, power = self.bispectrum.with_power(values)
        slope, scale, reduced = (x.to(b.device) for x in (self._slope, self._scale, self._reduced))
        return torch.stack([b, (b - reduced * (power * slope).sum(-1)) / scale + 2 * reduced], 1)

    def parts(self) -> tuple[Part, Part]:
        """B and q as statistics that share one pass in ``measure``."""
        b, q = (
            Part(self.joint, i, s.name, s.label, s.abscissa, s.unit, s.n_modes, s.log)
            for i, s in enumerate((self.bispectrum, self))
        )
        return b, q
