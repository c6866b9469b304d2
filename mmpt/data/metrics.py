"""Scores from predicted texts, bootstrap intervals, and what they are compared with. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Only what surrounds an answer goes. Inside, and in front of a number, a sign carries meaning:
# not_entailment is no entailment, -5 no 5, 3.5 no 35.
_LEADING = " \t\"'`([{<“”‘’„«"
_TRAILING = " \t\"'`)]}>“”‘’»…。.,;:!?"


def normalise(text: str) -> str:
    """Fold what doesn't change an answer: case, runs of spaces, punctuation and quotes around it.

    Args:
        text: A prediction or a target.
    """
    folded = " ".join(text.split()).casefold()
    return folded.lstrip(_LEADING).rstrip(_TRAILING) or folded


def label_indices(task: Task, texts: Sequence[str]) -> Ints:
    """The label each text means.

    Args:
        task: A task with labels. Where folding would merge two words, texts are only stripped.
        texts: N predictions.

    Returns:
        (N,) int64, -1 where a text is no label.
    """
    fold: Callable[[str], str] = normalise
    if len({normalise(word) for word in task.words}) < len(task.words):
        fold = str.strip
    known = {fold(word): index for index, word in enumerate(task.words)}
    return np.array([known.get(fold(text), -1) for text in texts], dtype=np.int64)


def score(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
    """Every metric of the task.

    ``accuracy``, ``exact_match``: share of right answers. ``f1`` (CB): unweighted mean over labels that occur in
    truth or prediction. ``f1a`` (MultiRC): F1 of the second label over all answers; ``em``: share of questions with
    every answer right; ``macro_f1``: mean of both labels' F1 over all answers. ``matthews`` (CoLA): the correlation of
    truth and prediction, 0 where either has one label alone.

    Args:
        task: The task.
        examples: N labelled examples.
        predictions: N predicted label words or generated texts; what is no label counts as wrong.

    Returns:
        Metric name to value in [0, 1] (``matthews``: in [-1, 1]), the primary one first.

    Raises:
        DataError: The numbers differ, there is nothing to score, or an example has no label.
    """
    right = _right(task, examples, predictions)
    values = {"accuracy": float(right.mean()), "exact_match": float(right.mean())}
    if task.metric in ("accuracy_f1", "f1a_em"):
        truth, guess = _labels(examples), label_indices(task, predictions)
        macro = _f1(truth, guess)
        values |= {"f1": macro, "macro_f1": macro}
        if task.metric == "f1a_em":
            values["f1a"] = float(_f1a(_answer_counts(truth, guess).sum(axis=0)))
            units = _units(examples)
            values["em"] = float((np.bincount(units, weights=1 - right) == 0).mean())
    if task.metric == "matthews":
        values["matthews"] = float(_matthews(_agreement(_labels(examples), right).sum(axis=0)))
    return {name: values[name] for name in task.metric_names}


def interval(
    task: Task,
    examples: Sequence[Example],
    predictions: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the primary metric; whole groups are drawn where examples have groups.

    Args:
        task: The task.
        examples: N labelled examples.
        predictions: N predictions.
        resamples: How many resamples; 0: none.
        confidence: Share of resamples inside the interval, in (0, 1).
        seed: Seed of the draws.

    Returns:
        Low and high; None without resamples.

    Raises:
        DataError: As of :func:`score`.
    """
    right = _right(task, examples, predictions)
    if resamples == 0:
        return None
    if task.primary == "f1a":
        counts, value = _answer_counts(_labels(examples), label_indices(task, predictions)), _f1a
    elif task.primary == "matthews":
        counts, value = _agreement(_labels(examples), right), _matthews
    else:
        counts, value = np.stack([right, np.ones_like(right)], axis=1), _share
    units = _units(examples)
    columns = [np.bincount(units, weights=column) for column in counts.T]
    sums = np.stack(columns, axis=1).astype(np.float64)  # (G, K)
    rng = np.random.default_rng(seed)
    values = np.concatenate([value(part) for part in _resampled(sums, resamples, rng)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def majority(task: Task, train: Sequence[Example], examples: Sequence[Example]) -> list[str]:
    """What always answering the commonest target predicts.

    Args:
        task: The task.
        train: Examples whose targets are counted; of equals the first label word, or the first seen, wins.
        examples: N examples to predict.

    Returns:
        N times that target.
    """
    counts = Counter(example.target for example in train if example.target is not None)
    if not counts:
        raise DataError(f'task "{task.name}": no labelled example to take a majority of')
    order = {word: index for index, word in enumerate(task.words)}
    word = min(counts, key=lambda target: (-counts[target], order.get(target, 0)))
    return [word] * len(examples)


def chance(task: Task) -> float | None:
    """Expected primary metric of guessing labels evenly; None where it depends on the data.

    Args:
        task: The task.
    """
    if task.primary == "matthews":
        return 0.0
    return None if task.free_text or task.primary == "f1a" else 1 / len(task.words)


def _right(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Floats:
    """(N,) 1.0 where the prediction is the target."""
    if len(examples) != len(predictions):
        raise DataError(f'task "{task.name}": {len(predictions)} predictions for {len(examples)} examples')
    if not examples:
        raise DataError(f'task "{task.name}": no examples to score')
    unlabelled = next((example.id for example in examples if example.target is None), None)
    if unlabelled is not None:
        raise DataError(f'task "{task.name}": example {unlabelled} is unlabelled and can\'t be scored')
    if not task.free_text:
        return (label_indices(task, predictions) == _labels(examples)).astype(np.float64)
    targets = (example.target or "" for example in examples)
    pairs = zip(targets, predictions, strict=True)
    return np.array([normalise(target) == normalise(text) for target, text in pairs], dtype=np.float64)


def _labels(examples: Sequence[Example]) -> Ints:
    return np.array([-1 if example.label is None else example.label for example in examples], dtype=np.int64)


def _units(examples: Sequence[Example]) -> Ints:
    """(N,) number of the group of each example; of itself without groups."""
    numbers: dict[object, int] = {}
    keys = (number if example.group is None else example.group for number, example in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _f1(truth: Ints, guess: Ints) -> float:
    from sklearn.metrics import f1_score  # takes a second to import

    present = sorted(set(truth.tolist()) | set(guess.tolist()) - {-1})
    return float(f1_score(truth, guess, labels=present, average="macro", zero_division=0.0))


def _answer_counts(truth: Ints, guess: Ints) -> Floats:
    """(N, 3) true positives, positives in truth, positives in prediction; the second label is the positive one."""
    return np.stack([(truth == 1) & (guess == 1), truth == 1, guess == 1], axis=1).astype(np.float64)


def _f1a(counts: Floats) -> Floats:
    """F1 from sums of ``_answer_counts`` over the last axis; 0 where there is no positive at all."""
    total = counts[..., 1] + counts[..., 2]
    return np.divide(2 * counts[..., 0], total, out=np.zeros_like(total), where=total > 0)


def _agreement(truth: Ints, right: Floats) -> Floats:
    """(N, 4) ones, positives in truth, in prediction, in both; of two labels, what isn't right is the other one."""
    guess = np.where(right == 1, truth, 1 - truth)
    return np.stack([np.ones_like(truth), truth, guess, truth * guess], axis=1).astype(np.float64)


def _matthews(counts: Floats) -> Floats:
    """Correlation from sums of ``_agreement`` over the last axis; 0 where truth or prediction doesn't vary."""
    total, truth, guess, both = (counts[..., index] for index in range(4))
    spread = np.sqrt(truth * (total - truth) * guess * (total - guess))
    return np.divide(total * both - truth * guess, spread, out=np.zeros_like(total), where=spread > 0)


def _share(counts: Floats) -> Floats:
    return counts[..., 0] / counts[..., 1]


def _resampled(sums: Floats, resamples: int, rng: np.random.Generator) -> list[Floats]:
    """Sums over G units drawn with replacement, (resamples, K), in parts that bound the memory."""
    size = max(1, 2_000_000 // len(sums))
    parts = []
    for start in range(0, resamples, size):
        drawn = rng.integers(0, len(sums), size=(min(size, resamples - start), len(sums)))
        parts.append(np.stack([column[drawn].sum(axis=1) for column in sums.T], axis=1))
    return parts
