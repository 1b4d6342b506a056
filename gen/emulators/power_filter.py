"""The last per cents of power: a filter of a sampler's normal scores, measured once it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen.emulators.regression import Polynomial
from gen.emulators.sharpened import BATCH, Draw, change_of_power, drawn, powers_at_nodes
from gen.emulators.torus import Torus, times

if TYPE_CHECKING:
    from gen.emulators.copula import Copula


class PowerFilter(nn.Module):
    r"""``F y``: each wave of y times ``a(k; theta)``, the identity until it is measured.

    On a grid that is not periodic the waves are cosines (DCT-II), so that F is symmetric, has an inverse and
    a determinant, and needs no margin.

    Args:
        copula: whose grid, nodes in wavenumber and knots it takes.
        degree: of ln a in the parameters.
        most: factor of power at most, or over it. What the power of fields does not answer to, as short waves
            of scores between peaks, is asked for more and more else.
    """

    def __init__(self, copula: Copula, degree: int = 1, most: float = math.inf) -> None:
        super().__init__()
        self.most = math.log(most)
        self.grid, self.offset, self.degree = copula.grid, 12 * copula.grid.k_fundamental, degree
        self.nodes = nn.Buffer(copula.nodes.clone())
        self.log_power = Polynomial(copula.space, copula.n_k, degree, copula.knots)

    def forward(self, y: Tensor, params: Tensor, *, inverse: bool = False) -> Tensor:
        """F, or its inverse, of fields ``(B, 1, *shape)``."""

        def amplitude(lattice: Sequence[int]) -> Tensor:
            logs = self._log_amplitude(lattice, params).unsqueeze(1)
            return (-logs if inverse else logs).exp()

        return times(self.grid, y, amplitude)

    def log_determinant(self, shape: torch.Size, params: Tensor) -> Tensor:
        """ln |F| of fields of these sides, ``(B,)`` float64."""
        if self.grid.periodic:
            logs = self._log_amplitude(shape, params).double()
            return (logs * self._lattice(shape).multiplicity.to(logs.device)).flatten(1).sum(1)
        logs = self._log_amplitude([2 * n for n in shape], params).double()
        return logs[(..., *(slice(0, n) for n in shape))].flatten(1).sum(1)

    def _lattice(self, shape: Sequence[int]) -> Torus:
        return Torus(self.grid.resized(list(shape)), self.offset)

    def _log_amplitude(self, shape: Sequence[int], params: Tensor) -> Tensor:
        logs = self.log_power(params).clamp(-self.most, self.most) / 2
        return self._lattice(shape).on_lattice(logs, self.nodes.to(params))

    @torch.no_grad()
    def fit(self, change: Callable[[], Tensor], rounds: int = 2) -> None:
        """Change F until fields that go through it have the power that is wanted.

        Args:
            change: of ln F^2 that would do for waves that F alone makes, as F is at the moment: coefficients
                of a polynomial.
        """
        for _ in range(rounds):
            self.log_power.coefficients += change()

    def fit_given(
        self,
        copula: Copula,
        values: Tensor,
        params: Tensor,
        draw: Draw,
        draws: int = 1,
        rounds: int = 2,
        batch: int = BATCH,
        *,
        alike: bool = False,
    ) -> None:
        """Give fields that are drawn for training fields, of what is given with these, their mean power.

        Args:
            values: of the training fields, ``(N, 1, *shape)``; params: ``(N, P)``.
            draw: of rows of these.
            draws: for each of them.
            batch: fields that are drawn at a time.
            alike: whether each field counts in units of its own variance, most of which may be in a few
                peaks; right where drawn fields share these.
        """
        params = params.to(self.log_power.coefficients)
        variance = values.flatten(1).double().var(1)[:, None].cpu()
        unit = variance if alike else torch.ones_like(variance)
        wanted = powers_at_nodes(copula, values.float()) / unit, params
        rows = torch.arange(len(params)).repeat(draws)

        def change() -> Tensor:
            fields = drawn(draw, rows, "calibration", batch)
            powers = torch.cat([powers_at_nodes(copula, part) for part in fields])
            made = powers / unit[rows], params[rows]
            return change_of_power(copula, wanted, made, self.degree).coefficients

        self.fit(change, rounds)
