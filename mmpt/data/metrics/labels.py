"""Metrics of classification. A prediction that is not a label counts as wrong.

Letters: N examples, C labels, K counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmpt.data.metrics.answers import Answers, Floats
from mmpt.data.metrics.metric import Metric, of_sums, ratio, share, with_ones


def even(classes: int) -> float | None:
    """The share of right answers of guessing evenly."""
    return 1 / classes if classes else None


def _right(answers: Answers) -> Floats:
    return with_ones(answers.right)


def _positive_counts(answers: Answers) -> Floats:
    """(N, 3): right positives, positives of the truth, positives of the predictions; the second label is positive."""
    truth, guess = answers.truth == 1, answers.guess == 1
    return np.stack([truth & guess, truth, guess], axis=1).astype(np.float64)


def _f1(sums: Floats) -> Floats:
    return ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _class_counts(answers: Answers) -> Floats:
    """(N, 3·C): the counts of :func:`_positive_counts` for each label."""
    labels = np.arange(answers.classes)
    truth, guess = answers.truth[:, None] == labels, answers.guess[:, None] == labels
    return np.concatenate([truth & guess, truth, guess], axis=1).astype(np.float64)


def _macro_f1(sums: Floats) -> Floats:
    """The mean of the F1 of labels that occur in the truth or in the predictions."""
    both, truth, guess = np.split(sums, 3, axis=-1)
    return ratio(ratio(2 * both, truth + guess).sum(axis=-1), ((truth + guess) > 0).sum(axis=-1).astype(np.float64))


def _agreement(answers: Answers) -> Floats:
    """(N, 4): one, positive truth, positive prediction, both; a prediction that is not right is the other label."""
    truth = answers.truth
    guess = np.where(answers.right == 1, truth, 1 - truth)
    return np.stack([np.ones_like(truth), truth, guess, truth * guess], axis=1).astype(np.float64)


def _matthews(sums: Floats) -> Floats:
    """The correlation of truth and prediction; 0 where one of them has one label only."""
    total, truth, guess, both = (sums[..., index] for index in range(4))
    return ratio(total * both - truth * guess, np.sqrt(truth * (total - truth) * guess * (total - guess)))


def _whole_groups(answers: Answers) -> Floats:
    """(N, 2): at the first example of each group, whether the whole group is right, and 1."""
    wrong = np.bincount(answers.groups, weights=1 - answers.right)
    first = np.zeros(len(answers.groups))
    first[np.unique(answers.groups, return_index=True)[1]] = 1
    return np.stack([first * (wrong[answers.groups] == 0), first], axis=1)


ACCURACY = Metric("accuracy", _right, of_sums(share), even)
EXACT_MATCH = Metric("exact_match", _right, of_sums(share), even)
WHOLE_GROUPS = Metric("em", _whole_groups, of_sums(share))
MATTHEWS = Metric("matthews", _agreement, of_sums(_matthews), lambda classes: 0.0, range=(-1.0, 1.0))
# results of CB and MultiRC have had names of their own for the two F1 since the first version
F1 = Metric("f1", _positive_counts, of_sums(_f1))
F1_ANSWERS = replace(F1, name="f1a")
F1_MACRO = Metric("f1_macro", _class_counts, of_sums(_macro_f1))
MACRO_F1 = replace(F1_MACRO, name="macro_f1")
CB_F1 = replace(F1_MACRO, name="f1")
