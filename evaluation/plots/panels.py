"""The parts that figures are made of: one statistic at one cosmology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter

from evaluation.plots.style import BAND, FAINT, FLOOR, INK, Look


@dataclass(frozen=True, eq=False)
class Curve:
    """One set of samples in one panel. Arrays are ``(n_bins,)``."""

    name: str
    mean: np.ndarray
    residual: np.ndarray  # [%]
    residual_std: np.ndarray  # [%]
    ks_D: np.ndarray
    scatter_ratio: np.ndarray
    scatter_ratio_std: np.ndarray


@dataclass(frozen=True, eq=False)
class Panel:
    """One statistic at one cosmology: the reference, its own spread, and every set of samples.

    Args:
        low, high: 16-84 % of the reference maps.
        floor: standard deviation of the residual of real against real at the same numbers [%].
        ks_floor: expected D of real against real at the same numbers.
        residual_label: what the residual is a percentage of.
        judged_to: end of the range that is judged, if not the whole.
    """

    title: str
    label: str
    unit: str
    x: np.ndarray
    log_x: bool
    log_y: bool
    reference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    floor: np.ndarray
    ks_floor: np.ndarray
    residual_label: str
    curves: tuple[Curve, ...]
    judged_to: float | None = None
    n_reference: int = 0
    looks: dict[str, Look] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Excess:
    """The excess of every statistic: ``{set: [(value, low, high), ...]}`` in the order of ``names``."""

    names: tuple[str, ...]
    values: dict[str, list[tuple[float, float, float]]]
    perfect: list[tuple[float, float]]
    looks: dict[str, Look]
    threshold: float | None


def draw_means(axes: Axes, panel: Panel) -> None:
    axes.fill_between(panel.x, panel.low, panel.high, color=BAND, lw=0, label="real, 16-84 % of maps")
    axes.plot(panel.x, panel.reference, color=INK, lw=1.6, label="real, mean")
    for curve in panel.curves:
        look = panel.looks[curve.name]
        axes.plot(panel.x, curve.mean, color=look.colour, lw=1.3, ls="--" if look.dashed else "-")
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
        _limit_log(axes, panel)
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel(panel.label)
    if not panel.log_y:
        _limit_linear(axes, panel)
    axes.tick_params(labelbottom=False)
    _mark_range(axes, panel)


def _limit_log(axes: Axes, panel: Panel) -> None:
    """Six decades at most: the emptiest tail bins would flatten the rest."""
    positive = panel.reference[panel.reference > 0]
    if len(positive):
        top = positive.max()
        axes.set_ylim(max(positive.min() / 3, top * 1e-6), top * 3)


def _limit_linear(axes: Axes, panel: Panel) -> None:
    """A baseline that is off by more than the whole range of the others may leave the panel."""
    drawn = [panel.low, panel.high, panel.reference]
    drawn += [c.mean for c in panel.curves if not panel.looks[c.name].dashed]
    values = np.concatenate(drawn)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    bottom, top = axes.get_ylim()
    span = high - low
    if span > 0 and (bottom < low - span or top > high + span):
        axes.set_ylim(max(bottom, low - 0.15 * span), min(top, high + 0.15 * span))


def draw_residuals(axes: Axes, panel: Panel) -> None:
    limit = _residual_limit(panel)
    axes.set_xscale("log" if panel.log_x else "linear")
    for level, style in ((5, (0, (5, 3))), (1, (0, (1, 2)))):
        for sign in (-level, level):
            axes.axhline(sign, color=FAINT, lw=0.8, ls=style, zorder=1)
    axes.fill_between(panel.x, -panel.floor, panel.floor, color=FLOOR, lw=0, zorder=0)
    axes.axhline(0, color=INK, lw=0.8, zorder=2)
    steps = _offsets(panel, len(panel.curves))
    for curve, x in zip(panel.curves, steps, strict=True):
        look = panel.looks[curve.name]
        seen = np.abs(curve.residual) <= limit
        axes.errorbar(
            x[seen],
            curve.residual[seen],
            curve.residual_std[seen],
            color=look.colour,
            fmt=look.marker,
            ms=3.4,
            lw=0.9,
            ls=":" if look.dashed else "-",
            zorder=3,
            mew=0,
        )
        for beyond, edge, arrow in (
            (curve.residual > limit, limit, "^"),
            (curve.residual < -limit, -limit, "v"),
        ):
            axes.plot(
                x[beyond], np.full(beyond.sum(), 0.93 * edge), arrow, color=look.colour, ms=4, mfc="white"
            )
    axes.set_ylim(-limit, limit)
    axes.set_ylabel(panel.residual_label)
    axes.set_xlabel(panel.unit)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    _mark_range(axes, panel)


def _residual_limit(panel: Panel) -> float:
    """Wide enough for what is measured well of the networks; the rest is shown by arrows at the rim."""
    largest = {True: 0.0, False: 0.0}
    for curve in panel.curves:
        well = np.abs(curve.residual)[curve.residual_std < 10]
        dashed = panel.looks[curve.name].dashed
        largest[dashed] = max(largest[dashed], float(well.max()) if len(well) else 0.0)
    alone = all(look.dashed for look in panel.looks.values())
    return float(np.clip(1.3 * max(largest[False], min(largest[True], 40.0 if alone else 10.0)), 7.5, 40))


def _offsets(panel: Panel, n: int) -> list[np.ndarray]:
    """The abscissa, a little apart for each curve, so that error bars do not hide each other."""
    x = panel.x
    if len(x) < 2:
        return [x] * n
    shifts = 0.16 * (np.arange(n) - (n - 1) / 2)
    if panel.log_x:
        return [x * (x[1:] / x[:-1]).min() ** s for s in shifts]
    return [x + np.diff(x).min() * s for s in shifts]


def draw_excess(axes: Axes, excess: Excess) -> None:
    rows = np.arange(len(excess.names))[::-1]
    for row, (low, high) in zip(rows, excess.perfect, strict=True):
        axes.barh(row, high - low, left=low, height=0.72, color=FLOOR, lw=0, zorder=0)
    n = len(excess.values)
    for i, (name, values) in enumerate(excess.values.items()):
        look = excess.looks[name]
        x, low, high = np.array(values).T
        reach = [np.maximum(x - low, 0), np.maximum(high - x, 0)]
        y = rows + 0.2 * ((n - 1) / 2 - i)
        axes.errorbar(x, y, xerr=reach, fmt=look.marker, color=look.colour, ms=4.5, lw=1, mew=0, zorder=3)
    axes.set_xscale("log")
    if excess.threshold is not None:
        axes.axvline(excess.threshold, color=FAINT, lw=0.8, ls=(0, (5, 3)), zorder=1)
    axes.axvline(1, color=INK, lw=0.8, zorder=1)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0.1), max(high, 5))
    _log_ticks(axes, (1, 2, 5) if max(high, 5) < 40 * max(low, 0.1) else (1,))
    axes.set_yticks(rows, list(excess.names))
    axes.tick_params(axis="y", length=0, pad=2)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_title("excess", loc="left")
    axes.set_xlabel("distance to real / real to real")


def ks_limit(panels: Sequence[Panel]) -> float:
    """One limit for a row, set by the networks: a baseline may leave the panel."""
    drawn = [(p.looks[c.name].dashed, float(np.nanmax(c.ks_D))) for p in panels for c in p.curves]
    networks = [largest for dashed, largest in drawn if not dashed] or [largest for _, largest in drawn]
    return float(np.clip(1.25 * max(networks, default=0.2), 0.15, 1))


def draw_ks(axes: Axes, panel: Panel, limit: float) -> None:
    axes.fill_between(panel.x, 0, panel.ks_floor, color=FLOOR, lw=0)
    for curve in panel.curves:
        look = panel.looks[curve.name]
        axes.plot(panel.x, curve.ks_D, color=look.colour, lw=1.1, ls="--" if look.dashed else "-")
    axes.set_ylim(0, limit)


def scatter_reach(panels: Sequence[Panel]) -> float:
    """How far from 1 a row of scatter ratios reaches: nearly all that the networks show, within [0, 2]."""
    drawn = [(p.looks[c.name].dashed, np.abs(c.scatter_ratio - 1)) for p in panels for c in p.curves]
    chosen = [away for dashed, away in drawn if not dashed] or [away for _, away in drawn]
    away = np.concatenate(chosen)
    away = away[np.isfinite(away)]
    return float(np.clip(1.2 * np.quantile(away, 0.97), 0.35, 1.0)) if len(away) else 0.6


def draw_scatter(axes: Axes, panel: Panel, reach: float) -> None:
    axes.axhline(1, color=INK, lw=0.8)
    for curve, x in zip(panel.curves, _offsets(panel, len(panel.curves)), strict=True):
        look = panel.looks[curve.name]
        axes.errorbar(
            x,
            curve.scatter_ratio,
            curve.scatter_ratio_std,
            color=look.colour,
            fmt=look.marker,
            ms=2.6,
            lw=0.8,
            mew=0,
        )
    if panel.log_x:
        axes.set_xscale("log")
    axes.set_ylim(1 - reach, 1 + reach)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if panel.log_x:
        _log_ticks(axes, (1, 3))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_xlabel(panel.unit, fontsize=8)


def _mark_range(axes: Axes, panel: Panel) -> None:
    if panel.judged_to is not None and panel.judged_to < panel.x.max():
        axes.axvline(panel.judged_to, color=FAINT, lw=0.8, ls="-")
    if panel.log_x:
        _log_ticks(axes)


def _log_ticks(axes: Axes, subs: tuple[float, ...] = (1, 2, 5)) -> None:
    """Plain numbers, or powers of ten where there are many decades."""
    low, high = axes.get_xlim()
    if high > 1e3 * low:
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_major_formatter(LogFormatterMathtext())
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
