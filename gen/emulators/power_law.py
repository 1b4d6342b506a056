"""Today's practice for the small scales of foregrounds: a Gaussian field whose spectrum is a power law."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gen.emulators.beams import beam
from gen.emulators.sharpened import tapered_power
from gen.fields import Grid

SHARP, LACKING = 0.3, 0.5
"""The power law is fitted where the fine beam passes more than the one, and the wide one lacks the other."""


class PowerLaw(nn.Module):
    r"""``M = c (1 + n)``, n Gaussian of power ``A k^a (1 - B)^2 b^2``, by the beams B (wide) and b (fine).

    The published simulations extrapolate the spectrum of large scales by a power law, draw Gaussian small
    scales and multiply them by the large ones (Thorne et al. 2017, PySM, arXiv:1608.02841). Here A and a are
    fitted to the small scales of the training maps themselves, one pair for all parameters.

    Args:
        coarse_beam, fine_beam: full widths at half maximum, as of ``gen.emulators.beams``.
    """

    line: Tensor

    def __init__(self, grid: Grid, coarse_beam: float, fine_beam: float) -> None:
        super().__init__()
        self.grid, self.beams = grid, (coarse_beam, fine_beam)
        self.register_buffer("line", torch.zeros(2, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, values: Tensor, coarse: Tensor) -> None:
        """Least squares in logarithms, of maps ``(N, 1, *shape)`` and their large scales."""
        k, window, sharp = self._window(self.grid)
        used = (sharp > SHARP) & (1 - beam(self.grid, self.beams[0]) > LACKING) & (k > 0)
        power = tapered_power(self.grid, values / coarse - 1) / self.grid.n_cells
        x = torch.stack([torch.ones_like(k[used]), k[used].log()], 1)
        y = (power[used] / window[used].square()).clamp(min=1e-30).log()
        self.line.copy_(torch.linalg.lstsq(x, y[:, None]).solution[:, 0])

    def forward(self, coarse: Tensor, white: Tensor) -> Tensor:
        """Maps of large scales and white noise, both ``(B, 1, *shape)`` of any size."""
        dim = self.grid.dim
        k, window, _ = self._window(self.grid.resized(coarse.shape[-dim:]))
        amplitude = (self.line[0] + self.line[1] * k.clamp(min=1e-12).log()).mul(0.5).exp() * window * (k > 0)
        axes = tuple(range(-dim, 0))
        modes = torch.fft.rfftn(white, dim=axes) * amplitude.to(white)
        return coarse * (1 + torch.fft.irfftn(modes, s=white.shape[-dim:], dim=axes))

    def _window(self, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """|k|, the share of amplitudes that is small scales, and the fine beam's."""
        wide, sharp = (beam(grid, fwhm) for fwhm in self.beams)
        return grid.wavenumber(), (1 - wide) * sharp, sharp
