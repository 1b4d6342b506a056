"""Thresholds are read exactly as written, or refused with one sentence."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import yaml

from evaluation.thresholds import load_thresholds
from gen.errors import InputError
from gen.fields import Grid

STANDARD = Path(__file__).parents[1] / "recipes" / "reports" / "standard.yaml"


def written(folder: Path, change=None, text: str | None = None) -> Path:
    content = yaml.safe_load(STANDARD.read_text())
    if change is not None:
        change(content)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content) if text is None else text)
    return path


def test_the_standard_holds_what_was_promised_before_any_run():
    t = load_thresholds(STANDARD)
    assert (t.power.k_max, t.power.error, t.power.aim) == (0.5, 0.05, 0.02)
    assert {t.excess[name] for name in ("pdf", "V0", "V1", "V2", "peaks")} == {2.0}
    assert t.significance == 0.05
    assert t.name == "standard"
    assert t.sha256 == hashlib.sha256(STANDARD.read_bytes()).hexdigest()


def test_thresholds_survive_a_round_trip(tmp_path):
    t = load_thresholds(written(tmp_path, lambda c: c["excess"].update(V2=3)))
    assert t.excess["V2"] == 3.0 and isinstance(t.excess["V2"], float)
    assert t.to_dict()["power"] == {"k_max": 0.5, "error": 0.05, "aim": 0.02}


def test_demands_on_motion_may_be_left_out_or_set(tmp_path):
    assert load_thresholds(STANDARD).motion == {}
    assert load_thresholds(STANDARD.with_name("nbody.yaml")).motion == {"position": 0.3333}
    assert (
        load_thresholds(written(tmp_path, lambda c: c.update(motion={"velocity": 1}))).motion["velocity"] == 1
    )


def test_spectra_end_where_the_beam_does_if_there_is_one(tmp_path):
    """12 arcmin leave exp(-k^2 sigma^2) = 1/1000 at the multipole 1773."""
    fine, wide = (Grid((128, 128), side, "deg", periodic=False) for side in (4.0, 8.0))
    t = load_thresholds(STANDARD)
    assert t.measurement.beam is None and t.measurement.k_max(fine) == math.inf
    assert t.judged_to(fine) == 0.5 * fine.k_nyquist
    t = load_thresholds(STANDARD.with_name("foreground.yaml"))
    k_max = t.measurement.k_max(fine)
    assert k_max == pytest.approx(1773, abs=1)
    assert math.exp(-((k_max * math.radians(12 / 60)) ** 2) / (8 * math.log(2))) == pytest.approx(1e-3)
    assert t.judged_to(fine) == k_max < 0.5 * fine.k_nyquist
    assert t.judged_to(wide) == 0.5 * wide.k_nyquist < k_max
    box = Grid((16, 16, 16), 20.0, "Mpc/h", periodic=True)
    t = load_thresholds(written(tmp_path, lambda c: c["measurement"].update(beam=2)))
    assert t.measurement.k_max(box) == pytest.approx(math.sqrt(8 * math.log(2) * math.log(1000)) / 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["measurement"].update(beam=0), "measurement.beam must be above 0"),
        (lambda c: c["measurement"].update(beam=-12), "measurement.beam must be above 0"),
        (lambda c: c["measurement"].update(beam="12 arcmin"), "measurement: beam must be a finite number"),
        (lambda c: c["measurement"].update(beam=None), "measurement: beam must be a finite number"),
        (lambda c: c.update(motion={"positon": 0.3}), "no vectors 'positon'; there are position, velocity"),
        (lambda c: c.update(motion={"position": 0}), "motion.position must be above 0"),
        (lambda c: c.update(motion=[0.3]), "must map names"),
        (lambda c: c.update(exces={}), "unknown key 'exces'"),
        (lambda c: c.update(statistics=["power", "pdff"]), "unknown statistic 'pdff'"),
        (lambda c: c.update(statistics=["power", "pdf", "power"]), "'power' is given twice"),
        (lambda c: c.update(statistics=["pdf"]), "power must be among the statistics"),
        (lambda c: c.update(statistics="power"), "must be a list of names"),
        (lambda c: c["power"].update(kmax=1), "unknown key 'kmax'"),
        (lambda c: c["measurement"].pop("pdf_bins"), "'pdf_bins' is missing"),
        (lambda c: c["power"].update(error="small"), "finite number"),
        (lambda c: c["power"].update(error=float("nan")), "finite number"),
        (lambda c: c["power"].update(error=True), "finite number"),
        (lambda c: c["power"].update(k_max=1.5), "at most 1"),
        (lambda c: c["power"].update(aim=0.2), "power.aim"),
        (lambda c: c.update(images=2.5), "whole number"),
        (lambda c: c.update(excess=[1, 2]), "must map names"),
        (lambda c: c["excess"].update(V0=-1), "excess.V0"),
        (lambda c: c.update(significance=0), "significance"),
        (lambda c: c.update(name="mine"), "unknown key 'name'"),
        (lambda c: c.update(power=3), "must hold the keys"),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(tmp_path, change, said):
    with pytest.raises(InputError, match=said) as caught:
        load_thresholds(written(tmp_path, change))
    assert "\n" not in str(caught.value) and "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold the keys"),
        ("power: [", "not valid YAML"),
        ("significance: 0.05\nsignificance: 0.5\n", "given twice"),
        ("!!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_table_of_thresholds_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        load_thresholds(written(tmp_path, text=text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.yaml cannot be read"):
        load_thresholds(tmp_path / "nothing.yaml")
