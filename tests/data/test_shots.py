"""``task.shots``: training examples with their answers stand before every text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import main
from mmpt.config.schema import DataConfig, TaskConfig
from mmpt.data import sources
from mmpt.data.encode import Continuation
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import DataError
from mmpt.predictor import load

BUNDLED = DataConfig("bundled")


def shot(config: TaskConfig, count: int = 3, **more: Any) -> Task:
    return Task(replace(config, shots=count, **more))


def test_the_same_labelled_training_examples_stand_before_every_text(configs: dict[str, TaskConfig]) -> None:
    plain, splits = (load_splits(task, BUNDLED, seed=1) for task in (Task(configs["rte"]), shot(configs["rte"])))
    opening = splits.test[0].source.removesuffix(plain.test[0].source)
    drawn = [one for one in plain.train if f"{one.source} {one.target}\n\n" in opening]
    assert opening.count("\n\n") == len(drawn) == 3 and len(splits.train) == len(plain.train) - 3
    assert not {one.id for one in drawn} & {one.id for one in splits.train}
    for name in ("train", "validation", "test"):
        left = [one for one in getattr(plain, name) if one not in drawn]
        assert [(one.id, one.source, one.target) for one in getattr(splits, name)] == [
            (one.id, opening + one.source, one.target) for one in left
        ]
    again, other = (load_splits(shot(configs["rte"]), BUNDLED, seed=seed) for seed in (1, 2))
    assert again.fingerprint == splits.fingerprint != other.fingerprint != plain.fingerprint


def test_stored_examples_and_braces_read_the_same(
    configs: dict[str, TaskConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "cache"))
    rows = [{"x": f"{{a}} {n}", "label": f"}}{n % 2}"} for n in range(40)]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {name: f"{name}.jsonl" for name in ("train", "validation")}
    task, data = shot(TaskConfig("own", "{{x}} {x}", files=files)), DataConfig("local", str(tmp_path))
    at_once = load_splits(task, data, seed=5)
    monkeypatch.setattr(sources, "SMALL", 0)
    stored = load_splits(task, data, seed=5)
    assert list(stored.train) == list(at_once.train) and stored.fingerprint == at_once.fingerprint
    (example,) = stored.task.examples([("f:1", {"x": "new"})], require_label=False)
    assert example.source == stored.train[0].source[: stored.train[0].source.rindex("{x}")] + "{x} new"


def test_too_many_or_too_long_examples_are_one_line(configs: dict[str, TaskConfig]) -> None:
    from transformers import AutoTokenizer

    from mmpt.bundled import MODEL_DIR

    with pytest.raises(DataError, match=r"task.shots=20 leaves none of 20 training examples; lower it$"):
        load_splits(shot(configs["rte"], 20), replace(BUNDLED, limit_train=20))
    tokenizer, splits = AutoTokenizer.from_pretrained(MODEL_DIR), load_splits(shot(configs["rte"]), BUNDLED)
    with pytest.raises(DataError, match=r"begins with \d+ tokens .*data.max_length=40; raise it, or lower task.shots$"):
        Continuation(splits.task, tokenizer, 40)


RUN = ("method=ia3", "trainer.num_train_epochs=0", "logger=none")
LIMITS = ("data.limit_train=40", "data.limit_validation=20", "data.limit_test=20")


@pytest.mark.parametrize("task", ["task=rte", "task=mix ++mix.tasks=[rte,cb]"])
def test_a_run_without_training_predicts_from_the_examples_alone(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*task.split(), "task.shots=2", *RUN, *LIMITS, f"run.dir={tmp_path / 'run'}"]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert result["steps"] == 0 and result["data"]["train"] == 38 * (1 + ("mix" in task))
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["source"].count("\n\n") == 2 for row in rows)
    if "mix" not in task:
        (row,) = load(tmp_path / "run").predict([{"premise": "a dog runs", "hypothesis": "an animal runs"}])
        assert row["source"].startswith(rows[0]["source"][: rows[0]["source"].rindex("\n\n")])


def test_a_classification_head_reads_no_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task=rte", "task.shots=2", "model=bert_base", "data=bundled"]) == 2
    assert "writes no text, so it reads no examples before a text; set task.shots=0" in capsys.readouterr().err
    assert main(["task=rte", "task.shots=-1"]) == 2
    assert "task.shots=-1 is too small; it must be at least 0" in capsys.readouterr().err
