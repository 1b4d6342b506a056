"""Figures of the questions with closed forms: plane waves, their coupling, spherical collapse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from evaluation.plots.style import BASELINE_COLOUR, COLOURS, FAINT, INK, WIDTH, style, svg

if TYPE_CHECKING:
    from evaluation.interrogate.collapse import Collapse
    from evaluation.interrogate.coupling import Coupling
    from evaluation.interrogate.waves import PlaneWaves

# how a map is drawn, in every figure; the names are those of evaluation.interrogate.asking
LOOKS: dict[str, dict[str, Any]] = {
    "particle mesh": {"color": INK, "marker": "", "ls": "-", "lw": 1.8, "zorder": 2},
    "Zel'dovich": {"color": FAINT, "marker": "s", "ls": ":", "lw": 1.1, "ms": 3.5, "zorder": 3},
    "2LPT": {"color": BASELINE_COLOUR, "marker": "^", "ls": "--", "lw": 1.1, "ms": 4.5, "zorder": 4},
    "closed form": {"color": COLOURS[1], "marker": "D", "ls": "--", "lw": 1.1, "ms": 3.5, "zorder": 5},
    "emulator, told the middle": {
        "color": COLOURS[3], "marker": "v", "ls": "-", "lw": 1.1, "ms": 4.5, "zorder": 5,
    },
    "emulator": {"color": COLOURS[0], "marker": "o", "ls": "-", "lw": 1.3, "ms": 4, "zorder": 6},
}  # fmt: skip
WAVE_MARKERS = {"axis": "o", "face diagonal": "s", "body diagonal": "^"}
K_LABEL = r"$k$ [$h$ Mpc$^{-1}$]"


def drawn(name: str, **changes: Any) -> dict[str, Any]:
    """How a map is drawn, but for ``changes``."""
    return {**LOOKS[name], **changes}


def log_ticks(axes: Axes) -> None:
    """A logarithmic abscissa with plain numbers at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def waves_figure(found: PlaneWaves, amplitudes: tuple[float, ...]) -> str:
    """Profiles along one wave above; transfer, distances and forbidden waves below; an SVG data address.

    ``amplitudes``: of the profiles.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 6.3))
        for i, amplitude in enumerate(amplitudes):
            axes = figure.add_axes((0.06 + i * 0.325, 0.575, 0.275, 0.37))
            _profile(axes, found, i, amplitude)
        below = [figure.add_axes((0.06 + i * 0.325, 0.075, 0.275, 0.37)) for i in range(3)]
        _transfer(below[0], found)
        _distances(below[1], found)
        _forbidden(below[2], found)
        return svg(figure)


def _profile(axes: Axes, found: PlaneWaves, i: int, amplitude: float) -> None:
    for name in ("Zel'dovich", "particle mesh", "emulator"):
        look = drawn(name, marker="", lw=1.4) if name == "Zel'dovich" else drawn(name)
        axes.plot(found.place, found.profile[name][i], label=name, **look)
    first = 2 * found.place[-1] / (2 * len(found.place) - 1) * len(found.place) / found.profile_mode[0]
    axes.set(xlim=(0, first), xlabel=r"$q$ [Mpc/$h$]", ylabel=r"displacement [Mpc/$h$]" if i == 0 else "")
    crossed = ", shells have crossed" if amplitude > 1 else ""
    axes.set_title(f"$A = {amplitude:g}${crossed}", loc="left")
    if i == 0:
        axes.legend(fontsize=9)


def _transfer(axes: Axes, found: PlaneWaves) -> None:
    """T - 1 at A = 0.5 against k, a marker for each direction."""
    middle = int(np.argmin(np.abs(found.amplitudes - 0.5)))
    for name in ("particle mesh", "emulator"):
        for direction, marker in WAVE_MARKERS.items():
            rows = [i for i, d in enumerate(found.direction) if d == direction]
            percent = 100 * (found.asked[name].transfer[rows, middle] - 1)
            look = drawn(name, marker=marker, ms=4.5, lw=0.9)
            axes.plot(found.k[rows], percent, label=direction if name == "emulator" else None, **look)
    axes.axhline(0, color=FAINT, lw=0.8)
    log_ticks(axes)
    axes.set(xlabel=K_LABEL, ylabel="$T - 1$ [%]")
    axes.set_title("amplitude of the wave, $A = 0.5$", loc="left")
    axes.legend(fontsize=9)


def _distances(axes: Axes, found: PlaneWaves) -> None:
    """Mean over the waves of the rms difference, in units of the wave's own rms."""
    exact = {"emulator from exact": ("emulator", "--"), "particle mesh from exact": ("particle mesh", "--")}
    for label, (name, dashes) in exact.items():
        look = drawn(name, ls=dashes, marker="")
        axes.plot(found.amplitudes, 100 * found.asked[name].from_exact.mean(0), label=label, **look)
    for name in ("Zel'dovich", *_present(found.asked, "closed form"), "emulator"):
        label = f"{name} from particle mesh"
        axes.plot(found.amplitudes, 100 * found.asked[name].from_truth.mean(0), label=label, **LOOKS[name])
    _crossing(axes)
    axes.set(xlabel="$A$", ylabel="rms difference [% of the wave]", ylim=(0, None))
    axes.set_title("distance, mean over the waves", loc="left")
    axes.legend(fontsize=8.5)


