"""When a run is lost: collapse and divergence, told from its validation statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gen.errors import InputError


@dataclass(frozen=True)
class Guard:
    """Stops a run whose generator has collapsed or diverged.

    Args:
        collapse: least diversity, the variance of log P(k) at fixed parameters over that of real fields.
        divergence: largest score, over the best of the run.
        patience: validations in a row that must fail.
        grace: validations at the start that are not judged, since an untrained generator is not diverse.
    """

    collapse: float = 0.5
    divergence: float = 5.0
    patience: int = 5
    grace: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.collapse < 1 or self.divergence <= 1 or self.patience < 1 or self.grace < 0:
            raise InputError(
                f"a guard needs collapse in [0, 1), divergence above 1, patience of at least 1 and grace of "
                f"at least 0, got {self.collapse}, {self.divergence}, {self.patience} and {self.grace}"
            )


@dataclass
class Watch:
    """The memory of a guard: plain numbers, saved with the run's state."""

    seen: int = 0
    collapsed: int = 0
    diverged: int = 0

    def reason(self, guard: Guard, statistics: Mapping[str, float], best: float) -> str | None:
        """Take in one validation; why the run should stop, if it should."""
        self.seen += 1
        # What is deterministic has no diversity to lose.
        score, diversity = statistics["score"], statistics.get("diversity", 1.0)
        if not (math.isfinite(score) and math.isfinite(diversity)):
            return "the generated fields are not finite"
        if self.seen <= guard.grace:
            return None
        self.collapsed = self.collapsed + 1 if diversity < guard.collapse else 0
        self.diverged = self.diverged + 1 if score > guard.divergence * best else 0
        if self.collapsed >= guard.patience:
            return (
                f"the generator has collapsed: for {self.collapsed} validations its diversity at fixed "
                f"parameters was below {guard.collapse:g} of the real fields', last {diversity:.2f}"
            )
        if self.diverged >= guard.patience:
            return (
                f"the generator has diverged: for {self.diverged} validations its score was above "
                f"{guard.divergence:g} times the best of {best:.3g}, last {score:.3g}"
            )
        return None
