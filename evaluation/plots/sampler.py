"""The figure of a diffusion sampler's own error, against the power of a wave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from evaluation.plots.style import BAND, COLOURS, FAINT, FLOOR, INK, WIDTH, Look, style, svg

if TYPE_CHECKING:
    from evaluation.sampler import SamplerBias

TICKS = (-100, -10, -1, 0, 1, 10, 100)  # per cent


def sampler_figure(found: SamplerBias, look: Look) -> str:
    """Bias [%] of all numbers of evaluations, on a scale that is linear within 1 %; an SVG data address."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.5))
        axes = figure.add_axes((0.065, 0.15, 0.72, 0.8))
        axes.axhspan(-1, 1, color=BAND, lw=0, zorder=0)
        axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
        if found.own is not None:
            axes.axvspan(*found.own, color=FLOOR, ec=FLOOR, lw=2.5, zorder=0.5, label="the field’s own waves")
        others = [colour for colour in (*COLOURS, INK) if colour != look.colour]
        dashes = ("--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))
        for i, n in enumerate(sorted(n for n in found.bias if n != found.evaluations)):
            drawn = {"color": others[i % len(others)], "ls": dashes[i % len(dashes)], "lw": 1.1}
            axes.plot(found.power, 100 * found.bias[n], label=f"{n} evaluations", **drawn)
        own = 100 * found.bias[found.evaluations]
        axes.plot(found.power, own, color=look.colour, lw=2.4, label=f"{found.evaluations}, as made")
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1)
        top = max(1.0, *(float(np.abs(b).max()) for b in found.bias.values()))
        axes.set(xlim=(found.power[0], found.power[-1]), ylim=(-110 * top, 110 * top))
        shown = [y for y in TICKS if abs(y) <= 110 * top]
        axes.set_yticks(shown, [f"{y:+d}".replace("-", "−") if y else "0" for y in shown])
        axes.set_xlabel("power of the wave, in units of the noise’s own")
        axes.set_ylabel("error of its sampled power [%]")
        figure.legend(loc="center left", bbox_to_anchor=(0.795, 0.55), fontsize=9)
        return svg(figure)
