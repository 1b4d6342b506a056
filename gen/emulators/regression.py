"""Smooth interpolation over the training cosmologies: least squares on a polynomial basis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from gen.errors import InputError
from gen.fields import ParameterSpace


class Polynomial(nn.Module):
    """``y(theta)``, ``n_outputs`` smooth functions of the parameters.

    The basis holds all monomials up to ``degree`` of the normalised parameters, where a parameter whose
    range is positive enters by its logarithm (amplitudes and shapes are close to power laws of Omega_m
    and sigma_8). With few cosmologies, monomials of high degree keep zero coefficients.

    Args:
        knots: of a parameter, values at which y may bend, as it does where what fields are made from is
            given at those values and interpolated between.

    Raises:
        InputError: for knots of a parameter that the space lacks.
    """

    coefficients: Tensor

    def __init__(
        self,
        space: ParameterSpace,
        n_outputs: int,
        degree: int = 3,
        knots: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.logarithmic = tuple(low > 0 for low in space.low)
        low, high = (
            [
                torch.tensor(v).log().item() if log else v
                for v, log in zip(ends, self.logarithmic, strict=True)
            ]
            for ends in (space.low, space.high)
        )
        self.scaled = ParameterSpace(space.names, low, high)
        self.monomials = [
            m for d in range(degree + 1) for m in combinations_with_replacement(range(len(space)), d)
        ]
        unknown = sorted(set(knots or {}) - set(space.names))
        if unknown:
            names = ", ".join(space.names) or "none"
            raise InputError(f"knots belong to parameters, here {names}, got {', '.join(unknown)}")
        self.knots = []
        for i, k in ((space.names.index(name), k) for name, values in (knots or {}).items() for k in values):
            at = math.log(k) if self.logarithmic[i] else k
            self.knots.append((i, 2 * (at - low[i]) / (high[i] - low[i]) - 1))
        n_features = len(self.monomials) + len(self.knots)
        self.register_buffer("coefficients", torch.zeros(n_features, n_outputs))

    def features(self, params: Tensor) -> Tensor:
        """Monomials, then ramps from each knot on, ``(B, F)``, of ``(B, P)`` physical parameters."""
        t = self._scaled(params)
        ones = params.new_ones(params.shape[0])
        columns = [torch.stack([t[:, i] for i in m]).prod(0) if m else ones for m in self.monomials]
        columns += [(t[:, i] - knot).clamp(min=0) for i, knot in self.knots]
        return torch.stack(columns, -1)

    def _scaled(self, params: Tensor) -> Tensor:
        columns = [p.log() if log else p for p, log in zip(params.unbind(-1), self.logarithmic, strict=True)]
        return self.scaled.normalise(torch.stack(columns, -1)) if columns else params

    def fit(self, params: Tensor, outputs: Tensor, weights: Tensor | None = None) -> None:
        """Least squares on ``(M, P)`` parameters and ``(M, n_outputs)`` values, weighted or all alike."""
        rows = max(1, len(params) // 3)
        degrees = torch.tensor([*(len(m) for m in self.monomials), *(2 for _ in self.knots)])
        highest = max((int(d) for d in degrees.unique() if int((degrees <= d).sum()) <= rows), default=0)
        used = degrees <= highest
        basis = self.features(params.double())[:, used]
        if weights is None:
            solution = torch.linalg.lstsq(basis, outputs.double()).solution
        else:
            root = weights.double().sqrt().T.unsqueeze(-1)
            wanted = root * outputs.double().T.unsqueeze(-1)
            solution = torch.linalg.lstsq(root * basis, wanted).solution.squeeze(-1).T
        self.coefficients.zero_()
        self.coefficients[used] = solution.to(self.coefficients)

    def forward(self, params: Tensor) -> Tensor:
        """``(B, n_outputs)`` at ``(B, P)`` parameters."""
        with torch.autocast(params.device.type, enabled=False):  # half precision would cost per cents
            return self.features(params) @ self.coefficients


def needed(params: Tensor) -> slice:
    """The rows of parameters ``(B, P)`` that all else needs: one, if all are alike and have no gradient.

    Polynomials are evaluated at all rows even so, as the last bits of a product depend on how many there are.
    """
    alike = not params.requires_grad and bool((params == params[:1]).all())
    return slice(1) if alike else slice(None)
