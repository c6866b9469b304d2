"""Turn plain values into the typed dataclasses, collecting every problem instead of stopping at the first."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from mmpt.errors import ConfigError, nearest

RANGE = 1e-30, 1e30  # of a number that is not zero: float32 holds it, and its square root and products with others
MISSING = "???"  # OmegaConf's mark of a value that must be given
INVALID: Any = object()  # stands for a value that has a problem
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "a mapping", list: "a list"}


class Problems:
    """Findings in the order found, each with the dotted key it is about."""

    def __init__(self) -> None:
        """Start without findings."""
        self.found: list[tuple[str, str]] = []

    def add(self, key: str, text: str) -> None:
        """Keep one finding; ``text`` is a whole line, naming the key itself."""
        if (key, text) not in self.found:
            self.found.append((key, text))

    def extend(self, key: str, error: ConfigError) -> None:
        """Keep every finding of an error."""
        for text in error.problems:
            self.add(key, text)


def build(kind: Any, value: Any, key: str, problems: Problems) -> Any:
    """Check a value, plain data as YAML gives it, against a type, and construct dataclasses on the way.

    ``kind`` is a type as in annotations: a scalar, Literal, Optional, a list or a word, list, dict, dataclass or Any;
    ``key`` is dotted, for the findings. Returns the value (of an int where a float is needed, a float), or INVALID.
    """
    if isinstance(value, str) and value == MISSING:
        problems.add(key, f"{key} needs a value: {key}=...")
        return INVALID
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, key, problems)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        if value is None and len(inner) < len(arguments):
            return None
        fitting = [argument for argument in inner if (get_origin(argument) is list) is isinstance(value, list)]
        return build((fitting or inner)[0], value, key, problems)
    if origin is Literal:
        return _choice(arguments, value, key, problems)
    if origin is list and isinstance(value, list):
        items = [build(arguments[0], item, f"{key}[{index}]", problems) for index, item in enumerate(value)]
        return INVALID if any(item is INVALID for item in items) else items
    if origin is dict and isinstance(value, Mapping):
        if other := [name for name in value if not isinstance(name, str)]:
            quotes = 'write words such as "yes", "no", "on", "01" or "12:30" in quotes'
            problems.add(key, f"{key} has a name that YAML reads as {shown(other[0])}, not as text; {quotes}")
            return INVALID
        pairs = {str(name): build(arguments[1], item, f"{key}.{name}", problems) for name, item in value.items()}
        return INVALID if any(item is INVALID for item in pairs.values()) else pairs
    return _scalar(origin or kind, value, key, problems)


def fields_of(kind: type) -> dict[str, Any]:
    """Map the field names of a dataclass to their types, without class variables."""
    return {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}


def is_folder(path: str | Path, check: Callable[[Path], bool] = Path.is_dir) -> bool:
    """Whether there is a directory, whatever the text says: too long a name and the home of no user are none."""
    try:
        return check(Path(path).expanduser())
    except (OSError, RuntimeError, ValueError):
        return False


def shown(value: Any) -> str:
    """Write a value as it is written in YAML, with its kind where that helps."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def unknown(key: str, name: str, allowed: Any) -> str:
    """Word the finding about an unknown key."""
    return f"unknown key {key}; allowed: {', '.join(allowed)}{nearest(name, allowed)}"


def _build_dataclass(kind: Any, value: Any, key: str, problems: Problems) -> Any:
    if not isinstance(value, Mapping):
        problems.add(key, f"{key} must be a mapping with the keys {', '.join(fields_of(kind))}; got {shown(value)}")
        return INVALID
    hints = fields_of(kind)
    for name in value:
        if name not in hints:
            full = f"{key}.{name}" if key else str(name)
            problems.add(full, unknown(full, str(name), hints))
    kept: dict[str, Any] = {}
    sound = True
    for item in dataclasses.fields(kind):
        full = f"{key}.{item.name}" if key else item.name
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if item.name in value:
            built = build(hints[item.name], value[item.name], full, problems)
        else:
            built = INVALID
            if required:
                group = key.partition(".")[0]
                problems.add(full, f"{full} is missing; set it in the file of this {group}, or by {full}=...")
        if built is not INVALID:
            kept[item.name] = built
        elif required or (item.name in value and not _is_number(hints[item.name])):
            sound = False  # a default in its place could bring findings that are no findings
    return kind(**kept) if sound else INVALID


def _is_number(hint: Any) -> bool:
    return all(kind in (int, float, bool, type(None)) for kind in get_args(hint) or (hint,))


def _choice(allowed: tuple[Any, ...], value: Any, key: str, problems: Problems) -> Any:
    if value in allowed and not isinstance(value, bool):
        return value
    names = [str(item) for item in allowed]
    problems.add(key, f"{key}={shown(value)} is not allowed; choose from: {', '.join(names)}{nearest(value, names)}")
    return INVALID


def _number(value: float, key: str, problems: Problems) -> Any:
    """A finite float whose size is one that float32 computes with."""
    least, most = RANGE
    if isinstance(value, float) and not math.isfinite(value):
        problems.add(key, f"{key}={value} must be a finite number")
    elif value and not least <= abs(value) <= most:
        shown_value = f"={value:g}" if isinstance(value, float) else ""
        problems.add(key, f"{key}{shown_value} is out of range: its size must lie from {least:g} to {most:g}, or be 0")
    else:
        return float(value)
    return INVALID


def _scalar(kind: Any, value: Any, key: str, problems: Problems) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, key, problems)
    if isinstance(value, str) and kind is str and ("\0" in value or value.encode("utf-8", "ignore").decode() != value):
        problems.add(key, f"{key} must be text that UTF-8 can hold, without the sign 0; got {ascii(value)[:200]}")
        return INVALID
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    remedy = f"; write it in quotes: {key}=\"'{value}'\"" if kind is str and isinstance(value, int | float) else ""
    problems.add(key, f"{key} must be {_WORDS[kind]}; got {shown(value)}{remedy}")
    return INVALID
