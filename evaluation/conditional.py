"""Conditional truth: do samples answer to the parameters as real fields do, at all cosmologies together?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.answers import Inference
from evaluation.base import Measured, Sample
from evaluation.field_regression import field_infer
from evaluation.inference import infer
from evaluation.joint import JointTest, corrected, smallest_p_of
from evaluation.parameter_space import CosmologyError, Limits, cosmology_errors
from evaluation.response import Response, response
from gen.errors import InputError
from gen.fields import Grid

STATISTICS = ("power", "peaks", "V2", "scattering", "bispectrum")
REGRESSORS = ("statistics", "fields")
REGION = "all cosmologies"


@dataclass(frozen=True)
class ResponseRow:
    """One statistic by one parameter: the samples' derivative as a multiple of the real one."""

    statistic: str
    parameter: str
    slope: float
    slope_std: float


@dataclass(frozen=True)
class InferenceRow:
    """One parameter by one regressor; biases in units of ``sigma``, see ``answers.Inference``."""

    regressor: str
    parameter: str
    sigma: float
    prior: float
    bias_on_samples: float
    bias_on_samples_std: float
    bias_from_samples: float
    bias_from_samples_std: float
    error_ratio: float
    pull: float
    pull_reference: float


@dataclass(frozen=True, eq=False)
class Conditional:
    """Everything found of one set of samples. What could not be told is a test without p, with the reason.

    responses: by statistic; inferences: by regressor ("statistics", "fields").
    tests: of all responses, answers and coverages, with Holm's correction over them.
    abscissae: by statistic, of the responses' bins.
    """

    samples: str
    parameters: tuple[str, ...]
    params: np.ndarray  # (n_strata, P)
    responses: Mapping[str, Response]
    inferences: Mapping[str, Inference]
    errors: Sequence[CosmologyError]
    tests: Sequence[JointTest]
    abscissae: Mapping[str, np.ndarray]

    @property
    def response_rows(self) -> list[ResponseRow]:
        return [
            ResponseRow(s, name, float(r.slope[i]), float(r.slope_std[i]))
            for s, r in self.responses.items()
            for i, name in enumerate(self.parameters)
        ]

    @property
    def inference_rows(self) -> list[InferenceRow]:
        columns = list(InferenceRow.__dataclass_fields__)[2:]
        return [
            InferenceRow(of, name, *(float(getattr(x, column)[i]) for column in columns))
            for of, x in self.inferences.items()
            for i, name in enumerate(self.parameters)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Numbers for the report: the rows, and what the figures show."""
        curves = ("middle", "level", "reference", "reference_std", "samples", "samples_std")
        strata = [f"{side}_by_stratum{std}" for side in ("reference", "samples") for std in ("", "_std")]
        return {
            "samples": self.samples,
            "parameters": list(self.parameters),
            "params": self.params,
            "responses": [asdict(row) for row in self.response_rows],
            "inferences": [asdict(row) for row in self.inference_rows],
            "tests": [{k: v for k, v in t.to_dict().items() if k != "numbers"} for t in self.tests],
            "errors": [asdict(row) for row in self.errors],
            "derivatives": {
                s: {"abscissa": self.abscissae[s], **{k: getattr(r, k) for k in curves}}
                for s, r in self.responses.items()
            },
            "answers": {
                of: {**{k: getattr(x, k) for k in strata}, "coverage": x.covered()}
                for of, x in self.inferences.items()
            },
        }


def conditional_tests(
    name: str,
    real: Mapping[str, Measured],
    made: Mapping[str, Measured],
    reference: Sample,
    samples: Sample,
    params: np.ndarray,
    names: tuple[str, ...],
    grid: Grid,
    *,
    network_steps: int = 200,
    n_bootstrap: int = 500,
    n_permutations: int = 1000,
    significance: float = 0.05,
    abscissae: Mapping[str, np.ndarray] | None = None,
    training_params: np.ndarray | None = None,
    limits: Limits | None = None,
    k_max: float = 0.5,
    seed: int = 0,
) -> Conditional:
    """Response, inference and errors of one set of samples, over sets of parameters (strata).

    Args:
        name: of the set of samples.
        real, made: statistics by name, measured in the same bins at every set of parameters: bins that
            follow each cosmology's own maps would hide how counts and thresholds answer.
        reference, samples: the fields, or some of each set of parameters.
        params: ``(n_strata, P)`` in the order of the sorted strata, with their ``names``.
        network_steps: of the training of each of the 20 networks.
        n_bootstrap, n_permutations, seed: of the resampling of simulations.
        significance: of all tests together.
        abscissae: of the statistics' bins, for the figures; by default their numbers.
        training_params: ``(n, P)`` of the fields that the emulator was trained on, if known.
        limits: of the parameters, the unit of distances; by default those of ``training_params``.
        k_max: end of the judged power spectrum, in units of the Nyquist wavenumber.
    """
    tests = _Tests(name, smallest_p_of(reference, samples))
    responses: dict[str, Response] = {}
    inferences: dict[str, Inference] = {}
    options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "n_permutations": n_permutations, "seed": seed}
    pairs = {s: finite(real[s], made[s]) for s in STATISTICS if s in real and s in made}

    for s, (a, b, _) in pairs.items():
        tests.run(responses, s, lambda a=a, b=b: response(a, b, params, names, **options))
    if pairs:
        a, b = (side_by_side(list(of)) for of in zip(*(pair[:2] for pair in pairs.values()), strict=True))
        tests.run(inferences, "statistics", lambda: infer(a, b, params, names, **options))
    tests.run(
        inferences,
        "fields",
        lambda: field_infer(reference, samples, params, names, grid, n_steps=network_steps, **options),
    )
    return Conditional(
        samples=name,
        parameters=names,
        params=params,
        responses=responses,
        inferences=inferences,
        errors=cosmology_errors(real, made, params, grid, training_params, limits, k_max, seed),
        tests=corrected(tests.found, significance),
        abscissae={
            s: (np.arange(len(keep)) if abscissae is None else abscissae[s])[keep]
            for s, (_, _, keep) in pairs.items()
        },
    )


class _Tests:
    """Collects the tests of one set of samples, and the reasons for which some could not be made."""

    def __init__(self, name: str, smallest_p: float) -> None:
        self.name, self.smallest_p = name, smallest_p
        self.found: list[JointTest] = []

    def run(self, into: dict[str, Any], key: str, compute: Callable[[], Response | Inference]) -> None:
        try:
            found = into[key] = compute()
        except InputError as error:
            for label in ("answers", "coverage") if key in REGRESSORS else ("response",):
                self._add(f"{label}: {key}", None, str(error))
            return
        if isinstance(found, Response):
            self._add(f"response: {key}", found.p, _said(found.parameters, found.slope, found.slope_std, "×"))
        else:
            self._add(
                f"answers: {key}",
                found.bias_p,
                _said(found.parameters, found.bias_on_samples, found.bias_on_samples_std, "bias"),
            )
            held = [f"{100 * np.mean(c <= 0.68):.0f} %" for c in (found.coverage, found.coverage_reference)]
            self._add(f"coverage: {key}", found.coverage_p, f"68 % regions hold {held[0]}, real {held[1]}")

    def _add(self, label: str, p: float | None, text: str) -> None:
        self.found.append(JointTest(REGION, self.name, label, p, text, {}, self.smallest_p))


def _said(names: Sequence[str], values: np.ndarray, errors: np.ndarray, what: str) -> str:
    sign = "" if what == "×" else "+"
    parts = [
        f"{name} {what} {v:{sign}.2f} ± {e:.2f}" for name, v, e in zip(names, values, errors, strict=True)
    ]
    return ", ".join(parts).replace("-", "−").replace("nan", "?")


def finite(a: Measured, b: Measured) -> tuple[Measured, Measured, np.ndarray]:
    """The bins that are finite in all maps of both sides, and which they are."""
    keep = np.isfinite(a.vectors).all(0) & np.isfinite(b.vectors).all(0)
    kept = [Measured(m.vectors[:, keep], m.simulation, m.stratum) for m in (a, b)]
    return kept[0], kept[1], np.asarray(keep)


def side_by_side(parts: Sequence[Measured]) -> Measured:
    """Several statistics of the same maps as one vector."""
    return Measured(np.hstack([m.vectors for m in parts]), parts[0].simulation, parts[0].stratum)
