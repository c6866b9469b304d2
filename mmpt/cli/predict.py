"""``mmpt predict RUN_DIR --input FILE``: predict rows with trained runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmpt.cli.program import run, single
from mmpt.errors import AdapterError, DataError

Rows = list[tuple[str, dict[str, Any]]]  # where a row was read, and the row


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 after an error of one line."""
    return run(single(predict), argv, "mmpt predict")


def predict(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN_DIR", help="A run, or hub:owner/name; several as NAME=RUN_DIR."),
    ],
    input: Annotated[str, typer.Option(metavar="FILE", help="jsonl, csv, tsv or parquet; - reads jsonl from stdin.")],
    output: Annotated[str, typer.Option(metavar="FILE", help="A jsonl file; - writes to stdout.")] = "-",
    adapter_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The field in which a row names its adapter, where there are several.")
    ] = "adapter",
    model: Annotated[str | None, typer.Option(metavar="DIR", help="Where the run's backbone is now.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Accept another tokenizer than the run's.")] = False,
) -> None:
    """Predict rows with trained runs.

    Each output line is a JSON object with the prediction and the probability of every label word. Several
    runs must be of one backbone.
    """
    from mmpt.data.files import read_rows
    from mmpt.utils.files import write_text

    rows = list(read_rows(sys.stdin, "stdin") if input == "-" else read_rows(Path(input), input))
    from transformers.utils import logging as transformers_logging  # heavy: only once the input can be read

    transformers_logging.set_verbosity_error()
    predictions = _predictions(runs, rows, adapter_field, model, force)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    if output == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text(Path(output), text)
    scored = [row["correct"] for row in predictions if "correct" in row]
    if scored:
        share = f"{sum(scored)} of {len(scored)} labelled rows are right ({sum(scored) / len(scored):.3f})"
        print(share, file=sys.stderr)


def _predictions(runs: list[str], rows: Rows, field: str, model: str | None, force: bool) -> list[dict[str, Any]]:
    """Predictions by the one run, or by the run that each row names."""
    if len(runs) == 1:
        from mmpt.predictor import load

        return load(runs[0], model=model, force=force).predict_located(rows)
    from mmpt.interop.multi_adapter import load_all

    named = dict(_named(run) for run in runs)
    if len(named) < len(runs):
        raise AdapterError("two adapters have the same name; give each NAME=RUN_DIR a name of its own")
    if missing := next((where for where, row in rows if field not in row), None):
        raise DataError(f"{missing}: no field {field!r} that names the row's adapter; choose it with --adapter-field")
    return load_all(named, model=model, force=force).predict_located(rows, [str(row[field]) for _, row in rows])


def _named(run: str) -> tuple[str, str]:
    name, _, directory = run.partition("=")
    if not name or not directory:
        raise AdapterError(f"{run}: several adapters need names; write each as NAME=RUN_DIR")
    return name, directory
