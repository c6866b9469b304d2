"""The table at the end of a sweep: the best setting of each task first, seeds averaged, failed trials shown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Container, Sequence

from mmpt.sweep.outcomes import Outcome, split
from mmpt.training.fingerprint import setting_key
from mmpt.utils.untrusted import one_line

HEAD = "| rank | task | setting | validation, mean ± sd | test, mean ± sd | seeds |"


def ranked(outcomes: Sequence[Outcome]) -> str:
    """Rank settings by their mean validation score within each task, as a Markdown table.

    Settings are distinguished by their resolved values; the words of the command line only name them. A run that
    several trials share counts once. Nothing depends on time: an interrupted sweep ends with the same table.
    """
    shared = set.intersection(*(set(words(outcome)) for outcome in outcomes)) if outcomes else set()
    tasks: dict[str, dict[str, dict[str, Outcome]]] = defaultdict(lambda: defaultdict(dict))
    failed: dict[str, Outcome] = {}
    for outcome in outcomes:
        if (result := outcome.result) is None:
            failed.setdefault(outcome.trial.key or outcome.trial.overrides, outcome)
            continue
        setting = _label(outcome, shared) if result.config is None else setting_key(result.config)
        runs = tasks[f"{result.task} ({result.metric})"][setting]
        runs.setdefault(result.config_fingerprint or outcome.trial.overrides, outcome)
    lines = [HEAD, "|---|---|---|---|---|---|"]
    for task, settings in sorted(tasks.items()):
        rows = [(_label(next(iter(runs.values())), shared), list(runs.values())) for runs in settings.values()]
        for rank, (label, row) in enumerate(sorted(rows, key=lambda row: (-_mean(row[1]), row[0])), start=1):
            figures = [_spread([run.score(split) for run in row]) for split in ("validation", "test")]
            lines.append(f"| {rank} | {task} | {label} | {figures[0]} | {figures[1]} | {len(row)} |")
    lines += [f"| – | | {' '.join(words(outcome, shared))} | {outcome.state} | | |" for outcome in failed.values()]
    return "\n".join(map(one_line, lines)) + "\n"


def _label(outcome: Outcome, shared: set[str]) -> str:
    setting = [word for word in words(outcome, shared) if not word.startswith(("seed=", "task="))]
    return " ".join(setting) or str(outcome.result and outcome.result.method)


def words(outcome: Outcome, shared: Container[str] = ()) -> list[str]:
    """What tells a trial from the others: its overrides, whose values may hold spaces, without those that all share."""
    return [word for word in split(outcome.trial.overrides) if word not in shared]


def _mean(runs: Sequence[Outcome]) -> float:
    scores = [score for run in runs if (score := run.score()) is not None]
    return statistics.fmean(scores) if scores else float("-inf")


def _spread(scores: Sequence[float | None]) -> str:
    values = [score for score in scores if score is not None]
    if not values:
        return "none"
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")
