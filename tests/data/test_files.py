from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmpt.config.schema import CsvConfig
from mmpt.data import files
from mmpt.data.files import read_rows
from mmpt.errors import DataError

ROWS = [{"text": "Grüße, \u2028 “x”\u0085", "label": "a"}, {"text": 'say "hi",\nthen', "label": "b"}]


def _write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _rows(path: Path) -> list[dict[str, object]]:
    return [row for _, row in read_rows(path, path.name)]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_jsonl_with_mark_and_either_line_end(tmp_path: Path, bom: bytes, end: str) -> None:
    text = end.join(json.dumps(row, ensure_ascii=False) for row in ROWS) + end + end
    assert _rows(_write(tmp_path, "a.jsonl", bom + text.encode())) == ROWS


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("name", "mark", "quoting"), [("a.csv", ",", "auto"), ("a.tsv", "\t", "minimal")])
def test_csv_quotes_mark_and_windows_ends(tmp_path: Path, bom: bytes, name: str, mark: str, quoting: str) -> None:
    text = f'text{mark}label\r\nGrüße{mark}a\r\n"say ""hi"",\r\nthen"{mark}b\r\n'
    form = CsvConfig(quoting=quoting)  # type: ignore[arg-type]
    found = list(read_rows(_write(tmp_path, name, bom + text.encode()), name, form))
    assert found == [
        (f"{name}:2", {"text": "Grüße", "label": "a"}),
        (f"{name}:3", {"text": 'say "hi",\r\nthen', "label": "b"}),
    ]


def test_json_array_and_lines_called_json(tmp_path: Path) -> None:
    assert _rows(_write(tmp_path, "a.json", json.dumps(ROWS, indent=1))) == ROWS
    assert _rows(_write(tmp_path, "b.json", "".join(json.dumps(row) + "\n" for row in ROWS))) == ROWS


def test_parquet_keeps_types_and_nesting(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": True, "idx": {"n": 1}}, {"text": "b", "label": None, "idx": {"n": 2}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert _rows(tmp_path / "a.parquet") == rows


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_narrow_numbers_are_as_written(suffix: str, tmp_path: Path) -> None:
    kinds = {"half": pa.float16(), "single": pa.float32(), "double": pa.float64()}
    struct = pa.struct([("x", pa.float32()), ("text", pa.string())])
    values = [3.8, None, -0.1, 5.0, 1e-05]
    columns = {name: pa.array(values, pa.float64()).cast(kind) for name, kind in kinds.items()}
    table = pa.table({**columns, "in": pa.array([{"x": value, "text": "3.8"} for value in values], struct)})
    if suffix == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_table(table)
    rows = _rows(tmp_path / f"a.{suffix}")
    assert [row["single"] for row in rows] == [row["double"] for row in rows] == values
    assert [row["in"] for row in rows] == [{"x": value, "text": "3.8"} for value in values]
    assert [row["half"] for row in rows[:4]] == values[:4]


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_of_either_format_keeps_types_and_nesting(tmp_path: Path, form: Any) -> None:
    rows = [{"text": f"ä {n}", "label": n % 2 == 0 or None, "idx": {"n": n}} for n in range(2500)]
    table = pa.Table.from_pylist(rows)
    with form(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2000)
    found = list(read_rows(tmp_path / "a.arrow", "a.arrow"))
    assert [row for _, row in found] == rows and found[-1][0] == "a.arrow row 2500"


def test_huge_texts_pass(tmp_path: Path) -> None:
    big = "word " * 500_000
    assert _rows(_write(tmp_path, "a.csv", f"text,label\n{big},a\n"))[0]["text"] == big
    assert _rows(_write(tmp_path, "a.jsonl", json.dumps({"text": big}) + "\n"))[0]["text"] == big


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1}\n{"x": \n', r"^a.jsonl:2: not JSON"),
        ("a.jsonl", '{"x": 1}\n\n[1]\n', r"^a.jsonl:3: a JSON array, expected an object"),
        ("a.jsonl", '"x"\n', r"^a.jsonl:1: a JSON string"),
        ("a.jsonl", "[" * 200_000, r"^a.jsonl:1: not JSON"),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xff"}\n', r"^a.jsonl:2: not UTF-8"),
        ("a.jsonl", '{"x": 1}\n'.encode("utf-16"), r"^a.jsonl: is UTF-16"),
        ("a.jsonl", "", r"^a.jsonl: no rows"),
        ("a.jsonl", "\n \n", r"^a.jsonl: no rows"),
        ("a.json", '[{"x": 1},\n{]', r"^a.json:2: not JSON"),
        ("a.json", "[1]", r"^a.json row 1: a JSON number"),
        ("a.csv", "x,y\n", r"^a.csv: no rows .*header"),
        ("a.csv", "x,y,x\n1,2,3\n", r"^a.csv:1: column names occur twice: 'x'"),
        ("a.csv", "x,y\n1,2\n3\n", r"^a.csv:3: 1 columns, the header has 2: x, y"),
        ("a.csv", "x,y\n1,2,3\n", r"^a.csv:2: 3 columns"),
        ("a.csv", 'x,y\n"a\nb",2\n"c" d,2\n', r"^a.csv:4: .*literal quote"),
        ("a.csv", 'x,y\n1,"never closed\n', r"^a.csv:2: unexpected end"),
        ("a.csv", "x;y\n1;2\n", r"^a.csv:1: one column, 'x;y'; set task.csv.delimiter=';'"),
        ("a.tsv", 'x\ty\n"a\n', r"^a.tsv:2: 1 columns.*if quotes enclose cells, set task.csv.quoting=minimal"),
        ("a.csv", "x,y\n1,é\n".encode("latin-1"), r"^a.csv:2: not UTF-8 .*set task.csv.encoding, such as latin-1"),
        ("a.csv", "x,y\n1,2\n".encode("utf-16"), r"^a.csv: is UTF-16; set task.csv.encoding, such as utf-16"),
        ("a.csv", "x,y\n1,2\n".encode("utf-16-le"), r"^a.csv: is UTF-16; set task.csv.encoding"),
        ("a.csv", ",".join(f"c{n}" for n in range(10_000)) + "\n1,2\n", r"^a.csv:2: 2 columns.* 10000: c0.*, \.\.\.$"),
        ("a.parquet", "no parquet", r"^a.parquet: not readable as parquet"),
        ("a.parquet", "", r"^a.parquet: "),
        ("a.arrow", "no arrow", r"^a.arrow: not readable as arrow"),
        ("a.arrow", "", r"^a.arrow: "),
        ("a.arrow", b"ARROW1\0\0" + bytes(20), r"^a.arrow: not readable as arrow"),
        ("a.xlsx", "x", r'^a.xlsx: unknown format "\.xlsx"; allowed: \.jsonl'),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = _write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(path, name))
    assert "\n" not in str(caught.value)


