"""The figure of paired fields: amplitude and phases by wavenumber, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from evaluation.plots.style import FAINT, WIDTH, Look, style, svg

if TYPE_CHECKING:
    from evaluation.paired import PairedErrors


def pairs_figure(rows: Sequence[PairedErrors], looks: Mapping[str, Look], k_label: str) -> str:
    """T - 1 [%], 1 - r^2 and, of random sets, variety, in one region; an SVG data address."""
    random = any(row.variety is not None for row in rows)
    n = 3 if random else 2
    with style():
        figure = Figure(figsize=(WIDTH, 3.4))
        panels = [figure.add_axes((0.065 + i / n, 0.16, 1 / n - 0.08, 0.74)) for i in range(n)]
        left, right = panels[:2]
        reach = 0.0
        for row in rows:
            look = looks[row.samples]
            drawn = {"color": look.colour, "marker": look.marker, "ms": 3.5, "lw": 1.1,
                     "ls": "--" if look.dashed else "-"}  # fmt: skip
            percent = 100 * (row.transfer - 1)
            left.errorbar(row.k, percent, 100 * row.transfer_std, label=row.samples, **drawn)
            right.errorbar(row.k, row.stochasticity, row.stochasticity_std, **drawn)
            if row.variety is not None:
                panels[2].errorbar(row.k, row.variety, row.variety_std, **drawn)
            reach = max(reach, float(np.nanmedian(np.abs(percent))))
        for level in (-2, 2):
            left.axhline(level, color=FAINT, lw=0.7, ls=":")
        left.axhline(0, color=FAINT, lw=0.8)
        limit = max(5.0, min(60.0, 2.5 * reach))
        left.set(xscale="log", ylim=(-limit, limit), xlabel=k_label, ylabel="$T(k) - 1$ [%]")
        right.set(xscale="log", yscale="log", xlabel=k_label, ylabel="$1 - r^2(k)$")
        left.set_title("amplitude", loc="left")
        right.set_title("phases", loc="left")
        if random:
            panels[2].axhline(1, color=FAINT, lw=0.8)
            panels[2].set(xscale="log", ylim=(0, 2), xlabel=k_label, ylabel="$D(k)$")
            panels[2].set_title("variety", loc="left")
        left.legend(fontsize=9)
        return svg(figure)
