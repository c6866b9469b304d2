"""Templates: literal text with ``{field}`` in it, and the fields of a row. Imports no torch."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping
from typing import Any

from mmpt.data.metrics.forms import nfc
from mmpt.errors import ConfigError, DataError, nearest

TOO_LONG = 10**1000  # of a number that stands for a text; Python writes no number of more than 4300 digits


class Template:
    """One template, parsed once so that rows are only looked up."""

    def __init__(self, text: str, key: str = "task.template") -> None:
        """Split the text into literals and field names.

        Args:
            text: The template; ``{{`` and ``}}`` stand for braces.
            key: Where it is set, for messages.

        Raises:
            ConfigError: It is not a template.
        """
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"{key}={text!r}: {error}; write {{{{ or }}}} for a brace") from error
        for _, name, spec, conversion in parsed:
            if name is not None and (not name.strip() or spec or conversion):
                raise ConfigError(f"{key}={text!r}: a field is a plain {{name}} or {{outer.inner}}")
        self._pieces = tuple((literal, None if name is None else nfc(name)) for literal, name, _, _ in parsed)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in it."""
        return tuple(name for _, name in self._pieces if name is not None)

    def render(self, row: Mapping[str, Any], where: str, empty: str = "error") -> str:
        """Fill it; arguments and errors are those of :func:`field_text`."""
        return "".join(
            literal if name is None else literal + field_text(row, name, where, empty) for literal, name in self._pieces
        )


def nfc_names(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A row with the names of its fields in Unicode's composed form.

    Raises:
        DataError: Two names are equal then.
    """
    if all(isinstance(name, str) and name.isascii() and not isinstance(row[name], Mapping) for name in row):
        return row
    named: dict[str, Any] = {}
    for name, value in row.items():
        if (key := nfc(name)) in named:
            raise DataError(f'{where}: two fields are called "{key}", in different Unicode forms; rename one')
        named[key] = nfc_names(value, where) if isinstance(value, Mapping) else value
    return named


def field_names(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from field_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def has_field(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a field, by its name or its dotted name."""
    return name in row or name in set(field_names(row))


def look_up(row: Mapping[str, Any], name: str, where: str) -> Any:
    """A field by its name, or a nested one by its dotted name."""
    if name in row:  # a CSV header may itself contain dots
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            names = list(field_names(row))
            listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise DataError(f'{where}: no field "{name}"; the fields here: {listed}{nearest(name, names)}')
        value = value[part]
    return value


class MissingError(DataError):
    """A value that is needed is null, not a finite number, or empty."""


def field_text(row: Mapping[str, Any], name: str, where: str, empty: str = "error") -> str:
    """A field as text that can be encoded.

    Args:
        row: Field name to value.
        name: The field.
        where: File and line, for messages.
        empty: What a text without a character is: ``error``, ``text``; or ``fill``, which every missing value is then.

    Raises:
        MissingError: The value is missing.
        DataError: There is no such field, or it is neither a text nor a number.
    """
    value = look_up(row, name, where)
    cure = "set task.missing=skip or task.missing=empty"
    problem = None
    if value is None:
        problem = "null; a text or a number is needed"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = f"{value}, which is no value; a text or a finite number is needed"
    elif isinstance(value, str) and empty != "text" and not value.strip():
        problem = "empty; a text is needed"
    elif isinstance(value, int) and abs(value) >= TOO_LONG:
        raise DataError(f'{where}: field "{name}" is a number of more than 1000 digits; write it as text')
    elif not isinstance(value, str | int | float):
        raise DataError(f'{where}: field "{name}" is a {type(value).__name__}; a text or a number is needed')
    if problem is None:
        return encodable(str(value), name, where)
    if empty == "fill":
        return ""
    raise MissingError(f'{where}: field "{name}" is {problem} ({cure})')


def encodable(text: str, name: str, where: str) -> str:
    """A text that UTF-8 can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f'{where}: field "{name}" has half a surrogate pair, which is not text: {error}') from error
    return text
