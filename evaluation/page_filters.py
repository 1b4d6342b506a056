"""How numbers, names and parameters are written on a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from evaluation.verdict import NAMES, number

GREEK = {
    "Omega": "Ω",
    "sigma": "σ",
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "nu": "ν",
    "tau": "τ",
}
LONGEST_LIST = 8  # of provenance; longer ones are counted, the whole stands in report.json


def statistic_name(name: str) -> str:
    return NAMES.get(name, name).removeprefix("the ")


def joint_name(test: str) -> str:
    """The kind of a joint test, and of what: "scatter of peak counts"."""
    kind, _, of = test.partition(": ")
    return f"{kind} of {statistic_name(of)}" if of else kind


def percent(x: float | None, digits: int = 1) -> str:
    return "–" if x is None else f"{100 * x:.{digits}f} %"


def figure(x: float | None, digits: int = 2) -> str:
    """A few digits; a dash for what is not defined."""
    if x is None:
        return "–"
    shown = (
        f"{x:.0f}" if abs(x) >= 99.5 else f"{x:.{digits}g}" if abs(x) < 1 else f"{x:.{max(digits - 1, 0)}f}"
    )
    return shown.replace("-", "−")


def measured(value: float | None, error: float | None) -> Markup:
    """``value ± error`` to the error's second digit, with a power of ten taken out of small numbers."""
    if value is None or error is None or not error > 0:
        return Markup("–") if value is None else escape(number(value))
    power = math.floor(math.log10(max(abs(value), error)))
    shift = 0 if -3 <= power <= 4 else power
    value, error = value / 10.0**shift, error / 10.0**shift
    digits = max(0, 1 - math.floor(math.log10(error)))
    shown = f"{value:.{digits}f} ± {error:.{digits}f}".replace("-", "−")
    return (
        Markup("({}) · 10<sup>{}</sup>").format(shown, f"{shift:d}".replace("-", "−"))
        if shift
        else escape(shown)
    )


def probability(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def symbol(name: str) -> Markup:
    """``Omega_m`` as Ω with a subscript; any other text as it is, escaped."""
    head, _, tail = name.partition("_")
    if tail and len(head) > 1 and head not in GREEK:
        return escape(name)
    shown = (
        Markup("<i>{}</i>").format(GREEK.get(head, head)) if head in GREEK or len(head) == 1 else escape(head)
    )
    return Markup("{}<sub>{}</sub>").format(shown, tail) if tail else shown


def breakable(name: str) -> Markup:
    """A name that may be broken after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def params(values: Mapping[str, float]) -> Markup:
    """All parameters with their values in one line."""
    parts = [Markup("{} = {}").format(symbol(name), number(x)) for name, x in values.items()]
    return Markup(", ").join(parts)


def brief(x: Any) -> str:
    """A value of the provenance in one line."""
    if isinstance(x, list):
        if len(x) > LONGEST_LIST or any(isinstance(item, list | dict) for item in x):
            return f"{len(x)} entries, see report.json"
        return ", ".join(brief(item) for item in x)
    if isinstance(x, dict):
        return ", ".join(f"{key}: {brief(value)}" for key, value in x.items())
    return "–" if x is None else f"{x:.6g}" if isinstance(x, float) else str(x)


def environment(**filters: Callable[..., object]) -> jinja2.Environment:
    """For the templates of this folder: text is escaped, an undefined name is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= FILTERS | filters
    return made


FILTERS = {
    "percent": percent,
    "figure": figure,
    "symbol": symbol,
    "params": params,
    "brief": brief,
    "measured": measured,
    "breakable": breakable,
    "p": probability,
    "statistic": statistic_name,
    "joint": joint_name,
}
