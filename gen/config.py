"""From recipes to typed objects: a constructor's signature is the schema of its recipe.

A recipe is input, not code. It may name classes of this project only, and nothing is built before all
of it has been read and checked.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings
from jsonargparse.typing import register_type

from gen.checkpoint_folder import PICKLES
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.yaml_text import parse_yaml, read_yaml

T = TypeVar("T")

#: Packages whose classes a recipe or a checkpoint may name.
ALLOWED = ("gen", "evaluation")


@dataclass(frozen=True)
class Recipe(Generic[T]):
    """What a recipe builds, and the recipe with every default filled in."""

    value: T
    resolved: dict[str, Any]
    path: Path

    @property
    def text(self) -> str:
        """The resolved recipe as YAML; reading it again gives the same object."""
        return yaml.safe_dump(self.resolved, sort_keys=False)


def load_recipe(kind: type[T], path: str | Path, flags: Sequence[str] = ()) -> Recipe[T]:
    """Read a recipe for a ``kind``, override keys by ``flags``, build it.

    Args:
        kind: the class whose constructor is the recipe's schema.
        path: a YAML file.
        flags: ``["--steps", "100", "--loss.weight=5"]``; dots lead into nested parts.

    Raises:
        InputError: for unknown, misspelt, missing or mistyped keys, forbidden classes, addresses and pickles.
    """
    value, resolved = _assemble(kind, read_yaml(path), flags, str(path))
    return Recipe(value, resolved, Path(path))


def build(kind: type[T], mapping: Mapping[str, Any], name: str = "recipe") -> T:
    """Build a ``kind`` from plain data, as ``load_recipe`` does from a file."""
    return _assemble(kind, mapping, (), name)[0]


def describe(kind: type) -> str:
    """Every key of a recipe for ``kind`` with its type, default and meaning."""
    return _parser(kind).format_help()


def resolve_class(path: str, base: type[T]) -> type[T]:
    """The class at an import path of this project, if it is a ``base``.

    The object found is checked, not the name alone: a module's own imports are no way out.

    Raises:
        InputError: for a path outside the allowlist, of nothing, or of something else.
    """
    refusal = f"{path!r} is not a class of {', '.join(f'{p}.*' for p in ALLOWED)} that is a {base.__name__}"
    module, _, attribute = path.rpartition(".")
    if not re.fullmatch(rf"(?:{'|'.join(ALLOWED)})(?:\.[A-Za-z_]\w*)+", path):
        raise InputError(f"{refusal}; only classes of this project may be named")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{refusal}; there is no such class") from error
    if not (inspect.isclass(found) and issubclass(found, base) and found.__module__.split(".")[0] in ALLOWED):
        raise InputError(refusal)
    return found


def _parser(kind: type) -> ArgumentParser:
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=list(ALLOWED),
        subclasses_enabled=[Grid, ParameterSpace],
        validate_subclass_spec_in_any=True,
        instantiate_subclass_spec_in_any=False,
    )
    for record in (Grid, ParameterSpace):
        _register(record)
    parser = ArgumentParser(exit_on_error=False, default_env=False, prog=kind.__name__)
    parser.add_class_arguments(kind, sub_configs=False)
    return parser


def _register(record: type[Grid | ParameterSpace]) -> None:
    """Read a record by its constructor, which takes more than its fields' exact types."""

    def read(state: Any) -> Grid | ParameterSpace:
        if isinstance(state, record):
            return state
        if not isinstance(state, Mapping):
            raise InputError(f"it must be a mapping of its parts, got {state!r}")
        return record(**state)

    register_type(
        record,
        serializer=lambda value: _plain(value.to_dict()),
        deserializer=read,
        deserializer_exceptions=(ValueError, TypeError),
        fail_already_registered=False,
    )


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _assemble(
    kind: type[T], mapping: Mapping[str, Any], flags: Sequence[str], name: str
) -> tuple[T, dict[str, Any]]:
    mapping = dict(mapping)
    _refuse_hostile(mapping, name)
    for flag in flags:
        _refuse_hostile({"flag": flag}, "the command line")
    parser = _parser(kind)
    config = _parse(parser, kind, mapping, flags, name)
    resolved = parse_yaml(parser.dump(config, skip_unset=False, skip_validation=True), name)
    _refuse_hostile(resolved, name)
    parts = vars(parser.instantiate(config))
    return kind(**parts), resolved


