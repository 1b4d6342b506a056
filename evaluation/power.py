"""Power spectra: auto, cross, and the correlation of phases, of periodic boxes and of tapered patches."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from evaluation.base import on_grid
from gen.errors import InputError
from gen.fields import Grid

_GROUP_CELLS = 1 << 16

Apodise = Literal["hann"] | float | None


def shell_edges(grid: Grid, bins: int | None = None) -> np.ndarray:
    """Edges of shells centred on the multiples of the fundamental mode, up to Nyquist [k_unit].

    ``bins`` joins them to about that many shells of equal ratio (never splitting a shell).
    """
    k_f, k_nyquist = grid.k_fundamental, grid.k_nyquist
    last = int(k_nyquist / k_f * (1 + 1e-9))
    if bins is not None and bins < 1:
        raise InputError(f"a power spectrum needs at least one bin, got {bins}")
    steps = np.arange(1, last + 2) if bins is None else np.geomspace(1, last + 1, bins + 1)
    edges = (np.unique(np.rint(steps)) - 0.5) * k_f
    edges[-1] = min(edges[-1], k_nyquist * (1 + 1e-9))
    return edges


def taper(grid: Grid, apodise: Apodise) -> Tensor:
    """Product over the axes of a cosine taper (Tukey 1967) over a fraction of the side, ``grid.shape``.

    ``"hann"`` is the fraction 1, None no taper. The ends are half a cell outside, so no cell is lost.
    """
    fraction = {None: 0.0, "hann": 1.0}.get(apodise, apodise) if not isinstance(apodise, float) else apodise
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise InputError(f"apodise must be None, 'hann' or a fraction of the side in [0, 1], got {apodise!r}")
    window = torch.ones((), dtype=torch.float64)
    for n in grid.shape:
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        edge = torch.minimum(x, 1 - x) * 2 / fraction if fraction else torch.ones(n, dtype=torch.float64)
        window = window[..., None] * (1 - torch.cos(math.pi * edge.clamp(max=1))) / 2
    return window


def independent_modes(grid: Grid, edges: np.ndarray, window: Tensor, share: float = 0.999) -> np.ndarray:
    """``(n_bins,)`` modes of each shell that a tapered map has independently: N^2 / sum_kk' |C(k - k')|^2.

    C is the transform of w^2 over its zero mode: the correlation of two modes of tapered white noise
    (Feldman, Kaiser & Peacock 1994). Offsets k - k' are taken until they hold ``share`` of all |C|^2.
    """
    shell = torch.bucketize(grid.wavenumber(half=False), torch.from_numpy(edges), right=True) - 1
    shell[(0,) * grid.dim] = -1
    shell[shell == len(edges) - 1] = -1
    c = torch.fft.fftn(window.square()).abs().square()
    c = (c / c[(0,) * grid.dim]).reshape(-1)
    weight, order = c.sort(descending=True)
    kept = int((weight.cumsum(0) < share * weight.sum()).sum()) + 1
    pairs = torch.zeros(len(edges) - 1, dtype=torch.float64)
    for w, offset in zip(weight[:kept].tolist(), order[:kept].tolist(), strict=True):
        moved = shell.roll([int(i) for i in np.unravel_index(offset, grid.shape)], tuple(range(grid.dim)))
        pairs += w * torch.bincount(shell[(shell == moved) & (shell >= 0)], minlength=len(pairs))
    count = torch.bincount(shell[shell >= 0], minlength=len(pairs)).double()
    return (count**2 / pairs).numpy()


def _compressed(first: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    """A sparse matrix by compressed rows, which torch calls "beta" once in a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(first, columns, values, (len(first) - 1, width), check_invariants=True)


