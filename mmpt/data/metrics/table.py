"""The table of metrics: what ``task.metric`` may be, and what each reports, the primary metric first."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mmpt.config.schema import TaskConfig
from mmpt.data.metrics.labels import ACCURACY, EXACT_MATCH, GROUP_EXACT_MATCH, MATTHEWS, binary_f1, macro_f1
from mmpt.data.metrics.metric import Metric
from mmpt.data.metrics.numbers import PEARSON, SPEARMAN
from mmpt.data.metrics.texts import BLEU_SCORE, TOKEN_F1, rouge
from mmpt.errors import ConfigError, nearest
from mmpt.utils import extensions

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


def _installed(package: str) -> tuple[Callable[[TaskConfig], bool], str]:
    install = "python -m pip install -c constraints.txt -e '.[text]'"
    return lambda task: find_spec(package) is not None, f"the package {package}, which is not installed: {install}"


# condition -> whether a task meets it, and how a message ends that says what is needed
NEEDS: dict[str, tuple[Callable[[TaskConfig], bool], str]] = {
    "labels": (lambda task: bool(task.labels), "task.labels; for free text use task.metric=exact_match or token_f1"),
    "two labels": (lambda task: len(task.labels) == 2, "two labels (the second is the positive one)"),
    "groups": (lambda task: task.group_field is not None, "task.group_field"),
    "rouge_score": _installed("rouge_score"),
    "sacrebleu": _installed("sacrebleu"),
}


def find(name: str, task: TaskConfig) -> tuple[Metric, ...]:
    """The metrics that a task reports.

    Args:
        name: A key of the table, or the name of the user's own file ``DIR/metric/NAME.py``, which sets ``METRIC`` to a
            :class:`Metric`, or to several with the primary one first.
        task: The configuration of the task.

    Raises:
        ConfigError: The name is unknown, the user's file is wrong, or the task lacks what the metric needs.
    """
    metrics = TABLE.get(name) or _own(name)
    for need in dict.fromkeys(need for metric in metrics for need in metric.needs):
        met, text = NEEDS[need]
        if not met(task):
            raise ConfigError(f"task.metric={name} needs {text}")
    return metrics


def source_file(name: str) -> Path | None:
    """The user's file that defines a metric; None for the table's own."""
    return None if name in TABLE else extensions.find("metric", name)


def _own(name: str) -> tuple[Metric, ...]:
    module = extensions.load("metric", name)
    if module is None:
        allowed = [*TABLE, *extensions.names("metric")]
        text = f'task.metric="{name}" is unknown; allowed: {", ".join(allowed)}{nearest(name, allowed)}'
        raise ConfigError(text + extensions.hint("metric"))
    found, file = getattr(module, "METRIC", None), module.__file__
    metrics = found if isinstance(found, tuple) else (found,)
    if not metrics or not all(isinstance(metric, Metric) for metric in metrics):
        raise ConfigError(f"metric file {file} must set METRIC to a mmpt.data.metrics.Metric, or to a tuple of them")
    if unknown := [need for metric in metrics for need in metric.needs if need not in NEEDS]:
        raise ConfigError(f"metric file {file}: needs={unknown[0]!r} is unknown; allowed: {', '.join(NEEDS)}")
    return metrics
