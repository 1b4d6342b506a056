"""The area that two distributions have in common, ForSE's measure of Minkowski functionals."""

from __future__ import annotations

import numpy as np

N_POINTS = 256


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(n_bins,)`` int min(p, q) dx of the columns of ``(n, n_bins)`` and ``(m, n_bins)``, in [0, 1].

    p and q are kernel densities of the maps' values, Gaussian with Silverman's width (1986) of the scatter of
    both sides about their own means, so that either is blurred alike. Of two normal laws of width sigma whose
    means differ by d it is 2 Phi(- d / (2 s)), s^2 = sigma^2 + width^2. A column that both sides hold at one
    value overlaps wholly. (Krachmalnicoff & Puglisi 2021, arXiv:2011.02221, call its mean over thresholds the
    overlapping fraction.)
    """
    n = min(len(a), len(b))
    scatter = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 2)
    width = 1.06 * n**-0.2 * scatter
    found = np.ones(a.shape[1])
    for i in np.flatnonzero(width > 0):
        both = a[:, i], b[:, i]
        ends = min(x.min() for x in both) - 4 * width[i], max(x.max() for x in both) + 4 * width[i]
        x = np.linspace(*ends, N_POINTS)
        p, q = (np.exp(-(((x[:, None] - y) / width[i]) ** 2) / 2).mean(1) for y in both)
        found[i] = np.minimum(p, q).sum() / ((p.sum() + q.sum()) / 2)
    found[(width == 0) & (a.mean(0) != b.mean(0))] = 0.0
    return found
