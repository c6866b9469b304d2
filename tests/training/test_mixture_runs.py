"""Whole runs on a mixture of tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import mmpt
from mmpt.cli import main
from mmpt.config.schema import DataConfig
from mmpt.data.mixture import load_all
from mmpt.report.columns import by_task
from mmpt.report.details import metrics, routes_by_task
from mmpt.report.groups import group
from mmpt.report.load import load
from tests.commands import predict
from tests.training.test_model_kinds import directory_of

WORDS = ["task=mix", "mix.tasks=[rte,cb]", "data.limit_train=40", "data.limit_validation=20", "data.limit_test=20"]
WORDS += ["logger=none", "trainer.max_steps=4", "trainer.eval_strategy=steps", "trainer.eval_steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mixture") / "run"
    assert main([f"run.dir='{directory}'", *WORDS]) == 0
    return directory


def test_record_and_report_have_every_task(run: Path) -> None:
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    test = result["scores"]["test"]
    assert result["metric"] == "mean"
    assert test["mean"] == pytest.approx((test["rte/accuracy"] + test["cb/accuracy"]) / 2)
    (row,) = group(load([run]).runs)
    assert by_task(row) == f"rte {test['rte/accuracy']:.3f}, cb {test['cb/accuracy']:.3f}"
    shares = routes_by_task(metrics(row.runs[0]))
    assert list(shares) == ["rte", "cb"]
    assert all(sum(each) == pytest.approx(1, abs=1e-5) for each in shares.values())
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {len(line["probabilities"]) for line in lines} == {2, 3}  # each task's own label words
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5) for line in lines)


def test_every_example_is_ranked_among_its_own_labels_as_if_alone(run: Path) -> None:
    loaded = mmpt.load(run)
    split = loaded.evaluator.prepare(list(load_all(loaded.evaluator.task, DataConfig("bundled")).test[:3]))
    found = loaded.evaluator.predict(loaded.model, split, "ranking")
    for index, example in enumerate(split.examples):
        words = loaded.evaluator.task.of(example).words
        ids = [loaded.evaluator.candidates[loaded.evaluator.task.words.index(word)] for word in words]
        source = torch.tensor([split.features[index]["input_ids"]])
        alone = loaded.model.rank(loaded.model.encode(source, torch.ones_like(source)), ids)
        assert found.texts[index] == words[int(alone.argmax())]


def test_predicts_rows_that_name_their_task(run: Path) -> None:
    rows = [{"task": name, "premise": "a", "hypothesis": "b"} for name in ("cb", "rte")]
    assert [len(row["probabilities"]) for row in mmpt.load(run).predict(rows)] == [3, 2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", '{"task": "cb", "premise": "a", "hypothesis": "b"}\n'),
        ("rows.csv", "task,premise,hypothesis\ncb,a,b\n"),
    ],
)
def test_the_command_line_predicts_its_rows(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert predict([str(run), "--input", str(tmp_path / name)]) == 0
    assert len(json.loads(capsys.readouterr().out)["probabilities"]) == 3


@pytest.mark.parametrize("loss", ["cross_entropy", "label_ranking"])
def test_runs_on_a_decoder_only_model_from_cached_states(tmp_path: Path, loss: str) -> None:
    words = [*WORDS, f"model.path='{directory_of('llama', tmp_path)}'", "model=local", "method.layers=last_1"]
    for name, cache in (("cached", "ram"), ("plain", "off")):
        assert main([f"run.dir='{tmp_path / name}'", *words, f"cache={cache}", f"trainer.loss={loss}"]) == 0
    cached, plain = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("cached", "plain"))
    assert cached["scores"]["test"]["mean"] == plain["scores"]["test"]["mean"]
