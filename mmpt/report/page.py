"""One self-contained HTML page: sortable tables and figures, without a request to anywhere.

All texts of the runs are escaped: by Jinja2 in the template, by :mod:`mmpt.report.drawing` in figures, and as JSON
whose every ``<`` is an escape. A content security policy allows this page's own script and no other.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from mmpt.report import tables
from mmpt.report.columns import PAGE, Record, used
from mmpt.report.groups import Row, blocks
from mmpt.report.published import Figure
from mmpt.report.stats import FEWEST


@dataclass
class Section:
    """One task on one model."""

    title: str
    anchor: str
    table: tables.Table
    figures: list[dict[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def page(
    rows: Sequence[Row], records: Sequence[Record], figures: Sequence[Figure], problems: Sequence[str], live: str = ""
) -> str:
    """Make the page.

    Args:
        rows: Of :func:`mmpt.report.groups.group`.
        records: The same as :func:`mmpt.report.columns.record` has them, for whoever wants to save them.
        figures: Published figures to show beside them.
        problems: Trials that do not count, one line each.
        live: Names the state of the runs; the page then asks its server for it, and loads again when it changes.
    """
    from jinja2 import Environment, StrictUndefined

    from mmpt.report.drawing import COLOURS, MARKERS, marker, style
    from mmpt.report.figures import numbered

    methods = numbered(rows)
    with style():
        sections = [_section(block, methods, figures, count) for count, block in enumerate(blocks(rows), start=1)]
    columns = {column.name: column for section in sections for column in section.table.columns[2:]}
    script = _text("page.js")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(_text("page.html")).render(
        style=_text("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        live=live,
        methods=[{"name": name, "mark": MARKERS[marker(i)], "index": i} for name, i in methods.items()],
        numbers=methods,
        columns=[column for column in PAGE if column.name in columns],
        colours=len(COLOURS),
        overview=tables.overview(rows, figures),
        sections=sections,
        problems=problems,
        explanations=tables.explanations(PAGE, rows),
        synthetic=any(run.result is not None and run.result.data.bundled for row in rows for run in row.runs),
        published=tables.published([figure for figure in figures if figure.task in {row.task for row in rows}]),
        facts=_facts(rows, problems),
        data=embed(records),
    )


def embed(content: Any) -> str:
    """Write JSON that can stand inside of a script element: no text in it can end the element or open a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(name: str) -> str:
    return resources.files("mmpt.report").joinpath("web", name).read_text(encoding="utf-8")


def _facts(rows: Sequence[Row], problems: Sequence[str]) -> list[tuple[str, str]]:
    facts = {"runs that count": sum(len(row.runs) for row in rows), "not counted": len(problems), "settings": len(rows)}
    facts |= {"methods": len({row.method for row in rows}), "tasks": len({row.task for row in rows})}
    return [(name, f"{count:,}") for name, count in facts.items()]


def _section(block: Sequence[Row], methods: Mapping[str, int], figures: Sequence[Figure], count: int) -> Section:
    from mmpt.report.drawing import inline
    from mmpt.report.figures import draw

    first = block[0]
    table = tables.of_rows(used(PAGE, block), block)
    section = Section(f"{first.task} ({first.metric}), {first.model}", f"task-{count}", table)
    if few := sum(row.summary is not None and row.summary.n < FEWEST for row in block):
        section.remarks.append(
            f"No 95 % interval for {few} of {len(block)} settings: they have fewer than three seeds."
        )
    drawings, remarks = draw(block, methods, figures)
    section.remarks += remarks
    for number, drawing in enumerate(drawings):
        parts = {part.split("-")[1] for part in drawing.tips}
        method = parts.pop() if len(parts) == 1 else ""  # the page hides a method's own figures as a whole
        about = {"title": drawing.title, "caption": drawing.caption, "method": method}
        section.figures.append({**about, "svg": inline(drawing, f"f{count}-{number}")})
    return section
