"""Super-resolution by particles: a finer run of a coarse one's universe, the waves it lacks drawn anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gen.emulators.chunks import white_channels
from gen.emulators.closed_forms import Given, ShortWaves
from gen.emulators.conditioning import Channels, check_coarse, fitting_rows
from gen.emulators.field_map import FieldMap
from gen.emulators.perturbation import wavevector
from gen.emulators.regression import Polynomial
from gen.fields import Grid, ParameterSpace
from gen.simulate.lattices import interpolated, lacking

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

COARSE_RUN = "displacement [Mpc/h] and velocity [km/s] of a coarse run's particles"


class Refinement(FieldMap):
    r"""Displacement and velocity of ``factor^dim`` times as many particles, given those of a coarse run.

    A run differs from a coarser one of the same universe by the initial waves that this lacks, and by all
    that they lead to. They are Gaussian and independent of the waves that the coarse run holds, so they can
    be drawn; what they lead to, given both, is not random and is learned by regression. The law of fine runs
    given a coarse one is then right by construction as far as the map is, and regression is all that it
    takes. ``gen.emulators.adversarial_refinement`` is trained against a critic.

    ``coarse`` is a coarse run, ``(B, 2 dim, *shape / factor)`` or already interpolated to ``shape``, of which
    every generator makes another fine one; or, where the fine run's own waves are known, what ``ShortWaves``
    takes, ``(B, 3 dim, *shape)``.

    Args:
        closed_form: what it starts from, ``ShortWaves``.
        factor: ratio of particles along a side.
        degree: of the polynomial in the parameters of the waves' power.
    """

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        closed_form: ShortWaves | None = None,
        field: str = "displacement and velocity",
        unit: str = "Mpc/h and km/s",
        widths: Sequence[int] = (32, 64, 128),
        factor: int = 2,
        degree: int = 3,
    ) -> None:
        formula = closed_form or ShortWaves()
        super().__init__(grid, space, formula, field, unit, widths)
        self.factor, self.redshift = factor, formula.redshift
        self.waves = Waves(grid, space, factor, degree)

    def to_config(self) -> dict[str, Any]:
        return {**super().to_config(), "factor": self.factor, "degree": self.waves.degree}

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        super().fit(data)
        assert data.coarse is not None
        rows = fitting_rows(data, max(64, 2**24 // self.grid.n_cells))
        self.waves.fit(data.coarse[rows, -self.grid.dim :].float(), data.params[rows].float())

    def check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        """As given, if it is a coarse run, on its own particles or the fine ones, or one with waves."""
        dim = self.grid.dim
        if coarse is not None and coarse.shape[1] == 3 * dim:
            return super().check(coarse, shape)
        own = tuple(n // self.factor for n in shape)
        cells = tuple(shape) if coarse is not None and tuple(coarse.shape[2:]) == tuple(shape) else own
        divisor = self.network.factor if cells != own else max(1, self.network.factor // self.factor)
        return self.ordered(check_coarse(coarse, 2 * dim, cells, divisor, COARSE_RUN), shape)

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """A fine run for each generator.

        Raises:
            InputError: without a coarse run, or with one of another shape.
        """
        return self.predict(self.completed(params, generators, coarse, shape), params)

    def completed(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """The coarse run at the fine particles, and waves, drawn if not given, ``(B, 3 dim, *shape)``."""
        shape = self.grid.shape if shape is None else tuple(shape)
        given = self.check(coarse, shape).to(params)
        if given.shape[1] == 3 * self.grid.dim:
            return given
        if tuple(given.shape[2:]) != shape:
            given = interpolated(given, self.factor)
        return torch.cat([given, self.drawn(params, generators, shape)], 1)

    def run_of(self, given: Tensor) -> Tensor:
        """The coarse run of what ``ShortWaves`` takes, without the waves."""
        return given[:, : 2 * self.grid.dim]

    def drawn(self, params: Tensor, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
        """Zel'dovich displacement [Mpc/h] of waves that the coarse run lacks, ``(B, dim, *shape)``."""
        return torch.stack(list(map(self._waves(params, generators, shape), range(self.grid.dim))), 1)

    def _waves(self, params: Tensor, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Given:
        white = next(white_channels(generators, 1, tuple(shape))).to(params)
        modes = self.waves(white, params)
        return lambda i: self.waves.component(modes, i, tuple(shape))

    def inputs(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Channels | None,
        shape: Sequence[int],
    ) -> Iterator[Tensor]:
        """What of the closed form knows the whole box, of a coarse run on its own particles."""
        dim = self.grid.dim
        cells = tuple(n // self.factor for n in self.worked(shape))
        run = check_coarse(coarse, 2 * dim, cells, 1, COARSE_RUN)
        waves = self._waves(params, generators, shape)

        def given(i: int) -> Tensor:
            if i >= 2 * dim:
                return waves(i - 2 * dim)
            return interpolated(run[:, i].to(params)[:, None], self.factor)[:, 0]

        yield from self.formula.whole(given, self._universe(params))


class Waves(nn.Module):
    """Displacements of short waves at first order: gradients of a Gaussian field of measured power.

    Their mean power is k^-4.5, which is near that of cold matter there, times a smooth function of the
    parameters and of ln k, linear between ``n_k`` nodes from the coarse lattice's Nyquist wavenumber on.

    Args:
        grid: of the fine particles.
        factor: of the coarse lattice, whose own waves are not among them.
    """

    nodes: Tensor

    def __init__(self, grid: Grid, space: ParameterSpace, factor: int, degree: int, n_k: int = 10) -> None:
        super().__init__()
        self.grid, self.factor, self.degree = grid, factor, degree
        self.log_power = Polynomial(space, n_k, degree)
        low, high = grid.k_nyquist / factor, grid.k_nyquist * math.sqrt(grid.dim)
        self.register_buffer("nodes", torch.linspace(math.log(low), math.log(high), n_k))

    @torch.no_grad()
    def fit(self, displacement: Tensor, params: Tensor) -> None:
        """Measure the power of displacements ``(N, dim, *shape)`` at ``(N, P)`` parameters."""
        _, k = self._lattice(displacement.shape[2:], displacement)
        held = lacking(displacement.shape[2:], self.factor, displacement.device)
        axes = tuple(range(1, displacement.ndim - 1))
        hats = self._hats(k[held]).double()
        measured = []
        for psi in displacement:
            modes = torch.fft.rfftn(psi.float(), dim=axes, norm="ortho")[:, held]
            power = modes.abs().square().sum(0).double() * self._slope(k[held], -1)
            measured.append(torch.linalg.lstsq(hats, power[:, None]).solution[:, 0])
        powers = torch.stack(measured).clamp(min=1e-30)
        self.log_power.fit(params, powers.log())
        # The fit is to the mean logarithm, which is below the logarithm of the mean.
        bias = powers.mean(0).log() - self.log_power(params).double().exp().mean(0).log()
        self.log_power.coefficients[0] += bias.to(self.log_power.coefficients)

    def forward(self, white: Tensor, params: Tensor) -> Tensor:
        """Modes ``(B, *rfftn lattice)`` of the waves along k, of unit white noise ``(B, *shape)``."""
        _, k = self._lattice(white.shape[1:], white)
        held = lacking(white.shape[1:], self.factor, white.device)
        short = k[held]
        power = self.log_power(params).exp() @ self._hats(short).T * self._slope(short)
        modes = torch.fft.rfftn(white.float(), dim=tuple(range(1, white.ndim)), norm="ortho")
        modes[:, ~held] = 0
        modes[:, held] *= power.sqrt()
        return modes

    def component(self, modes: Tensor, i: int, shape: Sequence[int]) -> Tensor:
        """Displacement along axis i, ``(B, *shape)``."""
        components, k = self._lattice(shape, modes.real)
        axes = tuple(range(1, modes.ndim))
        return torch.fft.irfftn(
            modes * (1j * components[i] / k.clamp(min=1e-12)), s=tuple(shape), dim=axes, norm="ortho"
        )

    def _slope(self, k: Tensor, sign: int = 1) -> Tensor:
        return (k / self.grid.k_nyquist) ** (-4.5 * sign)

    def _hats(self, k: Tensor) -> Tensor:
        """Weights ``(M, n_k)`` of the nodes, for linear interpolation in ln k."""
        step = self.nodes[1] - self.nodes[0]
        at = ((k[:, None].log() - self.nodes.to(k)) / step).abs()
        return (1 - at).clamp(min=0)

    def _lattice(self, shape: Sequence[int], like: Tensor) -> tuple[list[Tensor], Tensor]:
        """Components of k, and |k|."""
        components = wavevector(shape, self.grid.spacing, like, odd=True)
        squares = torch.stack(torch.broadcast_tensors(*components)).square().sum(0)
        return components, squares.sqrt()
