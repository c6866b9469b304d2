"""Tables of a report: rows or an overview as cells, and these as Markdown and LaTeX. All texts of runs are escaped."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmpt.report.columns import FULL, NONE, PAPER, SHORT, Column, decimal, notes, used
from mmpt.report.groups import Row, blocks
from mmpt.report.published import Figure
from mmpt.report.stats import ranks
from mmpt.utils.untrusted import one_line

SIGNIFICANT = 0.05
PAPER_HEAD = "% needs \\usepackage{booktabs,graphicx}; a table wider than its column is scaled down"
BEST = {1: "**{}**"}
BEST_AND_SECOND = BEST | {2: "<ins>{}</ins>"}
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
    """One value of a table.

    Attributes:
        text: As plain text.
        value: What the page sorts by; a number marks a cell whose text is ours.
        rank: 1 is bold, 2 underlined.
        sd: Shown behind the text.
        star: Whether it differs significantly from the baseline.
    """

    text: str
    value: float | str | None = None
    rank: int | None = None
    sd: str = ""
    star: bool = False


@dataclass(frozen=True)
class Table:
    """Lines of cells below columns; ``rows`` has the row of each line, or None for a published one."""

    columns: Sequence[Column]
    lines: Sequence[Sequence[Cell]]
    rows: Sequence[Row | None]
    caption: str = ""


def of_rows(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """One line a row."""
    return Table(columns, [[_cell(column, row) for column in columns] for row in rows], rows)


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
    tasks = sorted({(row.task, row.metric) for row in rows})
    chosen: dict[tuple[str, str], dict[tuple[str, str], Row]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (row.summary is not None, row.validation or -1.0, row.label)):
        chosen[row.model, row.method][row.task, row.metric] = row
    models = {model for model, _ in chosen}
    lines, listed = [], []
    for (model, method), by_task in sorted(chosen.items()):
        name = f"{method} ({model})" if len(models) > 1 else method
        size = next(iter(by_task.values())).median("parameters.trainable")
        cells = [_points(by_task[task]) if task in by_task else Cell(NONE) for task in tasks]
        cells += [_mean([by_task.get(task) for task in tasks])] if len(tasks) > 1 else []
        lines.append([Cell(name, name), Cell(decimal(size, None), size), *cells])
        listed.append(next(iter(by_task.values())))
    for model in models:
        _rank([line for line, row in zip(lines, listed, strict=True) if row.model == model])
    published, sources = _published_lines(figures, [task for task, _ in tasks], len(tasks) > 1)
    heads = [f"{task} ({metric})" for task, metric in tasks] + ["mean over tasks"] * (len(tasks) > 1)
    columns = [Column("label", "text", heading="method"), Column("trainable", "number", heading="trainable")]
    columns += [Column(f"score-{count}", "number", heading=head) for count, head in enumerate(heads)]
    shown = [row for by_task in chosen.values() for row in by_task.values()]
    return Table(columns, lines + published, [*listed, *(None for _ in published)], _caption(shown, rows, sources))


def _points(row: Row) -> Cell:
    """A row's score in points; a score that is no share as it is."""
    if row.summary is None:
        return Cell(row.rest[0].status if row.rest else NONE)
    scale = _scale(row)
    sd = "" if row.summary.sd is None else f"{scale * row.summary.sd:.1f}"
    return Cell(f"{scale * row.summary.mean:.1f}", scale * row.summary.mean, None, sd, significant(row))


def _scale(row: Row) -> int:
    return 100 if max(map(abs, row.scores)) <= 1 else 1


def _mean(rows: Sequence[Row | None]) -> Cell:
    """The mean over tasks with the deviation over the seeds that all tasks have; a dash where a task is missing."""
    done = [row for row in rows if row is not None and row.summary is not None]
    if len(done) < len(rows):
        return Cell(NONE)
    seeds = set.intersection(*(set(row.seeds) for row in done))
    scores = [{run.seed: _scale(row) * (run.score() or 0.0) for run in row.runs} for row in done]
    means = [statistics.fmean(one[seed] for one in scores) for seed in seeds]
    mean = statistics.fmean(_scale(row) * row.summary.mean for row in done if row.summary)
    return Cell(f"{mean:.1f}", mean, None, f"{statistics.stdev(means):.1f}" if len(means) > 1 else "")


def _rank(lines: Sequence[list[Cell]]) -> None:
    """Mark the best and the second best of each column of scores."""
    for column in range(2, len(lines[0])):
        places = ranks(value for line in lines if isinstance(value := line[column].value, float | int))
        for line in lines:
            if isinstance(value := line[column].value, float | int):
                line[column] = replace(line[column], rank=places[value])


