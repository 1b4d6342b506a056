"""A sheet of a posterior: what was observed, what fits it, and how much is left open; a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.plots.pictures import Scale, reduced
from evaluation.plots.style import BAND, style

DPI = 160
# Inches: a map and what is between maps, and before the last; the margins, what stands above and below.
TILE, GAP, LAST, EDGE, ABOVE, BELOW = 2.2, 0.1, 0.3, 0.14, 0.56, 0.58


@dataclass(frozen=True, eq=False)
class PosteriorSheet:
    """All that is drawn.

    Args:
        panels: name, note and field ``(*shape)`` of what stands side by side on one colour scale, NaN where
            nothing is known; of 3D fields the first slice is shown.
        std: standard deviation of the samples ``(*shape)``, on a scale of its own.
        bar: what the values are.
    """

    panels: Sequence[tuple[str, str, np.ndarray]]
    std: np.ndarray
    scale: Scale
    bar: str


def posterior_sheet(sheet: PosteriorSheet) -> bytes:
    """The sheet as a PNG file, the same bytes for the same content."""
    n = len(sheet.panels) + 1
    rows, columns = sheet.std.shape[:2]
    tall = TILE * min(1.5, max(0.4, rows / columns))
    width, height = 2 * EDGE + n * TILE + (n - 1) * GAP + LAST, ABOVE + tall + BELOW
    spread = Scale(0.0, float(sheet.std.max()) or 1.0, log=False)
    with style(size=10):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)

        def axes(left: float, top: float, wide: float, high: float) -> Axes:
            return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))

        panels = [(*panel, sheet.scale) for panel in sheet.panels]
        panels.append((r"standard deviation $\sigma$", "of the samples", sheet.std, spread))
        for i, (name, note, values, scale) in enumerate(panels):
            left = EDGE + i * (TILE + GAP) + (LAST if i == n - 1 else 0)
            figure.text(left / width, 1 - 0.2 / height, name, fontsize=12, va="center")
            figure.text(left / width, 1 - 0.42 / height, note, fontsize=9, va="center")
            _show(axes(left, ABOVE, TILE, tall), values, scale)
        under = ABOVE + tall + 0.1
        _bar(axes(EDGE, under, (n - 1) * TILE + (n - 2) * GAP, 0.12), sheet.scale, sheet.bar)
        _bar(axes(EDGE + (n - 1) * (TILE + GAP) + LAST, under, TILE, 0.12), spread, r"$\sigma$")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _show(axes: Axes, values: np.ndarray, scale: Scale) -> None:
    plane = values[..., 0] if values.ndim == 3 else values
    colours = matplotlib.colormaps["inferno"].with_extremes(bad=BAND)
    axes.imshow(scale(reduced(plane)), cmap=colours, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _bar(axes: Axes, scale: Scale, label: str) -> None:
    edges = (np.geomspace if scale.log else np.linspace)(scale.low, scale.high, 257)
    axes.pcolormesh(edges, [0, 1], np.linspace(0, 1, 256)[None], cmap="inferno")
    if scale.log:
        axes.set_xscale("log")
    axes.set_yticks([])
    axes.tick_params(top=False)
    axes.set_xlabel(label, labelpad=1)
