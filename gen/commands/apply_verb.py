"""The verb ``cosmozoo apply``: its options, and its start, without what is slow to load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def apply_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a folder of checkpoints")
    parser.add_argument(
        "--coarse",
        type=Path,
        metavar="FILE",
        help="coarse fields, .h5, .zarr, .npz, .fits or .npy; or a sky, HEALPix .fits",
    )
    parser.add_argument("--shape", help="cells along each axis, for emulators without coarse fields")
    parser.add_argument("--params", help="as for sample; default: those in the file of coarse fields")
    parser.add_argument("--chunk", type=int, default=64, help="cells a side of a chunk; default: 64")
    parser.add_argument(
        "--seed", type=int, default=0, help="field i is a function of the seed and i; default: 0"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="file, .h5, .zarr or .npy; .fits of a sky"
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="at a time, a piece each; default: one a core"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler; its machines must share these folders"
    )
    parser.add_argument(
        "--extrapolate", action="store_true", help="allow parameters outside the trained range"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def apply(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.data.sky_map import is_sky

    if options.coarse is not None and is_sky(options.coarse):
        from gen.commands.apply_sky import apply_sky

        return apply_sky(options)
    from gen.commands.apply import apply

    return apply(options)
