"""The table at the end of a sweep: the best setting of each task first, seeds averaged, failed trials shown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from mmpt.runs.result import Result
from mmpt.sweep.ledger import Outcome
from mmpt.utils.untrusted import one_line


def score(outcome: Outcome, split: str = "validation") -> float | None:
    """The primary score of a trial's split; None where there is none."""
    return None if outcome.result is None else Result.from_dict(outcome.result).score(split)


def ranked(outcomes: Sequence[Outcome]) -> str:
    """Rank settings by their mean validation score, within each task.

    Args:
        outcomes: How the trials ended.

    Returns:
        A Markdown table; nothing in it depends on time, so a sweep that was interrupted ends with the same one.
    """
    shared = set.intersection(*(set(outcome.overrides.split()) for outcome in outcomes)) if outcomes else set()
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.result is not None:
            task, metric = outcome.result.get("task"), outcome.result.get("metric")
            groups[f"{task} ({metric})", _setting(outcome, shared)].append(outcome)
    lines = ["| rank | task | setting | validation, mean ± sd | test, mean ± sd | seeds |", "|---|---|---|---|---|---|"]
    rank, before = 0, ""
    for (task, setting), runs in sorted(groups.items(), key=lambda item: (item[0][0], -_mean(item[1]), item[0][1])):
        rank, before = (rank + 1 if task == before else 1), task
        figures = [_spread([score(run, split) for run in runs]) for split in ("validation", "test")]
        lines.append(f"| {rank} | {task} | {setting} | {figures[0]} | {figures[1]} | {len(runs)} |")
    for outcome in outcomes:
        if outcome.result is None:
            lines.append(f"| – | | {_words(outcome, shared)} | {outcome.state} | | |")
    return "\n".join(map(one_line, lines)) + "\n"


def _setting(outcome: Outcome, shared: set[str]) -> str:
    words = [word for word in _words(outcome, shared).split() if not word.startswith(("seed=", "task="))]
    return " ".join(words) or str((outcome.result or {}).get("method"))


def _words(outcome: Outcome, shared: set[str]) -> str:
    """What sets a trial apart from the others."""
    return " ".join(word for word in outcome.overrides.split() if word not in shared)


def _mean(runs: Sequence[Outcome]) -> float:
    return statistics.mean(score(run) or 0.0 for run in runs)


def _spread(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "none"
    return f"{statistics.mean(found):.3f}" + (f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else "")
