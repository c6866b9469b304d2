"""Rows from jsonl, json, csv, tsv, parquet and arrow files: every bad line is named by file and line number."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from mmpt.config.schema import CsvConfig
from mmpt.errors import DataError
from mmpt.utils.untrusted import one_line

TEXT = (".jsonl", ".json", ".csv", ".tsv")
COLUMNAR = (".parquet", ".arrow")
FORMATS = (*TEXT, *COLUMNAR)
RANDOM_ACCESS = b"ARROW1"  # the first bytes of Arrow's other format than the streaming one
COMPRESSED = (".gz", ".zst", ".bz2")
LONGEST = 128 * 2**20  # bytes of a line
Located = Iterator[tuple[str, dict[str, Any]]]
PLAIN = CsvConfig()


def read_rows(
    path: Path | TextIO,
    name: str,
    csv_format: CsvConfig = PLAIN,
    is_row: Callable[[Mapping[str, str]], bool] = lambda row: False,
) -> Located:
    """Read a file or a stream lazily.

    Args:
        path: A file, its format by the suffix, or an open text stream (jsonl unless ``name`` has a known suffix).
        name: What messages call it.
        csv_format: How csv and tsv files are written.
        is_row: Whether the cells of a line could be a row of their own, which finds rows that a stray quote joins.

    Yields:
        Where (``name:line``, or ``name row n``) and the row.

    Raises:
        DataError: The file is missing, empty, not UTF-8, of unknown format or malformed.
    """
    count = 0
    for located in _open_rows(path, name, csv_format, is_row):
        count += 1
        yield located
    if count == 0:
        raise DataError(f"{name}: no rows (an empty file{', or a header alone' if 'sv' in _format(name) else ''})")


def _format(name: str) -> str:
    """The suffix that says what a file holds."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")


def listing(directory: Path, most: int = 12) -> str:
    """What a directory holds, for messages: names in order, folders with a slash."""
    try:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in directory.iterdir())
    except OSError as error:
        return f"(unreadable: {error.strerror})"
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "") or "(nothing)"


def _open_rows(path: Path | TextIO, name: str, *csv_options: Any) -> Located:
    if not isinstance(path, Path):
        suffix = _format(name)
        if suffix in COLUMNAR:
            raise DataError(f"{name}: {suffix[1:]} cannot be read from a stream; give a file name")
        binary = getattr(path, "buffer", None)  # UTF-8 whatever the locale says
        stream = io.BytesIO(path.read().encode("utf-8", "surrogatepass")) if binary is None else binary
        yield from _text_rows(stream, suffix if suffix in TEXT else ".jsonl", name, *csv_options)
        return
    suffix = _format(path.name)
    if suffix not in FORMATS:
        raise DataError(f'{name}: unknown format "{suffix}"; allowed: {", ".join(FORMATS)}')
    if not path.exists():
        raise DataError(f"{name}: no such file; {path.parent} has: {listing(path.parent)}")
    if path.is_fifo():  # whoever writes may never come
        raise DataError(f"{name} is a pipe; give a file")
    try:
        if suffix in COLUMNAR:
            yield from _arrow(path, name, suffix)
        elif path.suffix.lower() in COMPRESSED:
            import pyarrow as pa  # heavy, and only compressed files need it

            with pa.input_stream(str(path), compression="detect") as inner:
                yield from _text_rows(io.BufferedReader(inner), suffix, name, *csv_options)
        else:
            with path.open("rb") as stream:
                yield from _text_rows(stream, suffix, name, *csv_options)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or one_line(error)}") from error


def _text_rows(
    stream: BinaryIO, suffix: str, name: str, csv_format: CsvConfig, is_row: Callable[[Mapping[str, str]], bool]
) -> Located:
    if suffix in (".csv", ".tsv"):
        cure = "set task.csv.encoding, such as {}"
        lines = _decoded(stream, name, csv_format.encoding, cure)
        return _separated(lines, name, "\t" if suffix == ".tsv" else ",", csv_format, is_row)
    lines = _decoded(stream, name, "utf-8", "save it as UTF-8")
    return _json(lines, name) if suffix == ".json" else _jsonl(lines, name)


def _decoded(stream: BinaryIO, name: str, encoding: str, cure: str) -> Iterator[str]:
    """Lines as text, cut at newlines alone (a text may hold other separators), without byte order mark."""
    try:
        utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        "".encode(encoding)  # a LookupError where it is a codec, but not of texts
    except LookupError as error:
        raise DataError(f"task.csv.encoding={encoding} is unknown; Python's names are allowed, as utf-16") from error
    source: Any = stream if utf8 else io.TextIOWrapper(stream, encoding, newline="\n")
    number = 0
    try:
        while line := source.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise DataError(f"{name}:{number}: a line of more than {LONGEST // 2**20} MiB; are its ends missing?")
            if number == 1 and utf8:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line:
                    raise DataError(f"{name}: is UTF-16; {cure.format('utf-16')}")
                line = line.removeprefix(codecs.BOM_UTF8)
            yield line.decode("utf-8") if utf8 else line
    except UnicodeError as error:
        at = f"byte {error.start + 1}: {error.reason}" if isinstance(error, UnicodeDecodeError) else one_line(error)
        raise DataError(
            f"{name}:{number}: not {'UTF-8' if utf8 else encoding} ({at}); {cure.format('latin-1')}"
        ) from error
    finally:
        if not utf8:
            source.detach()


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


