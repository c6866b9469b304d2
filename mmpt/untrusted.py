"""What comes from elsewhere: texts before they are shown, JSON and YAML as they are read. See docs/security.md."""

from __future__ import annotations

import json
from typing import Any

import yaml

LONGEST = 4000  # signs of a text from elsewhere in one message
DEEPEST = 100  # values in values of a YAML file
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # plain values only


def printable(text: object) -> str:
    """Put a space for every sign that isn't shown: terminal commands, control signs, signs that turn the direction.

    Args:
        text: Anything; line breaks count as such signs too.
    """
    found = str(text)
    return found if found.isprintable() else "".join(sign if sign.isprintable() else " " for sign in found)


def one_line(text: object) -> str:
    """Fold white space, drop signs that aren't shown, and cut what is endless, so that a message is one line.

    Args:
        text: Anything, such as an error that quotes a file.
    """
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def parse_json(text: str | bytes | bytearray) -> Any:
    """Parse JSON from elsewhere.

    Args:
        text: JSON, or bytes of it.

    Raises:
        ValueError: It is none, no UTF-8, or nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML from elsewhere into plain values. Its references may still stand for more than memory holds.

    Args:
        text: One document.

    Raises:
        yaml.YAMLError: It is none.
        ValueError: A value can't be, or it is nested without end: the parser's own recursion would end the process.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        opens, closes = (isinstance(event, kind) for kind in (yaml.CollectionStartEvent, yaml.CollectionEndEvent))
        depth += opens - closes
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    return yaml.load(text, Loader=_LOADER)
