"""Everything that is drawn, as SVG and PNG data addresses. Matplotlib lives here alone."""

from evaluation.plots.figures import distributions_figure, parameters_figure, statistics_figure
from evaluation.plots.panels import Curve, Excess, Panel
from evaluation.plots.pictures import Scale, colour_bar, picture
from evaluation.plots.style import Look, looks, text

__all__ = [
    "Curve",
    "Excess",
    "Look",
    "Panel",
    "Scale",
    "colour_bar",
    "distributions_figure",
    "looks",
    "parameters_figure",
    "picture",
    "statistics_figure",
    "text",
]
