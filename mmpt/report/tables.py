"""Rows as tables: Markdown for the console and a file, LaTeX (booktabs) for a paper. All texts of runs are escaped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mmpt.report.columns import FULL, NONE, PAPER, SHORT, Column, decimal, notes, spread, used
from mmpt.report.groups import Row, blocks
from mmpt.report.published import Figure
from mmpt.utils.untrusted import one_line

PAPER_HEAD = "% needs \\usepackage{booktabs}; best bold, second underlined; mean and standard deviation over seeds"
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
} | {character: f"\\{character}" for character in "&%$#_{}"}


def markdown(text: object) -> str:
    """Escape what Markdown or HTML would read as markup."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*\[\]|])", r"\\\1", plain)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)


def latex(text: object) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def short(rows: Sequence[Row]) -> str:
    """Format the short Markdown table.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.

    Returns:
        One line a row; the best mean of a task is bold. Columns that say nothing are left out.
    """
    columns = [column for column in used(SHORT, rows) if column.name != "model" or len({row.model for row in rows}) > 1]
    return _markdown_table(columns, rows, {1: "**{}**"})


def full(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    """Format everything a report says about its rows, in Markdown.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        figures: Published figures to show beside them.

    Returns:
        A heading and a table for each task and model, then the published figures of that task.
    """
    parts = []
    for block in blocks(rows):
        title = f"## {markdown(block[0].task)} ({markdown(block[0].metric)}), {markdown(block[0].model)}"
        parts.append(f"{title}\n\n{_markdown_table(FULL, block, {1: '**{}**', 2: '_{}_'})}")
        if mine := [figure for figure in figures if figure.task == block[0].task]:
            parts.append(f"Published figures for {markdown(block[0].task)}, not run here:\n\n{published(mine)}")
    return "\n".join(parts)


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


def _markdown_table(columns: Sequence[Column], rows: Sequence[Row], marks: dict[int, str]) -> str:
    def cell(column: Column, row: Row) -> str:
        if column.name == "mean":
            return spread(row, marks.get(row.rank or 0, "{}"))
        return markdown(column.show(row)) if column.kind == "text" else column.show(row)

    return grid([column.heading for column in columns], [[cell(column, row) for column in columns] for row in rows])


def paper(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    """Format a report as LaTeX tables: methods by tasks, and one line a row with all statistics.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        figures: Published figures to show beside them.
    """
    return "\n\n".join([PAPER_HEAD, _by_task(rows, figures), _all_statistics(rows)]) + "\n"


def _by_task(rows: Sequence[Row], figures: Sequence[Figure]) -> str:
    tasks = sorted({(row.task, row.metric) for row in rows})
    cells: dict[tuple[str, str], dict[tuple[str, str], Row]] = defaultdict(dict)
    for row in rows:
        cells[row.model, row.label][row.task, row.metric] = row
    several = len({model for model, _ in cells}) > 1
    lines = []
    for (model, label), mine in sorted(cells.items()):
        trainable = decimal(next(iter(mine.values())).median("parameters.trainable"), None)
        scores = [_score(mine[task]) if task in mine else NONE for task in tasks]
        lines.append([latex(f"{label} ({model})" if several else label), _math(trainable), *scores])
    names = [task for task, _ in tasks]
    figures = [figure for figure in figures if figure.task in names]
    caption = "Test scores."
    if sources := sorted({f"{figure.source}: {figure.setting}" for figure in figures}):
        caption += f" $\\dagger$ published, not run here ({latex('; '.join(sources))})."
    head = ["method", "trainable", *(latex(f"{task} ({metric})") for task, metric in tasks)]
    return _latex_table(head, [lines, _published_lines(figures, names)], caption)


def _published_lines(figures: Sequence[Figure], tasks: Sequence[str]) -> list[list[str]]:
    """One line a published method and source."""
    methods: dict[tuple[str, str, str], dict[str, Figure]] = defaultdict(dict)
    for figure in figures:
        methods[figure.source, figure.backbone, figure.method][figure.task] = figure
    lines = []
    for (_, backbone, method), by_task in methods.items():
        size = latex(next(iter(by_task.values())).parameters or NONE)
        scores = [by_task[task].score if task in by_task else NONE for task in tasks]
        lines.append([f"{latex(method)} ({latex(backbone)})$^\\dagger$", size, *scores])
    return lines


def _all_statistics(rows: Sequence[Row]) -> str:
    columns = used(PAPER, rows)

    def cell(column: Column, row: Row) -> str:
        if column.name == "mean":
            return _score(row)
        if column.name == "task":
            return latex(row.task)
        if column.kind == "text":
            return latex(column.show(row)) + ("$^*$" if column.name == "label" and row.notes else "")
        return _math(column.show(row))

    remarks = [f"{row.task}, {row.label}: {notes(row)}" for row in rows if row.notes]
    caption = "All statistics; $p$ values after Holm." + (f" $^*$ {latex('; '.join(remarks))}." if remarks else "")
    lines = [[cell(column, row) for column in columns] for row in rows]
    return _latex_table([latex(column.heading) for column in columns], [lines], caption)


def _score(row: Row) -> str:
    if row.summary is None:
        return latex(row.rest[0].status if row.rest else NONE)
    mark = {1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}.get(row.rank or 0, "{}")
    mean = mark.format(f"{row.summary.mean:.3f}")
    return mean if row.summary.sd is None else f"{mean}$_{{\\pm {row.summary.sd:.3f}}}$"


def _latex_table(head: Sequence[str], parts: Iterable[Sequence[Sequence[str]]], caption: str) -> str:
    """Lay out cells that are escaped already; a rule between parts."""
    bodies = [
        "\n".join(" & ".join(_guarded(line)).replace(NONE, "--") + r" \\" for line in part) for part in parts if part
    ]
    lines = "\n\\midrule\n".join([" & ".join(head) + r" \\", *bodies])
    columns = "l" + "r" * (len(head) - 1)
    return (
        f"\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{lines}\n\\bottomrule\n"
        f"\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}"
    )


def _guarded(line: Sequence[str]) -> list[str]:
    """Keep a bracket at a line's start from being read as an argument of the line break before."""
    first = line[0]
    return [f"{{}}{first}" if first[:1] in ("[", "*") else first, *line[1:]]


def _math(text: str) -> str:
    """A signed number or a bound, with a proper minus and less-than sign; thousands without a space."""
    if text[:1] in "+-<" or re.search(r"\d,\d", text):
        return f"${re.sub(r'(?<=[0-9]),(?=[0-9])', '{,}', text)}$"
    return text
