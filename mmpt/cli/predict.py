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
from mmpt.data.mixture import task_of
from mmpt.data.submissions import glue_table, refuse_other_tasks, superglue_ids, superglue_lines
from mmpt.data.tasks import Task
from mmpt.errors import AdapterError, DataError
from mmpt.runs.record import refuse_file_of_a_run
from mmpt.utils.files import write_text

SHARE = ("accuracy", "exact_match")  # metrics that are the share of right rows
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
        Literal["jsonl", "glue", "superglue"], typer.Option(help="glue, superglue: a file as these benchmarks take it.")
    ] = "jsonl",
) -> None:
    """Predict rows with trained runs.

    Each output line is a JSON object with the prediction and the probability of every label word. Several
    runs must be of one backbone.
    """
    stated = _task(runs[0])
    if format != "jsonl":
        refuse_other_tasks(format, stated, runs[0])
    form = CsvConfig() if format == "glue" or len(runs) > 1 else _csv_format(runs[0])
    if output != "-":
        refuse_file_of_a_run(Path(output), "--output")
        if input != "-" and os.path.realpath(input) == os.path.realpath(output):
            raise DataError(f"--output {output} is the input itself; name another file")
    rows = list(read_rows(sys.stdin, "stdin") if input == "-" else read_rows(Path(input), input, form))
    ids = superglue_ids(stated["name"], rows) if format == "superglue" else []
    from transformers.utils import logging as transformers_logging  # heavy: only once the input can be read

    transformers_logging.set_verbosity_error()
    predictions, tasks = _predictions(runs, rows, adapter_field, model, force)
    if format == "glue":
        text = glue_table(stated, predictions)
    elif format == "superglue":
        text = superglue_lines(stated, ids, predictions)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    if output == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text(Path(output), text)
    for name, task in tasks.items():
        own = [(where, row) for where, row in rows if not name or str(row[adapter_field]) == name]
        said = _scores(task, own, [row for row in predictions if not name or row["adapter"] == name])
        if said:
            print(f"{name}: {said}" if name else said, file=sys.stderr)


def _scores(task: Task, rows: Rows, predictions: list[dict[str, Any]]) -> str:
    """How many labelled rows are right, and the task's metrics of them; empty where no row has a label."""
    from mmpt.data.metrics import score  # numpy: only once there is something to score

    examples = task.examples(rows, require_label=False)
    scored = [both for both in zip(examples, predictions, strict=True) if both[0].target is not None]
    if not scored:
        return ""
    right = sum(row["correct"] for _, row in scored)
    text = f"{right} of {len(scored)} labelled rows are right ({right / len(scored):.3f})"
    for name in dict.fromkeys(one.task for one, _ in scored):
        own = [both for both in scored if both[0].task == name]
        part = task.of(own[0][0])
        if part.config.group_field is not None and any(one.group is None for one, _ in own):
            continue  # what is scored by group, in rows that name none
        values = score(part, [one for one, _ in own], [str(row["prediction"]) for _, row in own])
        keys = {key if name is None else f"{name}/{key}": value for key, value in values.items()}
        text += "".join(f", {key} {value:.3f}" for key, value in keys.items() if key not in SHARE)
    return text


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


def _predictions(
    runs: list[str], rows: Rows, field: str, model: str | None, force: bool
) -> tuple[list[dict[str, Any]], dict[str, Task]]:
    """Predictions by the one run, or by the run that each row names; the task of each run by name, "" of the one."""
    if len(runs) == 1:
        from mmpt.predictor import load

        predictor = load(runs[0], model=model, force=force)
        return predictor.predict_located(rows), {"": predictor.evaluator.task}
    from mmpt.interop.multi_adapter import load_all

    named = dict(_named(run) for run in runs)
    if len(named) < len(runs):
        raise AdapterError("two adapters have the same name; give each NAME=RUN_DIR a name of its own")
    if missing := next((where for where, row in rows if field not in row), None):
        raise DataError(f"{missing}: no field {field!r} that names the row's adapter; choose it with --adapter-field")
    loaded = load_all(named, model=model, force=force)
    tasks = {name: predictor.evaluator.task for name, predictor in loaded.predictors.items()}
    return loaded.predict_located(rows, [str(row[field]) for _, row in rows]), tasks


def _named(run: str) -> tuple[str, str]:
    name, _, directory = run.partition("=")
    if not name or not directory:
        raise AdapterError(f"{run}: several adapters need names; write each as NAME=RUN_DIR")
    return name, directory
