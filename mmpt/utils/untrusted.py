"""What comes from elsewhere: texts before they are shown, JSON and YAML as they are read. See docs/security.md."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LONGEST = 4000  # characters of a text from elsewhere in one message
DEEPEST = 100  # values in values of a YAML file
MOST_VALUES = 1_000_000  # of a YAML file, each reference as often as it stands there
LARGEST = 2**26  # bytes of a JSON or YAML file, or of a line of one; the largest of ours have some MB
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # plain values only


def printable(text: object) -> str:
    """Put a space for every character that a terminal does not show: commands, line breaks, changes of direction."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(char if char.isprintable() else " " for char in shown)


def one_line(text: object) -> str:
    """Make one line of any object, such as an error that quotes a file: printable, and cut where it is endless."""
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """Read a file from elsewhere that has at most so many bytes.

    OSError: it cannot be read. ValueError: it is too large, or a pipe or a device, which may never end.
    """
    size = _size(path)
    if size > most:
        raise ValueError(f"it has {size / 2**20:.0f} MiB, more than the {most / 2**20:.0f} that it may have")
    return path.read_bytes()


def _size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    return status.st_size


def read_text(path: Path, most: int = LARGEST) -> str:
    """The same as text; what is not UTF-8 is a ValueError."""
    return read_bytes(path, most).decode("utf-8")


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines of a file from elsewhere, one at a time, with their ends; what is not UTF-8 is replaced.

    OSError: it cannot be read. ValueError: a line is too long, or it is no file.
    """
    _size(path)
    with path.open("rb") as file:
        while line := file.readline(LARGEST + 1):
            if len(line) > LARGEST:
                raise ValueError(f"a line has more than {LARGEST >> 20} MiB")
            yield line.decode("utf-8", errors="replace")


def parse_json(text: str | bytes | bytearray) -> Any:
    """Parse JSON from elsewhere; what is none, no UTF-8, or nested without end is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object from elsewhere; what is none is a ValueError."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"it is no valid JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not an object")
    return content


def parse_yaml(text: str) -> Any:
    """Parse YAML from elsewhere into plain values.

    Raises:
        yaml.YAMLError: It is none.
        ValueError: A value is invalid, it is nested without end (the parser's own recursion would end the process), or
            its references stand for very many values.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        opens, closes = (isinstance(event, kind) for kind in (yaml.CollectionStartEvent, yaml.CollectionEndEvent))
        depth += opens - closes
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    content = yaml.load(text, Loader=_LOADER)
    if count_values(content, {}) > MOST_VALUES:
        raise ValueError(f"its references stand for more than {MOST_VALUES} values")
    return content


def count_values(value: Any, known: dict[int, int]) -> int:
    """Count values as if every reference of YAML was written out; one that holds itself counts as too many."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(count_values(item, known) for item in items)
    return known[id(value)]
