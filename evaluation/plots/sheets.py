"""A sheet of a latent space: labelled rows of fields on one colour scale, and numbers beside them; a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from evaluation.plots.pictures import Scale, reduced
from evaluation.plots.style import BAND, BASELINE_COLOUR, COLOURS, FAINT, INK, style

DPI = 160
# Inches: a tile and what is between tiles; the margins of the page; the panels beside the rows.
TILE, GAP, LEFT, EDGE = 0.96, 0.05, 0.78, 0.18
PANEL, PANEL_GAP, NOTES = 2.35, 0.66, 1.62
TITLE, HEADING, CAPTION, BETWEEN = 0.5, 0.3, 0.21, 0.26
PANELS_LEAST, BAR = 3.7, 0.62
FEWEST_COLUMNS = 6  # for the headings to have room


@dataclass(frozen=True, eq=False)
class Row:
    """Planes ``(n, m)`` side by side, a caption above each; None leaves a place empty."""

    label: str
    planes: Sequence[np.ndarray | None]
    captions: Sequence[str] = ()
    colour: str = INK


@dataclass(frozen=True, eq=False)
class Track:
    """One number along the paths.

    Args:
        draws: mean and standard deviation over fields drawn afresh at the same parameters.
        shown: ``(n_rows, steps)`` of the paths that are drawn.
        circle, line: mean and its error ``(2, steps)`` over all paths on great circles, on straight lines.
        name: what it is; ``label`` is the axis's.
        notes: what is said beside, of the great circles and of the straight lines.
    """

    name: str
    label: str
    draws: tuple[float, float]
    shown: np.ndarray
    circle: np.ndarray
    line: np.ndarray
    notes: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A row of fields along one parameter, and numbers of these fields over those in the middle."""

    row: Row
    values: np.ndarray
    ratios: dict[str, np.ndarray]
    name: str


@dataclass(frozen=True, eq=False)
class Sheet:
    """All that is drawn.

    Args:
        headings: above paths, sums and sweeps, and above the tracks and their notes.
        verdicts: below the notes, of the great circles and of the straight lines.
        bar: what the values are.
    """

    title: str
    headings: tuple[str, str, str, str, str]
    paths: Sequence[Row]
    tracks: Sequence[Track]
    verdicts: tuple[str, str]
    sums: Sequence[Row]
    sweeps: Sequence[Sweep]
    scale: Scale
    bar: str


def row_colour(i: int) -> str:
    """The colour of path i, in its row's label and in the panels."""
    return COLOURS[i % len(COLOURS)]


def latent_sheet(sheet: Sheet) -> bytes:
    """The sheet as a PNG file, the same bytes for the same content."""
    with style(size=9):
        page = _Page(sheet)
        page.draw(sheet)
        return page.png()


