"""docs/extending.md, architecture.md, training.md: what they list is there, and their examples run as they stand."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cli import main
from mmpt.config.schema import CsvConfig, TaskConfig, TrainerConfig
from mmpt.data.metrics import TABLE, score
from mmpt.data.tasks import Task
from mmpt.utils import extensions
from tests import matrix

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SMALL = ["trainer.max_steps=3", "trainer.eval_strategy=no", "data.limit_train=64", "data.limit_validation=16"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, each named by its first line."""
    monkeypatch.setenv(extensions.VARIABLE, "")
    for _, name, text in re.findall(r"```(python|yaml)\n# DIR/(\S+)\n(.*?)```", PAGE, re.S):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "mine"


def test_metric_and_loss_of_the_page_make_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=rte", "task.metric=precision", "trainer.loss=focal", "method=prefix", "data.limit_test=32"]
    directory = folder.parent / "runs" / "one"
    assert main([*words, *SMALL, "--config-dir", str(folder), f"run.dir={directory}", "logger=none"]) == 0
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    low, high = result["scores"]["test"]["interval"]
    assert 0 <= low <= result["scores"]["test"]["precision"] <= high <= 1
    assert result["scores"]["chance"] == {"precision": 0.5}
    monkeypatch.chdir(folder.parent)
    capsys.readouterr()
    (reader,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/run_directory.md").read_text(encoding="utf-8"), re.S)
    exec(reader, {})
    assert capsys.readouterr().out.startswith("rte prefix 1 0.")


def test_the_weighted_loss_of_the_page_knows_the_label_of_each_target(folder: Path) -> None:
    words = ["task=rte", "trainer.loss=weighted", "method=prefix", "data.limit_test=32", f"run.dir={folder.parent}/run"]
    assert main([*words, *SMALL, "--config-dir", str(folder), "logger=none"]) == 0
    extensions.add_folder(folder)
    module = extensions.load("loss", "weighted")
    ids = module.TOKENIZER(["not_entailment", "entailment"], padding=True, return_tensors="pt")
    labels = ids["input_ids"].masked_fill(ids["attention_mask"] == 0, -100)
    assert module.weights(labels).tolist() == [3, 1] and module.weight(labels) == 4


def test_the_simple_metric_of_the_page(folder: Path) -> None:
    extensions.add_folder(folder)
    task = Task(TaskConfig("t", "{x}", metric="contains"))
    rows = [("f:1", {"x": 1, "label": "a"}), ("f:2", {"x": 2, "label": "b"})]
    assert score(task, list(task.examples(rows)), ["cat", "cat"]) == {"contains": 0.5}


def test_the_page_lists_every_metric() -> None:
    section = PAGE.split("### Built-in metrics")[1].split("\n\n- ")[0]
    assert set(re.findall(r"`(\w+)`(?=[^|]*\|[^|]*\|[^|]*\|$)", section, re.M)) >= set(TABLE)


def test_the_picture_of_the_architecture_has_every_folder() -> None:
    drawn = re.findall(r'class="name">(\w+)<', (ROOT / "docs/architecture.svg").read_text(encoding="utf-8"))
    folders = {path.parent.name for path in ROOT.glob("mmpt/*/__init__.py")}
    assert len(drawn) == len(set(drawn)) and set(drawn) == folders | {"predictor", "errors"}
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name, start in re.findall(r"^\| `(\w+)(?:\.py)?` \|[^|]*\| (?:`([\w.]+)`)?", page, re.M):
        assert name in drawn and (not start or (ROOT / "mmpt" / name / start).exists()), (name, start)


def test_the_page_about_training_lists_every_key_with_its_default() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    defaults = {
        item.name: {"None": "null", "True": "true", "False": "false"}.get(str(item.default), str(item.default))
        for item in dataclasses.fields(TrainerConfig)
    }
    assert dict(re.findall(r"^\| `(\w+)` \| ([\w.-]+) \|", page.split("## The loss")[0], re.M)) == defaults


def test_the_page_about_data_makes_a_task_and_submissions(tmp_path: Path) -> None:
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    shell = "".join(re.findall(r"```bash\n(.*?)```", page, re.S))
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", "-euo", "pipefail", "-c", shell]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "  beings text: the red lion 1 -> animal" in done.stdout and re.search(
        r"^train +18 +9 +9 ", done.stdout, re.M
    )
    header, *rows = (tmp_path / "CoLA.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t")[0] for row in rows] == ["0", "1"] and {row.split("\t")[1] for row in rows} <= {"0", "1"}
    sources = (tmp_path / "runs/cola/predictions.jsonl").read_text(encoding="utf-8")
    assert json.loads(sources.splitlines()[0])["source"] == 'cola sentence: The "dog" number 1 ran.'
    header, *rows = (tmp_path / "STS-B.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "index\tprediction" and len(rows) == 4
    assert all(0 <= float(row.split("\t")[1]) <= 5 for row in rows)
    assert json.loads((tmp_path / "RTE.jsonl").read_text(encoding="utf-8"))["idx"] == 0
    four = (tmp_path / "runs/four/predictions.jsonl").read_text(encoding="utf-8")
    assert json.loads(four.splitlines()[0])["source"].count("rte sentence1: ") == 5


def test_the_page_about_data_names_every_setting_of_reading() -> None:
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    keys = [f"task.csv.{item.name}" for item in dataclasses.fields(CsvConfig) if item.name != "columns"]
    keys += [
        "task.columns",
        "task.missing",
        "task.shots",
        "data.repo",
        "data.config",
        "data.revision",
        "data.streaming",
        "data.num_proc",
    ]
    assert not [key for key in keys if f"`{key}" not in page]


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_without_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Percentile bootstrap" in (tmp_path / "site/api/metrics/index.html").read_text(encoding="utf-8")


def test_the_tests_that_pages_name_exist() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"def (test_\w+)", tests))
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    named = set(re.findall(r"`(test_\w+)`", pages))
    assert named and named <= defined


def test_the_page_about_versions_has_the_tables_of_what_ran() -> None:
    page = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
    assert matrix.table(matrix.VERSIONS) in page
    assert matrix.table(matrix.PROCESSORS) in page
