"""Rows as tables: a short one for the console and the README, a full one in Markdown, and LaTeX for a paper."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from mmpt.report.groups import Row
from mmpt.report.published import Figure
from mmpt.report.run import number
from mmpt.utils.untrusted import one_line

Escape = Callable[[object], str]
NONE = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "–": "--",
    "…": r"\dots{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def short(rows: Sequence[Row]) -> str:
    """Format the short Markdown table; columns for model, settings, baseline and notes come where they say something.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.

    Returns:
        One row a setting; the best mean of a task is bold.
    """
    columns: dict[str, Callable[[Row], str]] = {
        "task": lambda row: markdown(f"{row.task} ({row.metric})"),
        "model": lambda row: markdown(row.model),
        "method": lambda row: markdown(row.method),
        "settings": lambda row: markdown(row.setting),
        "trainable": lambda row: whole(row.median("parameters", "trainable")),
        "test, mean ± sd": lambda row: spread(row, "**" if row.place == 1 else ""),
        "seeds": lambda row: str(len(row.runs)),
        "majority": lambda row: decimal(number(row.runs[0].result if row.runs else {}, *_majority(row))),
        "ms a step": lambda row: decimal(row.median("timing", "step_ms_median"), 1),
        "training s": lambda row: decimal(row.median("timing", "train_s"), 0),
        "Δ to baseline": lambda row: markdown(versus(row)),
        "notes": lambda row: markdown(notes(row)),
    }
    if len({row.model for row in rows}) < 2:
        del columns["model"]
    for name, say in (("settings", lambda row: row.setting), ("Δ to baseline", versus), ("notes", notes)):
        if not any(say(row) for row in rows):
            del columns[name]
    return grid(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def full(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    """Format everything a report says about its rows, in Markdown.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        figures: Published figures to be laid beside.

    Returns:
        A heading and a table for each task and model, then the published figures of those tasks.
    """
    names = ["method", "n", "mean ± sd", "median", "best", "95 % interval", "validation", "trainable", "bytes"]
    names += ["ms a step", "training s", "peak MB", "Δ to baseline", "p, seeds", "p, examples", "p, McNemar", "notes"]
    blocks: dict[tuple[str, str, str], list[list[str]]] = defaultdict(list)
    for row in rows:
        blocks[row.task, row.metric, row.model].append(_full_line(row))
    parts = []
    for (task, metric, model), lines in blocks.items():
        parts.append(f"## {markdown(task)} ({markdown(metric)}), {markdown(model)}\n\n{grid(names, lines)}")
        if found := [figure for figure in figures if figure.task == task]:
            parts.append(f"Published figures for {markdown(task)}, not run here:\n\n{published(found)}")
    return "\n".join(parts)


def _full_line(row: Row) -> list[str]:
    summary, one = row.summary, row.comparison
    validation = [score for run in row.runs if (score := run.score("validation")) is not None]
    peak = row.most("memory", "peak_bytes")
    mark = {1: "**", 2: "_"}.get(row.place or 0, "")
    return [
        markdown(row.label),
        str(len(row.runs)),
        spread(row, mark),
        decimal(summary.median if summary else None),
        decimal(summary.best if summary else None),
        interval(summary.low, summary.high) if summary else NONE,
        decimal(sum(validation) / len(validation) if validation else None),
        whole(row.median("parameters", "trainable")),
        whole(row.median("parameters", "bytes")),
        decimal(row.median("timing", "step_ms_median"), 1),
        decimal(row.median("timing", "train_s"), 1),
        decimal(None if peak is None else peak / 1e6, 0),
        markdown(versus(row)) or NONE,
        p_value(one.holm_seed if one else None),
        p_value(one.holm_example if one else None),
        p_value(one.holm_mcnemar if one else None),
        markdown(notes(row)),
    ]


def published(figures: Sequence[Figure]) -> str:
    """Format published figures as a Markdown table, each with its source and setting."""
    lines = [
        [markdown(f"{figure.method} †"), figure.score, markdown(figure.parameters or NONE)]
        + [markdown(text) for text in (figure.metric, figure.backbone, figure.setting, figure.source)]
        for figure in figures
    ]
    return grid(["method", "score", "trainable", "metric", "backbone", "setting", "source"], lines)


def grid(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table of cells that are escaped already."""
    rule = "|" + "---|" * len(names)
    return "\n".join([f"| {' | '.join(names)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def spread(row: Row, mark: str = "") -> str:
    """Mean and standard deviation; the mark goes around the mean."""
    if row.summary is None:
        return NONE
    sd = "" if row.summary.sd is None else f" ± {row.summary.sd:.3f}"
    return f"{mark}{row.summary.mean:.3f}{mark}{sd}"


def versus(row: Row) -> str:
    """Difference to the baseline with its interval over seeds, or over examples where there is one seed."""
    one = row.comparison
    if one is None or one.by_seed is None:
        return ""
    best = one.by_seed if one.by_seed.low is not None or one.by_example is None else one.by_example
    return f"{best.difference:+.3f} {interval(best.low, best.high)}"


def notes(row: Row) -> str:
    """All notes of a row, in one line."""
    return one_line("; ".join(filter(None, [*row.notes, row.comparison.note if row.comparison else ""])))


def interval(low: float | None, high: float | None) -> str:
    """Two ends in brackets."""
    return NONE if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def decimal(value: float | None, places: int = 3) -> str:
    """A number with so many decimals, or a dash."""
    return NONE if value is None else f"{value:.{places}f}"


def whole(value: float | None) -> str:
    """A count with thousands apart, or a dash."""
    return NONE if value is None else f"{value:,.0f}"


def p_value(value: float | None) -> str:
    """A p value with three decimals, or its bound."""
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def markdown(text: object) -> str:
    """Escape what Markdown or HTML would read as markup."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*\[\]|])", r"\\\1", plain)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)


def latex(text: object) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))


def _majority(row: Row) -> tuple[str, str, str]:
    return "scores", "majority", row.metric
