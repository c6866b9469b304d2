"""Files made of records: CSV, Parquet, JSON, and results that can be read again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from mmpt.report.columns import COLUMNS, Record
from mmpt.report.published import Figure
from mmpt.report.run import Run
from mmpt.utils.files import dumps

FORMAT = 1
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # a spreadsheet would compute such a text


def as_csv(records: Iterable[Record]) -> str:
    """Write records as CSV (RFC 4180, UTF-8); a text that a spreadsheet would compute gets an apostrophe in front."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [column.name for column in COLUMNS])
    writer.writeheader()
    for values in records:
        writer.writerow({name: _cell(value) for name, value in values.items()})
    return text.getvalue()


def as_parquet(records: Iterable[Record]) -> bytes:
    """Write records as one Parquet file with the same columns whatever is known, each with its unit."""
    import pyarrow
    from pyarrow import parquet

    kinds = {"text": pyarrow.string(), "count": pyarrow.int64(), "number": pyarrow.float64()}
    fields = [
        pyarrow.field(column.name, kinds[column.kind], metadata={"unit": column.unit} if column.unit else None)
        for column in COLUMNS
    ]
    numbers = {column.name for column in COLUMNS if column.kind == "number"}
    rows = [
        {name: float(value) if name in numbers and value is not None else value for name, value in values.items()}
        for values in records
    ]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields)), file)
    return file.getvalue()


def as_jsonl(runs: Iterable[Run]) -> str:
    """Write results one a line, each with its resolved configuration, so that they group as their directories do."""
    return "".join(f"{json_text(with_config(run))}\n" for run in runs if run.status == "done")


def with_config(run: Run) -> dict[str, Any]:
    """A result with the settings it belongs to, where they are known; empty without a result."""
    content = {} if run.result is None else run.result.to_dict()
    if run.settings is not None and content:
        content["config"] = {**run.settings.values, "seed": run.seed}
    return content


def as_json(records: Iterable[Record], figures: Sequence[Figure], problems: Sequence[str], runs: Iterable[Any]) -> str:
    """Write everything as one JSON object, whose keys docs/report.md lists.

    ``runs`` are records of :func:`mmpt.report.peft_format.experiment`; they are read once, one after the other.
    """
    parts = {"rows": records, "published": map(asdict, figures), "problems": problems, "runs": runs}
    separator = ",\n"
    lists = [f'"{name}": [\n{separator.join(map(json_text, items))}]' for name, items in parts.items()]
    return f'{{"format": {FORMAT},\n' + ",\n".join(lists) + "}\n"


def json_text(content: Any, indent: int | None = None) -> str:
    """Write JSON; what YAML has and JSON lacks, such as dates, becomes text, a number that is not finite null."""
    try:
        return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return dumps(json.loads(json.dumps(content, default=str)), indent=indent)


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
