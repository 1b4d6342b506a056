"""The ranking follows the recorded reports, mixes nothing judged differently, and the README shows it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gen.cli import main
from gen.commands.leaderboard import BEGIN, END, entry, leaderboard, markdown, rank

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "checkpoints"
THREE = ("convergence_2d_copula", "convergence_2d_wgan_gp", "convergence_2d_dcgan")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Three shipped checkpoints whose pdf excess is set to 3, 1 and 2, all else to 1."""
    for name, excess in zip(THREE, (3, 1, 2), strict=True):
        shutil.copytree(SHIPPED / name, tmp_path / "zoo" / name)
        path = tmp_path / "zoo" / name / "report.json"
        document = json.loads(path.read_text())
        for row in document["headline"]:
            for statistic, e in row["excess"].items():
                e["mean"] = excess if statistic == "pdf" else 1
        path.write_text(json.dumps(document))
    return tmp_path / "zoo"


def names(board: list) -> list[str]:
    return [e.name for e in board]


def test_the_least_excess_is_first(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(zoo)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["1", "convergence_2d_wgan_gp"], ["2", "convergence_2d_dcgan"], ["3", "convergence_2d_copula"],
    ]  # fmt: skip
    first = entry(zoo / "convergence_2d_copula")
    assert first is not None
    n = len(first.statistics)
    assert first.score == pytest.approx(((n - 1 + 3**2) / n) ** 0.5)


def test_other_thresholds_or_data_are_another_board(zoo: Path) -> None:
    path = zoo / "convergence_2d_dcgan" / "report.json"
    document = json.loads(path.read_text())
    document["thresholds"]["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    boards = rank([e for e in map(entry, sorted(zoo.iterdir())) if e], None)
    assert sorted(map(names, boards)) == [
        ["convergence_2d_dcgan"], ["convergence_2d_wgan_gp", "convergence_2d_copula"],
    ]  # fmt: skip
    assert rank([e for e in map(entry, sorted(zoo.iterdir())) if e], "no such field") == []


def test_what_has_no_report_is_left_out_and_a_damaged_one_is_named(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (zoo / "convergence_2d_dcgan" / "report.json").unlink()
    assert entry(zoo / "convergence_2d_dcgan") is None
    (zoo / "convergence_2d_copula" / "report.json").write_text('{"headline": 3}')
    assert main(["leaderboard", str(zoo)]) == 2
    assert "convergence_2d_copula/report.json is not a report" in capsys.readouterr().err
    for name in THREE:
        (zoo / name / "report.json").unlink(missing_ok=True)
    assert main(["leaderboard", str(zoo)]) == 2
    assert "--record" in capsys.readouterr().err


def test_only_what_stands_between_the_markers_is_replaced(zoo: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert leaderboard(zoo, None, readme) == 0
    text = readme.read_text()
    assert text.startswith(
        f"before\n{BEGIN}\nconvergence, judged on convergence_2d by standard:\n\n| rank |"
    ) and text.endswith(f"{END}\nafter\n")
    assert "old" not in text and text.count("convergence_2d_wgan_gp") == 1


def test_a_file_without_markers_is_left_alone(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    assert main(["leaderboard", str(zoo), "--readme", str(readme)]) == 2
    assert "lacks the lines" in capsys.readouterr().err and readme.read_text() == "mine"


def test_the_readme_shows_the_shipped_reports() -> None:
    boards = rank([e for e in map(entry, sorted(SHIPPED.iterdir())) if e], None)
    shown = (ROOT / "README.md").read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == "\n\n".join(map(markdown, boards))


def test_to_compare_takes_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(SHIPPED / THREE[0])]) == 2
    assert "two checkpoints" in capsys.readouterr().err
