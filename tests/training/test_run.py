"""Whole runs on the bundled backbone: real trainer, real files, real interruptions."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mmpt.cli import main
from mmpt.runs.record import RunRecord, read_result
from mmpt.training.checkpoint import last_checkpoint
from mmpt.training.watch import FiniteWatch
from tests.runs.wandb_offline import history, records

ROOT = Path(__file__).parents[2]
SMALL = ["data.limit_train=96", "data.limit_validation=24", "data.limit_test=40", "logger=none"]
SHORT = [*SMALL, "trainer.num_train_epochs=2", "trainer.logging_steps=2"]


def run(directory: Path, *overrides: str) -> dict[str, Any]:
    """A run in this process that must succeed."""
    assert main([f"run.dir='{directory}'", *SHORT, *overrides]) == 0
    return json.loads((directory / "result.json").read_text(encoding="utf-8"))


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """All of a result but times and memory."""
    return {key: value for key, value in result.items() if key not in ("timing", "memory")}


def metrics(directory: Path) -> list[dict[str, Any]]:
    """All that is in metrics.jsonl but times."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "train/step_ms")} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished multimask run of two epochs, in a directory with a space and an umlaut."""
    directory = tmp_path_factory.mktemp("runs") / "mein Läufchen"
    run(directory)
    return directory


def test_a_run_directory_is_self_contained(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
    assert result["metric_range"] == [0.0, 1.0]
    assert not read_result(finished).problems()
    assert (result["task"], result["method"], result["model"], result["seed"]) == ("rte", "multimask", "bundled", 1)
    assert result["data"] | {"origin": ""} == {
        "name": "bundled",
        "bundled": True,
        "origin": "",
        "train": 96,
        "validation": 24,
        "test": 40,
        "truncated": 0,
    }
    assert result["steps"] == 6 and result["epochs"] == 2
    assert json.loads((finished / "status.json").read_text())["status"] == "done"
    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows)
    assert sum(row["correct"] for row in rows) / 40 == pytest.approx(result["scores"]["test"]["accuracy"])
    low, high = result["scores"]["test"]["interval"]
    assert low <= result["scores"]["test"]["accuracy"] <= high
    state = load_file(finished / "adapter" / "adapter.safetensors")
    assert sum(tensor.numel() for tensor in state.values()) == result["parameters"]["trainable"]
    assert result["parameters"]["bytes"] == (finished / "adapter" / "adapter.safetensors").stat().st_size
    stored = yaml.safe_load((finished / "config.yaml").read_text(encoding="utf-8"))
    assert stored["method"]["num_virtual_tokens"] == 10


def test_metrics_have_every_group_and_every_epoch(finished: Path) -> None:
    lines = metrics(finished)
    scored = [line for line in lines if "validation/accuracy" in line]
    assert [line["step"] for line in scored] == [3, 6]
    assert all(sum(line[f"routes/load_{r}"] for r in range(4)) == pytest.approx(1) for line in scored)
    (last,) = run_lines = [line for line in lines if "train/loss" in line][-1:]
    assert run_lines
    assert {"lr/prefix", "lr/masks", "lr/router"} <= set(last)
    assert last["lr/prefix"] == pytest.approx(100 * last["lr/router"])


def test_checkpoints_hold_the_method_and_never_the_backbone(finished: Path) -> None:
    (*_, newest) = sorted((finished / "checkpoints").iterdir())
    state = load_file(newest / "state.safetensors")
    assert {path.name for path in newest.iterdir()} == {"state.safetensors", "state.json"}
    trained = {name.split(".")[1] for name in state if name.startswith("parameters.")}
    assert trained == {"prefix", "masks", "router"}


def test_the_same_command_shows_the_result_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    run(finished)
    told = capsys.readouterr().out
    assert "this run is done" in told
    assert f"run directory: {finished}" in told.splitlines()
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}


