"""Rows of a report: runs that differ in nothing but the seed, their statistics, and what is wrong with them."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmpt.report.run import Run, number
from mmpt.report.settings import Settings, differing, flatten, shown
from mmpt.report.stats import Paired, Summary, describe
from mmpt.utils.untrusted import one_line

LONGEST = 120  # signs of a message in a note
MOST = 6  # settings in a row's name


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline's row, on the same seeds and the same test examples."""

    baseline: str
    seeds: tuple[int, ...]  # that both have
    by_seed: Paired | None = None  # of scores
    examples: int = 0  # test examples that both predicted
    by_example: Paired | None = None  # of the share of right answers
    mcnemar: float | None = None
    holm_seed: float | None = None  # p values corrected for the number of comparisons in the report
    holm_example: float | None = None
    holm_mcnemar: float | None = None
    note: str = ""


@dataclass
class Row:
    """One setting of a method on a task."""

    task: str
    model: str
    method: str
    metric: str
    runs: list[Run]  # that count, by seed
    rest: list[Run]  # that don't: not done, damaged, repeated
    settings: dict[str, str] = field(default_factory=dict)  # only what tells this row from others
    notes: list[str] = field(default_factory=list)
    summary: Summary | None = None  # None where no run is done
    place: int | None = None  # by mean among the rows of its task, model and metric; 1 is best, ties share a place
    comparison: Comparison | None = None

    @property
    def scores(self) -> list[float]:
        """Test scores, by seed."""
        return [score for run in self.runs if (score := run.score()) is not None]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs that count."""
        return [run.seed for run in self.runs if run.seed is not None]

    @property
    def setting(self) -> str:
        """What tells this row from others, as the command line takes it; past the first few only how many more."""
        words = [f"{key}={value}" for key, value in list(self.settings.items())[:MOST]]
        more = len(self.settings) - MOST
        return " ".join([*words, f"(and {more} more)"] if more > 0 else words)

    @property
    def label(self) -> str:
        """The method, with what tells its rows apart."""
        return f"{self.method} {self.setting.replace(' method.', ' ').removeprefix('method.')}".rstrip()

    def median(self, *path: str) -> float | None:
        """Median of a number of the results; None where no result has it."""
        values = [value for run in self.runs if (value := number(run.result, *path)) is not None]
        return statistics.median(values) if values else None

    def most(self, *path: str) -> float | None:
        """Largest of a number of the results; None where no result has it."""
        values = [value for run in self.runs if (value := number(run.result, *path)) is not None]
        return max(values) if values else None


def group(runs: Iterable[Run]) -> list[Row]:
    """Put runs that differ only in their seed into rows.

    Args:
        runs: Whatever :func:`mmpt.report.load.load` gave.

    Returns:
        Rows by task, model, and falling mean; rows without a finished run last.
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in _with_settings(list(runs)):
        groups[_key(run)].append(run)
    rows = [_row(found) for found in groups.values()]
    blocks: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        blocks[row.task, row.model].append(row)
    for block in blocks.values():
        _metric(block)
        _tell_apart(block)
        _missing_seeds(block)
        _rank(block)
    return sorted(rows, key=_order)


def problems(rows: Iterable[Row]) -> list[str]:
    """List the trials that don't count or count with a reservation, one line each."""
    lines = []
    for row in rows:
        for run in row.rest:
            lines.append(f"{run.name}: {run.status} {run.problem}".rstrip())
        lines += [f"{run.name}: {run.problem}" for run in row.runs if run.problem]
    return lines


def _with_settings(runs: Sequence[Run]) -> list[Run]:
    """A result that came without its configuration takes it from the same run's directory, where that is there too."""
    known = {run.fingerprint: run.settings for run in runs if run.settings is not None and run.fingerprint}
    return [replace(run, settings=known.get(run.fingerprint)) if run.settings is None else run for run in runs]


def _key(run: Run) -> tuple[str, ...]:
    """What all runs of a row share. Without a configuration only sizes can tell settings apart."""
    names = (run.known("task"), run.known("model"), run.known("method"))
    if run.settings is not None:
        return *names, run.settings.key
    if not run.result:
        return *names, ""
    facts = {name: run.result.get(name) for name in ("metric", "parameters")}
    return *names, json.dumps(facts, sort_keys=True, default=str)


def _row(found: Sequence[Run]) -> Row:
    done, rest = _once_a_seed([run for run in found if run.status == "done"])
    rest += [run for run in found if run.status != "done"]
    metric = next((run.metric for run in [*done, *rest] if run.result), "?")
    first = found[0]
    row = Row(first.known("task"), first.known("model"), first.known("method"), metric, done, rest)
    row.notes += _mixed(done) + _trouble(rest)
    if row.scores:
        row.summary = describe(row.scores)
    return row


