"""Gaussian fields whose waves lie across a given direction, another one at every place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gen.emulators.regression import Polynomial
from gen.fields import Grid, ParameterSpace
from gen.nets.polarised_summaries import mode_direction

LARGEST = 0.698
"""Largest share that is aligned, at alpha = 1.2; beyond sqrt(2) more alpha means less of it."""


def spin_two(x: Tensor, grid: Grid) -> Tensor:
    """A map ``(B, 1, *shape)`` with its waves times cos 2 phi, and times sin 2 phi, ``(B, 2, *shape)``."""
    modes = torch.fft.rfft2(x.float())
    turned = [modes * part.to(x.device).float() for part in mode_direction(grid)]
    return torch.fft.irfft2(torch.cat(turned, 1), s=x.shape[-2:])


class Steering(nn.Module):
    r"""``g + alpha (n_Q g_c + n_U g_s)``, n = (cos 2 psi, sin 2 psi): waves times 1 + alpha cos 2(phi - psi).

    g_c and g_s are g with its waves times cos 2 phi and sin 2 phi, so that the direction psi may differ from
    place to place (steerable filters, Freeman & Adelson 1991, IEEE PAMI 13, 891). alpha depends on the
    parameters. Dust is polarised across the magnetic field and its filaments lie along the field (Planck
    intermediate results XXXII 2016, arXiv:1409.6728), so their waves lie along psi: alpha > 0, and TE > 0.
    """

    def __init__(self, space: ParameterSpace, degree: int = 2) -> None:
        super().__init__()
        self.share, self.change = (Polynomial(space, 1, degree) for _ in range(2))

    @torch.no_grad()
    def fit(self, share: Tensor, params: Tensor) -> None:
        """From the ``aligned_share`` of real maps; that of a steered field is alpha / (1 + alpha^2 / 2)."""
        self.share.fit(params, share[:, None])

    @torch.no_grad()
    def correct(self, real: Tensor, made: Tensor, params: Tensor) -> None:
        """Add what the shares of maps that were made lack."""
        self.change.fit(params, (real - made)[:, None])
        self.share.coefficients += self.change.coefficients

    def alpha(self, params: Tensor) -> Tensor:
        """``(B, 1, 1, 1)``."""
        share = self.share(params).clamp(-LARGEST, LARGEST)[..., None, None]
        root = 1 - (1 - 2 * share.square()).sqrt()
        return root / torch.where(share.abs() < 1e-6, 1.0, share)

    def forward(self, g: Tensor, direction: Tensor, grid: Grid, params: Tensor) -> Tensor:
        """Steered fields of the variance of g, ``(B, 1, *shape)``, of n ``(B, 2, *shape)``."""
        alpha = self.alpha(params)
        steered = g + alpha * (direction * spin_two(g, grid)).sum(1, keepdim=True)
        return steered / (1 + alpha.square() / 2).sqrt()


def aligned_share(x: Tensor, direction: Tensor, grid: Grid) -> Tensor:
    """``<x (n_Q x_c + n_U x_s)> / <x^2>``, ``(N,)``, of tapered maps x and n ``(N, 1 and 2, *shape)``."""
    window = torch.ones(())
    for n in x.shape[2:]:
        window = window[..., None] * torch.hann_window(n, periodic=False)
    tapered = (x - x.mean((2, 3), keepdim=True)) * window
    along = (direction * spin_two(tapered, grid)).sum(1, keepdim=True)
    return (tapered * along).flatten(1).mean(1) / tapered.square().flatten(1).mean(1)
