"""``mmpt predict`` on the command line: what it says of labelled rows, and what servers of benchmarks take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mmpt
from mmpt.bundled.tasks import records
from mmpt.data.metrics import score
from tests.adapters import save
from tests.commands import predict


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_labelled_rows_are_scored_with_the_metrics_of_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, rows = save(tmp_path / "run", "task=cb", "task.metric=f1_macro"), records("cb")["test"][:12]
    unlabelled = {name: value for name, value in rows[0].items() if name != "label"}
    loaded = mmpt.load(run)
    task, texts = loaded.evaluator.task, [row["prediction"] for row in loaded.predict(rows)]
    values = score(task, list(task.examples((str(number), row) for number, row in enumerate(rows))), texts)
    assert predict([str(run), "--input", written(tmp_path / "rows.jsonl", [unlabelled, *rows])]) == 0
    right = round(values["accuracy"] * 12)
    said = f"{right} of 12 labelled rows are right ({right / 12:.3f}), f1_macro {values['f1_macro']:.3f}\n"
    assert capsys.readouterr().err == said
    assert predict([str(run), "--input", written(tmp_path / "rows.jsonl", [unlabelled])]) == 0
    assert capsys.readouterr().err == ""
    words = [
        f"a={run}",
        f"b={run}",
        "--input",
        written(tmp_path / "rows.jsonl", [{**row, "adapter": "b"} for row in rows]),
    ]
    assert predict(words) == 0
    assert capsys.readouterr().err == f"b: {said}"


def test_of_a_mixture_each_task_that_the_rows_name_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", "task=mix", "mix.tasks=[rte,cb,multirc]")
    rows = [{"task": "cb", **row} for row in records("cb")["test"][:6]]
    assert predict([str(run), "--input", written(tmp_path / "rows.jsonl", rows)]) == 0
    err = capsys.readouterr().err
    assert ", cb/accuracy " in err and ", cb/f1 " in err and "rte/" not in err


def lines(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


SPANS = {"target": {"span1_text": "a cat", "span2_text": "it", "span1_index": 0, "span2_index": 2}}
ROWS: dict[str, dict[str, Any]] = {
    "boolq": {"question": "is a cat red", "passage": "a cat."},
    "cb": {"premise": "a", "hypothesis": "b"},
    "copa": {"premise": "a", "choice1": "b", "choice2": "c", "question": "cause"},
    "rte": {"premise": "a", "hypothesis": "b"},
    "wic": {"word": "cat", "sentence1": "a cat", "sentence2": "the cat"},
    "wsc": {"text": "a cat sat. it ran.", **SPANS},
}


@pytest.mark.parametrize("name", ROWS)
def test_superglue_takes_the_idx_and_its_own_labels(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", f"task={name}", "data=local", f"data.dir={tmp_path}")  # WSC has no bundled data
    source = written(tmp_path / "test.jsonl", [{**ROWS[name], "idx": 7}, {**ROWS[name], "idx": 3}])
    assert predict([str(run), "--input", source]) == 0
    words = [row["prediction"] for row in lines(capsys)]
    assert predict([str(run), "--input", source, "--format", "superglue"]) == 0
    other: dict[str, Any] = {"copa": {"choice1": 0, "choice2": 1}, "boolq": {"False": "false", "True": "true"}}
    other["wic"] = other["boolq"]
    assert lines(capsys) == [
        {"idx": idx, "label": other.get(name, {}).get(word, word)} for idx, word in zip((7, 3), words, strict=True)
    ]


def passage(**idx: int) -> dict[str, Any]:
    answers = [{"text": "a", "idx": 5}, {"text": "b", **idx}]
    questions = [{"question": "q", "idx": 40, "answers": answers}, {"question": "r", "idx": 41, "answers": answers[:1]}]
    return {"text": "a cat sat.", "questions": questions}


def test_superglue_takes_the_answers_of_multirc_by_paragraph_and_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", "task=multirc")
    flat = {"paragraph": "a", "question": "b", "answer": "c", "idx": {"paragraph": 2, "question": 50, "answer": 9}}
    source = written(tmp_path / "test.jsonl", [{"idx": 3, "passage": passage(idx=6)}, flat])
    assert predict([str(run), "--input", source]) == 0
    labels = [int(row["prediction"] == "True") for row in lines(capsys)]
    assert predict([str(run), "--input", source, "--format", "superglue"]) == 0
    first = {"idx": 40, "answers": [{"idx": 5, "label": labels[0]}, {"idx": 6, "label": labels[1]}]}
    second = {"idx": 41, "answers": [{"idx": 5, "label": labels[2]}]}
    assert lines(capsys) == [
        {"idx": 3, "passage": {"questions": [first, second]}},
        {"idx": 2, "passage": {"questions": [{"idx": 50, "answers": [{"idx": 9, "label": labels[3]}]}]}},
    ]


@pytest.mark.parametrize(
    ("words", "rows", "form", "message"),
    [
        (["task=boolq"], [{**ROWS["boolq"], "idx": 0}], "glue", "has task=boolq; allowed: cola, mnli"),
        (["task=mix", "mix.tasks=[rte,cb]"], [], "superglue", "has task=mix; allowed: boolq, cb"),
        (["task=rte"], [ROWS["rte"]], "superglue", "test.jsonl:1: no whole number in idx"),
        (["task=rte"], [{**ROWS["rte"], "idx": 1}] * 2, "superglue", "idx 1 is that of "),
        (["task=multirc"], [{"idx": 0, "passage": passage()}], "superglue", "test.jsonl:1: no whole number in idx.par"),
        (
            ["task=multirc"],
            [{"passage": passage(idx=6)}],
            "superglue",
            "no whole number in idx.paragraph, idx.question",
        ),
        (
            ["task=rte", "task.labels={x: [7], y: [8]}"],
            [{**ROWS["rte"], "idx": 0}],
            "superglue",
            "task.labels are not SuperGLUE's (entailment, not_entailment)",
        ),
        (
            ["task=rte", "evaluation.decoding=[generation]"],
            [{**ROWS["rte"], "idx": 4}],
            "superglue",
            "is no label, and SuperGLUE takes labels alone: entailment, not_entailment",
        ),
    ],
)
def test_what_servers_would_misread_is_refused(
    words: list[str],
    rows: list[dict[str, Any]],
    form: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, source = save(tmp_path / "run", *words), written(tmp_path / "test.jsonl", rows)
    assert predict([str(run), "--input", source, "--format", form]) == 2
    found = capsys.readouterr()
    assert message in found.err and found.out == ""
