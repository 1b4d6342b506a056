"""Figures of the questions about random boxes: transverse waves, saliency, other universes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.plots.interrogate import K_LABEL, LOOKS, drawn, log_ticks
from evaluation.plots.style import FAINT, INK, WIDTH, math_name, style, svg

if TYPE_CHECKING:
    from evaluation.interrogate.saliency import Saliency
    from evaluation.interrogate.transverse import Part, Transverse
    from evaluation.interrogate.universes import Universe

FAINT_POWER = 1e-5  # of the truth's: below, a curve is rounding


def transverse_figure(found: Transverse) -> str:
    """Power of both parts, the transverse part's ratio to the truth and its phases; an SVG data address."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.1))
        axes = [figure.add_axes((0.065 + i * 0.325, 0.155, 0.265, 0.75)) for i in range(3)]
        _powers(axes[0], found.longitudinal, found.transverse)
        for name in _drawn(found.transverse):
            part = found.transverse
            axes[1].errorbar(part.k, part.ratio[name], part.ratio_error[name], **LOOKS[name], label=name)
            axes[2].errorbar(part.k, part.coherence[name], part.coherence_error[name], **LOOKS[name])
        for panel in axes[1:]:
            panel.axhline(1, color=FAINT, lw=0.8)
            panel.axhline(0, color=FAINT, lw=0.8)
            log_ticks(panel)
            panel.set(xlabel=K_LABEL, ylim=(-0.1, None))
        axes[1].set_title("transverse power over the particle mesh's", loc="left")
        axes[2].set_title("correlation with it, $r(k)$", loc="left")
        if not _drawn(found.transverse):
            axes[1].text(0.5, 0.5, "no map has any", transform=axes[1].transAxes, ha="center", color=INK)
        return svg(figure)


def _powers(axes: Axes, longitudinal: Part, transverse: Part) -> None:
    for part, label in ((longitudinal, "longitudinal"), (transverse, "transverse")):
        for name in ("particle mesh", *_drawn(part)):
            look = drawn(name, marker="") if part is longitudinal else drawn(name)
            axes.plot(part.k, part.power[name], **look)
        at = len(part.k) // 3
        place = part.k[at], part.power["particle mesh"][at]
        axes.annotate(label, place, xytext=(4, 7), textcoords="offset points", fontsize=9)
    log_ticks(axes)
    axes.set(yscale="log", xlabel=K_LABEL, ylabel=r"$P_\psi(k)$ [(Mpc/$h$)$^5$]")
    axes.set_title("displacement", loc="left")


def _drawn(part: Part) -> list[str]:
    """Maps but the truth that have any of this power."""
    truth = part.power["particle mesh"]
    return [
        name
        for name in LOOKS
        if name in part.power and name != "particle mesh" and (part.power[name] > FAINT_POWER * truth).any()
    ]


def saliency_figure(found: Saliency, side: float) -> str:
    """Pull by distance, what is added to linear theory, and the pull in a plane; an SVG data address."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.15))
        pull, added = (figure.add_axes((x, 0.155, 0.225, 0.75)) for x in (0.07, 0.355))
        r = found.distance[1:]
        pull.plot(r, found.linear[1:], color=FAINT, lw=4, alpha=0.5, label="linear theory")
        for name in ("particle mesh", "2LPT", "closed form", "emulator"):
            if name not in found.pull:
                continue
            pull.errorbar(r, found.pull[name][1:], found.pull_error[name][1:], label=name, **LOOKS[name])
            added.plot(r, found.added[name][1:], **LOOKS[name])
        added.plot(r, np.abs(found.linear[1:]), color=FAINT, lw=4, alpha=0.5)
        for axes in (pull, added):
            log_ticks(axes)
            axes.set(yscale="log", xlabel=r"distance [Mpc/$h$]")
        pull.set_ylim(bottom=max(found.linear[1:].max() * 1e-3, 1e-6))
        pull.set_title(r"mean pull [Mpc/$h$]", loc="left")
        added.set_title(r"rms added to linear [Mpc/$h$]", loc="left")
        pull.legend(fontsize=9)
        _planes(figure, found, side)
        return svg(figure)


def _planes(figure: Figure, found: Saliency, side: float) -> None:
    """d psi_x / d delta around the particle, on one scale that shows faint cells: the signed square root."""
    n = found.plane["emulator"].shape[0]
    cut = slice(n // 2 - n // 4, n // 2 + n // 4 + 1)
    half = side / 4
    limit = np.sqrt(np.abs(found.plane["particle mesh"]).max())
    for i, name in enumerate(("Zel'dovich", "emulator", "particle mesh")):
        axes = figure.add_axes((0.622 + i * 0.128, 0.25, 0.122, 0.56))
        plane = found.plane[name][cut, cut].T
        axes.imshow(
            np.sign(plane) * np.sqrt(np.abs(plane)), cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower",
            extent=(-half, half, -half, half), interpolation="nearest",
        )  # fmt: skip
        axes.set_title("linear theory" if i == 0 else name, fontsize=9.5, loc="left")
        axes.set_xlabel(r"$x$ [Mpc/$h$]")
        axes.tick_params(labelleft=i == 0)


def universes_figure(found: Sequence[Universe], middle: float) -> str:
    """Position errors over 2LPT's, and T and 1 - r^2 of the emulator in every universe; an SVG data address.

    ``middle``: Omega_m of the universes whose amplitude changes.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 3.2))
        axes = [figure.add_axes((0.06 + i * 0.245, 0.155, 0.195, 0.75)) for i in range(4)]
        by_matter = sorted((u for u in found if u.amplitude == 1), key=lambda u: u.params["Omega_m"])
        by_power = sorted((u for u in found if u.params["Omega_m"] == middle), key=lambda u: u.amplitude)
        _positions(axes[0], by_matter, [u.params["Omega_m"] for u in by_matter], math_name("Omega_m"))
        _positions(axes[1], by_power, [u.amplitude for u in by_power], "$A_s$ over the middle's")
        axes[0].set_ylabel(r"position error [Mpc/$h$]")
        axes[0].legend(fontsize=8.5)
        for u in found:
            own = u.amplitude == 1 and u.params["Omega_m"] == middle
            for name in ("2LPT", "emulator"):
                dashes = ("-" if name == "emulator" else "--") if u.trained else ":"
                look = drawn(name, marker="", lw=1.8 if own else 0.7, ls=dashes)
                e = u.errors[name]
                axes[2].plot(u.k, 100 * (e.transfer - 1), **look)
                axes[3].plot(u.k, e.stochasticity, **look)
        axes[2].axhline(0, color=FAINT, lw=0.8)
        for panel in axes[2:]:
            log_ticks(panel)
            panel.set_xlabel(K_LABEL)
        axes[2].set_title("density, $T(k) - 1$ [%]", loc="left")
        axes[3].set_yscale("log")
        axes[3].set_title("density, $1 - r^2(k)$", loc="left")
        return svg(figure)


def _positions(axes: Axes, rows: Sequence[Universe], x: Sequence[float], label: str) -> None:
    names = [name for name in LOOKS if name in rows[0].errors]
    for name in names:
        y = [u.errors[name].position for u in rows]
        axes.errorbar(x, y, [u.errors[name].position_error for u in rows], label=name, **LOOKS[name])
    inside = [v for v, u in zip(x, rows, strict=True) if u.trained]
    if inside:
        axes.axvspan(min(inside), max(inside), color="#f1efe9", zorder=0, lw=0)
    axes.set(xlabel=label, ylim=(0, None))
    axes.set_title("particles", loc="left")
