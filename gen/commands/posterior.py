"""``cosmozoo posterior``: fields that fit an observation, their mean and scatter, and a picture of them.

What the data tell of a wave more closely than the sampler's lowest level of noise (by default 0.03 of the
wave's scatter) comes out too certain, with nearly no scatter; the report's section on the sampler shows it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation import plots
from gen.checkpoint import load
from gen.commands.observation import Observation, OneField, observation, observed_grid, read_field
from gen.emulators.base import Emulator
from gen.emulators.diffusion import Diffusion
from gen.errors import InputError
from gen.fields import Fields, Grid
from gen.io import write_fields
from gen.io.atomic import replacing
from gen.io.fieldfile import file_format
from gen.noise import sample_generator
from gen.sampling import checked_device, describe_sampling, parse_params

BATCH = 16
"""Samples are made in batches of exactly this many, so that sample i's bits depend on seed and i alone."""
BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total} fields [{elapsed}<{remaining}]"


@dataclass
class Moments:
    """Mean and scatter of fields as they pass, float64; and how well they fit the data.

    chi2: mean square of data less samples, in units of the noise, 1 where model and noise are right.
    """

    n: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    chi2: float = 0.0
    first: list[Tensor] = field(default_factory=list)

    def add(self, fields: Tensor, chi2: Tensor) -> None:
        """Of fields ``(B, 1, *shape)`` and each one's chi2 ``(B,)``, after Welford 1962."""
        for one, fit in zip(fields.double(), chi2.tolist(), strict=True):
            self.n += 1
            step = one - self.mean
            self.mean = self.mean + step / self.n
            self.squares = self.squares + step * (one - self.mean)
            self.chi2 += (fit - self.chi2) / self.n
            if len(self.first) < 2:
                self.first.append(one)

    @property
    def std(self) -> Tensor:
        """``(1, *shape)``, with n - 1."""
        return (self.squares / (self.n - 1)).sqrt()


def posterior(options: argparse.Namespace) -> int:
    files = _files(options.out, overwrite=options.overwrite)
    if options.n < 2 or options.iterations < 1:
        raise InputError(
            "-n must be 2 samples or more, which have a scatter, and --iterations 1 or more, got "
            f"{options.n} and {options.iterations}"
        )
    emulator = with_posterior(load(options.checkpoint), options.checkpoint)
    emulator = emulator.to(checked_device(options.device)).requires_grad_(False)
    grid = emulator.grid
    given = read_field(
        options.observed, observed_grid(grid, options.mean_of), options.row, "the observed field"
    )
    seen = observation(grid, given.field, options.noise, options.mask, options.smooth, options.mean_of)
    seen(torch.zeros(1, 1, *grid.shape))  # a beam that is too wide is told before any work
    truth = None if options.truth is None else _truth(options, grid)
    params = _params(options, emulator, given)
    told = describe_sampling(emulator, options.checkpoint, params, options.n, options.seed) | _told(options)
    found = Moments()
    with ExitStack() as stack:
        # All of them appear, one after the other, when all are whole.
        staged = [stack.enter_context(replacing(f, overwrite=options.overwrite)) for f in files]
        samples = drawn(emulator, seen, params, options.n, options.seed, options.iterations, found)
        parts = (Fields.of(values, params.expand(len(values), -1)) for values in samples)
        write_fields(staged[0], parts, options.n, grid, emulator.space, told)
        for path, values, what in (
            (staged[1], found.mean, "mean"),
            (staged[2], found.std, "standard deviation"),
        ):
            one = Fields.of(values[None].float(), params)
            write_fields(path, [one], 1, grid, emulator.space, told | {"statistic": f"{what} of the samples"})
        staged[3].write_bytes(plots.posterior_sheet(_sheet(options, emulator, seen, found, truth)))
    print(f"{options.n} fields in {files[0]}, mean and standard deviation in {files[1]} and {files[2].name}")
    print(
        f"data less samples scatter by {math.sqrt(found.chi2):.3f} of the noise; "
        "1 where model and noise are right"
    )
    if truth is not None:
        print(f"|truth - mean| < standard deviation in {100 * covered(truth, found):.0f} % of cells")
    print(f"the picture is {files[3]}")
    return 0


def drawn(
    emulator: Diffusion,
    seen: Observation,
    params: Tensor,
    n: int,
    seed: int,
    iterations: int,
    moments: Moments,
) -> Iterator[Tensor]:
    """``n`` fields ``(B, 1, *shape)`` that fit an observation at parameters ``(1, P)``, batch by batch.

    ``moments`` are taken as they pass. Their noise is not that of ``sample``: a mock truth made with the
    same seed has nothing in common with them.

    Raises:
        InputError: if they do not stay finite.
    """
    here = seen.to(emulator.device)
    data = here.data.expand(BATCH, -1)
    table = params.to(data).expand(BATCH, -1)
    with tqdm(total=n, bar_format=BAR, disable=None) as bar:
        for start in range(0, n, BATCH):
            kept = min(BATCH, n - start)
            hook = emulator.network.register_forward_hook(_progress(bar, kept / emulator.ladder.steps))
            try:
                generators = [sample_generator(seed, i, "posterior") for i in range(start, start + BATCH)]
                made = emulator.posterior(here, data, here.variance, table, generators, iterations)[:kept]
            finally:
                hook.remove()
            if not bool(made.isfinite().all()):
                raise InputError(
                    "the samples did not stay finite, so the data cannot be met as closely as --noise says; "
                    "give more"
                )
            with torch.no_grad():
                residual = (data[:kept] - here(made)).square() / here.variance
            moments.add(made.cpu(), residual.mean(1).cpu())
            yield made.cpu()


