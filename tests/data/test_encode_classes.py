"""What models with a classification head read: pairs of texts, a text for each label, classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mmpt.config.schema import TaskConfig
from mmpt.data.collate import Collator
from mmpt.data.encode import Classes
from mmpt.data.tasks import Task
from mmpt.errors import ConfigError, DataError
from tests.tiny_encoders import checkpoint

LABELS: dict[str, list[Any]] = {"yes": [0], "no": [1]}
ROW = {"a": "one two three", "b": "four", "label": 1}
CHOICES = [["{a}", "{b}"], ["{b}", "{a}"]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint(tmp_path_factory.mktemp("base"), ["one", "two", "three", "four"]))


def task(**more: Any) -> Task:
    return Task(TaskConfig("t", "{a} {b}", labels=LABELS, **more))


def features(tokenizer: Any, longest: int = 20, row: dict[str, Any] = ROW, **more: Any) -> tuple[dict[str, Any], int]:
    made = task(**more)
    found = Classes(made, tokenizer, longest).encode([made.example(row, "row 1", require_label=False)])
    return found.features[0], found.truncated


def test_a_pair_is_joined_as_the_tokenizer_joins_it(tokenizer: Any) -> None:
    feature, truncated = features(tokenizer, pair=["{a}", "{b}"])
    assert feature == {
        "input_ids": [2, 4, 5, 6, 1, 7, 1],
        "token_type_ids": [0, 0, 0, 0, 0, 1, 1],
        "labels": [1],
        "index": 0,
    }
    assert truncated == 0


def test_without_a_pair_the_template_is_the_one_text(tokenizer: Any) -> None:
    assert features(tokenizer)[0]["input_ids"] == [2, 4, 5, 6, 7, 1]
    assert "labels" not in features(tokenizer, row={"a": "one", "b": "two"})[0]


def test_the_longer_text_of_a_pair_is_cut_and_counted(tokenizer: Any) -> None:
    feature, truncated = features(tokenizer, longest=6, pair=["{a}", "{b}"])
    assert feature["input_ids"] == [2, 4, 5, 1, 7, 1] and truncated == 1


def test_choices_are_a_source_for_each_label(tokenizer: Any) -> None:
    feature, _ = features(tokenizer, choices=CHOICES)
    assert feature["input_ids"] == [[2, 4, 5, 6, 1, 7, 1], [2, 7, 1, 4, 5, 6, 1]]
    short, _ = features(tokenizer, row={"a": "one", "b": "two", "label": 0}, choices=CHOICES)
    batch = Collator(0)([feature, short])
    assert batch["input_ids"].shape == batch["token_type_ids"].shape == (2, 2, 7)
    assert batch["attention_mask"].sum(dim=-1).tolist() == [[7, 7], [5, 5]]
    assert batch["labels"].tolist() == [[1], [0]]
    assert task(choices=CHOICES).outputs == 1 and task().outputs == 2


def test_free_text_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="has free text, which models with a classification head cannot write"):
        Classes(Task(TaskConfig("t", "{a}")), tokenizer, 9)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"pair": ["{a}", "{c}"]}, "names the field c, which task.template does not"),
        ({"pair": ["a", "b"]}, "names no field"),
        ({"pair": ["{a}", "{b}", "{a}"]}, "task.pair has 3 texts"),
        ({"pair": ["{a"]}, "task.pair='{a'"),
        ({"choices": [["{a}"]]}, "task.choices has 1 entries, and task.labels 2"),
        ({"choices": [["{a}"], []]}, r"task.choices\[1\] has 0 texts"),
        ({"choices": [["{a}"], ["{b}"]], "pair": ["{a}"]}, "both given"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(more: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        task(**more)
    assert len(str(caught.value).splitlines()) == 1


def test_every_shipped_task_says_how_heads_read_it(repo: Path) -> None:
    for path in (repo / "conf" / "task").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "mix.tasks" in text or "\npair: " in text or "\nchoices:" in text, path.name
