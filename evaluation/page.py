"""The page of the report: one self-contained HTML file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import plots
from evaluation.base import few
from evaluation.conditional import Conditional
from evaluation.evaluate import Evaluated
from evaluation.labels import ABSCISSAE, DENSITIES, RESIDUALS, SCALES, SHORT, TITLES
from evaluation.page_filters import environment
from evaluation.paired import PairedErrors
from evaluation.sampler import SamplerBias
from evaluation.thresholds import Thresholds


def page(
    document: Mapping[str, Any],
    evaluated: Sequence[Evaluated],
    t: Thresholds,
    paired: Sequence[PairedErrors] = (),
    conditional: Sequence[Conditional] = (),
    samplers: Sequence[SamplerBias] = (),
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
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            d=document,
            looks=styles,
            figures=figures,
            map_of_parameters=_map_of_parameters(document),
            pairs=_pairs(document, paired, styles),
            marks=_marks(paired[0].k) if paired else [],
            across=_across(document, evaluated, conditional, styles),
            samplers={s.samples: plots.sampler_figure(s, styles[s.samples]) for s in samplers},
            bar=plots.colour_bar(),
            table=[s for s in document["headline"][0]["excess"] if s == "power" or s in t.excess],
        )
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
                log_y=c.log or s in DENSITIES,
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
    if statistic in ABSCISSAE:
        return ABSCISSAE[statistic]
    if statistic in ("pdf", "log_pdf"):
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


def _across(
    document: Mapping[str, Any],
    evaluated: Sequence[Evaluated],
    found: Sequence[Conditional],
    styles: Mapping[str, plots.Look],
) -> dict[str, Any] | None:
    """Figures of conditional truth; cosmologies that are not the page's own are numbered."""
    if not found:
        return None
    own = {tuple(e.cosmology.params.values()): e.cosmology.letter for e in evaluated}
    points = [tuple(row) for row in found[0].params.tolist()]
    lettered = all(point in own for point in points)
    letters = [own[p] for p in points] if lettered else [str(i + 1) for i in range(len(points))]
    units = {s.name: _abscissa(s.name, s.unit, document["field"]) for s in evaluated[0].statistics}
    training, limits = _training(document)
    return {
        "responses": plots.responses_figure(found, styles, TITLES, units),
        "errors": plots.errors_figure(found, letters, training, limits),
        "inference": plots.inference_figure(found, styles),
        "letters": letters,
    }


def _training(document: Mapping[str, Any]) -> tuple[np.ndarray | None, tuple[list[float], list[float]]]:
    """Training cosmologies ``(n, P)``, if told, and the range."""
    given, limits = document["provenance"].get("training_params"), document["provenance"]["training_range"]
    training = None
    if isinstance(given, list) and given:
        table = np.array(given, dtype=np.float64)
        n = len(document["field"]["parameters"])
        training = table if table.ndim == 2 and table.shape[1] == n else None
    return training, (limits["low"], limits["high"])


def _map_of_parameters(document: Mapping[str, Any]) -> str | None:
    names = document["field"]["parameters"]
    if not names:
        return None
    training, limits = _training(document)
    tests = [(c["letter"], list(c["params"].values()), c["region"]) for c in document["cosmologies"]]
    return plots.parameters_figure(names, training, tests, limits)
