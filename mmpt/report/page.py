"""One self-contained HTML page: sortable tables and plots, without a request to anywhere.

All texts of the runs are escaped: by Jinja2 in the template, by :func:`mmpt.report.svg.tag` in pictures, and as JSON
whose every ``<`` is an escape. A content security policy allows this page's own script and no other.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import islice
from typing import Any

from mmpt.report import maps, plots
from mmpt.report.details import curve, masks, metrics, routes
from mmpt.report.groups import Row
from mmpt.report.plots import Plot
from mmpt.report.published import Figure
from mmpt.report.records import Record
from mmpt.report.run import Run
from mmpt.report.settings import flatten
from mmpt.report.tables import NONE, decimal, interval, notes, p_value, spread, versus, whole

STRIPS, CURVES, SEEDS, PICTURES, KEYS = 40, 12, 5, 6, 6  # rows, rows, runs a row, rows, settings: drawn for a task


@dataclass(frozen=True)
class Cell:
    """What a table shows, and what it sorts by."""

    text: str
    value: float | str
    numeric: bool = True


@dataclass
class Section:
    """One task on one model."""

    title: str
    anchor: str
    columns: list[str]
    lines: list[tuple[Row, str, list[Cell]]]  # with the class names of the method
    plots: list[Plot] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def page(rows: Sequence[Row], records: Sequence[Record], figures: Sequence[Figure], problems: Sequence[str]) -> str:
    """Make the page.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        records: The same as :func:`mmpt.report.records.record` has them, for whoever wants to save them.
        figures: Published figures to be laid beside.
        problems: Trials that don't count, one line each.

    Returns:
        HTML.
    """
    from jinja2 import Environment, StrictUndefined

    methods = {name: index for index, name in enumerate(sorted({row.method for row in rows}))}
    blocks: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        blocks[row.task, row.model].append(row)
    sections = [_section(block, methods, figures, count) for count, block in enumerate(blocks.values(), start=1)]
    tasks = {row.task for row in rows}
    script = _text("page.js")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(_text("page.html")).render(
        style=_text("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        methods=[
            {"name": name, "style": plots.style(i), "mark": _legend(i), "index": i} for name, i in methods.items()
        ],
        sections=sections,
        problems=problems,
        synthetic=any(_bundled(run) for row in rows for run in row.runs),
        published=[figure for figure in figures if figure.task in tasks],
        facts=_facts(rows, problems),
        data=embed(records),
    )


def embed(content: Any) -> str:
    """Write JSON that can stand inside of a script element: no text in it can end the element or open a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _text(name: str) -> str:
    return resources.files("mmpt.report").joinpath("web", name).read_text(encoding="utf-8")


def _legend(index: int) -> str:
    mark = plots.marker(plots.shape(index), 8, 8, 5, "", class_="mark")
    return f'<svg viewBox="0 0 16 16" class="swatch {plots.style(index)}" aria-hidden="true">{mark}</svg>'


def _facts(rows: Sequence[Row], problems: Sequence[str]) -> list[tuple[str, str]]:
    runs = sum(len(row.runs) for row in rows)
    facts = [("runs that count", runs), ("not counted", len(problems)), ("settings", len(rows))]
    facts += [("methods", len({row.method for row in rows})), ("tasks", len({row.task for row in rows}))]
    return [(name, f"{count:,}") for name, count in facts]


def _bundled(run: Run) -> bool:
    data = run.result.get("data")
    return isinstance(data, Mapping) and data.get("bundled") is True


def _section(block: Sequence[Row], methods: Mapping[str, int], figures: Sequence[Figure], count: int) -> Section:
    first = block[0]
    compared = any(row.comparison for row in block)
    columns = ["method", "test, mean ± sd", "95 % interval", "median", "best", "n"]
    columns += ["Δ to baseline", "p, seeds", "p, examples", "p, McNemar"] if compared else []
    columns += ["trainable", "bytes", "ms a step", "training s", "peak MB", "notes"]
    columns = [name if "," in name else name.replace(" ", "\u00a0") for name in columns]  # breaks only at commas
    lines = [(row, plots.style(methods[row.method]), _cells(row, compared)) for row in block]
    section = Section(f"{first.task} ({first.metric}), {first.model}", f"task-{count}", columns, lines)
    done = [row for row in block if row.summary is not None and row.metric == first.metric]
    if done:
        beside = [figure for figure in figures if figure.task == first.task]
        _draw(section, done, methods, beside)
    return section


