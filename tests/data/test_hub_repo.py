"""``data=hub data.repo=OWNER/NAME`` through `datasets`, in processes of their own, against a stand-in of the hub."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import TOKEN, Hub, served

REPO = "somebody/pairs"
CARD = """---
configs:
- config_name: one
  data_files: [{split: train, path: one/train.jsonl}, {split: validation, path: one/validation.jsonl}]
- config_name: two
  data_files: [{split: train, path: two/train.jsonl}, {split: validation, path: two/validation.jsonl}]
---
"""
SCRIPT = """
import json, sys, time
slept = []
time.sleep = slept.append
from mmpt.config.schema import DataConfig, TaskConfig
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
task = Task(TaskConfig("pairs", "{a} {b}", labels={"yes": [1], "no": [0]}))
for settings in json.loads(sys.argv[1]):
    try:
        splits = load_splits(task, DataConfig("hub", **settings))
        print(json.dumps([splits.origin, len(splits.train), len(splits.test), splits.test[0].source]))
    except DataError as error:
        print(json.dumps(str(error)))
assert sum(slept) < 5, slept
"""
Load = Callable[..., list[Any]]


def split(first: int, count: int, **odd: Any) -> bytes:
    rows = [{"a": f"a{n}", "b": f"b{n}", "label": n % 2} for n in range(first, first + count)]
    return "".join(json.dumps(row) + "\n" for row in (*rows, *([odd] if odd else []))).encode()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with served() as server:
        files = {"README.md": CARD.encode()}
        for place, name in enumerate(("one", "two")):
            files |= {f"{name}/train.jsonl": split(0, 40), f"{name}/validation.jsonl": split(100 * (place + 1), 10)}
        server.commit(f"datasets/{REPO}", files)
        yield server


@pytest.fixture
def load(hub: Hub, tmp_path: Path) -> Load:
    """Loads datasets by their settings, one after another in a new process; what each gave, or its error."""

    def run(*settings: dict[str, Any], **variables: str) -> list[Any]:
        environment = {
            key: value for key, value in os.environ.items() if not re.search("proxy|^HF_", key, re.IGNORECASE)
        }
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        environment |= {"HF_HUB_DISABLE_XET": "1", "MMPT_CACHE": str(tmp_path / "cache"), **variables}
        words = [sys.executable, "-c", SCRIPT, json.dumps([{"repo": REPO, **one} for one in settings])]
        done = subprocess.run(words, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_a_dataset_is_read_by_its_name(hub: Hub, load: Load) -> None:
    whole = [f"hub {REPO} one", 36, 10, "a100 b100"]
    streamed = {"config": "one", "streaming": True, "limit_train": 20}
    found = load({"config": "one"}, {"config": "one", "revision": "main"}, streamed)
    assert found == [whole, whole, [f"hub {REPO} one", 20, 10, "a100 b100"]]
    hub.commit(f"datasets/{REPO}", {"one/validation.jsonl": split(500, 4)})  # the branch moves
    assert load({"config": "one"}) == [[f"hub {REPO} one", 36, 4, "a500 b500"]]
    asked = len(hub.requests)
    assert load({"config": "one"}, HF_HUB_OFFLINE="1") == [[f"hub {REPO} one", 36, 4, "a500 b500"]]
    assert len(hub.requests) == asked


def test_narrow_numbers_are_as_written(hub: Hub, load: Load) -> None:
    files = {}
    for name, first in (("train", 0), ("validation", 50)):
        numbers = [first + n + 0.8 for n in range(20)]
        table = pa.table({"a": pa.array(numbers, pa.float32()), "b": ["b"] * 20, "label": [0, 1] * 10})
        pq.write_table(table, sink := io.BytesIO())
        files[f"data/{name}.parquet"] = sink.getvalue()
    hub.commit("datasets/somebody/numbers", files)
    found = load(*({"repo": "somebody/numbers", "streaming": way, "limit_train": 10} for way in (False, True)))
    assert [one[3] for one in found] == ["50.8 b"] * 2


def test_what_is_missing_or_needs_code_is_one_line(hub: Hub, load: Load) -> None:
    code = b"import datasets\n\n\nclass Pairs(datasets.GeneratorBasedBuilder):\n    pass\n"
    hub.commit("datasets/somebody/script", {"script.py": code, "README.md": b"needs code"})
    hub.commit(
        "datasets/somebody/mixed", {"train.jsonl": split(0, 40, a=["x"], b="b", label=1), "test.jsonl": split(0, 9)}
    )
    hub.commit("datasets/somebody/empty", {".gitattributes": b""})
    found = load(
        {},
        {"config": "tow"},
        {"repo": "somebody/script"},
        {"repo": "somebody/nothing"},
        {"config": "one", "revision": "gone"},
        {"repo": "no name"},
        {"repo": "somebody/mixed"},
        {"repo": "somebody/empty"},
    )
    expected = (
        f"hub {REPO}: set data.config to one of one, two",
        f'hub {REPO}: set data.config to one of one, two; did you mean "two"?',
        "hub somebody/script: it needs code from the hub, which is never run; choose a revision with data files alone",
        "hub: somebody/nothing does not exist (RepositoryNotFoundError), or is private",
        f"hub: {REPO} does not exist (RevisionNotFoundError); check data.repo and data.revision",
        "hub no name: Repo id must",
        (
            'somebody/mixed train row 41: field "a" is a list; a text or a number is needed',
            "hub somebody/mixed: JSON parse error: Column(/a) changed from string to array in row 40",  # datasets < 4.8
        ),
        "hub somebody/empty: The directory at hf://datasets/somebody/empty",
    )
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning) and "\n" not in line, line


def test_a_refused_token_and_an_unreachable_hub_are_one_line(hub: Hub, load: Load, tmp_path: Path) -> None:
    assert load({"config": "one"})[0][1] == 36  # from now on there is something to fall back on
    hub.revoked.add("hf_revoked")
    (refused,) = load({"config": "one"}, HF_TOKEN="hf_revoked")
    assert refused.startswith(f"hub: {REPO} is refused (401): the token is wrong or has expired; set HF_TOKEN")
    (away,) = load({"config": "one"}, HF_ENDPOINT="http://127.0.0.1:9")
    assert away.startswith(f"hub: {REPO} cannot be fetched from http://127.0.0.1:9 (ConnectError); data=bundled")
    assert away.endswith("HF_HUB_OFFLINE=1 reads what was fetched before")
    (never,) = load({"config": "one"}, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "another"))
    assert never.startswith(f"hub: {REPO} cannot be fetched from ")
