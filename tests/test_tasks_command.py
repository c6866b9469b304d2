"""`mmpt tasks new` and `mmpt tasks check`: from a file to a task that trains."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from mmpt.cli import main as train
from mmpt.cli.app import main
from tests.tiny_encoders import checkpoint

ROWS = [(n, f"the {'red lion' if n % 2 else 'old oak'} number {n}", ("yes", "no")[n % 2], n * 1.5) for n in range(40)]


def write(path: Path, rows: list[tuple[object, ...]], header: str = "id,words,kind,weight") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows), ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".x", "a b"])
def test_a_name_of_a_task_is_no_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "new", str(write(Path("animals/train.csv"), ROWS)), "--name", name]) == 2
    assert f"--name {name} is no name" in capsys.readouterr().err
    assert not Path("mine").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "animals/train.csv", ROWS)
    assert main(["tasks", "new", str(file), "--config-dir", str(file)]) == 2
    said = capsys.readouterr().err
    assert "cannot write" in said and said.count("\n") == 1


def test_the_list_says_of_a_mixture_what_its_tasks_decide(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mix ")]
    assert " mean " in row and row.count("of mix.tasks") == 2


def test_a_new_task_of_a_file_is_checked_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(Path("animals/train.csv"), ROWS)
    write(Path("animals/dev.csv"), [*ROWS[:2], *((n, *rest) for n, *rest in [(90, "a new oak", "yes", 1)])])
    assert main(["tasks", "new", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    task = yaml.safe_load(Path("mine/task/animals.yaml").read_text(encoding="utf-8"))
    assert (task["label_field"], task["labels"]) == ("kind", {"no": ["no"], "yes": ["yes"]})
    assert task["files"] == {"train": "train.csv", "validation": "dev.csv"}
    assert told[1] == "  animals words: the old oak number 0 -> yes" and told[4].startswith("next: ")
    words = shlex.split(told[4])
    assert main(words[words.index("tasks") :]) == 0
    shown = capsys.readouterr().out
    head, *table = [line.split() for line in shown.splitlines()[1:5]]
    assert head[:4] == ["split", "examples", "no", "yes"]
    assert [row[:4] for row in table] == [
        ["train", "36", "18", "18"],
        ["validation", "4", "2", "2"],
        ["test", "3", "1", "2"],
    ]
    assert "note: 2 of 3 test examples read the same as one in train" in shown
    assert shown.splitlines()[-3] == "  animals words: the old oak number 0 -> yes"
    more = ["trainer.max_steps=1", "run.dir=run", "logger=none", "evaluation.bootstrap=0"]
    assert train(["--config-dir", "mine", "task=animals", "data=local", "data.dir=animals", *more]) == 0
    assert main(["tasks", "new", str(file)]) == 2
    assert "animals.yaml exists; choose another name with --name NAME" in capsys.readouterr().err


def test_what_is_cut_and_unknown_has_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint(tmp_path / "model", ["the", "is", "in"])
    assert main(["tasks", "check", "rte", "data.max_length=8", "model=local", f"model.path={model}"]) == 0
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if line.startswith("train")).split()
    assert row[-3:-1] == ["8", "100.0%"] and 0 < float(row[-1].rstrip("%")) < 100
    assert "the tokenizer does not know" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new", "FILE", "--label", "kinds"], "has no column 'kinds'; it has: id, words, kind, weight; did you mean"),
        (
            ["new", "FILE", "--text", "weight", "--label", "kind", "--name", "rows", "--delimiter", ";;"],
            "must be one character",
        ),
        (["new", "nothing.csv"], "nothing.csv: no such file"),
        (["new", "PLAIN"], "no column of plain.csv looks like a label; name it with --label COLUMN: a, b"),
        (["check", "rtee"], 'did you mean "rte"'),
        (["check", "rte", "data.max_lenth=3"], "max_length"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("rows.csv"), ROWS)
    write(Path("plain.csv"), [(n, f"word{n}") for n in range(9)], "a,b")
    names = {"FILE": "rows.csv", "PLAIN": "plain.csv"}
    assert main(["tasks", *(names.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not Path("mine").exists()


def test_many_different_answers_are_free_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "qa.csv", [(f"what is {n} now", f"it is {n}") for n in range(60)], "question,answer")
    assert main(["tasks", "new", str(file), "--config-dir", str(tmp_path / "mine")]) == 0
    task = yaml.safe_load((tmp_path / "mine/task/qa.yaml").read_text(encoding="utf-8"))
    assert (task["labels"], task["metric"], task["template"]) == ({}, "exact_match", "qa question: {question}")
    assert "files.validation" in capsys.readouterr().out
