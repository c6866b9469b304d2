"""Several tasks with label words that one adapter learns (``task=mix mix.tasks=[rte,cb]``). Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, cycle, islice, pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mmpt.config.schema import DataConfig, MixConfig, TaskConfig
from mmpt.data.layouts import Rows
from mmpt.data.tasks import Example, Task
from mmpt.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from mmpt.data.sources import Splits

MEAN = "mean"  # of the tasks' primary metrics


class Mixture(Task):
    """Tasks as one task: an example belongs to one of them, whose label words are its candidates.

    Attributes:
        parts: The tasks by name.
        words: The label words of all tasks, each once.
    """

    def __init__(self, config: TaskConfig) -> None:
        """Make a task of each of ``config.parts``.

        Raises:
            ConfigError: One of them is invalid.
        """
        self.config, self.name, self.metric = config, config.name, MEAN
        self.parts = {name: Task(part) for name, part in config.parts.items()}
        self.words = tuple(dict.fromkeys(word for task in self.parts.values() for word in task.words))
        self.free_text = self.choices = False

    @cached_property
    def metric_names(self) -> tuple[str, ...]:
        """The mean of the tasks' primary metrics, then ``TASK/METRIC`` of each task."""
        each = (f"{name}/{metric}" for name, task in self.parts.items() for metric in task.metric_names)
        return (MEAN, *each)

    @property
    def range(self) -> tuple[float, float] | None:
        """That of the mean; None where a task has none, or where their ends are of different sizes."""
        ranges = [task.range for task in self.parts.values()]
        known = [one for one in ranges if one is not None]
        if known != ranges or len({max(map(abs, one)) for one in known}) > 1:
            return None
        return fmean(low for low, _ in known), fmean(high for _, high in known)

    @property
    def fields(self) -> tuple[str, ...]:
        """A row names its task, and has that task's fields."""
        return ("task", *dict.fromkeys(field for task in self.parts.values() for field in task.fields))

    def examples(self, rows: Rows, require_label: bool = True) -> Iterator[Example]:
        """See the base class.

        Raises:
            DataError: As of the base class; or a row names no task of the mixture.
        """
        for where, row in rows:
            if (name := str(row.get("task"))) not in self.parts:
                known = ", ".join(self.parts)
                raise DataError(
                    f'{where}: the field "task" is "{name}"; it must name a task of the mixture: {known}'
                    f"{nearest(name, self.parts)}"
                )
            yield from _belonging(name, self.parts[name].examples([(where, row)], require_label))


def task_of(config: TaskConfig) -> Task:
    """The task of a configuration: a mixture where it has parts.

    Raises:
        ConfigError: It is invalid.
    """
    return Mixture(config) if config.parts else Task(config)


def check_parts(parts: Mapping[str, TaskConfig]) -> None:
    """Refuse what cannot be mixed.

    Raises:
        ConfigError: There is one task alone, or a task has no label words.
    """
    if len(parts) < 2:
        raise ConfigError(f"mix.tasks names {', '.join(parts) or 'no task'}; a mixture needs at least two tasks")
    for name, part in parts.items():
        if not part.labels:
            raise ConfigError(f"mix.tasks has {name}, a task of free text; a mixture needs tasks with labels")


def load_all(task: Task, data: DataConfig, seed: int = 0) -> Splits:
    """The splits of a task, or of all tasks of a mixture one after another.

    ``data.limit_*`` and ``task.shots`` count for each task.

    Raises:
        DataError: As of :func:`mmpt.data.sources.load_splits`.
    """
    from mmpt.data.sources import Splits, load_splits  # imports numpy, which a check of the settings needs not
    from mmpt.data.splits import SPLITS

    if not task.parts:
        return load_splits(task, data, seed)
    shots = task.config.shots
    parts = {name: Task(replace(part.config, shots=shots)) if shots else part for name, part in task.parts.items()}
    each = {name: load_splits(part, data, seed) for name, part in parts.items()}
    joined = {
        split: tuple(example for name, one in each.items() for example in _belonging(name, getattr(one, split)))
        for split in SPLITS
    }
    return Splits(
        **joined,
        fingerprint=hashlib.sha256(
            "".join(f"{name} {one.fingerprint}\n" for name, one in each.items()).encode()
        ).hexdigest(),
        bundled=data.name == "bundled",
        origin=", ".join(dict.fromkeys(one.origin for one in each.values())),
        notes=tuple(f"{name}: {note}" for name, one in each.items() for note in one.notes),
        task=Mixture(replace(task.config, shots=0, parts={name: one.task.config for name, one in each.items()})),
    )


def counts(sizes: Sequence[int], mix: MixConfig) -> list[int]:
    """How many examples of each task an epoch has; as many together as there are.

    Args:
        sizes: Training examples n of each task.
        mix: With ``temperature`` T a task's share is proportional to n^(1/T); ``proportional`` is T = 1, and ``equal``
            gives all tasks the same share.
    """
    power = {"proportional": 1.0, "equal": 0.0, "temperature": 1 / mix.temperature}[mix.sampling]
    weights = [(size / max(sizes)) ** power for size in sizes]  # of a share, so that no power is too large
    ends = [round(sum(sizes) * end / sum(weights)) for end in accumulate(weights, initial=0.0)]
    return [last - first for first, last in pairwise(ends)]


def draw(order: Iterable[int], tasks: Sequence[str], mix: MixConfig) -> list[int]:
    """The examples of an epoch, by task: the first of an order, and these again where a task has too few.

    Args:
        order: Indices of all examples, shuffled.
        tasks: The task of each example.
        mix: How tasks are sampled.
    """
    rows: dict[str, list[int]] = {task: [] for task in dict.fromkeys(tasks)}
    for row in order:
        rows[tasks[row]].append(row)
    numbers = counts([len(each) for each in rows.values()], mix)
    return [row for each, count in zip(rows.values(), numbers, strict=True) for row in islice(cycle(each), count)]


def _belonging(name: str, examples: Iterable[Example]) -> Iterator[Example]:
    for example in examples:
        group: Any = None if example.group is None else f"{name}/{example.group}"
        yield replace(example, task=name, id=f"{name}/{example.id}", group=group)
