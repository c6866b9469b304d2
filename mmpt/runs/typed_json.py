"""Frozen dataclasses as JSON: written, read from files of any origin, and checked.

Metadata of a field: ``null`` (may be null), ``about`` (a description), ``beside`` (a mapping whose entries are siblings
of the other fields) and ``apart`` (not part of the JSON). Whole numbers are never negative.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

LARGEST = 1e30  # no score, size or time is larger; sums and squares of what is smaller stay finite
_WORDS = {int: "a whole number from 0", float: "a number", bool: "true or false", str: "text"}


def number(value: object) -> float | None:
    """Take a value of unknown origin as a number; None where it is none, not finite, or too large for a measurement."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -LARGEST < value < LARGEST else None


def whole(value: object) -> int | None:
    """Take a value of unknown origin as a whole number; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def fields(kind: Any) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Map the fields that are part of the JSON to their type, without its ``| None``, and their metadata."""
    return _fields(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    hints = get_type_hints(kind)
    stored = [item for item in dataclasses.fields(kind) if "apart" not in item.metadata]
    return {item.name: (_without_none(hints[item.name]), item.metadata) for item in stored}


def _without_none(kind: Any) -> Any:
    arguments = get_args(kind)
    return next(one for one in arguments if one is not type(None)) if type(None) in arguments else kind


def to_json(value: Any) -> Any:
    """Write a dataclass as plain values."""
    if not dataclasses.is_dataclass(value):
        if isinstance(value, Mapping):
            return {key: to_json(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value
    content: dict[str, Any] = {}
    for name, (_, metadata) in fields(type(value)).items():
        inner = to_json(getattr(value, name))
        content |= inner if "beside" in metadata else {name: inner}
    return content


def from_json(kind: Any, value: Any, problems: list[str], key: str = "") -> Any:
    """Fit JSON of any origin to a dataclass, or the type of a field of one; None where it does not fit.

    ``problems`` gets one line, with its key, for each value that does not fit.
    """
    origin, arguments = parts(kind)
    if origin in (None, Literal):
        if _is_plain(kind, value) if origin is None else isinstance(value, str) and value in arguments:
            return value
        wanted = _WORDS[kind] if origin is None else f"one of {', '.join(arguments)}"
        problems.append(f"{key} must be {wanted}, not {str(value)[:40]!r}")
        return None
    if origin is tuple:
        length = None if arguments[-1] is Ellipsis else len(arguments)
        if not isinstance(value, list) or (length is not None and len(value) != length):
            problems.append(f"{key} must be a list{'' if length is None else f' of {length}'}")
            return None
        items = tuple(from_json(arguments[0], one, problems, f"{key}[{index}]") for index, one in enumerate(value))
        return None if None in items else items
    if not isinstance(value, Mapping):
        problems.append(f"{key} must be a mapping")
        return None
    if origin is dataclasses.dataclass:
        return _from_object(kind, value, problems, f"{key}." if key else "")
    pairs = ((name, from_json(arguments[1], one, problems, f"{key}.{name}")) for name, one in value.items())
    return {name: one for name, one in pairs if one is not None}


def _from_object(kind: Any, value: Mapping[str, Any], problems: list[str], prefix: str) -> Any:
    known = fields(kind)
    values: dict[str, Any] = {}
    for name, (inner, metadata) in known.items():
        if "beside" in metadata:
            others = {other: one for other, one in value.items() if other not in known}
            values[name] = from_json(inner, others, problems, prefix.removesuffix("."))
        elif value.get(name) is not None:
            values[name] = from_json(inner, value[name], problems, prefix + name)
        elif name not in value or "null" not in metadata:
            problems.append(f"{prefix}{name} is missing")
    return kind(**{name: one for name, one in values.items() if one is not None})


@functools.cache
def parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a type is made of: (None, ()) for a plain one, (dataclass, ()) for a dataclass."""
    return (dataclasses.dataclass, ()) if dataclasses.is_dataclass(kind) else (get_origin(kind), get_args(kind))


def _is_plain(kind: type, value: Any) -> bool:
    if kind in (int, float):
        return number(value) is not None and (kind is float or (isinstance(value, int) and value >= 0))
    return isinstance(value, kind)
