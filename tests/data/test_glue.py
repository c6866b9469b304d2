"""GLUE as downloaded: files in the layout of its archives, trained on and written as its server takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpt.cli import main
from mmpt.data.submissions import glue_table
from tests.commands import predict

SHORT = ("data=local", "trainer.max_steps=2", "trainer.eval_strategy=no", "logger=none", "evaluation.max_new_tokens=4")
STSB = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]


def stsb(folder: Path) -> None:
    """The archive's folder; its sentences have quotes that close in another row, or not at all."""
    folder.mkdir()
    for name, count in (("train", 30), ("dev", 6), ("test", 4)):
        lines = ["\t".join(STSB if name == "test" else [*STSB, "score"])]
        for n in range(count):
            cells = [
                str(n),
                "main-news",
                "MSRvid",
                "2012test",
                f"{n:04}",
                "none",
                "none",
                f'A "dog {n}',
                '"A" cat" sat.',
            ]
            lines.append("\t".join(cells if name == "test" else [*cells, f"{n % 6 * 0.95:.3f}"]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_stsb_is_a_regression_from_its_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stsb(tmp_path / "STS-B")
    run = tmp_path / "run"
    words = ["task=stsb", f"data.dir={tmp_path}", "evaluation.decoding=[generation]", f"run.dir={run}", *SHORT]
    assert main(words) == 0
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (result["metric"], result["data"]["train"], result["data"]["test"]) == ("pearson", 27, 6)
    first = json.loads((run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert (first["source"], first["target"]) == ('stsb sentence1: A "dog 1 sentence2: "A" cat" sat.', "0.950")
    test, output = tmp_path / "STS-B" / "test.tsv", tmp_path / "STS-B.tsv"
    assert predict([str(run), "--input", str(test), "--format", "glue", "--output", str(output)]) == 0
    header, *rows = (row.split("\t") for row in output.read_text(encoding="utf-8").splitlines())
    assert header == ["index", "prediction"] and [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert all(0 <= float(row[1]) <= 5 for row in rows)


@pytest.mark.parametrize(
    ("text", "score"), [("3.8", "3.800"), ("-2", "0.000"), ("7", "5.000"), ("similar", "0.000"), ("nan", "0.000")]
)
def test_scores_that_glue_takes(text: str, score: str) -> None:
    task = {"name": "stsb", "labels": {}, "metric": "pearson_spearman"}
    assert glue_table(task, [{"prediction": text}]) == f"index\tprediction\n0\t{score}\n"


def test_cola_has_no_header_and_quotes_are_text(tmp_path: Path) -> None:
    rows = [f'gj04\t{n % 2}\t{"" if n % 2 else "*"}\t"Dog" the {n} "ran.\n' for n in range(20)]
    (tmp_path / "train.tsv").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(rows[:5]), encoding="utf-8")
    (tmp_path / "test.tsv").write_text('index\tsentence\n0\tA "cat ran.\n', encoding="utf-8")
    run, output = tmp_path / "run", tmp_path / "CoLA.tsv"
    files = ("task.files={train: train.tsv, validation: dev.tsv}", "task.columns=[source,label,mark,sentence]")
    assert main(["task=cola", *files, f"data.dir={tmp_path}", f"run.dir={run}", *SHORT]) == 0
    sources = [json.loads(line)["source"] for line in (run / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert sources == [f'cola sentence: "Dog" the {n} "ran.' for n in range(5)]
    words = [str(run), "--input", str(tmp_path / "test.tsv"), "--format", "glue", "--output", str(output)]
    assert predict(words) == 0
    assert output.read_text(encoding="utf-8") in (f"index\tprediction\n0\t{label}\n" for label in (0, 1))
