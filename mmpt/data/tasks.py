"""A task: a template that makes the source text, and a label map that makes the target. Imports no torch."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmpt.config.schema import TaskConfig
from mmpt.data.layouts import LAYOUTS, Rows
from mmpt.errors import ConfigError, DataError, nearest

# metric -> the names it reports, the primary one first
METRICS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "accuracy_f1": ("accuracy", "f1"),
    "f1a_em": ("f1a", "em", "macro_f1", "accuracy"),
    "exact_match": ("exact_match",),
}


@dataclass(frozen=True)
class Example:
    """One rendered example.

    Attributes:
        id: Its ``idx`` or ``id`` in the data, else where it was read.
        source: The text the model reads.
        target: The label word or the free text to produce; None where unlabelled.
        label: Index of the target in ``Task.words``; None for free text and where unlabelled.
        group: What is scored and split as one (a MultiRC question); None without ``group_field``.
    """

    id: str
    source: str
    target: str | None
    label: int | None
    group: str | None


class Task:
    """Turns raw rows into examples, and knows the metric.

    Attributes:
        name: Name of the task.
        words: Label words in the order of the configuration; empty for free text.
        free_text: Whether the target is free text.
        metric: Key of ``METRICS``; ``accuracy`` of free text is ``exact_match``.
        metric_names: What ``score`` reports.
        primary: The metric that selects checkpoints and has an interval.
    """

    def __init__(self, config: TaskConfig) -> None:
        """Check the definition once, so that rows are only looked up.

        Args:
            config: The task as data.

        Raises:
            ConfigError: The template, the label map or the metric can't work.
        """
        self.config = config
        self.name = config.name
        self.words: tuple[str, ...] = tuple(str(word) for word in config.labels)
        self.free_text = not self.words
        self.metric = "exact_match" if self.free_text and config.metric == "accuracy" else config.metric
        _check_metric(self)
        _check_layout(config)
        self.metric_names = METRICS[self.metric]
        self.primary = self.metric_names[0]
        self._pieces = _parse_template(config)
        self._labels = _label_map(config)

    def examples(self, rows: Rows, require_label: bool = True) -> Iterator[Example]:
        """Render rows in file order, unrolling a nested official layout first.

        Args:
            rows: Pairs of where a row was read and the row.
            require_label: Whether a row without label is an error.

        Yields:
            One example a row.

        Raises:
            DataError: As of :meth:`example`.
        """
        if self.config.unroll is not None:
            rows = LAYOUTS[self.config.unroll](rows)
        for where, row in rows:
            yield self.example(row, where, require_label)

    def example(self, row: Mapping[str, Any], where: str, require_label: bool = True) -> Example:
        """Render one flat row.

        Args:
            row: Field name to value; nested fields are reached by dotted names.
            where: File and line, for messages.
            require_label: Whether a row without label is an error.

        Raises:
            DataError: A field is missing, null or no text; the label is unknown or missing.
        """
        target, label = self._target(row, where, require_label)
        group = None
        if self.config.group_field is not None and (require_label or _has(row, self.config.group_field)):
            group = _text(row, self.config.group_field, where)
        return Example(_identity(row, where), self.render(row, where), target, label, group)

    def render(self, row: Mapping[str, Any], where: str) -> str:
        """Fill the template.

        Args:
            row: Field name to value.
            where: File and line, for messages.

        Raises:
            DataError: A field of the template is missing, null or no text.
        """
        return "".join(literal if name is None else literal + _text(row, name, where) for literal, name in self._pieces)

    def _target(self, row: Mapping[str, Any], where: str, required: bool) -> tuple[str | None, int | None]:
        name = self.config.label_field
        raw = _lookup(row, name, where) if required or _has(row, name) else None
        if raw is not None and _canonical(raw) in self._labels:
            index = self._labels[_canonical(raw)]
            return self.words[index], index
        if raw in (None, "") or (not self.free_text and _canonical(raw) == "-1"):
            if required:
                raise DataError(f'{where}: unlabelled (field "{name}" is {raw!r}); training and scoring need a label')
            return None, None
        if self.free_text:
            return _text(row, name, where), None
        allowed = ", ".join(self.words)
        hint = nearest(raw, self.words)
        raise DataError(
            f'{where}: unknown label {raw!r} in field "{name}"; allowed: {allowed}{hint} (task.labels maps raw values)'
        )


def _check_metric(task: Task) -> None:
    """Refuse metrics the label map can't feed."""
    if task.metric not in METRICS:
        raise ConfigError(
            f'task.metric="{task.metric}" is unknown; allowed: {", ".join(METRICS)}{nearest(task.metric, METRICS)}'
        )
    if len(task.words) == 1:
        raise ConfigError(f'task.labels has the one word "{task.words[0]}"; a task needs two, or none for free text')
    if task.free_text and task.metric != "exact_match":
        raise ConfigError(f"task.metric={task.metric} needs task.labels; free text is scored by exact_match")
    if task.metric == "f1a_em" and (len(task.words) != 2 or task.config.group_field is None):
        raise ConfigError("task.metric=f1a_em needs two labels (the second is the positive one) and task.group_field")


