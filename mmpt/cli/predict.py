"""Predict with trained runs: ``python -m mmpt.predict RUN_DIR --input FILE``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmpt.cli.program import exit_code
from mmpt.errors import AdapterError, DataError


def main(argv: list[str] | None = None) -> int:
    """Read rows, write one JSON object a row.

    Returns:
        The exit code: 0, or 2 after an error told in one line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.predict",
        description="Predict rows with a trained run, or with several on one backbone. Each output line is a JSON "
        "object with the prediction and the probability of every label word.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN_DIR",
        nargs="+",
        help="a finished run directory, its adapter folder, or hub:owner/name; several as NAME=RUN_DIR, each row then "
        "names its own",
    )
    parser.add_argument(
        "--adapter-field", default="adapter", metavar="FIELD", help="the field in which a row names its adapter"
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="jsonl, csv, tsv or parquet; - reads jsonl from stdin"
    )
    parser.add_argument("--output", default="-", metavar="FILE", help="jsonl; - (default) writes to stdout")
    parser.add_argument("--model", metavar="DIR", help="another place of the run's backbone")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _predict(arguments))


def _predict(arguments: argparse.Namespace) -> int:
    from mmpt.data.files import read_rows
    from mmpt.utils.files import write_text

    if arguments.input == "-":
        rows = list(read_rows(sys.stdin, "stdin"))
    else:
        rows = list(read_rows(Path(arguments.input), arguments.input))
    from transformers.utils import logging as transformers_logging  # heavy: only once the input can be read

    transformers_logging.set_verbosity_error()
    found = _found(arguments, rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    if arguments.output == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text(Path(arguments.output), text)
    scored = [row["correct"] for row in found if "correct" in row]
    if scored:
        print(
            f"{sum(scored)} of {len(scored)} labelled rows are right ({sum(scored) / len(scored):.3f})", file=sys.stderr
        )
    return 0


def _found(arguments: argparse.Namespace, rows: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Predictions by the one run, or by the run that each row names."""
    if len(arguments.runs) == 1:
        from mmpt.predictor import load

        return load(arguments.runs[0], model=arguments.model).predict_located(rows)
    from mmpt.interop.multi_adapter import load_all

    named = dict(_named(run) for run in arguments.runs)
    if len(named) < len(arguments.runs):
        raise AdapterError("two adapters have the same name; give each NAME=RUN_DIR a name of its own")
    field = arguments.adapter_field
    if missing := next((where for where, row in rows if field not in row), None):
        raise DataError(f"{missing}: no field {field!r} that names the row's adapter; choose it with --adapter-field")
    return load_all(named, model=arguments.model).predict_located(rows, [str(row[field]) for _, row in rows])


def _named(run: str) -> tuple[str, str]:
    name, found, directory = run.partition("=")
    if not found or not name or not directory:
        raise AdapterError(f"{run}: several adapters need names; write each as NAME=RUN_DIR")
    return name, directory


if __name__ == "__main__":
    sys.exit(main())
