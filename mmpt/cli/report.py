"""``python -m mmpt.report RUNS... [--out DIR or FILE.jsonl] [--baseline METHOD] [--watch] [--diff] ...``."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from typer import Argument, Option

from mmpt.errors import RunError, nearest
from mmpt.report import published, tables
from mmpt.report.columns import published_record, record
from mmpt.report.diff import diff as compare_two
from mmpt.report.groups import Row, blocks, group, problems
from mmpt.report.load import load
from mmpt.report.published import Figure
from mmpt.report.records import as_csv, as_json, as_jsonl, as_parquet, json_text
from mmpt.report.run import Run
from mmpt.runs.record import refuse_file_of_a_run
from mmpt.utils.files import write_bytes
from mmpt.utils.screen import new_console, show, show_markdown

FORMATS = "md, tex, csv, parquet, json, html, jsonl, peft"
DEFAULT = "md,tex,csv,parquet,json,html"
SHOWN = 20  # problems on the console; the files have all of them


@dataclass
class Report:
    """All that is written."""

    runs: Sequence[Run]
    rows: Sequence[Row]
    figures: Sequence[Figure]
    problems: Sequence[str]

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """One a row, all columns."""
        return [record(row) for row in self.rows]

    @property
    def all_records(self) -> list[dict[str, Any]]:
        """Those of the rows, then those of published figures."""
        return [*self.records, *map(published_record, self.figures)]


def report(
    runs: Annotated[list[Path], Argument(metavar="RUNS", help="Run directories, their root, jsonl, a W&B export.")],
    out: Annotated[Path | None, Option(metavar="DIR", help="Write a report there; FILE.jsonl: all results.")] = None,
    baseline: Annotated[str | None, Option(metavar="METHOD", help="Or 'METHOD KEY=VALUE'; compare with it.")] = None,
    published: Annotated[bool, Option("--published", help="Show published figures beside, marked as such.")] = False,
    formats: Annotated[str | None, Option(metavar="LIST", help=f"Of {FORMATS}; default: {DEFAULT}.")] = None,
    figures: Annotated[Path | None, Option(metavar="DIR", help="Write each figure there: SVG, PDF, PNG.")] = None,
    watch: Annotated[bool, Option("--watch", help="Serve a live page on this machine, until Ctrl-C.")] = False,
    diff: Annotated[bool, Option("--diff", help="Compare two runs: settings, scores, test examples.")] = False,
) -> int:
    """Make tables, figures and a page of runs.

    Runs are grouped by everything except the seed. Exit code: 0 all runs count, 1 something is missing or failed, 2
    nothing to report. docs/report.md has every statistic and format.
    """
    chosen = _formats(formats, out)
    console, errors = new_console(), new_console(sys.stderr)
    if watch or diff:
        if (watch and diff) or formats is not None or figures is not None or (watch and out is not None):
            raise RunError("--watch and --diff write no report; leave out --formats, --figures, and --out with --watch")
        return _watch(runs, baseline, published, console) if watch else _diff(runs, out, console)
    if out is not None and out.suffix == ".jsonl":
        refuse_file_of_a_run(out, "--out")
    made = _report(runs, baseline, published)
    if len({row.task for row in made.rows}) > 1:
        overview = tables.overview(made.rows)
        show_markdown(console, tables.as_markdown(overview))
        for line in ("", overview.caption, ""):
            show(console, line)
    if made.rows:
        show_markdown(console, tables.short(made.rows))
    if made.figures and out is None:
        beside = tables.as_markdown(tables.published(made.figures))
        show_markdown(console, f"\nPublished figures, not run here:\n\n{beside}")
    if out is not None and made.rows:
        _write(made, out, chosen)
    if figures is not None:
        _save_figures(made, figures)
    for line in made.problems[:SHOWN]:
        show(errors, f"not done: {line}")
    if len(made.problems) > SHOWN:
        show(errors, f"not done: and {len(made.problems) - SHOWN} more")
    if not any(row.summary for row in made.rows):
        show(errors, "error: no finished run to report")
        return 2
    return 1 if made.problems else 0


def _formats(text: str | None, out: Path | None) -> list[str]:
    """Check ``--formats`` before anything is read."""
    names = [name.strip() for name in (DEFAULT if text is None else text).split(",") if name.strip()]
    for name in names:
        if name not in _WRITERS:
            raise RunError(f"--formats {name}: allowed are {FORMATS}{nearest(name, _WRITERS)}")
    if not names:
        raise RunError(f"--formats is empty; allowed are {FORMATS}")
    if text is not None and (out is None or out.suffix == ".jsonl"):
        raise RunError("--formats needs a folder to write to; give --out DIR")
    return names


def _report(paths: Sequence[Path], baseline: str | None, with_published: bool) -> Report:
    loaded = load(paths)
    rows = group(loaded.runs)
    if baseline is not None and rows:
        from mmpt.report.compare import compare

        compare(rows, baseline)
    tasks = {row.task for row in rows}
    beside = [figure for figure in published.figures() if figure.task in tasks] if with_published else []
    return Report(loaded.runs, rows, beside, [*loaded.problems, *problems(rows)])


def _diff(runs: Sequence[Path], out: Path | None, console: Console) -> int:
    show_markdown(console, compare_two(runs, SHOWN))
    if out is not None:
        _save(out / "diff.md", compare_two(runs))
    return 0


def _watch(runs: Sequence[Path], baseline: str | None, with_published: bool, console: Console) -> int:
    from mmpt.report.page import page
    from mmpt.report.watch import serve

    def make(state: str) -> str:
        try:
            made, more = _report(runs, baseline, with_published), []
        except RunError as error:  # no run of the baseline yet
            made, more = _report(runs, None, with_published), [str(error)]
        return page(made.rows, made.records, made.figures, [*made.problems, *more], live=state)

    def ready(address: str) -> None:
        show(console, f"live page: {address} (this machine only; Ctrl-C ends it)")
        sys.stdout.flush()  # also where it is no terminal

    if gone := [path for path in runs if not path.exists()]:
        raise RunError(f"{gone[0]} does not exist; give run directories, their root, or jsonl files")
    serve(runs, make, ready)
    return 0


def _write(report: Report, out: Path, formats: Iterable[str]) -> None:
    if out.suffix == ".jsonl":
        _save(out, as_jsonl(report.runs))
        return
    if out.is_file():
        raise RunError(f"--out {out} is a file; name a folder, or a file that ends in .jsonl")
    for name in formats:
        _WRITERS[name](report, out)


def _save(path: Path, text: str) -> None:
    """Write a text; half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    write_bytes(path, text.encode("utf-8", "replace"))


