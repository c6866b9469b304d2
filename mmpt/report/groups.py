"""Rows of a report: runs that differ in nothing except the seed, their statistics, and what is wrong with them."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mmpt.report.run import Run
from mmpt.report.settings import differing, shown
from mmpt.report.stats import Paired, Summary, describe, ranks
from mmpt.utils.untrusted import one_line

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
LONGEST = 120  # characters of a message in a note
MOST = 6  # settings in a row's name


@dataclass
class Comparison:
    """A row against the baseline's row, on the same seeds and the same test examples."""

    baseline: str
    seeds: tuple[int, ...] = ()  # that both have
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
    runs: list[Run]  # those that count, by seed
    rest: list[Run]  # those that do not: not done, damaged, repeated
    settings: dict[str, str] = field(default_factory=dict)  # only those that distinguish this row from others
    notes: list[str] = field(default_factory=list)
    ends: tuple[float, float] | None = None  # of the metric's range; None: not known, or a score lies outside
    summary: Summary | None = None  # None where no run is done
    index: int = 0  # of its method among those of the report; it decides colour and mark
    rank: int | None = None  # by mean among the rows of its task, model and metric; 1 is best, ties share a rank
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
    def flat(self) -> dict[str, Any]:
        """All settings by dotted keys; empty where no run has its configuration."""
        return next((run.settings.flat for run in [*self.runs, *self.rest] if run.settings is not None), {})

    @property
    def setting(self) -> str:
        """The settings that distinguish this row, as on the command line; past the first few only how many more."""
        words = [f"{key}={value}" for key, value in self.settings.items()]
        return " ".join(words[:MOST] + [f"(and {len(words) - MOST} more)"] * (len(words) > MOST))

    @property
    def label(self) -> str:
        """The method, with the settings that distinguish its rows."""
        return f"{self.method} {self.setting.replace(' method.', ' ').removeprefix('method.')}".rstrip()

    @property
    def validation(self) -> float | None:
        """Mean validation score; None where no run has one."""
        scores = self.values(lambda run: run.score("validation"))
        return statistics.fmean(scores) if scores else None

    def values(self, read: str | Callable[[Run], float | None]) -> list[float]:
        """One number of each run that has it: by a path in the result such as ``timing.train_s``, or by a function."""
        get = (lambda run: run.number(read)) if isinstance(read, str) else read
        return [value for run in self.runs if (value := get(run)) is not None]

    def median(self, read: str | Callable[[Run], float | None]) -> float | None:
        """Median of a number over the runs; None where no run has it."""
        values = self.values(read)
        return statistics.median(values) if values else None


def group(runs: Iterable[Run]) -> list[Row]:
    """Put runs that differ only in their seed into rows.

    Args:
        runs: The runs of :func:`mmpt.report.load.load`.

    Returns:
        Rows by task, model, and falling mean; rows without a finished run last.
    """
    rows = [_row(members) for members in divide(_by_code(_with_settings(list(runs))), _key).values()]
    methods = sorted({row.method for row in rows})
    for row in rows:
        row.index = methods.index(row.method)
    for block in blocks(rows):
        known, every = {row.metric for row in block} - {"?"}, {seed for row in block for seed in row.seeds}
        _distinguish(block)
        for row in block:
            if row.metric == "?" and len(known) == 1:  # no run has a result, those of other rows have
                (row.metric,) = known
            if missing := sorted(every - {run.seed for run in [*row.runs, *row.rest]}):
                row.notes.append(f"no run of seed {_few(missing)}")
        for metric in known:
            done = [(row, row.summary.mean) for row in block if row.metric == metric and row.summary]
            places = ranks(mean for _, mean in done)
            for row, mean in done:
                row.rank = places[mean]
    return sorted(rows, key=_order)


def blocks(rows: Iterable[Row]) -> list[list[Row]]:
    """Divide rows by task and model."""
    return list(divide(rows, lambda row: (row.task, row.model)).values())


