"""Fields that stay in their file: read as asked, judged as if they were in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from report_fields import INTERIOR, OUTSIDE, file_of, grid_of, thresholds

from evaluation import evaluate
from evaluation.base import few
from evaluation.cosmologies import cosmologies
from evaluation.report import report
from gen.errors import InputError
from gen.fields import Fields
from gen.io import FieldFile, Rows, open_fields, read_fields, write_fields

GRID = grid_of(20)


def written(path: Path, file: FieldFile) -> Path:
    parts = (Fields.of(v, p) for v, p in zip(file.values[:].split(5), file.params.split(5), strict=True))
    columns = {"simulation": file.simulation, "region": file.region}
    write_fields(path, parts, len(file), file.grid, file.space, file.attributes, **columns)
    return path


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_rows_are_those_of_the_whole_file(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"maps{suffix}", file_of(GRID, [INTERIOR], 23, 1, per_box=4))
    whole, opened = read_fields(path), open_fields(path)
    rows = opened.values
    assert isinstance(rows, Rows)
    assert (rows.shape, rows.ndim, len(rows)) == (tuple(whole.values.shape), 4, 23)
    mixed = np.array([7, 3, 3, 22, 0, 4, 21])
    for asked in (slice(None), slice(5, 9), slice(20, 40), slice(9, 5), mixed, torch.from_numpy(mixed)):
        assert torch.equal(rows[asked], whole.values[asked])
    odd = np.arange(23) % 2 == 1
    assert torch.equal(rows.select(odd).select(np.array([4, 1]))[:], whole.values[[9, 3]])
    assert np.array_equal(opened.params, whole.params) and opened.grid == whole.grid
    assert opened.attributes == whole.attributes and np.array_equal(opened.simulation, whole.simulation)


def test_formats_without_rows_are_read_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "maps.npz", file_of(GRID, [INTERIOR], 8, 1))
    assert isinstance(open_fields(path).values, torch.Tensor)


def test_damage_that_shows_late_is_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "maps.h5", file_of(GRID, [INTERIOR], 8, 1))
    opened = open_fields(path)
    with h5py.File(path, "a") as file:
        del file["values"]
    with pytest.raises(InputError, match=r"maps\.h5 cannot be read at fields 2 to 4") as caught:
        opened.values[2:5]
    assert "\n" not in str(caught.value)


def test_few_are_evenly_spaced(tmp_path: Path) -> None:
    path = written(tmp_path / "maps.h5", file_of(GRID, [INTERIOR], 40, 1))
    whole = read_fields(path).values
    assert torch.equal(few(open_fields(path).values), whole)
    assert torch.equal(few(open_fields(path).values, 10 * 4 * 400), whole[::4])


def test_no_more_than_a_block_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t, names = thresholds(), ["net"]
    files = [file_of(GRID, [INTERIOR, OUTSIDE], 40, seed, per_box=boxes) for seed, boxes in ((1, 4), (2, 1))]
    paths = [written(tmp_path / f"{i}.h5", file) for i, file in enumerate(files)]
    reads: list[int] = []

    def counted(rows: Rows) -> Rows:
        def read(path: Path, start: int, stop: int) -> np.ndarray:
            reads.append(stop - start)
            return rows.read(path, start, stop)

        return replace(rows, read=read)

    opened = [open_fields(path) for path in paths]
    real, made = (replace(file, values=counted(file.values)) for file in opened)
    monkeypatch.setattr(evaluate, "BLOCK", 16 * 4 * 400)
    judged = cosmologies({"net": made}, real)
    assert max(reads) <= 64, "the check for values that are not finite goes by 64 maps"
    reads.clear()
    found = evaluate.measure_all(judged, names, GRID, t, None)
    assert sorted(reads) == [8] * 4 + [16] * 8 + [40] * 2, "all of a small reference only to set the bins"
    in_memory = cosmologies({"net": files[1]}, files[0])
    for a, b in zip(found, evaluate.measure_all(in_memory, names, GRID, t, None), strict=True):
        for mine, theirs in ((a.real, b.real), (a.made["net"], b.made["net"])):
            assert all(np.array_equal(mine[s].vectors, theirs[s].vectors) for s in theirs)


def test_a_report_from_files_has_the_bytes_of_one_from_memory(tmp_path: Path) -> None:
    real, made = file_of(GRID, [INTERIOR], 24, 1, per_box=4), file_of(GRID, [INTERIOR], 24, 2)
    paths = written(tmp_path / "a.h5", real), written(tmp_path / "b.zarr", made)
    for out, read in (("memory", read_fields), ("rows", open_fields)):
        report({"net": read(paths[1])}, read(paths[0]), thresholds(), tmp_path / out, provenance={})
    for name in ("report.json", "index.html"):
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "rows" / name).read_bytes()
