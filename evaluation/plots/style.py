"""The looks that all figures share, and how a figure becomes a data address."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, BAND, FLOOR = "#1c1c1c", "#8a8a8a", "#dcdcdc", "#e9dfc6"
# The palette of Okabe & Ito (2008), told apart with any colour vision; in print the markers tell them apart.
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "D", "v", "P")
BASELINE_COLOUR, BASELINE_MARKER = "#d55e00", "^"
WIDTH = 11.4  # inches, the width of the page


@dataclass(frozen=True)
class Look:
    """How one set of samples is drawn, the same in every figure."""

    colour: str
    marker: str
    dashed: bool


def looks(names: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """A look for every set of samples; the baseline's is its own whatever stands beside it."""
    others = [name for name in names if name != baseline]
    found = {name: Look(COLOURS[i % 5], MARKERS[i % 5], dashed=False) for i, name in enumerate(others)}
    return found | {
        name: Look(BASELINE_COLOUR, BASELINE_MARKER, dashed=True) for name in names if name == baseline
    }


def math_name(name: str) -> str:
    """``Omega_m`` as math text; names that are no symbol stay plain text, with nothing left to interpret."""
    greek = (
        "Omega",
        "sigma",
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "tau",
    )
    head, _, tail = name.partition("_")
    if not (head in greek or (len(head) == 1 and head.isalpha())) or not (tail.isalnum() or not tail):
        return text(name)
    symbol = f"\\{head}" if head in greek else head
    tail = rf"\mathrm{{{tail}}}" if tail and not tail.isdigit() else tail
    return f"${symbol}_{{{tail}}}$" if tail else f"${symbol}$"


def text(plain: str) -> str:
    """Text to be drawn as it is, nothing in it taken as mathematics."""
    return plain.replace("\\", "/").replace("$", r"\$")


@contextmanager
def style(size: float = 9.5) -> Iterator[None]:
    settings = {
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "font.size": size,
        "axes.titlesize": size + 1.5,
        "axes.linewidth": 0.7,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.direction": "in",
        "ytick.direction": "in",
        "xtick.top": True,
        "ytick.right": True,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "legend.frameon": False,
        "errorbar.capsize": 0,
        "figure.facecolor": "none",
        "axes.facecolor": "#ffffff",
        "savefig.facecolor": "none",
        "svg.fonttype": "path",
        "svg.hashsalt": "cosmozoo",
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-3, 4),
        "axes.formatter.use_mathtext": True,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):  # pyright: ignore[reportArgumentType]
        yield


def svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return address("image/svg+xml", buffer.getvalue())


def address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