def divide(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Put items with one key into one list, in order."""
    divided: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        divided[key(item)].append(item)
    return divided


def problems(rows: Iterable[Row]) -> list[str]:
    """List the trials that do not count or count with a reservation, one line each."""
    lines = []
    for row in rows:
        lines += [f"{run.name}: {run.status} {run.problem}".rstrip() for run in row.rest]
        lines += [f"{run.name}: {run.problem}" for run in row.runs if run.problem]
    return lines


def _with_settings(runs: Sequence[Run]) -> list[Run]:
    """A result without its configuration gets that of the same run's directory, where that is among the runs."""
    known = {run.fingerprint: run.settings for run in runs if run.settings is not None and run.fingerprint}
    return [replace(run, settings=known.get(run.fingerprint)) if run.settings is None else run for run in runs]


def _by_code(runs: Sequence[Run]) -> Iterator[Run]:
    """Let runs of one configuration be of several settings where their own files or numbers of processes differ."""
    for members in divide(runs, _key).values():
        known = [(run, run.result.own_code or "none", run.result.processes or 1) for run in members if run.result]
        codes, counts = {code for _, code, _ in known}, {count for _, _, count in known}
        more = {
            id(run): ({"own_code": code[:8]} if len(codes) > 1 else {})
            | ({"processes": count} if len(counts) > 1 else {})
            for run, code, count in known
        }
        for run in members:
            extra = more.get(id(run))
            yield replace(run, settings=run.settings.more(extra)) if extra and run.settings is not None else run


def _key(run: Run) -> tuple[str, ...]:
    """What all runs of a row share. Without a configuration only sizes distinguish settings."""
    names = (run.known("task"), run.known("model"), run.known("method"))
    if run.settings is not None:
        return *names, run.settings.key
    return *names, "" if run.result is None else repr((run.result.metric, run.result.parameters))


def _row(members: Sequence[Run]) -> Row:
    done, rest = _one_per_seed([run for run in members if run.status == "done"])
    rest += sorted((run for run in members if run.status != "done"), key=_by_seed)
    metric = next((run.metric for run in [*done, *rest] if run.result is not None), "?")
    task, model, method = (members[0].known(name) for name in ("task", "model", "method"))
    row = Row(task, model, method, metric, done, rest, notes=_mixed(done) + _not_counted(rest))
    if scores := row.scores:
        first, *others = {run.range for run in done}
        if first and not others and first[0] <= min(scores) and max(scores) <= first[1]:
            row.ends = first
        row.summary = describe(scores, row.ends)
    return row


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Choose one run a seed: the one read last, of two copies the one with its directory.

    Without a configuration, other fingerprints are other settings.
    """
    chosen: dict[tuple[int | None, str], Run] = {}
    repeated: list[Run] = []
    for one in runs:
        run, key = one, (one.seed, one.fingerprint if one.settings is None else "")
        if (other := chosen.get(key)) is not None:
            copies = run.fingerprint != "" and other.fingerprint == run.fingerprint
            if copies and run.directory is None and other.directory is not None:
                run, other = other, run
            why = f"seed {run.seed} again, {'the same' if copies else 'another'} run as {run.name}, which counts"
            repeated.append(replace(other, status="repeated", problem=why))
        chosen[key] = run
    return sorted(chosen.values(), key=_by_seed), repeated


def _by_seed(run: Run) -> tuple[int, str]:
    return run.seed or 0, run.name


def _mixed(runs: Sequence[Run]) -> list[str]:
    """Warn where runs of one row do not share data, backbone or versions."""
    seen: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if (result := run.result) is None:
            continue
        # the examples of task.shots are drawn by the seed, so each seed reads other texts
        names = ("backbone_fingerprint",) if has_shots(run) else ("backbone_fingerprint", "data_fingerprint")
        for name in names:
            seen[name].add(str(getattr(result, name) or "unknown")[:8])
        for package, version in (result.versions or {}).items():
            seen[f"versions of {package}"].add(version)
    several = sorted((name, sorted(values)) for name, values in seen.items() if len(values) > 1)
    notes = [f"warning: mixed {name} ({', '.join(values)})" for name, values in several]
    repeats = [seed for seed, count in Counter(run.seed for run in runs).items() if count > 1]
    if repeats:
        notes.append(f"warning: seed {_few(repeats)} repeated with settings that the file does not have")
    return notes


def has_shots(run: Run) -> bool:
    """Whether training examples stand before every text of a run."""
    return bool(run.group("task").get("shots"))


def _not_counted(runs: Sequence[Run]) -> list[str]:
    """Say which trials of a row do not count."""
    notes = []
    for run in runs[:4]:
        seed = "" if run.seed is None else f"seed {run.seed} "
        text = run.problem if run.status == "repeated" else f"{seed}{run.status} {run.problem}".rstrip()
        notes.append(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")
    return notes if len(runs) <= 4 else [*notes, f"and {len(runs) - 4} more trials that do not count"]


def _distinguish(block: Sequence[Row]) -> None:
    """Give rows of one task and model the settings that differ: inside of a method any, across methods the others.

    Rows that nothing else distinguishes, such as results that came without their configuration, are numbered.
    """
    across = [key for key in differing(row.flat for row in block if row.flat) if not key.startswith("method.")]
    for several in divide((row for row in block if row.flat), lambda row: row.method).values():
        inside = [key for key in differing(row.flat for row in several) if key.startswith("method.")]
        for row in several:
            chosen = {key: row.flat[key] for key in [*inside, *across] if key in row.flat}
            row.settings = {one_line(key): one_line(shown(value)) for key, value in chosen.items()}
    for several in divide(block, lambda row: row.label).values():
        for count, row in enumerate(several if len(several) > 1 else [], start=1):
            row.settings["settings"] = f"#{count}" if row.flat else f"#{count}, not in the file"


def _few(values: Sequence[Any]) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed) if len(listed) <= 5 else f"{', '.join(listed[:5])} and {len(listed) - 5} more"


def _order(row: Row) -> tuple[Any, ...]:
    mean = row.summary.mean if row.summary else 0.0
    return row.task == "?", row.task, row.model, row.summary is None, -mean, row.label