def _forbidden(axes: Axes, found: PlaneWaves) -> None:
    for name in ("particle mesh", "emulator"):
        rows = found.asked[name]
        axes.plot(found.amplitudes, 100 * rows.harmonics.mean(0), label=f"harmonics, {name}", **LOOKS[name])
        look = drawn(name, ls=":", marker="", lw=1.6)
        axes.plot(found.amplitudes, 100 * rows.leakage.mean(0), label=f"leakage, {name}", **look)
    _crossing(axes)
    axes.set(xlabel="$A$", ylabel="rms [% of the wave]", ylim=(0, None))
    axes.set_title("other waves, mean over the waves", loc="left")
    axes.legend(fontsize=8.5)


def _crossing(axes: Axes) -> None:
    axes.axvline(1, color=FAINT, lw=0.8, ls=":")


def coupling_figure(found: Coupling) -> str:
    """The wave at k1 + k2 over second order's, a panel for each pair; an SVG data address."""
    n = len(found.pairs)
    width = 0.945 / n
    every = np.concatenate([rows.reshape(-1) for rows in found.sum_wave.values()])
    low, high = float(every.min()), max(1.3, float(every.max()))
    with style():
        figure = Figure(figsize=(WIDTH, 2.9))
        for i, (pair, k) in enumerate(zip(found.pairs, found.k, strict=True)):
            axes = figure.add_axes((0.05 + i * width, 0.165, width - 0.008, 0.69))
            for name, rows in _by_look(found.sum_wave).items():
                axes.plot(found.amplitudes, rows[i], label=name, **LOOKS[name])
            for name in ("particle mesh", "emulator"):
                look = drawn(name, ls=":", marker="")
                axes.plot(found.amplitudes, found.difference_wave[name][i], **look)
            _crossing(axes)
            axes.set(ylim=(max(low, -1) - 0.1, min(high, 2.5) + 0.1), xlabel="$A$")
            axes.tick_params(labelleft=i == 0)
            axes.set_title(f"{pair[0]}, {pair[1]}:  $k$ = {k:.2f}", loc="left", fontsize=9.5)
            if i == 0:
                axes.set_ylabel("wave at $k_1 + k_2$ over 2LPT's")
                axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0.1, 0.12))
        return svg(figure)


def collapse_figure(found: Collapse) -> str:
    """Density of the inner ball against its linear density, and errors of its radius; an SVG data address."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.3))
        left = figure.add_axes((0.06, 0.145, 0.36, 0.77))
        last = len(found.radius) - 1
        left.plot(found.density[last], found.exact[last] ** -3, color=FAINT, lw=4, label="exact", alpha=0.5)
        for name, y in _by_look(found.ratio).items():
            left.plot(found.density[last], y[last] ** -3, label=name, **LOOKS[name])
        left.set(yscale="log", xlabel=r"linear density $\delta_{\rm L}$", ylabel=r"density $1 + \Delta$")
        left.set_title(rf"radius {found.radius[last]:.0f} Mpc/$h$", loc="left")
        left.legend(fontsize=9)
        width = 0.25
        errors = {name: 100 * (y / found.exact - 1) for name, y in _by_look(found.ratio).items()}
        limit = min(30.0, 1.1 * max(float(np.abs(x).max()) for x in errors.values()))
        for i, radius in enumerate(found.radius):
            axes = figure.add_axes((0.49 + i * (width + 0.01), 0.145, width, 0.77))
            for name, percent in errors.items():
                axes.plot(found.density[i], percent[i], **LOOKS[name])
            axes.axhline(0, color=FAINT, lw=0.8)
            axes.set(xlabel=r"linear density $\delta_{\rm L}$", ylim=(-limit, limit))
            axes.tick_params(labelleft=i == 0)
            axes.set_title(rf"radius {radius:.0f} Mpc/$h$", loc="left")
            if i == 0:
                axes.set_ylabel("radius over exact $-$ 1 [%]")
        return svg(figure)


def _present(of: Mapping[str, object], *names: str) -> list[str]:
    return [name for name in names if name in of]


def _by_look(of: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """In the order in which maps are drawn."""
    return {name: of[name] for name in LOOKS if name in of}