def _separated(
    lines: Iterator[str], name: str, usual: str, form: CsvConfig, is_row: Callable[[Mapping[str, str]], bool]
) -> Located:
    """Rows of separated values, each with as many cells as there are columns.

    In strict mode, so that a stray quote is an error; one that closes again joins rows, which ``is_row`` finds.
    """
    csv.field_size_limit(sys.maxsize)  # the default refuses texts above 128 KiB
    delimiter = form.delimiter or usual
    plain = form.quoting == "none" or (form.quoting == "auto" and usual == "\t")
    read: list[str] = []  # the lines of the present row

    def recorded() -> Iterator[str]:
        for text in lines:
            read.append(text)
            yield text

    reader = csv.reader(
        recorded(), delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
    )
    header: list[str] | None = None if form.columns is None else list(form.columns)
    skip = form.header if form.columns is not None else False  # a header that is replaced
    while True:
        line = reader.line_num + 1
        where = f"{name}:{line}"
        read.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cure = "a literal quote is written twice, in quotes; if quotes are text, set task.csv.quoting=none"
            raise DataError(f"{where}: {error} ({cure})") from error
        if not values or (header is None and not any(values)):
            continue
        if skip:
            skip = False
        elif header is None:
            header = _header(values, where, form, delimiter)
        elif len(values) != len(header):
            hint = "; if quotes enclose cells, set task.csv.quoting=minimal" if plain and '"' in read[0] else ""
            raise DataError(f"{where}: {len(values)} columns, the header has {len(header)}: {_listed(header)}{hint}")
        else:
            if len(read) > 1 and len(header) > 1 and form.quoting == "auto":
                _refuse_joined(read, header, delimiter, where, is_row)
            yield where, dict(zip(header, values, strict=True))


def _header(values: list[str], where: str, form: CsvConfig, delimiter: str) -> list[str]:
    if form.header is False:
        example = f"task.columns=[{','.join(f'c{number}' for number in range(1, len(values) + 1))}]"
        raise DataError(f"{where}: task.csv.header=false needs names for {len(values)} columns, as {example}")
    header = [value.strip() for value in values]
    _check_unique(header, where)
    others = [mark for mark in ";\t|," if mark in header[0] and mark != delimiter]
    if len(header) == 1 and others and form.delimiter is None:
        raise DataError(f"{where}: one column, {header[0][:60]!r}; set task.csv.delimiter={others[0]!r}")
    return header


def _refuse_joined(
    lines: list[str], header: list[str], delimiter: str, where: str, is_row: Callable[[Mapping[str, str]], bool]
) -> None:
    """Refuse a row of several lines each of which could be a row: a stray quote has joined them."""
    cells = [line.rstrip("\r\n").split(delimiter) for line in lines]
    if all(len(each) == len(header) for each in cells) and is_row(dict(zip(header, cells[0], strict=True))):
        raise DataError(
            f"{where}: a quote joins {len(lines)} lines, each of which reads as a row; if quotes are text, set "
            "task.csv.quoting=none, and if this is one text, task.csv.quoting=minimal"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _check_unique(names: list[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where}: column names occur twice: {', '.join(map(repr, twice))}; rename one of each")


def _arrow(path: Path, name: str, suffix: str) -> Located:
    """Rows of a parquet file, or of an Arrow file: of the streaming format, which `datasets` writes, or the other."""
    import pyarrow as pa  # heavy, and only these formats need it
    import pyarrow.parquet as pq

    number = 0
    try:
        with pa.memory_map(str(path)) as file:
            if suffix == ".parquet":
                reader = pq.ParquetFile(file)
                schema, batches = reader.schema_arrow, reader.iter_batches(batch_size=1024)
            elif file.read(len(RANDOM_ACCESS)) == RANDOM_ACCESS:
                reader = pa.ipc.open_file(file)
                schema, batches = reader.schema, map(reader.get_batch, range(reader.num_record_batches))
            else:
                file.seek(0)
                batches = pa.ipc.open_stream(file)
                schema = batches.schema
            _check_unique(schema.names, name)
            narrow = narrow_columns(schema)
            for batch in batches:
                batch.validate(full=True)  # of a damaged file, what a text is might lie anywhere in memory
                for start in range(0, len(batch), 1024):
                    for row in batch.slice(start, 1024).to_pylist():
                        number += 1
                        yield f"{name} row {number}", as_written(row, narrow)
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the latter: dates that Python lacks
        raise DataError(f"{name}: not readable as {suffix[1:]}: {one_line(error)}") from error


def narrow_columns(fields: Iterable[Any]) -> dict[str, Any]:
    """Columns of an Arrow schema with numbers of 32 or 16 bits: name to numpy type, of a struct to the same mapping.

    Lists are left out: no text is made of their numbers, and there may be many.
    """
    import numpy as np
    import pyarrow as pa

    found: dict[str, Any] = {}
    for field in fields:
        if pa.types.is_float32(field.type) or pa.types.is_float16(field.type):
            found[field.name] = np.float32 if pa.types.is_float32(field.type) else np.float16
        elif pa.types.is_struct(field.type) and (inner := narrow_columns(field.type)):
            found[field.name] = inner
    return found


def as_written(row: dict[str, Any], narrow: Mapping[str, Any]) -> dict[str, Any]:
    """A row with such numbers as people wrote them: Python would make 3.799999952316284 of a stored 3.8."""
    for name, kind in narrow.items():
        if (value := row.get(name)) is not None:
            row[name] = as_written(value, kind) if isinstance(kind, dict) else float(str(kind(value)))
    return row
