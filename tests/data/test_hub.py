"""data=hub against a loopback stand-in of the hub: real parquet files, and replies that are late, cut or refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mmpt.config.schema import DataConfig, HubConfig, TaskConfig
from mmpt.data.metrics import majority, score
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
from tests.hub import Hub, served, use

FOLDER = Path(__file__).parents[2] / "conf" / "task"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if "\nhub:" in path.read_text(encoding="utf-8"))
# the columns of each task's files at the pinned revision, but for label and idx
COLUMNS = {
    "boolq": "question passage",
    "cb": "premise hypothesis",
    "copa": "premise choice1 choice2 question",
    "multirc": "paragraph question answer",
    "rte": "premise hypothesis",
    "wic": "word sentence1 sentence2 start1 start2 end1 end2",
    "wsc": "text span1_index span2_index span1_text span2_text",
    "cola": "sentence",
    "sst2": "sentence",
    "mrpc": "sentence1 sentence2",
    "qqp": "question1 question2",
    "qnli": "question sentence",
    "mnli": "premise hypothesis",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with served() as server:
        use(server, tmp_path / "home", monkeypatch, token=None)
        yield server


def task(name: str, **more: Any) -> Task:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Task(TaskConfig(**{**values, "hub": HubConfig(**{**values["hub"], **more})}))


def parquet(name: str, count: int, labels: int, start: int = 0) -> bytes:
    """A file with the task's columns, labels as class numbers."""
    rows = []
    for number in range(start, start + count):
        row: dict[str, Any] = {column: f"{column} ä {number}" for column in COLUMNS[name].split()}
        row["idx"] = {"paragraph": number // 4, "question": number // 2, "answer": number}
        rows.append(row | {"idx": row["idx"] if name == "multirc" else number, "label": number % labels})
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=16)
    return stream.getvalue()


def offer(hub: Hub, one: Task, train: int = 60, validation: int = 12) -> None:
    """Put a task's files where its YAML says, at the pinned revision."""
    stated, labels = one.config.hub, len(one.words)
    assert stated is not None
    files = {
        stated.files["train"]: parquet(one.name, train, labels),
        stated.files["validation"]: parquet(one.name, validation, labels, start=10_000),
    }
    hub.repos[f"datasets/{stated.repo}"] = {"main": files, stated.revision: files}


def test_every_task_with_hub_data_is_here() -> None:
    assert set(NAMES) == set(COLUMNS)


@pytest.mark.parametrize("name", NAMES)
def test_every_task_reads_the_columns_of_its_files(name: str, hub: Hub) -> None:
    one = task(name)
    offer(hub, one)
    splits = load_splits(one, DataConfig("hub"), seed=1)
    assert splits.origin == f"hub {one.config.hub.repo}@{one.config.hub.revision[:12]}" and not splits.bundled
    assert len(splits.train) + len(splits.validation) == 60 and len(splits.test) == 12
    assert {example.label for example in splits.test} == set(range(len(one.words)))
    assert "ä 10000" in splits.test[0].source
    truth = [str(example.target) for example in splits.test]
    assert score(one, splits.test, truth) == dict.fromkeys(one.metric_names, 1.0)
    assert score(one, splits.test, majority(one, splits.train, splits.test))[one.primary] < 1
    before = len(hub.requests)
    assert load_splits(one, DataConfig("hub"), seed=1) == splits
    assert len(hub.requests) == before  # a commit never changes: nothing is asked again


def test_a_reply_cut_in_the_middle_is_resumed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    one = task("rte")
    offer(hub, one, train=5000)
    size = len(hub.repos["datasets/aps/super_glue"]["main"]["rte/train-00000-of-00001.parquet"])
    hub.faults += [("GET", "train-", "cut"), ("GET", "train-", "cut"), ("GET", "validation-", "cut")]
    splits = load_splits(one, DataConfig("hub"), seed=1)
    assert len(splits.train) + len(splits.validation) == 5000 and len(splits.test) == 12
    assert not hub.faults and size / 4 < hub.resumed[0] <= size / 2 < hub.resumed[1] < size


@pytest.mark.parametrize(
    ("fault", "times", "message"),
    [
        (("GET", "train-", "cut at once"), 9, "cannot be fetched from http://127.0.0.1.*data=local"),
        (("HEAD", "train-", 429), 7, r"refused \(429\): too many requests"),
        (("HEAD", "train-", 500), 7, "the hub answers 500"),
        (("HEAD", "train-", 401), 1, "gives no access|401"),
        (("HEAD", "train-", 404), 1, "404|does not exist"),
    ],
)
def test_what_does_not_get_better_is_one_line(hub: Hub, fault: Any, times: int, message: str) -> None:
    one = task("rte")
    offer(hub, one)
    hub.faults += [fault] * times
    with pytest.raises(DataError, match=message) as caught:
        load_splits(one, DataConfig("hub"), seed=1)
    assert "\n" not in str(caught.value) and not hub.faults[5:]


def test_a_busy_hub_is_asked_again(hub: Hub) -> None:
    one = task("rte")
    offer(hub, one)
    hub.faults += [("HEAD", "train-", 429), ("HEAD", "train-", 503), ("HEAD", "train-", 502)]
    hub.faults += [("GET", "validation-", 429)]
    assert len(load_splits(one, DataConfig("hub"), seed=1).test) == 12
    assert not hub.faults and hub.waits[:2] == [1.0, 2.0]


def test_what_is_not_there_is_named(hub: Hub) -> None:
    one = task("rte")
    offer(hub, one)
    for more, message in (
        ({"repo": "aps/nothing"}, r"aps/nothing@.* does not exist \(RepositoryNotFoundError\).*check task.hub"),
        ({"revision": "f" * 40}, r"does not exist \(RevisionNotFoundError\); check task.hub"),
        ({"files": {"train": "x.parquet", "validation": "y.parquet"}}, r"x.parquet does not exist \(RemoteEntryNot"),
        ({"repo": "not a name"}, "hub: not a name@"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_splits(task("rte", **more), DataConfig("hub"), seed=1)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_is_named(hub: Hub) -> None:
    one = task("rte")
    offer(hub, one)
    files = hub.repos["datasets/aps/super_glue"]["main"]
    files["rte/train-00000-of-00001.parquet"] = b"<html>busy</html>"
    with pytest.raises(DataError, match=r"rte/train-00000-of-00001\.parquet: not readable as parquet"):
        load_splits(one, DataConfig("hub"), seed=1)
