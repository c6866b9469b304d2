"""One run as a report sees it, and whether its result counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.report.settings import Settings
from mmpt.runs.result import FORMAT
from mmpt.utils.files import newer_format
from mmpt.utils.untrusted import one_line

Result = dict[str, Any]
LARGEST = 1e30  # no score, size or time is larger; sums and squares of what is smaller stay finite
NEEDED = ("task", "method", "model", "seed", "metric", "scores")
EXPECTED = (
    "data",
    "parameters",
    "timing",
    "memory",
    "steps",
    "epochs",
    "config_fingerprint",
    "data_fingerprint",
    "backbone_fingerprint",
    "versions",
    "warnings",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One trial, whatever came of it."""

    name: str  # of the run directory, or FILE:LINE
    status: str  # done, running, killed, interrupted, failed, damaged
    result: Result = field(default_factory=dict)  # empty where there is none
    settings: Settings | None = None  # None where only a result is known
    seed: int | None = None
    place: Path | None = None  # the run directory
    problem: str = ""  # why it doesn't count, or what is wrong with it although it does
    names: Mapping[str, str] = field(default_factory=dict)  # task, method and model where nothing else tells them

    def known(self, name: str) -> str:
        """``task``, ``method`` or ``model``, from the result or the settings; ``?`` where neither says."""
        if isinstance(value := self.result.get(name), str):
            return one_line(value)
        group = self.settings.values.get(name) if self.settings is not None else None
        value = group.get("name") if isinstance(group, Mapping) else group
        return one_line(value if isinstance(value, str) else self.names.get(name, "?"))

    @property
    def metric(self) -> str:
        """The primary metric."""
        return one_line(self.result.get("metric", "?"))

    def score(self, split: str = "test") -> float | None:
        """The primary metric on a split; None where there is none."""
        return number(self.result, "scores", split, self.metric)

    @property
    def fingerprint(self) -> str:
        """Hash of configuration and data, or nothing."""
        value = self.result.get("config_fingerprint")
        return value if isinstance(value, str) else ""


def number(values: Any, *path: Any) -> float | None:
    """Follow keys into nested mappings of unknown origin.

    Args:
        values: Plain JSON values.
        path: Keys, outermost first.

    Returns:
        The number there; None where something else is, or a number that can't be a measurement: not finite, or huge.
    """
    for name in path:
        if not isinstance(values, Mapping) or not isinstance(name, str):
            return None
        values = values.get(name)
    if isinstance(values, bool) or not isinstance(values, int | float):
        return None
    return values if -LARGEST < values < LARGEST else None


def from_result(name: str, result: Result, place: Path | None = None) -> Run:
    """Make a run of a result, such as ``result.json`` or what ``run_experiment`` gives.

    Args:
        name: What to call it.
        result: As ``result.schema.json`` says; ``config``, where it has one, holds the resolved configuration.
        place: The run directory.

    Returns:
        The run; ``damaged`` where the result lacks what a row needs.
    """
    config = result.get("config")
    settings = Settings.of(config) if isinstance(config, Mapping) else None
    plain = {key: value for key, value in result.items() if key != "config"}
    return checked(Run(name, "done", plain, settings, None, place))


def checked(run: Run) -> Run:
    """Say what a run's result lacks: without what a row needs it is damaged, without the rest of an older format."""
    result, problem = run.result, run.problem
    if newer := newer_format(result, FORMAT):
        return Run(run.name, "damaged", {}, run.settings, run.seed, run.place, f"its result {newer}")
    if missing := [name for name in NEEDED if name not in result]:
        why = f"its result lacks {', '.join(missing)}"
        return Run(run.name, "damaged", {}, run.settings, run.seed, run.place, why)
    seed = whole_number(result["seed"])
    if missing := [name for name in EXPECTED if name not in result]:
        problem = f"older format, without {', '.join(missing)}"
    whole = Run(run.name, "done", result, run.settings, seed, run.place, problem)
    if seed is None:
        return Run(run.name, "damaged", {}, run.settings, None, run.place, "its seed is no whole number")
    if whole.score() is None:
        why = f"its test score ({whole.metric}) is missing or not a number"
        return Run(run.name, "damaged", result, run.settings, seed, run.place, why)
    return whole


def whole_number(value: Any) -> int | None:
    """A seed of unknown origin; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
