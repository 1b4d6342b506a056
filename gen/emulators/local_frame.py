"""Q and U in a frame that another polarisation sets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gen.emulators.contrast import Strength


def direction_of(f: Tensor) -> Tensor:
    """(cos 2 psi, sin 2 psi) ``(B, 2, *shape)`` of Q and U; (1, 0) where both vanish."""
    length = length_of(f).unsqueeze(1)
    default = torch.zeros_like(f)
    default[:, 0] = 1
    return torch.where(length > 0, f / length.clamp(min=1e-30), default)


def length_of(f: Tensor) -> Tensor:
    """sqrt(Q^2 + U^2), ``(B, *shape)``."""
    return torch.hypot(f[:, 0], f[:, 1])


def turned(x: Tensor, direction: Tensor, *, back: bool = False) -> Tensor:
    """Q and U ``(B, 2, *shape)`` as the parts along ``direction`` and at 45 degrees to it, or back."""
    n_q, n_u = direction.unbind(1)
    a, b = x.unbind(1)
    if back:
        n_u = -n_u
    return torch.stack([n_q * a + n_u * b, n_q * b - n_u * a], 1)


class FrameStrength(nn.Module):
    """Mean and scatter of r = (Q, U) by the length |f| of a wider beam's f, along f and at 45 degrees to it.

    What lies along f changes the polarisation's length, the other its angle: where |f| is large the field is
    ordered, and mostly the angle is left to vary. The mean at 45 degrees is 0, for a mirror changes its sign.
    """

    def __init__(self) -> None:
        super().__init__()
        self.along, self.across = Strength(), Strength()

    @torch.no_grad()
    def fit(self, f: Tensor, r: Tensor) -> None:
        along, across = turned(r, direction_of(f)).unbind(1)
        length = length_of(f)
        self.along.fit(length, along)
        self.across.fit(length, across)
        self.across.moments[0].zero_()

    def unit(self, f: Tensor, r: Tensor) -> Tensor:
        """r in units of its scatter, ``(B, 2, *shape)``, Q and U."""
        return self._changed(f, r, lambda x, mean, scatter: (x - mean) / scatter)

    def forward(self, f: Tensor, z: Tensor) -> Tensor:
        """The inverse of ``unit``."""
        return self._changed(f, z, lambda x, mean, scatter: mean + scatter * x)

    def _changed(self, f: Tensor, x: Tensor, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        direction, length = direction_of(f), length_of(f)
        parts = zip(turned(x, direction).unbind(1), (self.along, self.across), strict=True)
        made = [change(part, *strength(length)) for part, strength in parts]
        return turned(torch.stack(made, 1), direction, back=True)
