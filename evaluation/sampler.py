"""What a diffusion sampler by itself does to the power of waves: numbers for the report, made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RANGE = (1e-4, 1e4)
"""Of powers that are drawn and judged, in units of the noise's own."""


@dataclass(frozen=True, eq=False)
class SamplerBias:
    """Relative error of the power that a sampler gives to Gaussian waves of which it knows the exact score.

    Args:
        samples: name of the set that the sampler makes.
        power: ``(K,)`` of a wave in units of the noise's own power, rising, over ``RANGE`` at least.
        evaluations: of the denoiser, as the set is made.
        bias: ``(K,)`` by number of evaluations, this one and others, on levels between the same ends.
        own: lowest and highest power of the field's own waves, if known; ``power`` holds both.
        order: of the solver.
        levels: highest and lowest level of noise.
    """

    samples: str
    power: np.ndarray
    evaluations: int
    bias: Mapping[int, np.ndarray]
    own: tuple[float, float] | None
    order: int
    levels: tuple[float, float]

    def largest(self, low: float, high: float) -> float:
        """Largest |bias| of the set's own number of evaluations for powers of ``low`` to ``high``."""
        inside = (self.power >= low * (1 - 1e-9)) & (self.power <= high * (1 + 1e-9))
        return float(np.abs(self.bias[self.evaluations][inside]).max())

    def to_dict(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "evaluations": self.evaluations,
            "order": self.order,
            "levels": self.levels,
            "range": RANGE,
            "largest": self.largest(*RANGE),
            "own_range": self.own,
            "own_largest": None if self.own is None else self.largest(*self.own),
            "power": self.power,
            "bias": {str(n): bias for n, bias in sorted(self.bias.items())},
        }
