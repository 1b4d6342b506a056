"""Closed forms from which maps between displacement fields start, each an own formula of gravity.

A closed form turns the given field into a guess of the wanted one, in 2D and 3D, and says what a network may
learn the rest from. What a network is given does not change when all matter is displaced alike. First comes
what knows the whole box, ``whole``, in the memory of a few channels; the rest, ``local``, is cell by cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gen.emulators.perturbation import GrowthTable, expansion, strains, wavevector
from gen.errors import InputError
from gen.fields import ParameterSpace
from gen.nets.layers import to_channels
from gen.simulate.neutrinos import fraction, suppression

Given = Callable[[int], Tensor]
"""A channel ``(B, *shape)`` of the given fields by its number."""


class Guess(NamedTuple):
    """``made (B, C, *shape)``; ``inputs (B, n_in, *shape)`` of a network; ``weight (B,)`` of its residual."""

    made: Tensor
    inputs: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Universe:
    """Parameters by name, each ``(B,)``, growth, and the spacing of the cells [Mpc/h]."""

    columns: Mapping[str, Tensor]
    growth: GrowthTable
    spacing: Sequence[float]

    def redshift(self, otherwise: float) -> Tensor:
        """Of each row, ``otherwise`` where it is no parameter."""
        return self.columns.get("z", torch.full_like(self.columns["Omega_m"], otherwise))

    def epoch(self, z: Tensor | float) -> tuple[Tensor, Tensor]:
        """Omega_m(a), and a H(a) [km/s / (Mpc/h)], each ``(B,)``."""
        om = self.columns["Omega_m"]
        a = 1 / (1 + torch.as_tensor(z).to(om))
        expansion2 = om / a**3 + 1 - om
        return om / a**3 / expansion2, 100 * a * expansion2.sqrt()


class ClosedForm(ABC):
    """A formula for one displacement field [Mpc/h], given another one or several."""

    #: What the coarse field is, for messages.
    coarse: ClassVar[str]
    #: Vector fields in it, the first of them a displacement [Mpc/h].
    n_vectors: ClassVar[int] = 1
    #: Vector fields that it makes, the first of them a displacement [Mpc/h].
    n_made: ClassVar[int] = 1
    #: Parameters without which it says nothing.
    needs: ClassVar[tuple[str, ...]] = ("Omega_m",)

    @abstractmethod
    def whole(self, given: Given, universe: Universe) -> Iterator[Tensor]:
        """The channels ``(B, *shape)`` that ``local`` takes, one after the other, differentiable in all.

        ``given(i)`` is channel i of the ``n_vectors dim`` given ones, ``(B, *shape)``.
        """

    @abstractmethod
    def local(self, channels: Tensor, universe: Universe) -> Guess:
        """The guess for channels ``(B, n, *shape)``, of a piece of the box as of all of it."""

    def __call__(self, coarse: Tensor, universe: Universe) -> Guess:
        """The guess for ``(B, n_vectors dim, *shape)``, differentiable in all."""
        return self.local(torch.stack(list(self.whole(lambda i: coarse[:, i], universe)), 1), universe)

    def groups(self, dim: int) -> list[int]:
        """Sizes of the groups of input channels that share a scale: no axis is preferred."""
        return [dim, dim * (dim - 1) // 2, dim]

    def check(self, space: ParameterSpace) -> None:
        """Refuse a parameter space that it cannot work on.

        Raises:
            InputError: for a parameter that is missing.
        """
        for name in self.needs:
            if name not in space.names:
                raise InputError(
                    f"{type(self).__name__} needs the parameter {name}, got {list(space.names)}; add it to "
                    f"the data's space"
                )

    def to_config(self) -> dict[str, Any]:
        """``{"kind": class name, ...}`` with the constructor's arguments; see ``from_config``."""
        return {"kind": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class SecondOrderInverse(ClosedForm):
    """The Zel'dovich displacement of an evolved one, 2LPT turned round.

    ``psi1 = psi - (D2 / D1^2) grad phi2[psi]``, phi2 the second-order potential of psi taken for psi1
    (``gen.emulators.perturbation``): 2LPT ``psi = psi1 + (D2 / D1^2) grad phi2[psi1]`` solved to second
    order, so that what it leaves out is of third.

    Args:
        redshift: of the fields, if the parameter space has no ``z``.
    """

    redshift: float = 0.0
    coarse: ClassVar[str] = "evolved displacement [Mpc/h]"

    def whole(self, given: Given, universe: Universe) -> Iterator[Tensor]:
        yield from map(given, range(len(universe.spacing)))
        yield from expansion(given, universe.spacing)

    def local(self, channels: Tensor, universe: Universe) -> Guess:
        dim = len(universe.spacing)
        psi, strains, second = channels.split([dim, dim * (dim + 1) // 2, dim], 1)
        matter_fraction, _ = universe.epoch(universe.redshift(self.redshift))
        ratio = universe.growth(matter_fraction).second
        second = to_channels(ratio[:, None], psi) * second
        return Guess(psi - second, torch.cat([strains, second], 1), torch.ones_like(ratio))


@dataclass(frozen=True)
class Hermite(ClosedForm):
    r"""The displacement between two snapshots: cubic Hermite interpolation in the growth factor D.

    With ``t = (D - D_early) / (D_late - D_early)`` and slopes ``d psi / dD = v / (a H f D)``,

    ``psi = psi_early + t m_early + t^2 (3 step - 2 m_early - m_late) + t^3 (m_early + m_late - 2 step)``,

    ``step = psi_late - psi_early`` and m the slopes times ``D_late - D_early``. In D, unlike in a or t, the
    Zel'dovich approximation is a line and 2LPT very nearly a parabola, so both are exact. The residual has
    the weight ``16 t^2 (1 - t)^2``: like the error of the cubic it is zero at both snapshots, and so is its
    slope.

    Args:
        z_early, z_late: redshifts of the two snapshots; the parameter ``z`` is that of the wanted one.
    """

    z_early: float = 1.0
    z_late: float = 0.0
    coarse: ClassVar[str] = "displacement [Mpc/h] and velocity [km/s] at the early, then at the late redshift"
    n_vectors: ClassVar[int] = 4
    needs: ClassVar[tuple[str, ...]] = ("Omega_m", "z")

    def __post_init__(self) -> None:
        if not 0 <= self.z_late < self.z_early:
            raise InputError(
                f"z_late must be 0 or more and below z_early, got {self.z_late:g} and {self.z_early:g}"
            )

    def check(self, space: ParameterSpace) -> None:
        super().check(space)
        i = space.names.index("z")
        if space.low[i] < self.z_late or space.high[i] > self.z_early:
            raise InputError(
                f"z must lie between the snapshots at {self.z_late:g} and {self.z_early:g}, got a range of "
                f"{space.low[i]:g} to {space.high[i]:g}"
            )

    def groups(self, dim: int) -> list[int]:
        return [dim, dim * (dim - 1) // 2, dim, dim]

    def whole(self, given: Given, universe: Universe) -> Iterator[Tensor]:
        dim = len(universe.spacing)
        yield from map(given, range(4 * dim))

        def made(i: int) -> Tensor:
            component = torch.stack([given(i + n * dim) for n in range(4)], 1)
            return self._cubic(component, universe)[0][:, 0]

        yield from strains(made, universe.spacing)

    def local(self, channels: Tensor, universe: Universe) -> Guess:
        dim = len(universe.spacing)
        made, square, cube, weight = self._cubic(channels[:, : 4 * dim], universe)
        return Guess(made, torch.cat([channels[:, 4 * dim :], square, cube], 1), weight)

    def _cubic(self, coarse: Tensor, universe: Universe) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Displacement, its terms in t^2 and t^3, and the residual's weight; any number of components."""
        psi_early, v_early, psi_late, v_late = coarse.chunk(4, 1)
        today = universe.growth(universe.epoch(self.z_late)[0]).log_first

        def slope(v: Tensor, z: float) -> tuple[Tensor, Tensor]:
            """d psi / dD, and D over that of the late snapshot."""
            matter_fraction, hubble = universe.epoch(z)
            rates = universe.growth(matter_fraction)
            d = (rates.log_first - today).exp()
            return v / to_channels((hubble * rates.first_rate * d)[:, None], v), d

        (s_early, d_early), (s_late, d_late) = slope(v_early, self.z_early), slope(v_late, self.z_late)
        span = to_channels((d_late - d_early)[:, None], coarse)
        m_early, m_late, step = s_early * span, s_late * span, psi_late - psi_early
        now = universe.growth(universe.epoch(universe.columns["z"])[0]).log_first
        fraction_of_step = ((now - today).exp() - d_early) / (d_late - d_early)
        t = to_channels(fraction_of_step[:, None], coarse)
        square, cube = 3 * step - 2 * m_early - m_late, m_early + m_late - 2 * step
        made = psi_early + t * (m_early + t * (square + t * cube))
        return made, square, cube, 16 * (fraction_of_step * (1 - fraction_of_step)).square()


@dataclass(frozen=True)
class NeutrinoFilter(ClosedForm):
    """The displacement with massive neutrinos of a massless one, by linear theory.

    ``psi_k -> sqrt(P(k; m_nu) / P(k; 0)) psi_k`` (``gen.simulate.neutrinos``). The residual has the weight
    ``4 f_nu``, so that no mass changes nothing.

    Args:
        h: Hubble constant / 100.
    """

    h: float = 0.6711
    coarse: ClassVar[str] = "displacement [Mpc/h] of the massless run"
    needs: ClassVar[tuple[str, ...]] = ("Omega_m", "m_nu")

    def whole(self, given: Given, universe: Universe) -> Iterator[Tensor]:
        om, mass = universe.columns["Omega_m"], universe.columns["m_nu"]
        dim = len(universe.spacing)
        shape, axes = given(0).shape[1:], tuple(range(1, 1 + dim))
        waves = torch.broadcast_tensors(*wavevector(shape, universe.spacing, given(0), odd=False))
        k = torch.stack(waves).square().sum(0).sqrt()
        wide = (-1, *(1,) * dim)
        ratio = suppression(k, om.reshape(wide), mass.reshape(wide), self.h).sqrt()
        for i in range(dim):
            modes = torch.fft.rfftn(given(i).float(), dim=axes) * ratio
            yield torch.fft.irfftn(modes, s=shape, dim=axes) - given(i)
        yield from map(given, range(dim))
        yield from strains(given, universe.spacing)

    def local(self, channels: Tensor, universe: Universe) -> Guess:
        dim = len(universe.spacing)
        change, psi, strained = channels.split([dim, dim, dim * (dim + 1) // 2], 1)
        weight = 4 * fraction(universe.columns["Omega_m"], universe.columns["m_nu"], self.h)
        return Guess(psi + change, torch.cat([strained, change], 1), weight)


@dataclass(frozen=True)
class ShortWaves(ClosedForm):
    """Displacement and velocity of a coarse run's matter, and of the waves that it lacks by Zel'dovich.

    ``psi = psi_coarse + psi1``, ``v = v_coarse + a H f psi1``, with psi1 the Zel'dovich displacement of the
    shorter waves, whose motion with the long ones and whose collapse are left to the network.

    Args:
        redshift: of the fields, if the parameter space has no ``z``.
    """

    redshift: float = 0.0
    coarse: ClassVar[str] = (
        "displacement [Mpc/h] and velocity [km/s] of a coarse run at the fine particles, and the Zel'dovich "
        "displacement [Mpc/h] of the waves that it lacks"
    )
    n_vectors: ClassVar[int] = 3
    n_made: ClassVar[int] = 2

    def groups(self, dim: int) -> list[int]:
        return [dim, dim * (dim - 1) // 2] * self.n_vectors

    def whole(self, given: Given, universe: Universe) -> Iterator[Tensor]:
        dim = len(universe.spacing)
        yield from map(given, range(3 * dim))
        for first in range(0, 3 * dim, dim):
            yield from strains(lambda i, first=first: given(first + i), universe.spacing)

    def local(self, channels: Tensor, universe: Universe) -> Guess:
        dim = len(universe.spacing)
        psi, v, waves, strained = channels.split([dim, dim, dim, 3 * dim * (dim + 1) // 2], 1)
        matter_fraction, hubble = universe.epoch(universe.redshift(self.redshift))
        rate = hubble * universe.growth(matter_fraction).first_rate
        made = torch.cat([psi + waves, v + to_channels(rate[:, None], waves) * waves], 1)
        return Guess(made, strained, torch.ones_like(rate))


def from_config(config: Mapping[str, Any]) -> ClosedForm:
    """The closed form that ``to_config`` described.

    Raises:
        InputError: for a kind that is none of this file's classes.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    leaves = {leaf.__name__: leaf for leaf in (SecondOrderInverse, Hermite, NeutrinoFilter, ShortWaves)}
    if kind not in leaves:
        raise InputError(f"a closed form must be one of {', '.join(leaves)}, got {kind!r}")
    return leaves[kind](**arguments)