def _progress(bar: tqdm, share: float) -> Any:
    """The network is asked once at each level."""

    def step(*_: object) -> None:
        bar.update(share)

    return step


def with_posterior(emulator: Emulator, checkpoint: Path) -> Diffusion:
    """The emulator, if it samples fields given data.

    Raises:
        InputError: if it does not.
    """
    if not isinstance(emulator, Diffusion):
        raise InputError(
            f"{checkpoint} is a {type(emulator).__name__}, which has no posterior; give a checkpoint of a "
            "diffusion emulator, CopulaDiffusion or LatentDiffusion"
        )
    if emulator.needs_coarse:
        raise InputError(
            f"{checkpoint} makes fields from coarse ones, which this command does not take; from Python "
            "call posterior of the loaded checkpoint with coarse"
        )
    return emulator


def covered(truth: Tensor, found: Moments) -> float:
    """Share of cells where the truth ``(*shape)`` lies within a standard deviation of the mean."""
    return float(((truth - found.mean[0]).abs() < found.std[0]).double().mean())


def _files(out: Path, *, overwrite: bool) -> list[Path]:
    """Samples, mean, standard deviation and picture, refused before any work is done."""
    suffix = file_format(out)
    others = [out.with_name(f"{out.stem}{end}") for end in (f"_mean{suffix}", f"_std{suffix}", ".png")]
    for file in (found := [out, *others]):
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists already; give --overwrite to replace it, or another name")
    return found


def _params(options: argparse.Namespace, emulator: Emulator, given: OneField) -> Tensor:
    """One row ``(1, P)``: as told, or the observed file's own."""
    names = emulator.space.names
    if options.params is None and given.file is not None and set(names) <= set(given.file.space.names):
        columns = [given.file.space.names.index(name) for name in names]
        table = given.file.params[given.row : given.row + 1, columns]
    else:
        table = parse_params(options.params, emulator.space)
    if len(table) != 1:
        raise InputError(f"a posterior is taken at one set of parameters, got {len(table)} rows; give one")
    emulator.space.check(table, extrapolate=options.extrapolate)
    return table


def _truth(options: argparse.Namespace, grid: Grid) -> Tensor:
    truth = read_field(options.truth, grid, options.row, "the truth").field
    if not bool(truth.isfinite().all()):
        raise InputError(f"{options.truth} holds values that are not finite; give the whole true field")
    return truth.double()


def _told(options: argparse.Namespace) -> dict[str, Any]:
    """What the files say of the data."""
    return {
        "seeds": "field i is a function of the data, the seed and i alone",
        "observed": options.observed.name,
        "noise": options.noise if _is_number(options.noise) else Path(options.noise).name,
        "mask": "" if options.mask is None else options.mask.name,
        "beam_fwhm": options.smooth,
        "mean_of": options.mean_of,
        "iterations": options.iterations,
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sheet(
    options: argparse.Namespace, emulator: Emulator, seen: Observation, found: Moments, truth: Tensor | None
) -> plots.PosteriorSheet:
    observed = torch.where(seen.seen, seen.values, math.nan)
    panels = [
        ("observed", _seen(options, seen), observed),
        ("posterior mean", f"of {found.n} samples", found.mean[0]),
        *(("a sample", f"number {i}", one[0]) for i, one in enumerate(found.first)),
    ]
    if truth is not None:
        share = f"within $\\sigma$ of the mean in {100 * covered(truth, found):.0f} % of cells"
        panels.append(("truth", share, truth))
    fields = torch.stack([*(one[0] for one in found.first), *([] if truth is None else [truth])])
    unit = "" if emulator.unit in ("", "1") else f" [{emulator.unit}]"
    return plots.PosteriorSheet(
        panels=[(name, note, values.numpy()) for name, note, values in panels],
        std=found.std[0].numpy(),
        scale=plots.Scale.of(fields.numpy()),
        bar=plots.text(emulator.field + unit),
    )


def _seen(options: argparse.Namespace, seen: Observation) -> str:
    """What the picture says of the data."""
    scatter = seen.noise[seen.seen]
    said = [f"noise {float(scatter.square().mean().sqrt()):.3g}"]
    if not bool(seen.seen.all()):
        said.append(f"{100 * float(seen.seen.double().mean()):.0f} % seen")
    if seen.fwhm:
        said.append(f"beam {seen.fwhm:g} {'arcmin' if seen.grid.angular else plots.text(seen.grid.unit)}")
    if seen.mean_of > 1:
        said.append(f"means of ${seen.mean_of}^{seen.grid.dim}$")
    return ", ".join(said)