class PowerSpectrum:
    """P(k) = <|FFT(w (x - m))|^2> V / (N^2 <w^2>) in shells of k, dimensionless field -> [1/k_unit^dim].

    m is the mean of each map weighted by the taper w, so an offset of the whole map leaves no power. On a
    flat sky of angles k is the multipole and P(k) the C_ell. A shell holds ``n_modes`` of the full lattice (k
    and -k both); a Gaussian field scatters by P sqrt(2/n_modes). A taper correlates neighbouring modes, and
    ``n_modes`` is then the number of independent ones; a full one takes 40 and 6 % from the two lowest shells
    of white noise, with the mean that is subtracted.

    Args:
        grid: the grid of the fields, 2D or 3D, sides may differ.
        bins: None for a shell at every multiple of the fundamental mode, or how many to join them to.
        apodise: None, "hann" or the tapered fraction of the side, for grids that are not periodic.
        k_max: leave out shells that reach beyond it [k_unit]: where a beam has left only round-off.
    """

    def __init__(
        self,
        grid: Grid,
        bins: int | None = None,
        apodise: Apodise = None,
        name: str = "power",
        k_max: float = math.inf,
    ) -> None:
        self.grid = grid
        self.name = name
        self.label = r"$C_\ell$" if grid.angular else r"$P(k)$"
        self.unit = "multipole" if grid.angular else "h/Mpc"
        self.log = True
        edges = shell_edges(grid, bins)
        if not k_max >= edges[1]:
            raise InputError(
                f"no shell ends below k_max, the first at {edges[1]:g} {grid.k_unit}, got {k_max:g}; "
                "take a narrower beam or larger fields"
            )
        self.edges = edges[: 1 + np.count_nonzero(edges[1:] <= k_max)]
        self._window = None if not apodise else taper(grid, apodise)

        k = grid.wavenumber().reshape(-1)
        shell = torch.bucketize(k, torch.from_numpy(self.edges), right=True) - 1
        inside = (shell >= 0) & (shell < len(self.edges) - 1) & (k > 0)
        # the real transform keeps half of the lattice: modes off its first and last plane count twice
        twice = torch.full(grid.wavenumber().shape, 2.0, dtype=torch.float64)
        twice[..., 0] = 1
        if grid.shape[-1] % 2 == 0:
            twice[..., -1] = 1
        modes = inside.nonzero().flatten()
        modes = modes[torch.argsort(shell[modes], stable=True)]
        shell, weight = shell[modes], twice.reshape(-1)[modes]
        count = torch.bincount(shell, weights=weight)
        self.abscissa = (torch.bincount(shell, weights=weight * k[modes]) / count).numpy()
        self.n_modes = count.numpy()
        norm = math.prod(grid.k_sides) / grid.n_cells**2
        if self._window is not None:
            norm /= self._window.square().mean().item()
            self.n_modes = independent_modes(grid, self.edges, self._window)
        first = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(shell).cumsum(0)]).int()
        self._average = _compressed(first, modes.int(), weight / count[shell] * norm, len(k))

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: torch cannot send its compressed rows without a warning."""
        average = self._average
        parts = average.crow_indices(), average.col_indices(), average.values(), average.shape[1]
        return {**self.__dict__, "_average": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_average": _compressed(*state["_average"])}

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, n_bins)`` float64."""
        modes = (self.modes(x) for x in values.split(self.group))
        return torch.cat([self.average(f.real.square().add_(f.imag.square())) for f in modes])

    def cross(self, a: Tensor, b: Tensor) -> Tensor:
        """Cross spectrum of the pairs, <Re F_a F_b*> with the same normalisation, ``(B, n_bins)``."""
        groups = zip(a.split(self.group), b.split(self.group), strict=True)
        modes = ((self.modes(x), self.modes(y)) for x, y in groups)
        return torch.cat([self.average(f.real * g.real + f.imag * g.imag) for f, g in modes])

    def coherence(self, a: Tensor, b: Tensor) -> Tensor:
        """r(k) = P_ab / sqrt(P_aa P_bb), each averaged over its shell before the ratio, ``(B, n_bins)``.

        A field with itself gives 1, with its negative -1, independent fields 0 +- 1/sqrt(n_modes).
        """
        return self.cross(a, b) / (self(a) * self(b)).sqrt()

    @property
    def group(self) -> int:
        """How many maps to take at once, so that they stay in cache."""
        return max(1, _GROUP_CELLS // self.grid.n_cells)

    def modes(self, values: Tensor) -> Tensor:
        """F = FFT(w (x - m)) of ``(B, 1, *shape)`` on the half lattice, ``(B, n)``, precision as it came.

        The rounding of a single-precision transform is white, at about 1e-14 of the field's variance.
        """
        x = on_grid(values, self.grid)
        x = x if x.dtype == torch.float64 else x.float()
        axes = tuple(range(1, x.ndim))
        if self._window is None:
            x = x - x.mean(axes, keepdim=True)
        else:
            w = self._window.to(x)
            x = (x - (x * w).mean(axes, keepdim=True) / w.mean()) * w
        return torch.fft.rfftn(x, dim=axes).flatten(1)

    def average(self, products: Tensor) -> Tensor:
        """P(k) of products of ``modes``, |F|^2 or Re F G*: ``(B, n)`` -> ``(B, n_bins)`` float64."""
        average = self._average.to(products.device)
        return torch.stack([average @ p for p in products.double()])
