"""Rows as LaTeX tables (booktabs): methods by tasks, then one line a row with all statistics."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mmpt.report.groups import Row
from mmpt.report.published import Figure
from mmpt.report.tables import NONE, decimal, interval, latex, notes, p_value, versus, whole

HEAD = "% needs \\usepackage{booktabs}; best bold, second underlined; scores are mean and standard deviation over seeds"


def document(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    """Format a report as table environments to be put into a paper.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        figures: Published figures to be laid beside.

    Returns:
        LaTeX. All texts of the runs are escaped.
    """
    parts = [HEAD, _by_task(rows, figures), _details(rows)]
    return "\n\n".join(parts) + "\n"


def _by_task(rows: Sequence[Row], figures: Sequence[Figure]) -> str:
    """Methods down, tasks across."""
    tasks = sorted({(row.task, row.metric) for row in rows})
    cells: dict[tuple[str, str], dict[tuple[str, str], Row]] = defaultdict(dict)
    for row in rows:
        cells[row.model, row.label][row.task, row.metric] = row
    models = {model for model, _ in cells}
    lines = []
    for (model, label), found in sorted(cells.items()):
        name = latex(label if len(models) == 1 else f"{label} ({model})")
        trainable = whole(next(iter(found.values())).median("parameters", "trainable"))
        scores = [_score(found[task]) if task in found else NONE for task in tasks]
        lines.append([name, _math(trainable), *scores])
    beside = _published_lines(figures, [task for task, _ in tasks])
    head = ["method", "trainable", *(latex(f"{task} ({metric})") for task, metric in tasks)]
    sources = sorted({f"{figure.source}: {figure.setting}" for figure in figures if figure.task in dict(tasks)})
    caption = "Test scores."
    if sources:
        caption += f" $\\dagger$ published, not run here ({latex('; '.join(sources))})."
    return _table(head, [lines, beside], caption)


def _published_lines(figures: Sequence[Figure], tasks: Sequence[str]) -> list[list[str]]:
    """One line a published method and source, under the tasks of the report."""
    found: dict[tuple[str, str, str], dict[str, Figure]] = defaultdict(dict)
    for figure in figures:
        if figure.task in tasks:
            found[figure.source, figure.backbone, figure.method][figure.task] = figure
    lines = []
    for (_, backbone, method), by_task in found.items():
        size = latex(next(iter(by_task.values())).parameters or NONE)
        scores = [by_task[task].score if task in by_task else NONE for task in tasks]
        lines.append([f"{latex(method)} ({latex(backbone)})$^\\dagger$", size, *scores])
    return lines


def _score(row: Row) -> str:
    if row.summary is None:
        return latex(f"{row.rest[0].status}" if row.rest else NONE)
    mean = f"{row.summary.mean:.3f}"
    mean = {1: f"\\textbf{{{mean}}}", 2: f"\\underline{{{mean}}}"}.get(row.place or 0, mean)
    return mean if row.summary.sd is None else f"{mean}$_{{\\pm {row.summary.sd:.3f}}}$"


def _details(rows: Sequence[Row]) -> str:
    """One line a row with all statistics."""
    head = [
        "task",
        "method",
        "$n$",
        "test",
        "median",
        "best",
        "95\\,\\% interval",
        "ms a step",
        "training s",
        "peak MB",
    ]
    compared = any(row.comparison for row in rows)
    if compared:
        head += ["$\\Delta$ to baseline", "$p$ seeds", "$p$ examples", "$p$ McNemar"]
    lines = []
    for row in rows:
        summary, one, peak = row.summary, row.comparison, row.most("memory", "peak_bytes")
        line = [
            latex(row.task),
            latex(row.label) + ("$^*$" if row.notes else ""),
            str(len(row.runs)),
            _score(row),
            decimal(summary.median if summary else None),
            decimal(summary.best if summary else None),
            interval(summary.low, summary.high) if summary else NONE,
            decimal(row.median("timing", "step_ms_median"), 1),
            decimal(row.median("timing", "train_s"), 1),
            decimal(None if peak is None else peak / 1e6, 0),
        ]
        if compared:
            p_values = (one.holm_seed, one.holm_example, one.holm_mcnemar) if one else (None, None, None)
            line += [_math(versus(row) or NONE), *(_math(p_value(p)) for p in p_values)]
        lines.append(line)
    told = [f"{row.task}, {row.label}: {notes(row)}" for row in rows if row.notes]
    caption = "All statistics; $p$ values after Holm." + (f" $^*$ {latex('; '.join(told))}." if told else "")
    return _table(head, [lines], caption)


def _table(head: Sequence[str], blocks: Iterable[Sequence[Sequence[str]]], caption: str) -> str:
    """Lay out cells that are escaped already; a rule between blocks."""
    bodies = [
        "\n".join(" & ".join(_guard(line)).replace(NONE, "--") + r" \\" for line in block) for block in blocks if block
    ]
    rows = "\n\\midrule\n".join([" & ".join(head) + r" \\", *bodies])
    columns = "l" + "r" * (len(head) - 1)
    return (
        f"\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{rows}\n\\bottomrule\n"
        f"\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}"
    )


def _guard(line: Sequence[str]) -> list[str]:
    """Keep a bracket at a line's begin from being read as an argument of the line break before."""
    first = line[0]
    return [f"{{}}{first}" if first[:1] in ("[", "*") else first, *line[1:]]


def _math(text: str) -> str:
    """A signed number or a bound, with a proper minus and less-than sign; thousands without a space."""
    if text == NONE:
        return text
    return f"${re.sub(r'(?<=[0-9]),(?=[0-9])', '{,}', text)}$" if text[0] in "+-<" or "," in text else text
