"""``cosmozoo doctor``: is the installation sound, and if not, what mends it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

FREE_SPACE = 2 * 10**9
QUANTIMPY = (
    'pip install "numpy>=2" cython setuptools wheel edt',
    "pip install --no-cache-dir --force-reinstall --no-build-isolation --no-deps "
    "--no-binary quantimpy quantimpy==0.2.6",
)


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, and the lines that mend it."""

    what: str
    state: Literal["ok", "note", "wrong"]
    told: str
    mend: tuple[str, ...] = ()


def doctor() -> int:
    """Print every finding; 1 if any is wrong, else 0."""
    findings = [
        check_python(),
        *check_requirements(metadata.requires("cosmozoo") or ()),
        check_quantimpy(),
        check_device(),
        check_cache(),
        check_threads(),
    ]
    for line in lines(findings):
        print(line)
    wrong = sum(f.state == "wrong" for f in findings)
    print(
        f"{wrong} of {len(findings)} checks found something wrong" if wrong else "the installation is sound"
    )
    return 1 if wrong else 0


def lines(findings: Iterable[Finding]) -> list[str]:
    marks = {"ok": "  ok   ", "note": "  note ", "wrong": "  WRONG"}
    said = []
    for finding in findings:
        said.append(f"{marks[finding.state]} {finding.what}: {finding.told}")
        said += [f"          mend: {line}" for line in finding.mend]
    return said


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    told = ".".join(map(str, version))
    if version < (3, 11):
        return Finding(
            "Python", "wrong", f"{told}, at least 3.11 is needed", ("make PYTHON=python3.11 install",)
        )
    return Finding("Python", "ok", told)


def check_requirements(requirements: Iterable[str]) -> list[Finding]:
    """Every required package at a version that the project allows."""
    findings = []
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        mend = (f'pip install "{wanted.name}{wanted.specifier}"',)
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            findings.append(
                Finding(wanted.name, "wrong", f"missing, {wanted.specifier or 'any version'} is needed", mend)
            )
            continue
        good = wanted.specifier.contains(found, prereleases=True)
        told = found if good else f"{found}, but {wanted.specifier} is needed"
        findings.append(Finding(wanted.name, "ok" if good else "wrong", told, () if good else mend))
    return findings


def check_quantimpy(load: Callable[[str], object] = importlib.import_module) -> Finding:
    """The compiled module of quantimpy; its usual build is made for NumPy 1 and fails with NumPy 2."""
    try:
        load("quantimpy.minkowski")
    except ModuleNotFoundError:
        return Finding(
            "quantimpy",
            "note",
            "missing; it is optional, for comparisons of Minkowski functionals",
            QUANTIMPY,
        )
    except (ImportError, ValueError) as error:
        if "numpy.dtype size changed" in str(error):
            return Finding(
                "quantimpy", "wrong", "it was built for another NumPy (numpy.dtype size changed)", QUANTIMPY
            )
        return Finding("quantimpy", "wrong", f"it does not import: {str(error).splitlines()[0]}", QUANTIMPY)
    return Finding("quantimpy", "ok", metadata.version("quantimpy"))


def check_device() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "torch", "wrong", f"it does not import: {error}", ('pip install --force-reinstall "torch>=2.10"',)
        )
    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name(0))
    return Finding("GPU", "note", "none is visible to torch; all works on the CPU, training is slower")


def check_cache(folder: Path | None = None) -> Finding:
    """Whether simulations can be kept: a folder that can be written to, with room."""
    if folder is None:
        try:
            from gen.simulate.run import default_cache
        except ImportError as error:
            return Finding("cache", "note", f"not looked at, since {error.name} does not import")
        folder = default_cache()
    mend = ("export COSMOZOO_CACHE=/a/folder/with/room",)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("cache", "wrong", f"{folder} cannot be written to: {error.strerror}", mend)
    free = shutil.disk_usage(folder).free
    told = f"{folder}, {free / 1e9:.0f} GB free"
    if free < FREE_SPACE:
        return Finding("cache", "wrong", f"{told}, at least {FREE_SPACE / 1e9:.0f} GB are needed", mend)
    return Finding("cache", "ok", told)


def check_threads() -> Finding:
    """Simulations run one process a core with one thread each; more threads than cores slow everything."""
    cores = len(os.sched_getaffinity(0))
    told = os.environ.get("OMP_NUM_THREADS")
    if told is not None and (not told.isdigit() or int(told) > cores):
        return Finding(
            "threads",
            "wrong",
            f"OMP_NUM_THREADS is {told} on {cores} cores",
            (f"export OMP_NUM_THREADS={cores}",),
        )
    return Finding("threads", "ok", f"{told or 'as many as cores'} on {cores} cores")