def _published_lines(
    figures: Sequence[Figure], tasks: Sequence[str], with_mean: bool
) -> tuple[list[list[Cell]], list[str]]:
    """One line a published method and source, and the sources."""
    methods: dict[tuple[str, str, str], dict[str, Figure]] = defaultdict(dict)
    for figure in figures:
        if figure.task in tasks:
            methods[figure.source, figure.backbone, figure.method][figure.task] = figure
    lines = []
    for (_, backbone, method), by_task in methods.items():
        scores = {task: 100 * float(figure.score) for task, figure in by_task.items()}
        cells = [Cell(f"{scores[task]:.1f}", scores[task]) if task in scores else Cell(NONE) for task in tasks]
        head = [Cell(f"{method}, {backbone} †"), Cell(next(iter(by_task.values())).parameters or NONE)]
        lines.append([*head, *cells, *([Cell(NONE)] if with_mean else [])])
    settings: dict[str, dict[str, None]] = defaultdict(dict)
    for figure in (figure for by_task in methods.values() for figure in by_task.values()):
        settings[figure.source] |= dict.fromkeys(figure.setting.split("; "))
    return lines, [f"{source}: {', '.join(said)}" for source, said in settings.items()]


def _caption(shown: Sequence[Row], rows: Sequence[Row], sources: Sequence[str]) -> str:
    counts = sorted({len(row.runs) for row in shown if row.runs}) or [0]
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed{'s' * (counts[0] != 1)}"
    text = f"Test scores in points, mean ± standard deviation over {seeds}; best bold, second underlined."
    if baselines := sorted({row.comparison.baseline for row in shown if row.comparison}):
        text += f" * differs from {', '.join(baselines)}: p < {SIGNIFICANT} (paired t test over seeds, after Holm)."
    if len(shown) < len(rows):
        text += " Of several settings of a method, the one with the best validation score."
    return text + (f" † published, not run here ({'; '.join(sources)})." if sources else "")


def published(figures: Sequence[Figure]) -> Table:
    """Published figures, each with its source and setting."""
    heads = ("task", "method", "score", "trainable", "metric", "backbone", "setting", "source")
    columns = [
        Column("label" if name == "method" else name, "number" if name == "score" else "text", heading=name)
        for name in heads
    ]
    lines = [
        [Cell(figure.task, figure.task), Cell(f"{figure.method} †", figure.method)]
        + [Cell(figure.score, float(figure.score)), Cell(figure.parameters or NONE, figure.parameters)]
        + [Cell(text, text) for text in (figure.metric, figure.backbone, figure.setting, figure.source)]
        for figure in figures
    ]
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


def as_markdown(table: Table, marks: Mapping[int, str] = BEST_AND_SECOND) -> str:
    """Write a table as Markdown, without its caption."""

    def write(cell: Cell) -> str:
        text = cell.text if isinstance(cell.value, float | int) else markdown(cell.text)
        text = marks.get(cell.rank or 0, "{}").format(text) + (f" ± {cell.sd}" if cell.sd else "")
        return text + (r" \*" if cell.star and 2 in marks else "")

    heads = [markdown(column.heading) for column in table.columns]
    return grid(heads, [[write(cell) for cell in line] for line in table.lines])


def short(rows: Sequence[Row]) -> str:
    """The short table, in Markdown: one line a row, the best mean of a task bold, without columns that say nothing."""
    columns = [column for column in used(SHORT, rows) if column.name != "model" or len({row.model for row in rows}) > 1]
    return as_markdown(of_rows(columns, rows), BEST)


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
    lines = of_rows(columns, rows)
    tables = [
        _latex_table(overview(rows, figures), "table", "overview"),
        _latex_table(Table(columns, lines.lines, rows, caption), "table*", "all"),
    ]
    return "\n\n".join([PAPER_HEAD, *tables]) + "\n"


def _latex_table(table: Table, environment: str, label: str) -> str:
    def write(cell: Cell) -> str:
        text = _math(cell.text) if isinstance(cell.value, float | int) else latex(cell.text)
        text = {1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}.get(cell.rank or 0, "{}").format(text)
        return text + (f"$_{{\\pm {cell.sd}}}$" if cell.sd else "") + ("$^*$" if cell.star else "")

    heads = " & ".join(latex(column.heading) for column in table.columns)
    body = [f"{heads} \\\\\n\\midrule"]
    for count, (line, row) in enumerate(zip(table.lines, table.rows, strict=True)):
        first = "\\midrule\n" if row is None and count and table.rows[count - 1] is not None else ""
        # {} keeps a bracket or a star from being read as an argument of the line break before
        body.append(f"{first}{{}}{' & '.join(map(write, line))} \\\\".replace(NONE, "--"))
    columns = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = "\n".join(body)
    return (
        f"\\begin{{{environment}}}\n\\centering\n\\sbox0{{\\begin{{tabular}}{{{columns}}}\n\\toprule\n{lines}\n"
        "\\bottomrule\n\\end{tabular}}%\n\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\box0}\\else\\box0\\fi\n"
        f"\\caption{{{latex(table.caption)}}}\n\\label{{tab:mmpt-{label}}}\n\\end{{{environment}}}"
    )


def _math(text: str) -> str:
    """Numbers with proper minus and less-than signs; thousands without a space."""
    if re.search(r"[-+<]|\d,\d", text):
        return f"${re.sub(r'(?<=[0-9]),(?=[0-9])', '{,}', text)}$"
    return text
