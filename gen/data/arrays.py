"""Reading arrays from files that people give: no pickles, and one sentence for what is wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.errors import InputError

#: Arrays above this many bytes stay on disk and are memory-mapped, if their type allows it.
IN_MEMORY = 2 * 1024**3

_NPY, _ZIP, _HDF5, _FITS = b"\x93NUMPY", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"SIMPLE  ="


def open_array(path: str | Path, key: str | None = None) -> np.ndarray:
    """The array of a ``.npy`` file, or array ``key`` of a ``.npz`` file.

    Large ``.npy`` files are memory-mapped, copy on write. Object arrays, which need pickle, are refused.

    Raises:
        InputError: for a file that is missing, is not what its name says, is truncated, or lacks ``key``.
    """
    path = existing(path)
    head = _head(path)
    if head.startswith(_ZIP):
        return _from_npz(path, key)
    if not head.startswith(_NPY):
        raise InputError(f"{path} is {_what_is(head)}, not a .npy or .npz file; {_remedy(head)}")
    return _from_npy(path)


def open_optional(path: str | Path, key: str) -> np.ndarray | None:
    """Array ``key`` of a ``.npz`` file, or nothing if it has none or is no ``.npz`` file."""
    path = existing(path)
    if not _head(path).startswith(_ZIP):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            present = f"{key}.npy" in archive.namelist()
    except Exception as error:
        raise InputError(f"{path} is a damaged .npz file ({_first_line(error)}); copy it again") from None
    return open_array(path, key) if present else None


def existing(path: str | Path) -> Path:
    """The path, refused if there is no such file."""
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give the path of a file")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again")
    return path


def refuse_web_page(path: Path) -> None:
    """Refuse the login or error page that a failed download leaves under the file's name."""
    head = _head(path)
    if _is_html(head):
        raise InputError(f"{path} is a web page, not data; {_remedy(head)}")


def as_float32(values: np.ndarray, what: str) -> Tensor:
    """The values as a float32 tensor, without a copy where the file holds native float32.

    Raises:
        InputError: for text, complex or boolean values, or numbers too large for float32.
    """
    if values.dtype.kind not in "iuf":
        raise InputError(f"{what} must hold real numbers, got type {values.dtype}; convert it to float32")
    if values.dtype != np.dtype("<f4"):
        largest = float(np.abs(values[np.isfinite(values)], dtype=np.float64).max(initial=0.0))
        if largest > float(np.finfo(np.float32).max):
            raise InputError(
                f"{what} holds {largest:.3g}, above the largest float32 of 3.4e38; change the unit or take "
                "logarithms"
            )
        values = values.astype("<f4")
    if not values.flags.writeable or any(s < 0 for s in values.strides):
        values = values.copy()
    return torch.from_numpy(values)


def _from_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
            start = file.tell()
    except Exception as error:  # damaged bytes reach numpy's parser, which may raise anything
        raise InputError(
            f"the header of {path} cannot be read ({_first_line(error)}); write it again"
        ) from None
    if dtype.hasobject:
        raise InputError(
            f"{path} holds Python objects (pickle), which are never loaded because they can run code; "
            f"save a plain number array with numpy.save(file, array.astype('float32'))"
        )
    expected, got = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, path.stat().st_size
    if got != expected:
        how = "truncated" if got < expected else "too long"
        raise InputError(
            f"{path} is {how}: its header promises {expected} bytes for shape {shape} of {dtype}, "
            f"got {got}; copy or download it again"
        )
    large = got > IN_MEMORY
    return np.load(path, allow_pickle=False, mmap_mode="c" if large else None)


def _from_npz(path: Path, key: str | None) -> np.ndarray:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = list(archive.files)
            if key is None and len(keys) == 1:
                key = keys[0]
            if key not in keys:
                wanted = "one array must be named" if key is None else f"array {key!r} is missing"
                raise InputError(f"{path}: {wanted}, it holds {', '.join(keys) or 'nothing'}")
            return archive[key]
    except InputError:
        raise
    except Exception as error:  # damaged bytes reach the parsers of zip and numpy, which may raise anything
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path}: array {key!r} holds Python objects (pickle), which are never loaded because they "
                f"can run code; save plain number arrays"
            ) from None
        raise InputError(
            f"{path} is a damaged or truncated .npz file ({_first_line(error)}); copy or download it again"
        ) from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _is_html(head: bytes) -> bool:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"))


def _what_is(head: bytes) -> str:
    if _is_html(head):
        return "a web page"
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a Python pickle"
    known = {_HDF5: "an HDF5 file", _FITS: "a FITS file", b"\x1f\x8b": "a gzip file"}
    return next(
        (name for magic, name in known.items() if head.startswith(magic)), f"of unknown kind {head[:8]!r}"
    )


def _remedy(head: bytes) -> str:
    if _is_html(head):
        return "the download failed or needs a login, so download it again"
    kind = _what_is(head)
    if kind == "a Python pickle":
        return "pickles can run code and are never loaded, so save the array with numpy.save"
    remedies = {
        "an HDF5 file": "read it with Hdf5File",
        "a FITS file": "read it with FitsImages",
        "a gzip file": "unpack it first",
    }
    return remedies.get(kind, "save it with numpy.save")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
