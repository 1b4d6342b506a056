"""Numbers of a report as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gen.errors import InputError


def plain(x: Any) -> Any:
    """What JSON can hold: arrays as lists, keys as text, 7 digits, and null for numbers that are not finite.

    Raises:
        InputError: for anything else.
    """
    if isinstance(x, Mapping):
        return {str(key): plain(value) for key, value in x.items()}
    if isinstance(x, torch.Tensor | np.ndarray | np.generic):
        return plain(x.tolist())
    if isinstance(x, list | tuple | set):
        return [plain(value) for value in x]
    if isinstance(x, float):
        return float(f"{x:.7g}") if math.isfinite(x) else None
    if x is None or isinstance(x, str | int):
        return x
    if isinstance(x, Path):
        return str(x)
    if isinstance(x, bytes):
        return x.decode("utf-8", "replace")
    raise InputError(f"provenance may hold text, numbers, lists and tables, got {type(x).__name__}")
