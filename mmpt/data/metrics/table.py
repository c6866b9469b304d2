"""The table of metrics: what ``task.metric`` may be, and what each reports, the primary metric first."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

from mmpt.data.metrics.labels import ACCURACY, EXACT_MATCH, GROUP_EXACT_MATCH, MATTHEWS, binary_f1, macro_f1
from mmpt.data.metrics.metric import Metric
from mmpt.data.metrics.numbers import PEARSON, SPEARMAN
from mmpt.data.metrics.texts import BLEU_SCORE, TOKEN_F1, rouge
from mmpt.errors import ConfigError, nearest

TABLE: dict[str, tuple[Metric, ...]] = {
    "accuracy": (ACCURACY,),
    "f1": (binary_f1("f1"), ACCURACY),
    "f1_macro": (macro_f1("f1_macro"), ACCURACY),
    "accuracy_f1": (ACCURACY, macro_f1("f1")),
    "matthews": (MATTHEWS, ACCURACY),
    "f1a_em": (binary_f1("f1a"), GROUP_EXACT_MATCH, macro_f1("macro_f1"), ACCURACY),
    "exact_match": (EXACT_MATCH,),
    "token_f1": (TOKEN_F1, EXACT_MATCH),
    "pearson": (PEARSON,),
    "spearman": (SPEARMAN,),
    "pearson_spearman": (PEARSON, SPEARMAN),
    "rouge": (rouge("rougeL"), rouge("rouge1"), rouge("rouge2")),
    "bleu": (BLEU_SCORE,),
}


class Scorable(Protocol):
    """What a metric needs to know of a task's configuration."""

    labels: Any
    group_field: str | None


def _installed(package: str) -> tuple[Callable[[Scorable], bool], str]:
    install = "python -m pip install -c constraints.txt -e '.[metrics]'"
    return lambda task: find_spec(package) is not None, f"the package {package}, which is not installed: {install}"


# condition -> whether a task meets it, and how a message ends that says what is needed
NEEDS: dict[str, tuple[Callable[[Scorable], bool], str]] = {
    "labels": (lambda task: bool(task.labels), "task.labels; for free text use task.metric=exact_match or token_f1"),
    "two labels": (lambda task: len(task.labels) == 2, "two labels (the second is the positive one)"),
    "groups": (lambda task: task.group_field is not None, "task.group_field"),
    "rouge_score": _installed("rouge_score"),
    "sacrebleu": _installed("sacrebleu"),
}


def find(name: str, task: Scorable) -> tuple[Metric, ...]:
    """The metrics that a task reports.

    Args:
        name: The value of ``task.metric``: a key of the table, or a metric of the user's own.
        task: The configuration of the task.

    Raises:
        ConfigError: The name is unknown, the user's file is wrong, or the task lacks what the metric needs.
    """
    metrics = TABLE.get(name)
    if metrics is None:
        raise ConfigError(f'task.metric="{name}" is unknown; allowed: {", ".join(TABLE)}{nearest(name, TABLE)}')
    for need in dict.fromkeys(need for metric in metrics for need in metric.needs):
        met, text = NEEDS[need]
        if not met(task):
            raise ConfigError(f"task.metric={name} needs {text}")
    return metrics
