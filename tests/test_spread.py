"""Spread work comes back in order, the same wherever it was done."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
import torch
from report_fields import INTERIOR, file_of, grid_of, thresholds

from evaluation.evaluate import own_copy
from evaluation.report import report
from evaluation.spread import spread, workers
from gen.errors import InputError


def threads_and(x: int) -> tuple[int, int]:
    return torch.get_num_threads(), x


def fails(x: int) -> int:
    raise InputError(f"task {x} cannot be done")


@pytest.mark.parametrize("processes", [1, 2])
def test_results_are_in_order_and_errors_come_through(processes: int) -> None:
    with workers(processes) as executor:
        assert spread(threads_and, [(i,) for i in range(8)], executor, "test", [1] * 8) == [
            (1, i) for i in range(8)
        ]
        with pytest.raises(InputError, match="task 0"):
            spread(fails, [(i,) for i in range(3)], executor, "test", [1] * 3)


def written(out: Path, processes: int = 1, scheduler: str | None = None) -> dict[str, bytes]:
    grid = grid_of(20)
    reference, samples = file_of(grid, [INTERIOR], 24, 1, per_box=4), file_of(grid, [INTERIOR], 24, 2)
    with workers(processes, scheduler) as executor:
        report({"net": samples}, reference, thresholds(), out, executor=executor, provenance={})
    return {p.name: p.read_bytes() for p in out.iterdir()}


def test_a_report_has_the_same_bytes_from_any_number_of_workers(tmp_path: Path) -> None:
    alone = written(tmp_path / "alone")
    assert set(alone) == {"index.html", "report.json"}
    assert written(tmp_path / "two", processes=2) == alone


@pytest.mark.usefixtures("without_page")
@pytest.mark.filterwarnings("ignore::UserWarning:distributed")
def test_a_dask_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is an extra")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        assert written(tmp_path / "dask", scheduler=cluster.scheduler_address) == written(tmp_path / "alone")


def test_an_address_without_scheduler_is_one_sentence() -> None:
    pytest.importorskip("distributed", reason="Dask is an extra")
    with pytest.raises(InputError, match="no Dask scheduler answers at nonsense"), workers(1, "nonsense://x"):
        pass


def slow_sum(values: torch.Tensor) -> float:
    time.sleep(0.02)
    return float(values.sum())


def private_memory() -> int:
    """MiB of this process alone."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return int(found[1]) >> 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
def test_blocks_that_were_sent_leave_no_memory_behind() -> None:
    fields, rows = torch.ones(64, 1, 256, 256), 64
    with workers(2) as executor:
        before = private_memory()
        tasks = ((own_copy(fields, 0, rows),) for _ in range(80))
        assert spread(slow_sum, tasks, executor, "test", [1] * 80, in_flight=8) == [64.0 * 256**2] * 80
        # 80 blocks of 16 MiB are 1280 MiB; 8 of them, in two copies, may be waiting.
        assert private_memory() - before < 400
