"""Fields as FITS: the values as the primary image (slowest axis first), the rest as a binary table.

The attributes are one JSON text in the keyword COSMOZOO of the primary header.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from gen.errors import InputError
from gen.io.content import Content, encode

BLOCK = 2880


class FitsWriter:
    """A header of known size, the values as they come, and the table at the end."""

    def __init__(self, path: Path, content: Content) -> None:
        self.path, self.content = path, content
        self.params: list[np.ndarray] = []
        header = fits.Header()
        header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, -32, len(content.shape)
        for axis, size in enumerate(reversed(content.shape), 1):
            header[f"NAXIS{axis}"] = size
        header["EXTEND"] = True
        header["BUNIT"] = str(content.told.get("units", ""))
        header["COSMOZOO"] = encode(content.told)
        self.file = path.open("wb")
        self.file.write(header.tostring().encode("ascii"))

    def write(self, values: np.ndarray, params: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values, dtype=">f4").view(np.uint8).data)
        self.params.append(params)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.write(b"\0" * (-self.file.tell() % BLOCK))
        self.file.close()
        if kind is None:
            with fits.open(self.path, mode="append") as hdus:
                hdus.append(self._table())

    def _table(self) -> fits.BinTableHDU:
        params = np.concatenate(self.params)
        names = self.content.told["parameter_names"]
        columns = [fits.Column(name, "D", array=params[:, i]) for i, name in enumerate(names)]
        for name, array in self.content.columns.items():
            text = array.astype(str)
            form = "K" if array.dtype.kind in "iu" else f"{max(1, text.dtype.itemsize // 4)}A"
            columns.append(fits.Column(name, form, array=array if form == "K" else text))
        table = fits.BinTableHDU.from_columns(columns, nrows=len(params), name="PARAMS")
        return table


@contextmanager
def _strictly(path: Path) -> Iterator[None]:
    """Astropy warns of damage and goes on; here it is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyWarning)
        try:
            yield
        except AstropyWarning as damage:
            reason = str(damage).splitlines()[0]
            raise InputError(f"{path} is not a whole FITS file of fields: {reason}") from damage


def read_fits(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and attributes of a file that ``FitsWriter`` has written."""
    with path.open("rb") as file, _strictly(path), fits.open(file, memmap=False) as hdus:
        primary: Any = hdus[0]
        others: list[Any] = list(hdus[1:])
        text = primary.header.get("COSMOZOO")
        if text is None or not others:
            raise InputError(
                f"{path} is no file of fields of this project; read images through gen.data.fits"
            )
        told = json.loads(text)
        table = others[0].data
        rows = primary.data.shape[0]
        params = [np.asarray(table[name], dtype=np.float64) for name in told["parameter_names"]]
        arrays = {
            "values": np.asarray(primary.data, dtype=np.float32),
            "params": np.stack(params, -1) if params else np.zeros((rows, 0)),
        }
        for name in ("simulation", "region"):
            if name in (table.names or ()):
                arrays[name] = np.asarray(table[name])
    return arrays, told
