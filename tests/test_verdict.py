"""Words follow from numbers by the rules that the page states."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from report_fields import thresholds

from evaluation.residuals import PowerError, Residual
from evaluation.verdict import Judged, excess_demands, number, power_demand, standing, words

BINS = 5


def comparison(
    name: str, excess: float, low: float, high: float, p: float = 1.0, ks: float = 1.0, boxes: int = 24
):
    ks_p = np.full(BINS, ks)
    return SimpleNamespace(
        name=name,
        unit="multipole",
        excess=excess,
        excess_interval=(low, high),
        distance_p=p,
        ks_p=ks_p,
        ks_p_family=ks_p,
        ks_p_holm=ks_p,
        abscissa=np.arange(BINS, dtype=float),
        samples_mean=np.ones(BINS),
        reference_mean=np.ones(BINS),
        n_reference=96,
        n_samples=96,
        n_simulations_reference=boxes,
        n_simulations_samples=96,
    )


def error(largest: float, std: float, surely: float) -> PowerError:
    return PowerError(largest, std, largest, 300.0, largest / 2, 0.02, std, surely, 1000.0, 4)


@pytest.mark.parametrize(
    ("largest", "std", "surely", "state"),
    [
        (0.03, 0.01, 0.01, "met"),
        (0.03, 0.08, 0.0, "not decided"),  # nothing is known at such an error
        (0.08, 0.02, 0.04, "not decided"),
        (0.12, 0.02, 0.08, "missed"),
    ],
)
def test_power_is_met_missed_or_not_decided(largest, std, surely, state):
    assert power_demand("A", "interior", "net", error(largest, std, surely), thresholds()).state == state


def test_excess_is_judged_where_there_is_a_threshold_and_a_measurement():
    of = {
        "pdf": comparison("pdf", 1.5, 1.0, 2.5),
        "V0": comparison("V0", 2.5, 1.9, 3.0),
        "V1": comparison("V1", 4.0, 3.0, 5.0),
        "power": comparison("power", 9.0, 8.0, 10.0),
    }
    found = {d.quantity: d.state for d in excess_demands("A", "interior", of, "net", thresholds())}
    assert found == {"excess pdf": "met", "excess V0": "not decided", "excess V1": "missed"}


def judged(name: str, p: float, ks: float) -> Judged:
    values = np.array([0.0, -8.0, 1.0, 0.0, 0.0])
    r = Residual(values, np.ones(BINS), np.ones(BINS), *(np.zeros(BINS),) * 4, of="mean")
    return Judged("A", "interior", "net", comparison(name, 3.0, 2.0, 4.0, p, ks), r)


def test_a_small_p_counts_for_less_among_many():
    alone = words([judged("power", 0.012, 1.0)], 0.05)
    assert alone[0].differs and alone[0].text == "differs: −8.0 ± 1.0 % at ℓ = 1"
    among = words([judged("power", 0.012, 1.0), *(judged(f"s{i}", 0.5, 1.0) for i in range(9))], 0.05)
    assert not any(w.differs for w in among) and among[0].p == pytest.approx(0.12)
    assert among[0].text == "consistent at this n"


def test_each_family_has_a_third_of_the_significance():
    assert not words([judged("power", 0.02, 1.0)], 0.05)[0].differs
    by_ks = words([judged("power", 1.0, 0.012)], 0.05)[0]
    assert by_ks.differs and by_ks.n_rejected == BINS
    assert not words([judged("power", 1.0, 0.02)], 0.05)[0].differs


def test_what_no_test_could_reject_is_not_called_consistent():
    """With 4 boxes on each side 2 of 70 permutations leave them as they are: p cannot be below 0.029."""
    few = judged("power", 0.012, 0.012)
    few.comparison.n_simulations_reference = 4
    word = words([few], 0.05)[0]
    assert word.state == "untested" and not word.differs
    assert word.text == "too few to test: −8.0 ± 1.0 % at ℓ = 1"
    assert word.smallest_p == pytest.approx(2 / 70)
    assert words([few], 0.10)[0].differs


def ranked(mine: dict, base: dict):
    def of(values):
        return [{s: comparison(s, *v) for s, v in values.items()}]

    return standing("interior", "net", of(mine), of(base), list(mine))


def test_ahead_and_behind_need_intervals_that_do_not_touch():
    base = {"power": (2.0, 1.5, 2.5), "V2": (5.0, 4.0, 6.0)}
    ahead = ranked({"power": (1.8, 1.3, 2.3), "V2": (1.0, 0.5, 1.5)}, base)
    assert ahead.beats and (ahead.ahead, ahead.level, ahead.behind) == (("V2",), ("power",), ())
    assert ahead.text == "beats the analytic baseline: ahead in V₂; level in the power spectrum"
    mixed = ranked({"power": (9.0, 8.0, 10.0), "V2": (1.0, 0.5, 1.5)}, base)
    assert not mixed.beats
    assert mixed.text == "does not beat the analytic baseline: ahead in V₂, behind in the power spectrum"
    level = ranked(base, base)
    assert not level.beats
    assert level.text == "does not beat the analytic baseline: level in the power spectrum and V₂"


def test_several_cosmologies_narrow_the_interval():
    mine, base = {"V2": comparison("V2", 2.0, 1.0, 3.0)}, {"V2": comparison("V2", 3.0, 2.0, 4.0)}
    assert standing("interior", "net", [mine], [base], ["V2"]).level == ("V2",)
    assert standing("interior", "net", [mine] * 6, [base] * 6, ["V2"]).ahead == ("V2",)


def test_moments_are_named():
    j = judged("moments", 0.001, 1.0)
    j = replace(j, comparison=SimpleNamespace(**{**vars(j.comparison), "samples_mean": np.full(BINS, 0.5)}))
    assert words([j], 0.05)[0].text == "differs: standard deviation 0.5, real 1"


@pytest.mark.parametrize(
    ("x", "said"), [(1861.3, "1861"), (-0.01234, "−0.0123"), (3.14159, "3.14"), (2e6, "2e+06")]
)
def test_numbers_are_short(x, said):
    assert number(x) == said
