"""Pairs of patches at a fine and at a coarse beam, from pictures of the sky."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.data.assemble import check_fields
from gen.data.base import SimulationSet
from gen.data.planes import data_folder
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.simulate.beam import between, binned, smoothed

CONVENTIONS = ("COSMO", "IAU")
BORDER = 1.5
"""What is cut off a picture that is not periodic, over the coarse beam: 3.5 of its standard deviations."""


def at_beams(
    maps: Tensor, pixel: float, own: float, fine: float, coarse: float, border: int = 0
) -> tuple[Tensor, Tensor]:
    """Maps ``(C, n, n)`` of their own beam at two wider ones; periodic, or mirrored and a border cut off.

    Args:
        pixel, own, fine, coarse: side of a pixel and full widths at half maximum, in one unit.
        border: pixels that an open picture is mirrored by at its edges, and then loses there.
    """
    n = maps.shape[-1]
    if border >= n // 2:
        raise InputError(
            f"a picture of {n} pixels is too small to lose {border} at each edge, {BORDER:g} coarse beams; "
            "use a narrower coarse beam"
        )
    open_maps = torch.nn.functional.pad(maps[None], (border,) * 4, mode="reflect")[0] if border else maps
    seen = (smoothed(open_maps.double(), pixel, between(own, beam)).float() for beam in (fine, coarse))
    fine_map, coarse_map = (x[..., 2 * border : n, 2 * border : n] if border else x for x in seen)
    return fine_map, coarse_map


def pairs(
    both: Tensor,
    simulation: np.ndarray,
    split: np.ndarray,
    size: float,
    coarse_factor: int,
    name: str,
    unit: str,
) -> SimulationSet:
    """A set of patches ``(m, 2 C, n, n)`` whose first half of channels is fine and whose second is coarse."""
    fine, coarse = (x.contiguous() for x in both.chunk(2, 1))
    n = fine.shape[-1]
    m = n // coarse_factor
    data = SimulationSet(
        Grid((n, n), size, "deg", periodic=False),
        ParameterSpace((), (), ()),
        fine,
        torch.zeros(len(fine), 0),
        torch.from_numpy(simulation.astype(np.int64)),
        split,
        np.full(len(fine), "interior", dtype="<U13"),
        name,
        unit,
        binned(coarse, coarse_factor),
        Grid((m, m), size, "deg", periodic=False),
        spin_channels=polarised(fine.shape[1]),
    ).check()
    check_fields(data)
    return data


def polarised(channels: int) -> tuple[tuple[int, int], ...]:
    """Which channels are Q and U, of I, of Q and U, or of I, Q and U."""
    return {2: ((0, 1),), 3: ((1, 2),)}.get(channels, ())


def check_pairs(patch: int, fine: float, coarse: float, factor: int, own: float) -> None:
    """Refuse beams and sizes that make no pair.

    Args:
        own: beam of the data [arcmin].

    Raises:
        InputError: for them.
    """
    if not own <= fine < coarse:
        raise InputError(
            f"beams must be at least the data's own {own:g} arcmin, the fine one narrower than the coarse, "
            f"got {fine:g} and {coarse:g}"
        )
    if patch < 2 or factor < 1 or patch % factor or patch // factor < 2:
        raise InputError(
            f"coarse_factor must divide the patch into 2 pixels or more, got {factor} for {patch} pixels"
        )


def foregrounds_folder(folder: str | Path | None) -> Path:
    """The folder given, or that of the data beside the repository."""
    return data_folder() / "foregrounds" if folder is None else Path(folder).expanduser()


def existing_map(path: Path) -> None:
    """Refuse a map that is not there.

    Raises:
        InputError: for it.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give folder, or set COSMOZOO_DATA to the folder that holds foregrounds/"
        )
