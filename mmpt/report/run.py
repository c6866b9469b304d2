"""One run as a report sees it, and whether its result counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from mmpt.data.metrics import known
from mmpt.report.settings import Settings
from mmpt.runs.result import FORMAT, Result
from mmpt.utils.files import newer_format
from mmpt.utils.untrusted import one_line

NEEDED = ("task", "method", "model", "seed", "metric", "scores")  # a row cannot do without them
OPTIONAL = ("status", "format", "metric_range", "own_code", "processes")  # a result without them is not older


@dataclass(frozen=True, slots=True)
class Run:
    """One trial, whatever came of it."""

    name: str  # of the run directory, or FILE:LINE
    status: str  # ``done``, ``running``, ``killed``, ``interrupted``, ``failed``, ``damaged`` or ``repeated``
    result: Result | None = None
    settings: Settings | None = None  # None where only a result is known
    seed: int | None = None
    directory: Path | None = None  # the run directory; None where the run comes from a file
    problem: str = ""  # why the run does not count, or what is wrong with it although it does
    names: Mapping[str, str] = field(default_factory=dict)  # of task, method, model where nothing else says them

    def known(self, name: str) -> str:
        """``task``, ``method`` or ``model``; ``?`` where nothing says it."""
        several = (getattr(self.result, name, None), self.group(name).get("name"), self.names.get(name))
        return one_line(next((value for value in several if isinstance(value, str)), "?"))

    def group(self, name: str) -> Mapping[str, Any]:
        """One group of the configuration; empty where there is none. A plain value counts as its name."""
        value = None if self.settings is None else self.settings.values.get(name)
        return value if isinstance(value, Mapping) else {} if value is None else {"name": value}

    @property
    def metric(self) -> str:
        """The primary metric."""
        return one_line(self.result.metric if self.result is not None and self.result.metric is not None else "?")

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest value of the metric; None where there are none, or nothing says them."""
        if self.result is None:
            return None
        metric = known().get(self.metric)
        low, high = self.result.metric_range or (metric and metric.range) or (0.0, 0.0)
        return (low, high) if low < high else None

    def score(self, split: str = "test") -> float | None:
        """The primary metric on a split; None where there is none."""
        return None if self.result is None else self.result.score(split)

    def number(self, path: str) -> float | None:
        """A number of the result, by a path such as ``timing.train_s``; None where it is not known."""
        return None if self.result is None else attrgetter(path)(self.result)

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration, or nothing."""
        return (self.result.config_fingerprint if self.result is not None else None) or ""


def from_content(run: Run, content: Mapping[str, Any]) -> Run:
    """Add the content of a result file to a run.

    Args:
        run: What is known without the result.
        content: JSON of any origin; ``config``, where it has that key, is the resolved configuration.

    Returns:
        The run, done; or damaged, with a problem, where the result lacks what a row needs.
    """
    if newer := newer_format(content, FORMAT):
        return replace(run, status="damaged", problem=f"its result {newer}")
    result = Result.from_dict(content)
    settings = Settings.of(result.config) if result.config is not None and run.settings is None else run.settings
    run = replace(run, result=replace(result, config=None), settings=settings, status="damaged")
    if missing := [name for name in NEEDED if name in result.absent]:
        return replace(run, result=None, problem=f"its result lacks {', '.join(missing)}")
    if result.seed is None:
        return replace(run, seed=None, problem="its seed is not a whole number")
    run = replace(run, seed=result.seed)
    if run.score() is None:
        return replace(run, problem=f"its test score ({run.metric}) is missing or not a number{run.problem}")
    missing = [name for name in result.absent if name not in OPTIONAL]
    older = f"older format, without {', '.join(missing)}"
    return replace(run, status="done", problem=older if missing else run.problem)
