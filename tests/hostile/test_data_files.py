"""Data files with anything in them: rows, or one DataError."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from mmpt.config.schema import DataConfig, TaskConfig
from mmpt.data.files import read_rows
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
from mmpt.utils.untrusted import one_line
from tests.hostile.cases import JSON, TEXTS, as_json, both, check, spoilt_bytes, spoilt_values

ROW: dict[str, Any] = {"text": "a b", "kind": "no", "idx": 3, "outer": {"inner": "x", "list": [1, "b"]}}
TASK = TaskConfig("odd", "t: {text} {outer.inner}", "kind", {"yes": [1, "y"], "no": [0, "n"]})
FREE = TaskConfig("free", "t: {text}", "kind")
NESTED = TaskConfig("nested", "{paragraph} {question} {answer}", "label", {"a": [0], "b": [1]}, unroll="multirc")
SPANS = TaskConfig("spans", "{text} {target.span1_text}", "label", {"a": [0], "b": [1]}, unroll="wsc")
PASSAGE = {"text": "p", "questions": [{"question": "q", "answers": [{"text": "a", "label": 1}], "idx": 0}]}


def text_files() -> st.SearchStrategy[bytes]:
    lines = st.one_of(
        JSON.map(as_json),
        spoilt_values(ROW).map(as_json),
        spoilt_bytes(as_json(ROW)),
        st.binary(max_size=30),
        st.sampled_from([b"", b'"a"', b'"a,b"', b"text,kind", b"x\0y,no", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 3000]),
        st.just(b'{"text": "' + b"x" * 300_000 + b'", "kind": 1}'),
    )
    starts = st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"text,kind\n", b"text\tkind\r\n", b"["])
    ends = st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b",\n"])
    return st.builds(
        lambda start, parts, end, last: start + end.join(parts) + last,
        starts,
        st.lists(lines, max_size=4),
        ends,
        st.sampled_from([b"", b"\n", b"]"]),
    )


def read(path: Path) -> None:
    """Read a file, and render its rows; only DataError may come of it, in one line, and texts can be written."""
    try:
        rows = list(read_rows(path, path.name))
    except DataError as error:
        told(error)
        return
    for task in (TASK, FREE, NESTED, SPANS):
        for required in (True, False):
            try:
                examples = list(Task(task).examples(iter(rows), required))
            except DataError as error:
                told(error)
                continue
            for example in examples:
                for text in (example.id, example.source, example.target, example.group):
                    assert text is None or text.encode("utf-8") is not None


def told(error: Exception) -> None:
    assert one_line(error)


@both(60, 3000)
def test_text_files(cases: int, tmp_path: Path) -> None:
    def holds(suffix: str, content: bytes) -> None:
        path = tmp_path / f"odd{suffix}"
        path.write_bytes(content)
        read(path)

    check(cases, holds, st.sampled_from([".jsonl", ".json", ".csv", ".tsv"]), text_files())


@both(30, 1500)
def test_rows_of_official_layouts(cases: int, tmp_path: Path) -> None:
    def holds(row: Any) -> None:
        path = tmp_path / "odd.jsonl"
        path.write_bytes(as_json(row))
        read(path)

    official = st.sampled_from([{"idx": 0, "passage": PASSAGE}, {"text": "t", "span1_text": "s", "label": 1, **ROW}])
    check(cases, holds, official.flatmap(spoilt_values))


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def arrow(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    return sink.getvalue()


@pytest.mark.parametrize("form", [parquet, arrow])
@both(30, 1500)
def test_columnar_files(cases: int, form: Any, tmp_path: Path) -> None:
    whole = form({"text": ["a", "b"] * 3, "kind": [0, 1] * 3, "outer": [{"inner": "x"}] * 6})

    def holds(content: bytes) -> None:
        path = tmp_path / f"odd.{form.__name__}"
        path.write_bytes(content)
        read(path)

    check(cases, holds, st.one_of(spoilt_bytes(whole), st.binary(max_size=60)))


@both(20, 300)
def test_parquet_values(cases: int, tmp_path: Path) -> None:
    def holds(text: list[Any], kind: int) -> None:
        path = tmp_path / "odd.parquet"
        kinds = [pa.timestamp("ns"), pa.date64(), pa.duration("s"), pa.float16(), pa.binary(), pa.decimal128(5, 2)]
        try:
            column = pa.array(text, kinds[kind])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return
        path.write_bytes(parquet({"text": column, "kind": pa.array([0] * len(text))}))
        read(path)

    numbers = st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=4)), min_size=1, max_size=3)
    check(cases, holds, numbers, st.integers(0, 5))


@both(15, 400)
def test_whole_splits(cases: int, tmp_path: Path) -> None:
    good = b"".join(json.dumps({**ROW, "text": f"t{i}", "kind": i % 2}).encode() + b"\n" for i in range(20))

    def holds(train: bytes, directory: str) -> None:
        (tmp_path / "train.jsonl").write_bytes(train)
        (tmp_path / "validation.jsonl").write_bytes(good)
        task = Task(TaskConfig("odd", "t: {text}", "kind", {"yes": [1], "no": [0]}, files=FILES))
        for place in (str(tmp_path), directory):
            try:
                load_splits(task, DataConfig("local", place))
            except DataError as error:
                told(error)

    check(cases, holds, spoilt_bytes(good), TEXTS)


@pytest.mark.parametrize("kind", [pa.date64(), pa.duration("s")])
def test_a_date_that_python_does_not_have(kind: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "odd.parquet").write_bytes(parquet({"text": pa.array([-(2**60)], pa.int64()).cast(kind)}))
    with pytest.raises(DataError, match="not readable as parquet"):
        list(read_rows(tmp_path / "odd.parquet", "odd.parquet"))


@pytest.mark.parametrize("idx", ["\ud800", {"question": "\ud800"}])
def test_an_id_that_is_no_text(idx: Any) -> None:
    with pytest.raises(DataError, match='field "idx" has half a surrogate pair'):
        Task(FREE).example({"text": "a", "kind": "b", "idx": idx}, "odd.jsonl:1")


@pytest.mark.parametrize("place", ["a" * 5000, "~nobody.is.called.so/x"])
def test_a_folder_that_cannot_be(place: str) -> None:
    with pytest.raises(DataError, match=r"data.dir=.* cannot be read"):
        load_splits(Task(TaskConfig("odd", "{a}", "b", files=FILES)), DataConfig("local", place))


FILES = {"train": "train.jsonl", "validation": "validation.jsonl"}