def _parse(
    parser: ArgumentParser, kind: type, mapping: dict[str, Any], flags: Sequence[str], name: str
) -> Namespace:
    known = inspect.signature(kind).parameters
    for key in mapping:
        if key not in known:
            raise InputError(f"{name}: {_unknown_key(key, known)}")
    try:
        config = parser.parse_object(mapping)
        return parser.parse_args(list(flags), namespace=config) if flags else config
    except ArgumentError as error:
        raise InputError(f"{name}: {one_sentence(str(error))}") from error


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _strings(item, f"{key}[{i}]")
    elif isinstance(value, str):
        yield key, value


def _refuse_hostile(mapping: Mapping[str, Any], name: str) -> None:
    for key, text in _strings(mapping):
        if re.search(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            raise InputError(f"{name}: {key} holds the address {text!r}; download the file and give its path")
        if text.lower().endswith(PICKLES):
            raise InputError(f"{name}: {key} = {text!r} is a pickle, which can run code; none is ever read")
        if key.split(".")[-1] == "class_path" and "." in text and text.split(".")[0] not in ALLOWED:
            raise InputError(
                f"{name}: {key} = {text!r} is outside the classes that a recipe may name, "
                f"{', '.join(f'{p}.*' for p in ALLOWED)}"
            )


def _unknown_key(key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; the keys are {', '.join(known)}" if known else ""
    return f"{key!r} is not a key here{hint}"


def one_sentence(message: str) -> str:
    """A parser's nested report as one line: the key's full path, what was expected, what was given."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    keys = [match[1] for line in lines if (match := re.search(r"(?:Parser key \"|^Group ')([\w.]+)", line))]
    key = ".".join(key for i, key in enumerate(keys) if i == 0 or key != keys[i - 1])
    unknown = re.search(r"(?:Option|accept option) '([^']+)'", message)
    detail = _unknown_option(unknown[1], message) if unknown else _reworded(_innermost(lines))
    detail = detail if len(detail) < 400 else f"{detail[:397]}..."
    return f"{key}: {detail}" if key else detail


def _innermost(lines: Sequence[str]) -> str:
    """What the report says at its deepest point; of a union's members, all but None."""
    told = [
        line for line in lines if not line.startswith(("Parser key", "Given value", "Subtypes", "Errors"))
    ]
    starts = [i for i, line in enumerate(told) if line.startswith("- ")]
    members = [told[i:j] for i, j in pairwise([*starts, len(told)])]
    said = [member[-1].removeprefix("- ") for member in members if "NoneType" not in member[-1]]
    return " or ".join(dict.fromkeys(said)) if said else (told or list(lines))[-1]


def _reworded(detail: str) -> str:
    allowed = ", ".join(f"{package}.*" for package in ALLOWED)
    for pattern, text in (
        (r"^Type \S+\[.*?\] expects a function or a callable class: ", ""),
        (r"<class '([^']+)'>", r"\1"),
        (r"^the following arguments are required: (.*)", r"these keys are missing: \1"),
        (r"^unrecognized arguments: (.*)", r"no key of the recipe has the name of the flag \1"),
        (r"^Import path (\S+) does not correspond to a subclass of (\w+)", r"\1 is not a \2"),
        (r"typing\.", ""),
        (r"[Ee]xpected a (?=[a-zA-Z])", "expected "),
        (r",? denied by .*?to allow it\.+", f", only {allowed}"),
        (r"\.? Got value: ", ", got "),
        (r"(, got .*?), got .*", r"\1"),
    ):
        detail = re.sub(pattern, text, detail)
    return detail


def _unknown_option(option: str, message: str) -> str:
    """Which key was meant, from the signature of the class that refused it."""
    owners = re.findall(r"class_path='?([\w.]+)|class_path '([\w.]+)'", message)
    names = [first or second for first, second in owners]
    try:
        known = inspect.signature(resolve_class(names[-1], object)).parameters if names else ()
    except InputError:
        known = ()
    return _unknown_key(option, known)
