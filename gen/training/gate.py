"""What an autoencoder must keep of fields it has not seen before anything is learned from its latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gen.emulators.autoencoder import Autoencoder
from gen.emulators.sharpened import tapered
from gen.errors import InputError
from gen.fields import Grid
from gen.noise import sample_generator
from gen.training.validation import Validation

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

SCORES = torch.linspace(-3, 3, 25)
"""Normal scores at which one-point laws are compared."""
MOST, DRAWS = 512, 4
"""Held-out fields that a gate looks at, and what is drawn of each where latents do not tell all."""


class Lost(NamedTuple):
    """Largest relative error of P(k) up to half the Nyquist wavenumber, where it is [``grid.k_unit``], and
    the error of the PDF over the floor of real fields against real ones."""

    power: float
    k: float
    pdf: float


@dataclass(frozen=True)
class Gate:
    """What may be lost: of the power in any bin, and of the PDF over the floor.

    Args:
        power: largest relative error of P(k) in bins of a fundamental wavenumber, up to half of Nyquist's.
        pdf: largest error of the PDF, in units of what two sets of real simulations of the same number
            differ by.

    Raises:
        InputError: for limits that are not positive.
    """

    power: float = 0.02
    pdf: float = 2.0

    def __post_init__(self) -> None:
        if not (self.power > 0 and self.pdf > 0):
            raise InputError(f"a gate needs positive limits, got power {self.power:g} and pdf {self.pdf:g}")

    def excess(self, lost: Lost) -> float:
        """The larger of both errors over its limit: what is above 1 is refused."""
        return max(lost.power / self.power, lost.pdf / self.pdf)

    def check(self, autoencoder: Autoencoder, reference: SimulationSet) -> Lost:
        """Hold decoded fields of held-out simulations against the fields themselves.

        Raises:
            InputError: if too much is lost, with the figures.
        """
        fields = torch.arange(0, len(reference), max(1, -(-len(reference) // MOST)))
        draws = torch.arange(DRAWS if autoencoder.coding.completed else 1)
        rows = fields.repeat(len(draws))
        values, params = reference.values[rows].float(), reference.params[rows].float()
        noise = rows + len(reference) * draws.repeat_interleave(len(fields))
        parts = zip(values.split(16), params.split(16), noise.split(16), strict=True)
        made = torch.cat([reconstructed(autoencoder, *part) for part in parts])
        lost = lost_of(autoencoder, made, values, params, reference.simulation[rows])
        if not self.excess(lost) <= 1:
            where = f"k = {lost.k:.3g} {autoencoder.grid.k_unit}"
            raise InputError(
                f"the autoencoder loses too much to learn from its latents: in {len(fields)} held-out fields "
                f"P(k) is off by {100 * lost.power:.3g} % at {where} (allowed up to half of Nyquist: "
                f"{100 * self.power:g} %), the PDF by {lost.pdf:.3g} times the floor of real against real "
                f"(allowed: {self.pdf:g}); train it longer, or compress less"
            )
        return lost


@torch.no_grad()
def reconstructed(autoencoder: Autoencoder, values: Tensor, params: Tensor, rows: Tensor) -> Tensor:
    """Decoded latents of fields, on the CPU; what is drawn depends on the field's number, ``rows (B,)``."""
    was_training = autoencoder.training
    autoencoder.eval()
    try:
        on = [x.to(autoencoder.device) for x in (values, params)]
        generators = [sample_generator(0, int(row), "gate") for row in rows]
        return autoencoder.generate(on[1], generators, on[0]).float().cpu()
    finally:
        autoencoder.train(was_training)


