"""A task: a template that makes the source text, and a label map that makes the target. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt.config.schema import TaskConfig
from mmpt.data.layouts import LAYOUTS, Rows
from mmpt.data.templates import Template, encodable, field_text, has_field, look_up
from mmpt.errors import ConfigError, DataError, nearest

# metric -> the names it reports, the primary one first
METRICS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "accuracy_f1": ("accuracy", "f1"),
    "f1a_em": ("f1a", "em", "macro_f1", "accuracy"),
    "matthews": ("matthews", "accuracy"),
    "exact_match": ("exact_match",),
}


@dataclass(frozen=True)
class Example:
    """One rendered example.

    Attributes:
        id: Its ``idx`` or ``id`` in the data, else where it was read.
        source: The text that models which write text read.
        target: The label word or the free text to produce; None where unlabelled.
        label: Index of the target in ``Task.words``; None for free text and where unlabelled.
        group: What is scored and split as one (a MultiRC question); None without ``group_field``.
        segments: What models with a classification head read: one text or two, by choice where ``task.choices``
            has some; empty where the task says nothing of it, and they read ``source``.
    """

    id: str
    source: str
    target: str | None
    label: int | None
    group: str | None
    segments: tuple[tuple[str, ...], ...] = ()


class Task:
    """Turns raw rows into examples, and knows the metric.

    Attributes:
        name: Name of the task.
        words: Label words in the order of the configuration; empty for free text.
        free_text: Whether the target is free text.
        metric: Key of ``METRICS``; ``accuracy`` of free text is ``exact_match``.
        choices: Whether a classification head scores each label's own text, instead of one text for all labels.
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
        self.choices = config.choices is not None
        self.metric = "exact_match" if self.free_text and config.metric == "accuracy" else config.metric
        _check_metric(self)
        _check_layout(config)
        self.metric_names = METRICS[self.metric]
        self.primary = self.metric_names[0]
        self._template = _template(config)
        self._segments = _segments(config, self._template)
        self._labels = _label_map(config)

    @property
    def outputs(self) -> int:
        """Outputs of a classification head: one a label, or the one that scores each choice."""
        return 1 if self.choices else len(self.words)

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
        if self.config.group_field is not None and (require_label or has_field(row, self.config.group_field)):
            group = field_text(row, self.config.group_field, where)
        segments = tuple(tuple(part.render(row, where) for part in parts) for parts in self._segments)
        return Example(_identity(row, where), self.render(row, where), target, label, group, segments)

    def render(self, row: Mapping[str, Any], where: str) -> str:
        """Fill the template.

        Args:
            row: Field name to value.
            where: File and line, for messages.

        Raises:
            DataError: A field of the template is missing, null or no text.
        """
        return self._template.render(row, where)

    def _target(self, row: Mapping[str, Any], where: str, required: bool) -> tuple[str | None, int | None]:
        name = self.config.label_field
        raw = look_up(row, name, where) if required or has_field(row, name) else None
        if raw is not None and _canonical(raw) in self._labels:
            index = self._labels[_canonical(raw)]
            return self.words[index], index
        if raw in (None, "") or (not self.free_text and _canonical(raw) == "-1"):
            if required:
                raise DataError(f'{where}: unlabelled (field "{name}" is {raw!r}); training and scoring need a label')
            return None, None
        if self.free_text:
            return field_text(row, name, where), None
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
    if task.metric == "matthews" and len(task.words) != 2:
        raise ConfigError(f"task.metric=matthews needs two labels, not {len(task.words)}; use metric=accuracy")


def _check_layout(config: TaskConfig) -> None:
    if config.unroll is not None and config.unroll not in LAYOUTS:
        raise ConfigError(f'task.unroll="{config.unroll}" is unknown; allowed: {", ".join(LAYOUTS)}')


def _template(config: TaskConfig) -> Template:
    template = Template(config.template)
    if not template.fields:
        raise ConfigError(f"task.template={config.template!r} names no field, so every example would read the same")
    return template


def _segments(config: TaskConfig, template: Template) -> tuple[tuple[Template, ...], ...]:
    """The templates of ``task.pair`` or ``task.choices``, by choice; empty without them."""
    if config.pair is not None and config.choices is not None:
        raise ConfigError("task.pair and task.choices are both given; choices have their own pairs, so leave pair out")
    if config.pair is not None:
        return (_texts(config.pair, "task.pair", template),)
    if config.choices is None:
        return ()
    if len(config.choices) != len(config.labels):
        raise ConfigError(
            f"task.choices has {len(config.choices)} entries, and task.labels {len(config.labels)}; give one each"
        )
    return tuple(_texts(parts, f"task.choices[{at}]", template) for at, parts in enumerate(config.choices))


def _texts(parts: Sequence[str], key: str, template: Template) -> tuple[Template, ...]:
    """One text or two. Their fields are among the template's: what the template renders tells examples apart."""
    texts = tuple(Template(part, key) for part in parts)
    if len(texts) not in (1, 2):
        raise ConfigError(f"{key} has {len(texts)} texts; a model reads one, or a pair of two")
    fields = [name for text in texts for name in text.fields]
    if not fields:
        raise ConfigError(f"{key}={list(parts)} names no field, so every example would read the same")
    if absent := [name for name in fields if name not in template.fields]:
        raise ConfigError(f"{key} names the field {absent[0]}, which task.template doesn't; name it there too")
    return texts


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


def _identity(row: Mapping[str, Any], where: str) -> str:
    """The example's own id where it has one."""
    for name in ("idx", "id"):
        value = row.get(name)
        if isinstance(value, Mapping):
            return encodable("-".join(str(part) for part in value.values()), name, where)
        if isinstance(value, str | int) and str(value):
            return encodable(str(value), name, where)
    return where
