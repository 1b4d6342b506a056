"""The networks of diffusion emulators, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gen.errors import InputError
from gen.fields import Grid
from gen.nets.transformer import Transformer
from gen.nets.unet import UNet

UNET, TRANSFORMER = ("widths", "patch"), ("width", "depth", "heads", "patch")
"""Arguments of each kind of network."""


def network_arguments(denoiser: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the network that is used.

    A U-Net goes without its name, and without patches of single cells, as checkpoints always had it.
    """
    if denoiser == "unet":
        return {name: given[name] for name in UNET if (name, given[name]) != ("patch", 1)}
    return {"denoiser": denoiser, **{name: given[name] for name in TRANSFORMER}}


def network(
    grid: Grid, n_in: int, n_out: int, n_params: int, denoiser: str, given: Mapping[str, Any]
) -> UNet | Transformer:
    """From ``n_in`` to ``n_out`` channels, zero at the start.

    Raises:
        InputError: for another denoiser.
    """
    padding = "circular" if grid.periodic else "zeros"
    if denoiser == "unet":
        patch = given.get("patch", 1)
        return UNet(grid.dim, n_in, n_out, n_params, given["widths"], padding, patch=patch)
    if denoiser == "transformer":
        own = {name: given[name] for name in TRANSFORMER}
        return Transformer(grid.dim, n_in, n_out, n_params, **own, padding=padding)
    raise InputError(f"a denoiser is 'unet' or 'transformer', got {denoiser!r}")
