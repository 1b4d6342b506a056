"""What emulators of small scales share, which are given a map as a wide beam sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gen.emulators.base import Emulator
from gen.emulators.beams import beam, filtered
from gen.emulators.conditioning import check_coarse, own_generators
from gen.emulators.mirror import Mirror
from gen.emulators.small_scale_critic import SmallScaleCritic
from gen.errors import InputError
from gen.nets.dcgan import Critic

if TYPE_CHECKING:
    from gen.emulators.gap import SummaryGap

STRANGE = 0.3
"""Median difference, over the fluctuations, of fields under the wide beam from their coarse ones."""


class FromWideBeam(Emulator):
    """A map at a fine beam of the same map at a wide one, in a closed form and with what was learned.

    Latents carry all that a map is made of: Gaussian fields, the map at the wide beam, its unit, noise.
    """

    micro_batch = 8
    needs_coarse = True
    arguments: dict[str, Any]
    mirror: Mirror
    widening: float
    #: Wavenumber beyond which the fine beam leaves nothing to speak of.
    k_max: float
    gap: SummaryGap[Any]
    summary_weight: float

    paired: bool

    #: Of the map, and of the same at the wide beam.
    n_channels = 1
    #: Of what networks are given of the large scales.
    n_seen = 1

    @abstractmethod
    def unit_of(self, coarse: Tensor) -> Tensor:
        """A map's unit ``(B, 1, 1, ...)``, from its large scales."""

    @abstractmethod
    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """Fields in one unit, where fluctuations are of one size."""

    @abstractmethod
    def to_physical(self, w: Tensor, params: Tensor) -> Tensor:
        """The inverse of ``to_working``."""

    @abstractmethod
    def draw_latent(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """``(B, C, *worked)``; the coarse fields are its ``coarse_of``."""

    @abstractmethod
    def coarse_of(self, latent: Tensor, shape: Sequence[int]) -> Tensor:
        """The coarse fields of a latent."""

    @abstractmethod
    def made(self, latent: Tensor, params: Tensor, shape: Sequence[int], *, learned: bool) -> Tensor:
        """Maps in physical units, by the closed form alone or with what was learned."""

    @abstractmethod
    def practice(self, coarse: Tensor, params: Tensor) -> Tensor:
        """Maps with Gaussian small scales of a power law, as they are simulated today."""

    @abstractmethod
    def scores(self, values: Tensor, coarse: Tensor, unit: Tensor, params: Tensor) -> Tensor:
        """Normal scores of the small scales of maps, ``(B, C, *shape)``."""

    @abstractmethod
    def seen(self, coarse: Tensor, unit: Tensor) -> Tensor:
        """What networks are given of the large scales."""

    def views(self, values: Tensor, coarse: Tensor, unit: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of a map's small scales, and the map in its unit."""
        return self.scores(values, coarse, unit, params), values / unit

    def decode(self, latent: Tensor, params: Tensor) -> Tensor:
        """Fields in the working space ``(B, C, *grid.shape)``, differentiable in the weights."""
        return self.to_working(self.made(latent, params, self.grid.shape, learned=True), params)

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
        return self.made(self.draw_latent(params, generators, coarse, cells), params, cells, learned=True)

    def closed_form(self, coarse: Tensor, params: Tensor, stream: str = "closed form") -> Tensor:
        """Maps without what was learned; each map's small scales are drawn by its own large ones."""
        shape = coarse.shape[2:]
        latent = self.draw_latent(params, own_generators(coarse, stream), coarse, shape)
        return self.made(latent, params, shape, learned=False)

    def closed_forms(self, coarse: Tensor, params: Tensor, stream: str = "closed form") -> Tensor:
        """Those of many maps, some at a time; each stream draws others."""
        pairs = zip(coarse.split(32), params.split(32), strict=True)
        return torch.cat([self.closed_form(*pair, stream) for pair in pairs])

    def regularisation(self, w_fake: Tensor, latent: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The weighted gap between the summaries of made and real fields."""
        if not self.summary_weight:
            return {}
        shape = w_fake.shape[2:]
        with torch.no_grad():
            started = self.made(latent, params, shape, learned=False)
        coarse = self.coarse_of(latent, shape)
        unit = self.unit_of(coarse)
        made, closed = (
            self.views(m, coarse, unit, params) for m in (self.to_physical(w_fake, params), started)
        )
        return {"summaries": self.summary_weight * self.gap(made, closed, params)}

    @torch.no_grad()
    def fit_gap(self, values: Tensor, coarse: Tensor, params: Tensor) -> None:
        """Measure what the closed form, already fitted, lacks."""
        unit = self.unit_of(coarse)
        real = self.views(values, coarse, unit, params)
        if not self.summary_weight:
            self.gap.summaries.fit(*real)
            return
        started = self.closed_forms(coarse, params, "gap")
        self.gap.fit(real, self.views(started, coarse, unit, params), params)

    def make_critic(self) -> nn.Module:
        """A fresh critic of small scales, beside the large ones if ``paired``."""
        a = self.arguments
        spectra = self.gap.summaries if a["critic_spectrum"] else None
        extra = 0 if spectra is None else spectra.n_spectra
        critic = Critic(
            self.grid.shape, len(self.space), self.n_channels + (self.n_seen if self.paired else 0),
            a["critic_channels"], a["critic_kernel"], "none",
            "circular" if self.grid.periodic else "zeros", extra, hidden=64 if extra else 0,
        )  # fmt: skip
        return SmallScaleCritic(self, critic, spectra)

    def check(self, coarse: Tensor | None, shape: Sequence[int]) -> Tensor:
        what = f"field at a beam of {self.arguments['coarse_beam']:g}"
        return check_coarse(coarse, self.n_channels, shape, 1, what)

    def refuse_strangers(self, values: Tensor, coarse: Tensor) -> None:
        """Fields that the wide beam does not turn into their coarse ones, away from the edges.

        Raises:
            InputError: for them.
        """
        inner = (slice(None), slice(None), *(slice(n // 4, n - n // 4) for n in self.grid.shape))
        extended = self.mirror.extended(values)
        transfer = beam(self.grid.resized(extended.shape[2:]), self.widening).float()
        wide = self.mirror.cut(filtered(extended, transfer), values.shape[2:])
        aim = coarse[inner].flatten(1)
        spread = (aim - aim.mean(1, keepdim=True)).square().mean(1).sqrt()
        off = (wide[inner].flatten(1) - aim).square().mean(1).sqrt() / spread.clamp(min=1e-30)
        if not off.median() < STRANGE:
            raise InputError(
                f"a beam of {self.arguments['coarse_beam']:g} does not turn the fields into their coarse "
                f"ones: they differ by {off.median():.2f} of their fluctuations; give pairs of the same map, "
                "and the beams they were made with"
            )
