"""The table of metrics: what ``task.metric`` may be, and what each reports. Imports no numpy until metrics are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mmpt.config.schema import TaskConfig
from mmpt.data.metrics.forms import is_number
from mmpt.errors import ConfigError, nearest
from mmpt.utils import extensions

if TYPE_CHECKING:
    from mmpt.data.metrics.metric import Metric


@dataclass(frozen=True)
class Row:
    """One name of the table.

    Attributes:
        metrics: What it reports, as ``module:NAME`` in ``mmpt.data.metrics``; the primary metric first.
        needs: Conditions on the task, keys of ``NEEDS``.
    """

    metrics: tuple[str, ...]
    needs: tuple[str, ...] = ()


TABLE: dict[str, Row] = {
    "accuracy": Row(("labels:ACCURACY",), ("labels",)),
    "f1": Row(("labels:F1", "labels:ACCURACY"), ("two labels",)),
    "f1_macro": Row(("labels:F1_MACRO", "labels:ACCURACY"), ("labels",)),
    "accuracy_f1": Row(("labels:ACCURACY", "labels:CB_F1"), ("labels",)),
    "matthews": Row(("labels:MATTHEWS", "labels:ACCURACY"), ("two labels",)),
    "f1a_em": Row(
        ("labels:F1_ANSWERS", "labels:WHOLE_GROUPS", "labels:MACRO_F1", "labels:ACCURACY"), ("two labels", "groups")
    ),
    "exact_match": Row(("labels:EXACT_MATCH",)),
    "token_f1": Row(("texts:TOKEN_F1", "labels:EXACT_MATCH")),
    "pearson": Row(("numbers:PEARSON",), ("numbers",)),
    "spearman": Row(("numbers:SPEARMAN",), ("numbers",)),
    "pearson_spearman": Row(("numbers:PEARSON", "numbers:SPEARMAN"), ("numbers",)),
    "rouge": Row(("texts:ROUGE_L", "texts:ROUGE_1", "texts:ROUGE_2"), ("rouge_score",)),
    "bleu": Row(("texts:BLEU_SCORE",), ("sacrebleu",)),
}


def _installed(package: str) -> tuple[Callable[[TaskConfig], bool], str]:
    install = "python -m pip install -c constraints.txt -e '.[text]'"
    return lambda task: find_spec(package) is not None, f"the package {package}, which is not installed: {install}"


# condition -> whether a task meets it, and how a message ends that says what is needed
NEEDS: dict[str, tuple[Callable[[TaskConfig], bool], str]] = {
    "labels": (lambda task: bool(task.labels), "task.labels; for free text use task.metric=exact_match or token_f1"),
    "two labels": (lambda task: len(task.labels) == 2, "two task.labels (the second is the positive one)"),
    "groups": (lambda task: task.group_field is not None, "task.group_field"),
    "numbers": (lambda task: all(map(is_number, task.labels)), "task.labels that are numbers, or none"),
    "rouge_score": _installed("rouge_score"),
    "sacrebleu": _installed("sacrebleu"),
}


def check(name: str, task: TaskConfig) -> None:
    """Check the name of a metric, and that a task has what the metric needs.

    Args:
        name: A key of the table, or the name of the user's own file ``DIR/metric/NAME.py``.
        task: The configuration of the task.

    Raises:
        ConfigError: The name is unknown, the user's file is wrong, or the task lacks what the metric needs.
    """
    row = TABLE.get(name)
    needs = tuple(getattr(_own(name), "NEEDS", ())) if row is None else row.needs
    for need in needs:
        if need not in NEEDS:
            raise ConfigError(f"task.metric={name}: NEEDS has {need!r}, which is unknown; allowed: {', '.join(NEEDS)}")
        met, text = NEEDS[need]
        if not met(task):
            raise ConfigError(f"task.metric={name} needs {text}")
    if row is None:
        find(name)


def find(name: str) -> tuple[Metric, ...]:
    """The metrics that a name stands for.

    Args:
        name: A key of the table, or the name of the user's own file. The file sets ``METRIC`` to a
            :class:`mmpt.data.metrics.Metric`, or to a tuple of them, and may set ``NEEDS`` to keys of :data:`NEEDS`.

    Raises:
        ConfigError: The name is unknown, or the user's file is wrong.
    """
    if (row := TABLE.get(name)) is not None:
        parts = (entry.split(":") for entry in row.metrics)
        return tuple(getattr(import_module(f"mmpt.data.metrics.{module}"), constant) for module, constant in parts)
    from mmpt.data.metrics.metric import Metric

    module = _own(name)
    given = getattr(module, "METRIC", None)
    metrics = given if isinstance(given, tuple) else (given,)
    if not metrics or not all(isinstance(metric, Metric) for metric in metrics):
        file = module.__file__
        raise ConfigError(f"metric file {file} must set METRIC to a mmpt.data.metrics.Metric, or to a tuple of them")
    return metrics


@cache
def known() -> dict[str, Metric]:
    """All metrics of the table by the names that results have for them."""
    return {metric.name: metric for name in TABLE for metric in find(name)}


def source_file(name: str) -> Path | None:
    """The user's file that defines a metric; None for the table's own."""
    return None if name in TABLE else extensions.find("metric", name)


def _own(name: str) -> ModuleType:
    module = extensions.load("metric", name)
    if module is None:
        allowed = [*TABLE, *extensions.names("metric")]
        text = f'task.metric="{name}" is unknown; allowed: {", ".join(allowed)}{nearest(name, allowed)}'
        raise ConfigError(text + extensions.hint("metric"))
    return module
