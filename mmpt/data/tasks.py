"""A task: a template that makes the source text, and a label map that makes the target. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mmpt.config.schema import CsvConfig, TaskConfig
from mmpt.data.label_map import UNLABELLED, LabelMap, canonical, is_missing
from mmpt.data.layouts import LAYOUTS, Rows
from mmpt.data.metrics.forms import nfc
from mmpt.data.metrics.table import check, find
from mmpt.data.templates import MissingError, Template, encodable, field_text, has_field, look_up, nfc_names
from mmpt.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from mmpt.data.metrics.metric import Metric


@dataclass(frozen=True)
class Example:
    """One rendered example."""

    id: str  # its idx or id in the data, else where it was read
    source: str  # the text that models which write text read
    target: str | None  # the label word or the free text to produce; None where unlabelled
    label: int | None  # index of the target in Task.words; None for free text and where unlabelled
    group: str | None  # what is scored and split as one (a MultiRC question); None without group_field
    # what models with a classification head read: one text or two, for each choice where task.choices has some; empty
    # where the task does not define it, and they read source
    segments: tuple[tuple[str, ...], ...] = ()
    task: str | None = None  # its task in a mixture


class Task:
    """Turns raw rows into examples, and knows the metrics.

    Attributes:
        name: Name of the task.
        words: Label words in the order of the configuration; empty for free text.
        free_text: Whether the target is free text.
        choices: Whether a classification head scores each label's own text, instead of one text for all labels.
        metric: The name of its row in the table of metrics; ``accuracy`` of free text is ``exact_match``.
        parts: The tasks of a mixture by name.
    """

    parts: Mapping[str, Task] = MappingProxyType({})

    def __init__(self, config: TaskConfig) -> None:
        """Check the definition once, so that rows are only looked up.

        Args:
            config: The task as data.

        Raises:
            ConfigError: The template, the labels or the metric are invalid.
        """
        self.config = config
        self.name = config.name
        self._labels = LabelMap(config.labels)
        self.words = self._labels.words
        self.free_text = not self.words
        self.choices = config.choices is not None
        self.metric = "exact_match" if self.free_text and config.metric == "accuracy" else config.metric
        check(self.metric, config)
        if config.unroll is not None and config.unroll not in LAYOUTS:
            raise ConfigError(f'task.unroll="{config.unroll}" is unknown; allowed: {", ".join(LAYOUTS)}')
        self._template = Template(config.template)
        if not self._template.fields:
            raise ConfigError(f"task.template={config.template!r} names no field, so all examples would be equal")
        self._segments = _segments(config, self._template)
        self._label_field = nfc(config.label_field)
        _ = self.csv  # checked too
        self._group_field = None if config.group_field is None else nfc(config.group_field)

    @cached_property
    def csv(self) -> CsvConfig:
        """How the task's csv and tsv files are written."""
        form = self.config.csv
        delimiter = {"\\t": "\t", "tab": "\t"}.get(form.delimiter or "", form.delimiter)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ConfigError(f"task.csv.delimiter={form.delimiter!r} must be one character, and no quote or line end")
        return replace(form, delimiter=delimiter, columns=form.columns or self.config.columns)

    def is_row(self, cells: Mapping[str, str]) -> bool:
        """Whether the cells of a line have a label, so that the line could be a row of its own."""
        raw = cells.get(self._label_field)
        return raw is not None and (self.free_text or self._labels.find(raw) is not None)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """What is reported. The first one, ``primary``, selects checkpoints and has an interval."""
        return find(self.metric)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that results have for them."""
        return tuple(metric.name for metric in self.metrics)

    @property
    def primary(self) -> str:
        """The name of the first one."""
        return self.metric_names[0]

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest value of the first one; None where there are none."""
        return self.metrics[0].range

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template names."""
        return tuple(dict.fromkeys(self._template.fields))

    def of(self, example: Example) -> Task:
        """The task that an example belongs to, this one or one of its parts."""
        return self if example.task is None else self.parts[example.task]

    @property
    def outputs(self) -> int:
        """Outputs of a classification head: one for each label, or the one that scores each choice."""
        return 1 if self.choices else len(self.words)

    def examples(self, rows: Rows, require_label: bool = True) -> Iterator[Example]:
        """Render rows in file order, after unrolling a nested official layout.

        Args:
            rows: Pairs of where a row was read and the row.
            require_label: Whether a row without label is an error.

        Yields:
            One example for each row; with ``task.missing=skip``, for each that is complete.

        Raises:
            DataError: As of :meth:`example`.
        """
        for example in self.checked(rows, require_label):
            if example is not None:
                yield example

    def checked(self, rows: Rows, require_label: bool = True) -> Iterator[Example | None]:
        """The same, with None for each row that ``task.missing=skip`` leaves out."""
        if self.config.unroll is not None:
            rows = LAYOUTS[self.config.unroll](rows)
        for where, row in rows:
            try:
                yield self.example(row, where, require_label)
            except MissingError:
                if self.config.missing != "skip" or not require_label:
                    raise
                yield None

    def example(self, row: Mapping[str, Any], where: str, require_label: bool = True) -> Example:
        """Render one flat row.

        Args:
            row: Field name to value; nested fields have dotted names.
            where: File and line, for messages.
            require_label: Whether a row without label, or with an empty text, is an error.

        Raises:
            MissingError: A value is null, NaN, infinite or empty; the label is missing.
            DataError: There is no such field, or it is not text; the label is unknown.
        """
        row = nfc_names(row, where)
        empty = "fill" if self.config.missing == "empty" else "error" if require_label else "text"
        target, label = self._target(row, where, require_label)
        group = None
        if self._group_field is not None and (require_label or has_field(row, self._group_field)):
            group = field_text(row, self._group_field, where)
        segments = tuple(tuple(part.render(row, where, empty) for part in parts) for parts in self._segments)
        source = self._template.render(row, where, empty)
        return Example(_identity(row, where), source, target, label, group, segments)

    def _target(self, row: Mapping[str, Any], where: str, required: bool) -> tuple[str | None, int | None]:
        name = self._label_field
        raw = look_up(row, name, where) if required or has_field(row, name) else None
        if (index := self._labels.find(raw)) is not None:
            return self.words[index], index
        if is_missing(raw) or (not self.free_text and canonical(raw) in UNLABELLED):
            if required:
                text = f'{where}: unlabelled (field "{name}" is {raw!r}); training and scoring need a label'
                raise MissingError(f"{text} (task.missing=skip leaves such rows out)")
            return None, None
        if self.free_text:
            return self._free_target(field_text(row, name, where), where), None
        raise DataError(
            f'{where}: unknown label {raw!r} in field "{name}"; allowed: {", ".join(self.words)}'
            f"{nearest(raw, self.words)} (task.labels maps raw values; in YAML, numbers such as 01 need quotes)"
        )

    def _free_target(self, text: str, where: str) -> str:
        if (unfit := next((metric for metric in self.metrics if not metric.target(text)), None)) is not None:
            field = f'in field "{self._label_field}"'
            raise DataError(
                f'{where}: {unfit.name} cannot score the target "{text}" {field}; choose another task.metric'
            )
        return text


def _segments(config: TaskConfig, template: Template) -> tuple[tuple[Template, ...], ...]:
    """The templates of ``task.pair``, or those of ``task.choices`` for each choice; empty without them."""
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
    return tuple(_texts(parts, f"task.choices[{index}]", template) for index, parts in enumerate(config.choices))


def _texts(parts: Sequence[str], key: str, template: Template) -> tuple[Template, ...]:
    """One text or two. Their fields are among the template's: what the template renders tells examples apart."""
    texts = tuple(Template(part, key) for part in parts)
    if len(texts) not in (1, 2):
        raise ConfigError(f"{key} has {len(texts)} texts; a model reads one, or a pair of two")
    fields = [name for text in texts for name in text.fields]
    if not fields:
        raise ConfigError(f"{key}={list(parts)} names no field, so all examples would be equal")
    if absent := [name for name in fields if name not in template.fields]:
        raise ConfigError(f"{key} names the field {absent[0]}, which task.template does not; name it there too")
    return texts


def _identity(row: Mapping[str, Any], where: str) -> str:
    """The example's own id, where it has one."""
    for name in ("idx", "id"):
        value = row.get(name)
        if isinstance(value, Mapping):
            return encodable("-".join(str(part) for part in value.values()), name, where)
        if isinstance(value, str | int) and str(value):
            return encodable(str(value), name, where)
    return where