def test_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    _write(tmp_path, "b.jsonl", "{}")
    with pytest.raises(DataError, match=r"a.jsonl: no such file; .* has: b.jsonl$"):
        list(read_rows(tmp_path / "a.jsonl", "a.jsonl"))
    (tmp_path / "c.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_rows(tmp_path / "c.csv", "c.csv"))


def test_streams_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    line = json.dumps({"x": "ü"}, ensure_ascii=False)
    assert list(read_rows(io.StringIO("\ufeff" + line), "-")) == [("-:1", {"x": "ü"})]
    latin = io.TextIOWrapper(io.BytesIO(f"\ufeff{line}\n".encode()), encoding="latin-1")
    assert list(read_rows(latin, "<stdin>")) == [("<stdin>:1", {"x": "ü"})]
    assert list(read_rows(io.StringIO("x\nü\n"), "in.csv")) == [("in.csv:2", {"x": "ü"})]
    with pytest.raises(DataError, match="<stdin>: no rows"):
        list(read_rows(io.StringIO(""), "<stdin>"))


def test_rows_come_before_a_later_line_is_read(tmp_path: Path) -> None:
    rows = read_rows(_write(tmp_path, "a.jsonl", '{"x": 1}\nbroken\n'), "a.jsonl")
    assert next(rows) == ("a.jsonl:1", {"x": 1})
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        next(rows)


def _separated(tmp_path: Path, name: str, content: str | bytes, **form: Any) -> list[dict[str, object]]:
    path = _write(tmp_path, name, content)
    return [row for _, row in read_rows(path, name, CsvConfig(**form), lambda cells: cells.get("y") in ("1", "2"))]


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.tsv", 'x\ty\n"say "hi\t1\n', {}),
        ("a.csv", 'x,y\n"say "hi,1\n', {"quoting": "none"}),
        ("a.csv", 'x;y\n"""say ""hi";1\n', {"delimiter": ";"}),
        ("a.csv", '"""say ""hi",1\n', {"columns": ["x", "y"]}),
        ("a.csv", 'p,q\n"""say ""hi",1\n', {"columns": ["x", "y"], "header": True}),
        ("a.csv", 'x,y\n"""say ""hi",1\n'.encode("utf-16"), {"encoding": "utf-16"}),
        ("a.csv.gz", gzip.compress(b'x,y\n"""say ""hi",1\n', mtime=0), {}),
        ("a.csv.zst", pa.compress(b'x,y\n"""say ""hi",1\n', codec="zstd", asbytes=True), {}),
    ],
)
def test_dialects(tmp_path: Path, name: str, content: str | bytes, form: dict[str, Any]) -> None:
    assert _separated(tmp_path, name, content, **form) == [{"x": '"say "hi', "y": "1"}]


def test_rows_that_a_stray_quote_joins_are_found(tmp_path: Path) -> None:
    joined = 'x,y\nfine,1\n"good film,1\nscreen of 12",2\n'
    with pytest.raises(DataError, match=r"^a.csv:3: a quote joins 2 lines, each of which reads as a row; .*none"):
        _separated(tmp_path, "a.csv", joined)
    assert len(_separated(tmp_path, "a.csv", joined, quoting="none")) == 3
    assert len(_separated(tmp_path, "a.csv", joined, quoting="minimal")) == 2
    assert len(_separated(tmp_path, "a.csv", 'x,y\n"Dear John, a text\nof two lines",2\n')) == 1


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"header": False}, r"a.csv:1: task.csv.header=false needs names for 2 columns, as task.columns=\[c1,c2\]"),
        ({"encoding": "utf-61"}, "task.csv.encoding=utf-61 is unknown"),
        ({"encoding": "rot13"}, "task.csv.encoding=rot13 is unknown"),
        ({"encoding": "ascii"}, r"a.csv:\d: not ascii .*such as latin-1"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, form: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _separated(tmp_path, "a.csv", "x,y\né,1\n", **form)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"^a.jsonl is a pipe; give a file$"):
        list(read_rows(tmp_path / "a.jsonl", "a.jsonl"))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST", 2**20)
    with pytest.raises(DataError, match=r"^a.csv:2: a line of more than 1 MiB"):
        _separated(tmp_path, "a.csv", "x,y\n" + "a" * 2**21)