def test_the_same_seed_gives_the_same_figures(finished: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again")
    assert figures(again) == figures(json.loads((finished / "result.json").read_text()))
    assert metrics(tmp_path / "again") == metrics(finished)
    other = run(tmp_path / "other", "seed=2", "trainer.max_steps=2", "trainer.eval_strategy=no")
    assert metrics(tmp_path / "other")[0] != metrics(finished)[0]
    assert other["data_fingerprint"] == again["data_fingerprint"]


def test_another_configuration_does_not_touch_the_directory(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "result.json").read_bytes()
    assert main([f"run.dir='{finished}'", *SHORT, "seed=7"]) == 2
    assert "belongs to another configuration" in capsys.readouterr().err
    assert (finished / "result.json").read_bytes() == before


@pytest.mark.parametrize("method", ["prefix", "smop", "prompt", "lora", "full"])
def test_every_method_runs_and_reloads(method: str, tmp_path: Path) -> None:
    from mmpt import load

    result = run(tmp_path / method, f"method={method}", "trainer.num_train_epochs=1", "task=cb")
    rows = [json.loads(line) for line in (tmp_path / method / "predictions.jsonl").read_text().splitlines()]
    from mmpt.bundled.tasks import records

    wanted = {row["source"] for row in rows}
    predictor = load(tmp_path / method)
    found = [row for row in predictor.predict(records("cb")["test"]) if row["source"] in wanted]
    assert len(found) == result["data"]["test"]
    by_source = {row["source"]: row["prediction"] for row in rows}
    assert all(row["prediction"] == by_source[row["source"]] for row in found)


def test_both_decodings_are_reported_under_their_own_names(tmp_path: Path) -> None:
    result = run(tmp_path / "both", "evaluation.decoding=[generation,ranking]", "evaluation.best_by=loss")
    assert result["scores"]["test"]["decoding"] == "generation"
    assert result["scores"]["test_ranking"]["decoding"] == "ranking"


def test_early_stopping_and_the_best_checkpoint_follow_one_criterion(tmp_path: Path) -> None:
    overrides = ["trainer.num_train_epochs=8", "evaluation.patience=2", "evaluation.best_by=loss"]
    result = run(tmp_path / "early", *overrides, "method.lr.prefix=5.0", "method.lr.masks=5.0", "optimizer=adamw")
    losses = {
        line["step"]: line["validation/loss"] for line in metrics(tmp_path / "early") if "validation/loss" in line
    }
    assert result["best_step"] == min(losses, key=lambda step: losses[step])
    best = json.loads((tmp_path / "early" / "result.json").read_text())["best_step"]
    assert result["steps"] == best + 6 or result["steps"] == 24


def test_accumulated_gradients_equal_one_large_batch(tmp_path: Path) -> None:
    router = ["method.perturb_router=false", "method.router_dropout=0.0"]
    fixed = ["trainer.max_steps=4", "trainer.logging_steps=1", *router]
    run(tmp_path / "one", *fixed, "trainer.per_device_train_batch_size=32")
    halves = ["trainer.per_device_train_batch_size=16", "trainer.gradient_accumulation_steps=2"]
    run(tmp_path / "two", *fixed, *halves)
    first, second = (
        [line["train/loss"] for line in metrics(tmp_path / n) if "train/loss" in line] for n in ("one", "two")
    )
    assert len(first) == 4
    assert first == pytest.approx(second, abs=1e-4)


def test_evaluation_by_steps_includes_the_last_one(tmp_path: Path) -> None:
    result = run(tmp_path / "steps", "trainer.max_steps=5", "trainer.eval_strategy=steps", "trainer.eval_steps=2")
    assert result["steps"] == 5
    assert [line["step"] for line in metrics(tmp_path / "steps") if "validation/loss" in line] == [2, 4, 5]


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    run(tmp_path / "r")
    checkpoints = tmp_path / "r" / "checkpoints"
    good = last_checkpoint(checkpoints)
    assert good is not None and good.name == "checkpoint-6"
    for name, spoil in (("checkpoint-7", "state.json"), ("checkpoint-8", "state.safetensors")):
        (checkpoints / name).mkdir()
        for file in ("state.json", "state.safetensors"):
            (checkpoints / name / file).write_bytes((good / file).read_bytes())
        (checkpoints / name / spoil).write_bytes((good / spoil).read_bytes()[:50])
    assert last_checkpoint(checkpoints) == good
    assert not (checkpoints / "checkpoint-8").exists()


def test_nan_loss_stops_the_run_and_names_step_and_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["optimizer=adamw", "method.lr.masks=1e30", "trainer.max_grad_norm=0.0", "trainer.num_train_epochs=4"]
    overrides += ["method.lr.prefix=1e30", "trainer.eval_strategy=no"]
    assert main([f"run.dir='{tmp_path / 'r'}'", *SMALL, *overrides]) == 2
    told = capsys.readouterr().err
    assert re.search(
        r"error: loss is nan at step \d+; parameters that are not finite are in group .*(prefix|masks)", told
    )
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "failed"


def test_parameters_that_are_not_finite_are_never_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["optimizer=adamw", "optimizer.weight_decay=1e30", "method.lr.masks=1e30", "trainer.max_steps=2"]
    words += ["scheduler=constant", "scheduler.warmup=0", "trainer.save_steps=1"]
    assert main([f"run.dir='{tmp_path / 'r'}'", *SMALL, *words]) == 2
    assert "after step 1 parameters are not finite, in group masks" in capsys.readouterr().err
    assert not list((tmp_path / "r").glob("checkpoints/checkpoint-*"))


def test_evaluation_by_steps_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    result = run(directory, "trainer.eval_strategy=steps", "trainer.logging_steps=2", "trainer.max_steps=8")
    assert result["best_step"] < 8 or (directory / "checkpoints" / "checkpoint-8").is_dir()
    assert (directory / "checkpoints" / f"checkpoint-{result['best_step']}").is_dir()


def test_nan_loss_that_is_only_noted_on_the_device_names_the_same_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    begin = FiniteWatch.__init__
    for waits in (True, False):

        def watch(self: FiniteWatch, *args: Any, waits: bool = waits) -> None:
            begin(self, *args)
            self.waits = waits

        monkeypatch.setattr(FiniteWatch, "__init__", watch)
        words = [f"run.dir='{tmp_path / str(waits)}'", *SMALL, "trainer.max_steps=9", "trainer.logging_steps=4"]
        assert main([*words, "method.lr.masks=1e30", "trainer.eval_strategy=no"]) == 2
        told.append(re.search(r"loss is nan at step (\d+)", capsys.readouterr().err))
    assert told[0] is not None and told[1] is not None and told[0][1] == told[1][1]


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["data=local", "data.dir=/no/such/folder"], "/no/such/folder"),
        (["model.path=/no/such/model"], "/no/such/model"),
        (["model=t5_base"], "cannot be fetched from the hub"),
        (["data=hub"], "data=local data.dir=DIR work offline"),
        (["trainer.num_train_epochs=-1"], "num_train_epochs"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(
    overrides: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run.dir='{tmp_path / 'r'}'", *SMALL, *overrides]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("error: ") and word in told[0]
    assert not (tmp_path / "r").exists()


def test_overwriting_begins_only_once_the_new_run_can(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "result.json").read_bytes()
    assert main([f"run.dir='{finished}'", *SHORT, "run.overwrite=true", "model=t5_base"]) == 2
    assert "hub" in capsys.readouterr().err
    assert (finished / "result.json").read_bytes() == before


def test_no_permission_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([f"run.dir='{tmp_path / 'file' / 'r'}'", *SMALL]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_directory_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = RunRecord.open(tmp_path / "r", resolved={}, fingerprint="f")
    assert main([f"run.dir='{tmp_path / 'r'}'", *SMALL]) == 2
    assert f"is in use by pid {os.getpid()}" in capsys.readouterr().err
    record.close()


def test_real_rte_on_the_bundled_backbone(superglue: Path, tmp_path: Path) -> None:
    result = run(
        tmp_path / "rte", "data=local", f"data.dir='{superglue}'", "data.limit_train=64", "trainer.max_steps=2"
    )
    assert result["data"]["bundled"] is False
    assert result["data"]["test"] == 40


def test_wandb_offline_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main([f"run.dir='{tmp_path / 'r'}'", *SHORT, "logger=wandb", "logger.mode=offline"]) == 0
    keys = {key for row in history(tmp_path / "r") for key in row}
    kinds = {record.WhichOneof("record_type") for record in records(tmp_path / "r")}
    assert {"train/loss", "validation/accuracy", "lr/masks", "routes/entropy"} <= keys
    assert any(key.startswith("masks/") for key in keys), keys
    assert "artifact" in kinds


def test_sources_of_threads_do_not_change_with_a_run() -> None:
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_a_starting_text_that_is_cut_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["method=prefix", "method.init=text", "method.init_text='is it true?'", "trainer.max_steps=1"]
    cut = run(tmp_path / "cut", *start, "method.num_virtual_tokens=2")["warnings"]
    assert len(cut) == 1
    found = re.fullmatch(
        r"method.init_text has (\d+) tokens, of which the start has the first 2; (\S+) keeps all", cut[0]
    )
    assert found, cut
    assert f"warning: {cut[0]}" in capsys.readouterr().out
    assert run(tmp_path / "whole", *start, found[2])["warnings"] == []
