"""What chooses the best deterministic emulator while it trains: errors field by field, on held-out boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen.emulators.conditioning import evenly
from gen.emulators.particles import eulerian
from gen.errors import InputError
from gen.fields import Grid

if TYPE_CHECKING:
    from gen.data.base import SimulationSet
    from gen.training.regression import FieldToField

#: Bands of wavenumber in shares of the Nyquist wavenumber.
BANDS = {"large": (0.0, 0.25), "middle": (0.25, 0.5), "small": (0.5, 1.0)}


class PairedValidation:
    r"""Errors of made fields against the true ones of the same boxes, beside those of the closed form.

    ``score``: mean over boxes of the root mean square error over that of the emulator's closed form (2LPT),
    of the first ``dim`` channels where they are a displacement, else of all. ``position_error``: the same
    over the root mean square displacement, and ``closed_form_error`` the closed form's. ``velocity``: as
    ``score``, of the channels after the displacement's.

    In bands of the Eulerian density's wavenumber (of the field itself, if it is no displacement), in
    quarters of the Nyquist wavenumber: ``transfer`` T = sqrt(P_made / P_true), ``stochasticity``
    1 - r^2 with r the cross-correlation coefficient, and ``stochasticity_ratio`` that over the closed
    form's; each the mean over boxes (of the ratio: the ratio of means).

    Args:
        reference: the validation simulations with their coarse fields, physical units.
        n: boxes to use, evenly spread.
        emulator: whose closed form is the baseline.

    Raises:
        InputError: without coarse fields.
    """

    def __init__(self, reference: SimulationSet, n: int, emulator: FieldToField) -> None:
        if reference.coarse is None or not len(reference):
            raise InputError(
                f"validation of a field-to-field emulator needs held-out pairs of coarse and true fields, "
                f"got {len(reference)} boxes, coarse fields: {reference.coarse is not None}"
            )
        self.grid = reference.grid
        n = min(n, len(reference))
        self.example_rows = evenly(len(reference), n)
        self.params = reference.params[self.example_rows].float()
        self.coarse = reference.coarse[self.example_rows].float()
        self.true = reference.values[self.example_rows].float()
        dim = self.grid.dim
        self.displaced = tuple(range(dim)) in reference.vector_channels
        self.main = slice(0, dim) if self.displaced else slice(None)
        with torch.no_grad():
            pairs = zip(self.coarse.split(16), self.params.split(16), strict=True)
            self.closed = torch.cat([emulator.closed_form(*pair) for pair in pairs])
        self.bins = _bands(self.grid)
        self.true_density = self.shown(self.true)
        self.closed_stochasticity = self._spectra(self.closed)[1]

    def __len__(self) -> int:
        return len(self.params)

    def shown(self, values: Tensor) -> Tensor:
        """The Eulerian density of displacements ``(B, 1, *shape)``, any other field as it is."""
        dim = self.grid.dim
        if not self.displaced:
            return values
        return torch.cat([eulerian(part, self.grid) for part in values[:, :dim].split(16)])

    def __call__(self, values: Tensor) -> dict[str, float]:
        """Statistics of fields ``(len(self), C, *shape)`` made at ``self.coarse``, ``self.params``."""
        error, baseline = (self._error(x, self.main) for x in (values, self.closed))
        size = self._error(torch.zeros_like(self.true), self.main)
        result = {
            "score": _mean(error / baseline),
            "position_error": _mean(error / size),
            "closed_form_error": _mean(baseline / size),
        }
        rest = slice(self.grid.dim, None)
        if self.displaced and values.shape[1] > self.grid.dim:
            result["velocity"] = _mean(self._error(values, rest) / self._error(self.closed, rest))
        transfer, stochasticity = self._spectra(values)
        for i, band in enumerate(BANDS):
            result[f"transfer_{band}"] = _mean(transfer[:, i])
            result[f"stochasticity_{band}"] = _mean(stochasticity[:, i])
            ratio = stochasticity[:, i].mean() / self.closed_stochasticity[:, i].mean().clamp(min=1e-30)
            result[f"stochasticity_ratio_{band}"] = float(ratio)
        return result

    def _error(self, values: Tensor, channels: slice) -> Tensor:
        """Root mean square over cells of the length of the difference, ``(B,)``."""
        difference = (values - self.true)[:, channels]
        return difference.square().sum(1).flatten(1).mean(1).sqrt().clamp(min=1e-30)

    def _spectra(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """T and 1 - r^2 of each box and band, ``(B, bands)``."""
        axes = tuple(range(2, 2 + self.grid.dim))
        made = torch.fft.rfftn(self.shown(values), dim=axes)
        true = torch.fft.rfftn(self.true_density, dim=axes)
        both = (made.abs().square(), true.abs().square(), (made * true.conj()).real)
        ours, theirs, cross = (
            torch.einsum("bcm,mk->bk", x.flatten(2).double(), self.bins).clamp(min=1e-30) for x in both
        )
        return (ours / theirs).sqrt(), 1 - cross.square() / (ours * theirs)


def _bands(grid: Grid) -> Tensor:
    """Weight of each mode of the rfftn lattice in each band, ``(modes, bands)``, float64."""
    share = grid.wavenumber() / grid.k_nyquist
    weight = torch.full(share.shape, 2.0, dtype=torch.float64)
    weight[..., 0] = 1.0
    if grid.shape[-1] % 2 == 0:
        weight[..., -1] = 1.0
    inside = [(share > low) & (share <= high) for low, high in BANDS.values()]
    return torch.stack([weight * band for band in inside], -1).flatten(0, -2)


def _mean(x: Tensor) -> float:
    return float(x.double().mean())
