"""Figures of the questions about densities: waves and their harmonics, a ball, saliency, other universes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.plots.interrogate import LOOKS
from evaluation.plots.style import FAINT, WIDTH, math_name, style, svg

if TYPE_CHECKING:
    from evaluation.interrogate.density_ball import DensityBall
    from evaluation.interrogate.density_saliency import DensitySaliency
    from evaluation.interrogate.density_universes import DensityUniverse
    from evaluation.interrogate.density_waves import DensityCoupling, DensityWaves

# the names are those of evaluation.interrogate.densities
DENSITY_LOOKS: dict[str, dict[str, Any]] = {
    "particle mesh": LOOKS["particle mesh"],
    "interpolation": LOOKS["Zel'dovich"],
    "Gaussian modes": LOOKS["2LPT"],
    "density alone": LOOKS["2LPT"],
    "emulator, told the middle": LOOKS["emulator, told the middle"],
    "emulator": LOOKS["emulator"],
}
SHOWN = 3
"""Harmonics that are drawn, the wave itself among them."""


def harmonics_figure(found: DensityWaves) -> str:
    """The wave and its harmonics over the truth's against the amplitude, mean over waves; an SVG address."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.3))
        for h in range(SHOWN):
            axes = figure.add_axes((0.06 + h * 0.325, 0.145, 0.275, 0.76))
            for name in _drawn(found.ratio):
                rows = found.ratio[name][:, :, h]
                held = np.isfinite(rows).all(1)
                error = np.sqrt((found.ratio_error[name][held][:, :, h] ** 2).sum(0)) / max(held.sum(), 1)
                axes.errorbar(found.amplitudes, rows[held].mean(0), error, label=name, **DENSITY_LOOKS[name])
            _one(axes)
            axes.set(xlabel="$A$", ylabel="over the particle mesh's" if h == 0 else "", ylim=(-0.2, 2.2))
            name = ("the wave, $k$", "first harmonic, $2k$", "second harmonic, $3k$")[h]
            axes.set_title(name, loc="left")
            if h == 0:
                axes.legend(fontsize=9)
        return svg(figure)


def crossed_figure(found: DensityCoupling) -> str:
    """The wave at k1 + k2 over the truth's, a panel for each pair; an SVG data address."""
    width = 0.945 / len(found.pairs)
    with style():
        figure = Figure(figsize=(WIDTH, 2.9))
        for i, (pair, k) in enumerate(zip(found.pairs, found.k, strict=True)):
            axes = figure.add_axes((0.05 + i * width, 0.165, width - 0.008, 0.69))
            for name in _drawn(found.sum_wave):
                look = DENSITY_LOOKS[name]
                y, error = found.sum_wave[name][i], found.sum_error[name][i]
                axes.errorbar(found.amplitudes, y, error, label=name, **look)
            _one(axes)
            axes.set(ylim=(-0.2, 2.2), xlabel="$A$")
            axes.tick_params(labelleft=i == 0)
            axes.set_title(f"{pair[0]}, {pair[1]}:  $k$ = {k:.2f}", loc="left", fontsize=9.5)
            if i == 0:
                axes.set_ylabel("wave at $k_1 + k_2$ over the mesh's")
                axes.legend(fontsize=8.5)
        return svg(figure)


def central_figure(found: DensityBall) -> str:
    """Central density against the linear one, and over spherical collapse; an SVG data address."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.3))
        for i, radius in enumerate(found.radius):
            left = figure.add_axes((0.06 + i * 0.49, 0.145, 0.19, 0.77))
            right = figure.add_axes((0.30 + i * 0.49, 0.145, 0.19, 0.77))
            left.plot(found.density[i], found.exact[i], color=FAINT, lw=4, alpha=0.5, label="exact")
            for name in _drawn(found.central):
                y, error = found.central[name][i], found.central_error[name][i]
                left.errorbar(found.density[i], y, error, label=name, **DENSITY_LOOKS[name])
                right.plot(found.density[i], y / found.exact[i], **DENSITY_LOOKS[name])
            _one(right)
            left.set(yscale="log", xlabel=r"linear density $\delta_{\rm L}$")
            right.set(xlabel=r"linear density $\delta_{\rm L}$", ylim=(0, 2.5))
            left.set_title(rf"radius {radius:.0f} Mpc/$h$: density", loc="left")
            right.set_title("over exact", loc="left")
            if i == 0:
                left.legend(fontsize=8.5)
        return svg(figure)


def held_figure(found: DensitySaliency) -> str:
    """Share of the squared derivatives within a radius; an SVG data address."""
    with style():
        figure = Figure(figsize=(WIDTH * 0.55, 3.1))
        axes = figure.add_axes((0.11, 0.155, 0.86, 0.75))
        for name in _drawn(found.held):
            axes.errorbar(
                found.radius, found.held[name], found.held_error[name], label=name, **DENSITY_LOOKS[name]
            )
        for share in (0.5, 0.9):
            axes.axhline(share, color=FAINT, lw=0.8, ls=":")
        axes.set(xlabel=r"radius [Mpc/$h$]", ylim=(0, 1.05), xlim=(0, None))
        axes.set_title("share of the saliency within", loc="left")
        axes.legend(fontsize=9, loc="lower right")
        return svg(figure)


def bands_figure(found: Sequence[DensityUniverse], middle: float) -> str:
    """T and r of both bands in other universes; an SVG data address.

    ``middle``: Omega_m of the universes whose amplitude changes.
    """
    by_matter = sorted((u for u in found if u.amplitude == 1), key=lambda u: u.params["Omega_m"])
    by_power = sorted((u for u in found if u.params["Omega_m"] == middle), key=lambda u: u.amplitude)
    sides = (
        (by_matter, [u.params["Omega_m"] for u in by_matter], math_name("Omega_m")),
        (by_power, [u.amplitude for u in by_power], "$A_s$ over the middle's"),
    )
    with style():
        figure = Figure(figsize=(WIDTH, 6.2))
        for row, (key, label) in enumerate((("transfer", "$T$"), ("coherence", "$r$"))):
            for column in range(4):
                universes, x, name = sides[column % 2]
                axes = figure.add_axes((0.05 + column * 0.245, 0.555 - 0.48 * row, 0.2, 0.385))
                _band(axes, universes, x, key, column // 2)
                axes.set_xlabel(name)
                axes.set_title(f"{label}, {('long', 'short')[column // 2]} waves", loc="left")
                if (row, column) == (1, 2):  # phases of short waves leave most room
                    axes.legend(fontsize=8.5, loc="upper left")
        return svg(figure)


def _band(axes: Axes, rows: Sequence[DensityUniverse], x: Sequence[float], key: str, band: int) -> None:
    for name in _drawn(rows[0].errors):
        y = [getattr(u.errors[name], key)[band] for u in rows]
        error = [getattr(u.errors[name], f"{key}_error")[band] for u in rows]
        axes.errorbar(x, y, error, label=name, **DENSITY_LOOKS[name])
    inside = [v for v, u in zip(x, rows, strict=True) if u.trained]
    if inside:
        axes.axvspan(min(inside), max(inside), color="#f1efe9", zorder=0, lw=0)
    _one(axes)


def _one(axes: Axes) -> None:
    axes.axhline(1, color=FAINT, lw=0.8)


def _drawn(of: dict[str, Any]) -> list[str]:
    return [name for name in DENSITY_LOOKS if name in of]
