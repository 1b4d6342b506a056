"""What the latents of an autoencoder are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gen.errors import InputError


@dataclass(frozen=True)
class Coding:
    """What the latents of an autoencoder are.

    Args:
        channels: of the latents, at most 2^(levels dim).
        widths: of the networks, finest resolution first; one more than ``levels``, each of which halves the
            sides: numbers are fewer by 2^(levels dim) / channels.
        kind: ``"kl"`` for stochastic latents (Kingma & Welling 2014, arXiv:1312.6114; Rombach et al. 2022,
            arXiv:2112.10752), ``"clip"`` for z / sqrt(1 + (z / bound)^2).
        bound: of clipped latents, which have unit scatter at the start.
        completed: whether the waves that latents lack are drawn, see ``gen.emulators.completion``, and not
            left out; that of a ``CompletedAutoencoder``.
        degree, logarithmic, reach, phases, knots, score_power, contrast_power: of the closed form, see
            ``Copula``.

    Raises:
        InputError: for sizes that are not positive.
    """

    channels: int = 4
    widths: tuple[int, ...] = (16, 32, 64)
    kind: Literal["kl", "clip"] = "kl"
    bound: float = 5.0
    completed: bool = False
    degree: int = 3
    logarithmic: bool = False
    reach: float = 4.25
    phases: int = 1
    knots: dict[str, list[float]] = field(default_factory=dict)
    score_power: bool = False
    contrast_power: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.completed and self.kind == "clip":
            raise InputError("latents of a completed coding are not clipped; leave out kind, or completed")
        if self.channels < 1 or not self.widths or min(self.widths) < 1 or not self.bound > 1:
            raise InputError(
                "a coding needs channels and widths of at least 1 and a bound above 1, got "
                f"{self.channels}, {list(self.widths)} and {self.bound:g}"
            )

    @property
    def factor(self) -> int:
        """Cells along the side of a block."""
        return 2 ** (len(self.widths) - 1)

    def compression(self, dim: int) -> float:
        """Cells of a field over numbers of its latents."""
        return self.factor**dim / self.channels

    def to_dict(self) -> dict[str, Any]:
        own = {**asdict(self), "widths": list(self.widths)}
        return own if self.completed else {k: v for k, v in own.items() if k != "completed"}
