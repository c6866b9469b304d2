"""Checkpoints: whole or not there, never executed, and found where the run directory was moved to."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from mmpt.cli import main
from mmpt.runs.record import RunRecord
from mmpt.training.checkpoint import last_checkpoint
from tests.training.test_run import SMALL, figures, metrics

WORDS = [*SMALL, "trainer.num_train_epochs=2", "trainer.logging_steps=2", "evaluation.bootstrap=0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "r"
    assert main([f"run.dir='{directory}'", *WORDS]) == 0
    return directory


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The run, as if it had been killed after its last checkpoint, in another place."""
    directory = tmp_path / "moved"
    shutil.copytree(finished, directory)
    status = json.loads((directory / "status.json").read_text(encoding="utf-8"))
    (directory / "status.json").write_text(json.dumps({**status, "status": "running"}), encoding="utf-8")
    (directory / "result.json").unlink()
    return directory


def test_a_run_that_was_moved_goes_on_with_its_own_best_checkpoint(finished: Path, unfinished: Path) -> None:
    hidden = finished.with_name("elsewhere")
    finished.rename(hidden)
    try:
        assert main([f"run.dir='{unfinished}'", *WORDS]) == 0
    finally:
        hidden.rename(finished)
    read = [json.loads((place / "result.json").read_text(encoding="utf-8")) for place in (finished, unfinished)]
    assert figures(read[0]) == figures(read[1])
    assert metrics(finished) == metrics(unfinished)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_pickle_in_a_checkpoint_is_not_executed(name: str, unfinished: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(unfinished / "executed"),)

    newest = last_checkpoint(unfinished / "checkpoints")
    assert newest is not None
    (newest / name).write_bytes(pickle.dumps(Hostile(), protocol=2))
    assert main([f"run.dir='{unfinished}'", *WORDS]) == 0  # from the checkpoint before, or from the beginning
    assert not (unfinished / "executed").exists()


def test_a_checkpoint_whose_best_one_is_gone_is_passed_over(unfinished: Path) -> None:
    checkpoints = unfinished / "checkpoints"
    for path in checkpoints.glob("checkpoint-*"):
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        (path / "state.json").write_text(json.dumps({**state, "best_step": 1}), encoding="utf-8")
    assert last_checkpoint(checkpoints) is None


def test_what_a_killed_process_left_is_put_in_order(unfinished: Path) -> None:
    checkpoints = unfinished / "checkpoints"
    newest = last_checkpoint(checkpoints)
    assert newest is not None
    newest.rename(checkpoints / f".{newest.name}.old")  # killed between two renames
    shutil.copytree(checkpoints / f".{newest.name}.old", checkpoints / f".{newest.name}.tmp")
    assert last_checkpoint(checkpoints) == newest
    assert not list(checkpoints.glob(".*"))


def test_lost_lines_of_metrics_are_told(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unfinished / "metrics.jsonl").write_text("", encoding="utf-8")
    assert main([f"run.dir='{unfinished}'", *WORDS]) == 0
    assert "metrics.jsonl has lost lines of steps up to 6" in capsys.readouterr().out


def test_the_lock_is_given_back(unfinished: Path) -> None:
    status = json.loads((unfinished / "status.json").read_text(encoding="utf-8"))
    record = RunRecord.open(unfinished, resolved={}, fingerprint=status["config_fingerprint"])
    record.interrupt()
    assert json.loads((unfinished / "status.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    RunRecord.open(unfinished, resolved={}, fingerprint=status["config_fingerprint"]).close()
