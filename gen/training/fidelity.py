"""Losses of deterministic emulators, which hold a made field against the true one of the same box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from gen.emulators.particles import eulerian
from gen.errors import InputError
from gen.fields import Grid
from gen.nets.layers import to_channels


class RegressionLoss(ABC):
    """What a deterministic field-to-field emulator minimises."""

    @abstractmethod
    def terms(self, made: Tensor, true: Tensor, scale: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Scalars by name, whose sum is minimised.

        Args:
            made, true: ``(B, C, *grid.shape)``, physical units.
            scale: ``(C,)``, how far the emulator's closed form is from the truth.
        """


@dataclass(frozen=True)
class MeanSquare(RegressionLoss):
    """Mean square of (made - true) / scale."""

    def terms(self, made: Tensor, true: Tensor, scale: Tensor, grid: Grid) -> dict[str, Tensor]:
        del grid
        return {"mean_square": ((made - true) / to_channels(scale[None].to(made), made)).square().mean()}


@dataclass(frozen=True)
class LagrangianEulerian(RegressionLoss):
    r"""``ln(L_displacement^a L_velocity^a L_density L_momentum)``, the mean over boxes.

    Each L is the mean square error of one field of one box: displacement and velocity as functions of the
    Lagrangian position, density and momentum density on a mesh of as many cells as particles, by
    cloud-in-cell. Without velocity channels it is ``ln(L_displacement^a L_density)``. Logarithms weigh
    boxes of weak and strong clustering alike (Jamieson et al. 2022, arXiv:2206.04594, with a = 3, where
    each batch is one box; 2024, arXiv:2408.07699).

    Args:
        lagrangian: a.
        floor: added to each mean square, in units of the scale's (of 1 for the density).
    """

    lagrangian: float = 3.0
    floor: float = 1e-8

    def __post_init__(self) -> None:
        if self.lagrangian <= 0 or self.floor < 0:
            raise InputError(
                f"lagrangian must be positive and floor not negative, got {self.lagrangian} and {self.floor}"
            )

    def terms(self, made: Tensor, true: Tensor, scale: Tensor, grid: Grid) -> dict[str, Tensor]:
        dim = grid.dim
        if made.shape[1] not in (dim, 2 * dim):
            raise InputError(
                f"LagrangianEulerian needs {dim} channels of displacement, or {2 * dim} with velocity, "
                f"got {made.shape[1]}"
            )
        lagrangian = (made - true) / to_channels(scale[None].to(made), made)
        meshed = eulerian(made, grid) - eulerian(true, grid)
        terms = {
            "displacement": self.lagrangian * self._log(lagrangian[:, :dim]),
            "density": self._log(meshed[:, :1]),
        }
        if made.shape[1] > dim:
            momentum = meshed[:, 1:] / to_channels(scale[None, dim:].to(made), made)
            terms["velocity"] = self.lagrangian * self._log(lagrangian[:, dim:])
            terms["momentum"] = self._log(momentum)
        return terms

    def _log(self, error: Tensor) -> Tensor:
        """Mean over boxes of the logarithm of the mean square."""
        return (error.square().flatten(1).mean(1) + self.floor).log().mean()