class _Page:
    """Places in inches from the upper left corner."""

    def __init__(self, sheet: Sheet) -> None:
        rows = [*sheet.paths, *sheet.sums, *(s.row for s in sheet.sweeps)]
        columns = max(FEWEST_COLUMNS, *(len(row.planes) for row in rows))
        first = next(p for row in rows for p in row.planes if p is not None)
        self.tile = (TILE, TILE * first.shape[0] / first.shape[1])
        self.right = LEFT + columns * (TILE + GAP) + PANEL_GAP
        self.width = self.right + PANEL + NOTES + EDGE
        paths = max(self._height(sheet.paths), PANELS_LEAST)
        sums = max(self._height(sheet.sums), BAR + CAPTION)
        sweeps = sum(self._height([s.row]) for s in sheet.sweeps)
        parts = [h + HEADING + BETWEEN for h in (paths, sums, sweeps) if h]
        self.height = TITLE + sum(parts)
        self.tops = TITLE + np.cumsum([0.0, *parts]) + HEADING
        self.panels = paths
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def _height(self, rows: Sequence[Row]) -> float:
        return sum(self.tile[1] + GAP + (CAPTION if row.captions else 0) for row in rows)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        w, h = self.width, self.height
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))

    def text(self, x: float, y: float, said: str, **how: object) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, said, **how)  # pyright: ignore[reportArgumentType]

    def draw(self, sheet: Sheet) -> None:
        self.text(LEFT, 0.3, sheet.title, fontsize=13, va="center")
        for top, heading in zip(self.tops, sheet.headings[:3], strict=False):
            if top < self.height:
                self.text(LEFT, top - 0.13, heading, fontsize=11, va="center")
        self.rows(sheet.paths, self.tops[0], sheet.scale)
        self.tracks(sheet, self.tops[0])
        self.rows(sheet.sums, self.tops[1], sheet.scale)
        self.legend(sheet, self.tops[1])
        top = self.tops[2]
        for sweep in sheet.sweeps:
            beyond = self.rows([sweep.row], top, sheet.scale)
            self.response(sweep, top + CAPTION)
            top = beyond

    def rows(self, rows: Sequence[Row], top: float, scale: Scale) -> float:
        """Draws rows below ``top`` and gives where they end."""
        for row in rows:
            top += CAPTION if row.captions else 0
            middle = top + self.tile[1] / 2
            self.text(LEFT - 0.1, middle, row.label, color=row.colour, fontsize=11, ha="right", va="center")
            for column, plane in enumerate(row.planes):
                left = LEFT + column * (TILE + GAP)
                if row.captions:
                    self.text(left + TILE / 2, top - 0.06, row.captions[column], ha="center")
                if plane is not None:
                    _show(self.axes(left, top, *self.tile), plane, scale)
            top += self.tile[1] + GAP
        return top

    def tracks(self, sheet: Sheet, top: float) -> None:
        height, beside = (self.panels - 0.36) / len(sheet.tracks), self.right + PANEL + 0.12
        self.text(self.right, top - 0.13, sheet.headings[3], fontsize=11, va="center")
        self.text(beside, top - 0.13, sheet.headings[4], fontsize=11, va="center")
        for i, track in enumerate(sheet.tracks):
            axes = self.axes(self.right, top + i * height, PANEL, height - 0.08)
            _draw_track(axes, track)
            axes.tick_params(labelbottom=i == len(sheet.tracks) - 1)
            self.notes(beside, top + (i + 0.5) * height - 0.21, (track.name, *track.notes))
        below = top + len(sheet.tracks) * height
        self.text(self.right + PANEL / 2, below + 0.26, "$t$", ha="center")
        self.notes(beside, below - 0.1, ("", *sheet.verdicts))

    def notes(self, left: float, top: float, said: Sequence[str]) -> None:
        for i, (line, colour) in enumerate(zip(said, (INK, INK, BASELINE_COLOUR), strict=True)):
            self.text(left, top + 0.17 * i, line, color=colour, va="center")

    def legend(self, sheet: Sheet, top: float) -> None:
        handles = [
            Patch(color=BAND, lw=0),
            Line2D([], [], color=INK, lw=1.8),
            Line2D([], [], color=BASELINE_COLOUR, lw=1.4, ls="--"),
            Line2D([], [], color=COLOURS[0], lw=0.9),
        ]
        names = [
            "fresh draws, one field's scatter",
            "great circles, mean",
            "straight lines, mean",
            "a path as shown",
        ]
        w, h = self.width, self.height
        self.figure.legend(
            handles, names, loc="upper left", bbox_to_anchor=((self.right - 0.05) / w, 1 - (top - 0.1) / h),
            ncols=2, borderpad=0, borderaxespad=0, handlelength=1.7, columnspacing=1.4, labelspacing=0.35,
        )  # fmt: skip
        bar = self.axes(self.right, top + BAR, PANEL + NOTES - 0.1, 0.13)
        _draw_bar(bar, sheet.scale)
        bar.set_xlabel(sheet.bar, labelpad=1)

    def response(self, sweep: Sweep, top: float) -> None:
        axes = self.axes(self.right, top, PANEL, self.tile[1] - 0.16)
        styles = ((COLOURS[2], "-"), *((INK, ls) for ls in (":", "--", "-")))
        for (name, ratio), (colour, line) in zip(sweep.ratios.items(), styles, strict=False):
            axes.plot(sweep.values, ratio, line, color=colour, lw=1.2, label=name)
        axes.axhline(1, color=FAINT, lw=0.7, zorder=0)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(sweep.values[0], sweep.values[-1])
        axes.set_xlabel(sweep.name, labelpad=0)
        axes.set_ylabel("over middle")
        axes.legend(
            loc="center left", bbox_to_anchor=(1.03, 0.5), borderpad=0, borderaxespad=0, handlelength=1.7
        )

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(
            buffer, format="png", dpi=DPI, facecolor=to_rgba("white"), metadata={"Software": None}
        )
        return buffer.getvalue()


def _show(axes: Axes, plane: np.ndarray, scale: Scale) -> None:
    axes.imshow(scale(reduced(plane)), cmap="inferno", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_track(axes: Axes, track: Track) -> None:
    mean, scatter = track.draws
    t = np.linspace(0, 1, track.circle.shape[1])
    axes.axhspan(mean - scatter, mean + scatter, color=BAND, lw=0, zorder=0)
    for i, row in enumerate(track.shown):
        axes.plot(t, row, color=row_colour(i), lw=0.9)
    axes.plot(t, track.line[0], "--", color=BASELINE_COLOUR, lw=1.4, zorder=3)
    axes.errorbar(t, track.circle[0], track.circle[1], color=INK, lw=1.8, elinewidth=0.9, zorder=4)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylabel(track.label)
    axes.yaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))


def _draw_bar(axes: Axes, scale: Scale) -> None:
    edges = (np.geomspace if scale.log else np.linspace)(scale.low, scale.high, 257)
    axes.pcolormesh(edges, [0, 1], np.linspace(0, 1, 256)[None], cmap="inferno")
    if scale.log:
        axes.set_xscale("log")
    axes.set_yticks([])
    axes.tick_params(top=False)
