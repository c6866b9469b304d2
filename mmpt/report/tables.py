"""Tables of a report as cells, and these as Markdown and LaTeX. All texts of runs are escaped."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from mmpt.report.columns import FULL, NONE, PAPER, SHORT, Column, decimal, notes, used
from mmpt.report.groups import Row, blocks, divide
from mmpt.report.published import Figure
from mmpt.report.stats import ranks
from mmpt.utils.untrusted import one_line

Task = tuple[str, str]  # and its metric
SIGNIFICANT = 0.05
SIZE = "parameters.trainable"
PAPER_HEAD = "% needs \\usepackage{booktabs,graphicx}; a table wider than its column is scaled down"
BEST: dict[int | str, str] = {1: "**{}**", "sd": " ± {}"}
MARKDOWN = BEST | {2: "<ins>{}</ins>", "star": r" \*"}
LATEX: dict[int | str, str] = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}", "sd": r"$_{{\pm {}}}$", "star": "$^*$"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "†": r"$^\dagger$",
    "–": "--",
    "…": r"\dots{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
} | {character: f"\\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    text: str  # as plain text
    value: float | str | None = None  # what the page sorts by; a number marks a cell whose text is ours
    rank: int | None = None  # 1 is bold, 2 underlined
    sd: str = ""  # shown behind the text
    star: bool = False  # whether it differs significantly from the baseline


@dataclass(frozen=True)
class Table:
    """Lines of cells below columns; ``rows`` has the row of each line, or None for a published one."""

    columns: Sequence[Column]
    lines: Sequence[Sequence[Cell]]
    rows: Sequence[Row | None]
    caption: str = ""


def of_rows(columns: Sequence[Column], rows: Sequence[Row], caption: str = "") -> Table:
    """One line a row."""
    return Table(columns, [[_cell(column, row) for column in columns] for row in rows], rows, caption)


def _cell(column: Column, row: Row) -> Cell:
    text = column.show(row)
    if column.name == "mean":
        mean, _, sd = text.partition(" ± ")
        return Cell(mean, column.value(row), row.rank, sd, significant(row))
    return Cell(text, text if column.kind == "text" else column.value(row))


def significant(row: Row) -> bool:
    """Whether the main p value, that over seeds after Holm's correction, is below 0.05."""
    p = row.comparison.holm_seed if row.comparison else None
    return p is not None and p < SIGNIFICANT


