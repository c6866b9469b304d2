"""Scores of a split's predictions, with an interval, a majority baseline and the chance level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mmpt.data.columns import values
from mmpt.data.metrics.answers import Answers, Ints, label_indices
from mmpt.data.metrics.table import source_file
from mmpt.errors import ConfigError, DataError, MmptError
from mmpt.utils import extensions

if TYPE_CHECKING:
    from mmpt.data.tasks import Example, Task

_TRIED = 200  # examples of a split that a metric of the user's is tried on


def score(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
    """Every metric of the task.

    Args:
        task: The task.
        examples: N labelled examples.
        predictions: N predicted label words or generated texts.

    Returns:
        Metric name to value, the primary one first. Values lie in [0, 1], of correlations in [-1, 1]. Of a mixture: the
        mean of the tasks' primary metrics, then ``TASK/METRIC`` of each task.

    Raises:
        DataError: The numbers differ, there is nothing to score, or an example has no label.
    """
    if task.parts:
        each = {part.name: score(part, own, texts) for part, own, texts in _by_task(task, examples, predictions)}
        mean = float(np.mean([next(iter(values.values())) for values in each.values()]))
        return {
            task.primary: mean,
            **{f"{name}/{key}": value for name, values in each.items() for key, value in values.items()},
        }
    answers = _answers(task, examples, predictions)
    with _blaming_own(task):
        return {metric.name: metric.of(answers) for metric in task.metrics}


def interval(
    task: Task,
    examples: Sequence[Example],
    predictions: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float] | None:
    """Percentile bootstrap of the primary metric; None without resamples. Of a mixture, each task is drawn from.

    Raises:
        DataError: As of :func:`score`.
    """
    drawn = []
    for number, (part, own, texts) in enumerate(_by_task(task, examples, predictions)) if resamples else ():
        answers = _answers(part, own, texts)
        with _blaming_own(part):  # tasks of a mixture are drawn from apart
            drawn.append(part.metrics[0].resample(answers, resamples, [seed, number] if task.parts else seed))
    if not drawn:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.mean(drawn, axis=0), [tail, 1 - tail])
    return float(low), float(high)


def majority(task: Task, train: Sequence[Example], examples: Sequence[Example]) -> list[str]:
    """What always answering the most frequent target predicts.

    Args:
        task: The task.
        train: Examples whose targets are counted; of equals the first label word, or the first seen, wins.
        examples: N examples to predict.

    Returns:
        N times that target.
    """
    if task.parts:
        train_of = {part.name: rows for part, rows, _ in _by_task(task, train, [""] * len(train))}
        each = {name: majority(task.parts[name], rows, [examples[0]])[0] for name, rows in train_of.items()}
        return [each[example.task or ""] for example in examples]
    counts = Counter(target for (target,) in values(train, "target") if target is not None)
    if not counts:
        raise DataError(f'task "{task.name}": no labelled example to take a majority of')
    order = {word: index for index, word in enumerate(task.words)}
    word = min(counts, key=lambda target: (-counts[target], order.get(target, 0)))
    return [word] * len(examples)


def chance(task: Task) -> float | None:
    """The primary metric of guessing labels evenly; None where it depends on the data."""
    if task.parts:
        levels = [level for part in task.parts.values() if (level := chance(part)) is not None]
        return sum(levels) / len(levels) if len(levels) == len(task.parts) else None
    with _blaming_own(task):
        return task.metrics[0].chance(len(task.words))


def try_own(task: Task, splits: Sequence[Sequence[Example]], *, generates: bool, resamples: int) -> None:
    """Let the user's own metric score targets of each split, then a wrong answer too, so that it fails before training.

    Args:
        task: The task, or a mixture.
        splits: What will be scored.
        generates: Whether answers are generated, so that they may be any text, an empty one too.
        resamples: Of the bootstrap.

    Raises:
        ConfigError: The metric's own code fails.
    """
    for name, part in task.parts.items() or [(None, task)]:
        if source_file(part.metric) is None:
            continue
        chance(part)
        for split in splits:
            examples = list(islice((example for example in split if example.task == name), _TRIED))
            targets = [example.target or "" for example in examples]
            others = [""] if generates else [word for word in part.words if word not in targets[:1]]
            for texts in (targets, [*others[:1], *targets[1:]]):
                score(part, examples, texts)
                interval(part, examples, texts, resamples=min(resamples, 2), confidence=0.5, seed=0)


@contextmanager
def _blaming_own(task: Task) -> Iterator[None]:
    """Turn what fails in a metric of the user's into one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MmptError) or (file := source_file(task.metric)) is None:
            raise
        raise ConfigError(f"task.metric={task.metric} {extensions.raised(error)}; correct {file}") from error


Parts = Iterator[tuple["Task", list["Example"], list[str]]]


def _by_task(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Parts:
    """The task, or each task of a mixture, with its examples and their predictions."""
    if not task.parts:
        yield task, list(examples), list(predictions)
    for name, part in task.parts.items():
        rows = [(one, text) for one, text in zip(examples, predictions, strict=True) if one.task == name]
        yield part, [one for one, _ in rows], [text for _, text in rows]


def _answers(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Answers:
    if len(examples) != len(predictions):
        raise DataError(f'task "{task.name}": {len(predictions)} predictions for {len(examples)} examples')
    if not examples:
        raise DataError(f'task "{task.name}": no examples to score')
    if (unlabelled := next((example.id for example in examples if example.target is None), None)) is not None:
        raise DataError(f'task "{task.name}": example {unlabelled} is unlabelled and cannot be scored')
    labels = [-1 if example.label is None else example.label for example in examples]
    return Answers(
        targets=tuple(example.target or "" for example in examples),
        predictions=tuple(predictions),
        truth=np.array(labels, dtype=np.int64),
        guess=label_indices(task.words, predictions),
        groups=_group_numbers(examples),
        classes=len(task.words),
    )


def _group_numbers(examples: Sequence[Example]) -> Ints:
    """(N,) the number of each example's group; of the example itself without groups."""
    numbers: dict[object, int] = {}
    keys = (number if example.group is None else example.group for number, example in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