def _cells(row: Row, compared: bool) -> list[Cell]:
    """One row of a table; the method's own cell is the template's."""
    summary, one, peak = row.summary, row.comparison, row.most("memory", "peak_bytes")
    cells = [
        _cell(spread(row), summary.mean if summary else None),
        _cell(interval(summary.low, summary.high) if summary else NONE, summary.low if summary else None),
        _cell(decimal(summary.median if summary else None), summary.median if summary else None),
        _cell(decimal(summary.best if summary else None), summary.best if summary else None),
        _cell(str(len(row.runs)), len(row.runs)),
    ]
    if compared:
        difference = one.by_seed.difference if one and one.by_seed else None
        cells.append(_cell(versus(row) or NONE, difference))
        p_values = (one.holm_seed, one.holm_example, one.holm_mcnemar) if one else (None, None, None)
        cells += [_cell(p_value(p), p) for p in p_values]
    sizes = [row.median("parameters", name) for name in ("trainable", "bytes")]
    cells += [_cell(whole(size), size) for size in sizes]
    for name, places in (("step_ms_median", 1), ("train_s", 1)):
        cells.append(_cell(decimal(row.median("timing", name), places), row.median("timing", name)))
    cells.append(_cell(decimal(None if peak is None else peak / 1e6, 0), peak))
    return [*cells, Cell(notes(row), notes(row), numeric=False)]


def _cell(text: str, value: float | None) -> Cell:
    return Cell(text, "" if value is None else value)


def _draw(section: Section, rows: Sequence[Row], methods: Mapping[str, int], figures: Sequence[Figure]) -> None:
    """Add the plots of one task."""
    if len(rows) > STRIPS:
        section.remarks.append(f"Plots show the best {STRIPS} of {len(rows)} settings.")
    if len(rows) > CURVES or any(len(row.runs) > SEEDS for row in rows):
        section.remarks.append(f"Curves show at most the best {CURVES} settings and {SEEDS} seeds of each.")
    drawn = rows[:STRIPS]
    found: list[Plot | None] = [
        plots.scores(drawn, methods, figures),
        plots.trade_off(drawn, methods, ("parameters", "trainable"), "trainable parameters"),
        plots.trade_off(drawn, methods, ("timing", "train_s"), "training seconds"),
    ]
    told = [(row, [metrics(run) for run in row.runs[:SEEDS]]) for row in drawn[:CURVES]]
    for name, title, log in (
        (f"validation/{rows[0].metric}", "Validation score over training", False),
        ("validation/loss", "Validation loss over training", True),
        ("train/loss", "Training loss", True),
    ):
        lines = [(row, [curve(metric, name) for metric in several]) for row, several in told]
        found.append(plots.curves(lines, methods, title, name, log))
    section.plots += [plot for plot in found if plot is not None]
    loads = ((row, routes(several[0])) for row, several in told if several)
    for row, load in islice(((row, load) for row, load in loads if load and load[0]), PICTURES):
        section.plots.append(maps.route_load(row, row.seeds[0], load, methods[row.method]))
    section.plots += _masks(section, drawn, methods)
    section.plots += _effects(rows, methods)


def _masks(section: Section, rows: Iterable[Row], methods: Mapping[str, int]) -> list[Plot]:
    found: list[Plot] = []
    for row in rows:
        run = row.runs[0]
        sites, problem = masks(run)
        if problem:
            section.remarks.append(problem)
        found += [maps.mask_map(row, run.seed, site, value, methods[row.method]) for site, value in sites.items()]
        if len(found) >= PICTURES:
            break
    return found


def _effects(rows: Sequence[Row], methods: Mapping[str, int]) -> list[Plot]:
    """One plot for each method and each of its settings that differ."""
    found = []
    for method, index in methods.items():
        mine = [row for row in rows if row.method == method]
        keys = sorted({key for row in mine for key in row.settings})
        for key in keys[:KEYS] if len(mine) > 1 else []:
            values = {count: value for count, row in enumerate(mine) if (value := _setting(row, key)) is not None}
            if len({str(value) for value in values.values()}) > 1:
                found.append(plots.effect(mine, key, values, index))
    return found


def _setting(row: Row, key: str) -> Any:
    settings = row.runs[0].settings
    return flatten(settings.values).get(key) if settings is not None else None
