"""Everything that is drawn, as SVG and PNG data addresses. Matplotlib lives here alone."""

from evaluation.plots.conditional import errors_figure, inference_figure, responses_figure
from evaluation.plots.figures import distributions_figure, parameters_figure, statistics_figure
from evaluation.plots.interrogate import LOOKS as MAP_LOOKS
from evaluation.plots.interrogate import collapse_figure, coupling_figure, waves_figure
from evaluation.plots.interrogate_boxes import saliency_figure, transverse_figure, universes_figure
from evaluation.plots.interrogate_densities import (
    DENSITY_LOOKS,
    bands_figure,
    central_figure,
    crossed_figure,
    harmonics_figure,
    held_figure,
)
from evaluation.plots.pairs import pairs_figure
from evaluation.plots.panels import Curve, Excess, Panel
from evaluation.plots.pictures import Scale, colour_bar, picture
from evaluation.plots.posterior import PosteriorSheet, posterior_sheet
from evaluation.plots.sampler import sampler_figure
from evaluation.plots.sheets import Row, Sheet, Sweep, Track, latent_sheet, row_colour
from evaluation.plots.style import Look, looks, math_name, text

__all__ = [
    "DENSITY_LOOKS",
    "MAP_LOOKS",
    "Curve",
    "Excess",
    "Look",
    "Panel",
    "PosteriorSheet",
    "Row",
    "Scale",
    "Sheet",
    "Sweep",
    "Track",
    "bands_figure",
    "central_figure",
    "collapse_figure",
    "colour_bar",
    "coupling_figure",
    "crossed_figure",
    "distributions_figure",
    "errors_figure",
    "harmonics_figure",
    "held_figure",
    "inference_figure",
    "latent_sheet",
    "looks",
    "math_name",
    "pairs_figure",
    "parameters_figure",
    "picture",
    "posterior_sheet",
    "responses_figure",
    "row_colour",
    "saliency_figure",
    "sampler_figure",
    "statistics_figure",
    "text",
    "transverse_figure",
    "universes_figure",
    "waves_figure",
]