def _once_a_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Keep one run a seed: the one read last, of two copies the one with its directory.

    Without a configuration, other fingerprints are other settings.
    """
    kept: dict[tuple[int | None, str], Run] = {}
    repeated: list[Run] = []
    for one in runs:
        run, key = one, (one.seed, one.fingerprint if one.settings is None else "")
        if key in kept:
            copies = run.fingerprint != "" and kept[key].fingerprint == run.fingerprint
            whole = copies and run.place is None and kept[key].place is not None
            run, other = (kept[key], run) if whole else (run, kept[key])
            why = f"seed {run.seed} again, {'the same' if copies else 'another'} run as {run.name}, which counts"
            repeated.append(replace(other, status="repeated", problem=why))
        kept[key] = run
    return sorted(kept.values(), key=lambda run: (run.seed or 0, run.name)), repeated


def _mixed(runs: Sequence[Run]) -> list[str]:
    """Warn where runs of one row don't share data, backbone or versions."""
    notes = []
    for name in ("data_fingerprint", "backbone_fingerprint"):
        values = Counter(str(run.result.get(name, "unknown"))[:8] for run in runs)
        if len(values) > 1:
            notes.append(f"warning: mixed {name} ({', '.join(sorted(values))})")
    packages: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        versions = run.result.get("versions")
        for name, version in versions.items() if isinstance(versions, Mapping) else ():
            packages[name].add(str(version))
    notes += [
        f"warning: mixed versions of {name} ({', '.join(sorted(found))})"
        for name, found in sorted(packages.items())
        if len(found) > 1
    ]
    repeats = [seed for seed, count in Counter(run.seed for run in runs).items() if count > 1]
    if repeats:
        notes.append(f"warning: seed {_few(repeats)} repeated with settings that the file doesn't tell")
    return notes


def _trouble(runs: Sequence[Run]) -> list[str]:
    """Say which trials of a row don't count."""
    notes = []
    for run in runs:
        seed = "" if run.seed is None else f"seed {run.seed} "
        text = run.problem if run.status == "repeated" else f"{seed}{run.status} {run.problem}".rstrip()
        notes.append(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")
    few = notes[:4]
    return few if len(notes) <= 4 else [*few, f"and {len(notes) - 4} more trials that don't count"]


def _metric(block: Sequence[Row]) -> None:
    """A row without a result has the metric of its task's other rows."""
    known = [row.metric for row in block if row.metric != "?"]
    for row in block:
        if row.metric == "?" and len(set(known)) == 1:
            row.metric = known[0]


def _tell_apart(block: Sequence[Row]) -> None:
    """Give rows of one task and model the settings that differ: inside of a method any, across methods the others."""
    known = [(row, flatten(settings.values)) for row in block if (settings := _settings(row)) is not None]
    across = [key for key in differing(flat for _, flat in known) if not key.startswith("method.")]
    by_method: dict[str, list[tuple[Row, dict[str, Any]]]] = defaultdict(list)
    for row, flat in known:
        by_method[row.method].append((row, flat))
    for several in by_method.values():
        inside = [key for key in differing(flat for _, flat in several) if key.startswith("method.")]
        for row, flat in several:
            row.settings = {one_line(key): one_line(shown(flat[key])) for key in [*inside, *across] if key in flat}
    _number(block)


def _settings(row: Row) -> Settings | None:
    return next((run.settings for run in [*row.runs, *row.rest] if run.settings is not None), None)


def _number(block: Sequence[Row]) -> None:
    """Number rows that nothing else tells apart, such as results that came without their configuration."""
    labels: dict[str, list[Row]] = defaultdict(list)
    for row in block:
        labels[row.label].append(row)
    for rows in labels.values():
        for count, row in enumerate(rows if len(rows) > 1 else [], start=1):
            row.settings["settings"] = f"#{count}" if _settings(row) is not None else f"#{count}, not told by the file"


def _missing_seeds(block: Sequence[Row]) -> None:
    """Note seeds that other rows of the task have and this one has not tried."""
    every = {seed for row in block for seed in row.seeds}
    for row in block:
        tried = {run.seed for run in [*row.runs, *row.rest]}
        if missing := sorted(every - tried):
            row.notes.append(f"no run of seed {_few(missing)}")


def _rank(block: Sequence[Row]) -> None:
    for metric in {row.metric for row in block}:
        ranked = [row for row in block if row.metric == metric and row.summary is not None]
        means = sorted({row.summary.mean for row in ranked if row.summary}, reverse=True)
        places = {mean: count for count, mean in enumerate(means, start=1)}
        for row in ranked:
            row.place = places[row.summary.mean] if row.summary else None


def _few(values: Iterable[Any]) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed) if len(listed) <= 5 else f"{', '.join(listed[:5])} and {len(listed) - 5} more"


def _order(row: Row) -> tuple[Any, ...]:
    return (
        row.task == "?",
        row.task,
        row.model,
        row.summary is None,
        -row.summary.mean if row.summary else 0.0,
        row.label,
    )
