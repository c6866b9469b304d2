from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.schema import TaskConfig
from mmpt.data.files import read_rows
from mmpt.data.tasks import Example, Task
from mmpt.errors import ConfigError, DataError

RTE_ROW = {"premise": "A b.", "hypothesis": "B a?", "label": "not_entailment", "idx": 7}


def test_example_renders_template_label_and_id(configs: dict[str, TaskConfig]) -> None:
    example = Task(configs["rte"]).example(RTE_ROW, "f:1")
    assert example.source == "rte sentence1: A b. sentence2: B a?"
    assert (example.id, example.target, example.label, example.group) == ("7", "not_entailment", 1, None)


@pytest.mark.parametrize(
    ("name", "count", "positive"),
    [
        ("boolq", 3270, None),
        ("cb", 56, None),
        ("copa", 100, None),
        ("multirc", 4848, None),
        ("rte", 277, 131),
        ("wic", 638, 319),
        ("wsc", 104, 38),
    ],
)
def test_official_validation_sets(
    configs: dict[str, TaskConfig], superglue: Path, name: str, count: int, positive: int | None
) -> None:
    config = configs[name]
    path = superglue / str(config.directory) / "val.jsonl"
    examples = list(Task(config).examples(read_rows(path, path.name)))
    assert len(examples) == count
    assert len({example.id for example in examples}) == count
    assert {example.label for example in examples} == set(range(len(config.labels)))
    if positive is not None:
        assert sum(example.label == 1 for example in examples) == positive


def test_multirc_answers_keep_question_and_passage(configs: dict[str, TaskConfig], superglue: Path) -> None:
    path = superglue / "MultiRC" / "val.jsonl"
    examples = list(Task(configs["multirc"]).examples(read_rows(path, path.name)))
    assert len({example.group for example in examples}) == 953
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])["passage"]
    question = first["questions"][0]
    assert examples[0].source == (
        f"question: {question['question']} answer: {question['answers'][0]['text']}. paragraph: {first['text']}"
    )
    assert examples[0].group == examples[len(question["answers"]) - 1].group != examples[len(question["answers"])].group


def test_flat_hub_rows_equal_the_official_layout(configs: dict[str, TaskConfig]) -> None:
    flat = {"text": "Tom saw him.", "span1_text": "Tom", "span2_text": "him", "span1_index": 0, "idx": 0, "label": 1}
    nested = {"text": "Tom saw him.", "target": {"span1_text": "Tom", "span2_text": "him"}, "idx": 0, "label": True}
    task = Task(configs["wsc"])
    assert list(task.examples([("f:1", flat)])) == list(task.examples([("f:1", nested)]))
    answer = {"paragraph": "P.", "question": "Q?", "answer": "A", "label": 1}
    hub = {**answer, "idx": {"paragraph": 3, "question": 5, "answer": 9}}
    passage = {
        "text": "P.",
        "questions": [{"question": "Q?", "idx": 5, "answers": [{"text": "A", "idx": 9, "label": 1}]}],
    }
    multirc = Task(configs["multirc"])
    one, two = multirc.examples([("f:1", hub), ("f:2", {"idx": 3, "passage": passage})])
    assert one == two
    assert (one.id, one.group, one.target) == ("3-5-9", "5", "True")


