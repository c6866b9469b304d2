"""Predict with a trained run: ``python -m mmpt.predict RUN_DIR --input FILE``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from mmpt.credentials import error_line
from mmpt.errors import MmptError


def main(argv: list[str] | None = None) -> int:
    """Read rows, write one JSON object a row.

    Returns:
        The exit code: 0, or 2 after an error told in one line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.predict",
        description="Predict rows with a trained run. Each output line is a JSON object with the prediction and the "
        "probability of every label word.",
    )
    parser.add_argument("run", metavar="RUN_DIR", help="a finished run directory, or its adapter folder")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="jsonl, csv, tsv or parquet; - reads jsonl from stdin"
    )
    parser.add_argument("--output", default="-", metavar="FILE", help="jsonl; - (default) writes to stdout")
    parser.add_argument("--model", metavar="DIR", help="another place of the run's backbone")
    arguments = parser.parse_args(argv)
    try:
        _predict(arguments)
    except MmptError as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or closing stdout fails once more
    return 0


def _predict(arguments: argparse.Namespace) -> None:
    from mmpt.data.files import read_rows
    from mmpt.training.files import write_text

    if arguments.input == "-":
        rows = list(read_rows(sys.stdin, "stdin"))
    else:
        rows = list(read_rows(Path(arguments.input), arguments.input))
    from transformers.utils import logging as transformers_logging  # heavy: only once the input can be read

    from mmpt.predictor import load

    transformers_logging.set_verbosity_error()
    predictor = load(arguments.run, model=arguments.model)
    found = predictor.predict_located(rows)
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


if __name__ == "__main__":
    sys.exit(main())
