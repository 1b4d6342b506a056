"""The command line: ``cosmozoo VERB``, a thin layer over ``gen.commands``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gen import __version__
from gen.commands.apply_verb import apply, apply_options
from gen.commands.posterior_verb import POSTERIOR_EXAMPLES, posterior, posterior_options
from gen.errors import InputError

DESCRIPTION = """\
Generative emulators of cosmological fields: simulate training data, train from a recipe, sample, and judge
the samples against simulations that were never trained on."""

EXAMPLES = """\
examples:
  cosmozoo simulate recipes/data/convergence_2d_demo.yaml
  cosmozoo train recipes/convergence_2d_wgan_gp.yaml --out runs/wgan_gp
  cosmozoo sample checkpoints/convergence_2d_wgan_gp --params Omega_m=0.3,sigma_8=0.8 -n 64 -o maps.h5
  cosmozoo apply checkpoints/displacement_3d --coarse zeldovich.h5 --chunk 64 -o displacements.h5
  cosmozoo apply runs/dust --coarse sky_80.fits --params slope=-3.1,lam=3,f_M=0.5 -o sky_12.fits
  cosmozoo posterior runs/diffusion/checkpoint --observed map.npy --noise 0.01 -o fitting.h5
  cosmozoo explore checkpoints/convergence_2d_wgan_gp -o latents.png
  cosmozoo report checkpoints/convergence_2d_wgan_gp -o report
  cosmozoo compare checkpoints/convergence_2d_wgan_gp checkpoints/convergence_2d_dcgan
  cosmozoo interrogate checkpoints/displacement_3d -o interrogation
  cosmozoo leaderboard
  cosmozoo list
  cosmozoo doctor

`cosmozoo VERB --help` tells more of each."""

TRAIN_EXAMPLES = """\
Keys of the recipe are overridden by flags of their names, dots leading into parts:
  cosmozoo train recipes/convergence_2d_wgan_gp.yaml --max_steps 2000 --data.batch_size=32 --loss.weight 5
