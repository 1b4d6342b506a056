"""Fields larger than a denoiser's own size, by windows that overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from gen.diffusion.solver import Denoiser
from gen.errors import InputError


class Windowed:
    """A ``Denoiser`` of fields of any shape, from one of windows of a fixed shape.

    At every level the noised field is read in windows, each is denoised by itself, and the cells of the
    field are means over the windows that hold them, with smooth weights that sum to 1 (the idea of
    MultiDiffusion; Bar-Tal et al. 2023, arXiv:2302.08113). The noise is the caller's field x, one for the
    whole: windows that overlap see the same, so there are no seams and a seed has one field.

    A denoiser that hears no further than ``margin``, and is the same wherever a window begins (a network with
    coarser levels is so at multiples of its factor), gives exactly what it would give of the whole field.
    Else the mean of the field given all of x is replaced by means given the cells within a window, whose
    waves are told apart to about one wave a window and no better: the spectrum comes out as if smoothed to
    that. Where it is smooth, waves shorter than half a window, L, have their power within 2.5 % and up to L
    within 6 % (of a Gaussian field with P ~ (1 + k^2 L^2 / 40)^-1.5, overlaps of L / 2). Longer waves get the
    mean power of all that looks alike in a window: those of this spectrum come out 8 % low as k goes to 0,
    and waves that the field lacks come out in strength if their neighbours are strong. Where the longest
    waves matter, take them from a field of coarser cells.

    Args:
        denoise: of windows ``(n B, C, *window)``, the B rows of one window after those of another: what is
            known of row i of the field is known of rows i, i + B, i + 2 B, ...
        window: cells along each axis.
        overlap: cells that neighbouring windows share, at least; half a window is smooth.
        margin: cells at the faces within the field that a window is not believed in, such as a network's
            halo; the weights rise over what is left of the overlap.
        periodic: whether windows go on beyond the faces of the field, along axes as long as a window too.
        batch: windows at once.

    Raises:
        InputError: for overlaps and margins that leave nothing.
    """

    def __init__(
        self,
        denoise: Denoiser,
        window: Sequence[int],
        overlap: int,
        margin: int = 0,
        *,
        periodic: bool,
        batch: int = 16,
    ) -> None:
        if not 0 <= 2 * margin <= overlap < min(window):
            raise InputError(
                f"windows must share at least twice the margin and less than their side of {min(window)} "
                f"cells, got an overlap of {overlap} and a margin of {margin}"
            )
        if batch < 1:
            raise InputError(f"a batch of windows must be at least 1, got {batch}")
        self.denoise, self.window, self.periodic, self.batch = denoise, tuple(window), periodic, batch
        self.overlap, self.margin = overlap, margin

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """D of ``x (B, C, *shape)``.

        Raises:
            InputError: for a shape that a window does not fit in.
        """
        places, axes = self._plan(x.shape[2:])
        out = torch.zeros_like(x)
        at_once = max(1, self.batch // len(x))
        for first in range(0, len(places), at_once):
            part = places[first : first + at_once]
            cells = [self._cells(place, x.shape[2:], x.device) for place in part]
            made = self.denoise(torch.cat([x[(..., *mesh)] for mesh in cells]), sigma)
            for place, mesh, d in zip(part, cells, made.split(len(x)), strict=True):
                out[(..., *mesh)] += _product([axes[a][start] for a, start in enumerate(place)]).to(d) * d
        return out

    def weights(self, shape: Sequence[int]) -> Tensor:
        """What the weights sum to, ``shape``, float64: 1 in every cell."""
        places, axes = self._plan(shape)
        total = torch.zeros(tuple(shape), dtype=torch.float64)
        for place in places:
            mesh = self._cells(place, shape, total.device)
            total[mesh] += _product([axes[a][start] for a, start in enumerate(place)])
        return total

    def _plan(self, shape: Sequence[int]) -> tuple[list[tuple[int, ...]], list[dict[int, Tensor]]]:
        """First cells of all windows, and along each axis the weights of those that begin at a cell."""
        if len(shape) != len(self.window) or any(n < w for n, w in zip(shape, self.window, strict=True)):
            raise InputError(
                f"a field must be as large as a window of {self.window} or larger, got {tuple(shape)}; "
                "denoise it whole, or take smaller windows"
            )
        axes = [self._along(n, w) for n, w in zip(shape, self.window, strict=True)]
        return list(product(*axes)), axes

    def _along(self, n: int, w: int) -> dict[int, Tensor]:
        """Weights ``(w,)`` of the windows along one axis by their first cell; they sum to 1 in every cell."""
        reach = w - self.overlap
        if self.periodic:
            count = math.ceil(n / reach)
            starts = [i * n // count for i in range(count)]
        else:
            count = 1 + math.ceil((n - w) / reach)
            starts = [i * (n - w) // max(count - 1, 1) for i in range(count)]
        rise = _rise(w, self.margin, self.overlap - 2 * self.margin)
        raw: dict[int, Tensor] = {}
        for start in starts:
            left = self.periodic or start > 0
            right = self.periodic or start < n - w
            ones = torch.ones_like(rise)
            raw[start] = (rise if left else ones) * (rise.flip(0) if right else ones)
        total = torch.zeros(n, dtype=torch.float64)
        for start, weight in raw.items():
            total[(start + torch.arange(w)) % n] += weight
        return {start: weight / total[(start + torch.arange(w)) % n] for start, weight in raw.items()}

    def _cells(self, place: Sequence[int], shape: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """Indices of a window's cells, to broadcast."""
        ranges = [
            (start + torch.arange(w, device=device)) % n
            for start, w, n in zip(place, self.window, shape, strict=True)
        ]
        return torch.meshgrid(*ranges, indexing="ij")


def _rise(w: int, margin: int, ramp: int) -> Tensor:
    """Of ``w`` cells: 0 in the margin, sin^2 over the ramp, then 1."""
    phase = (torch.arange(w, dtype=torch.float64) - margin + 0.5) / max(ramp, 0.5)
    return (0.5 * math.pi * phase.clamp(0, 1)).sin().square()


def _product(weights: Sequence[Tensor]) -> Tensor:
    """The outer product of one weight an axis."""
    total = weights[0]
    for weight in weights[1:]:
        total = total[..., None] * weight
    return total
