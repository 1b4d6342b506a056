"""``cosmozoo sample``."""

from __future__ import annotations

import argparse

from gen.errors import InputError
from gen.sampling import sample_to_file


def sample(options: argparse.Namespace) -> int:
    total = sample_to_file(
        options.checkpoint,
        options.params,
        options.n,
        options.seed,
        options.out,
        extrapolate=options.extrapolate,
        shape=parse_shape(options.shape),
        device=options.device,
        overwrite=options.overwrite,
    )
    print(f"{total} fields in {options.out}")
    return 0


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """``"128,128"`` or ``"128x128"`` as sizes."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise InputError(f"--shape must be sizes such as 128,128, got {text!r}") from error
