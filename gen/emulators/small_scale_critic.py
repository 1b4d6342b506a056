"""What a critic sees of a map's small scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen.nets.dcgan import Critic
from gen.nets.summaries import Summaries

if TYPE_CHECKING:
    from gen.emulators.small_scales import SmallScales


class SmallScaleCritic(nn.Module):
    """A critic of the scores of small scales, beside the contrast of the large ones if they are a pair."""

    def __init__(self, emulator: SmallScales, critic: Critic, spectra: Summaries | None) -> None:
        super().__init__()
        self.critic = critic
        # Fitted parts of the emulator, not trained here: kept out of the critic's own state.
        self.fitted = (emulator, spectra)

    def forward(self, w: Tensor, params: Tensor, coarse: Tensor) -> Tensor:
        """Scores ``(B,)`` of working-space maps ``(B, 1, *shape)`` whose large scales are ``coarse``."""
        emulator, spectra = self.fitted
        unit = emulator.composition.unit(coarse)
        values = emulator.to_physical(w, params)
        y = emulator.scores(values, coarse, unit, params)
        views = torch.cat([y, emulator.composition.contrast(coarse, unit)], 1) if emulator.paired else y
        extra = None if spectra is None else spectra.spectra(y, values / unit)
        return self.critic(views, emulator.space.normalise(params), extra)
