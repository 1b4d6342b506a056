"""The page of the report: one self-contained HTML file, no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from evaluation import plots
from evaluation.base import few
from evaluation.evaluate import Evaluated
from evaluation.labels import ABSCISSAE, RESIDUALS, SCALES, SHORT, TITLES
from evaluation.paired import PairedErrors
from evaluation.thresholds import Thresholds
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


def page(
    document: Mapping[str, Any],
    evaluated: Sequence[Evaluated],
    t: Thresholds,
    paired: Sequence[PairedErrors] = (),
) -> str:
    """The whole page. Text is escaped; the figures are SVG and PNG inside it."""
    names, baseline = document["sets"], document["baseline"]
    styles = plots.looks(names, baseline)
    figures = {}
    for e in evaluated:
        panels = _panels(e, styles, document["field"])
        figures[e.cosmology.letter] = {
            "statistics": plots.statistics_figure(panels, _excess(e, styles, t)),
            "distributions": plots.distributions_figure(panels),
            "images": _images(e, names, t.images),
        }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
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
    template = environment.from_string(
        files("evaluation").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        d=document,
        looks=styles,
        figures=figures,
        map_of_parameters=_map_of_parameters(document),
        pairs=_pairs(document, paired, styles),
        marks=_marks(paired[0].k) if paired else [],
        bar=plots.colour_bar(),
        table=[s for s in document["headline"][0]["excess"] if s == "power" or s in t.excess],
    )


def _panels(e: Evaluated, styles: dict[str, plots.Look], field: Mapping[str, Any]) -> list[plots.Panel]:
    first = next(iter(e.comparisons))
    found = []
    for s, c in e.comparisons[first].items():
        if s == "moments":
            continue
        r = e.residuals[first][s]
        curves = []
        for name, of in e.comparisons.items():
            mine, res = of[s], e.residuals[name][s]
            curves.append(
                plots.Curve(
                    name,
                    mine.samples_mean,
                    res.values,
                    res.std,
                    mine.ks_D,
                    mine.scatter_ratio,
                    mine.scatter_ratio_std,
                )
            )
        found.append(
            plots.Panel(
                title=TITLES.get(s, s),
                label=c.label,
                unit=_abscissa(s, c.unit, field),
                x=c.abscissa,
                log_x=c.log,
                log_y=c.log or s == "pdf",
                reference=c.reference_mean,
                low=r.low,
                high=r.high,
                floor=r.floor,
                ks_floor=c.ks_floor,
                residual_label=RESIDUALS[r.of],
                curves=tuple(curves),
                judged_to=field["k_max"] if s == "power" else None,
                looks=styles,
            )
        )
    return found


def _abscissa(statistic: str, unit: str, field: Mapping[str, Any]) -> str:
    if statistic == "pdf":
        return plots.text(
            field["name"] if field["unit"] in ("", "1") else f"{field['name']} [{field['unit']}]"
        )
    if statistic in ("peaks", "minima"):
        return r"height $\nu$ [$\sigma$]"
    if statistic in SCALES:
        return plots.text(f"radius R [{unit}]")
    return ABSCISSAE.get(unit, plots.text(unit))


def _excess(e: Evaluated, styles: dict[str, plots.Look], t: Thresholds) -> plots.Excess:
    first = next(iter(e.comparisons.values()))
    thresholds = {t.excess[s] for s in first if s in t.excess}
    return plots.Excess(
        names=tuple(SHORT.get(s, s) for s in first),
        values={
            name: [(c.excess, *c.excess_interval) for c in of.values()] for name, of in e.comparisons.items()
        },
        perfect=[c.excess_null for c in first.values()],
        looks=styles,
        threshold=thresholds.pop() if len(thresholds) == 1 else None,
    )


def _images(e: Evaluated, names: Sequence[str], n: int) -> dict[str, Any]:
    """The first n maps of every kind, real ones from as many simulations as there are, on one scale."""
    c = e.cosmology
    scale = plots.Scale.of(few(c.reference.values).numpy())
    _, firsts = np.unique(c.reference.simulation, return_index=True)
    real = [*sorted(firsts), *sorted(set(range(len(c.reference))) - set(firsts))][:n]
    rows = [("real", [plots.picture(x[0].numpy(), scale) for x in c.reference.values[np.array(real)]])]
    for name in names:
        rows.append((name, [plots.picture(x[0].numpy(), scale) for x in c.samples[name].values[:n]]))
    return {"rows": rows, "low": scale.low, "high": scale.high, "log": scale.log}


def _pairs(
    document: Mapping[str, Any], paired: Sequence[PairedErrors], styles: Mapping[str, plots.Look]
) -> dict[str, str]:
    """The figure of paired fields of every region."""
    label = ABSCISSAE[document["field"]["k_unit"]]
    return {
        region: plots.pairs_figure([p for p in paired if p.region == region], styles, label)
        for region in dict.fromkeys(p.region for p in paired)
    }


def _marks(k: np.ndarray) -> list[int]:
    """Bins at a quarter, a half and all of the largest k."""
    return [int(np.abs(k - k[-1] * share).argmin()) for share in (0.25, 0.5, 1.0)]


def _map_of_parameters(document: Mapping[str, Any]) -> str | None:
    names = document["field"]["parameters"]
    if not names:
        return None
    given = document["provenance"].get("training_params")
    training = None
    if isinstance(given, list) and given:
        table = np.array(given, dtype=np.float64)
        training = table if table.ndim == 2 and table.shape[1] == len(names) else None
    tests = [(c["letter"], list(c["params"].values()), c["region"]) for c in document["cosmologies"]]
    limits = document["provenance"]["training_range"]
    return plots.parameters_figure(names, training, tests, (limits["low"], limits["high"]))


# --- filters ---


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