`cosmozoo train RECIPE --keys` lists every key with its type and default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    The exit code is 0, 1 (doctor found something wrong), 2 (bad input) or 130 (interrupted).
    """
    try:
        options, flags = _parser().parse_known_args(argv)
        if flags and options.verb != "train":
            raise InputError(
                f"cosmozoo {options.verb} knows no {flags[0]!r}; see cosmozoo {options.verb} --help"
            )
        return options.run(options, flags)
    except InputError as error:
        print(f"cosmozoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cosmozoo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "cosmozoo", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=layout
    )
    parser.add_argument("--version", action="version", version=f"cosmozoo {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[..., int], text: str, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=epilog,
            formatter_class=layout,
            allow_abbrev=False,
        )
        made.set_defaults(run=run)
        return made

    _simulate_options(
        verb("simulate", _simulate, "run the simulations of a data recipe into the cache, resumable")
    )
    _train_options(verb("train", _train, "train an emulator from a recipe", TRAIN_EXAMPLES))
    _sample_options(verb("sample", _sample, "draw fields from a checkpoint into a file"))
    apply_options(verb("apply", apply, "apply a checkpoint to boxes of any size, in chunks, resumable"))
    text = "draw fields that fit an observed one, with their mean and scatter"
    posterior_options(verb("posterior", posterior, text, POSTERIOR_EXAMPLES))
    _explore_options(
        verb("explore", _explore, "draw a checkpoint's latent space on a sheet, with its numbers")
    )
    _report_options(verb("report", _report, "judge checkpoints or files of samples against simulations"))
    _report_options(verb("compare", _compare, "judge several checkpoints on one page, on the same axes"))
    _interrogate_options(
        verb("interrogate", _interrogate, "ask a map between fields questions with known answers")
    )
    board = verb("leaderboard", _leaderboard, "rank the checkpoints of a field by their recorded reports")
    board.add_argument(
        "folder", nargs="?", type=Path, default=Path("checkpoints"), help="default: checkpoints"
    )
    board.add_argument("--field", help="such as convergence; default: every field, a table each")
    board.add_argument("--readme", type=Path, metavar="FILE", help="write the table between its markers too")
    folder = verb("list", _list, "show the checkpoints of the zoo with their headline figures")
    folder.add_argument(
        "folder", nargs="?", type=Path, default=Path("checkpoints"), help="default: checkpoints"
    )
    verb("doctor", _doctor, "check the installation and say how to mend what is wrong")
    return parser


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, metavar="N", help="at a time; default: one a core")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="default: $COSMOZOO_CACHE or ~/.cache/cosmozoo"
    )


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a recipe of recipes/data")
    _data_options(parser)


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a recipe of recipes")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run; default: runs/<name of the recipe>"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest whole state in the folder"
    )
    parser.add_argument(
        "--dry_run", "--dry-run", action="store_true", help="build everything, print shapes, sizes and memory"
    )
    parser.add_argument("--keys", action="store_true", help="list the keys of a recipe and stop")


def _sample_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a folder of checkpoints")
    parser.add_argument("--params", help="Omega_m=0.3,sigma_8=0.8, or a CSV file with names in its first row")
    parser.add_argument("-n", type=int, default=1, help="fields for each row of parameters; default: 1")
    parser.add_argument(
        "--seed", type=int, default=0, help="field i is a function of the seed and i; default: 0"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="file, .h5, .npy, .npz, .fits or .zarr")
    parser.add_argument("--shape", help="cells along each axis, such as 128,128; default: the trained grid's")
    parser.add_argument(
        "--extrapolate", action="store_true", help="allow parameters outside the trained range"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def _explore_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a folder of checkpoints")
    parser.add_argument("--params", help="Omega_m=0.3,sigma_8=0.8; default: the middle of the trained range")
    parser.add_argument(
        "--seed", type=int, default=0, help="paths join the fields of sample with this seed; default: 0"
    )
    parser.add_argument("--pairs", type=int, default=4, help="paths that are drawn; default: 4")
    parser.add_argument("--steps", type=int, default=9, help="fields on a path, odd; default: 9")
    parser.add_argument("--paths", type=int, default=64, help="paths that are measured; default: 64")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="PNG", help="the numbers go to .json beside it"
    )
    parser.add_argument(
        "--extrapolate", action="store_true", help="allow parameters outside the trained range"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace the files if they exist")


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT", help="checkpoint folders")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report"), help="folder of the page; default: report"
    )
    parser.add_argument(
        "--data", type=Path, metavar="RECIPE", help="recipe of the reference; its test split is used"
    )
    parser.add_argument(
        "--samples", type=Path, nargs="+", default=[], metavar="FILE", help="files of samples"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="a file of real fields, in place of --data"
    )
    parser.add_argument(
        "--baseline", help="folder or name of the analytic baseline, or none; default: found beside"
    )
    parser.add_argument(
        "--thresholds", type=Path, default=Path("recipes/reports/standard.yaml"), metavar="YAML"
    )
    parser.add_argument(
        "--across", type=Path, metavar="RECIPE", help="also judge answers to parameters, by this data recipe"
    )
    parser.add_argument(
        "--correct", type=int, metavar="N", help="also follow displacements by N particle-mesh forces (COCA)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of samples and resamplings; default: 0")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler, to spread the work over its machines"
    )
    parser.add_argument("--record", action="store_true", help="put report.json into the checkpoints too")
    _data_options(parser)


def _interrogate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a folder of checkpoints")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the page")
    parser.add_argument(
        "--params", help="the middle universe, inside the trained range; default: Omega_m=0.3,sigma_8=0.8"
    )
    parser.add_argument(
        "--boxes", type=int, default=6, help="random boxes in each of nine universes; default: 6"
    )
    parser.add_argument(
        "--steps", type=int, default=12, help="of the particle mesh, as in training; default: 12"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the boxes; default: 0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")


def _simulate(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.simulate import simulate

    return simulate(options.recipe, options.processes, options.cache)


def _train(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.train import train

    return train(
        options.recipe, flags, options.out, resume=options.resume, dry_run=options.dry_run, keys=options.keys
    )


def _sample(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.sample import sample

    return sample(options)


def _explore(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.explore import explore

    return explore(options)


def _report(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.report import report

    return report(options)


def _compare(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.report import report

    if len(options.checkpoints) + len(options.samples) < 2:
        raise InputError(
            "compare needs two checkpoints or files of samples, or more; for one there is cosmozoo report"
        )
    return report(options)


def _interrogate(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.interrogate import interrogate

    return interrogate(options)


def _leaderboard(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.leaderboard import leaderboard

    return leaderboard(options.folder, options.field, options.readme)


def _list(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.zoo import show

    return show(options.folder)


def _doctor(options: argparse.Namespace, flags: Sequence[str]) -> int:
    from gen.commands.doctor import doctor

    return doctor()


if __name__ == "__main__":
    sys.exit(main())
