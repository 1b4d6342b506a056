"""What a report demands: the thresholds of its verdicts, fixed in a file before any run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from evaluation.battery import check_names
from gen.errors import InputError
from gen.fields import Grid, resolved

T = TypeVar("T")
MOTIONS = ("position", "velocity")
LARGEST_FILE = 1 << 20  # bytes; a file of thresholds is one screen


@dataclass(frozen=True)
class PowerThresholds:
    """The mean power: |P_samples / P_reference - 1| of every bin with k <= k_max k_Nyquist that is measured.

    Args:
        k_max: upper end of the judged range, in units of the Nyquist wavenumber.
        error: largest relative error allowed.
        aim: what the project aims for; stated in the report, not judged.
    """

    k_max: float
    error: float
    aim: float


@dataclass(frozen=True)
class LargeScales:
    """What fields that were made from large scales must keep of them.

    Args:
        beam: full width at half maximum of the Gaussian that made and true fields are smoothed by, that of
            the large scales given [arcmin] on the sky, else [unit of the grid]. Not judged is what lies
            within 2.5 of its standard deviations of an open edge (``evaluation.large_scales``).
        error: largest rms difference over a region, in units of the scatter of the true smoothed fields.
    """

    beam: float
    error: float


@dataclass(frozen=True)
class Measurement:
    """How finely things are measured, and how often they are resampled.

    ``apodise`` is the fraction of the side over which maps that are not periodic are tapered before their
    spectrum. ``classifier_steps`` is the training of the network that tells samples from real fields.
    ``beam`` is the full width at half maximum [arcmin] on the sky, else [unit of the grid], that the fields
    were smoothed by: spectra leave out bins that reach beyond what it resolves (``gen.fields.resolved``),
    which hold round-off; may be left out.
    """

    apodise: float
    pdf_bins: int
    minkowski_thresholds: int
    peak_bins: int
    bispectrum_bins: int
    n_bootstrap: int
    n_permutations: int
    n_splits: int
    classifier_steps: int
    beam: float | None = None

    def k_max(self, grid: Grid) -> float:
        """Where spectra end [``k_unit``], infinity without a beam."""
        return math.inf if self.beam is None else resolved(grid, self.beam)


@dataclass(frozen=True)
class Thresholds:
    """A file of ``recipes/reports/``.

    Args:
        power: the demand on the mean power spectrum.
        excess: by statistic, the largest allowed distance between samples and reference in units of the
            distance of real against real at the same numbers.
        significance: family-wise error of the words "consistent" and "differs".
        statistics: what is measured, by the names of ``evaluation.battery``.
        measurement: bins and resamplings.
        images: maps shown of each kind.
        name: of the file, and ``sha256`` of its bytes, so that a report says what it was judged by.
        motion: by vectors of displaced particles ("position", "velocity"), the largest allowed mean error
            over a region in units of the baseline's; may be left out.
        large_scales: how well they are kept by fields that were made from them; may be left out.
    """

    power: PowerThresholds
    excess: dict[str, float]
    significance: float
    statistics: tuple[str, ...]
    measurement: Measurement
    images: int
    name: str = field(default="", metadata={"given": True})
    sha256: str = field(default="", metadata={"given": True})
    motion: dict[str, float] = field(default_factory=dict)
    large_scales: LargeScales | None = None

    def judged_to(self, grid: Grid) -> float:
        """End of the judged range of the power [``k_unit``]."""
        return min(self.power.k_max * grid.k_nyquist, self.measurement.k_max(grid))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_thresholds(path: str | Path) -> Thresholds:
    """Read and check a file of thresholds.

    Raises:
        InputError: if the file cannot be read, or a key is unknown, missing, repeated or of the wrong kind.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"thresholds {path} cannot be read ({error.strerror}); give a file like "
            "recipes/reports/standard.yaml"
        ) from None
    if len(data) > LARGEST_FILE:
        raise InputError(f"thresholds {path} holds {len(data)} bytes, at most {LARGEST_FILE} are allowed")
    try:
        content = yaml.load(data, Loader=_Strict)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"thresholds {path} is not valid YAML: {' '.join(str(error).split())}") from None
    given = {"name": path.stem, "sha256": hashlib.sha256(data).hexdigest()}
    thresholds = _record(Thresholds, content, str(path), given)
    _check(thresholds, str(path))
    return thresholds


