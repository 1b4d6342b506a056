"""``cosmozoo apply`` to a whole sky: small scales for a HEALPix map, patch by patch, and no seams.

Patches overlap, and each is emulated from what the sky holds there. Were their noise independent, weighted
means would lose up to half of the small scales' variance where two patches meet (w_1^2 + w_2^2 < 1), and
weights of unit squares would keep it but make the sky more Gaussian there, and no longer positive. So there
is **one noise on the sphere** (``gen.data.sky_noise``): each patch's noise is white, its own law is
untouched, but neighbours share it place by place and make nearly the same small scales. What they still
differ by (an emulator listens to a patch's mean and to its edges) is measured where they overlap, and only
the variance that it costs is given back to the small scales (``gen.data.sky_blend``). Large scales are those
of the coarse sky in every patch, and so in their weighted means.

A patch is the checkpoint's grid. Its edge, where the emulator continues the sky as in a mirror and does not
hold large scales, is cut off after use. Patches that are done lie in a folder beside the output until all
are; the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import gen
from evaluation.spread import spread, workers
from gen.checkpoint import load
from gen.commands.apply import begin, loaded
from gen.data.sky_blend import Blend
from gen.data.sky_frames import TangentPlane, cover
from gen.data.sky_gaps import filled, seeing
from gen.data.sky_map import SkyMap, read_sky, write_sky
from gen.data.sky_noise import SkyNoise
from gen.data.sky_patches import cut
from gen.emulators.base import Emulator
from gen.emulators.beams import beam, filtered
from gen.emulators.mirror import REACH
from gen.emulators.wide_beam import FromWideBeam
from gen.errors import InputError
from gen.fields import beam_sigma
from gen.io.atomic import replacing
from gen.sampling import checked_device, describe_sampling, parse_params

KNOWN = 0.05
"""What the wide beam leaves of a wave, at which a quarter of it counts as told."""


def apply_sky(options: argparse.Namespace) -> int:
    if options.shape is not None:
        raise InputError("--shape is for emulators without coarse fields; a sky is made at its own nside")
    if options.processes is not None and options.processes < 1:
        raise InputError(f"--processes must be at least 1, got {options.processes}")
    with workers(options.processes or os.cpu_count() or 1, options.scheduler) as executor:
        made = apply_to_sky(
            options.checkpoint,
            options.coarse,
            options.params,
            options.out,
            seed=options.seed,
            extrapolate=options.extrapolate,
            device=options.device,
            overwrite=options.overwrite,
            executor=executor,
        )
    used = len(made.values)
    of = f", of the first {used} of {made.columns} columns" if made.columns > used else ""
    print(f"a sky of nside {made.nside} in {options.out}{of}")
    return 0


@dataclass(frozen=True)
class Layout:
    """How patches lie: ``planes`` are what is kept of each, ``border`` pixels more are made at every edge.

    ``margin``: cells beyond a patch on which the emulator works too; ``width``: of the Gaussian by which
    unseen pixels are filled.
    """

    planes: tuple[TangentPlane, ...]
    border: int
    margin: int
    width: float


def layout(emulator: FromWideBeam, sky: SkyMap) -> Layout:
    """Patches of the emulator's grid that cover what is seen of a sky.

    Raises:
        InputError: for an emulator of no square patch of the sky, and pixels larger than its fine beam.
    """
    grid, fine = emulator.grid, float(emulator.arguments["fine_beam"])
    if grid.dim != 2 or len(set(grid.shape)) != 1 or len(set(grid.box_size)) != 1 or grid.periodic:
        raise InputError(
            f"a sky needs an emulator of square patches that are not periodic, this one is of {grid}; train "
            "one on patches, such as those of recipes/data/foreground_2d.yaml"
        )
    if not grid.angular:
        raise InputError(f"a sky needs an emulator of patches in degrees, this one's are in {grid.unit}")
    if sky.pixel > fine:
        least = 2 ** math.ceil(math.log2(sky.pixel * sky.nside / fine))
        raise InputError(
            f"nside {sky.nside} has pixels of {sky.pixel:.3g} arcmin, larger than the fine beam of {fine:g}, "
            f"and cannot hold the small scales; give the coarse sky at nside {least} or more"
        )
    n, cell = grid.shape[0], grid.k_sides[0] / grid.shape[0]
    sigma = beam_sigma(grid, emulator.widening) / cell
    border = math.ceil(REACH * sigma)
    inner = n - 2 * border
    if inner < 8:
        raise InputError(
            f"patches of {n} pixels lose {border} at each edge to the coarse beam, and nothing is left; use "
            "an emulator of larger patches"
        )
    planes = cover(inner, math.degrees(cell) * inner)
    return Layout(tuple(seeing(planes, sky.seen, sky.ordering)), border, emulator.mirror.margin, sigma)


def apply_to_sky(
    checkpoint: Path,
    coarse: Path,
    params: str | None,
    out: Path,
    *,
    seed: int = 0,
    extrapolate: bool = False,
    device: str = "cpu",
    overwrite: bool = False,
    executor: Executor | None = None,
) -> SkyMap:
    """The sky at the emulator's fine beam, of one at its coarse beam, written as a HEALPix FITS file.

    nside, ordering, coordinates, unit and unseen pixels are those of the coarse sky. Memory is that of three
    skies (coarse, made, weights) and of one batch of patches a process.

    Args:
        coarse: HEALPix FITS file of I, or I, Q, U; the emulator decides how many are read.
        params: one row, as for ``cosmozoo sample``.
        seed: of the sphere's noise.

    Raises:
        InputError: for a checkpoint that makes no small scales of patches of the sky, a coarse sky that is
            damaged, says too little or is too coarse, several rows of parameters, and as ``sample_to_file``.
    """
    if not out.name.lower().endswith(".fits"):
        raise InputError(f"a sky is written as HEALPix FITS, so -o must end in .fits, got {out.name!r}")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; give --overwrite to replace it, or another name")
    checked_device(device)
    emulator = _small(load(checkpoint), checkpoint)
    table = _one_row(emulator, params, extrapolate=extrapolate)
    sky = read_sky(coarse, emulator.n_channels)
    plan = layout(emulator, sky)
    scratch = out.resolve().with_name(f".{out.name}.patches")
    told = describe_sampling(emulator, checkpoint, table, 1, seed) | {
        "seeds": "the noise at a place of the sky is a function of the seed and the place",
        "params": dict(zip(emulator.space.names, table[0].tolist(), strict=True)),
        "beam_arcmin": emulator.arguments["fine_beam"],
        "coarse_beam_arcmin": emulator.arguments["coarse_beam"],
        "coarse": coarse.name,
        "device": device,
    }
    stamp = [str(coarse.resolve()), coarse.stat().st_size, coarse.stat().st_mtime_ns]
    begin(scratch, {**told, "stamp": stamp, "patches": len(plan.planes)})
    try:
        _emulate(emulator, checkpoint.resolve(), told, sky, plan, table, scratch, executor)
    except InputError:
        shutil.rmtree(scratch)
        raise
    made = replace(sky, values=_joined(emulator, sky, plan, scratch))
    write_sky(out, made, _cards(told, emulator), told, overwrite=overwrite)
    shutil.rmtree(scratch)
    return made


def _small(emulator: Emulator, checkpoint: Path) -> FromWideBeam:
    if not isinstance(emulator, FromWideBeam):
        raise InputError(
            f"{checkpoint} is a {type(emulator).__name__}, which makes no small scales of a sky; give a "
            "checkpoint of SmallScales or PolarisedSmallScales"
        )
    return emulator


def _one_row(emulator: Emulator, params: str | None, *, extrapolate: bool) -> Tensor:
    table = parse_params(params, emulator.space)
    if len(table) != 1:
        raise InputError(f"a sky takes one row of --params, got {len(table)}; make one sky of each row")
    emulator.space.check(table, extrapolate=extrapolate)
    return table


def _batches(emulator: FromWideBeam, plan: Layout) -> list[tuple[TangentPlane, ...]]:
    size = emulator.micro_batch
    return [plan.planes[i : i + size] for i in range(0, len(plan.planes), size)]


def _emulate(
    emulator: FromWideBeam,
    checkpoint: Path,
    told: dict[str, Any],
    sky: SkyMap,
    plan: Layout,
    table: Tensor,
    scratch: Path,
    executor: Executor | None,
) -> None:
    """Lay every batch of patches that is missing under its name in the folder."""
    coarse = scratch / "coarse.npy"
    if not coarse.exists():
        with replacing(coarse) as staged:
            np.save(staged, sky.values)
    missing = [
        (number, planes)
        for number, planes in enumerate(_batches(emulator, plan))
        if not (scratch / f"{number}.npy").exists()
    ]

    def tasks() -> Iterator[tuple[object, ...]]:
        for number, planes in missing:
            yield (
                checkpoint, told["checkpoint_sha256"], told["device"], coarse, sky.ordering,
                replace(plan, planes=planes), told["seed"], table.tolist(), scratch / f"{number}.npy",
            )  # fmt: skip

    spread(_made, tasks(), executor, "patches", [len(planes) for _, planes in missing])


@torch.no_grad()
def _made(
    checkpoint: Path,
    sha256: str,
    device: str,
    coarse: Path,
    ordering: str,
    batch: Layout,
    seed: int,
    params: list[list[float]],
    out: Path,
) -> None:
    """Cut a batch of patches, emulate it, and lay what is kept of it under its name."""
    emulator = _small(loaded(checkpoint, sha256, device), checkpoint)
    if not coarse.is_file():
        raise InputError(f"a worker does not see {coarse}; all machines must share the folder of the output")
    sky = np.load(coarse, mmap_mode="r", allow_pickle=False)
    wide = [plane.widened(batch.border) for plane in batch.planes]
    patches = np.stack([filled(cut(sky, ordering, plane), batch.width) for plane in wide])
    noise = [SkyNoise(plane, batch.margin, seed) for plane in wide]
    table = torch.tensor(params, device=device).expand(len(wide), -1)
    made = emulator.generate(table, noise, torch.from_numpy(patches).float().to(device))
    both = torch.stack([made, small_scales(emulator, made)])
    kept = slice(batch.border, made.shape[-1] - batch.border)
    with replacing(out, overwrite=True) as staged:
        np.save(staged, both[..., kept, kept].float().cpu().numpy())


def small_scales(emulator: FromWideBeam, maps: Tensor) -> Tensor:
    """Of maps ``(B, C, n, n)``, what the wide beam does not tell, those that it takes below some 8 %."""
    wide = emulator.mirror.extended(maps)
    transfer = beam(emulator.grid.resized(wide.shape[2:]), emulator.widening).to(wide)
    known = (transfer**2 / (transfer**2 + KNOWN**2)) ** 2
    return maps - emulator.mirror.cut(filtered(wide, known), maps.shape[2:])


def _joined(emulator: FromWideBeam, sky: SkyMap, plan: Layout, scratch: Path) -> np.ndarray:
    """The sky of all patches; NaN where the coarse one is not seen."""
    blend = Blend(sky.nside, sky.ordering, len(sky.values), sky.seen)
    with tqdm(total=len(plan.planes), desc="sky", unit="patch", disable=None) as bar:
        for number, planes in enumerate(_batches(emulator, plan)):
            made, small = np.load(scratch / f"{number}.npy", allow_pickle=False)
            for plane, whole, rest in zip(planes, made, small, strict=True):
                blend.add_scales(whole, rest, plane)
                bar.update()
    made = blend.map()
    made[:, ~sky.seen] = np.nan
    return made


def _cards(told: dict[str, Any], emulator: FromWideBeam) -> dict[str, Any]:
    """Header keywords."""
    cards: dict[str, Any] = {
        "FWHM": (float(told["beam_arcmin"]), "beam, full width at half maximum [arcmin]"),
        "SEED": (told["seed"], "of the noise on the sphere"),
        "CHECKPT": (told["checkpoint"], "that made the small scales"),
        "SHA256": told["checkpoint_sha256"],
        "CREATOR": f"cosmozoo {gen.__version__}",
    }
    for i, name in enumerate(emulator.space.names, 1):
        cards[f"PARAM{i}"] = f"{name}={told['params'][name]:.9g}"
    return cards
