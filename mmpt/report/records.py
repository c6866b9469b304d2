"""Rows as flat records, and the files made of them: CSV, Parquet, JSON, and results that can be read again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from mmpt.report.groups import Row
from mmpt.report.published import Figure
from mmpt.report.run import Run, number
from mmpt.report.tables import notes
from mmpt.utils.files import dumps

Record = dict[str, Any]
FORMAT = 1
FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "＝",
    "＋",
    "－",
    "＠",
)  # a spreadsheet would compute a text that starts like this
TEXTS = ("source", "task", "model", "method", "label", "settings", "metric", "seeds", "baseline", "notes")
COUNTS = ("n", "not_counted", "place", "paired_seeds", "paired_examples")
NUMBERS = (
    "mean",
    "sd",
    "median",
    "best",
    "low",
    "high",
    "validation_mean",
    "majority",
    "chance",
    "trainable",
    "total",
    "bytes",
    "step_ms_median",
    "train_s",
    "total_s",
    "examples_per_s",
    "peak_bytes",
    "steps",
    "epochs",
    "difference",
    "difference_low",
    "difference_high",
    "p_seeds",
    "p_seeds_holm",
    "example_difference",
    "example_difference_low",
    "example_difference_high",
    "p_examples",
    "p_examples_holm",
    "p_mcnemar",
    "p_mcnemar_holm",
)
COLUMNS = (*TEXTS, *COUNTS, *NUMBERS)


def record(row: Row) -> Record:
    """Flatten a row.

    Args:
        row: Of :func:`mmpt.report.groups.group`.

    Returns:
        One value for each of ``COLUMNS``; None where it isn't known.
    """
    values: Record = dict.fromkeys(COLUMNS)
    values |= {name: getattr(row, name) for name in ("task", "model", "method", "label", "metric", "place")}
    values |= {
        "source": "runs",
        "settings": " ".join(f"{key}={value}" for key, value in row.settings.items()),
        "seeds": ",".join(str(seed) for seed in row.seeds),
        "n": len(row.runs),
        "not_counted": len(row.rest),
        "notes": notes(row),
    }
    if row.summary is not None:
        values |= {name: getattr(row.summary, name) for name in ("mean", "sd", "median", "best", "low", "high")}
        values |= _costs(row)
    return values | _compared(row)


def _costs(row: Row) -> Record:
    validation = [score for run in row.runs if (score := run.score("validation")) is not None]
    values: Record = {"validation_mean": sum(validation) / len(validation) if validation else None}
    values |= {name: row.median("scores", name, row.metric) for name in ("majority", "chance")}
    values |= {name: row.median("parameters", name) for name in ("trainable", "total", "bytes")}
    timing = ("step_ms_median", "train_s", "total_s", "examples_per_s")
    values |= {name: row.median("timing", name) for name in timing}
    values |= {name: row.median(name) for name in ("steps", "epochs")}
    return values | {"peak_bytes": row.most("memory", "peak_bytes")}


def _compared(row: Row) -> Record:
    one = row.comparison
    if one is None:
        return {}
    values: Record = {"baseline": one.baseline, "paired_seeds": len(one.seeds), "paired_examples": one.examples}
    values |= {"p_mcnemar": one.mcnemar, "p_mcnemar_holm": one.holm_mcnemar}
    if one.by_seed is not None:
        values |= {"difference": one.by_seed.difference, "difference_low": one.by_seed.low}
        values |= {"difference_high": one.by_seed.high, "p_seeds": one.by_seed.p, "p_seeds_holm": one.holm_seed}
    if one.by_example is not None:
        values |= {"example_difference": one.by_example.difference, "p_examples": one.by_example.p}
        values |= {"example_difference_low": one.by_example.low, "example_difference_high": one.by_example.high}
        values |= {"p_examples_holm": one.holm_example}
    return values


def published_record(figure: Figure) -> Record:
    """Flatten a published figure; ``source`` says that it is none of the runs."""
    values: Record = dict.fromkeys(COLUMNS)
    values |= {"source": f"published: {figure.source}", "task": figure.task, "model": figure.backbone}
    values |= {"method": figure.method, "label": figure.method, "metric": figure.metric, "mean": float(figure.score)}
    return values | {"notes": figure.setting, "n": None}


def as_csv(records: Iterable[Record]) -> str:
    """Write records as CSV (RFC 4180, UTF-8); a text that a spreadsheet would compute gets an apostrophe in front."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for values in records:
        writer.writerow({name: _cell(value) for name, value in values.items()})
    return text.getvalue()


def as_parquet(records: Sequence[Record]) -> bytes:
    """Write records as one Parquet file with the same columns whatever is known."""
    import pyarrow
    from pyarrow import parquet

    kinds = [(name, pyarrow.string()) for name in TEXTS] + [(name, pyarrow.int64()) for name in COUNTS]
    schema = pyarrow.schema([*kinds, *((name, pyarrow.float64()) for name in NUMBERS)])
    ready = [{name: _double(name, value) for name, value in values.items()} for values in records]
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ready, schema=schema), sink)
    return sink.getvalue()


def as_jsonl(runs: Iterable[Run]) -> str:
    """Write results one a line, each with its resolved configuration, so that they group as their directories do."""
    return "".join(f"{json_text(with_config(run))}\n" for run in runs if run.result and run.status == "done")


def with_config(run: Run) -> dict[str, Any]:
    """A result with the settings it belongs to, where they are known."""
    if run.settings is None:
        return run.result
    return {**run.result, "config": {**run.settings.values, "seed": run.seed}}


def as_json(records: Iterable[Record], figures: Sequence[Figure], problems: Sequence[str], runs: Iterable[Any]) -> str:
    """Write everything as one JSON object.

    Args:
        records: One a row.
        figures: Published figures that are laid beside.
        problems: Trials that don't count, one line each.
        runs: One record a run, of :func:`mmpt.report.peft_format.experiment`.

    Returns:
        JSON text; docs/report.md lists its keys.
    """
    parts = {
        "rows": records,
        "published": map(asdict, figures),
        "problems": problems,
        "runs": runs,
    }
    lists = [f'"{name}": [\n{",".join(map(_item, items)).lstrip()}]' for name, items in parts.items()]
    return f'{{"format": {FORMAT},\n' + ",\n".join(lists) + "}\n"


def json_text(content: Any, indent: int | None = None) -> str:
    """Write JSON; what YAML has and JSON lacks, such as dates, becomes text, a number that isn't finite null."""
    try:
        return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return dumps(json.loads(json.dumps(content, default=str)), indent=indent)


def _item(content: Any) -> str:
    """One element of a list, on a line of its own."""
    return f"\n{json_text(content)}"


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def _double(name: str, value: Any) -> Any:
    return float(value) if name in NUMBERS and number({"": value}, "") is not None else value
