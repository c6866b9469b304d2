"""The miniature tasks: fields, labels, splits, and that what they call true is true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from mmpt.bundled import tasks as bundled
from mmpt.errors import DataError
from tools.toy import tasks

FIELDS = {
    "boolq": ({"passage", "question"}, {False, True}),
    "cb": ({"premise", "hypothesis"}, {"entailment", "contradiction", "neutral"}),
    "copa": ({"premise", "choice1", "choice2", "question"}, {0, 1}),
    "multirc": ({"paragraph", "question", "answer"}, {0, 1}),
    "rte": ({"premise", "hypothesis"}, {"entailment", "not_entailment"}),
    "wic": ({"sentence1", "sentence2", "word"}, {False, True}),
}


def texts(row: dict[str, object], task: str) -> tuple[str, ...]:
    """The input of a row."""
    return tuple(str(row[name]) for name in sorted(FIELDS[task][0]))


@pytest.mark.parametrize("task", tasks.NAMES)
def test_official_fields_and_labels(task: str) -> None:
    fields, labels = FIELDS[task]
    for split, rows in tasks.records(task).items():
        assert rows, split
        for row in rows:
            assert fields <= row.keys()
            assert all(isinstance(row[name], str) and row[name] for name in fields)
            assert row["part"]
        assert {row["label"] for row in rows} == labels
        assert {type(row["label"]) for row in rows} == {type(label) for label in labels}


@pytest.mark.parametrize("task", tasks.NAMES)
def test_no_input_is_in_two_splits_or_twice(task: str) -> None:
    splits = tasks.records(task)
    assert list(splits) == ["train", "validation", "test"]
    every = [texts(row, task) for rows in splits.values() for row in rows]
    assert len(every) == len(set(every))
    shared = "paragraph" if task == "multirc" else None
    if shared is not None:
        seen = [{row[shared] for row in rows} for rows in splits.values()]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@pytest.mark.parametrize("task", tasks.NAMES)
def test_no_label_dominates(task: str) -> None:
    for rows in tasks.records(task).values():
        majority = Counter(row["label"] for row in rows).most_common(1)[0][1] / len(rows)
        assert (0.4 if task == "cb" else 0.5) <= majority <= 0.55


def test_multirc_answers_are_grouped_by_question() -> None:
    for rows in tasks.records("multirc").values():
        groups: dict[int, set[tuple[str, str]]] = {}
        for row in rows:
            assert row["idx"]["question"] == row["question_id"]
            groups.setdefault(row["question_id"], set()).add((row["paragraph"], row["question"]))
        assert all(len(found) == 1 for found in groups.values())
        sizes = Counter(row["question_id"] for row in rows)
        assert all(2 <= size <= 4 for size in sizes.values())


@pytest.mark.parametrize("task", ["rte", "boolq"])
def test_a_claim_alone_does_not_tell(task: str) -> None:
    """Word counts of the claim predict the label hardly better than the majority."""
    claim = {"rte": "hypothesis", "boolq": "question"}[task]
    splits = tasks.records(task)
    seen: dict[str, Counter[object]] = {}
    for row in splits["train"]:
        for word in set(row[claim].split()):
            seen.setdefault(word, Counter())[row["label"]] += 1
    first, second = sorted({row["label"] for row in splits["test"]}, key=str)
    right = 0
    for row in splits["test"]:
        counts = [seen.get(word, Counter()) for word in set(row[claim].split())]
        vote = sum((c[first] + 1) / (c[first] + c[second] + 2) - 0.5 for c in counts)
        right += row["label"] == (first if vote > 0 else second)
    assert right / len(splits["test"]) < 0.6


def test_the_same_in_every_process() -> None:
    code = "import json; from mmpt.bundled import tasks; print(json.dumps([tasks.records(n) for n in tasks.NAMES]))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(other) == [tasks.records(name) for name in tasks.NAMES]


def test_drawn_without_torch() -> None:
    code = (
        "import sys; from mmpt.bundled import tasks; [tasks.records(n) for n in tasks.NAMES]; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_are_the_callers_own() -> None:
    bundled.records("rte")["train"][0]["premise"] = "changed"
    assert bundled.records("rte")["train"][0]["premise"] != "changed"


def test_an_unknown_task_is_named_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r'no bundled miniature of task "rtee".*boolq.*did you mean "rte"'):
        bundled.records("rtee")
