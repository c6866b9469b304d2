"""Frozen dataclasses as JSON: written, read from files of any origin, checked, and described by a JSON schema.

Metadata of a field: ``null`` (may be null), ``about`` (a description), ``beside`` (a mapping whose entries are siblings
of the other fields) and ``apart`` (not part of the JSON). Whole numbers are never negative.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

LARGEST = 1e30  # no score, size or time is larger; sums and squares of what is smaller stay finite
Problems = list[str]
Reader = Callable[[Any, str, Problems], Any]
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def number(value: object) -> float | None:
    """Take a value of unknown origin as a number; None where it is none, not finite, or too large for a measurement."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -LARGEST < value < LARGEST else None


def fields(kind: Any) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Map the fields that are part of the JSON to their type, without its ``| None``, and their metadata."""
    return _fields(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    hints = get_type_hints(kind)
    stored = [item for item in dataclasses.fields(kind) if "apart" not in item.metadata]
    return {item.name: (_without_none(hints[item.name]), item.metadata) for item in stored}


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


def reader(kind: Any) -> Reader:
    """A function that fits JSON to a type.

    Args:
        kind: A dataclass, or the type of a field of one.

    Returns:
        (value, its key, list of problems) -> the typed value. What does not fit is None and adds a problem.
    """
    return _reader(kind)


@functools.cache
def _reader(kind: Any) -> Reader:
    if dataclasses.is_dataclass(kind):
        return _object_reader(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _check(lambda value: isinstance(value, str) and value in arguments, f"one of {', '.join(arguments)}")
    if origin is tuple:
        return _list_reader(reader(arguments[0]), None if arguments[-1] is Ellipsis else len(arguments))
    if origin is not None:
        return _mapping_reader(reader(arguments[1]))
    if kind is int:
        return _check(_is_count, "a whole number from 0")
    if kind is float:
        return _check(lambda value: number(value) is not None, "a number")
    return _check(lambda value: isinstance(value, kind), "true or false" if kind is bool else "text")


def json_schema(kind: Any, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe a type, with what a field's metadata says of it."""
    metadata = metadata or {}
    schema = _type_schema(kind)
    if "null" in metadata:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | ({"description": metadata["about"]} if "about" in metadata else {})


def _without_none(kind: Any) -> Any:
    arguments = get_args(kind)
    return next(one for one in arguments if one is not type(None)) if type(None) in arguments else kind


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and (number(value) or 0) == value and not isinstance(value, bool) and value >= 0


def _check(fits: Callable[[Any], bool], words: str) -> Reader:
    def read(value: Any, key: str, problems: Problems) -> Any:
        if fits(value):
            return value
        problems.append(f"{key} must be {words}, not {str(value)[:40]!r}")
        return None

    return read


def _list_reader(item: Reader, length: int | None) -> Reader:
    def read(value: Any, key: str, problems: Problems) -> Any:
        if not isinstance(value, list) or (length is not None and len(value) != length):
            problems.append(f"{key} must be a list{'' if length is None else f' of {length}'}")
            return None
        items = tuple(item(one, f"{key}[{index}]", problems) for index, one in enumerate(value))
        return None if None in items else items

    return read


def _mapping_reader(item: Reader) -> Reader:
    def read(value: Any, key: str, problems: Problems) -> Any:
        if not isinstance(value, Mapping):
            problems.append(f"{key} must be a mapping")
            return None
        items = ((name, item(one, f"{key}.{name}", problems)) for name, one in value.items())
        return {name: one for name, one in items if one is not None}

    return read


def _object_reader(kind: Any) -> Reader:
    known = fields(kind)
    readers = {name: reader(inner) for name, (inner, _) in known.items()}

    def read(value: Any, key: str, problems: Problems) -> Any:
        if not isinstance(value, Mapping):
            problems.append(f"{key} must be a mapping")
            return kind()
        values: dict[str, Any] = {}
        for name, (_, metadata) in known.items():
            full = f"{key}.{name}" if key else name
            if "beside" in metadata:
                others = {other: one for other, one in value.items() if other not in known}
                values[name] = readers[name](others, key, problems)
            elif value.get(name) is not None:
                values[name] = readers[name](value[name], full, problems)
            elif name not in value or "null" not in metadata:
                problems.append(f"{full} is missing")
        return kind(**{name: one for name, one in values.items() if one is not None})

    return read


def _type_schema(kind: Any) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _object_schema(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        size = {} if arguments[-1] is Ellipsis else {"minItems": len(arguments), "maxItems": len(arguments)}
        return {"type": "array", "items": json_schema(arguments[0]), **size}
    if origin is not None:
        return {"type": "object", "additionalProperties": json_schema(arguments[1])}
    return {"type": _JSON_TYPES[kind], **({"minimum": 0} if kind is int else {})}


def _object_schema(kind: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for name, (inner, metadata) in fields(kind).items():
        if "beside" in metadata:
            more = {"additionalProperties": json_schema(get_args(inner)[1])}
        else:
            properties[name] = json_schema(inner, metadata)
    return {"type": "object", "required": list(properties), "properties": properties, **more}
