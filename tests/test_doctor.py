"""The doctor recognises what is wrong and says the lines that mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gen.commands import doctor
from gen.commands.doctor import (
    QUANTIMPY,
    Finding,
    check_cache,
    check_python,
    check_quantimpy,
    check_requirements,
    check_threads,
    lines,
)


def test_this_installation_is_sound(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor.doctor() == 0
    said = capsys.readouterr().out
    assert "torch" in said
    assert "the installation is sound" in said


def test_a_finding_that_is_wrong_makes_the_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "check_cache", lambda: Finding("cache", "wrong", "full", ("make room",)))
    assert doctor.doctor() == 1
    said = capsys.readouterr().out
    assert "WRONG cache: full" in said
    assert "mend: make room" in said


def test_quantimpy_built_for_numpy_1_is_recognised() -> None:
    def load(name: str) -> object:
        raise ValueError(
            "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88"
        )

    found = check_quantimpy(load)
    assert found.state == "wrong"
    assert found.mend == QUANTIMPY
    assert len(found.mend) == 2
    assert "numpy>=2" in found.mend[0]
    assert "--no-build-isolation" in found.mend[1]
    assert "--no-cache-dir" in found.mend[1]


def test_quantimpy_is_optional_but_not_if_broken() -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    def broken(name: str) -> object:
        raise ImportError("undefined symbol: PyFloat_Type\nmore")

    assert check_quantimpy(missing).state == "note"
    assert check_quantimpy(broken).state == "wrong"
    assert "\n" not in check_quantimpy(broken).told


@pytest.mark.parametrize(
    ("requirement", "state"),
    [
        ("numpy>=2", "ok"),
        ("numpy>=1000", "wrong"),
        ("numpy!=1.0", "ok"),
        ("no-such-package-here>=1", "wrong"),
        ("lightning>=2.6.6,!=2.6.2,!=2.6.3", "ok"),
        ("torch>=2.10", "ok"),
    ],
)
def test_versions_are_held_against_their_floors(requirement: str, state: str) -> None:
    (found,) = check_requirements([requirement])
    assert found.state == state
    assert (not found.mend) == (state == "ok")


def test_extras_are_not_required() -> None:
    assert not check_requirements(['no-such-package-here; extra == "dev"'])


def test_python_that_is_too_old() -> None:
    assert check_python((3, 10, 1)).state == "wrong"
    assert check_python((3, 11, 0)).state == "ok"


def test_the_cache_must_take_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_cache(tmp_path / "new" / "cache").state == "ok"
    (tmp_path / "file").write_text("")
    found = check_cache(tmp_path / "file" / "cache")
    assert found.state == "wrong"
    assert "COSMOZOO_CACHE" in found.mend[0]
    monkeypatch.setattr(doctor, "FREE_SPACE", 10**18)
    assert check_cache(tmp_path).state == "wrong"


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert check_threads().state == "wrong"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert check_threads().state == "ok"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert check_threads().state == "ok"


def test_what_is_printed_can_be_copied() -> None:
    said = lines([Finding("a", "ok", "1"), Finding("b", "wrong", "2", ("do this", "then that"))])
    assert said == ["  ok    a: 1", "  WRONG b: 2", "          mend: do this", "          mend: then that"]
