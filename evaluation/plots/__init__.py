"""Everything that is drawn, as SVG and PNG data addresses. Matplotlib lives here alone."""

from evaluation.plots.figures import distributions_figure, parameters_figure, statistics_figure
from evaluation.plots.pairs import pairs_figure
from evaluation.plots.panels import Curve, Excess, Panel
from evaluation.plots.pictures import Scale, colour_bar, picture
from evaluation.plots.sheets import Row, Sheet, Sweep, Track, latent_sheet, row_colour
from evaluation.plots.style import Look, looks, math_name, text

__all__ = [
    "Curve",
    "Excess",
    "Look",
    "Panel",
    "Row",
    "Scale",
    "Sheet",
    "Sweep",
    "Track",
    "colour_bar",
    "distributions_figure",
    "latent_sheet",
    "looks",
    "math_name",
    "pairs_figure",
    "parameters_figure",
    "picture",
    "row_colour",
    "statistics_figure",
    "text",
]
