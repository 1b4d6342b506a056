"""The verb ``cosmozoo posterior``: its options, and its start, without what is slow to load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

POSTERIOR_EXAMPLES = """\
Fill in and clean a map of which a mask tells what was seen, and judge it by the truth:
  cosmozoo posterior runs/diffusion/checkpoint --observed map.npy --mask seen.npy --noise 0.01 \\
      --params Omega_m=0.3,sigma_8=0.8 -n 32 --truth truth.npy -o fitting.h5
Make a map four times as fine along each side:
  cosmozoo posterior runs/diffusion/checkpoint --observed coarse.h5 --mean_of 4 --noise 0.001 -o fine.h5

Beside fitting.h5 with the samples come fitting_mean.h5, fitting_std.h5 and the picture fitting.png."""


def posterior_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a folder of checkpoints, of a diffusion emulator")
    parser.add_argument(
        "--observed", type=Path, required=True, metavar="FILE",
        help="the field as seen, .npy, .h5, .npz, .zarr or .fits; cells not seen may be NaN",
    )  # fmt: skip
    parser.add_argument(
        "--noise", required=True, metavar="X",
        help="standard deviation in each observed cell, in the field's unit: a number, or a file of them",
    )  # fmt: skip
    parser.add_argument("--mask", type=Path, metavar="FILE", help="1 where a cell was seen, 0 elsewhere")
    parser.add_argument(
        "--smooth", type=float, default=0.0, metavar="FWHM",
        help="of the Gaussian beam that the field was seen with [arcmin on the sky, else unit of the grid]",
    )  # fmt: skip
    parser.add_argument(
        "--mean_of", "--mean-of", type=int, default=1, metavar="N",
        help="an observed cell is the mean of N cells along each side: super-resolution; default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="the field itself, if known, to compare with"
    )
    parser.add_argument(
        "--row", type=int, metavar="I", help="which field to take of files that hold several, from 0"
    )
    parser.add_argument("--params", help="as for sample; default: those in the file of the observed field")
    parser.add_argument("-n", type=int, default=16, help="samples, 2 or more; default: 16")
    parser.add_argument(
        "--seed", type=int, default=0, help="sample i is a function of the seed and i; default: 0"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=64,
        help="of conjugate gradients at each level, at most; default: 64",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="file, .h5, .npy, .npz, .fits or .zarr")
    parser.add_argument(
        "--extrapolate", action="store_true", help="allow parameters outside the trained range"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace the files if they exist")


def posterior(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.posterior import posterior

    return posterior(options)
