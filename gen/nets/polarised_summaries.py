"""Differentiable summaries of I, Q and U."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gen.fields import Grid
from gen.nets.summaries import Summaries


def mode_direction(grid: Grid) -> tuple[Tensor, Tensor]:
    """cos 2 phi and sin 2 phi on the rfftn lattice of a map, phi the angle of k from axis 0 to axis 1.

    Both 0 where a wave has no direction: at k = 0 and the Nyquist frequencies of even sides.
    """
    k0, k1 = torch.meshgrid(
        torch.fft.fftfreq(grid.shape[0], grid.spacing[0], dtype=torch.float64),
        torch.fft.rfftfreq(grid.shape[1], grid.spacing[1], dtype=torch.float64),
        indexing="ij",
    )
    square = k0.square() + k1.square()
    nyquist = (k0.abs() * grid.spacing[0] > 0.5 - 1e-9) | (k1.abs() * grid.spacing[1] > 0.5 - 1e-9)
    known = (square > 0) & ~nyquist
    square = torch.where(known, square, 1.0)
    return (k0.square() - k1.square()) / square * known, 2 * k0 * k1 / square * known


class PolarisedSummaries(nn.Module):
    """The summaries of I, of Q and U (their mean) and of |P| / I, then log EE, log BB and r_TE: ``(B, n)``.

    As of ``Summaries``: a field is given by its normal scores, and as it is in linear space. E and B are
    those of the tapered Q and U, and leak into one another as those of all maps that are compared do.
    """

    phase: Tensor
    mean: Tensor
    std: Tensor
    fraction: Tensor

    def __init__(self, grid: Grid, bin_width: float | None = None, k_max: float = math.inf) -> None:
        super().__init__()
        self.intensity, self.stokes, self.degree = (
            Summaries(grid, bin_width=bin_width, k_max=k_max) for _ in range(3)
        )
        n = self.intensity.n_power
        self.register_buffer("phase", torch.stack(mode_direction(grid)).float(), persistent=False)
        self.n_spectra = 7 * n
        self.n_outputs = 3 * self.intensity.n_outputs + 3 * n
        self.register_buffer("mean", torch.zeros(3 * n))
        self.register_buffer("std", torch.ones(3 * n))
        self.register_buffer("fraction", torch.tensor([0.0, 1.0]))

    @torch.no_grad()
    def fit(self, y: Tensor, linear: Tensor) -> None:
        """Set all standardisations from real maps: scores and linear I, Q, U, each ``(N, 3, *shape)``."""
        p = _degree(linear)
        self.fraction.copy_(torch.stack([p.mean(), p.std()]))
        self.intensity.fit(y[:, :1], linear[:, :1])
        self.stokes.fit(*(torch.cat([x[:, 1:2], x[:, 2:]]) for x in (y, linear)))
        self.degree.fit(*self._of_degree(linear))
        spectra = torch.cat([self._polarised(part) for part in linear.split(32)])
        self.mean.copy_(spectra.mean(0))
        self.std.copy_(spectra.std(0).clamp(min=1e-2))

    def forward(self, y: Tensor, linear: Tensor) -> Tensor:
        """Standardised summaries of scores and linear maps ``(B, 3, *shape)``."""
        q, u = (self.stokes(y[:, i : i + 1], linear[:, i : i + 1]) for i in (1, 2))
        return torch.cat(
            [
                self.intensity(y[:, :1], linear[:, :1]),
                (q + u) / 2,
                self.degree(*self._of_degree(linear)),
                (self._polarised(linear) - self.mean) / self.std,
            ],
            1,
        )

    def spectra(self, y: Tensor, linear: Tensor) -> Tensor:
        """The standardised spectra alone, ``(B, n_spectra)``: of scores and maps, then EE, BB and r_TE."""
        q, u = (self.stokes.spectra(y[:, i : i + 1], linear[:, i : i + 1]) for i in (1, 2))
        own = self.intensity.spectra(y[:, :1], linear[:, :1])
        return torch.cat([own, (q + u) / 2, (self._polarised(linear) - self.mean) / self.std], 1)

    def _of_degree(self, linear: Tensor) -> tuple[Tensor, Tensor]:
        centre, spread = self.fraction
        return (_degree(linear) - centre) / spread, _length(linear)

    def _polarised(self, linear: Tensor) -> Tensor:
        """log EE, log BB and r_TE of maps, ``(B, 3 n_power)``."""
        t, q, u = self.intensity.modes(linear).unbind(1)
        cos, sin = self.phase
        e, b = q * cos + u * sin, u * cos - q * sin
        tt, ee, bb = (self.intensity.binned(x.abs().square()).clamp(min=1e-20) for x in (t, e, b))
        te = self.intensity.binned((t * e.conj()).real)
        return torch.cat([ee.log(), bb.log(), te / (tt * ee).sqrt()], 1)


def _length(linear: Tensor) -> Tensor:
    """|P|, ``(B, 1, *shape)``, with a gradient where it vanishes."""
    return linear[:, 1:].square().sum(1, keepdim=True).add(1e-12).sqrt()


def _degree(linear: Tensor) -> Tensor:
    return _length(linear) / linear[:, :1]
