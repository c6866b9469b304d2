"""Metrics: one table of names, scores of a split, and what a score is compared with. Imports no numpy until used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmpt.data.metrics.forms import normalise
from mmpt.data.metrics.table import TABLE, check, find, known, source_file

if TYPE_CHECKING:
    from mmpt.data.metrics.answers import Answers, label_indices
    from mmpt.data.metrics.metric import Metric, of_sums
    from mmpt.data.metrics.scoring import chance, interval, majority, score, try_own

_HOMES = {
    "answers": ("Answers", "label_indices"),
    "metric": ("Metric", "of_sums"),
    "scoring": ("chance", "interval", "majority", "score", "try_own"),
}

__all__ = [
    "TABLE",
    "Answers",
    "Metric",
    "chance",
    "check",
    "find",
    "interval",
    "known",
    "label_indices",
    "majority",
    "normalise",
    "of_sums",
    "score",
    "source_file",
    "try_own",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mmpt.data.metrics.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
