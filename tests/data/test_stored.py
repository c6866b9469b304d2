"""Stored examples, folders, patterns, compressed files and datasets by name give the same as files read at once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from mmpt.cli import main
from mmpt.config.schema import DataConfig, TaskConfig
from mmpt.data import sources
from mmpt.data.sources import Splits, load_splits
from mmpt.data.stored import StoredExamples
from mmpt.data.tasks import Task
from mmpt.errors import DataError

LABELS = ("entailment", "not_entailment")
ROWS = [{"premise": f"the café {n}", "hypothesis": "it is\nopen", "label": LABELS[n % 2], "idx": n} for n in range(60)]
PARTS = {"train": ROWS[:40], "val": ROWS[40:]}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MMPT_CACHE", str(place))
    return place


@pytest.fixture
def task(configs: dict[str, TaskConfig]) -> Task:
    return Task(configs["rte"])


def _named(task: Task, train: str) -> Task:
    return Task(replace(task.config, files={**task.config.files, "train": train}))


def _content(splits: Splits) -> tuple[Any, ...]:
    return splits.fingerprint, *map(list, (splits.train, splits.validation, splits.test))


def test_a_file_above_the_limit_is_stored_and_gives_the_same_examples(
    task: Task, own: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    data = own({f"{name}.jsonl": rows for name, rows in PARTS.items()}, limit_train=20)
    size = Path(str(data.dir), "train.jsonl").stat().st_size
    monkeypatch.setattr(sources, "SMALL", size)
    at_once = load_splits(task, data)
    assert isinstance(at_once.train, tuple) and not any(cache.iterdir())
    monkeypatch.setattr(sources, "SMALL", size - 1)
    stored = load_splits(task, data)
    assert isinstance(stored.train, StoredExamples) and isinstance(stored.test, tuple)
    assert _content(stored) == _content(at_once) and stored.notes == at_once.notes
    assert stored.train[3] == at_once.train[3] and stored.train[2:5] == list(at_once.train[2:5])
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}
    assert files and _content(load_splits(task, data)) == _content(at_once)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")} == files
    own({"train.jsonl": [{**ROWS[0], "premise": "another"}, *ROWS[1:40]]})
    assert load_splits(task, data).fingerprint != at_once.fingerprint


def test_a_bad_row_of_a_stored_file_is_named_and_nothing_is_left(
    task: Task, own: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(sources, "SMALL", 0)
    data = own({"train.jsonl": [*ROWS[:30], {**ROWS[30], "label": "perhaps"}], "val.jsonl": PARTS["val"]})
    with pytest.raises(DataError, match=r"train.jsonl:31: unknown label 'perhaps'"):
        load_splits(task, data)
    assert not list(cache.rglob("*.arrow"))
    lacking = own({"train.jsonl": [*ROWS[:30], {**ROWS[30], "premise": None}]})
    with pytest.raises(DataError, match=r"train.jsonl:31: .*premise"):
        load_splits(task, lacking)
    skipping = load_splits(Task(replace(task.config, missing="skip")), lacking)
    assert skipping.notes[0] == "1 rows with a missing value were left out (task.missing=skip)"
    assert len(skipping.train) + len(skipping.validation) == 30


@pytest.mark.parametrize("form", ["folder", "pattern", "gz", "arrow", "arrow pattern"])
def test_other_forms_of_a_file_give_the_same_examples(task: Task, own: Callable[..., DataConfig], form: str) -> None:
    data = own({f"{name}.jsonl": rows for name, rows in PARTS.items()})
    root, plain = Path(str(data.dir)), load_splits(task, data)
    if "arrow" in form:
        two = datasets.Dataset.from_list(PARTS["train"])
        two.save_to_disk(str(root / "saved"), num_shards=1 + ("pattern" in form))
        name = "saved/data-*.arrow" if "pattern" in form else "saved/data-00000-of-00001.arrow"
    elif form == "folder":
        datasets.Dataset.from_list(PARTS["train"]).save_to_disk(str(root / "saved"))
        name = "saved"
    elif form == "pattern":
        own({"part-1.jsonl": PARTS["train"][:25], "part-2.jsonl": PARTS["train"][25:]})
        name = "part-*.jsonl"
    else:
        (root / "train.csv.gz").write_bytes(
            gzip.compress(datasets.Dataset.from_list(PARTS["train"]).to_pandas().to_csv(index=False).encode())
        )
        name = "train.csv.gz"
    found = load_splits(_named(task, name), data)
    assert _content(found) == _content(plain)


def test_a_pattern_that_matches_nothing_and_a_broken_folder_are_one_line(
    task: Task, own: Callable[..., DataConfig], tmp_path: Path
) -> None:
    data = own({f"{name}.jsonl": rows for name, rows in PARTS.items()})
    with pytest.raises(DataError, match=r"part-\*.jsonl matches nothing in .*, which has: train.jsonl, val.jsonl$"):
        load_splits(_named(task, "part-*.jsonl"), data)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match=r"data-\*.arrow matches nothing in .*saved, which has: dataset_info.json$"):
        load_splits(_named(task, "saved"), data)


RUN = "task=rte data=local data.split=official trainer.max_steps=4 trainer.eval_strategy=no logger=none"


def test_a_run_on_stored_examples_predicts_the_same_with_any_number_of_processes(
    own: Callable[..., DataConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"train": ROWS[:40], "validation": ROWS[40:50], "test": ROWS[50:]}
    data, found = own({f"data/{name}.jsonl": rows for name, rows in parts.items()}), []
    names = f"task.files={{{','.join(f'{name}: {name}.jsonl' for name in parts)}}}"
    for number, (small, workers) in enumerate(((2**20, 1), (0, 1), (0, 2))):
        monkeypatch.setattr(sources, "SMALL", small)
        monkeypatch.setenv("MMPT_CACHE", str(tmp_path / f"cache{number}"))
        words = [*RUN.split(), names, f"data.dir={data.dir}/data", f"data.num_proc={workers}"]
        assert main([*words, f"run.dir={tmp_path / str(number)}"]) == 0
        assert any(tmp_path.glob(f"cache{number}/datasets/**/*.arrow")) is (small == 0)
        result = json.loads((tmp_path / str(number) / "result.json").read_text(encoding="utf-8"))
        predictions = (tmp_path / str(number) / "predictions.jsonl").read_bytes()
        found.append((predictions, result["scores"], result["data_fingerprint"], result["config_fingerprint"]))
    assert found[0] == found[1] == found[2]
    assert main([*RUN.split(), "data.dir=.", "data.num_proc=0"]) != 0
    assert "data.num_proc=0 is too small; it must be at least 1" in capsys.readouterr().err


def _repository(root: Path, configurations: tuple[str, ...]) -> Path:
    """A folder as a dataset's repository is: a file for each split of each configuration, and its card."""
    for configuration in configurations:
        (root / configuration).mkdir(parents=True)
        for split, rows in (("train", ROWS[:40]), ("validation", ROWS[40:])):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (root / configuration / f"{split}.jsonl").write_text(text, encoding="utf-8")
    stated = [
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - {{split: {split}, path: {name}/{split}.jsonl}}\n" for split in ("train", "validation"))
        for name in configurations
    ]
    (root / "README.md").write_text(f"---\nconfigs:\n{''.join(stated)}---\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("more", [{}, {"streaming": True, "limit_train": 36}])
def test_a_dataset_by_name_gives_the_same_examples(
    task: Task, own: Callable[..., DataConfig], tmp_path: Path, more: dict[str, Any]
) -> None:
    local = load_splits(task, own({f"{name}.jsonl": rows for name, rows in PARTS.items()}))
    repo = str(_repository(tmp_path / "repo", ("one",)))
    found = load_splits(task, DataConfig("hub", repo=repo, **more))
    assert _content(found) == _content(local) and found.origin == f"hub {repo} one"


def test_a_configuration_that_is_missing_or_wrong_lists_the_choices(task: Task, tmp_path: Path) -> None:
    repo = str(_repository(tmp_path / "repo", ("one", "other")))
    with pytest.raises(DataError, match=r"set data.config to one of one, other$"):
        load_splits(task, DataConfig("hub", repo=repo))
    with pytest.raises(DataError, match=r'set data.config to one of one, other; did you mean "other"'):
        load_splits(task, DataConfig("hub", repo=repo, config="othre"))
    with pytest.raises(DataError, match=r"data.streaming=true needs data.limit_train=N or trainer.max_steps=N"):
        load_splits(task, DataConfig("hub", repo=repo, config="one", streaming=True))
    assert len(load_splits(task, DataConfig("hub", repo=repo, config="other")).test) == 20
