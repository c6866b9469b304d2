"""Data that cannot be used: one line that names file and row, a code that is not zero, and nothing half-written."""

from __future__ import annotations

import contextlib
import json
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mmpt.bundled import MODEL_DIR
from mmpt.cli import main
from mmpt.config.schema import DataConfig, TaskConfig
from mmpt.data import sources
from mmpt.data.encode import TextToText
from mmpt.data.files import read_rows
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
from tests.reliability.test_disk import small_disk

TASK = "name: own\ntemplate: '{text}'\nlabels: {a: [], b: []}\nfiles: {train: TRAIN, validation: validation.jsonl}\n"
GOOD = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(20)]
WIDE = [f"c{n}" for n in range(10_000)]


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("small", [2**20, 0], ids=["in memory", "stored"])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "t.csv: no rows (an empty file, or a header alone)"),
        ("t.csv", b"text,label\n", "t.csv: no rows (an empty file, or a header alone)"),
        ("t.jsonl", b"", "t.jsonl: no rows (an empty file)"),
        ("t.json", b"[]", "t.json: no rows (an empty file)"),
        ("t.arrow", b"", "t.arrow: "),
        ("t.csv", b"text\none\ntwo\n", 't.csv:2: no field "label"; the fields here: text'),
        ("t.tsv", b"label\na\n", 't.tsv:2: no field "text"; the fields here: label'),
        ("t.jsonl", lines(*GOOD, {"text": "x"}), 't.jsonl:21: no field "label"; the fields here: text'),
        (
            "t.csv",
            ",".join(WIDE).encode() + b"\n" + b"," * 9999 + b"\n",
            't.csv:2: no field "label"; the fields here: c0,',
        ),
        (
            "t.jsonl",
            lines(*GOOD, {"text": ["x"], "label": "a"}),
            't.jsonl:21: field "text" is a list; a text or a number',
        ),
        (
            "t.jsonl",
            lines(*GOOD, {"text": {"x": 1}, "label": "a"}),
            't.jsonl:21: field "text" is a dict; a text or a number',
        ),
        ("t.jsonl", lines(*GOOD, {"text": "x", "label": 3}), "t.jsonl:21: unknown label 3 in field"),
        ("t.jsonl", lines(*GOOD, {"text": "x", "label": True}), "t.jsonl:21: unknown label True in field"),
    ],
)
def test_a_bad_file_is_one_line(
    name: str, content: bytes, message: str, small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sources, "SMALL", small)
    monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    (data / "task").mkdir(parents=True)
    (data / "task" / "own.yaml").write_text(TASK.replace("TRAIN", name))
    (data / "validation.jsonl").write_bytes(lines(*GOOD))
    (data / name).write_bytes(content)
    words = ["task=own", "data=local", f"data.dir={data}", "--config-dir", str(data), f"run.root={tmp_path / 'runs'}"]
    assert main([*words, "logger=none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: data/{message}"), line
    assert not (tmp_path / "runs").exists() and not [path for path in tmp_path.rglob("cache/**/*") if path.is_file()]


def test_ten_thousand_columns_and_mixed_types_are_read(own: Callable[..., DataConfig]) -> None:
    header, row = ",".join([*WIDE, "label"]), ",".join(["x"] * 9999)
    mixed: list[Any] = ["x", 3, 2.5, True, "4"] * 4
    data = own(
        {
            "wide.csv": header + "\n" + "".join(f"{row},last {n},{'ab'[n % 2]}\n" for n in range(20)),
            "mixed.jsonl": [{"c9999": value, "label": "ab"[n % 2]} for n, value in enumerate(mixed)],
        }
    )
    files = {"train": "wide.csv", "validation": "mixed.jsonl"}
    splits = load_splits(Task(TaskConfig("own", "{c9999}", labels={"a": [], "b": []}, files=files)), data)
    assert splits.train[0].source == "last 0"
    assert [one.source for one in splits.test[:5]] == ["x", "3", "2.5", "True", "4"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_line_of_two_gigabytes_is_refused_without_reading_it(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(b"text,label\n" if name == "t.csv" else b'{"text": "x", "label": "a"}\n')
        file.truncate(2**31)  # sparse: no room is taken
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"^{name}:2: a line of more than 128 MiB; are its ends missing\?$"):
            list(read_rows(tmp_path / name, name))
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 2**29


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing more than this many bytes into a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_while_examples_and_ids_are_stored(
    workers: int, own: Callable[..., DataConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SMALL", 0)
    cache = tmp_path / "cache" / "datasets"
    monkeypatch.setenv("MMPT_CACHE", str(cache.parent))
    rows = [{"text": "word " * 300 + str(n), "label": "ab"[n % 2]} for n in range(3000)]
    data = own({"t.jsonl": rows}, num_proc=workers)
    labels: dict[str, list[Any]] = {"a": [], "b": []}
    task = Task(TaskConfig("own", "{text}", labels=labels, files={"train": "t.jsonl", "validation": "t.jsonl"}))
    reading = TextToText(task, AutoTokenizer.from_pretrained(MODEL_DIR), 500)
    full = rf"{cache} cannot be written \(.*File too large.*free\); free some, or set MMPT_CACHE=DIR$"
    with largest_file(2**20), pytest.raises(DataError, match=f"^data: {full}") as caught:
        load_splits(task, data)
    assert "\n" not in str(caught.value) and list(cache.iterdir()) == []
    train = load_splits(task, data).train
    stored = set(cache.iterdir())
    with largest_file(2**20), pytest.raises(DataError, match=f"^tokens: {full}") as caught:
        reading.encode(train)
    assert "\n" not in str(caught.value) and set(cache.iterdir()) == stored
    assert len(reading.encode(train).features) == len(train)


@pytest.mark.slow
def test_a_disk_that_is_really_full_while_examples_are_stored(
    own: Callable[..., DataConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "word " * 300 + str(n), "label": "ab"[n % 2]} for n in range(3000)]
    task = TASK.replace("TRAIN", "t.jsonl").encode()
    data = own({"t.jsonl": rows, "validation.jsonl": GOOD, "task/own.yaml": task})
    with small_disk(tmp_path / "disk", "1m"):
        monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "disk"))
        words = ["task=own", "data=local", f"data.dir={data.dir}", "--config-dir", str(data.dir), "logger=none"]
        assert main([*words, f"run.dir={tmp_path / 'run'}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: data: ") and "No space left on device" in line
        assert (
            not [path for path in (tmp_path / "disk").rglob("*") if path.is_file()] and not (tmp_path / "run").exists()
        )
