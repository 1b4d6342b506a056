"""The page of an interrogation about densities: one self-contained HTML file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation import plots
from evaluation.interrogate.asking import EMULATOR, TRUTH, UNTOLD
from evaluation.interrogate.densities import DensityInterrogation
from evaluation.interrogate.page import filters
from evaluation.interrogate.universes import AMPLITUDE, OMEGA_M
from evaluation.page_filters import environment


def page(document: Mapping[str, Any], found: DensityInterrogation) -> str:
    """The whole page of what ``document`` holds. Text is escaped; the figures are SVG inside it."""
    waves = found.waves
    figures = {
        "saliency": plots.held_figure(found.saliency),
        "universes": plots.bands_figure(found.universes, found.universes[0].params["Omega_m"]),
    }
    if waves is not None:
        figures |= {
            "waves": plots.harmonics_figure(waves.single),
            "coupling": plots.crossed_figure(waves.crossed),
            "ball": plots.central_figure(waves.ball),
        }
    return (
        environment(**filters())
        .get_template("interrogate_densities.html.j2")
        .render(
            d=document,
            a=document["answers"],
            names=found.names,
            made=list(found.symmetry.error),
            looks=plots.DENSITY_LOOKS,
            emulator=EMULATOR,
            truth=TRUTH,
            untold=UNTOLD,
            n_universes=len(OMEGA_M) + len(AMPLITUDE) - 1,
            figures=figures,
        )
    )