@pytest.mark.parametrize("raw", [True, 1, 1.0, "1", "True", "true", " TRUE "])
def test_one_label_in_every_spelling_of_the_formats(configs: dict[str, TaskConfig], raw: object) -> None:
    row = {"passage": "p", "question": "q", "label": raw}
    assert Task(configs["boolq"]).example(row, "f:1").target == "True"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"label": "not_entailmnt"},
            "f:1: unknown label 'not_entailmnt' in field \"label\"; allowed: entailment, .*mean",
        ),
        ({"label": 2}, "unknown label 2"),
        ({"label": None}, "f:1: unlabelled"),
        ({"label": -1}, "f:1: unlabelled"),
        ({"premise": None}, 'field "premise" is null'),
        ({"premise": ["x"]}, 'field "premise" is a list'),
        ({"premise": "\ud83d"}, "half a surrogate"),
    ],
)
def test_bad_values_are_named(configs: dict[str, TaskConfig], change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Task(configs["rte"]).example(RTE_ROW | change, "f:1")


def test_missing_field_names_the_fields_there_are(configs: dict[str, TaskConfig]) -> None:
    row = {"premis": "A", "hypothesis": "B", "more": {"x": 1}, "label": 0}
    with pytest.raises(DataError) as caught:
        Task(configs["rte"]).example(row, "rte.csv:3")
    assert str(caught.value) == (
        'rte.csv:3: no field "premise"; the fields here: premis, hypothesis, more.x, label; did you mean "premis"?'
    )


def test_prediction_needs_no_label_but_refuses_a_wrong_one(configs: dict[str, TaskConfig]) -> None:
    task = Task(configs["rte"])
    for label in ({}, {"label": None}, {"label": -1}, {"label": ""}, {"label": "?"}, {"label": float("nan")}):
        row = {"premise": "A", "hypothesis": "B"} | label
        example = task.example(row, "f:1", require_label=False)
        assert (example.target, example.label, example.id) == (None, None, "f:1")
    with pytest.raises(DataError, match="unknown label"):
        task.example(RTE_ROW | {"label": "maybe"}, "f:1", require_label=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["premise", "label"])
def test_nan_and_infinity_are_not_text(configs: dict[str, TaskConfig], field: str, value: float) -> None:
    with pytest.raises(DataError, match=r"f:1: (field \"premise\" is|unlabelled|unknown label)"):
        Task(configs["rte"]).example(RTE_ROW | {field: value}, "f:1")
    free = Task(TaskConfig("free", "{x}", group_field="g"))
    for row in ({"x": "a", "label": value, "g": 1}, {"x": "a", "label": "b", "g": value}):
        with pytest.raises(DataError, match="f:1: "):
            free.example(row, "f:1")


def test_unicode_forms_of_labels_and_fields_are_equal() -> None:
    composed, apart = (unicodedata.normalize(form, "tích cực") for form in ("NFC", "NFD"))
    for one, other in ((composed, apart), (apart, composed)):
        task = Task(TaskConfig("t", f"{{{one}}} {{in.{one}}}", labels={one: [], "b": []}, label_field=f"l{one}"))
        example = task.example({other: "x", "in": {other: "y"}, f"l{other}": other}, "f:1")
        assert (example.source, example.target, example.label) == ("x y", composed, 0)
    with pytest.raises(DataError, match="f:1: two fields are called"):
        Task(TaskConfig("t", "{a}")).example({"a": 1, composed: 1, apart: 2, "label": "x"}, "f:1")
    with pytest.raises(ConfigError, match="twice"):
        Task(TaskConfig("t", "{a}", labels={composed: [], apart: []}))


def test_words_that_yaml_reads_as_true_and_false_are_raw_values() -> None:
    task = Task(TaskConfig("t", "{x}", labels={"negative": [False], "positive": [True]}))  # [no], [yes] in YAML
    found = [task.example({"x": 1, "label": raw}, "f:1").target for raw in ("no", "Off", "yes", "on", True, "false")]
    assert found == ["negative", "negative", "positive", "positive", "positive", "negative"]
    with pytest.raises(ConfigError, match="two words; YAML reads no, off, yes and on as true or false: write such"):
        Task(TaskConfig("t", "{x}", labels={"a": [False], "b": [False]}))
    with pytest.raises(ConfigError, match=r"task.labels.a has the raw value null"):
        Task(TaskConfig("t", "{x}", labels={"a": [None], "b": [1]}))


def test_null_is_no_label_even_where_a_word_is_called_none() -> None:
    task = Task(TaskConfig("t", "{x}", labels={"None": [], "Some": []}))
    with pytest.raises(DataError, match="unlabelled"):
        task.example({"x": "y", "label": None}, "f:1")


def test_free_text_and_literal_braces_and_dotted_headers() -> None:
    task = Task(TaskConfig("own", "{{{a.b}}} {n}", label_field="answer"))
    example = task.example({"a.b": "{x}", "n": 3, "answer": "Ünïcode"}, "f:1")
    assert (example.source, example.target, example.label) == ("{{x}} 3", "Ünïcode", None)
    assert task.free_text
    assert task.metric_names == ("exact_match",)
    assert task.example({"a": {"b": "deep"}, "n": 1, "answer": 5}, "f:2").target == "5"
    with pytest.raises(DataError, match="unlabelled"):
        task.example({"a.b": "x", "n": 3, "answer": ""}, "f:3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "no field"}, "names no field"),
        ({"template": "{premise"}, "task.template"),
        ({"template": "{}"}, "plain {name}"),
        ({"template": "{premise!r}"}, "plain {name}"),
        ({"metric": "acuracy"}, 'did you mean "accuracy"'),
        ({"metric": "f1a_em"}, "group_field"),
        ({"labels": {}, "metric": "accuracy_f1"}, "needs task.labels"),
        ({"labels": {"a": []}}, "one word"),
        ({"labels": {"a": [1], "b": ["1"]}}, "to two words"),
        ({"labels": {"a": [], " ": []}}, "empty word"),
        ({"unroll": "record"}, "allowed: multirc, wsc"),
    ],
)
def test_impossible_definitions(configs: dict[str, TaskConfig], change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Task(replace(configs["rte"], **change))  # type: ignore[arg-type]


def test_half_nested_multirc_is_named(configs: dict[str, TaskConfig]) -> None:
    with pytest.raises(DataError, match=r"f:4: not the official MultiRC layout .*questions"):
        list(Task(configs["multirc"]).examples([("f:4", {"passage": {"text": "P"}})]))


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf"), "", " "])
@pytest.mark.parametrize("field", ["x", "label", "group"])
def test_missing_values_are_an_error_left_out_or_empty(value: Any, field: str) -> None:
    rows = [(f"f:{n}", {"x": "a", "label": "b", "group": "g", **({field: value} if n == 2 else {})}) for n in (1, 2, 3)]

    def read(missing: Any, **more: Any) -> list[Example]:
        task = Task(TaskConfig("own", "{x}", missing=missing, group_field="group", **more))
        return list(task.examples(rows))

    for labels in ({"labels": {"b": [], "c": []}}, {}):
        with pytest.raises(DataError, match=r"^f:2: .*task\.missing=skip"):
            read("error", **labels)
        assert [example.id for example in read("skip", **labels)] == ["f:1", "f:3"]
        if field == "x":
            assert [example.source for example in read("empty", **labels)] == ["a", "", "a"]
        else:
            with pytest.raises(DataError, match=r"^f:2: "):
                read("empty", **labels)
