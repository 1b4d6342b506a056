"""What every test stands on: one thread, no network, a cache of its own, real data where there is some."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

os.environ["MPLBACKEND"] = "Agg"
torch.set_num_threads(1)


def _data_dir() -> Path | None:
    told = os.environ.get("COSMOZOO_DATA")
    for folder in (Path(told) if told else None, ROOT.parent / "shared" / "data"):
        if folder is not None and folder.is_dir():
            return folder
    return None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data files, ``$COSMOZOO_DATA`` or ``../shared/data``; skips without one."""
    folder = _data_dir()
    if folder is None:
        pytest.skip("no real data: set COSMOZOO_DATA to the folder that holds lensing/planes.npz")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Simulations made by tests never reach the user's cache."""
    os.environ["COSMOZOO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may reach beyond this machine; processes of one test may talk to each other."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(host):
            raise AssertionError(f"a test tried to reach {address} over the network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _local(host: str) -> bool:
    return host in ("localhost", "::1", socket.gethostname()) or host.startswith("127.")


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of numbers alone: their figures take half of a small report's time."""
    monkeypatch.setattr("evaluation.report.page", lambda *parts: "")
