"""Records from what a YAML file holds, strictly: no unknown key, no missing one, no value of another type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from gen.errors import InputError

T = TypeVar("T")


def mapping(content: Any, where: str) -> Mapping[str, Any]:
    """The content, if it is a mapping.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where} must be a mapping of keys to values, got {type(content).__name__}")
    return content


def only(content: Mapping[str, Any], known: set[str], needed: set[str], where: str) -> None:
    """Refuse keys that are not known, and the lack of those that are needed.

    Raises:
        InputError: which names one of them.
    """
    unknown, missing = sorted(set(content) - known, key=str), sorted(needed - set(content))
    if unknown:
        raise InputError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}")


def record(kind: type[T], content: Any, where: str) -> T:
    """A flat frozen dataclass from a mapping, types checked; whole numbers stand for floats.

    Raises:
        InputError: for an unknown or missing key, or a value of the wrong type.
    """
    content = mapping(content, where)
    slots = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    only(content, set(slots), {n for n, f in slots.items() if f.default is MISSING}, where)
    types = {"int": int, "float": (int, float), "str": str}
    values = {}
    for name, value in content.items():
        want = str(slots[name].type)
        if not isinstance(value, types[want]) or isinstance(value, bool):
            raise InputError(f"{where}: {name} must be {want}, got {value!r}")
        values[name] = float(value) if want == "float" else value
    return kind(**values)


def outside(kind: type[T], content: Any, needed: set[str], where: str, optional: set[str] | None = None) -> T:
    """A record that checks its own values, from a mapping.

    Raises:
        InputError: for an unknown or missing key, or a value that the record refuses.
    """
    content = mapping(content, where)
    only(content, needed | (optional or set()), needed, where)
    try:
        return kind(**content)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} has a value of the wrong type: {error}") from error
