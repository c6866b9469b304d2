"""What a split of millions of rows needs: arrays and Arrow batches in place of a Python object for each row."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mmpt.bundled import MODEL_DIR
from mmpt.cli import main
from mmpt.config.schema import DataConfig, TaskConfig, TrainerConfig
from mmpt.data import sources
from mmpt.data.encode import Classes, Continuation, TextToText
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.data.tokenized import TokenizedSplit
from mmpt.training.batches import Batches

LABELS = {"yes": [1], "no": [0]}
ROWS = [{"a": "word " * (n % 7), "b": f"text {n}", "label": n % 2} for n in range(40)]
CHOICES = [["{a}", "{b}"], ["{b}"]]
FILES = {"train": "train.jsonl", "validation": "train.jsonl"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "cache"))


def encoded(data: DataConfig, kind: Any, monkeypatch: pytest.MonkeyPatch, small: int, **more: Any) -> TokenizedSplit:
    monkeypatch.setattr(sources, "SMALL", small)
    task = Task(TaskConfig("t", "{a} {b}", files=FILES, missing="empty", **more))
    return kind(task, AutoTokenizer.from_pretrained(MODEL_DIR), 9).encode(load_splits(task, data).train)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (TextToText, {"labels": LABELS}),
        (Continuation, {"labels": LABELS}),
        (Continuation, {"label_field": "b"}),
        (Classes, {"labels": LABELS, "pair": ["{a}", "{b}"]}),
        (Classes, {"labels": LABELS, "choices": CHOICES}),
    ],
)
def test_stored_ids_are_as_long_as_those_in_memory(
    kind: Any, more: dict[str, Any], own: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = own({"train.jsonl": ROWS})
    memory, stored = (encoded(data, kind, monkeypatch, small, **more) for small in (2**20, 0))
    assert isinstance(memory.features, list) and not isinstance(stored.features, list)
    for name in ("lengths", "longest", "tokens"):
        assert getattr(memory, name).tolist() == getattr(stored, name).tolist(), name
    assert memory.truncated == stored.truncated > 0
    assert memory.of_longest().examples == stored.of_longest().examples
    assert list(memory.batches(7)) == list(stored.batches(7))
    sources_of = [ids for one in memory for ids in (one["input_ids"] if "choices" in more else [one["input_ids"]])]
    tokens = [len(ids) for ids in sources_of]
    if kind is not Continuation:
        assert memory.lengths.tolist() == tokens
    assert max(tokens) == memory.longest.max()


def test_the_name_of_stored_ids_follows_what_they_depend_on(
    own: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = own({"train.jsonl": ROWS})
    keys = [
        encoded(given, TextToText, monkeypatch, 0, labels=labels).key
        for given, labels in (
            (data, LABELS),
            (data, LABELS),
            (replace(data, limit_train=20), LABELS),
            (data, {"right": [1], "no": [0]}),
        )
    ]
    own({"train.jsonl": ROWS[1:]})
    keys.append(encoded(data, TextToText, monkeypatch, 0, labels=LABELS).key)
    assert keys[0] == keys[1] and len(set(keys)) == 4


def test_states_of_stored_ids_are_found_again_and_computed_for_others(
    own: Callable[..., DataConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "SMALL", 0)
    task = b"name: t\ntemplate: '{b} {a}'\nmissing: empty\nlabels: {'yes': [1], 'no': [0]}\n"
    task += b"files: {train: t.jsonl, validation: v.jsonl}\n"
    own({"task/t.yaml": task, "v.jsonl": ROWS[:10]})
    words = ["task=t", "data=local", f"data.dir={tmp_path}", "--config-dir", str(tmp_path), "method=multimask"]
    words += ["trainer.num_train_epochs=1", "trainer.eval_strategy=no", "logger=none"]
    said = []
    for number, rows in enumerate((ROWS, ROWS, ROWS[1:])):
        own({"t.jsonl": rows})
        assert main([*words, f"seed={number}", f"run.dir={tmp_path / str(number)}"]) == 0
        said.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("encoder: ")))
    assert ["read from the cache" in line for line in said] == [False, True, False], said


def test_an_epoch_of_a_million_examples_holds_no_object_for_each() -> None:
    size = 10**6
    batches = Batches(range(size), range(size), list, TrainerConfig(), 1)
    tracemalloc.start()
    try:
        rows = batches.rows(0)
        first = next(rows)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(first)) == 32
    assert held < size  # bytes; a list of as many numbers has 40 for each


GENERATE = """
BEGIN {
  print "text,label"
  for (i = s; i < s + n; i++) printf "the text of row %d is %s,%s\\n", i, i % 7, i % 3 ? "yes" : "no"
}
"""
TASK = "name: big\ntemplate: '{text}'\nlabels: {'yes': [], 'no': []}\n"
NAMES = "files: {train: train.csv, validation: validation.csv, test: test.csv}\n"


def peak(place: Path, rows: int) -> int:
    """Most bytes of anonymous memory of a run on a file of this many rows: not the pages of mapped files."""
    place.mkdir()
    for number, (name, count) in enumerate((("train", rows), ("validation", 100), ("test", 100))):
        with (place / f"{name}.csv").open("w") as file:
            words = ["awk", "-v", f"n={count}", "-v", f"s={number * 10**8}", GENERATE]
            subprocess.run(words, stdout=file, check=True)
    (place / "task").mkdir()
    (place / "task" / "big.yaml").write_text(TASK + NAMES)
    words = ["task=big", "data=local", f"data.dir={place}", "data.split=official", "method=prefix"]
    words += ["trainer.max_steps=3", "trainer.eval_strategy=no", "logger=none", f"run.dir={place / 'run'}"]
    command = [sys.executable, "-m", "mmpt", "train", *words, "--config-dir", str(place)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "MMPT_CACHE": str(place / "c")})
    most = [0]

    def watch() -> None:
        while running.poll() is None:
            status = Path(f"/proc/{running.pid}/status").read_text()
            most.extend(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert running.returncode == 0
    return max(most) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_grows_little_with_the_rows(tmp_path: Path) -> None:
    rows = 400_000
    assert peak(tmp_path / "large", rows) - peak(tmp_path / "small", 1000) < 300 * rows