def _check_layout(config: TaskConfig) -> None:
    if config.unroll is not None and config.unroll not in LAYOUTS:
        raise ConfigError(f'task.unroll="{config.unroll}" is unknown; allowed: {", ".join(LAYOUTS)}')


def _parse_template(config: TaskConfig) -> tuple[tuple[str, str | None], ...]:
    """Split the template into literals and field names."""
    try:
        parsed = list(string.Formatter().parse(config.template))
    except ValueError as error:
        raise ConfigError(f"task.template={config.template!r}: {error}; write {{{{ or }}}} for a brace") from error
    for _, name, spec, conversion in parsed:
        if name is not None and (not name.strip() or spec or conversion):
            raise ConfigError(f"task.template={config.template!r}: a field is a plain {{name}} or {{outer.inner}}")
    if not any(name for _, name, _, _ in parsed):
        raise ConfigError(f"task.template={config.template!r} names no field, so every example would read the same")
    return tuple((literal, name) for literal, name, _, _ in parsed)


def _canonical(value: object) -> str:
    """One spelling for a raw label, so that JSON's ``true`` and CSV's ``True``, or 1 and "1", are one value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text


def _label_map(config: TaskConfig) -> dict[str, int]:
    """Map every raw value, and every word itself where no raw value claims it, to the word's index."""
    found: dict[str, int] = {}
    for index, (word, raw_values) in enumerate(config.labels.items()):
        if not str(word).strip():
            raise ConfigError("task.labels has an empty word")
        for raw in raw_values:
            key = _canonical(raw)
            if found.setdefault(key, index) != index:
                raise ConfigError(f"task.labels maps the raw value {raw!r} to two words")
    for index, word in enumerate(config.labels):
        found.setdefault(_canonical(word), index)
    return found


def _fields(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _has(row: Mapping[str, Any], name: str) -> bool:
    return name in row or name in set(_fields(row))


def _lookup(row: Mapping[str, Any], name: str, where: str) -> Any:
    """A field by its name, or a nested one by its dotted name."""
    if name in row:  # a CSV header may itself contain dots
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            names = list(_fields(row))
            listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise DataError(f'{where}: no field "{name}"; the fields here: {listed}{nearest(name, names)}')
        value = value[part]
    return value


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field as text that can be encoded."""
    value = _lookup(row, name, where)
    if not isinstance(value, str | int | float):
        kind = "null" if value is None else f"a {type(value).__name__}"
        raise DataError(f'{where}: field "{name}" is {kind}; a text or a number is needed')
    return _encodable(str(value), name, where)


def _encodable(text: str, name: str, where: str) -> str:
    """A text that UTF-8 can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f'{where}: field "{name}" has half a surrogate pair, which is no text: {error}') from error
    return text


def _identity(row: Mapping[str, Any], where: str) -> str:
    """The example's own id where it has one."""
    for name in ("idx", "id"):
        value = row.get(name)
        if isinstance(value, Mapping):
            return _encodable("-".join(str(part) for part in value.values()), name, where)
        if isinstance(value, str | int) and str(value):
            return _encodable(str(value), name, where)
    return where
