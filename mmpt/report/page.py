"""One self-contained HTML page: sortable tables and figures, without a request to anywhere.

All texts of the runs are escaped: by Jinja2 in the template, by :mod:`mmpt.report.drawing` in figures, and as JSON
whose every ``<`` is an escape. A content security policy allows this page's own script and no other.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from mmpt.report import tables
from mmpt.report.columns import PAGE, Record, used
from mmpt.report.groups import Row, blocks
from mmpt.report.published import Figure
from mmpt.report.stats import FEWEST


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

    methods = dict(sorted((row.method, row.index) for row in rows))
    with style():
        sections = [_section(block, figures, count) for count, block in enumerate(blocks(rows), start=1)]
    shown = {column.name for section in sections for column in section["table"].columns[2:]}
    counts = {"runs that count": sum(len(row.runs) for row in rows), "not counted": len(problems)}
    counts |= {"settings": len(rows), "methods": len(methods), "tasks": len({row.task for row in rows})}
    script = _text("page.js")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(_text("page.html")).render(
        style=_text("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        live=live,
        methods=[{"name": name, "mark": MARKERS[marker(i)], "index": i} for name, i in methods.items()],
        columns=[column for column in PAGE if column.name in shown],
        colours=len(COLOURS),
        overview=tables.overview(rows, figures),
        sections=sections,
        problems=problems,
        explanations=tables.explanations(PAGE, rows),
        synthetic=any(run.result is not None and run.result.data.bundled for row in rows for run in row.runs),
        published=tables.published([figure for figure in figures if figure.task in {row.task for row in rows}]),
        facts=[(name, f"{count:,}") for name, count in counts.items()],
        data=embed(records),
    )


def embed(content: Any) -> str:
    """Write JSON that can stand inside of a script element: no text in it can end the element or open a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})


def _text(name: str) -> str:
    return resources.files("mmpt.report").joinpath("web", name).read_text(encoding="utf-8")


def _section(block: Sequence[Row], figures: Sequence[Figure], count: int) -> dict[str, Any]:
    """One task on one model: its table, figures and remarks."""
    from mmpt.report.drawing import inline
    from mmpt.report.figures import draw

    drawings, remarks = draw(block, figures)
    if few := sum(row.summary is not None and row.summary.n < FEWEST for row in block):
        why = "with two seeds it would reach 12.7 standard errors to each side, with one it is not defined"
        remarks.insert(
            0, f"No 95 % interval for {few} of {len(block)} settings, which have fewer than three seeds: {why}."
        )
    shown = []
    for number, drawing in enumerate(drawings):
        parts = {part.split("-")[1] for part in drawing.tips}
        method = parts.pop() if len(parts) == 1 else ""  # the page hides a method's own figures as a whole
        about = {"title": drawing.title, "caption": drawing.caption, "method": method}
        shown.append({**about, "svg": inline(drawing, f"f{count}-{number}")})
    title = f"{block[0].task} ({block[0].metric}), {block[0].model}"
    table = tables.of_rows(used(PAGE, block), block)
    return {"title": title, "anchor": f"task-{count}", "table": table, "figures": shown, "remarks": remarks}
