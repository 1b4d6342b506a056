"""Cutting images into square patches, and boxes into cubes, that do not overlap."""

from __future__ import annotations

import numpy as np

from gen.errors import InputError


def tiles(image: np.ndarray, side: int, what: str, *, drop_blank: bool) -> np.ndarray:
    """Patches ``(m, C, side, side)`` of an image ``(C, H, W)``, row by row; a remainder is left out.

    Args:
        drop_blank: leave out patches that hold a NaN, which is how images mark pixels without data.

    Raises:
        InputError: for an image smaller than a patch, or blank pixels where they were not to be dropped.
    """
    channels, height, width = image.shape
    if side < 2 or min(height, width) < side:
        raise InputError(f"{what} has {height} x {width} pixels, too few for a patch of {side} x {side}")
    rows, columns = height // side, width // side
    cut = image[:, : rows * side, : columns * side].reshape(channels, rows, side, columns, side)
    patches = cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, channels, side, side)
    blank = np.isnan(patches).any(axis=(1, 2, 3))
    if blank.any() and not drop_blank:
        raise InputError(
            f"{what}: {int(blank.sum())} of {len(patches)} patches hold pixels without data (NaN); "
            f"crop the image, fill them, or set drop_blank to leave those patches out"
        )
    if blank.all():
        raise InputError(
            f"{what}: all {len(patches)} patches hold pixels without data (NaN); use a smaller patch"
        )
    return patches[~blank]


def cubes(box: np.ndarray, side: int, what: str) -> np.ndarray:
    """Cubes ``(m, side, side, side)`` of a box ``(n, n, n)``, along the last axis first.

    Raises:
        InputError: for a side that does not divide the box.
    """
    n = len(box)
    if side < 2 or n % side:
        raise InputError(f"{what} has {n} cells a side, no whole number of cubes of {side}; choose a divisor")
    cut = box.reshape(n // side, side, n // side, side, n // side, side)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, side, side, side)
