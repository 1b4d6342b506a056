"""Adversarial emulator of a map's small scales, given the map as a wide beam sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from gen.emulators.base import Emulator
from gen.emulators.beams import beam, filtered, undoing, widening
from gen.emulators.conditioning import check_coarse, fitting_rows, own_generators
from gen.emulators.contrast import Composition, Ratio, Strength, composition_from_config
from gen.emulators.copula import Copula
from gen.emulators.gap import SummaryGap
from gen.emulators.mirror import Mirror
from gen.emulators.power_law import PowerLaw
from gen.emulators.sharpened import sharpen
from gen.emulators.small_scale_critic import SmallScaleCritic
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.nets.dcgan import Critic
from gen.nets.unet import UNet
from gen.noise import normal

if TYPE_CHECKING:
    from gen.data.base import SimulationSet


class SmallScales(Emulator):
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

    micro_batch = 8
    needs_coarse = True
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
        hold: int = 7,
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
        self.widening = widening(grid, fine_beam, coarse_beam)
        self.latent, self.paired, self.hold, self.summary_weight = latent, paired, hold, summary_weight
        self.n_noise = len(widths) if latent == "copula" else 0
        padding = "circular" if grid.periodic else "zeros"
        self.strength = Strength()
        self.copula = Copula(grid, space, field, unit, degree)
        self.network = UNet(grid.dim, 2, 1, len(space), widths, padding, noise=bool(self.n_noise))
        self.gap = SummaryGap(grid, space, degree, bin_width=0.05)
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
        coarse = self._check(data.coarse[rows].float(), self.grid.shape)
        self._refuse_strangers(values, coarse)
        unit = self.composition.unit(coarse)
        self.composition.flat(values)
        self.unit_scale.copy_(unit.mean())
        x, r = self.composition.contrast(coarse, unit), self.composition.small(values, coarse, unit)
        self.strength.fit(x, r)
        self.power_law.fit(values, coarse)
        mean, scatter = self.strength(x)
        rest = replace(
            data.take(rows), values=(r - mean) / scatter, coarse=None, coarse_grid=None, vector_channels=(),
            coarse_vector_channels=(),
        )  # fmt: skip
        self.copula.fit(rest)
        if not self.grid.periodic:
            sharpen(self.copula, rest.values, params)
        if not self.summary_weight:
            self.gap.summaries.fit(*self._views(values, coarse, unit, params))
            return
        started = []
        for i in torch.arange(len(rows)).split(64):
            generators = own_generators(coarse[i], "gap")
            latent = self.draw_latent(params[i], generators, coarse=coarse[i])
            started.append(self._made(latent, params[i], self.grid.shape, learned=False))
        real, made = (self._views(m, coarse, unit, params) for m in (values, torch.cat(started)))
        self.gap.fit(real, made, params)

    def _refuse_strangers(self, values: Tensor, coarse: Tensor) -> None:
        """Fields that the wide beam does not turn into their coarse ones, away from the edges."""
        inner = (slice(None), slice(None), *(slice(n // 4, n - n // 4) for n in self.grid.shape))
        extended = self.mirror.extended(values)
        transfer = beam(self.grid.resized(extended.shape[2:]), self.widening).float()
        wide = self.mirror.cut(filtered(extended, transfer), values.shape[2:])
        aim = coarse[inner].flatten(1)
        spread = (aim - aim.mean(1, keepdim=True)).square().mean(1).sqrt()
        off = (wide[inner].flatten(1) - aim).square().mean(1).sqrt() / spread.clamp(min=1e-30)
        if not off.median() < 0.3:
            raise InputError(
                f"a beam of {self.arguments['coarse_beam']:g} does not turn the fields into their coarse "
                f"ones: they differ by {off.median():.2f} of their fluctuations; give pairs of the same map, "
                "and the beams they were made with"
            )

    def _check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        return check_coarse(coarse, 1, shape, 1, f"field at a beam of {self.arguments['coarse_beam']:g}")

    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Fields in one unit, where fluctuations are of one size."""
        del params
        return self.composition.flat(values / self.unit_scale)

    def to_physical(self, w: Tensor, params: Tensor) -> Tensor:
        del params
        return self.composition.unflat(w) * self.unit_scale

    def scores(self, values: Tensor, coarse: Tensor, unit: Tensor, params: Tensor) -> Tensor:
        """y of maps, ``(B, 1, *shape)``."""
        mean, scatter = self.strength(self.composition.contrast(coarse, unit))
        small = self.composition.small(values, coarse, unit)
        return self.copula.marginal.inverse((small - mean) / scatter, params)

    def _views(self, values: Tensor, coarse: Tensor, unit: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """The score of a map's small scales, and the map in its unit."""
        return self.scores(values, coarse, unit, params), values / unit

    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """g, c, x, the map's unit, and the noise of each resolution, ``(B, 4 + n_noise, *worked)``."""
        cells = self.grid.shape if shape is None else tuple(shape)
        coarse = self._check(coarse, cells).to(params)
        unit = self.composition.unit(coarse)
        wide = self.mirror.extended(coarse)
        worked = tuple(wide.shape[2:])
        x = self.composition.contrast(coarse, unit)
        parts = [wide, self.mirror.extended(x), unit.expand_as(wide)]
        if self.latent == "none":
            return torch.cat([torch.zeros_like(wide), *parts], 1)
        g = self.copula.gaussian(params, self.copula.white(generators, worked), worked)
        return torch.cat([g, *parts, normal(generators, (self.n_noise, *worked)).to(params)], 1)

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """Fields in the working space ``(B, 1, *grid.shape)``, differentiable in the weights."""
        return self.to_working(self._made(latent, params, self.grid.shape, learned=True), params)

    def _made(self, latent: Tensor, params: Tensor, shape: Sequence[int], *, learned: bool) -> Tensor:
        """Maps in physical units, by the closed form alone or with what was learned."""
        g, coarse, x, unit = (latent[:, i : i + 1] for i in range(4))
        y = g
        if learned:
            noise = latent[:, 4:] if self.n_noise else None
            y = g + self.network(torch.cat([g, x], 1), self.space.normalise(params), noise).float()
        mean, scatter = self.strength(x)
        r = mean + scatter * self.copula.marginal(y, params)
        transfer = beam(self.grid.resized(latent.shape[2:]), self.widening).to(latent)
        window, undone = self.mirror.window(shape).to(latent), undoing(transfer)
        for _ in range(self.hold):
            reached = filtered(self.composition.joined(coarse, unit, r), transfer)
            r = r + filtered(window * self.composition.step(coarse, reached, unit), undone)
        return self.mirror.cut(self.composition.joined(coarse, unit, r), shape)

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Each generator other small scales.

        Raises:
            InputError: without coarse fields, or with those of another shape.
        """
        cells = self.grid.shape if shape is None else tuple(shape)
        return self._made(self.draw_latent(params, generators, coarse, cells), params, cells, learned=True)

    def closed_form(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Maps without what was learned; each map's small scales are drawn by its own large ones."""
        shape = coarse.shape[2:]
        latent = self.draw_latent(params, own_generators(coarse, "closed form"), coarse, shape)
        return self._made(latent, params, shape, learned=False)

    def practice(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Maps with Gaussian small scales of a power law, as they are simulated today."""
        del params
        wide = self.mirror.extended(coarse)
        white = normal(own_generators(coarse, "practice"), wide.shape[1:]).to(wide)
        return self.mirror.cut(self.power_law(wide, white), coarse.shape[2:])

    def make_critic(self) -> nn.Module:
        """A fresh critic of small scales, beside the large ones if ``paired``."""
        a = self.arguments
        spectra = self.gap.summaries if a["critic_spectrum"] else None
        extra = 0 if spectra is None else 2 * spectra.n_power
        padding = "circular" if self.grid.periodic else "zeros"
        critic = Critic(
            self.grid.shape, len(self.space), 2 if self.paired else 1, a["critic_channels"],
            a["critic_kernel"], "none", padding, extra, hidden=64 if extra else 0,
        )  # fmt: skip
        return SmallScaleCritic(self, critic, spectra)

    def regularisation(self, w_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The weighted gap between the summaries of made and real fields."""
        if not self.summary_weight:
            return {}
        with torch.no_grad():
            started = self._made(latent, params, self.grid.shape, learned=False)
        coarse = self.mirror.cut(latent[:, 1:2], w_fake.shape[2:])
        unit = latent[(slice(None), slice(3, 4), *(slice(0, 1),) * self.grid.dim)]
        made, closed = (
            self._views(m, coarse, unit, params) for m in (self.to_physical(w_fake, params), started)
        )
        return {"summaries": self.summary_weight * self.gap(made, closed, params)}
