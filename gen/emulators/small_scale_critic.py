"""What a critic sees of a map's small scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen.nets.dcgan import Critic
from gen.nets.polarised_summaries import PolarisedSummaries
from gen.nets.summaries import Summaries

if TYPE_CHECKING:
    from gen.emulators.wide_beam import FromWideBeam


class SmallScaleCritic(nn.Module):
    """A critic of the scores of small scales, beside what is seen of the large ones if they are a pair."""

    def __init__(
        self, emulator: FromWideBeam, critic: Critic, spectra: Summaries | PolarisedSummaries | None
    ) -> None:
        super().__init__()
        self.critic = critic
        # Fitted parts of the emulator, not trained here: kept out of the critic's own state.
        self.fitted = (emulator, spectra)

    def forward(self, w: Tensor, params: Tensor, coarse: Tensor) -> Tensor:
        """Scores ``(B,)`` of working-space maps ``(B, C, *shape)`` whose large scales are ``coarse``."""
        emulator, spectra = self.fitted
        unit = emulator.unit_of(coarse)
        values = emulator.to_physical(w, params)
        y = emulator.scores(values, coarse, unit, params)
        views = torch.cat([y, emulator.seen(coarse, unit)], 1) if emulator.paired else y
        extra = None if spectra is None else spectra.spectra(y, values / unit)
        return self.critic(views, emulator.space.normalise(params), extra)
