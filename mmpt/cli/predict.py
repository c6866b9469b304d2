"""``mmpt predict RUN_DIR --input FILE``: predict rows with trained runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mmpt.config.schema import CsvConfig, TaskConfig
from mmpt.config.typed_build import Problems, build
from mmpt.data.files import read_rows
from mmpt.data.metrics.forms import number
from mmpt.data.mixture import task_of
from mmpt.errors import AdapterError, DataError
from mmpt.runs.record import refuse_file_of_a_run
from mmpt.utils.files import write_text

GLUE_WORDS = ("mnli", "qnli", "rte")  # tasks whose labels GLUE takes as words
Rows = list[tuple[str, dict[str, Any]]]  # where a row was read, and the row


def predict(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN_DIR", help="A run, or hub:owner/name; several as NAME=RUN_DIR.")
    ],
    input: Annotated[
        str, typer.Option(metavar="FILE", help="jsonl, csv, tsv, parquet, arrow; - reads jsonl from stdin.")
    ],
    output: Annotated[str, typer.Option(metavar="FILE", help="A jsonl file; - writes to stdout.")] = "-",
    adapter_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The field in which a row names its adapter, where there are several.")
    ] = "adapter",
    model: Annotated[str | None, typer.Option(metavar="DIR", help="Where the run's backbone is now.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Accept another tokenizer than the run's.")] = False,
    format: Annotated[
        Literal["jsonl", "glue"], typer.Option(help="glue: two columns, index and prediction, as GLUE takes them.")
    ] = "jsonl",
) -> None:
    """Predict rows with trained runs.

    Each output line is a JSON object with the prediction and the probability of every label word. Several
    runs must be of one backbone.
    """
    glue = format == "glue"
    if glue and "name" not in _task(runs[0]):
        raise AdapterError(f"--format glue needs the directory of a run with a task; {runs[0]} is none")
    form = CsvConfig() if glue or len(runs) > 1 else _csv_format(runs[0])
    if output != "-":
        refuse_file_of_a_run(Path(output), "--output")
        if input != "-" and os.path.realpath(input) == os.path.realpath(output):
            raise DataError(f"--output {output} is the input itself; name another file")
    rows = list(read_rows(sys.stdin, "stdin") if input == "-" else read_rows(Path(input), input, form))
    from transformers.utils import logging as transformers_logging  # heavy: only once the input can be read

    transformers_logging.set_verbosity_error()
    predictions = _predictions(runs, rows, adapter_field, model, force)
    if glue:
        text = glue_table(_task(runs[0]), predictions)
    else:
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


def _task(run: str) -> Mapping[str, Any]:
    """The task of a run on disk as its adapter states it; empty where it cannot be read, which loading reports."""
    for file in (Path(run) / "adapter" / "adapter.json", Path(run) / "adapter.json"):
        try:
            task = json.loads(file.read_text(encoding="utf-8"))["task"]
            return task if isinstance(task, dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _csv_format(run: str) -> CsvConfig:
    """How the files of a run's task are written."""
    problems = Problems()
    config = build(TaskConfig, dict(_task(run)), "task", problems)
    return CsvConfig() if problems.found else task_of(config).csv


def glue_table(task: Mapping[str, Any], predictions: list[dict[str, Any]]) -> str:
    """Predictions as GLUE takes them: numbers of labels, words for the tasks of inference, scores from 0 to 5.

    ``task`` has its name and its labels; there is a prediction for each row of a test file, in its order.
    """
    numbers = {} if task["name"] in GLUE_WORDS else {word: index for index, word in enumerate(task["labels"])}
    texts = [str(row["prediction"]) for row in predictions]
    if "pearson" in task["metric"]:  # STS-B; a text that is no number is no similarity
        texts = [f"{min(max(number(text) or 0.0, 0.0), 5.0):.3f}" for text in texts]
    lines = [f"{index}\t{numbers.get(text, text)}" for index, text in enumerate(texts)]
    return "\n".join(["index\tprediction", *lines, ""])


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