class _Strict(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the standard keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.YAMLError(f"key {key!r} is given twice")
        return super().construct_mapping(node, deep)


def _record(kind: type[T], content: object, where: str, given: Mapping[str, Any] | None = None) -> T:
    """Build a dataclass of a mapping of its fields; those ``given`` may not be in it, defaults need not."""
    given = given or {}
    types = get_type_hints(kind)
    asked = [f for f in fields(kind) if f.name not in given]  # type: ignore[arg-type]
    names = [f.name for f in asked]
    if not isinstance(content, Mapping):
        raise InputError(f"{where} must hold the keys {', '.join(names)}, got {content!r}")
    for key in content:
        if key not in names:
            raise InputError(f"{where}: unknown key {key!r}; the keys are {', '.join(names)}")
    for name in (f.name for f in asked if f.default is MISSING and f.default_factory is MISSING):
        if name not in content:
            raise InputError(f"{where}: key {name!r} is missing; see recipes/reports/standard.yaml")
    values = {
        name: _value(types[name], content[name], f"{where}: {name}") for name in names if name in content
    }
    return kind(**values, **given)


def _value(kind: Any, content: object, where: str) -> Any:
    if isinstance(kind, UnionType):  # what may be left out
        kind = next(k for k in get_args(kind) if k is not type(None))
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, content, where)
    if kind is int:
        if isinstance(content, bool) or not isinstance(content, int):
            raise InputError(f"{where} must be a whole number, got {content!r}")
        return content
    if kind is float:
        if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
            raise InputError(f"{where} must be a finite number, got {content!r}")
        return float(content)
    if kind == tuple[str, ...]:
        if not isinstance(content, list) or not all(isinstance(x, str) for x in content):
            raise InputError(f"{where} must be a list of names, got {content!r}")
        return tuple(content)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{where} must map names to numbers, got {content!r}")
    return {key: _value(float, value, f"{where}.{key}") for key, value in content.items()}


def _check(t: Thresholds, where: str) -> None:
    m = t.measurement
    asked = {} if t.large_scales is None else asdict(t.large_scales)
    check_names(t.statistics, where)
    for name in t.motion:
        if name not in MOTIONS:
            raise InputError(f"{where}: motion has no vectors {name!r}; there are {', '.join(MOTIONS)}")
    ranges: list[tuple[str, float, float, float]] = [
        ("power.k_max", t.power.k_max, 0, 1),
        ("power.error", t.power.error, 0, math.inf),
        ("power.aim", t.power.aim, 0, t.power.error),
        ("significance", t.significance, 0, 1),
        ("images", t.images, 1, 24),
        ("measurement.apodise", m.apodise, 0, 1),
        ("measurement.pdf_bins", m.pdf_bins, 4, 1000),
        ("measurement.minkowski_thresholds", m.minkowski_thresholds, 3, 1000),
        ("measurement.peak_bins", m.peak_bins, 2, 1000),
        ("measurement.bispectrum_bins", m.bispectrum_bins, 1, 1000),
        ("measurement.n_bootstrap", m.n_bootstrap, 50, 1_000_000),
        ("measurement.n_permutations", m.n_permutations, 50, 1_000_000),
        ("measurement.n_splits", m.n_splits, 20, 1_000_000),
        ("measurement.classifier_steps", m.classifier_steps, 1, 1_000_000),
        *(() if m.beam is None else (("measurement.beam", m.beam, 0, math.inf),)),
        *((f"excess.{name}", value, 0, math.inf) for name, value in t.excess.items()),
        *((f"large_scales.{name}", value, 0, math.inf) for name, value in asked.items()),
        *((f"motion.{name}", value, 0, math.inf) for name, value in t.motion.items()),
    ]
    for name, value, low, high in ranges:
        if not low <= value <= high or value == 0:
            raise InputError(
                f"{where}: {name} must be {f'from {low:g}' if low else 'above 0'} and at most {high:g}, "
                f"got {value:g}"
            )
