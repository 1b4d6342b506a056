"""Adversarial emulator of the small scales of I, Q and U together, given them as a wide beam sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from gen.emulators.beams import beam, filtered, undoing, widening
from gen.emulators.conditioning import fitting_rows, own_generators
from gen.emulators.contrast import Ratio, Strength
from gen.emulators.copula import Copula
from gen.emulators.gap import SummaryGap
from gen.emulators.local_frame import FrameStrength, direction_of
from gen.emulators.mirror import Mirror
from gen.emulators.power_law import PowerLaw
from gen.emulators.sharpened import MOST, ROUNDS, correct, powers_at_nodes
from gen.emulators.steering import Steering, aligned_share
from gen.emulators.wide_beam import FromWideBeam
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace, resolved
from gen.nets.polarised_summaries import PolarisedSummaries
from gen.nets.unet import UNet
from gen.noise import normal

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

RATIO = Ratio()


class PolarisedSmallScales(FromWideBeam):
    r"""I, Q, U at a fine beam, given the same at a wide one: many for each, with its large scales.

    ``I = c_I exp(r)`` and ``(Q, U) = I (f + r_P)`` with f = (c_Q, c_U) / c_I: what differs from place to
    place is I and the fraction that is polarised, and its angle. In the closed form

    - r is that of ``SmallScales``, its Gaussian field *steered* (``gen.emulators.steering``): waves lie along
      the direction of f, as filaments across it do. Times f this makes TE and EE > BB.
    - r_P is a pair of Gaussian fields of one spectrum through one symmetric monotone map, scaled along f and
      at 45 degrees to it by what is usual where |f| is as large (``gen.emulators.local_frame``).

    Where |P| exceeds I, as in maps whose Q and U are on a scale of their own, small scales of these need not
    grow with I: then ``(Q, U) = (c_Q, c_U) + u r_P`` with u the map's unit, f in units of u.

    A U-Net with white noise at every resolution adds to the three normal scores, zero at the start, then
    r and r_P are changed where the wide beam would see it. Published emulators train on I and take its small
    scales for those of Q and U (Krachmalnicoff & Puglisi 2021, ForSE, arXiv:2011.02221; Yao et al. 2024,
    ForSE+, arXiv:2406.14519), which have no TE and as much B as E: ``as_intensity``.

    Args:
        coarse_beam, fine_beam: full widths at half maximum [arcmin].
        paired: whether the critic is given the large scales beside the small ones.
        hold: how often r and r_P are corrected for the large scales.
        polarised_by: what Q and U are multiples of: ``"intensity"`` at each place, or the ``"map"``'s unit.
        widths: channels of the U-Net, finest resolution first.
        summary_weight: weight of the gap between the summaries of made and real fields
            (``gen.nets.polarised_summaries``), 0 for a purely adversarial generator.

    Raises:
        InputError: for beams that do not fit the grid, a critic that does not, or a grid that is not a map.
    """

    n_channels = 3
    n_seen = 3
    scales: Tensor

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str = "polarised dust",
        unit: str = "1",
        coarse_beam: float = 80.0,
        fine_beam: float = 12.0,
        paired: bool = True,
        hold: int = 16,
        polarised_by: Literal["intensity", "map"] = "intensity",
        degree: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        summary_weight: float = 50.0,
        critic_channels: Sequence[int] = (32, 64, 128),
        critic_kernel: int = 5,
        critic_spectrum: bool = True,
    ) -> None:
        super().__init__(grid, space, field, unit)
        if grid.dim != 2:
            raise InputError(f"I, Q and U are maps, got a grid of {grid.dim} dimensions")
        self.arguments: dict[str, Any] = {
            "coarse_beam": coarse_beam,
            "fine_beam": fine_beam,
            "paired": paired,
            "hold": hold,
            "polarised_by": polarised_by,
            "degree": degree,
            "widths": list(widths),
            "summary_weight": summary_weight,
            "critic_channels": list(critic_channels),
            "critic_kernel": critic_kernel,
            "critic_spectrum": critic_spectrum,
        }
        self.widening, self.k_max = widening(grid, fine_beam, coarse_beam), resolved(grid, fine_beam)
        self.paired, self.hold, self.summary_weight = paired, hold, summary_weight
        self.n_noise = len(widths)
        padding = "circular" if grid.periodic else "zeros"
        self.strength, self.frame = Strength(), FrameStrength()
        self.steering = Steering(space, degree)
        self.copula = Copula(grid, space, field, unit, degree, reach=3.5)
        self.fraction = Copula(grid, space, field, unit, degree, reach=3.5)
        self.network = UNet(2, 6, 3, len(space), widths, padding, noise=True)
        self.gap = SummaryGap(PolarisedSummaries(grid, bin_width=0.05, k_max=self.k_max), space, degree)
        self.power_law, self.power_law_p = (PowerLaw(grid, coarse_beam, fine_beam) for _ in range(2))
        self.mirror = Mirror.of_beam(grid, self.widening, self.network.factor)
        self.register_buffer("scales", torch.ones(2))

    def to_config(self) -> dict[str, Any]:
        return {**self._base_config(), **self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        grid, space = Grid.from_dict(config.pop("grid")), ParameterSpace.from_dict(config.pop("space"))
        return cls(grid, space, **config)

    @torch.no_grad()
    def fit(self, data: SimulationSet) -> None:
        """Measure strengths, one- and two-point laws and alignment of small scales, and what is lacking then.

        Raises:
            InputError: for other than three channels, fields that are not those of the coarse ones, or
                intensities that are not positive.
        """
        if data.coarse is None or data.values.shape[1] != 3:
            raise InputError(
                f"polarised small scales are learnt from I, Q and U and the same at the wide beam as coarse "
                f"fields, got {data.values.shape[1]} channels and "
                f"{'no' if data.coarse is None else data.coarse.shape[1]} coarse ones"
            )
        rows = fitting_rows(data, 2048)
        values, params = data.values[rows].float(), data.params[rows].float()
        coarse = self.check(data.coarse[rows].float(), self.grid.shape)
        self.refuse_strangers(values, coarse)
        unit = self.unit_of(coarse)
        RATIO.flat(values[:, :1])
        f = self._polarisation(coarse, unit)
        r_p = self._polarisation(values, unit) - f
        self.scales.copy_(torch.stack([unit.mean(), f.square().mean().sqrt()]))
        x, r = RATIO.contrast(coarse[:, :1], unit), RATIO.small(values[:, :1], coarse[:, :1], unit)
        self.strength.fit(x, r)
        self.frame.fit(f, r_p)
        total, small = coarse[:, :1], values - coarse
        self.power_law.fit(total + small[:, :1], total)
        of_p = torch.cat([total + small[:, i : i + 1] for i in (1, 2)])
        self.power_law_p.fit(of_p, torch.cat([total, total]))
        mean, scatter = self.strength(x)
        z, z_p = (r - mean) / scatter, self.frame.unit(f, r_p)
        plain = replace(data.take(rows), coarse=None, coarse_grid=None, spin_channels=())
        self.copula.fit(replace(plain, values=z))
        four = plain.take(torch.arange(len(plain)).repeat(4))
        self.fraction.fit(replace(four, values=torch.cat([z_p[:, :1], z_p[:, 1:], -z_p[:, :1], -z_p[:, 1:]])))
        self._settle(values, coarse, params)
        self.fit_gap(values, coarse, params)

    def _settle(self, values: Tensor, coarse: Tensor, params: Tensor) -> None:
        """Bring two-point laws and alignment of the closed form, its large scales held, to the measured."""
        coarse, params = coarse[:MOST], params[:MOST]
        real = self._measured(values[:MOST], coarse, params)
        self.steering.fit(real[2], params)
        for _ in range(ROUNDS):
            made = self._measured(self.closed_forms(coarse, params), coarse, params)
            correct(self.copula, real[0], made[0], params)
            correct(self.fraction, real[1], made[1], params)
            self.steering.correct(real[2], made[2], params)

    def _measured(self, values: Tensor, coarse: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Power of the standardised r and r_P at nodes, and the aligned share of y."""
        unit = self.unit_of(coarse)
        z, z_p = self._standard(values, coarse, unit)
        y = self.copula.marginal.inverse(z, params)
        power, power_p = powers_at_nodes(self.copula, z), powers_at_nodes(self.fraction, z_p)
        return power, power_p, aligned_share(y, direction_of(coarse[:, 1:]), self.grid)

    def _standard(self, values: Tensor, coarse: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """r and r_P of maps, in units of their usual scatter."""
        mean, scatter = self.strength(RATIO.contrast(coarse[:, :1], unit))
        r, f = RATIO.small(values[:, :1], coarse[:, :1], unit), self._polarisation(coarse, unit)
        return (r - mean) / scatter, self.frame.unit(f, self._polarisation(values, unit) - f)

    def _whole(self, intensity: Tensor, unit: Tensor) -> Tensor:
        """What Q and U are multiples of."""
        return intensity if self.arguments["polarised_by"] == "intensity" else unit

    def _polarisation(self, maps: Tensor, unit: Tensor) -> Tensor:
        """Q and U as such multiples."""
        return maps[:, 1:] / self._whole(maps[:, :1], unit)

    def unit_of(self, coarse: Tensor) -> Tensor:
        return RATIO.unit(coarse[:, :1])

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        del params
        i = values[:, :1] / self.scales[0]
        return torch.cat([RATIO.flat(i), values[:, 1:] / (self.scales[0] * self.scales[1])], 1)

    def to_physical(self, w: Tensor, params: Tensor) -> Tensor:
        del params
        return torch.cat([w[:, :1].exp() * self.scales[0], w[:, 1:] * (self.scales[0] * self.scales[1])], 1)

    def scores(self, values: Tensor, coarse: Tensor, unit: Tensor, params: Tensor) -> Tensor:
        """y of r and of r_P, ``(B, 3, *shape)``."""
        z, z_p = self._standard(values, coarse, unit)
        return torch.cat(
            [self.copula.marginal.inverse(z, params), self.fraction.marginal.inverse(z_p, params)], 1
        )

    def seen(self, coarse: Tensor, unit: Tensor) -> Tensor:
        """x, and f in units of its size."""
        f = self._polarisation(coarse, unit)
        return torch.cat([RATIO.contrast(coarse[:, :1], unit), f / self.scales[1]], 1)

    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """g, steered, and those of Q and U; c; the unit; noise: ``(B, 7 + n_noise, *worked)``."""
        cells = self.grid.shape if shape is None else tuple(shape)
        coarse = self.check(coarse, cells).to(params)
        wide = self.mirror.extended(coarse)
        worked = tuple(wide.shape[2:])
        g, *pair = (
            copula.gaussian(params, copula.white(generators, worked), worked)
            for copula in (self.copula, self.fraction, self.fraction)
        )
        g = self.steering(g, direction_of(wide[:, 1:]), self.grid.resized(worked), params)
        unit = self.unit_of(coarse).expand_as(g)
        return torch.cat([g, *pair, wide, unit, normal(generators, (self.n_noise, *worked)).to(params)], 1)

    def coarse_of(self, latent: Tensor, shape: Sequence[int]) -> Tensor:
        return self.mirror.cut(latent[:, 3:6], shape)

    def made(self, latent: Tensor, params: Tensor, shape: Sequence[int], *, learned: bool) -> Tensor:
        y, coarse, unit = latent[:, :3], latent[:, 3:6], latent[:, 6:7]
        if learned:
            heard = torch.cat([y, self.seen(coarse, unit)], 1)
            y = y + self.network(heard, self.space.normalise(params), latent[:, 7:]).float()
        mean, scatter = self.strength(RATIO.contrast(coarse[:, :1], unit))
        r = mean + scatter * self.copula.marginal(y[:, :1], params)
        f = self._polarisation(coarse, unit)
        return self._held(coarse, unit, r, f + self.frame(f, self.fraction.marginal(y[:, 1:], params)), shape)

    def _held(self, coarse: Tensor, unit: Tensor, r: Tensor, p: Tensor, shape: Sequence[int]) -> Tensor:
        """I, Q and U of r and p = f + r_P, both corrected for the large scales."""
        transfer = beam(self.grid.resized(coarse.shape[2:]), self.widening).to(coarse)
        window, intensity = self.mirror.window(shape).to(coarse), coarse[:, :1]
        for undone in undoing(transfer, self.hold):
            reached = filtered(self._joined(intensity, unit, r, p), transfer)
            of_p = (coarse[:, 1:] - reached[:, 1:]) / self._whole(intensity, unit)
            of_i = RATIO.step(intensity, reached[:, :1], unit)
            step = filtered(window * torch.cat([of_i, of_p], 1), undone)
            r, p = r + step[:, :1], p + step[:, 1:]
        return self.mirror.cut(self._joined(intensity, unit, r, p), shape)

    def _joined(self, intensity: Tensor, unit: Tensor, r: Tensor, p: Tensor) -> Tensor:
        total = intensity * r.exp()
        return torch.cat([total, self._whole(total, unit) * p], 1)

    def practice(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Maps with Gaussian small scales of power laws, those of Q and U alike, as simulated today."""
        del params
        wide = self.mirror.extended(coarse)
        white = normal(own_generators(coarse, "practice"), wide.shape[1:]).to(wide)
        total = wide[:, :1]
        small = [
            law(total, white[:, i : i + 1])
            for i, law in enumerate((self.power_law, self.power_law_p, self.power_law_p))
        ]
        return self.mirror.cut(wide + torch.cat(small, 1) - total, coarse.shape[2:])

    def as_intensity(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Maps where I, Q and U each are multiplied by small scales of I, drawn apart: ``M = c exp(r)``."""
        shape = coarse.shape[2:]
        latents = [
            self.draw_latent(params, own_generators(coarse, f"as intensity {i}"), coarse, shape)
            for i in range(3)
        ]
        wide, unit = latents[0][:, 3:6], latents[0][:, 6:7]
        mean, scatter = self.strength(RATIO.contrast(wide[:, :1], unit))
        r = [mean + scatter * self.copula.marginal(latent[:, :1], params) for latent in latents]
        p = wide[:, 1:] * torch.cat(r[1:], 1).exp() / self._whole(wide[:, :1] * r[0].exp(), unit)
        return self._held(wide, unit, r[0], p, shape)
