"""Minkowski functionals as statistics, by our own pass or by quantimpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from evaluation.base import Part, on_grid, reference_pixels
from evaluation.excursion import cubic_spacing, excursion_functionals
from gen.errors import InputError
from gen.fields import Grid

Functionals = Callable[[Grid, Tensor, Tensor], Tensor]


def quantimpy_functionals(grid: Grid, values: Tensor, thresholds: Tensor) -> Tensor:
    """The same by quantimpy (GPL-3, optional), threshold by threshold: the reference to test against.

    Known limits of quantimpy 0.2.6: chi joins no diagonal neighbours (ours is the mean of both readings);
    in 3D the mean curvature overflows where it is negative (NaN here), and chi is off by 1/4 or 1/24 for
    each cell in which exactly two or three corners are empty, two of them at opposite ends of the cube.
    """
    try:
        from quantimpy import minkowski  # pyright: ignore[reportAttributeAccessIssue]
    except (ImportError, ValueError) as error:
        raise InputError(
            f"quantimpy cannot be imported ({error}); install the extra 'quantimpy', "
            "built from source against NumPy 2 as the README shows"
        ) from error
    spacing = cubic_spacing(grid)
    pad = ((0, 1),) * grid.dim
    factor = {
        2: (1.0, 2 * math.pi / 4, math.pi),
        3: (1.0, 8 / 6, 2 * math.pi**2 / (3 * math.pi), 4 * math.pi / 3),
    }[grid.dim]
    out = np.zeros((len(values), grid.dim + 1, len(thresholds)))
    for b, field in enumerate(values.cpu().numpy()):
        for t, nu in enumerate(thresholds.to(values).cpu().numpy()):
            mask = field >= nu
            if not mask.any():  # it raises IndexError
                continue
            mask = np.pad(mask, pad, mode="wrap") if grid.periodic else np.ascontiguousarray(mask)
            out[b, :, t] = np.multiply(minkowski.functionals(mask), factor)
    out[:, 2][np.abs(out[:, 2]) > 1e12] = np.nan
    cells = math.prod(n - (0 if grid.periodic else 1) for n in grid.shape)
    scale = np.array([spacing**-k / cells for k in range(grid.dim + 1)])
    return torch.from_numpy(out * scale[:, None])


class Minkowski:
    """All Minkowski functionals at fixed thresholds; ``functionals()`` gives them as statistics.

    Args:
        grid: the grid of the fields, cubic cells.
        thresholds: ``(T,)`` increasing, in the unit of the field.
        mean, std: of the reference; the abscissa is nu = (threshold - mean) / std.
        backend: ``excursion_functionals`` or ``quantimpy_functionals``.
    """

    def __init__(
        self,
        grid: Grid,
        thresholds: Sequence[float] | np.ndarray,
        mean: float = 0.0,
        std: float = 1.0,
        backend: Functionals = excursion_functionals,
    ) -> None:
        self.grid = grid
        self.thresholds = np.asarray(thresholds, dtype=np.float64)
        self.nu = (self.thresholds - mean) / std
        self.backend = backend
        cubic_spacing(grid)
        if self.thresholds.ndim != 1 or not (np.diff(self.thresholds) > 0).all():
            raise InputError(f"thresholds must be one increasing list, got {self.thresholds.tolist()}")

    @classmethod
    def from_reference(
        cls,
        grid: Grid,
        values: Tensor,
        n_thresholds: int = 25,
        nu: tuple[float, float] = (-2.5, 3.25),
        backend: Functionals = excursion_functionals,
    ) -> Minkowski:
        """Thresholds at the quantiles of the reference that a normal law would reach at equal steps of nu.

        Every threshold then cuts through the reference, however skewed its law is. Cells of one lowest value,
        such as empty ones of a density, lie below all thresholds.
        """
        pixels = reference_pixels(values)
        low, high = nu
        lowest = pixels == pixels.min()
        if 1 < lowest.sum() < len(pixels):
            low = max(low, float(ndtri(lowest.mean())) + (high - low) / n_thresholds)
        thresholds = np.quantile(pixels, ndtr(np.linspace(low, high, n_thresholds)))
        if not (np.diff(thresholds) > 0).all():
            raise InputError(
                "the reference takes too few distinct values for thresholds between its quantiles"
            )
        return cls(grid, thresholds, float(pixels.mean()), float(pixels.std()), backend)

    @classmethod
    def of_logarithm(
        cls,
        grid: Grid,
        values: Tensor,
        n_thresholds: int = 25,
        nu: tuple[float, float] = (-2.5, 3.25),
        backend: Functionals = excursion_functionals,
    ) -> Minkowski:
        """The same thresholds with nu that of ln x, for positive fields that span decades.

        An excursion set is the same for any increasing function of the field, so V_k(ln x) are V_k(x).
        """
        found = cls.from_reference(grid, values, n_thresholds, nu, backend)
        if found.thresholds[0] <= 0:
            raise InputError(
                f"thresholds on a logarithm must be positive, and the lowest one is {found.thresholds[0]:g}; "
                "take minkowski instead"
            )
        pixels = reference_pixels(values)
        log = np.log(pixels[pixels > 0])
        found.nu = (np.log(found.thresholds) - log.mean()) / log.std()
        return found

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, 1, *shape)`` -> ``(B, d+1, T)`` float64."""
        field = on_grid(values, self.grid)
        return self.backend(self.grid, field, torch.from_numpy(self.thresholds))

    def functionals(self) -> tuple[Part, ...]:
        """V0 ... Vd as statistics that share one pass in ``measure``."""
        unit = self.grid.unit
        powers = ("", f" [{unit}$^{{-1}}$]", f" [{unit}$^{{-2}}$]", f" [{unit}$^{{-3}}$]")
        return tuple(
            Part(self, k, f"V{k}", f"$V_{k}(\\nu)${powers[k]}", self.nu, "sigma")
            for k in range(self.grid.dim + 1)
        )
