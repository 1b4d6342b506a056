"""Figures of conditional truth: answers to the parameters, errors over their space, inferred parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from evaluation.plots.panels import _log_ticks
from evaluation.plots.style import BAND, FAINT, INK, WIDTH, Look, math_name, style, svg, text

if TYPE_CHECKING:
    from evaluation.answers import Inference
    from evaluation.conditional import Conditional
    from evaluation.response import Response

QUANTITIES = {"power": "largest power error [%]", "pdf": "PDF", "peaks": "peak counts", "V2": "$V_2$"}
STEPS = {"power": (0, 1, 2, 5, 10, 20), "excess": (0, 1, 1.5, 2, 3, 5, 10)}
COLOURS_OF_ERROR = "YlOrRd"
FROM = {"statistics": "from statistics", "fields": "from the fields"}


def responses_figure(
    found: Sequence[Conditional],
    looks: Mapping[str, Look],
    titles: Mapping[str, str],
    units: Mapping[str, str],
    log: Sequence[str] = ("power", "bispectrum"),
) -> str | None:
    """Derivatives by every parameter, over the real statistic; an SVG data address, None without any.

    A band for real fields, one line a set. Statistics that cross zero are divided by the largest of the
    real curve.

    Args:
        titles, units: of the statistics and of their abscissae, by statistic.
        log: statistics with a logarithmic abscissa.
    """
    found = [c for c in found if c.responses]
    if not found:
        return None
    names, statistics = found[0].parameters, list(found[0].responses)
    with style(size=8.5):
        height = 1.95 * len(names) + 0.3
        figure = Figure(figsize=(WIDTH, height))
        for i, parameter in enumerate(names):
            for j, s in enumerate(statistics):
                axes = figure.add_axes(_cell(i, j, len(names), len(statistics), height))
                scale, label = _unit(found[0].responses[s])
                x = found[0].abscissae[s]
                _draw_response(axes, i, x, scale, [(c.samples, c.responses[s]) for c in found], looks)
                _response_axis(axes, x, s in log and bool((x > 0).all()))
                axes.tick_params(labelbottom=i == len(names) - 1)
                if i == 0:
                    axes.set_title(titles.get(s, text(s)), loc="left", fontsize=9.5)
                if i == len(names) - 1:
                    axes.set_xlabel(units.get(s, "bin"))
                if j == 0 or label != _unit(found[0].responses[statistics[j - 1]])[1]:
                    axes.set_ylabel(label.format(math_name(parameter)))
        return svg(figure)


def _cell(i: int, j: int, rows: int, columns: int, height: float) -> tuple[float, float, float, float]:
    """(left, bottom, width, height) of the panel in row i and column j."""
    left, right, below, above = 0.58 / WIDTH, 0.06 / WIDTH, 0.08 / height, 0.08 / height
    low, high = 0.42 / height, 0.24 / height
    cell, tall = 1 / columns, (1 - low - high) / rows
    return j * cell + left, low + (rows - 1 - i) * tall + below, cell - left - right, tall - below - above


def _unit(r: Response) -> tuple[np.ndarray, str]:
    """What derivatives are divided by, and what they are then called."""
    if (r.level > 0).all():
        return r.level, r"$\partial \ln S\,/\,\partial\,${}"
    return np.full_like(r.level, np.abs(r.level).max()), r"$\partial S\,/\,\partial\,${}$\,/\,\max|S|$"


def _draw_response(
    axes: Axes,
    i: int,
    x: np.ndarray,
    scale: np.ndarray,
    sets: Sequence[tuple[str, Response]],
    looks: Mapping[str, Look],
) -> None:
    real, std = (np.asarray(v)[i] / scale for v in (sets[0][1].reference, sets[0][1].reference_std))
    axes.fill_between(x, real - std, real + std, color=BAND, lw=0)
    axes.plot(x, real, color=INK, lw=1.4)
    axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
    shown = [(real, std)]
    for name, r in sets:
        look, made, error = looks[name], r.samples[i] / scale, r.samples_std[i] / scale
        axes.errorbar(
            x, made, error, color=look.colour, fmt=look.marker, ms=2.8, lw=0.9, mew=0,
            ls=":" if look.dashed else "-", zorder=3,
        )  # fmt: skip
        if not look.dashed or len(sets) == 1:
            shown.append((made, error))
    well = [error <= 3 * np.median(error) for _, error in shown]  # noisy bins do not set the range
    values = np.concatenate([v[w] for (v, _), w in zip(shown, well, strict=True)])
    reach = 0.15 * np.ptp(values) + max(float(np.median(e)) for _, e in shown)
    axes.set_ylim(min(values.min(), 0) - reach, max(values.max(), 0) + reach)


def _response_axis(axes: Axes, x: np.ndarray, log: bool) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if log:
        axes.set_xscale("log")
        _log_ticks(axes, (1, 3))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlim(*((x.min() / 1.2, x.max() * 1.2) if log else _widened(x, 0.05)))


def errors_figure(
    found: Sequence[Conditional],
    letters: Sequence[str],
    training: np.ndarray | None,
    limits: tuple[Sequence[float], Sequence[float]],
) -> str | None:
    """Judged cosmologies in the first two parameters, coloured by error; an SVG data address.

    A row for every set, a column for every quantity; dots are training cosmologies, the frame the range.
    """
    if not found or not found[0].parameters:
        return None
    quantities, parameters = ["power", *found[0].errors[0].excess], list(found[0].parameters)
    columns, rows = len(quantities), len(found)
    with style(size=8.5):
        height = 2.35 * rows + 0.75
        figure = Figure(figsize=(WIDTH, height))
        width = (1 - 0.5 / WIDTH) / columns
        for j, quantity in enumerate(quantities):
            left = 0.5 / WIDTH + j * width
            _draw_scale(figure.add_axes((left, 1 - 0.4 / height, 0.9 * width, 0.1 / height)), quantity)
            for i, c in enumerate(found):
                bottom = (0.42 + 2.35 * (rows - 1 - i)) / height
                axes = figure.add_axes((left, bottom, 0.9 * width, 2.0 / height))
                _draw_errors(axes, c, quantity, letters, training, limits)
                axes.tick_params(labelbottom=i == rows - 1, labelleft=j == 0 and len(parameters) > 1)
                if i == rows - 1:
                    axes.set_xlabel(math_name(parameters[0]))
                if j == 0 and len(parameters) > 1:
                    axes.set_ylabel(math_name(parameters[1]))
                if j == 0:
                    axes.set_title(text(c.samples), loc="left", fontsize=8.5, pad=3)
        return svg(figure)


def _steps(quantity: str) -> tuple[tuple[float, ...], BoundaryNorm]:
    steps = STEPS["power" if quantity == "power" else "excess"]
    return steps, BoundaryNorm(list(steps), 256, extend="max")


def _draw_scale(axes: Axes, quantity: str) -> None:
    """A strip of the colours, with the values at which they change."""
    steps, norm = _steps(quantity)
    middles = [(a + b) / 2 for a, b in pairwise(steps)] + [2 * steps[-1]]
    for i, value in enumerate(middles):
        axes.axvspan(i, i + 1, color=colormaps[COLOURS_OF_ERROR](norm(value)), lw=0)
    axes.set_xlim(0, len(middles))
    axes.set_xticks(range(1, len(middles)), [f"{s:g}" for s in steps[1:]], fontsize=7.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, pad=1.5)
    name = QUANTITIES.get(quantity, text(quantity))
    axes.set_title(name if quantity == "power" else f"excess of {name}", loc="left", fontsize=9.5, pad=3)


def _draw_errors(
    axes: Axes,
    c: Conditional,
    quantity: str,
    letters: Sequence[str],
    training: np.ndarray | None,
    limits: tuple[Sequence[float], Sequence[float]],
) -> None:
    two = len(c.parameters) > 1
    if training is not None and len(training):
        y = training[:, 1] if two else np.zeros(len(training))
        axes.plot(training[:, 0], y, ".", color="#b8b8b8", ms=3.5, mew=0, zorder=1)
    low, high = limits
    if two:
        box_x = [low[0], high[0], high[0], low[0], low[0]]
        axes.plot(box_x, [low[1], low[1], high[1], high[1], low[1]], "-", color=FAINT, lw=0.7, zorder=1)
    else:
        axes.set_yticks([])
    points = np.array([[e.params[0], e.params[1] if two else 0.0] for e in c.errors])
    values = [
        100 * e.power_error if quantity == "power" else e.excess.get(quantity, np.nan) for e in c.errors
    ]
    _, norm = _steps(quantity)
    known = np.isfinite(values)
    axes.scatter(
        *points[known].T, c=np.array(values)[known], cmap=COLOURS_OF_ERROR, norm=norm, s=46,
        edgecolors=INK, linewidths=0.8, zorder=3,
    )  # fmt: skip
    for letter, point in zip(letters, points, strict=True):
        axes.annotate(letter, point, xytext=(5, 3), textcoords="offset points", fontsize=8.5, zorder=4)
    axes.margins(0.1)


def inference_figure(found: Sequence[Conditional], looks: Mapping[str, Look]) -> str | None:
    """Inferred less true parameters at every cosmology, and coverage; an SVG data address, None without any.

    A row for every regressor; real fields in black, each set in its colour.
    """
    regressors = list(dict.fromkeys(of for c in found for of in c.inferences))
    if not regressors:
        return None
    names = found[0].parameters
    with style(size=8.5):
        height = 2.35 * len(regressors) + 0.1
        figure = Figure(figsize=(WIDTH, height))
        for i, of in enumerate(regressors):
            sets = [(c, c.inferences[of]) for c in found if of in c.inferences]
            for j, name in enumerate(names):
                axes = figure.add_axes(_inference_cell(i, j, len(regressors), len(names) + 1, height))
                _draw_inferred(axes, sets, j, looks)
                axes.set_title(f"{math_name(name)} {FROM.get(of, text(of))}", loc="left", fontsize=9.5)
                axes.set_xlabel(f"true {math_name(name)}", labelpad=1)
                if j == 0:
                    axes.set_ylabel(r"(inferred $-$ true) / $\sigma$")
            last = figure.add_axes(_inference_cell(i, len(names), len(regressors), len(names) + 1, height))
            _draw_coverage(last, [(c.samples, x) for c, x in sets], looks)
        return svg(figure)


def _inference_cell(
    i: int, j: int, rows: int, columns: int, height: float
) -> tuple[float, float, float, float]:
    cell, tall = 1 / columns, 1 / rows
    left, right, below, above = 0.55 / WIDTH, 0.1 / WIDTH, 0.42 / height, 0.24 / height
    return j * cell + left, (rows - 1 - i) * tall + below, cell - left - right, tall - below - above


def _draw_inferred(
    axes: Axes, sets: Sequence[tuple[Conditional, Inference]], j: int, looks: Mapping[str, Look]
) -> None:
    first, real = sets[0]
    x = first.params[:, j]
    step = 0.012 * (np.ptp(x) or 1.0)
    axes.axhline(0, color=INK, lw=0.8, zorder=1)
    rows = [(real.reference_by_stratum, real.reference_by_stratum_std, Look(INK, "o", False))]
    rows += [(a.samples_by_stratum, a.samples_by_stratum_std, looks[c.samples]) for c, a in sets]
    for n, (mean, std, look) in enumerate(rows):
        axes.errorbar(
            x + step * (n - (len(rows) - 1) / 2), mean[:, j], std[:, j], fmt=look.marker, color=look.colour,
            mfc="white" if n == 0 else look.colour, mew=0.9 if n == 0 else 0, ms=4, lw=0.8, zorder=2 + n,
        )  # fmt: skip
    largest = max(np.nanmax(np.abs(mean[:, j]) + std[:, j]) for mean, std, _ in rows)
    axes.set_ylim(-1.15 * max(largest, 0.5), 1.15 * max(largest, 0.5))
    axes.set_xlim(*_widened(x, 0.08))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_coverage(axes: Axes, sets: Sequence[tuple[str, Inference]], looks: Mapping[str, Look]) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=(0, (5, 3)))
    covered = sets[0][1].covered()
    axes.plot(covered["credibility"], covered["real"], color=INK, lw=1.6)
    for name, x in sets:
        look, covered = looks[name], x.covered()
        axes.plot(
            covered["credibility"], covered["samples"], color=look.colour, lw=1.1,
            ls="--" if look.dashed else "-",
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title("coverage", loc="left", fontsize=9.5)
    axes.set_xlabel("credibility", labelpad=1)
    axes.set_ylabel("truths inside", labelpad=1)


def _widened(x: np.ndarray, by: float) -> tuple[float, float]:
    margin = by * (float(np.ptp(x)) or 1.0)
    return float(x.min()) - margin, float(x.max()) + margin
