"""The shipped task files, the bundled miniature and the bundled tokenizer fit each other and the official data."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmpt.bundled import MODEL_DIR
from mmpt.config.schema import DataConfig, HubConfig, TaskConfig
from mmpt.data.encode import TextToText
from mmpt.data.metrics import label_indices, majority, score
from mmpt.data.sources import Splits, load_splits
from mmpt.data.tasks import Task

FOLDER = Path(__file__).parents[2] / "conf" / "task"
MINIATURES = ("boolq", "cb", "copa", "multirc", "rte", "wic")
NAMES = (*MINIATURES, "wsc")


def _task(name: str) -> Task:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Task(TaskConfig(**{**values, "hub": HubConfig(**values["hub"])}))


def _check_scores(task: Task, splits: Splits) -> None:
    truth = [str(example.target) for example in splits.test]
    assert score(task, splits.test, truth) == dict.fromkeys(task.metric_names, 1.0)
    guess = score(task, splits.test, majority(task, splits.train, splits.test))
    assert all(value < 1 for value in guess.values())


@pytest.mark.parametrize("name", NAMES)
def test_official_data_loads_and_scores(name: str, superglue: Path) -> None:
    task = _task(name)
    splits = load_splits(task, DataConfig("local", dir=str(superglue)), seed=1)
    assert {example.label for example in splits.test} == set(range(len(task.words)))
    _check_scores(task, splits)


@pytest.mark.parametrize("name", MINIATURES)
def test_bundled_miniature_loads_and_scores(name: str) -> None:
    task = _task(name)
    splits = load_splits(task, DataConfig("bundled", split="official"), seed=1)
    assert splits.bundled
    assert splits.notes == ()
    _check_scores(task, splits)


def test_held_out_has_no_effect_on_the_miniature_and_says_so() -> None:
    task = _task("rte")
    kept, cut = (load_splits(task, DataConfig("bundled", split=split), seed=1) for split in ("official", "held_out"))
    assert kept.fingerprint == cut.fingerprint
    assert "data.split has no effect" in cut.notes[0]


@pytest.mark.parametrize("name", NAMES)
def test_bundled_tokenizer_tells_and_spells_the_labels(name: str) -> None:
    if not (MODEL_DIR / "tokenizer_config.json").exists():
        pytest.skip(f"no tokenizer in {MODEL_DIR}")
    from transformers import AutoTokenizer

    task = _task(name)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    encoding = TextToText(task, tokenizer, max_length=256)
    spelt = [tokenizer.decode(ids, skip_special_tokens=True) for ids in encoding.candidates]
    assert label_indices(task.words, spelt).tolist() == list(range(len(task.words)))  # a generated label is recognised
    if name not in MINIATURES:
        return
    splits = load_splits(task, DataConfig("bundled", split="official"), seed=1)
    encoded = encoding.encode(splits.test)
    assert encoded.truncated == 0
    assert all(tokenizer.unk_token_id not in feature["input_ids"] for feature in encoded.features)
