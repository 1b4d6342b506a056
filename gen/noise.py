"""Randomness as an argument: one generator per sample, a pure function of what names it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from scipy.special import chdtri
from torch import Tensor


def sample_generator(seed: int, index: int, stream: str = "") -> torch.Generator:
    """The CPU generator of sample ``index`` of ``seed``; ``stream`` separates independent uses."""
    digest = hashlib.sha256(f"cosmozoo/{stream}/{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


class PlacedNoise(torch.Generator):
    """A generator that knows where its numbers lie: fields that share places can share their noise there."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers ``shape``, its last axes those of a grid; other ones at each call."""
        raise NotImplementedError


def normal(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers ``(len(generators), *shape)``, row i drawn from generator i alone."""
    return torch.stack(
        [
            g.normal(shape) if isinstance(g, PlacedNoise) else torch.randn(tuple(shape), generator=g)
            for g in generators
        ]
    )


def student_t(generators: Sequence[torch.Generator], shape: Sequence[int], nu: float) -> Tensor:
    """Student-t numbers of ``nu`` > 2 degrees of freedom, scaled to unit variance.

    A Gaussian over the root of a chi-squared variate over nu - 2. A heavy-tailed latent lowers the
    covariance error of cosmological GANs (Feder, Berger & Stein 2020, arXiv:2005.03050).
    """
    rows = []
    for g in generators:
        z = torch.randn(tuple(shape), generator=g)
        # torch's gamma variates take no generator: invert the law at a uniform number.
        uniform = torch.rand(tuple(shape), generator=g, dtype=torch.float64).numpy()
        chi2 = torch.from_numpy(chdtri(nu, uniform)).float()
        rows.append(z * ((nu - 2) / chi2).sqrt())
    return torch.stack(rows)
