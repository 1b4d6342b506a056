"""``cosmozoo report``: the one place that sees both the emulators and the evaluation."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import gen
from evaluation.base import LARGEST_IN_MEMORY
from evaluation.report import report as judge
from evaluation.report import restricted
from evaluation.spread import workers
from gen.checkpoint import load, record_report
from gen.checkpoint_folder import read_config
from gen.commands.correction import check_correction
from gen.commands.painted import painting
from gen.commands.pairs import check_pairs, is_paired, paired
from gen.commands.recipe_data import fields_of
from gen.commands.sampler import sampler_biases
from gen.commands.simulate import simulated
from gen.data.base import SimulationSet
from gen.errors import InputError
from gen.fields import Fields, Grid
from gen.io import FieldFile, open_fields, write_fields
from gen.sampling import describe_sampling
from gen.simulate.recipe import read_recipe
from gen.simulate.run import is_simulated, load_simulations

DEFAULT_DATA = Path("recipes/data/convergence_2d_demo.yaml")
BASELINE = "gen.emulators.copula.Copula"


def report(options: argparse.Namespace) -> int:
    if not options.checkpoints and not options.samples:
        raise InputError("a report needs checkpoints, or files of samples given by --samples; got none")
    if options.correct is not None:
        check_correction(options.checkpoints, options.correct)
    field_to_field = is_paired(options.checkpoints)
    if field_to_field and options.data is None:
        check_pairs(None)
    reference, training, data, test = _reference(options)
    pairs = None
    if field_to_field:
        pairs = paired(options.checkpoints, test, options.seed, options.correct)
    folders = [] if pairs else _with_baseline(options.checkpoints, options.baseline, reference)
    files = {_name(path): path for path in options.samples}
    names = [_name(folder) for folder in folders] + list(files)
    if len(set(names)) != len(names) or len(files) != len(options.samples):
        raise InputError(f"sets of samples must have different names, got {', '.join(names)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".samples-", dir=options.out) as scratch,
        workers(options.processes or os.cpu_count() or 1, options.scheduler) as executor,
    ):
        samples = {_name(f): _sampled(f, reference, options.seed, Path(scratch)) for f in folders}
        over = _over_parameters(options, folders, Path(scratch))
        samples |= {name: open_fields(path) for name, path in files.items()}
        painted = _painted(options, reference) if not pairs else {}
        samples |= painted
        baseline = _baseline_name(folders, options.baseline, samples)
        if pairs:
            samples, reference, baseline = pairs.samples | samples, pairs.reference, pairs.baseline
        document = judge(
            samples,
            reference,
            project_file(options.thresholds),
            options.out,
            baseline=baseline,
            seed=options.seed,
            training=training if folders else None,
            paired=pairs.pairing if pairs else None,
            over_parameters=over,
            samplers=sampler_biases(
                {_name(f): f for f in folders}, reference if training is None else training
            ),
            executor=executor,
            provenance={
                "version": gen.__version__,
                "data": data,
                "checkpoints": _provenance(folders or options.checkpoints),
                **_range(folders or options.checkpoints),
            },
        )
    if options.record:
        own = {_name(folder): _own_sets(folder, samples) for folder in options.checkpoints}
        kept = set(samples).difference(*own.values()) if pairs else {baseline, *painted} - {None}
        for folder in options.checkpoints:
            record_report(folder, restricted(document, [*own[_name(folder)], *kept]))
    _say(document)
    print(f"the report is {options.out / 'index.html'}")
    return 0


def _own_sets(folder: Path, names: Iterable[str]) -> list[str]:
    """What was made by an emulator, alone or with something more, which its name is followed by."""
    own = _name(folder)
    return [name for name in names if name == own or name.startswith(f"{own} ")]


def project_file(path: Path) -> Path:
    """A path as given, or else as it lies in the project's own folder."""
    own = Path(gen.__file__).resolve().parents[1] / path
    return own if not path.exists() and own.exists() else path


def _name(path: Path) -> str:
    return path.stem if path.is_file() else path.resolve().name


def _reference(
    options: argparse.Namespace,
) -> tuple[FieldFile, FieldFile | None, dict[str, Any], SimulationSet | None]:
    """Real fields that no emulator was trained on, those that were, if at hand, where they are from, and
    the former as simulations."""
    if options.reference is not None:
        if options.data is not None:
            raise InputError("give either --reference or --data, got both")
        return open_fields(options.reference), None, {"file": str(options.reference)}, None
    if options.data is None and not options.checkpoints:
        raise InputError("files of samples are judged against --reference FILE or --data RECIPE; got neither")
    recipe = project_file(options.data or DEFAULT_DATA)
    if (fields := fields_of(recipe)) is not None:
        data = fields.simulations
        folder, train = None, data.select(split="train")
    else:
        folder = simulated(recipe, options.processes, options.cache, splits=("test",))
        data = load_simulations(folder, splits=("test",))
        known = is_simulated(folder, read_recipe(recipe), "train")
        train = load_simulations(folder, splits=("train",)) if known else None
    test = data.select(split="test")
    if not len(test):
        raise InputError(
            f"{recipe} holds no test simulations; a report needs fields that were never trained on"
        )
    return (
        _as_file(test),
        _as_file(train) if train is not None and len(train) else None,
        {
            "recipe": str(recipe),
            "set": data.name,
            "cache": None if folder is None else folder.name,
        },
        test,
    )


def _painted(options: argparse.Namespace, reference: FieldFile) -> dict[str, FieldFile]:
    """HI boxes without a network, beside samples of HI, unless no baseline is wanted."""
    if options.data is None or options.baseline == "none":
        return {}
    return painting(project_file(options.data), reference, options.seed)


