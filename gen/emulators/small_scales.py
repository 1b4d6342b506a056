"""Adversarial emulator of a map's small scales, given the map as a wide beam sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from gen.emulators.beams import beam, filtered, undoing, widening
from gen.emulators.conditioning import fitting_rows, own_generators
from gen.emulators.contrast import Composition, Ratio, Strength, composition_from_config
from gen.emulators.copula import Copula
from gen.emulators.gap import SummaryGap
from gen.emulators.mirror import Mirror
from gen.emulators.power_law import PowerLaw
from gen.emulators.sharpened import MOST, ROUNDS, correct, powers_at_nodes
from gen.emulators.wide_beam import FromWideBeam
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace, resolved
from gen.nets.summaries import Summaries
from gen.nets.unet import UNet
from gen.noise import normal

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class SmallScales(FromWideBeam):
    r"""A map M at a fine beam, given the same map c at a wide one: many for each c, with its large scales.

    ``M = c exp(r)`` or ``M = c + s r`` (``gen.emulators.contrast``) with ``r = m(x) + s(x) q(y; theta)``: x
    is the large scales' contrast, which sets mean and scatter of r, q the one-point law of what is left, and
    ``y = g + U(g, x, noise; theta)`` its normal score, g a Gaussian field of the measured power
    (``gen.emulators.copula``) and U a U-Net with white noise at every resolution, zero at the start. Then r
    is changed where, and only where, M as the wide beam sees it differs from c. The network thus learns
    morphology; amplitudes are those of the map, never of a patch scaled to a range.

    Without U it is the closed form: Gaussian small scales seen through a monotone map, modulated by the large
    ones. The task is that of Krachmalnicoff & Puglisi 2021 (ForSE, arXiv:2011.02221), whose critic sees the
    small scales alone, real and made ones of different maps (``paired: false``), and whose generator draws
    nothing (``latent: none``); Yao et al. 2024 (ForSE+, arXiv:2406.14519) draw.

    Args:
        composition: how small scales join large ones.
        coarse_beam, fine_beam: full widths at half maximum [arcmin] on the sky, [Mpc/h] in boxes.
        latent: ``"copula"``, or ``"none"`` for one M for each c, all by the network.
        paired: whether the critic is given c beside the small scales.
        hold: how often r is corrected for the large scales.
        widths: channels of the U-Net, finest resolution first.
        summary_weight: weight of the gap between the summaries of made and real fields
            (``gen.emulators.gap``), 0 for a purely adversarial generator.

    Raises:
        InputError: for beams that do not fit the grid, or a critic that does not.
    """

    unit_scale: Tensor

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        composition: Composition | None = None,
        field: str = "dust intensity",
        unit: str = "1",
        coarse_beam: float = 80.0,
        fine_beam: float = 12.0,
        latent: Literal["copula", "none"] = "copula",
        paired: bool = True,
        hold: int = 16,
        degree: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        summary_weight: float = 50.0,
        critic_channels: Sequence[int] = (32, 64, 128),
        critic_kernel: int = 5,
        critic_spectrum: bool = True,
    ) -> None:
        super().__init__(grid, space, field, unit)
        self.composition = Ratio() if composition is None else composition
        self.arguments: dict[str, Any] = {
            "coarse_beam": coarse_beam,
            "fine_beam": fine_beam,
            "latent": latent,
            "paired": paired,
            "hold": hold,
            "degree": degree,
            "widths": list(widths),
            "summary_weight": summary_weight,
            "critic_channels": list(critic_channels),
            "critic_kernel": critic_kernel,
            "critic_spectrum": critic_spectrum,
        }
        self.widening, self.k_max = widening(grid, fine_beam, coarse_beam), resolved(grid, fine_beam)
        self.latent, self.paired, self.hold, self.summary_weight = latent, paired, hold, summary_weight
        self.n_noise = len(widths) if latent == "copula" else 0
        padding = "circular" if grid.periodic else "zeros"
        self.strength = Strength()
        self.copula = Copula(grid, space, field, unit, degree, reach=3.5)
        self.network = UNet(grid.dim, 2, 1, len(space), widths, padding, noise=bool(self.n_noise))
        self.gap = SummaryGap(Summaries(grid, bin_width=0.05, k_max=self.k_max), space, degree)
        self.power_law = PowerLaw(grid, coarse_beam, fine_beam)
        self.mirror = Mirror.of_beam(grid, self.widening, self.network.factor)
        self.register_buffer("unit_scale", torch.ones(()))

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), "composition": self.composition.to_config(), **self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        grid, space = Grid.from_dict(config.pop("grid")), ParameterSpace.from_dict(config.pop("space"))
        return cls(grid, space, composition_from_config(config.pop("composition")), **config)

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Measure how strong small scales are, their one- and two-point laws, and what the closed form lacks.

        Raises:
            InputError: for several channels, fields that are not those of the coarse ones, or fields that the
                composition cannot take.
        """
        if data.coarse is None or data.values.shape[1] != 1:
            raise InputError(
                f"small scales are learnt from one channel and the same at the wide beam as coarse field, "
                f"got {data.values.shape[1]} channels and "
                f"{'no' if data.coarse is None else data.coarse.shape[1]} coarse ones"
            )
        rows = fitting_rows(data, 2048)
        values, params = data.values[rows].float(), data.params[rows].float()
        coarse = self.check(data.coarse[rows].float(), self.grid.shape)
        self.refuse_strangers(values, coarse)
        unit = self.composition.unit(coarse)
        self.composition.flat(values)
        self.unit_scale.copy_(unit.mean())
        x, r = self.composition.contrast(coarse, unit), self.composition.small(values, coarse, unit)
        self.strength.fit(x, r)
        self.power_law.fit(values, coarse)
        mean, scatter = self.strength(x)
        self.copula.fit(replace(data.take(rows), values=(r - mean) / scatter, coarse=None, coarse_grid=None))
        if self.latent == "copula":
            self._settle(values, coarse, params)
        self.fit_gap(values, coarse, params)

    def _settle(self, values: Tensor, coarse: Tensor, params: Tensor) -> None:
        """Bring the power of what the closed form makes, its large scales held, to the measured one.

        The two-point function of a map without periodicity, from which the copula's power is found, cannot
        tell power that is some 10^-4 of the largest; a taper's leakage falls faster.
        """
        coarse, params = coarse[:MOST], params[:MOST]
        real = powers_at_nodes(self.copula, self._standard(values[:MOST], coarse, self.unit_of(coarse)))
        for _ in range(ROUNDS):
            made = self.closed_forms(coarse, params)
            made = self._standard(made, coarse, self.unit_of(coarse))
            correct(self.copula, real, powers_at_nodes(self.copula, made), params)

    def _standard(self, values: Tensor, coarse: Tensor, unit: Tensor) -> Tensor:
        """r of maps in units of its usual scatter, less its mean."""
        mean, scatter = self.strength(self.composition.contrast(coarse, unit))
        return (self.composition.small(values, coarse, unit) - mean) / scatter

    def unit_of(self, coarse: Tensor) -> Tensor:
        return self.composition.unit(coarse)

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        del params
        return self.composition.flat(values / self.unit_scale)

    def to_physical(self, w: Tensor, params: Tensor) -> Tensor:
        del params
        return self.composition.unflat(w) * self.unit_scale

    def scores(self, values: Tensor, coarse: Tensor, unit: Tensor, params: Tensor) -> Tensor:
        """y of maps, ``(B, 1, *shape)``."""
        return self.copula.marginal.inverse(self._standard(values, coarse, unit), params)

    def seen(self, coarse: Tensor, unit: Tensor) -> Tensor:
        """x."""
        return self.composition.contrast(coarse, unit)

    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """g, c, x, the map's unit, and the noise of each resolution, ``(B, 4 + n_noise, *worked)``."""
        cells = self.grid.shape if shape is None else tuple(shape)
        coarse = self.check(coarse, cells).to(params)
        unit = self.composition.unit(coarse)
        wide = self.mirror.extended(coarse)
        worked = tuple(wide.shape[2:])
        x = self.composition.contrast(coarse, unit)
        parts = [wide, self.mirror.extended(x), unit.expand_as(wide)]
        if self.latent == "none":
            return torch.cat([torch.zeros_like(wide), *parts], 1)
        g = self.copula.gaussian(params, self.copula.white(generators, worked), worked)
        return torch.cat([g, *parts, normal(generators, (self.n_noise, *worked)).to(params)], 1)

    def coarse_of(self, latent: Tensor, shape: Sequence[int]) -> Tensor:
        return self.mirror.cut(latent[:, 1:2], shape)

    def made(self, latent: Tensor, params: Tensor, shape: Sequence[int], *, learned: bool) -> Tensor:
        g, coarse, x, unit = (latent[:, i : i + 1] for i in range(4))
        y = g
        if learned:
            noise = latent[:, 4:] if self.n_noise else None
            y = g + self.network(torch.cat([g, x], 1), self.space.normalise(params), noise).float()
        mean, scatter = self.strength(x)
        r = mean + scatter * self.copula.marginal(y, params)
        transfer = beam(self.grid.resized(latent.shape[2:]), self.widening).to(latent)
        window = self.mirror.window(shape).to(latent)
        for undone in undoing(transfer, self.hold):
            reached = filtered(self.composition.joined(coarse, unit, r), transfer)
            r = r + filtered(window * self.composition.step(coarse, reached, unit), undone)
        return self.mirror.cut(self.composition.joined(coarse, unit, r), shape)

    def practice(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Maps with Gaussian small scales of a power law, as they are simulated today."""
        del params
        wide = self.mirror.extended(coarse)
        white = normal(own_generators(coarse, "practice"), wide.shape[1:]).to(wide)
        return self.mirror.cut(self.power_law(wide, white), coarse.shape[2:])
