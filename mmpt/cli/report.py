"""``python -m mmpt.report RUNS... [--out DIR or FILE.jsonl] [--baseline METHOD] [--published] [--formats ...]``."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.cli.program import exit_code
from mmpt.errors import RunError, nearest
from mmpt.report.columns import published_record, record
from mmpt.report.groups import Row, blocks, group, problems
from mmpt.report.load import load
from mmpt.report.published import Figure, figures
from mmpt.report.records import as_csv, as_json, as_jsonl, as_parquet, json_text
from mmpt.report.run import Run
from mmpt.report.tables import full, markdown, paper, published, short
from mmpt.utils.files import write_bytes
from mmpt.utils.screen import new_console, show, show_markdown

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


def main(argv: list[str] | None = None) -> int:
    """Print the short table, and write what ``--out`` and ``--figures`` ask for.

    Returns:
        0: all runs count; 1: something is missing, failed or damaged; 2: there is nothing to report, or a wrong call.
    """
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    formats = _formats(arguments)
    report, console, errors = _report(arguments), new_console(), new_console(sys.stderr)
    if report.rows:
        show_markdown(console, short(report.rows))
    if report.figures and arguments.out is None:
        show_markdown(console, f"\nPublished figures, not run here:\n\n{published(report.figures)}")
    if arguments.out is not None and report.rows:
        _write(report, arguments.out, formats)
    if arguments.figures is not None:
        _save_figures(report, arguments.figures)
    for line in report.problems[:SHOWN]:
        show(errors, f"not done: {line}")
    if len(report.problems) > SHOWN:
        show(errors, f"not done: and {len(report.problems) - SHOWN} more")
    if not any(row.summary for row in report.rows):
        print("error: no finished run to report", file=sys.stderr)
        return 2
    return 1 if report.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmpt report",
        description="Tables, figures and a page of runs, grouped by everything except the seed.",
        epilog="exit code: 0 all runs count, 1 something is missing or failed, 2 nothing to report. docs/report.md has "
        "every statistic and format.",
    )
    runs = "run directories, their root, jsonl files, or a W&B export (.json, .csv)"
    out = "write a report there; FILE.jsonl: all results, one JSON object a line"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help=runs)
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    parser.add_argument("--baseline", metavar="METHOD", help="compare every other method with this one, paired")
    parser.add_argument("--published", action="store_true", help="show published figures beside, marked as such")
    parser.add_argument("--formats", metavar="LIST", help=f"of {', '.join(_WRITERS)}; default: {DEFAULT}")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write each figure there as SVG, PDF and PNG")
    return parser


def _formats(arguments: argparse.Namespace) -> list[str]:
    """Check ``--formats`` before anything is read."""
    text = arguments.formats if arguments.formats is not None else DEFAULT
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _WRITERS:
            raise RunError(f"--formats {name}: allowed are {', '.join(_WRITERS)}{nearest(name, _WRITERS)}")
    if not names:
        raise RunError(f"--formats is empty; allowed are {', '.join(_WRITERS)}")
    if arguments.formats is not None and (arguments.out is None or arguments.out.suffix == ".jsonl"):
        raise RunError("--formats needs a folder to write to; give --out DIR")
    return names


def _report(arguments: argparse.Namespace) -> Report:
    loaded = load(arguments.runs)
    rows = group(loaded.runs)
    if arguments.baseline is not None and rows:
        from mmpt.report.compare import compare

        compare(rows, arguments.baseline)
    tasks = {row.task for row in rows}
    beside = [figure for figure in figures() if figure.task in tasks] if arguments.published else []
    return Report(loaded.runs, rows, beside, [*loaded.problems, *problems(rows)])


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
    text = f"# Report\n\n{full(report.rows, report.figures)}"
    if report.problems:
        text += "\n## Not counted\n\n" + "".join(f"- {markdown(line)}\n" for line in report.problems)
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

    for count, run in enumerate(report.runs, start=1):
        path = out / "method_comparison" / f"{count:05d}-{_file_name(run.name)}.json"
        _save(path, json_text(experiment(run), indent=2) + "\n")


def _save_figures(report: Report, folder: Path) -> None:
    from mmpt.report.drawing import save, style
    from mmpt.report.figures import draw
    from mmpt.report.page import drawable, method_numbers

    methods = method_numbers(report.rows)
    for block in blocks(report.rows):
        if not (done := drawable(block)):
            continue
        with style():
            drawings, _ = draw(done, methods, [figure for figure in report.figures if figure.task == done[0].task])
            for count, drawing in enumerate(drawings, start=1):
                name = _file_name(f"{done[0].task}-{done[0].model}-{count:02d}-{drawing.title}")
                save(drawing, folder, name)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[:100].strip("._")


_WRITERS: dict[str, Callable[[Report, Path], None]] = {
    "md": _markdown,
    "tex": lambda report, out: _save(out / "report.tex", paper(report.rows, report.figures)),
    "csv": lambda report, out: _save(out / "report.csv", as_csv(report.all_records)),
    "parquet": lambda report, out: write_bytes(out / "report.parquet", as_parquet(report.all_records)),
    "json": _json,
    "html": _html,
    "jsonl": lambda report, out: _save(out / "results.jsonl", as_jsonl(report.runs)),
    "peft": _peft,
}

if __name__ == "__main__":
    sys.exit(main())
