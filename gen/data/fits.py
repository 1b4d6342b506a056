"""Images in FITS files, cut into patches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales

from gen.data.arrays import as_float32, existing, refuse_web_page
from gen.data.assemble import assemble
from gen.data.base import SimulationSet, Source
from gen.data.patches import tiles
from gen.data.tables import read_table
from gen.errors import InputError
from gen.fields import Grid


class FitsImages(Source):
    """Patches of FITS images; all patches of one image count as one simulation.

    The image is the first HDU with two axes, or three with the channels first (FITS axis 3). Patches do
    not overlap, and are not periodic. Row 0 is the image's first row, which lies at the bottom.

    Q and U, or shear components, turn with the axes: train on them without augmentation.

    Args:
        images: the files, one image each.
        patch: side of a patch in pixels.
        pixel: pixel side [deg]; by default from the header's celestial WCS.
        unit: unit of the values; by default the header's BUNIT.
        drop_blank: leave out patches with NaN pixels.
        params: table with a column ``file`` that holds the images' names, in any order.
        parameters: its columns to condition on.
        fractions, seed: of the split by image.

    Raises:
        InputError: for a file that is no FITS image, pixels that are not square or differ between images,
            or a pixel or unit that is missing or contradicts the header.
    """

    def __init__(
        self,
        images: str | Path | Sequence[str | Path],
        patch: int,
        pixel: float | None = None,
        unit: str | None = None,
        drop_blank: bool = False,
        params: str | Path | None = None,
        parameters: Sequence[str] = (),
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        self.images = [Path(p).expanduser() for p in ([images] if isinstance(images, str | Path) else images)]
        self.patch, self.pixel, self.unit, self.drop_blank = patch, pixel, unit, drop_blank
        self.params, self.parameters = params, parameters
        self.fractions, self.seed = fractions, seed

    def prepare(self) -> None:
        for path in self.images:
            existing(path)

    def load(self) -> SimulationSet:
        if not self.images:
            raise InputError("FitsImages needs at least one image, got none")
        parts, pixels, units = [], [], []
        for path in self.images:
            data, pixel, unit = read_image(path)
            parts.append(tiles(data, self.patch, str(path), drop_blank=self.drop_blank))
            pixels.append(agreed_pixel(path, pixel, self.pixel))
            units.append(agreed_unit(path, unit, self.unit))
        self._check_same(parts, pixels, units)
        image = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        return assemble(
            f"patches of {len(parts)} FITS image(s)",
            torch.cat([as_float32(p, str(path)) for p, path in zip(parts, self.images, strict=True)]),
            Grid((self.patch, self.patch), self.patch * pixels[0], "deg", periodic=False),
            image,
            self._params()[image],
            self.parameters,
            self.fractions,
            self.seed,
            units[0],
        )

    def _check_same(self, parts: list[np.ndarray], pixels: list[float], units: list[str]) -> None:
        for path, part, pixel, unit in zip(self.images, parts, pixels, units, strict=True):
            found = (part.shape[1], round(pixel, 6), unit)
            first = (parts[0].shape[1], round(pixels[0], 6), units[0])
            if found[0] != first[0] or found[2] != first[2] or abs(pixel / pixels[0] - 1) > 0.01:
                raise InputError(
                    f"{path} has (channels, pixel in deg, unit) {found}, but {self.images[0].name} has "
                    f"{first}; "
                    f"images of one set must agree"
                )

    def _params(self) -> np.ndarray:
        if self.params is None:
            if self.parameters:
                raise InputError(
                    f"parameters {', '.join(self.parameters)} need a table, got none; give params"
                )
            return np.empty((len(self.images), 0))
        table = read_table(self.params)
        if not table.names:
            raise InputError(
                f"{table.path} needs a header with a column 'file' and {', '.join(self.parameters)}"
            )
        listed = [Path(name).name for name in table.column("file").tolist()]
        rows = []
        for path in self.images:
            if listed.count(path.name) != 1:
                raise InputError(
                    f"{table.path} must have one row for {path.name}, got {listed.count(path.name)}"
                )
            rows.append(listed.index(path.name))
        return table.numbers(self.parameters)[rows]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever astropy raises on the bytes of a damaged file into one sentence."""
    existing(path)
    refuse_web_page(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", AstropyUserWarning)  # "file may have been truncated"
            warnings.simplefilter("ignore", VerifyWarning)
            warnings.simplefilter("ignore", FITSFixedWarning)
            yield
    except InputError:
        raise
    except Exception as error:
        reason = "truncated" if "truncated" in str(error) else "damaged or not FITS"
        raise InputError(f"{path} is {reason}; copy or download it again") from None


def read_image(path: Path) -> tuple[np.ndarray, float | None, str]:
    """The first image ``(C, H, W)`` of a FITS file in native byte order, its pixel [deg] and its unit.

    Raises:
        InputError: for a file that is not FITS, is truncated, holds no image, or one whose pixels are
            not square.
    """
    with reading(path), path.open("rb") as file, fits.open(file, memmap=False) as hdus:
        units: list[Any] = list(hdus)
        image = next((h for h in units if h.is_image and h.header.get("NAXIS") in (2, 3)), None)
        if image is None:
            found = ", ".join(f"{type(h).__name__} of {h.header.get('NAXIS', 0)} axes" for h in units)
            raise InputError(
                f"{path} holds no image of 2 or 3 axes, only {found}; for HEALPix maps use HealpixPatches"
            )
        data = np.asarray(image.data)
        data = data.astype(data.dtype.newbyteorder("="))
        pixel, unit = _pixel(path, image.header), str(image.header.get("BUNIT", "")).strip()
        return (data[None] if data.ndim == 2 else data), pixel, unit


def _pixel(path: Path, header: fits.Header) -> float | None:
    """The pixel side [deg] of a celestial WCS, which the FITS standard gives in degrees."""
    wcs = WCS(header).celestial
    if wcs.naxis != 2:
        return None
    scales = proj_plane_pixel_scales(wcs)
    if not abs(scales[0] / scales[1] - 1) < 0.01:
        raise InputError(f"{path} has pixels of {scales[0]:g} x {scales[1]:g} deg; resample to square pixels")
    return float(scales[0])


def agreed_pixel(path: Path, told: float | None, given: float | None) -> float:
    """The pixel side [deg] of the header or as given; if both, they must agree within 1 %.

    Raises:
        InputError: if there is none, or they disagree.
    """
    pixel = given if told is None else told
    if pixel is None:
        raise InputError(f"{path} has no celestial WCS; give pixel, the side of a pixel in degrees")
    if given is not None and abs(given / pixel - 1) > 0.01:
        raise InputError(
            f"{path}: the header says pixels of {pixel:.6g} deg, but pixel is {given:g}; it must be in "
            f"degrees, so correct it or leave it out"
        )
    return pixel


def agreed_unit(path: Path, told: str | None, given: str | None) -> str:
    """The unit of the header or as given; if both, they must be the same.

    Raises:
        InputError: if there is none, or they differ.
    """
    if not told and given is None:
        raise InputError(f"{path} states no unit; give unit, '1' if dimensionless")
    if told and given is not None and told.lower() != given.lower():
        raise InputError(
            f"{path} is in {told}, but unit is {given}; convert the values, or give the unit they have"
        )
    return told or str(given)
