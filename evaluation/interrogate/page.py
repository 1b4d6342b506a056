"""The page of an interrogation: one self-contained HTML file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evaluation import plots
from evaluation.interrogate.asking import CLOSED_FORM, EMULATOR, SECOND_ORDER, TRUTH, UNTOLD
from evaluation.interrogate.interrogation import Interrogation
from evaluation.interrogate.waves import PROFILES
from evaluation.page_filters import environment, figure, percent
from evaluation.page_filters import measured as with_error

MARKS = (0.1, 0.2, 0.4, 0.7)
"""Wavenumbers of tables [h/Mpc]; the nearest shells are taken."""


ROUNDING = 1e-5
"""Numbers below it are shown as 0: most are the rounding of single precision."""


def page(document: Mapping[str, Any], found: Interrogation) -> str:
    """The whole page of what ``document`` holds. Text is escaped; the figures are SVG inside it."""
    k = found.universes[0].k
    return (
        environment(**filters())
        .get_template("interrogate.html.j2")
        .render(
            d=document,
            a=document["answers"],
            names=found.names,
            looks=plots.MAP_LOOKS,
            emulator=EMULATOR,
            closed=CLOSED_FORM,
            second=SECOND_ORDER,
            truth=TRUTH,
            untold=UNTOLD,
            marks=sorted({int(np.argmin(np.abs(k - mark))) for mark in MARKS}),
            figures={
                "waves": plots.waves_figure(found.waves, PROFILES),
                "coupling": plots.coupling_figure(found.coupling),
                "transverse": plots.transverse_figure(found.transverse),
                "collapse": plots.collapse_figure(found.collapse),
                "saliency": plots.saliency_figure(found.saliency, document["grid"]["box_size"][0]),
                "universes": plots.universes_figure(found.universes, found.universes[0].params["Omega_m"]),
            },
        )
    )


def filters() -> dict[str, Callable[..., object]]:
    """How numbers are written on a page of questions."""
    return {
        "figure": shown,
        "measured": lambda x, error: shown(x) if _nothing(x) else with_error(x, error),
        "shift": lambda transfer: percent(None if transfer is None else transfer - 1).replace("-", "−"),
    }


def shown(x: float | None, digits: int = 2) -> str:
    """A few digits, a dash for what is not defined, and 0 for rounding."""
    return "0" if _nothing(x) else figure(x, digits)


def _nothing(x: float | None) -> bool:
    return x is not None and abs(x) < ROUNDING