def overview(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> Table:
    """Methods by tasks in points, with the mean over tasks; of several settings the best on validation, never on test.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        figures: Published figures, which have lines of their own and no part in the marks.
    """
    factors = _factors(rows)
    averaged = {task: factor for task, factor in factors.items() if factor is not None}
    chosen: dict[tuple[str, str], dict[Task, Row]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (row.summary is not None, row.validation or -math.inf, row.label)):
        if (row.task, row.metric) in factors:
            chosen[row.model, row.method][row.task, row.metric] = row
    several = len({model for model, _ in chosen}) > 1
    by_model: dict[str, list[list[Cell]]] = defaultdict(list)
    firsts: list[Row] = []
    for (model, method), by_task in sorted(chosen.items()):
        firsts.append(next(iter(by_task.values())))
        name, sizes = f"{method} ({model})" if several else method, (row.median(SIZE) for row in by_task.values())
        size = next((size for size in sizes if size is not None), None)  # of the first task with a finished run
        cells = [_points(by_task.get(task), factor) for task, factor in factors.items()]
        cells += [_mean(by_task, averaged)] if len(averaged) > 1 else []
        by_model[model].append([Cell(name, name), Cell(decimal(size, None), size), *cells])
    for lines in by_model.values():
        _rank(lines)
    beside = [figure for figure in figures if figure.task in {task for task, _ in factors}]
    heads = [f"{task} ({metric})" for task, metric in factors] + ["mean over tasks"] * (len(averaged) > 1)
    columns = [Column("label", "text", heading="method"), Column("trainable", "number", heading="trainable")]
    columns += [Column(f"score-{count}", "number", heading=head) for count, head in enumerate(heads)]
    shown = [row for by_task in chosen.values() for row in by_task.values()]
    published = _published_lines(beside, [*(task for task, _ in factors), *heads[len(factors) :]])
    lines = [line for several in by_model.values() for line in several] + published
    caption = _caption(shown, factors, len(shown) < len(rows), beside)
    return Table(columns, lines, [*firsts, *[None] * len(published)], caption)


def _factors(rows: Sequence[Row]) -> dict[Task, float | None]:
    """What brings the scores of each known task to points, by its metric's range; None where they have none."""
    factors: dict[Task, float | None] = {}
    for task, same in sorted(divide(rows, lambda row: (row.task, row.metric)).items()):
        first, *others = {row.ends for row in same if row.summary} or {None}
        if task[0] != "?":
            factors[task] = 100 / max(map(abs, first)) if first and not others else None
    return factors


def _points(row: Row | None, factor: float | None) -> Cell:
    """A row's score in points, or as it is."""
    if row is None or row.summary is None:
        return Cell(row.rest[0].status if row and row.rest else NONE)
    times, digits = (1, 3) if factor is None else (factor, 1)
    mean, sd = times * row.summary.mean, row.summary.sd
    return Cell(decimal(mean, digits), mean, None, "" if sd is None else decimal(times * sd, digits), significant(row))


def _mean(by_task: Mapping[Task, Row], factors: Mapping[Task, float]) -> Cell:
    """The mean over tasks with the deviation over the seeds that all tasks have; a dash where a task is missing."""
    done = [(row, factor) for task, factor in factors.items() if (row := by_task.get(task)) and row.summary]
    if len(done) < len(factors):
        return Cell(NONE)
    scores = [{run.seed: factor * (run.score() or 0.0) for run in row.runs} for row, factor in done]
    means = [statistics.fmean(one[seed] for one in scores) for seed in set.intersection(*map(set, scores))]
    mean = statistics.fmean(factor * row.summary.mean for row, factor in done if row.summary)
    return Cell(f"{mean:.1f}", mean, None, f"{statistics.stdev(means):.1f}" if len(means) > 1 else "")


def _rank(lines: Sequence[list[Cell]]) -> None:
    """Mark the best and the second best of each column of scores."""
    for column in range(2, len(lines[0])):
        places = ranks(value for line in lines if isinstance(value := line[column].value, float | int))
        for line in lines:
            if isinstance(value := line[column].value, float | int):
                line[column] = replace(line[column], rank=places[value])


def _published_lines(figures: Sequence[Figure], tasks: Sequence[str]) -> list[list[Cell]]:
    """One line a published method and source; a dash in a column that is none of its tasks."""
    lines = []
    for same in divide(figures, lambda figure: (figure.source, figure.backbone, figure.method)).values():
        scores = {figure.task: 100 * float(figure.score) for figure in same}
        cells = [Cell(f"{scores[task]:.1f}", scores[task]) if task in scores else Cell(NONE) for task in tasks]
        lines.append([Cell(f"{same[0].method}, {same[0].backbone} †"), Cell(same[0].parameters or NONE), *cells])
    return lines


def _caption(shown: Sequence[Row], factors: Mapping[Task, float | None], more: bool, figures: Sequence[Figure]) -> str:
    """What the overview shows; ``more``: whether it leaves settings out."""
    counts = sorted({len(row.runs) for row in shown if row.runs}) or [0]
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed{'s' * (counts[0] != 1)}"
    text = f"Test scores in points, mean ± standard deviation over {seeds}; best bold, second underlined."
    done = {(row.task, row.metric) for row in shown if row.summary}
    if off := [
        f"{task} ({metric})" for task, metric in factors if (task, metric) in done and not factors[task, metric]
    ]:
        text += f" Not in points and not part of the mean, since the metric has no known range: {', '.join(off)}."
    if baselines := sorted({row.comparison.baseline for row in shown if row.comparison}):
        text += f" * differs from {', '.join(baselines)}: p < {SIGNIFICANT} (paired t test over seeds, after Holm)."
    if more:
        text += " Of several settings of a method, the one with the best validation score."
    settings = divide(figures, lambda figure: figure.source)
    sources = [
        f"{source}: {', '.join(dict.fromkeys(said for figure in same for said in figure.setting.split('; ')))}"
        for source, same in settings.items()
    ]
    return text + (f" † published, not run here ({'; '.join(sources)})." if sources else "")


def published(figures: Sequence[Figure]) -> Table:
    """Published figures, each with its source and setting."""
    columns, lines = [], []
    for head in ["task", "method", "score", "trainable", "metric", "backbone", "setting", "source"]:
        name = "label" if head == "method" else head
        columns.append(Column(name, "number" if name == "score" else "text", heading=head))
    for figure in figures:
        line = [Cell(text or NONE, text) for text in astuple(figure)]
        line[1:3] = Cell(f"{figure.method} †", figure.method), Cell(figure.score, float(figure.score))
        lines.append(line)
    return Table(columns, lines, [None] * len(lines))


def markdown(text: object) -> str:
    """Escape what Markdown or HTML would read as markup."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*\[\]|])", r"\\\1", plain)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)


def grid(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table of cells that are escaped already."""
    rule = "|" + "---|" * len(names)
    return "\n".join([f"| {' | '.join(names)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _written(
    table: Table, forms: Mapping[int | str, str], escape: Callable[[str], str], number: Callable[[str], str] = str
) -> tuple[list[str], list[list[str]]]:
    """The heads, and the cells of each line; ``forms`` has what is put around what, by :class:`Cell`."""

    def write(cell: Cell) -> str:
        text = number(cell.text) if isinstance(cell.value, float | int) else escape(cell.text)
        text = forms.get(cell.rank or 0, "{}").format(text) + (forms["sd"].format(cell.sd) if cell.sd else "")
        return text + (forms.get("star", "") if cell.star else "")

    return [escape(column.heading) for column in table.columns], [[*map(write, line)] for line in table.lines]


def as_markdown(table: Table, forms: Mapping[int | str, str] = MARKDOWN) -> str:
    """Write a table as Markdown, without its caption."""
    return grid(*_written(table, forms, markdown))


def short(rows: Sequence[Row]) -> str:
    """The short table, in Markdown: one line a row, the best mean of a task bold, without columns that say nothing."""
    return as_markdown(of_rows(used(SHORT, rows), rows), BEST)


def full(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    """Everything a report says about its rows, in Markdown: the overview, and a table for each task and model."""
    top = overview(rows, figures)
    parts = [f"## Overview\n\n{as_markdown(top)}\n{markdown(top.caption)}\n"]
    for block in blocks(rows):
        title = f"## {markdown(block[0].task)} ({markdown(block[0].metric)}), {markdown(block[0].model)}"
        parts.append(f"{title}\n\n{as_markdown(of_rows(FULL, block))}")
        if mine := [figure for figure in figures if figure.task == block[0].task]:
            title = f"Published figures for {markdown(block[0].task)}, not run here:"
            parts.append(f"{title}\n\n{as_markdown(published(mine))}")
    if lines := explanations(FULL, rows):
        parts.append("\n".join(f"- {markdown(line)}" for line in lines) + "\n")
    return "\n".join(parts)


def explanations(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """What the columns of a table mean that need it, one line each; for those that have content."""
    return [f"{c.heading}: {c.about}." for c in columns if c.about and (c.name == "low" or c in used([c], rows))]


def latex(text: object) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def paper(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    """A report as LaTeX: the overview in one column, and one line a row with all statistics across both."""
    columns = used(PAPER, rows)
    said = [f"{row.task}, {row.label}: {notes(row)}." for row in rows if row.notes]
    caption = " ".join(["All statistics; p values after Holm.", *explanations(columns, rows), *said])
    first = _latex_table(overview(rows, figures), "table", "overview")
    return f"{PAPER_HEAD}\n\n{first}\n\n{_latex_table(of_rows(columns, rows, caption), 'table*', 'all')}\n"


def _latex_table(table: Table, environment: str, label: str) -> str:
    heads, cells = _written(table, LATEX, latex, _math)
    # {} keeps a bracket or a star from being read as an argument of the line break before
    lines = [f"{{}}{' & '.join(line)} \\\\".replace(NONE, "--") for line in cells]
    if None in table.rows[1:]:
        lines.insert(table.rows.index(None, 1), "\\midrule")  # before published ones
    body = "\n".join([f"{' & '.join(heads)} \\\\\n\\midrule", *lines])
    columns = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    return (
        f"\\begin{{{environment}}}\n\\centering\n\\sbox0{{\\begin{{tabular}}{{{columns}}}\n\\toprule\n{body}\n"
        "\\bottomrule\n\\end{tabular}}%\n\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\box0}\\else\\box0\\fi\n"
        f"\\caption{{{latex(table.caption)}}}\n\\label{{tab:mmpt-{label}}}\n\\end{{{environment}}}"
    )


def _math(text: str) -> str:
    """Numbers with proper minus and less-than signs; thousands without a space."""
    if re.search(r"[-+<]|\d,\d", text):
        return f"${re.sub(r'(?<=[0-9]),(?=[0-9])', '{,}', text)}$"
    return text
