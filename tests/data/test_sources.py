from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.compose import CONF, compose
from mmpt.config.schema import DataConfig, TaskConfig
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
from mmpt.training.settings import check, find_problems, plain

LABELS = ("entailment", "not_entailment")


def _rte(count: int, start: int = 0, labels: tuple[str, ...] = LABELS) -> list[dict[str, Any]]:
    return [
        {"premise": f"p{n}", "hypothesis": f"h{n}", "label": labels[n % len(labels)], "idx": n}
        for n in range(start, start + count)
    ]


def test_official_rte_is_cut_as_published(configs: dict[str, TaskConfig], superglue: Path) -> None:
    splits = load_splits(Task(configs["rte"]), DataConfig("local", dir=str(superglue)), seed=3)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2241, 249, 277)
    lines = (superglue / "RTE" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for index, label in enumerate(LABELS):
        ids = [str(row["idx"]) for row in rows if row["label"] == label]
        kept = [example.id for example in splits.validation if example.label == index]
        assert kept == ids[len(ids) - round(len(ids) * 0.1) :]
    assert not {example.id for example in splits.train} & {example.id for example in splits.validation}
    assert splits.origin.endswith("superglue/RTE")
    assert not splits.bundled
    assert splits == load_splits(
        Task(configs["rte"]), DataConfig("local", dir=str(superglue / "RTE")), seed=4
    )  # neither the seed nor pointing at the folder itself changes anything


@pytest.mark.parametrize("name", ["boolq", "cb", "copa", "multirc", "wic", "wsc"])
def test_official_directories_load(configs: dict[str, TaskConfig], superglue: Path, name: str) -> None:
    splits = load_splits(Task(configs[name]), DataConfig("local", dir=str(superglue)), seed=1)
    total = 321 if name == "multirc" else 64
    assert len(splits.train) + len(splits.validation) == total
    assert all(example.label is not None for part in (splits.train, splits.validation, splits.test) for example in part)
    groups = [{example.group for example in part} - {None} for part in (splits.train, splits.validation)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize("pick", ["last", "random"])
def test_held_out_keeps_label_shares_and_is_repeatable(
    configs: dict[str, TaskConfig], own: Callable[..., DataConfig], pick: str
) -> None:
    labels = (LABELS[0], LABELS[0], LABELS[0], LABELS[1])
    data = own({"train.jsonl": _rte(400, labels=labels), "val.jsonl": _rte(4, 900)}, validation_pick=pick)
    task = Task(configs["rte"])
    splits = load_splits(task, data, seed=1)
    assert Counter(example.label for example in splits.validation) == {0: 30, 1: 10}
    assert splits == load_splits(task, data, seed=99)
    order = [int(example.id) for example in splits.validation]
    assert order == sorted(order)
    assert (min(order) >= 360) == (pick == "last")


def test_held_out_leaves_both_splits_something(configs: dict[str, TaskConfig], own: Callable[..., DataConfig]) -> None:
    rows = [*_rte(4), {"premise": "x", "hypothesis": "y", "label": "neutral", "idx": 9}]
    config = replace(configs["rte"], labels={**configs["rte"].labels, "neutral": []})
    data = own({"train.jsonl": rows, "val.jsonl": _rte(2, 50)}, validation_fraction=0.01)
    splits = load_splits(Task(config), data, seed=1)
    assert Counter(example.target for example in splits.validation) == {"entailment": 1, "not_entailment": 1}
    assert Counter(example.target for example in splits.train)["neutral"] == 1


def test_limits_keep_shares_order_and_whole_questions(
    configs: dict[str, TaskConfig], superglue: Path, own: Callable[..., DataConfig]
) -> None:
    rows = [*_rte(90, labels=LABELS[:1]), *_rte(30, 90, LABELS[1:])]  # sorted by label, as WSC's file begins
    data = own({"train.jsonl": rows, "val.jsonl": _rte(40, 500)}, limit_train=12, limit_validation=4, limit_test=10)
    splits = load_splits(Task(configs["rte"]), data, seed=1)
    assert Counter(example.label for example in splits.train) == {0: 9, 1: 3}
    assert [example.id for example in splits.train][:9] == [str(n) for n in range(9)]
    assert (len(splits.validation), len(splits.test)) == (4, 10)
    task, data = Task(configs["multirc"]), DataConfig("local", dir=str(superglue))
    whole = Counter(example.group for example in load_splits(task, data, seed=1).test)
    for most in (15, 20, 33):
        part = Counter(example.group for example in load_splits(task, replace(data, limit_test=most), seed=1).test)
        assert 0 < part.total() <= most
        assert all(whole[group] == size for group, size in part.items())


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_own_files_of_every_format_read_the_same(configs: dict[str, TaskConfig], tmp_path: Path, suffix: str) -> None:
    pandas = pytest.importorskip("pandas")
    names = ("train", "validation", "test")
    for number, name in enumerate(names):
        frame = pandas.DataFrame(_rte(20, 100 * number))
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            frame.to_parquet(path, index=False)
        elif suffix == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    config = replace(configs["rte"], directory=None, files={name: f"{name}.{suffix}" for name in names})
    splits = load_splits(Task(config), DataConfig("local", dir=str(tmp_path)), seed=1)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [20, 20, 20]
    assert splits.test[3].source == "rte sentence1: p203 sentence2: h203"
    assert not any("data.split" in note for note in splits.notes)  # held_out is the default of data=local


def test_fingerprint_follows_what_the_model_reads(
    configs: dict[str, TaskConfig], own: Callable[..., DataConfig]
) -> None:
    task = Task(configs["rte"])
    rows = _rte(40)
    first = load_splits(task, own({"train.jsonl": rows, "val.jsonl": _rte(4, 50)}), seed=1).fingerprint
    unread = [row | {"idx": 1000 + row["idx"], "comment": "new"} for row in rows]
    assert load_splits(task, own({"train.jsonl": unread}), seed=1).fingerprint == first
    other = [rows[0] | {"premise": "p0 "}, *rows[1:]]
    assert load_splits(task, own({"train.jsonl": other}), seed=1).fingerprint != first
    relabelled = Task(replace(configs["rte"], labels={"yes": ["entailment"], "no": ["not_entailment"]}))
    assert load_splits(relabelled, own({"train.jsonl": rows}), seed=1).fingerprint != first


def test_overlaps_conflicts_and_absent_labels_are_noted(
    configs: dict[str, TaskConfig], own: Callable[..., DataConfig]
) -> None:
    train = _rte(20)
    train.append(train[0] | {"label": LABELS[1]})
    config = replace(configs["rte"], labels={**configs["rte"].labels, "neutral": []})
    data = own({"train.jsonl": train, "val.jsonl": [*_rte(3), *_rte(3, 70)]})
    notes = load_splits(Task(config), data, seed=1).notes
    assert "no train example has the label neutral" in notes
    assert "3 of 6 test examples read the same as one in train" in notes
    assert load_splits(Task(configs["rte"]), own({"train.jsonl": _rte(20)}), seed=1).notes == (
        "3 of 6 test examples read the same as one in train",
    )


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({"train.jsonl": _rte(9)}, {}, r"val.jsonl: no such file; .* has: train.jsonl"),
        ({"train.csv": "x"}, {}, r"has neither RTE/ nor train.jsonl, val.jsonl; it has: train.csv"),
        ({"rte/train.jsonl": _rte(9)}, {}, r"it has: rte/"),
        ({"RTE/train.jsonl": "", "RTE/val.jsonl": ""}, {}, r"RTE/train.jsonl: no rows"),
        ({"train.jsonl": _rte(9), "val.jsonl": "{\n"}, {}, r"val.jsonl:1: not JSON"),
        ({"train.jsonl": _rte(9), "val.jsonl": _rte(1, labels=("x",))}, {}, r"val.jsonl:1: unknown label 'x'"),
        ({"train.jsonl": _rte(9, labels=LABELS[1:]), "val.jsonl": _rte(2)}, {}, r'the one label "not_entailment"'),
        ({"train.jsonl": _rte(9), "val.jsonl": _rte(2)}, {"limit_train": 1}, r"the one label .*data.limit_train"),
        ({"train.jsonl": _rte(2), "val.jsonl": _rte(2)}, {}, r"validation split is empty .*validation_fraction"),
        ({"train.jsonl": _rte(9), "val.jsonl": _rte(2)}, {"split": "official"}, r"no test file .*data.split=held_out"),
    ],
)
def test_bad_directories_say_what_is_wrong_and_there(
    configs: dict[str, TaskConfig],
    own: Callable[..., DataConfig],
    files: dict[str, str | list[dict[str, Any]]],
    more: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_splits(Task(configs["rte"]), own(files, **more), seed=1)
    assert "\n" not in str(caught.value)


def test_bad_places(configs: dict[str, TaskConfig], tmp_path: Path) -> None:
    task = Task(configs["rte"])
    (tmp_path / "superglue").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for directory, message in (
        (None, "data=local needs data.dir"),
        (str(tmp_path / "superglu"), 'no such directory; did you mean "superglue"'),
        (str(tmp_path / "file"), "is a file"),
        (str(tmp_path / "superglue"), r"it has: \(nothing\)"),
    ):
        with pytest.raises(DataError, match=message):
            load_splits(task, DataConfig("local", dir=directory), seed=1)
    values = plain(check(compose(["data=local", "data.dir=."], CONF)))
    values["task"]["files"] = {}
    assert "task=rte has no task.files, so data=local cannot find its files" in find_problems(values)[0][1]
    with pytest.raises(DataError, match="names no train file"):
        load_splits(
            Task(replace(configs["rte"], files={"test": "file"})), DataConfig("local", dir=str(tmp_path)), seed=1
        )
    with pytest.raises(DataError, match="names no hub dataset"):
        load_splits(Task(replace(configs["rte"], hub=None)), DataConfig("hub"), seed=1)


def test_bundled_miniature_is_marked(configs: dict[str, TaskConfig]) -> None:
    pytest.importorskip("mmpt.bundled.tasks")
    splits = load_splits(Task(configs["rte"]), DataConfig("bundled"), seed=1)
    assert splits.bundled
    assert splits.origin == "bundled miniature (synthetic)"
    assert min(len(splits.train), len(splits.validation), len(splits.test)) > 0


HUB_SCRIPT = """
import sys, time
slept = []
time.sleep = slept.append
from mmpt.config.schema import DataConfig, HubConfig, TaskConfig
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
hub = HubConfig("nobody/nothing", "0" * 40, {"train": "train.parquet", "validation": "validation.parquet"})
config = TaskConfig("rte", "{premise} {hypothesis}", labels={"entailment": [0], "not_entailment": [1]}, hub=hub)
try:
    splits = load_splits(Task(config), DataConfig("hub"), seed=1)
    print("LOADED", splits.origin, len(splits.train), len(splits.test))
except DataError as error:
    print(error)
assert "torch" not in sys.modules
assert sum(slept) < 5, slept
"""


def _hub_run(home: Path, **more: str) -> str:
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home), **more}
    run = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_unreachable_hub_is_one_line_and_hardly_waited_for(tmp_path: Path) -> None:
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        line = _hub_run(tmp_path, **more)
        assert line.count("\n") == 0
        assert "cannot be fetched from http://127.0.0.1:9" in line
        assert "data=local data.dir=DIR work offline" in line


def test_cached_hub_files_load_without_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    snapshot = tmp_path / "hub" / "datasets--nobody--nothing" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name, count in (("train", 40), ("validation", 6)):
        rows = [{**row, "label": LABELS.index(row["label"])} for row in _rte(count)]
        pq.write_table(pa.Table.from_pylist(rows), snapshot / f"{name}.parquet")
    assert _hub_run(tmp_path) == "LOADED hub nobody/nothing@000000000000 36 6"