@torch.no_grad()
def lost_of(autoencoder: Autoencoder, made: Tensor, real: Tensor, params: Tensor, group: Tensor) -> Lost:
    """What fields ``made`` have lost of ``real`` ones ``(N, 1, *shape)`` at parameters ``(N, P)``.

    The PDF is compared as shares of cells above normal scores. Its floor is known without a second set: two
    sets of S simulations differ in a share by ``sqrt(2 / S)`` times its scatter between simulations.

    Args:
        group: simulation of each field, ``(N,)``.

    Raises:
        InputError: for fewer than 2 simulations.
    """
    weight = 1 / real.double().var(tuple(range(1, real.ndim)), keepdim=True)
    powers = [_power(autoencoder.grid, x, weight) for x in (made, real)]
    error = (powers[0] / powers[1] - 1).abs()
    worst = int(error.nan_to_num(nan=math.inf).argmax())
    _, label = torch.unique(group, return_inverse=True)
    n = int(label.max()) + 1
    if n < 2:
        raise InputError("a gate needs 2 held-out simulations or more to know their scatter; got one")
    shares = [_by_group(_shares(autoencoder, x, params), label, n) for x in (made, real)]
    scatter = shares[1].var(0)
    floor = (2 / n) * (scatter + 0.01 * scatter.median() + 1e-30)
    pdf = ((shares[0] - shares[1]).mean(0).square() / floor).mean().sqrt()
    return Lost(float(error[worst]), (worst + 1) * autoencoder.grid.k_fundamental, float(pdf))


class ReconstructionValidation(Validation):
    """As ``Validation`` of decoded fields against the fields, with the gate's figures.

    ``power_error``: the largest of P(k) up to half of Nyquist's wavenumber; ``pdf_error``: over the floor;
    ``score``: the larger of both over the limits of ``Gate``, which lets pass what is below 1. What draws the
    waves that it does not keep is within them from the first, and is told apart by the distance: its score
    is that, times what is above 1.
    """

    def __init__(self, reference: SimulationSet, n: int, autoencoder: Autoencoder) -> None:
        super().__init__(reference, n)
        self.autoencoder = autoencoder
        #: What is encoded and decoded.
        self.coarse = reference.values[self.example_rows].float()
        self.simulation = reference.simulation[self.example_rows]

    def __call__(self, values: Tensor) -> dict[str, float]:
        """Statistics of fields that were decoded from latents of ``self.coarse``."""
        lost = lost_of(self.autoencoder, values, self.coarse, self.params, self.simulation)
        told, excess = super().__call__(values), Gate().excess(lost)
        score = told["score"] * max(1.0, excess) if self.autoencoder.reconstructs else excess
        return {**told, "power_error": lost.power, "pdf_error": lost.pdf, "score": score}


def _power(grid: Grid, x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of P(k) in bins of a fundamental wavenumber, up to half of Nyquist's, float64."""
    bins = (grid.wavenumber() / grid.k_fundamental).round().long()
    last = max(1, int(grid.k_nyquist / grid.k_fundamental / 2))
    total = torch.zeros(int(bins.max()) + 1, dtype=torch.float64)
    members = torch.full((grid.shape[-1] // 2 + 1,), 2.0, dtype=torch.float64)
    members[0] = 1
    members[-1] = 2 - (grid.shape[-1] + 1) % 2
    for part, w in zip(x.split(16), weight.split(16), strict=True):
        total.index_add_(0, bins.flatten(), ((w * tapered(grid, part)).sum((0, 1)) * members).flatten())
    return total[1 : last + 1]


def _shares(autoencoder: Autoencoder, x: Tensor, params: Tensor) -> Tensor:
    """Share of each field's cells above each of ``SCORES``, ``(N, T)``, float64."""
    rows = []
    for part, theta in zip(x.split(16), params.split(16), strict=True):
        on = (tensor.to(autoencoder.device) for tensor in (part, theta))
        ordered = autoencoder.to_working(*on).flatten(1).sort(1).values.cpu()
        below = torch.searchsorted(ordered, SCORES.expand(len(ordered), -1).contiguous())
        rows.append(1 - below.double() / ordered.shape[1])
    return torch.cat(rows)


def _by_group(x: Tensor, label: Tensor, n: int) -> Tensor:
    """Means of rows of one label, ``(n, T)``."""
    count = torch.bincount(label, minlength=n).double()[:, None]
    return x.new_zeros(n, x.shape[1]).index_add(0, label, x) / count