def _over_parameters(
    options: argparse.Namespace, folders: Sequence[Path], scratch: Path
) -> tuple[dict[str, FieldFile], FieldFile] | None:
    """Samples and held-out simulations at the many cosmologies of --across, if it is given."""
    if options.across is None:
        return None
    if options.samples or not folders:
        raise InputError(
            "--across samples emulators at other parameters, so it takes checkpoints of random fields only; "
            "leave out --samples, or give a --reference that covers the parameter space"
        )
    recipe = project_file(options.across)
    folder = simulated(recipe, options.processes, options.cache, splits=("test",))
    test = load_simulations(folder, splits=("test",))
    if not len(test):
        raise InputError(f"{recipe} holds no test simulations; --across needs some at many cosmologies")
    reference = _as_file(test)
    scratch = scratch / "across"
    scratch.mkdir()
    return {_name(f): _sampled(f, reference, options.seed, scratch) for f in folders}, reference


def _as_file(data: SimulationSet) -> FieldFile:
    attributes = {"field": data.name, "units": data.unit, "split": str(data.split[0])}
    return FieldFile(
        data.values,
        data.params.double(),
        data.simulation.numpy(),
        np.asarray(data.region),
        data.grid,
        data.space,
        attributes,
    )


def _sampled(folder: Path, reference: FieldFile, seed: int, scratch: Path) -> FieldFile:
    """As many fields as the reference has, at the same parameters; very many lie in a file of ``scratch``."""
    emulator = load(folder)
    if emulator.space.names != reference.space.names:
        raise InputError(
            f"{folder} depends on {', '.join(emulator.space.names) or 'no parameters'}, the reference on "
            f"{', '.join(reference.space.names) or 'none'}; give the data it was made for by --data"
        )
    shape = _shape(emulator.grid, reference.grid, folder)
    n = len(reference.values)
    attributes = describe_sampling(emulator, folder, reference.params, 1, seed)
    with tqdm(total=n, unit=" fields", desc=folder.name, disable=None) as bar:
        parts = _counted(emulator.stream(reference.params, 1, seed, extrapolate=True, shape=shape), bar)
        if 4 * n * reference.grid.n_cells > LARGEST_IN_MEMORY:
            path = scratch / f"{_name(folder)}.h5"
            write_fields(path, parts, n, reference.grid, emulator.space, attributes)
            return open_fields(path)
        values = torch.cat([part.values for part in parts])
    return FieldFile(values, reference.params, None, None, reference.grid, emulator.space, attributes)


def _counted(parts: Iterator[Fields], bar: tqdm) -> Iterator[Fields]:
    for part in parts:
        yield part
        bar.update(len(part.values))


def _shape(own: Grid, wanted: Grid, folder: Path) -> tuple[int, ...] | None:
    """Which number of cells to ask for so that the emulator's grid becomes the reference's."""
    if own == wanted:
        return None
    if own.dim == wanted.dim and own.periodic == wanted.periodic and own.unit == wanted.unit:
        resized = own.resized(wanted.shape)
        if np.allclose(resized.box_size, wanted.box_size, rtol=1e-9):
            return wanted.shape
    raise InputError(
        f"{folder} makes fields on {own}, the reference is on {wanted}; "
        "give the data it was made for by --data"
    )


def _with_baseline(folders: Sequence[Path], baseline: str | None, reference: FieldFile) -> list[Path]:
    """The checkpoints and, if there is one, the analytic baseline for the same field and parameters."""
    folders = list(folders)
    if baseline == "none" or not folders:
        return folders
    if baseline is not None:
        told = Path(baseline) if Path(baseline).is_dir() else folders[0].parent / baseline
        read_config(told)
        return folders if told.resolve() in {f.resolve() for f in folders} else [*folders, told]
    configs = {f: read_config(f) for f in folders}
    if any(config["class"] == BASELINE for config in configs.values()):
        return folders
    wanted = configs[folders[0]]["init"]
    for sibling in sorted(folders[0].resolve().parent.iterdir()):
        if (sibling / "config.json").is_file() and sibling.resolve() not in {f.resolve() for f in folders}:
            config = read_config(sibling)
            same = all(config["init"].get(key) == wanted.get(key) for key in ("grid", "space", "field"))
            if config["class"] == BASELINE and same:
                return [*folders, sibling]
    return folders


def _baseline_name(
    folders: Sequence[Path], baseline: str | None, samples: Mapping[str, FieldFile]
) -> str | None:
    if baseline == "none":
        return None
    if baseline is not None:
        return baseline if baseline in samples else _name(Path(baseline))
    found = [f for f in folders if read_config(f)["class"] == BASELINE]
    return _name(found[0]) if found else None


def _provenance(folders: Sequence[Path]) -> dict[str, Any]:
    told = ("version", "class", "sha256", "n_parameters", "provenance")
    return {_name(f): {key: value for key, value in read_config(f).items() if key in told} for f in folders}


def _range(folders: Sequence[Path]) -> dict[str, Any]:
    if not folders:
        return {}
    config = read_config(folders[0])
    space, points = config["init"]["space"], config["provenance"].get("training_params")
    return {"training_range": {"low": space["low"], "high": space["high"]}, "training_params": points}


def _say(document: Mapping[str, Any]) -> None:
    """The headline on the terminal."""
    for row in document["headline"]:
        excess = ", ".join(
            f"{name} {'none' if e['mean'] is None else format(e['mean'], '.2g')}"
            for name, e in row["excess"].items()
        )
        error = f"power error up to {100 * row['power_error']:.1f} %"
        print(f"{row['region']}, {row['samples']}: {error}, excess {excess}")
