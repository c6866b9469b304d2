"""Metrics: one table of names, scores of a split, and what a score is compared with. Imports no torch."""

from mmpt.data.metrics.answers import Answers, label_indices, normalise
from mmpt.data.metrics.metric import Metric, of_sums
from mmpt.data.metrics.scoring import chance, interval, majority, score
from mmpt.data.metrics.table import TABLE, find, source_file

__all__ = [
    "TABLE",
    "Answers",
    "Metric",
    "chance",
    "find",
    "interval",
    "label_indices",
    "majority",
    "normalise",
    "of_sums",
    "score",
    "source_file",
]
