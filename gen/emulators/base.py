"""What every emulator shares: one seed per sample, physical units, fixed micro-batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from gen.errors import InputError
from gen.fields import Fields, Grid, ParameterSpace
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

Params = Mapping[str, float | Sequence[float]] | Tensor


class Emulator(nn.Module, ABC):
    """A law of random fields given parameters, ``p(field | params)``.

    Families write ``generate`` and, where a part has a closed form, ``fit``. Users call ``sample`` or
    ``stream``, which return physical units.

    Args:
        grid: the grid that it was made for; ``shape`` in ``sample`` asks for another number of cells
            of the same spacing where the family allows it.
        space: the parameters with their trained range.
        field: what is emulated, for people to read.
        unit: unit of the values.
    """

    #: Samples are made in batches of exactly this many, the last one padded, so that the bits of
    #: sample i depend on (seed, i) alone.
    micro_batch: int = 16
    #: Whether fields are made from other fields, ``coarse``, and not from parameters and noise alone.
    needs_coarse: ClassVar[bool] = False
    #: Whether it learns to make its training fields again from what it keeps of them.
    reconstructs: ClassVar[bool] = False
    n_channels: int = 1

    def __init__(
        self, grid: Grid, space: ParameterSpace, field: str = "convergence", unit: str = "1"
    ) -> None:
        super().__init__()
        self.grid, self.space, self.field, self.unit = grid, space, field, unit

    @abstractmethod
    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Fields ``(B, C, *shape)`` in physical units for ``(B, P)`` physical parameters."""

    def fit(self, data: SimulationSet) -> None:
        """Set the closed-form parts from a training set; nothing by default."""
        del data

    def calibrate(self, data: SimulationSet) -> None:
        """Measure what only a trained network shows, on the same training set; nothing by default."""
        del data

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""

    def _base_config(self) -> dict[str, Any]:
        return {
            "grid": self.grid.to_dict(),
            "space": self.space.to_dict(),
            "field": self.field,
            "unit": self.unit,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of ``to_config``."""
        config = dict(config)
        grid, space = Grid.from_dict(config.pop("grid")), ParameterSpace.from_dict(config.pop("space"))
        return cls(grid=grid, space=space, **config)

    @property
    def device(self) -> torch.device:
        return self._any_tensor().device

    def _any_tensor(self) -> Tensor:
        """A floating-point tensor of the state: its device and precision are the emulator's."""
        state = chain(self.parameters(), self.buffers())
        return next((t for t in state if t.is_floating_point()), torch.zeros(()))

    def sample(
        self,
        params: Params,
        n: int = 1,
        seed: int = 0,
        coarse: Tensor | None = None,
        *,
        extrapolate: bool = False,
        shape: Sequence[int] | None = None,
    ) -> Fields:
        """Draw ``n`` fields for each row of ``params``.

        Args:
            params: ``{"Omega_m": 0.3, ...}`` (numbers or columns) or a table ``(M, P)``, physical units.
                If it is a tensor that requires gradients, so do the fields.
            n: fields per row.
            seed: sample i (row-major over rows and draws) is a function of ``(seed, i)`` alone.
            coarse: ``(M, Cc, *coarse_shape)`` conditioning fields, if the family takes them.
            extrapolate: allow parameters outside the trained range.
            shape: cells along each axis, default the grid's.

        Returns:
            Fields with ``values (M n, C, *shape)`` in ``self.unit`` and ``params (M n, P)``.

        Raises:
            InputError: for parameters that are missing, unknown, not finite or out of range, and for coarse
                fields that do not match them.
        """
        parts = list(self.stream(params, n, seed, coarse, extrapolate=extrapolate, shape=shape))
        return Fields(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def stream(
        self,
        params: Params,
        n: int = 1,
        seed: int = 0,
        coarse: Tensor | None = None,
        *,
        extrapolate: bool = False,
        shape: Sequence[int] | None = None,
    ) -> Iterator[Fields]:
        """As ``sample``, but one micro-batch at a time, in memory that does not grow with ``n``."""
        table = self.space.table(params)
        self.space.check(table.detach(), extrapolate=extrapolate)
        if n < 1:
            raise InputError(f"n must be at least 1 field per parameter row, got {n}")
        if not len(table):
            raise InputError("params has no rows; give one at least")
        if shape is not None and (len(shape) != self.grid.dim or min(shape) < 2):
            raise InputError(f"shape must be {self.grid.dim} sizes of at least 2 cells, got {tuple(shape)}")
        if coarse is not None and len(coarse) != len(table):
            raise InputError(
                f"coarse needs one field for each row of parameters, got {len(coarse)} coarse fields for "
                f"{len(table)} rows"
            )
        total = len(table) * n
        for start in range(0, total, self.micro_batch):
            yield self._micro_batch(
                table, n, seed, coarse, shape, start, min(start + self.micro_batch, total)
            )

    def _micro_batch(
        self,
        table: Tensor,
        n: int,
        seed: int,
        coarse: Tensor | None,
        shape: Sequence[int] | None,
        start: int,
        stop: int,
    ) -> Fields:
        index = torch.arange(start, start + self.micro_batch)
        rows = index.clamp(max=stop - 1) // n
        generators = [sample_generator(seed, i) for i in range(start, start + self.micro_batch)]
        params = table[rows].to(self._any_tensor())
        condition = None if coarse is None else coarse[rows].to(self.device)
        was_training = self.training
        if was_training:
            self.eval()
        try:
            with torch.set_grad_enabled(params.requires_grad):
                values = self.generate(params, generators, condition, shape)
        finally:
            if was_training:
                self.train()
        keep = stop - start
        return Fields.of(
            values[:keep], table[rows[:keep]].to(values), None if condition is None else condition[:keep]
        )
