"""The one table of columns: what each is called, how it is read from a row, and how it is shown.

Files of records (CSV, Parquet, JSON) have every column, unrounded; tables have the columns of a view, as text.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmpt.report.groups import Row
from mmpt.report.published import Figure
from mmpt.report.stats import Paired, Summary
from mmpt.runs.result import Result
from mmpt.utils.untrusted import one_line

NONE = "–"
Record = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str  # in records
    kind: Literal["text", "count", "number"]  # of the value in records
    value: Callable[[Row], Any] = lambda row: None  # reads it from a row; None where it is not known
    heading: str = ""  # in tables
    text: Callable[[Row], str] | None = None  # as plain text in a table; None: the value, with its decimals
    digits: int | None = 3  # decimals; None: a whole number with thousands apart
    per: float = 1  # what a table divides the value by
    unit: str = ""  # of the value in records
    about: str = ""  # what it says, for readers of a table
    extra: bool = False  # whether the page shows it only on request

    def show(self, row: Row) -> str:
        """The cell of a table, as plain text."""
        if self.text is not None:
            return self.text(row)
        value = self.value(row)
        return str(value) if self.kind == "text" else decimal(value if value is None else value / self.per, self.digits)


def decimal(value: float | None, digits: int | None = 3) -> str:
    """A number with so many decimals, a whole one with thousands apart, or a dash."""
    return NONE if value is None else f"{value:,.0f}" if digits is None else f"{value:.{digits}f}"


def interval(of: Summary | Paired | None) -> str:
    """Two ends in brackets."""
    return NONE if of is None or of.low is None or of.high is None else f"[{of.low:.3f}, {of.high:.3f}]"


def p_value(value: float | None) -> str:
    """A p value with three decimals, or its bound."""
    return "< 0.001" if value is not None and value < 0.001 else decimal(value)


def spread(row: Row) -> str:
    """Mean and standard deviation."""
    if row.summary is None:
        return row.rest[0].status if row.rest else NONE
    return f"{row.summary.mean:.3f}" + ("" if row.summary.sd is None else f" ± {row.summary.sd:.3f}")


def versus(row: Row) -> str:
    """Difference to the baseline with its interval over seeds.

    Below three seeds it is that over examples, if it is about the same difference: that of the share of right answers.
    """
    one = row.comparison
    if one is None or one.by_seed is None:
        return NONE
    found, beside = one.by_seed, one.by_example
    if found.low is None and beside is not None and math.isclose(found.difference, beside.difference, abs_tol=1e-6):
        found = beside
    return f"{found.difference:+.3f}" + ("" if found.low is None else f" {interval(found)}")


def notes(row: Row) -> str:
    """All notes of a row, in one line."""
    return one_line("; ".join(filter(None, [*row.notes, row.comparison.note if row.comparison else ""])))


def scores_by_task(result: Result) -> dict[str, float]:
    """The test score of each task of a mixture, by its first metric; empty for a single task."""
    scores: dict[str, float] = {}
    for name, value in result.scores.splits["test"].metrics.items():
        if "/" in name:
            scores.setdefault(name.partition("/")[0], value)
    return scores


def by_task(row: Row) -> str:
    """The mean test score of each task of a mixture, by its first metric; a dash without one."""
    parts = [scores_by_task(run.result) for run in row.runs if run.result is not None]
    means = {task: statistics.fmean(part[task] for part in parts if task in part) for task in (parts or [{}])[0]}
    return ", ".join(f"{task} {mean:.3f}" for task, mean in means.items()) or NONE


def _at(path: str) -> Callable[[Row], Any]:
    """Read attributes of a row; None where one on the way is None."""

    def read(row: Row) -> Any:
        value: Any = row
        for name in path.split("."):
            value = getattr(value, name) if value is not None else None
        return value

    return read


def _median(path: str) -> Callable[[Row], float | None]:
    return lambda row: row.median(path)


def _baseline(name: Literal["majority", "chance"]) -> Callable[[Row], float | None]:
    return lambda row: row.median(lambda run: None if run.result is None else run.result.baseline(name))


def _peak(row: Row) -> float | None:
    return max(row.values("memory.peak_bytes"), default=None)


def _p(name: str, path: str, heading: str, about: str, extra: bool = False) -> Column:
    read = _at(path)
    return Column(name, "number", read, heading, lambda row: p_value(read(row)), about=about, extra=extra)


_INTERVAL = "where the mean over other seeds lies; none below three seeds, since it would be wider than what it tells"
_DIFFERENCE = (
    "mean difference to the baseline on common seeds, with its 95 % interval; below three seeds that over examples, "
    "if the metric is the share of right answers"
)
_SEEDS = "the main p value. Does the difference hold for other seeds? Paired t test; none below two seeds"
_EXAMPLES = "does it hold for other test examples, with these trained adapters? Paired bootstrap"
_MCNEMAR = "do the two err on different examples more often than chance lets them? McNemar's exact test"

COLUMNS = (
    Column("source", "text", lambda row: "runs"),
    Column("task", "text", _at("task"), "task", lambda row: f"{row.task} ({row.metric})"),
    Column("model", "text", _at("model"), "model"),
    Column("method", "text", _at("method"), "method"),
    Column("label", "text", _at("label"), "method"),
    Column(
        "settings",
        "text",
        lambda row: " ".join(f"{k}={v}" for k, v in row.settings.items()),
        "settings",
        _at("setting"),
    ),
    Column("metric", "text", _at("metric")),
    Column("seeds", "text", lambda row: ",".join(map(str, row.seeds))),
    Column("baseline", "text", _at("comparison.baseline")),
    Column("notes", "text", notes, "notes"),
    Column("n", "count", lambda row: len(row.runs), "seeds", digits=0),
    Column("not_counted", "count", lambda row: len(row.rest)),
    Column("place", "count", _at("rank")),
    Column("paired_seeds", "count", lambda row: row.comparison and len(row.comparison.seeds)),
    Column("paired_examples", "count", _at("comparison.examples")),
    Column("mean", "number", _at("summary.mean"), "test, mean ± sd", spread),
    Column("sd", "number", _at("summary.sd")),
    Column("median", "number", _at("summary.median"), "median", extra=True),
    Column("best", "number", _at("summary.best"), "best", extra=True),
    Column("by_task", "text", by_task, "by task"),
    Column("low", "number", _at("summary.low"), "95 % interval", lambda row: interval(row.summary), about=_INTERVAL),
    Column("high", "number", _at("summary.high")),
    Column("validation_mean", "number", _at("validation"), "validation", extra=True),
    Column("majority", "number", _baseline("majority"), "majority"),
    Column("chance", "number", _baseline("chance")),
    Column("trainable", "number", _median("parameters.trainable"), "trainable", digits=None),
    Column("total", "number", _median("parameters.total")),
    Column("bytes", "number", _median("parameters.bytes"), "bytes", digits=None, unit="bytes", extra=True),
    Column("step_ms_median", "number", _median("timing.step_ms_median"), "ms a step", digits=1, unit="ms"),
    Column("train_s", "number", _median("timing.train_s"), "training s", digits=0, unit="s"),
    Column("total_s", "number", _median("timing.total_s"), unit="s"),
    Column("examples_per_s", "number", _median("timing.examples_per_s"), unit="1/s"),
    Column("peak_bytes", "number", _peak, "peak MB", digits=0, per=1e6, unit="bytes", extra=True),
    Column("steps", "number", _median("steps"), "steps", digits=None),
    Column("epochs", "number", _median("epochs")),
    Column("difference", "number", _at("comparison.by_seed.difference"), "Δ to baseline", versus, about=_DIFFERENCE),
    Column("difference_low", "number", _at("comparison.by_seed.low")),
    Column("difference_high", "number", _at("comparison.by_seed.high")),
    Column("p_seeds", "number", _at("comparison.by_seed.p")),
    _p("p_seeds_holm", "comparison.holm_seed", "p, seeds (main)", _SEEDS),
    Column("example_difference", "number", _at("comparison.by_example.difference")),
    Column("example_difference_low", "number", _at("comparison.by_example.low")),
    Column("example_difference_high", "number", _at("comparison.by_example.high")),
    Column("p_examples", "number", _at("comparison.by_example.p")),
    _p("p_examples_holm", "comparison.holm_example", "p, examples", _EXAMPLES, extra=True),
    Column("p_mcnemar", "number", _at("comparison.mcnemar")),
    _p("p_mcnemar_holm", "comparison.holm_mcnemar", "p, McNemar", _MCNEMAR, extra=True),
)


def view(names: str) -> list[Column]:
    """Choose the columns of a table by their names, in order."""
    by_name = {column.name: column for column in COLUMNS}
    return [by_name[name] for name in names.split()]


COMPARED = "difference p_seeds_holm p_examples_holm p_mcnemar_holm"
COSTS = "trainable bytes step_ms_median train_s peak_bytes"
SHORT = view("task model method settings trainable mean by_task n majority step_ms_median train_s difference notes")
FULL = view(f"label n mean median best low validation_mean {COSTS} {COMPARED} notes")
PAGE = view(f"label mean by_task low median best validation_mean n {COSTS} {COMPARED} notes")
PAPER = view(f"task label n mean median best low step_ms_median train_s peak_bytes {COMPARED}")
OPTIONAL = ("settings", "notes", "by_task", *COMPARED.split())  # left out where no row has them


def used(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Leave out optional columns that say nothing of any row, and the model where all rows have one."""
    said, several = ("", NONE), len({row.model for row in rows}) > 1
    say = (c for c in columns if c.name not in OPTIONAL or any(c.show(row) not in said for row in rows))
    return [column for column in say if several or column.name != "model"]


def record(row: Row) -> Record:
    """One value for each of :data:`COLUMNS`; None where it is not known."""
    return {column.name: column.value(row) for column in COLUMNS}


def published_record(figure: Figure) -> Record:
    """The same of a published figure; ``source`` says that it is none of the runs."""
    values: Record = dict.fromkeys(column.name for column in COLUMNS)
    values |= {"source": f"published: {figure.source}", "task": figure.task, "model": figure.backbone}
    values |= {"method": figure.method, "label": figure.method, "metric": figure.metric, "mean": float(figure.score)}
    return values | {"notes": figure.setting}
