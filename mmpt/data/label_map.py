"""From raw values of a label field to the label words of a task. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.data.metrics.forms import nfc
from mmpt.errors import ConfigError

UNLABELLED = ("", "?", "-1")  # beside null and NaN: what files write where there is no label
_SYNONYMS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # YAML reads these words as true and false


class LabelMap:
    """The labels of a task.

    Attributes:
        words: The label words, in the order of the configuration; their index is the label.
    """

    def __init__(self, labels: Mapping[str, Sequence[Any]]) -> None:
        """Map every raw value, and every word itself where no raw value claims it.

        Args:
            labels: Label word -> the raw values that mean it.

        Raises:
            ConfigError: A word or a raw value is empty, or two words cannot be told apart.
        """
        self.words = tuple(nfc(word) for word in labels)
        self._index: dict[str, int] = {}
        if len(self.words) == 1:
            raise ConfigError(f'task.labels has the one word "{self.words[0]}"; give two, or none for free text')
        if twice := next((word for word in self.words if self.words.count(word) > 1), None):
            raise ConfigError(f'task.labels has the word "{twice}" twice')
        if not all(word.strip() for word in self.words):
            raise ConfigError("task.labels has an empty word")
        for index, (word, raw_values) in enumerate(zip(self.words, labels.values(), strict=True)):
            for raw in raw_values:
                self._claim(raw, index, word)
        self._booleans = {str(raw).lower() for raws in labels.values() for raw in raws if isinstance(raw, bool)}
        for index, word in enumerate(self.words):
            self._index.setdefault(canonical(word), index)

    def _claim(self, raw: object, index: int, word: str) -> None:
        if raw is None:
            raise ConfigError(f'task.labels.{word} has the raw value null; for the text, write "null" in quotes')
        if self._index.setdefault(canonical(raw), index) != index:
            quotes = "; YAML reads no, off, yes and on as true or false: write such words in quotes"
            hint = quotes if isinstance(raw, bool) else ""
            raise ConfigError(f"task.labels maps the raw value {raw!r} to two words{hint}")

    def find(self, raw: object) -> int | None:
        """The label of a raw value; None where it means none. null is never a label."""
        if raw is None:
            return None
        key = canonical(raw)
        if key not in self._index and (synonym := _SYNONYMS.get(key.lower())) in self._booleans:
            return self._index[str(synonym)]
        return self._index.get(key)


def is_missing(raw: object) -> bool:
    """Whether a value is null, NaN, infinite or an empty text."""
    if isinstance(raw, str):
        return not raw.strip()
    return raw is None or (isinstance(raw, float) and not math.isfinite(raw))


def canonical(value: object) -> str:
    """One spelling of a raw label: JSON's ``true`` and CSV's ``True`` are one value, and so are 1, 1.0 and "1"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = nfc(str(value)).strip()
    return text.lower() if text.lower() in ("true", "false") else text
