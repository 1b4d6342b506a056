"""The figures of the report, drawn without a screen and without pyplot's global state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from evaluation.plots.panels import (
    Excess,
    Panel,
    draw_excess,
    draw_ks,
    draw_means,
    draw_residuals,
    draw_scatter,
    ks_limit,
    scatter_reach,
)
from evaluation.plots.style import FAINT, INK, WIDTH, math_name, style, svg

MOST_ABREAST = 8  # panels of distributions
LONGEST_TITLE = 50  # letters, of a third of the width


def statistics_figure(panels: Sequence[Panel], excess: Excess) -> str:
    """Every statistic with its residual below it, and all excesses in the last panel; an SVG data address."""
    columns = 4 if len(panels) < 8 else 3
    rows = math.ceil((len(panels) + 1) / columns)
    with style():
        figure = Figure(figsize=(WIDTH, 3.45 * rows))
        for i, panel in enumerate(panels):
            top, bottom = (figure.add_axes(box) for box in _boxes(i, rows, columns))
            bottom.sharex(top)
            draw_means(top, panel)
            draw_residuals(bottom, panel)
        upper, lower = _boxes(len(panels), rows, columns)
        draw_excess(figure.add_axes((upper[0], lower[1], upper[2], upper[1] + upper[3] - lower[1])), excess)
        return svg(figure)


def _boxes(i: int, rows: int, columns: int) -> list[tuple[float, float, float, float]]:
    """The upper and the lower axes of panel i, which touch: (left, bottom, width, height) of the figure."""
    row, column = divmod(i, columns)
    cell, height = 1 / columns, 1 / rows
    left, right = 0.62 / WIDTH, 0.06 / WIDTH
    below, above = 0.52 / 3.45 * height, 0.30 / 3.45 * height
    inner = height - below - above
    bottom = 1 - (row + 1) * height + below
    box = column * cell + left, cell - left - right
    split = 0.37 * inner
    return [(box[0], bottom + split, box[1], inner - split), (box[0], bottom, box[1], split)]


def distributions_figure(panels: Sequence[Panel]) -> str:
    """Two-sample KS of every bin over its floor, and the ratio of scatters; an SVG data address."""
    rows = math.ceil(len(panels) / MOST_ABREAST)
    n, height = math.ceil(len(panels) / rows), 2.9 * rows
    width = (1 - 0.62 / WIDTH) / n
    with style(size=8.5):
        figure = Figure(figsize=(WIDTH, height))
        for i, panel in enumerate(panels):
            row, column = divmod(i, n)
            left, floor = 0.56 / WIDTH + column * width, 2.9 * (rows - 1 - row)
            upper = figure.add_axes((left, (floor + 1.62) / height, width - 0.1 / WIDTH, 1.02 / height))
            box = (left, (floor + 0.48) / height, width - 0.1 / WIDTH, 1.02 / height)
            lower = figure.add_axes(box, sharex=upper)
            draw_ks(upper, panel, ks_limit(panels))
            draw_scatter(lower, panel, scatter_reach(panels))
            title = panel.title.replace("Minkowski functional ", "Minkowski ")
            upper.set_title(title, fontsize=9.5 if len(title) < 3 * LONGEST_TITLE / n else 7.5, loc="left")
            for axes in (upper, lower):
                axes.tick_params(labelleft=column == 0, labelbottom=axes is lower)
            if column == 0:
                upper.set_ylabel("KS distance $D$")
                lower.set_ylabel("scatter ratio")
        return svg(figure)


def parameters_figure(
    names: Sequence[str],
    training: np.ndarray | None,
    tests: Sequence[tuple[str, Sequence[float], str]],
    limits: tuple[Sequence[float], Sequence[float]],
) -> str:
    """Training simulations and judged cosmologies ``(letter, point, region)`` in the first two parameters."""
    two = len(names) > 1
    with style():
        figure = Figure(figsize=(3.5, 3.25))
        axes = figure.add_axes((0.155, 0.27, 0.825, 0.71))
        if training is not None and len(training):
            y = training[:, 1] if two else np.zeros(len(training))
            axes.plot(
                training[:, 0], y, ".", color="#9a9a9a", ms=5, mew=0, label=f"training ({len(training)})"
            )
        low, high = limits
        if two:
            box_x = [low[0], high[0], high[0], low[0], low[0]]
            axes.plot(box_x, [low[1], low[1], high[1], high[1], low[1]], "-", color=FAINT, lw=0.7)
        marks = {"interior": ("o", "#0072b2"), "edge": ("s", "#009e73"), "extrapolation": ("D", "#cc79a7")}
        seen: set[str] = set()
        for letter, point, region in tests:
            marker, colour = marks.get(region, ("o", INK))
            at = (point[0], point[1] if two else 0.0)
            label = None if region in seen else f"test, {region}"
            axes.plot(*at, marker, ms=7, mfc="white", mec=colour, mew=1.6, ls="none", label=label)
            axes.annotate(letter, at, xytext=(6, 4), textcoords="offset points", fontsize=10, weight="bold")
            seen.add(region)
        axes.set_xlabel(math_name(names[0]))
        axes.set_ylabel(math_name(names[1]) if two else "")
        if not two:
            axes.set_yticks([])
        axes.margins(0.08)
        figure.legend(
            loc="lower center", ncols=2, fontsize=9, handletextpad=0.3, columnspacing=1.0, borderpad=0
        )
        return svg(figure)
