"""Rows from jsonl, json, csv, tsv and parquet files: every bad line is named by file and line number."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from mmpt.errors import DataError
from mmpt.utils.untrusted import one_line

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Located = Iterator[tuple[str, dict[str, Any]]]


def read_rows(path: Path | TextIO, name: str) -> Located:
    """Read a file or a stream lazily.

    Args:
        path: A file, its format by the suffix, or an open text stream (jsonl unless ``name`` has a known suffix).
        name: What messages call it.

    Yields:
        Where (``name:line``, or ``name row n``) and the row.

    Raises:
        DataError: The file is missing, empty, not UTF-8, of unknown format or malformed.
    """
    count = 0
    for located in _open_rows(path, name):
        count += 1
        yield located
    if count == 0:
        raise DataError(
            f"{name}: no rows (an empty file{', or a header alone' if name.endswith(('csv', 'tsv')) else ''})"
        )


def listing(directory: Path, most: int = 12) -> str:
    """What a directory holds, for messages: names in order, folders with a slash."""
    try:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in directory.iterdir())
    except OSError as error:
        return f"(unreadable: {error.strerror})"
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "") or "(nothing)"


def _open_rows(path: Path | TextIO, name: str) -> Located:
    if not isinstance(path, Path):
        suffix = Path(name).suffix.lower()
        if suffix == ".parquet":
            raise DataError(f"{name}: parquet cannot be read from a stream; give a file name")
        yield from _text_rows(_stream_lines(path, name), suffix if suffix in FORMATS else ".jsonl", name)
        return
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f'{name}: unknown format "{path.suffix}"; allowed: {", ".join(FORMATS)}')
    if not path.exists():
        raise DataError(f"{name}: no such file; {path.parent} has: {listing(path.parent)}")
    try:
        if suffix == ".parquet":
            yield from _parquet(path, name)
        else:
            with path.open("rb") as stream:
                yield from _text_rows(_decoded(stream, name), suffix, name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _stream_lines(stream: TextIO, name: str) -> Iterator[str]:
    """Lines of a stream as UTF-8 whatever the locale says, where its bytes can be reached."""
    binary = getattr(stream, "buffer", None)
    if binary is not None:
        yield from _decoded(binary, name)
    else:
        yield from (line.removeprefix("\ufeff") if number == 0 else line for number, line in enumerate(stream))


def _decoded(stream: BinaryIO, name: str) -> Iterator[str]:
    """Lines as text, cut at newlines alone (a text may hold other separators), without byte order mark."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{name}: is UTF-16; save it as UTF-8")
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: not UTF-8 (byte {error.start + 1}: {error.reason})") from error


def _text_rows(lines: Iterator[str], suffix: str, name: str) -> Located:
    if suffix in (".csv", ".tsv"):
        return _csv(lines, name, "\t" if suffix == ".tsv" else ",")
    return _json(lines, name) if suffix == ".json" else _jsonl(lines, name)


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{where}: a JSON {_kind(value)}, expected an object such as {{"premise": "..."}}')
    return value


def _kind(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")


def _jsonl(lines: Iterable[str], name: str) -> Located:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            start = line.strip()[:60]
            raise DataError(f"{where}: not JSON ({error}): {start}") from error
        yield where, _object(value, where)


def _json(lines: Iterator[str], name: str) -> Located:
    """One array of objects; a file of JSON lines that is called .json is read as such."""
    text = "".join(lines)
    if not text.lstrip().startswith("["):
        yield from _jsonl(io.StringIO(text), name)
        return
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DataError(f"{name}:{line}: not JSON ({error})") from error
    for number, value in enumerate(values, start=1):
        where = f"{name} row {number}"
        yield where, _object(value, where)


def _csv(lines: Iterator[str], name: str, delimiter: str) -> Located:
    """Rows below a header; quoting as spreadsheets write it, in strict mode so that a stray quote is an error."""
    csv.field_size_limit(sys.maxsize)  # the default refuses texts above 128 KiB
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{name}:{line}: {error} (a literal quote is written twice, in quotes)") from error
        where, line = f"{name}:{line}", reader.line_num + 1
        if not values or (header is None and not any(values)):
            continue
        if header is None:
            header = [value.strip() for value in values]
            _check_unique(header, where)
        elif len(values) != len(header):
            raise DataError(f"{where}: {len(values)} columns, the header has {len(header)}: {', '.join(header)}")
        else:
            yield where, dict(zip(header, values, strict=True))


def _check_unique(names: list[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where}: column names occur twice: {', '.join(map(repr, twice))}; rename one of each")


def _parquet(path: Path, name: str) -> Located:
    import pyarrow as pa  # heavy, and only this format needs it
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_unique(file.schema_arrow.names, name)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{name} row {number}", row
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the latter: dates that Python lacks
        raise DataError(f"{name}: not readable as parquet: {one_line(error)}") from error