def _markdown(report: Report, out: Path) -> None:
    text = f"# Report\n\n{tables.full(report.rows, report.figures)}"
    if report.problems:
        text += "\n## Not counted\n\n" + "".join(f"- {tables.markdown(line)}\n" for line in report.problems)
    _save(out / "report.md", text)


def _json(report: Report, out: Path) -> None:
    from mmpt.report.peft_format import experiment

    scores = [{str(run.seed): run.score() for run in row.runs} for row in report.rows]
    records = [{**values, "scores": one} for values, one in zip(report.records, scores, strict=True)]
    _save(out / "report.json", as_json(records, report.figures, report.problems, map(experiment, report.runs)))


def _html(report: Report, out: Path) -> None:
    from mmpt.report.page import page

    _save(out / "report.html", page(report.rows, report.records, report.figures, report.problems))


def _peft(report: Report, out: Path) -> None:
    """One file a run, as the results folder of peft's method_comparison has them."""
    from mmpt.report.peft_format import experiment

    for count, one in enumerate(report.runs, start=1):
        path = out / "method_comparison" / f"{count:05d}-{_file_name(one.name)}.json"
        _save(path, json_text(experiment(one), indent=2) + "\n")


def _save_figures(report: Report, folder: Path) -> None:
    from mmpt.report.drawing import save, style
    from mmpt.report.figures import draw

    with style():
        for block in blocks(report.rows):
            drawings, _ = draw(block, report.figures)
            for count, drawing in enumerate(drawings, start=1):
                name = _file_name(f"{block[0].task}-{block[0].model}-{count:02d}-{drawing.title}")
                save(drawing, folder, name)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[:100].strip("._")


_WRITERS: dict[str, Callable[[Report, Path], None]] = {
    "md": _markdown,
    "tex": lambda report, out: _save(out / "report.tex", tables.paper(report.rows, report.figures)),
    "csv": lambda report, out: _save(out / "report.csv", as_csv(report.all_records)),
    "parquet": lambda report, out: write_bytes(out / "report.parquet", as_parquet(report.all_records)),
    "json": _json,
    "html": _html,
    "jsonl": lambda report, out: _save(out / "results.jsonl", as_jsonl(report.runs)),
    "peft": _peft,
}
