"""Deterministic map from displacement fields to another: a closed form and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from gen.emulators.closed_forms import ClosedForm, Guess, Universe, from_config
from gen.emulators.conditioning import (
    Channels,
    Deterministic,
    check_coarse,
    divisible,
    fitting_rows,
    mean_square,
    shared_scale,
)
from gen.emulators.perturbation import GrowthTable
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels
from gen.nets.unet import UNet

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class FieldMap(Deterministic):
    r"""A displacement field [Mpc/h] of every particle, given others of the same particles.

    ``psi = closed form + weight U(inputs; theta)``, where the closed form, its weight and the inputs of the
    U-Net are those of ``gen.emulators.closed_forms`` and U is zero at the start, styled by the parameters.
    One family for several maps: back to the initial conditions (``SecondOrderInverse``), to a snapshot
    between two others (``Hermite``), to a universe with massive neutrinos (``NeutrinoFilter``).

    Translations by ``network.factor`` cells along any axis commute with it exactly, as uniform
    displacements of all particles do.

    Args:
        closed_form: what it starts from.
        widths: channels of the U-Net, finest resolution first.

    Raises:
        InputError: for a grid that is no periodic box, or parameters that the closed form lacks.
    """

    margin = 0
    #: Whether the network takes white noise at every resolution.
    noisy: ClassVar[bool] = False
    input_scale: Tensor
    output_scale: Tensor
    residual_scale: Tensor

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        closed_form: ClosedForm,
        field: str = "displacement",
        unit: str = "Mpc/h",
        widths: Sequence[int] = (16, 32, 64),
    ) -> None:
        super().__init__(grid, space, field, unit)
        if not grid.periodic or grid.unit != "Mpc/h":
            raise InputError(
                f"a map of displacements needs a periodic box in Mpc/h, got unit {grid.unit!r}, periodic "
                f"{grid.periodic}"
            )
        closed_form.check(space)
        self.formula, self.widths = closed_form, list(widths)
        self.n_channels = closed_form.n_made * grid.dim
        self.n_coarse = closed_form.n_vectors * grid.dim
        n_in = sum(closed_form.groups(grid.dim))
        self.growth = GrowthTable()
        self.network = UNet(grid.dim, n_in, self.n_channels, len(space), widths, "circular", noise=self.noisy)
        self.register_buffer("input_scale", torch.ones(n_in))
        self.register_buffer("output_scale", torch.ones(self.n_channels))
        self.register_buffer("residual_scale", torch.ones(self.n_channels))

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), "closed_form": self.formula.to_config(), "widths": self.widths}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        grid, space = Grid.from_dict(config.pop("grid")), ParameterSpace.from_dict(config.pop("space"))
        return cls(grid, space, from_config(config.pop("closed_form")), **config)

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Measure the scales of the network's inputs and of what the closed form lacks.

        Raises:
            InputError: for another box, other channels, or coarse fields that are not of the same particles.
        """
        if data.grid != self.grid:
            raise InputError(f"the emulator is for {self.grid}, the fields of {data.name} are on {data.grid}")
        if data.coarse is None or data.values.shape[1] != self.n_channels:
            raise InputError(
                f"this emulator learns from {self.n_channels} channels and, as coarse fields, the "
                f"{self.formula.coarse}, got {data.values.shape[1]} channels and "
                f"{'no' if data.coarse is None else data.coarse.shape[1]} coarse ones"
            )
        rows = fitting_rows(data, 256)
        self.check(data.coarse[rows], self.grid.shape)
        inputs, lacking, weights = [], [], []
        for i in rows.split(16):
            guess = self.formula(data.coarse[i].float(), self._universe(data.params[i].float()))
            true = data.values[i].float()
            displaced = slice(0, self.grid.dim)
            _refuse_strangers(guess.made[:, displaced], true[:, displaced], data.simulation[i])
            inputs.append(mean_square(guess.inputs))
            lacking.append(mean_square(true - guess.made))
            weights.append(guess.weight)
        self.input_scale.copy_(shared_scale(torch.cat(inputs), self.formula.groups(self.grid.dim)))
        self.output_scale.copy_(shared_scale(torch.cat(lacking), [self.grid.dim] * self.formula.n_made))
        size = torch.cat(weights).square().mean().sqrt().clamp(min=1e-6)
        self.residual_scale.copy_(self.output_scale / size)

    def check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        coarse = check_coarse(coarse, self.n_coarse, shape, self.network.factor, self.formula.coarse)
        return self.ordered(coarse, shape)

    def ordered(self, coarse: Tensor, shape: Sequence[int]) -> Tensor:
        """The given fields, if their particles are in the order of the cells of a box of ``shape``."""
        side = min(n * d for n, d in zip(shape, self.grid.spacing, strict=True))
        worst = coarse[:, : self.grid.dim].flatten(2).std(2).max().item()
        if not worst <= 0.2 * side:
            raise InputError(
                f"particles are out of order or of another box: along an axis the given displacement "
                f"scatters by {worst:.3g} Mpc/h in a box of {side:g} Mpc/h; sort the particles by their ids"
            )
        return coarse

    def _universe(self, params: Tensor) -> Universe:
        columns = dict(zip(self.space.names, params.unbind(1), strict=True))
        return Universe(columns, self.growth, self.grid.spacing)

    def closed_form(self, coarse: Tensor, params: Tensor) -> Tensor:
        """The closed form's fields at the parameters, ``(B, n_channels, *shape)``."""
        return self.formula(coarse, self._universe(params)).made

    def predict(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Displacement [Mpc/h] and what else is made, ``(B, n_channels, *shape)``, differentiable in all.

        Args:
            coarse: what the closed form takes, ``(B, n_vectors dim, *shape)``.
            params: ``(B, P)``, physical units.
        """
        return self._improved(self.formula(coarse, self._universe(params)), params)

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        return divisible(shape, self.network.factor)

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """What of the closed form knows the whole box."""
        del generators
        given = check_coarse(coarse, self.n_coarse, shape, self.network.factor, self.formula.coarse)
        yield from self.formula.whole(lambda i: given[:, i].to(params), self._universe(params))

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        return self._improved(self.formula.local(inputs, self._universe(params)), params)

    def _improved(self, guess: Guess, params: Tensor, noise: Tensor | None = None) -> Tensor:
        inputs = guess.inputs / to_channels(self.input_scale[None], guess.inputs)
        out = self.network(inputs, self.space.normalise(params), noise).float()
        return guess.made + to_channels(guess.weight[:, None] * self.residual_scale, out) * out


def _refuse_strangers(made: Tensor, true: Tensor, simulation: Tensor) -> None:
    """Fields that have nothing to do with their coarse ones correlate by 0; pairs by 0.9 and more."""
    x, y = (f.flatten(2) - f.flatten(2).mean(2, keepdim=True) for f in (made, true))
    r = (x * y).sum((1, 2)) / (x.square().sum((1, 2)) * y.square().sum((1, 2))).sqrt().clamp(min=1e-30)
    worst = int(r.argmin())
    if not r[worst] > 0.7:
        raise InputError(
            f"the fields of simulation {int(simulation[worst])} do not match their coarse fields: the "
            f"correlation with what these lead to is {r[worst]:.2f}; give pairs of the same particles"
        )
