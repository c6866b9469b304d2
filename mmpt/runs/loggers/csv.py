"""CSV files in the run directory, for spreadsheets and for plotting without any service."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.runs.loggers.base import Logger, Mask, RunInfo
from mmpt.utils.files import write_text

Row = dict[str, Any]


class CsvLogger(Logger):
    """``csv/``: metrics.csv with a row a step, masks.csv with a row a mask value, tables, and summary.csv."""

    label = "CSV"

    def start(self, run: RunInfo) -> None:
        """Begin new files, or cut those of an interrupted run after its last valid step."""
        self._directory = run.directory / "csv"
        self._metrics = StepFile(self._directory / "metrics.csv", ["step"], run.resume_step)
        columns = ["step", "site", "route", "token", "layer", "value"]
        self._masks = StepFile(self._directory / "masks.csv", columns, run.resume_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row, or fill in the last one where it has the same step."""
        self._metrics.merge({"step": step, **values})

    def heatmap(self, key: str, masks: Mask, step: int) -> None:
        """Add a row for every route, token and layer."""
        site = key.partition("/")[2]
        self._masks.append(
            {"step": step, "site": site, "route": route, "token": token, "layer": layer, "value": float(value)}
            for route, mask in enumerate(masks)
            for token, layers in enumerate(mask)
            for layer, value in enumerate(layers)
        )

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Write a file of its own."""
        write_text(self._directory / f"{key}.csv", _lines([columns, *rows]))

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Write a file of two columns."""
        write_text(self._directory / "summary.csv", _lines([("name", "value"), *values.items()]))


class StepFile:
    """A CSV file in order of steps that only grows; a new column rewrites it as a whole."""

    def __init__(self, path: Path, columns: Sequence[str], resume_step: int | None) -> None:
        """Write the file anew with its rows up to ``resume_step``; none where that is None."""
        self._path, self._columns = path, list(columns)
        self._last: Row = {}
        rows: list[Row] = []
        if resume_step is not None and path.exists():
            rows = [row for row in self._read() if int(row["step"]) <= resume_step]
        self._rewrite(rows)

    def merge(self, row: Row) -> None:
        """Add a row; one with the step of the last row is filled into that."""
        same = bool(self._last) and int(self._last["step"]) == row["step"]
        merged = {**self._last, **row} if same else row
        if added := [name for name in row if name not in self._columns]:
            rows = self._read()
            self._columns += added
            self._rewrite([*(rows[:-1] if same else rows), merged])
        else:
            self._write([merged], self._start if same else None)

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows of the known columns."""
        self._write(list(rows), None)

    def _read(self) -> list[Row]:
        """All rows, without a last line that a crash cut short; their columns become this file's."""
        with self._path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        self._columns = list(reader.fieldnames or self._columns)
        return list(reader)

    def _write(self, rows: list[Row], start: int | None) -> None:
        """Append, or write over the last row from its start; filling in only makes it longer."""
        with self._path.open("r+b") as file:
            self._start = file.seek(0, 2) if start is None else file.seek(start)
            file.write(_lines(self._values(row) for row in rows).encode("utf-8"))
            file.truncate()
        self._last = rows[-1] if rows else {}

    def _rewrite(self, rows: Sequence[Row]) -> None:
        head = _lines([self._columns, *(self._values(row) for row in rows[:-1])])
        write_text(self._path, head + _lines(self._values(row) for row in rows[-1:]))
        self._last = rows[-1] if rows else {}
        self._start = len(head.encode("utf-8"))  # of the last row

    def _values(self, row: Row) -> list[Any]:
        return [row.get(name, "") for name in self._columns]


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
