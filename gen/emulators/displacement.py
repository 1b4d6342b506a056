"""Deterministic N-body emulator: the evolved displacement from the Zel'dovich displacement."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from gen.emulators.conditioning import (
    C,
    Channels,
    Deterministic,
    check_coarse,
    divisible,
    fitting_rows,
    mean_square,
    shared_scale,
)
from gen.emulators.perturbation import GrowthTable, expansion, second_order, strain
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels
from gen.nets.unet import UNet

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


INPUT = "Zel'dovich displacement [Mpc/h]"


class _Epoch(NamedTuple):
    """Omega_m(a), sigma_8(a) if known, and a H(a) [km/s / (Mpc/h)] of each row, ``(B,)``."""

    matter_fraction: Tensor
    sigma_8: Tensor | None
    hubble: Tensor


class Displacement(Deterministic):
    r"""2LPT plus a U-Net's residual, zero at the start: displacement and velocity of every particle.

    ``psi = psi1 + (D2 / D1^2) grad phi2[psi1] + U(strain of psi1, second order; Omega_m(a), sigma_8(a))``

    with ``psi1`` the Zel'dovich displacement at the same scale factor (input), all in Mpc/h. The second
    order and its growth are closed forms (``gen.emulators.perturbation``). By the equivalence principle a
    uniform displacement of all matter changes nothing but positions, so the network is given derivatives
    of psi1 and never psi1. A flat LCDM universe at scale factor a is, in comoving displacements, one of
    Omega_m = Omega_m(a) and sigma_8(a) today, so these two are all that it is styled by; the shape of the
    linear power is in the input.

    Translations by ``network.factor`` cells along any axis (2 per level below the finest) commute with the
    emulator exactly, others nearly. He et al. 2019 (arXiv:1811.06533); Jamieson et al. 2022, 2024
    (arXiv:2206.04594, 2408.07699).

    Args:
        redshift: of the fields, if the parameter space has no ``z``.
        velocity: channels after the displacement's, peculiar velocities v = a dx/dt [km/s]: ``"network"``
            learns the residual to their second order; ``"derivative"`` takes ``v = a H d psi / d ln a`` by
            forward-mode differentiation of the whole emulator along the growth of its input and of its two
            style parameters, which is exact for the emulated psi even if all training fields are of one
            redshift; ``"none"`` has displacements only.
        widths: channels of the U-Net, finest resolution first.

    Raises:
        InputError: for a grid that is no periodic box, or parameters without Omega_m.
    """

    margin = 0
    input_scale: Tensor
    output_scale: Tensor
    style_ends: Tensor

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "displacement and velocity",
        unit: str = "Mpc/h and km/s",
        redshift: float = 0.0,
        velocity: Literal["network", "derivative", "none"] = "network",
        widths: Sequence[int] = (16, 32, 64),
    ) -> None:
        super().__init__(grid, space, field, unit)
        if not grid.periodic or grid.unit != "Mpc/h":
            raise InputError(
                f"a displacement emulator needs a periodic box in Mpc/h, got unit {grid.unit!r}, "
                f"periodic {grid.periodic}"
            )
        if "Omega_m" not in space.names:
            raise InputError(f"a displacement emulator needs the parameter Omega_m, got {list(space.names)}")
        if redshift < 0:
            raise InputError(f"redshift must not be negative, got {redshift:g}")
        self.arguments: dict[str, Any] = {"redshift": redshift, "velocity": velocity, "widths": list(widths)}
        self.redshift, self.velocity, dim = redshift, velocity, grid.dim
        self.n_channels = dim if velocity == "none" else 2 * dim
        n_strain = dim * (dim + 1) // 2
        n_out = 2 * dim if velocity == "network" else dim
        n_style = 1 + ("sigma_8" in space.names)
        self.growth = GrowthTable()
        self.network = UNet(dim, n_strain + dim, n_out, n_style, widths, "circular")
        self.register_buffer("input_scale", torch.ones(n_strain + dim))
        self.register_buffer("output_scale", torch.ones(2 * dim)[: self.n_channels])
        self.register_buffer("style_ends", torch.tensor([[0.0, 1.0]] * n_style))

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Measure the scales of inputs and of what 2LPT lacks, and the range of the style parameters.

        Raises:
            InputError: for fields of other channels, or Zel'dovich displacements that are missing.
        """
        dim = self.grid.dim
        if data.coarse is None or data.values.shape[1] != self.n_channels:
            raise InputError(
                f"a displacement emulator with velocity {self.velocity!r} learns from {self.n_channels} "
                f"channels and the Zel'dovich displacement as coarse fields, got {data.values.shape[1]} "
                f"channels and {'no' if data.coarse is None else data.coarse.shape[1]} coarse ones"
            )
        rows = fitting_rows(data, 256)
        params, coarse = data.params[rows].float(), data.coarse[rows].float()
        self.check(coarse, self.grid.shape)
        inputs, lacking = [], []
        for i in torch.arange(len(rows)).split(16):
            epoch = self._epoch(params[i])
            inputs.append(mean_square(torch.cat(self._expand(epoch, coarse[i])[1:], 1)))
            lacking.append(mean_square(data.values[rows[i]].float() - self.closed_form(coarse[i], params[i])))
        # One scale for all components of a kind: no axis is preferred.
        pairs = dim * (dim - 1) // 2
        self.input_scale.copy_(shared_scale(torch.cat(inputs), [dim, pairs, dim]))
        self.output_scale.copy_(shared_scale(torch.cat(lacking), [dim] * (self.n_channels // dim)))
        style = torch.stack(self._style(self._epoch(params)), 1)
        half = (style.amax(0) - style.amin(0)) / 2
        self.style_ends.copy_(torch.stack([style.amin(0) + half, half.clamp(min=1e-3)], 1))

    def check(self, coarse: C | None, shape: Sequence[int]) -> C:
        return check_coarse(coarse, self.grid.dim, shape, self.network.factor, INPUT)

    def _epoch(self, params: Tensor) -> _Epoch:
        """What the parameters ``(B, P)`` say of the universe at the time of the fields."""
        columns = dict(zip(self.space.names, params.unbind(1), strict=True))
        om = columns["Omega_m"]
        a = 1 / (1 + columns.get("z", torch.full_like(om, self.redshift)))
        expansion2 = om / a**3 + 1 - om
        fraction = om / a**3 / expansion2
        sigma_8 = columns.get("sigma_8")
        if sigma_8 is not None:
            sigma_8 = sigma_8 * (self.growth(fraction).log_first - self.growth(om).log_first).exp()
        return _Epoch(fraction, sigma_8, 100 * a * expansion2.sqrt())

    def _style(self, epoch: _Epoch) -> list[Tensor]:
        return [column for column in epoch[:2] if column is not None]

    def _expand(
        self, epoch: _Epoch, zeldovich: Tensor, strains: Tensor | None = None, second: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The displacement to second order, the strain, and the second-order part.

        In a piece of a box the strain, and the second order up to its growth, must be given.
        """
        spacing = self.grid.spacing
        strains = strain(zeldovich, spacing) if strains is None else strains
        second = second_order(zeldovich, spacing, strains) if second is None else second
        second = to_channels(self.growth(epoch.matter_fraction).second[:, None], zeldovich) * second
        return zeldovich + second, strains, second

    def closed_form(self, coarse: Tensor, params: Tensor) -> Tensor:
        """2LPT displacement [Mpc/h] and velocity [km/s] at the parameters, ``(B, C, *shape)``."""
        epoch = self._epoch(params)
        displacement, _, second = self._expand(epoch, coarse)
        if self.velocity == "none":
            return displacement
        return torch.cat([displacement, self._second_order_velocity(coarse, second, epoch)], 1)

    def first_order(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Zel'dovich displacement [Mpc/h] and velocity [km/s] at the parameters, ``(B, C, *shape)``."""
        if self.velocity == "none":
            return coarse
        epoch = self._epoch(params)
        rate = self.growth(epoch.matter_fraction).first_rate
        return torch.cat([coarse, to_channels((epoch.hubble * rate)[:, None], coarse) * coarse], 1)

    def _second_order_velocity(self, zeldovich: Tensor, second: Tensor, epoch: _Epoch) -> Tensor:
        growth = self.growth(epoch.matter_fraction)
        first_rate = to_channels((epoch.hubble * growth.first_rate)[:, None], zeldovich)
        second_rate = to_channels((epoch.hubble * growth.second_rate / growth.second)[:, None], zeldovich)
        return first_rate * zeldovich + second_rate * second

    def predict(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Displacement [Mpc/h] and velocity [km/s] ``(B, C, *shape)``, differentiable in all.

        Args:
            coarse: Zel'dovich displacement ``(B, dim, *shape)`` [Mpc/h] at the fields' redshift.
            params: ``(B, P)``, physical units.
        """
        return self._evolved(self._epoch(params), coarse)

    def worked(self, shape: Sequence[int]) -> tuple[int, ...]:
        return divisible(shape, self.network.factor)

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """The Zel'dovich displacement, its strain and its second order up to growth."""
        del generators
        coarse = self.check(coarse, shape)
        for i in range(self.grid.dim):
            yield coarse[:, i].to(params)
        yield from expansion(lambda i: coarse[:, i].to(params), self.grid.spacing)

    def finish(self, inputs: Tensor, params: Tensor) -> Tensor:
        dim = self.grid.dim
        parts = inputs.split([dim, dim * (dim + 1) // 2, dim], 1)
        return self._evolved(self._epoch(params), *parts)

    def _evolved(self, epoch: _Epoch, zeldovich: Tensor, *derived: Tensor) -> Tensor:
        if self.velocity == "derivative":
            return self._with_derivative(epoch, zeldovich, *derived)
        displacement, strains, second = self._expand(epoch, zeldovich, *derived)
        residual = self._residual(strains, second, self._style(epoch))
        if self.velocity == "none":
            return displacement + residual
        velocity = self._second_order_velocity(zeldovich, second, epoch)
        return torch.cat([displacement, velocity], 1) + residual

    def _residual(self, strains: Tensor, second: Tensor, style: list[Tensor]) -> Tensor:
        inputs = torch.cat([strains, second], 1) / to_channels(self.input_scale[None], strains)
        unit = (torch.stack(style, 1) - self.style_ends[:, 0]) / self.style_ends[:, 1]
        out = self.network(inputs, unit).float()
        return out * to_channels(self.output_scale[None, : out.shape[1]], out)

    def _with_derivative(self, epoch: _Epoch, zeldovich: Tensor, *derived: Tensor) -> Tensor:
        """psi, and ``a H d psi / d ln a`` along the growth of this universe."""
        fraction, sigma_8, hubble = epoch

        def displacement(fraction: Tensor, sigma_8: Tensor, zeldovich: Tensor, *derived: Tensor) -> Tensor:
            now = _Epoch(fraction, None if epoch.sigma_8 is None else sigma_8, hubble)
            second_order_too, strains, second = self._expand(now, zeldovich, *derived)
            return second_order_too + self._residual(strains, second, self._style(now))

        rate = self.growth(fraction).first_rate
        amplitude = torch.zeros_like(fraction) if sigma_8 is None else sigma_8
        fields = (zeldovich, *derived)
        point = (fraction, amplitude, *fields)
        # What is of second order in the displacement grows at twice its rate.
        growing = [
            n * to_channels(rate[:, None], zeldovich) * x for n, x in zip((1, 1, 2), fields, strict=False)
        ]
        motion = (-3 * fraction * (1 - fraction), rate * amplitude, *growing)
        with warnings.catch_warnings():
            # Forward mode loads a part of torch that warns of another one.
            warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
            psi, speed, *_ = torch.func.jvp(displacement, point, motion)
        return torch.cat([psi, to_channels(hubble[:, None], psi) * speed], 1)
